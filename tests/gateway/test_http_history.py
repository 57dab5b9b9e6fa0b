"""Back in time over HTTP: one order at each of its versions, all orders as of a time, what changed in between."""

from __future__ import annotations

import copy
import re
import time
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import quote

import pytest

from gateway import past
from processors.order.evolve import evolve
from schemas.base import Event
from schemas.events import EVENTS
from schemas.order import Order
from tests.gateway.conftest import SHIP_TO, UNKNOWN, Shop, problem
from tests.gateway.test_http_reads import pages, seen

pytestmark = pytest.mark.stack


@pytest.fixture
def life(shop: Shop) -> dict[str, Any]:
    """An order that was drafted, changed, placed, paid and cancelled, with its money given back."""
    sku = shop.product()
    order = shop.draft(sku, 2)
    path = f"/v1/orders/{order['id']}"
    assert shop.call("PATCH", f"{path}/items/L1", {"quantity": 3}).status_code == 200
    assert shop.call("POST", f"{path}/items", {"sku": shop.product(price="3.00"), "quantity": 1}).status_code == 200
    assert shop.call("PUT", f"{path}/shipping-address", {**SHIP_TO, "city": "Potsdam"}).status_code == 200
    assert shop.call("DELETE", f"{path}/items/L2").status_code == 200
    paid = shop.call("POST", f"{path}/submit", {"payment_token": "pm_card_visa"}, Prefer="wait=20").json()
    assert paid["status"] == "PAYMENT_CONFIRMED", paid
    assert shop.call("POST", f"{path}/cancel", {"reason": "changed_mind"}).status_code == 200
    return settled(shop, path)


def settled(shop: Shop, path: str) -> dict[str, Any]:
    """The order once it is cancelled and its money went back, and the timeline, another view, tells all of it."""
    deadline = time.monotonic() + 30
    while True:
        order: dict[str, Any] = shop.call("GET", path).json()
        events = shop.call("GET", f"{path}/events").json()["items"]
        refunded = order["refunds"] and all(refund["status"] == "completed" for refund in order["refunds"])
        if refunded and len(events) == order["version"]:
            return order
        assert time.monotonic() < deadline, order
        time.sleep(0.1)


def folded(shop: Shop, order_id: str) -> list[Order]:
    """An independent fold of what lies in the view, straight from the table."""
    rows = shop.stack.sql(
        "SELECT id, version, type, actor, correlation_id, causation_id, data, "
        "toUnixTimestamp64Micro(occurred_at) AS us FROM oms.order_events FINAL "
        "WHERE order_id = {id:String} ORDER BY version",
        id=order_id,
    )
    orders: list[Order] = []
    for row in rows:
        event: Event[Any] = Event(
            id=row["id"],
            order_id=order_id,
            version=int(row["version"]),
            occurred_at=datetime.fromisoformat("1970-01-01T00:00:00+00:00") + timedelta(microseconds=int(row["us"])),
            actor=row["actor"],
            correlation_id=row["correlation_id"],
            causation_id=row["causation_id"],
            previous_hash="",
            data=EVENTS.payloads[row["type"]].model_validate_json(row["data"]),
        )
        orders.append(evolve(orders[-1] if orders else None, event))
    return orders


def test_each_version_is_the_fold_of_its_events(shop: Shop, life: dict[str, Any]) -> None:
    path = f"/v1/orders/{life['id']}"
    orders = folded(shop, life["id"])
    assert len(orders) == life["version"]
    versions = []
    for order in orders:
        answer = shop.call("GET", f"{path}?version={order.version}")
        assert answer.status_code == 200, answer.text
        assert answer.headers["etag"] == f'"{order.version}"'
        found = answer.json()
        versions.append(found)
        assert (found["version"], found["status"], found["updated_at"]) == (
            order.version,
            order.status,
            order.updated_at.isoformat().replace("+00:00", "Z"),
        )
        assert [(line["line_id"], line["quantity"]) for line in found["items"]] == [
            (line.line_id, line.quantity) for line in order.lines
        ]
        assert found["total"]["amount"].replace(".", "").lstrip("0") == str(order.totals.total)
        assert [payment["status"] for payment in found["payments"]] == [payment.status for payment in order.payments]
    assert versions[-1] == life
    assert [v["shipping_address"]["city"] for v in versions[:5]] == ["Berlin", "Berlin", "Berlin", "Potsdam", "Potsdam"]
    assert shop.call("GET", f"{path}?version=1", If_None_Match='"1"').status_code == 304
    for found in versions:
        newest = max(v["version"] for v in versions if v["updated_at"] <= found["updated_at"])
        answer = shop.call("GET", f"{path}?as_of={found['updated_at']}")
        assert answer.json() == versions[newest - 1]


