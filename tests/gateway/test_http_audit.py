"""The audit log over HTTP: who did what to what, when, and what it was before and after."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.gateway.conftest import SHIP_TO, Shop, problem
from tests.gateway.test_http_reads import pages

pytestmark = pytest.mark.stack

PATH = "/v1/admin/audit"


def logged(shop: Shop, count: int, **filters: Any) -> list[dict[str, Any]]:
    """What the log has for these filters, once there are so many entries (it is a second behind)."""
    query = urlencode(filters)
    deadline = time.monotonic() + 20
    while True:
        found = [entry for page in pages(shop, f"{PATH}?{query}", "staff") for entry in page]
        if len(found) >= count:
            assert len(found) == count, found
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


@pytest.fixture
def order(shop: Shop) -> dict[str, Any]:
    """A draft of which the customer changed the quantity, and staff the address."""
    order = shop.draft(shop.product(), 2)
    path = f"/v1/orders/{order['id']}"
    assert shop.call("PATCH", f"{path}/items/L1", {"quantity": 3, "reason": "guests"}).status_code == 200
    moved = shop.call("PUT", f"{path}/shipping-address", {**SHIP_TO, "postal_code": "10119"}, as_="staff")
    assert moved.status_code == 200, moved.text
    return order


def test_an_orders_entries_the_newest_first(shop: Shop, order: dict[str, Any]) -> None:
    moved, more, created = logged(shop, 3, order_id=order["id"], limit=1)
    assert [entry["what"] for entry in (created, more, moved)] == [
        "OrderCreated",
        "OrderLineItemQuantityChanged",
        "OrderShippingAddressChanged",
    ]
    assert [entry["version"] for entry in (created, more, moved)] == [1, 2, 3]
    assert {entry["subject"] for entry in (created, more, moved)} == {"order"}
    assert {entry["subject_id"] for entry in (created, more, moved)} == {order["id"]}
    assert (created["actor"], moved["actor"]) == (f"customer:{shop.customer}", f"staff:{shop.staff}")
    assert created["before"] is None
    assert created["after"]["number"] == order["number"]
    assert (more["why"], more["before"]["quantity"], more["after"]["quantity"]) == ("guests", 2, 3)
    assert created["at"] == order["created_at"]
    timeline = shop.call("GET", f"/v1/orders/{order['id']}/events?min_version=3").json()["items"]
    for entry, event in zip((created, more, moved), timeline, strict=True):
        assert {name: entry[name] for name in ("id", "actor", "correlation_id", "causation_id")} == {
            name: event[name] for name in ("id", "actor", "correlation_id", "causation_id")
        }


def test_addresses_show_no_person(shop: Shop, order: dict[str, Any]) -> None:
    moved = logged(shop, 3, order_id=order["id"])[0]
    assert moved["before"] == {"state": None, "postal_code": "10117", "country": "DE"}
    assert moved["after"] == {"state": None, "postal_code": "10119", "country": "DE"}
    text = shop.call("GET", f"{PATH}?order_id={order['id']}", as_="staff").text
    for hidden in ("sealed", "ciphertext", "fingerprint", "Lovelace", "Linden", "payment_token"):
        assert hidden not in text


def test_the_log_is_searched_by_anything(shop: Shop, order: dict[str, Any]) -> None:
    moved, more, created = logged(shop, 3, subject="order", subject_id=order["id"])
    mine = f"customer:{shop.customer}"
    assert logged(shop, 2, actor=mine) == [more, created]
    assert logged(shop, 1, actor=mine, what="OrderCreated") == [created]
    assert logged(shop, 2, order_id=order["id"], **{"from": more["at"]}) == [moved, more]
    assert logged(shop, 1, order_id=order["id"], to=more["at"]) == [created]
    assert logged(shop, 0, order_id=order["id"], what="OrderShipped") == []
    for odd in ("a\tb", "a\\", "'", "\n"):
        assert logged(shop, 0, actor=odd) == []


def test_stock_has_its_entries_too(shop: Shop) -> None:
    sku = shop.product(stock=5)
    (entry,) = logged(shop, 1, subject="stock", subject_id=f"{sku}#main")
    assert (entry["what"], entry["why"], entry["actor"]) == ("adjusted", "test", f"staff:{shop.staff}")
    assert (entry["before"]["on_hand"], entry["after"]["on_hand"], entry["after"]["quantity"]) == (0, 5, 5)


def test_who_changed_a_product_and_how(shop: Shop) -> None:
    sku = shop.product(price="10.00")
    (new,) = logged(shop, 1, subject="product", subject_id=sku)
    assert (new["what"], new["actor"], new["before"]) == ("put", f"staff:{shop.staff}", None)
    product = {"name": "A mug", "category": "home", "tax_category": "standard", "weight_grams": 300}
    dearer = {**product, "prices": [{"amount": "12.50", "currency": "EUR"}], "active": False}
    assert shop.call("PUT", f"/v1/admin/products/{sku}", dearer, as_="staff").status_code == 200
    changed, _ = logged(shop, 2, subject="product", subject_id=sku)
    assert changed["before"] == new["after"]
    assert (changed["before"]["prices"]["EUR"], changed["after"]["prices"]["EUR"]) == (1000, 1250)
    assert (changed["before"]["active"], changed["after"]["active"]) == (True, False)
    refused = shop.call("PUT", f"/v1/admin/products/{sku}", {**dearer, "weight_grams": -1}, as_="staff")
    problem(refused, 422, "invalid-request", "weight_grams")
    logged(shop, 2, subject="product", subject_id=sku)


def test_who_changed_how_a_customer_is_told_and_no_address(shop: Shop) -> None:
    path = f"/v1/customers/{shop.customer}/preferences"
    first = {"email": "ada@example.org", "phone": "+491701234567", "channel": "sms"}
    assert shop.call("PUT", path, first).status_code == 200
    assert shop.call("PUT", path, {"email": "ada@example.net", "language": "de"}, as_="staff").status_code == 200
    by_staff, own = logged(shop, 2, subject="customer", subject_id=shop.customer)
    assert (own["actor"], by_staff["actor"]) == (f"customer:{shop.customer}", f"staff:{shop.staff}")
    assert own["before"] is None
    assert (own["after"]["contacts"], own["after"]["new_contacts"]) == (["email", "phone"], ["email", "phone"])
    assert by_staff["before"] == {"channel": "sms", "language": "en", "opt_outs": [], "contacts": ["email", "phone"]}
    assert (by_staff["after"]["contacts"], by_staff["after"]["new_contacts"]) == (["email"], ["email"])
    assert (by_staff["after"]["channel"], by_staff["after"]["language"]) == ("email", "de")
    assert "ada@" not in shop.call("GET", f"{PATH}?subject=customer&subject_id={shop.customer}", as_="staff").text


def test_who_changed_a_promotion_and_how(shop: Shop) -> None:
    code = f"AUDIT{time.time_ns()}"
    for percent in ("10", "15"):
        terms = {"kind": "percentage", "percent": int(percent), "limit": 5}
        answer = shop.call("PUT", f"/v1/admin/promotions/{code}", terms, as_="staff")
        assert answer.status_code in (200, 201), answer.text
    changed, new = logged(shop, 2, subject="promotion", subject_id=code)
    assert (new["before"], new["after"]["limit"]) == (None, 5)
    assert (changed["before"]["terms"]["percent"], changed["after"]["terms"]["percent"]) == ("10", "15")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("subject=people", "subject"),
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("from=yesterday", "from"),
        ("to=2026-01-01", "to"),
        ("from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z", "to"),
        ("order_id=x&subject=order", "order_id"),
        ("order_id=x&subject_id=x", "order_id"),
        (f"actor={'x' * 201}", "actor"),
    ],
)
def test_a_bad_filter_names_its_parameter(shop: Shop, query: str, field: str) -> None:
    problem(shop.call("GET", f"{PATH}?{query}", as_="staff"), 422, "invalid-request", field)


def test_a_cursor_belongs_to_its_filters(shop: Shop, order: dict[str, Any]) -> None:
    logged(shop, 3, order_id=order["id"])
    first = shop.call("GET", f"{PATH}?order_id={order['id']}&limit=1", as_="staff")
    cursor = quote(first.json()["next"])
    problem(shop.call("GET", f"{PATH}?cursor={cursor}", as_="staff"), 422, "invalid-cursor", "cursor")
    problem(shop.call("GET", f"{PATH}?cursor=x", as_="staff"), 422, "invalid-cursor", "cursor")


def test_only_staff_reads_it(shop: Shop) -> None:
    problem(shop.call("GET", PATH), 403, "forbidden")
    problem(shop.call("GET", PATH, as_=None), 401, "unauthorized")
