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


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("subject=customer", "subject"),
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
