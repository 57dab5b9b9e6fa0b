"""Which lines of a past order can be had again, and which of them a new order lacks: without a stack."""

from __future__ import annotations

from typing import Any

from gateway.routes.reorder import judge, left_out
from processors.order.pricing import priced_line
from schemas.catalog import Product
from schemas.order import Line, Order
from tests.domain.order_lives import placed
from tests.support.examples import line, quote


def product(sku: str, price: int = 900, **changes: Any) -> Product:
    values = {
        "sku": sku,
        "product_id": f"P-{sku}",
        "name": f"Today's {sku.lower()}",
        "category": "home",
        "tax_category": "standard",
        "weight_grams": 1,
        "prices": {"EUR": price},
    }
    return Product(**{**values, **changes})


SHOP = {
    "MUG": product("MUG"),
    "LAMP": product("LAMP"),
    "OLD": product("OLD", active=False),
    "YEN": product("YEN", prices={"JPY": 100}),
    "MADE": product("MADE", backorder=True),
}
STOCK = {"MUG": 5, "LAMP": 0, "MADE": 0, "YEN": 7}


def lines(*wanted: tuple[str, int]) -> list[Line]:
    return [priced_line(f"L{i}", quote(sku), quantity) for i, (sku, quantity) in enumerate(wanted, start=1)]


def judged(*wanted: tuple[str, int], currency: str = "EUR") -> list[tuple[str, str | None, int | None]]:
    verdicts = judge(lines(*wanted), currency, SHOP.get, STOCK.get)
    return [(v.line.sku, v.reason, v.available) for v in verdicts]


def test_a_line_is_had_again_at_todays_price() -> None:
    (verdict,) = judge(lines(("MUG", 5)), "EUR", SHOP.get, STOCK.get)
    assert verdict.quote is not None
    assert (verdict.quote.unit_price, verdict.quote.name) == (900, "Today's mug")
    assert verdict.reason is None


def test_each_reason_has_its_name() -> None:
    assert judged(("GONE", 1), ("OLD", 1), ("YEN", 1), ("LAMP", 1), ("MUG", 6)) == [
        ("GONE", "not_for_sale", None),
        ("OLD", "not_for_sale", None),
        ("YEN", "no_price", 7),
        ("LAMP", "out_of_stock", 0),
        ("MUG", "too_few", 5),
    ]
    assert judged(("YEN", 7), currency="JPY") == [("YEN", None, None)]


def test_what_is_made_on_demand_or_was_never_counted_can_be_had() -> None:
    assert judged(("MADE", 3)) == [("MADE", None, None)]
    (verdict,) = judge(lines(("MUG", 99)), "EUR", SHOP.get, {}.get)
    assert verdict.quote is not None


def test_lines_of_one_sku_share_its_stock() -> None:
    assert judged(("MUG", 3), ("MUG", 3), ("MUG", 2)) == [
        ("MUG", None, None),
        ("MUG", "too_few", 2),
        ("MUG", None, None),
    ]


def new_order(*wanted: tuple[str, int]) -> Order:
    return placed(*(line(sku, quantity) for sku, quantity in wanted)).now


def test_what_is_missing_is_told_by_comparing() -> None:
    verdicts = judge(lines(("MUG", 3), ("LAMP", 1), ("MUG", 4)), "EUR", SHOP.get, STOCK.get)
    assert left_out(verdicts, new_order(("MUG", 3))) == [
        {"sku": "LAMP", "name": "A lamp", "reason": "out_of_stock", "requested": 1, "available": 0},
        {"sku": "MUG", "name": "A mug", "reason": "too_few", "requested": 4, "available": 2},
    ]


def test_a_repeat_is_about_the_first_answer() -> None:
    """Then the lamp was there and the mug was not; now it is the other way round."""
    verdicts = judge(lines(("MUG", 3), ("LAMP", 1)), "EUR", SHOP.get, STOCK.get)
    assert left_out(verdicts, new_order(("LAMP", 1))) == [
        {"sku": "MUG", "name": "A mug", "reason": "was_unavailable", "requested": 3, "available": None}
    ]
