"""The simulated shop's parts that need no shop: the catalogue, the plan, the arrivals, percentiles, the books."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest

from gateway.models import NewOrder, ProductBody
from sandbox.books import Books, audit
from sandbox.catalogue import catalogue
from sandbox.people import MAX_GRAMS, MIX, PLACES, Persona, arrivals, plan
from sandbox.shop import open_loop, order_body, percentile
from sandbox.shop_cli import run_async
from schemas.inventory import StockLevel
from schemas.order import Line, Order, Payment, Refund, Totals
from schemas.policy import load

POLICY = load()
BY_SKU = {product.sku: product for product in catalogue()}


# The catalogue


def test_the_catalogue_is_large_and_varied() -> None:
    assert len(BY_SKU) == len(catalogue()) >= 60
    assert len({product.category for product in catalogue()}) >= 6
    assert {product.tax_category for product in catalogue()} >= {"standard", "reduced"}
    assert 3 <= sum(product.scarce for product in catalogue()) <= 10


def test_every_product_has_a_positive_price_in_every_currency_and_is_one_the_gateway_takes() -> None:
    for product in catalogue():
        assert all(product.price(currency) > 0 for currency in ("EUR", "USD", "GBP", "JPY")), product
        ProductBody.model_validate(product.body())


# The plan


def test_the_same_seed_gives_the_same_plan_and_another_seed_another() -> None:
    assert list(plan(7, 200, catalogue())) == list(plan(7, 200, catalogue()))
    assert list(plan(7, 200, catalogue())) != list(plan(8, 200, catalogue()))


@pytest.mark.parametrize("count", [1, 10, 137, 1000])
def test_every_persona_has_its_share(count: int) -> None:
    found = Counter(visit.persona for visit in plan(1, count, catalogue()))
    assert found.total() == count
    for persona, share in MIX.items():
        assert abs(found[persona] - share * count) < 1, persona


def test_shares_add_up_to_one() -> None:
    assert math.isclose(sum(MIX.values()), 1.0)


def test_baskets_can_be_ordered() -> None:
    for visit in plan(3, 2000, catalogue()):
        skus = [sku for sku, _ in visit.basket]
        assert skus
        assert len(set(skus)) == len(skus)
        assert sum(BY_SKU[sku].weight_grams * quantity for sku, quantity in visit.basket) <= MAX_GRAMS
        assert any(BY_SKU[sku].scarce for sku in skus) is (visit.persona is Persona.WANTS_SCARCE)
        assert visit.shipping_method in POLICY.shipping
        NewOrder.model_validate(order_body(visit))


def test_a_draft_that_grew_can_still_be_shipped() -> None:
    limit = min(method.max_weight_grams for method in POLICY.shipping.values())
    for visit in plan(5, 3000, catalogue(), {Persona.BUILDS_DRAFT: 1.0}):
        assert visit.added is not None
        sku, quantity = visit.added
        grams = sum(BY_SKU[sku].weight_grams * count for sku, count in visit.basket)
        assert grams + BY_SKU[sku].weight_grams * (quantity + 1) <= limit


def test_we_ship_to_everyone() -> None:
    assert {place.country for place in PLACES} == {"DE", "FR", "US", "GB", "JP"}
    assert {place.country for place in PLACES} <= POLICY.countries
    assert all(place.currency in method.base for place in PLACES for method in POLICY.shipping.values())


def test_drafts_come_without_a_card_and_declined_cards_with_theirs() -> None:
    for visit in plan(1, 300, catalogue()):
        body = order_body(visit)
        draft = visit.persona in (Persona.BUILDS_DRAFT, Persona.ABANDONS_DRAFT)
        assert body["submit"] is not draft
        assert ("payment_token" in body) is not draft
        if visit.persona is Persona.DECLINED_CARD:
            assert body["payment_token"] == "pm_card_chargeDeclined"


# Arrivals and percentiles


def test_even_arrivals() -> None:
    assert list(arrivals(4.0, 5)) == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_random_arrivals_have_the_rate_and_are_the_same_for_the_same_seed() -> None:
    found = list(arrivals(50.0, 5000, seed=1))
    assert found == list(arrivals(50.0, 5000, seed=1))
    assert found == sorted(found)
    assert found[-1] == pytest.approx(100.0, rel=0.05)
    gaps = [after - before for before, after in pairwise(found)]
    assert max(gaps) > 5 * min(gaps)


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        next(arrivals(0.0, 1))


def test_percentiles_are_nearest_ranks() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (0, 50, 95, 99, 100)] == [1.0, 50.0, 95.0, 99.0, 100.0]
    assert percentile([3.0, 1.0], 50) == 1.0
    assert percentile([3.0, 1.0], 51) == 3.0
    assert math.isnan(percentile([], 95))


def test_the_open_loop_does_not_wait_for_slow_customers() -> None:
    """Ten customers, 10 ms apart, each served for 200 ms: closed, that would take 2 s. The one who comes late because
    the loop was blocked is measured from when he was due."""
    visits = list(plan(1, 10, catalogue()))
    lateness: list[float] = []

    async def serve(visit: Any, due: float) -> None:
        if visit.number == 0:
            time.sleep(0.06)  # noqa: ASYNC251 (the generator is held up: customers 1 to 5 are due meanwhile)
        else:
            lateness.append(time.perf_counter() - due)
        await asyncio.sleep(0.2)

    began = time.perf_counter()
    run_async(open_loop(visits, arrivals(100.0, 10), serve))
    assert time.perf_counter() - began < 1.0
    assert max(lateness) > 0.03


# The books


def order(number: int, status: str, *, paid: int | None = None, refunded: int = 0, sku: str = "MUG") -> Order:
    at = datetime(2026, 3, 2, tzinfo=UTC)
    line = Line(
        line_id="L1", product_id="P", sku=sku, name="A mug", category="home", tax_category="standard",
        weight_grams=400, quantity=2, unit_price=1000, line_total=2000,
    )  # fmt: skip
    attempt = f"attempt-{number}"
    payments = () if paid is None else (Payment(attempt_id=attempt, amount=paid, status="captured", refunded=refunded),)
    refunds = (
        (Refund(refund_id=f"r{number}", attempt_id=attempt, amount=refunded, status="completed", reason="cancelled"),)
        if refunded
        else ()
    )
    return Order(
        order_id=f"order-{number}", number=str(number), customer_id="c", status=status, version=4, currency="EUR",
        created_at=at, updated_at=at, lines=(line,), totals=Totals(), payments=payments, refunds=refunds,
    )  # fmt: skip


def charge(number: int, amount: int, kind: str = "charge") -> dict[str, Any]:
    status = "captured" if kind == "charge" else "refunded"
    return {"kind": kind, "attempt_id": f"attempt-{number}", "amount": amount, "currency": "EUR", "status": status}


def level(on_hand: int, reserved: int, sku: str = "MUG") -> dict[str, StockLevel]:
    return {f"{sku}#main": StockLevel(sku=sku, pool="main", on_hand=on_hand, reserved=reserved, shipped=0, version=1)}


GOOD = Books(
    orders=[
        order(1, "PAYMENT_CONFIRMED", paid=2400),
        order(2, "CANCELLED"),
        order(3, "CANCELLED", paid=2400, refunded=2400),
        order(4, "DRAFT"),
    ],
    ledger=[charge(1, 2400), {**charge(2, 2400), "status": "declined"}, charge(3, 2400), charge(3, 2400, "refund")],
    levels=level(8, 2),
)
ACCEPTED = {"order-1": True, "order-2": True, "order-3": True, "order-4": False}


def failing(books: Books, accepted: dict[str, bool] = ACCEPTED) -> list[str]:
    return [check.name.split()[0].rstrip(":") for check in audit(books, accepted, {"MUG": 10}) if not check.holds]


def test_good_books_balance() -> None:
    assert failing(GOOD) == []


@pytest.mark.parametrize(
    ("orders", "ledger", "levels", "accepted", "wrong"),
    [
        (GOOD.orders, GOOD.ledger, GOOD.levels, {**ACCEPTED, "order-9": True}, ["Every"]),
        ([order(1, "PENDING_PAYMENT", paid=2400), *GOOD.orders[1:]], GOOD.ledger, GOOD.levels, ACCEPTED, ["Every"]),
        (GOOD.orders, [*GOOD.ledger, charge(1, 2400)], GOOD.levels, ACCEPTED, ["Charges"]),
        (GOOD.orders, [*GOOD.ledger, charge(2, 2400)], GOOD.levels, ACCEPTED, ["Charges"]),
        (GOOD.orders, GOOD.ledger[1:], GOOD.levels, ACCEPTED, ["Charges"]),
        (GOOD.orders, GOOD.ledger[:-1], GOOD.levels, ACCEPTED, ["Refunds"]),
        ([*GOOD.orders[:2], order(3, "CANCELLED", paid=2400), GOOD.orders[3]], GOOD.ledger[:-1], GOOD.levels, ACCEPTED,
         ["Refunds"]),
        (GOOD.orders, GOOD.ledger, level(7, 2), ACCEPTED, ["Stock"]),
        (GOOD.orders, GOOD.ledger, level(6, 4), ACCEPTED, ["Stock"]),
        (GOOD.orders, GOOD.ledger, level(12, -2), ACCEPTED, ["Stock"]),
        (GOOD.orders, GOOD.ledger, {}, ACCEPTED, ["Stock"]),
    ],
    ids=[
        "an order is missing", "an order has not ended", "charged twice", "charged for a cancelled order",
        "a capture that never was", "a refund not paid out", "money kept for a cancelled order", "a unit is gone",
        "units reserved for nobody", "a negative count", "no level",
    ],
)  # fmt: skip
def test_books_that_do_not_balance_say_where(
    orders: list[Order],
    ledger: list[dict[str, Any]],
    levels: dict[str, StockLevel],
    accepted: dict[str, bool],
    wrong: list[str],
) -> None:
    assert failing(Books(orders, ledger, levels), accepted) == wrong


def test_an_abandoned_draft_that_was_placed_is_told() -> None:
    orders = [*GOOD.orders[:3], order(4, "PAYMENT_CONFIRMED", paid=1, sku="OTHER")]
    assert failing(Books(orders, [*GOOD.ledger, charge(4, 1)], GOOD.levels)) == ["Every"]


def test_repeat_customers_come_back() -> None:
    customers = [visit.customer.id for visit in plan(1, 400, catalogue())]
    assert 50 < len(set(customers)) <= 100