def test_a_version_is_there_as_soon_as_its_command_is_answered(shop: Shop) -> None:
    order = shop.draft(shop.product())
    assert seen(shop, order) == shop.call("GET", f"/v1/orders/{order['id']}?version=1&min_version=1").json()


def test_what_never_was(shop: Shop) -> None:
    order = shop.draft(shop.product())
    path = f"/v1/orders/{order['id']}"
    seen(shop, order)
    found = problem(shop.call("GET", f"{path}?version=2"), 404, "not-found")
    assert "its newest is 1" in found["detail"]
    before = datetime.fromisoformat(order["created_at"]) - timedelta(microseconds=1)
    found = problem(shop.call("GET", f"{path}?as_of={quote(before.isoformat())}"), 404, "not-found")
    assert order["created_at"] in found["detail"]
    assert shop.call("GET", f"{path}?as_of=2199-01-01T00:00:00Z").json() == order
    for query in ("version=1", f"as_of={order['created_at']}"):
        problem(shop.call("GET", f"{path}?{query}", as_="somebody-else"), 404, "not-found")
        problem(shop.call("GET", f"/v1/orders/{UNKNOWN}?{query}"), 404, "not-found")
        assert shop.call("GET", f"{path}?{query}", as_="staff").status_code == 200


@pytest.mark.parametrize(
    ("query", "fields"),
    [
        ("version=0", ["version"]),
        ("version=-1", ["version"]),
        ("version=one", ["version"]),
        ("version=1.5", ["version"]),
        ("as_of=yesterday", ["as_of"]),
        ("as_of=2026-01-01T00:00:00", ["as_of"]),
        ("as_of=", ["as_of"]),
        ("as_of=2026-01-01T00:00:00Z&version=x", ["version"]),
    ],
)
def test_nonsense_names_its_parameter(shop: Shop, query: str, fields: list[str]) -> None:
    found = problem(shop.call("GET", f"/v1/orders/{UNKNOWN}?{query}"), 422, "invalid-request")
    assert [error["field"] for error in found["errors"]] == fields


def test_a_version_or_a_time_not_both(shop: Shop) -> None:
    order = shop.draft(shop.product())
    seen(shop, order)
    answer = shop.call("GET", f"/v1/orders/{order['id']}?version=1&as_of={order['created_at']}")
    found = problem(answer, 422, "invalid-request")
    assert {error["field"] for error in found["errors"]} == {"version", "as_of"}


def test_the_changes_in_the_timeline_lead_from_each_version_to_the_next(shop: Shop, life: dict[str, Any]) -> None:
    path = f"/v1/orders/{life['id']}"
    events = shop.call("GET", f"{path}/events").json()["items"]
    assert [event["version"] for event in events] == list(range(1, life["version"] + 1))
    before: dict[str, Any] | None = None
    for event in events:
        after = shop.call("GET", f"{path}?version={event['version']}").json()
        assert event["changes"] == past.changes(before, after)
        before = copy.deepcopy(after)
    changed = {change["field"]: change for event in events[1:] for change in event["changes"]}
    assert changed["items[L1].quantity"] == {"field": "items[L1].quantity", "before": 2, "after": 3}
    assert changed["shipping_address"]["after"]["city"] == "Potsdam"
    assert (changed["items[L2]"]["after"], changed["items[L2]"]["before"]["quantity"]) == (None, 1)
    assert changed["status"]["after"] == "CANCELLED"
    assert [f for f in changed if re.fullmatch(r"payments\[.+\]\.status", f)]
    assert "sealed" not in shop.call("GET", f"{path}/events").text


# Everybody's orders


def whole(found: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [item for page in found for item in page]


def as_of(shop: Shop, when: str, more: str = "") -> list[dict[str, Any]]:
    """This customer's orders among all there were."""
    found = whole(pages(shop, f"/v1/admin/orders?as_of={quote(when)}&limit=100{more}", "staff"))
    return [item for item in found if item["customer_id"] == shop.customer]


def told(order: dict[str, Any]) -> dict[str, Any]:
    return {name: order[name] for name in ("id", "number", "customer_id", "created_at", "status", "version", "total")}


def test_all_orders_as_of_a_time(shop: Shop, life: dict[str, Any]) -> None:
    late = shop.draft(shop.product())
    seen(shop, late)
    path = f"/v1/orders/{life['id']}"
    versions = [shop.call("GET", f"{path}?version={n}").json() for n in range(1, life["version"] + 1)]
    for version in versions:
        newest = max((v for v in versions if v["updated_at"] <= version["updated_at"]), key=lambda v: v["version"])
        assert as_of(shop, version["updated_at"]) == [told(newest)]
        assert as_of(shop, version["updated_at"], f"&status={newest['status']}") == [told(newest)]
        assert as_of(shop, version["updated_at"], "&status=REFUNDED") == []
    moment = datetime.fromisoformat(life["created_at"]) - timedelta(microseconds=1)
    assert as_of(shop, moment.isoformat()) == []
    assert as_of(shop, late["created_at"]) == [told(late), told(life)]
    assert as_of(shop, late["created_at"], "&status=DRAFT&status=CANCELLED") == [told(late), told(life)]
    first = shop.call("GET", f"/v1/admin/orders?as_of={late['created_at']}&limit=1", as_="staff")
    assert first.json()["items"] == [told(late)]
    second = shop.call("GET", first.links["next"]["url"], as_="staff")
    assert second.json()["items"][0]["created_at"] <= late["created_at"]
    problem(
        shop.call("GET", f"/v1/admin/orders?as_of={life['created_at']}&cursor={first.json()['next']}", as_="staff"),
        422,
        "invalid-cursor",
        "cursor",
    )


def test_what_changed_between_two_times(shop: Shop, life: dict[str, Any]) -> None:
    path = f"/v1/orders/{life['id']}"
    events = shop.call("GET", f"{path}/events").json()["items"]
    submitted = next(event for event in events if event["type"] == "OrderSubmitted")
    paid = next(event for event in events if event["type"] == "OrderPaymentConfirmed")

    def changes(since: str, until: str) -> list[dict[str, Any]]:
        """This order among what changed, once the audit log (a second behind) has it."""
        query = f"from={quote(since)}&to={quote(until)}"
        found = whole(pages(shop, f"/v1/admin/changes?{query}&limit=100", "staff"))
        return [item for item in found if item["id"] == life["id"]]

    deadline = time.monotonic() + 20
    while not changes(events[-2]["occurred_at"], events[-1]["occurred_at"]):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    at_submission, at_payment = (
        shop.call("GET", f"{path}?as_of={event['occurred_at']}").json() for event in (submitted, paid)
    )
    assert changes(submitted["occurred_at"], paid["occurred_at"]) == [
        {
            "id": life["id"],
            "number": life["number"],
            "customer_id": shop.customer,
            "changed_at": paid["occurred_at"],
            "before": {name: at_submission[name] for name in ("status", "version", "total")},
            "after": {name: at_payment[name] for name in ("status", "version", "total")},
            "events": [e["type"] for e in events if submitted["occurred_at"] < e["occurred_at"] <= paid["occurred_at"]],
        }
    ]
    (everything,) = changes("2020-01-01T00:00:00Z", "2100-01-01T00:00:00Z")
    assert everything["before"] is None
    assert everything["after"] == {name: life[name] for name in ("status", "version", "total")}
    assert everything["events"] == [event["type"] for event in events]
    assert changes("2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z") == []


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("orders", "as_of"),
        ("orders?as_of=then", "as_of"),
        ("orders?as_of=2026-01-01T00:00:00Z&status=LOST", "status[0]"),
        ("orders?as_of=2026-01-01T00:00:00Z&limit=0", "limit"),
        ("changes?to=2026-01-01T00:00:00Z", "from"),
        ("changes?from=2026-01-01T00:00:00Z", "to"),
        ("changes?from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:00Z", "to"),
        ("changes?from=x&to=2026-01-01T00:00:00Z", "from"),
        ("changes?from=2026-01-01T00:00:00Z&to=2026-02-01T00:00:00Z&limit=101", "limit"),
    ],
)
def test_a_bad_question_names_its_parameter(shop: Shop, path: str, field: str) -> None:
    problem(shop.call("GET", f"/v1/admin/{path}", as_="staff"), 422, "invalid-request", field)


def test_only_staff_looks_at_everybodys_past(shop: Shop) -> None:
    for path in ("orders?as_of=2026-01-01T00:00:00Z", "changes?from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z"):
        problem(shop.call("GET", f"/v1/admin/{path}"), 403, "forbidden")
        problem(shop.call("GET", f"/v1/admin/{path}", as_=None), 401, "unauthorized")
