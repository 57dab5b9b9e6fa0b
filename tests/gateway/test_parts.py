"""The gateway's pure parts: ids, cursors, card numbers, problems, documents."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import cursor, ids
from gateway.cards import card_field, contains_card_number, luhn
from gateway.documents import addresses_in, event_json, order_json
from gateway.problems import Problem, field_of, rejected
from processors.order.decide import decide
from processors.order.evolve import evolve
from schemas import events as e
from schemas.base import Event, Payload
from schemas.order import Hold, Order
from schemas.replies import Rejection
from tests.support.examples import POLICY, command, create, line

# Ids


def test_a_command_id_is_the_same_for_the_same_request_only() -> None:
    first = ids.command_id("customer:1", "POST", "/v1/orders", "k")
    assert first == ids.command_id("customer:1", "POST", "/v1/orders", "k")
    others = {
        ids.command_id("customer:2", "POST", "/v1/orders", "k"),
        ids.command_id("staff:1", "POST", "/v1/orders", "k"),
        ids.command_id("customer:1", "PUT", "/v1/orders", "k"),
        ids.command_id("customer:1", "POST", "/v1/orders/x", "k"),
        ids.command_id("customer:1", "POST", "/v1/orders", "k2"),
        ids.command_id('customer:1","POST', "", "/v1/orders", "k"),
        ids.order_id_of(first),
        ids.requote_id(first, 1),
        ids.requote_id(first, 2),
    }
    assert len(others | {first}) == 10
    assert all(ids.is_uuid(found) for found in others)


def test_without_a_key_every_request_is_one_of_its_own() -> None:
    assert len({ids.command_id("c", "POST", "/", None) for _ in range(100)}) == 100


@pytest.mark.parametrize("text", ["", "1", "x" * 36, "00000000-0000-4000-8000-00000000000G", "{" + "0" * 34 + "}"])
def test_what_is_no_order_id(text: str) -> None:
    assert not ids.is_uuid(text)


# Cursors

FILTERS = {"status": ["DRAFT"], "sku": "x"}


@given(st.integers(0, 2**60), st.text(max_size=40))
def test_a_cursor_comes_back(micros: int, order_id: str) -> None:
    made = cursor.encode([micros, order_id], FILTERS)
    assert made.isascii()
    assert cursor.decode(made, FILTERS, (int, str)) == [micros, order_id]


@given(st.text(max_size=60))
def test_any_other_text_is_no_cursor(text: str) -> None:
    with pytest.raises(Problem) as error:
        cursor.decode(text, FILTERS, (int, str))
    assert (error.value.status, error.value.errors[0][0]) == (422, "cursor")


@pytest.mark.parametrize(
    ("position", "filters"), [([1, "a"], {}), ([1], FILTERS), ([True, "a"], FILTERS), (["1", "a"], FILTERS)]
)
def test_a_cursor_of_another_list(position: list[Any], filters: dict[str, Any]) -> None:
    with pytest.raises(Problem):
        cursor.decode(cursor.encode(position, filters), FILTERS, (int, str))


# Card numbers

CARDS = [
    "4242424242424242",
    "5555555555554444",
    "378282246310005",
    "6011111111111117",
    "4222222222222",
    "6304000000000000000",
]


@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize("around", ["{}", "tok_{}", "my card: {}, thanks", "({})", "{}x", "1225 {}", "{} 1225"])
def test_a_card_number_is_found(card: str, around: str) -> None:
    assert luhn(card)
    assert contains_card_number(around.format(card))
    groups = [card[i : i + 4] for i in range(0, len(card), 4)]
    for separator in (" ", "-", ".", " - ", "\u00a0"):
        assert contains_card_number(around.format(separator.join(groups)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4242424242424241",  # fails the Luhn test
        "424242424242",  # 12 digits
        "0000000000000",
        "42424242424242424242",  # 20 in a row
        "pm_card_visa",
        "550e8400-e29b-41d4-a716-446655440000",
        "00000000-0000-4000-8000-000000000000",
        "Order 1234, flat 5678, floor 9, ring 1011 times",
    ],
)
def test_what_is_no_card_number(text: str) -> None:
    assert not contains_card_number(text)


@given(st.uuids())
def test_ids_are_no_card_numbers(value: Any) -> None:
    assert not contains_card_number(str(value))


@pytest.mark.parametrize(
    ("raw", "field"),
    [
        (b'{"a": "4242424242424242"}', "a"),
        (b'{"a": [{"b": 4242424242424242}]}', "a[0].b"),
        (b'["4242 4242 4242 4242"]', "[0]"),
        (b'{"a": {"4242424242424242": 1}}', "a"),
        (b'{"4242424242424242": 1}', "body"),
        (b'{"a": "\\u0034242424242424242"}', "a"),
        (b'{"sku": "4242424242424242", "product_id": "4242424242424242"}', None),
        (b'{"a": "4242424242424241"}', None),
        (b"4242424242424242", "body"),
        (b"{", None),
        (b"[" * 100_000, None),
    ],
)
def test_the_field_with_a_card_number_is_named(raw: bytes, field: str | None) -> None:
    assert card_field(raw) == field


# Problems


@pytest.mark.parametrize(
    ("location", "field"),
    [
        (("body", "items", 0, "sku"), "items[0].sku"),
        (("body",), "body"),
        (("query", "limit"), "limit"),
        (("header", "if-match"), "If-Match"),
        (("header", "idempotency_key"), "Idempotency-Key"),
        (("path", "order_id"), "order_id"),
    ],
)
def test_a_field_is_named_as_in_the_request(location: tuple[str | int, ...], field: str) -> None:
    assert field_of(location) == field


@pytest.mark.parametrize(
    ("field", "within", "shown"),
    [
        ("items[2].sku", "", "items[2].sku"),
        ("items[2].sku", "items", "sku"),
        ("shipping_address.country", "shipping_address", "country"),
        ("currency", "items", "currency"),
    ],
)
def test_a_rules_field_is_named_as_in_the_request(field: str, within: str, shown: str) -> None:
    assert rejected(Rejection(type="x", detail="y", field=field), within).errors == [(shown, "y")]


def test_what_a_rule_adds_becomes_data() -> None:
    extra = {"before": "1000", "after": "1200", "currency": "JPY", "skus": "A,B", "version": "3", "status": "DRAFT"}
    found = rejected(Rejection(type="price-changed", detail="x", extra=extra))
    assert found.extra == {
        "before": {"amount": "1000", "currency": "JPY"},
        "after": {"amount": "1200", "currency": "JPY"},
        "skus": ["A", "B"],
        "version": 3,
        "order_status": "DRAFT",
    }


# Documents


def opened(address: Any, name_field: str) -> dict[str, Any] | None:
    return None if address is None else {name_field: "Ada", "country": address.country}


def made() -> tuple[Order, list[Event[Any]]]:
    """A placed order, by the rules themselves, and its events."""
    order: Order | None = None
    history = []
    request = command(create(line("MUG", 2, 1250), submit=True))
    decided = decide(None, request, POLICY)
    assert not isinstance(decided, Rejection)
    for version, payload in enumerate(decided, start=1):
        event: Event[Any] = Event(
            id=f"e{version}",
            order_id=request.order_id,
            version=version,
            occurred_at=request.at,
            actor=request.actor,
            correlation_id="c",
            causation_id=request.id,
            previous_hash="",
            data=payload,
        )
        history.append(event)
        order = evolve(order, event)
    assert order is not None
    return order, history


ORDER_FIELDS = re.findall(
    r"\w+",
    """id number customer_id status version currency created_at submitted_at updated_at items subtotal discount tax
    shipping total shipping_address billing_address shipping_method estimated_delivery promo_codes payments refunds
    shipments returns holds cancellation allowed_actions""",
)
LINE_FIELDS = re.findall(r"\w+", "line_id product_id sku name quantity unit_price discount tax line_total quantities")


def test_an_order_document_has_all_that_was_promised() -> None:
    order, _ = made()
    shown = order_json(order, opened)
    assert shown.keys() >= set(ORDER_FIELDS)
    assert shown["items"][0].keys() >= set(LINE_FIELDS)
    assert shown["items"][0]["line_total"] == {"amount": "25.00", "currency": "EUR"}
    assert shown["created_at"].endswith("Z")
    assert shown["shipping_address"] == {"recipient_name": "Ada", "country": "DE"}
    assert shown["billing_address"] == {"name": "Ada", "country": "DE"}


def test_why_an_order_is_held_is_shown_to_staff_only() -> None:
    order, history = made()
    hold = Hold(kind="fraud", reason="customer_velocity, amount", score=60, since=order.created_at)
    order = order.model_copy(update={"hold": hold})
    (held,) = order_json(order, opened)["holds"]
    assert held == {"kind": "fraud", "since": order_json(order, opened)["created_at"]}
    (held,) = order_json(order, opened, staff=True)["holds"]
    assert (held["reason"], held["score"]) == ("customer_velocity, amount", 60)
    row = {**history[0].model_dump(exclude={"data"}), "occurred_us": 0}
    was_held = e.OrderHeld(kind="fraud", reason="amount", score=60)
    refused = e.OrderEditFailed(edit_id="E1", kind="OrderLineItemAdded", reason="fraud", detail="amount")
    declined = refused.model_copy(update={"reason": "payment_declined", "detail": "card_declined"})

    def told(data: Payload, staff: bool = False) -> dict[str, Any]:
        shown: dict[str, Any] = event_json({**row, "type": type(data).__name__}, data, "EUR", opened, staff)["data"]
        return shown

    assert told(was_held) == {"kind": "fraud"}
    assert told(was_held, staff=True) == {"kind": "fraud", "reason": "amount", "score": 60, "due_at": None}
    assert "detail" not in told(refused)
    assert told(refused, staff=True)["detail"] == "amount"
    assert told(declined)["detail"] == "card_declined"


def no_bare_amounts(value: Any, names: set[str]) -> bool:
    """Whether no field with one of these names is a number."""
    if isinstance(value, dict):
        return all(not (k in names and isinstance(v, int)) and no_bare_amounts(v, names) for k, v in value.items())
    return all(no_bare_amounts(v, names) for v in value) if isinstance(value, list | tuple) else True


AMOUNTS = {"amount", "unit_price", "discount", "tax", "line_total", "subtotal", "shipping", "total", "refunded"}


def test_an_events_amounts_and_addresses_are_shown_as_users_know_them() -> None:
    order, history = made()
    assert no_bare_amounts(order_json(order, opened), AMOUNTS)
    for event in history:
        at = int(datetime(2026, 3, 2, tzinfo=UTC).timestamp() * 1_000_000) + 5
        row = {**event.model_dump(exclude={"data"}), "type": type(event.data).__name__, "occurred_us": at}
        shown = event_json(row, event.data, order.currency, opened)
        assert shown["occurred_at"] == "2026-03-02T00:00:00.000005Z"
        assert no_bare_amounts(shown["data"], AMOUNTS)
        assert "payment_token" not in shown["data"]
        with_addresses = isinstance(event.data, e.OrderCreated | e.OrderSubmitted)
        assert len(list(addresses_in(event.data))) == (2 if with_addresses else 0)
    address = order.billing_address
    assert address is not None
    changed = e.OrderBillingAddressChanged(before=None, address=address)
    row = {**history[0].model_dump(exclude={"data"}), "type": "OrderBillingAddressChanged", "occurred_us": 0}
    assert event_json(row, changed, "EUR", opened)["data"] == {
        "before": None,
        "address": {"name": "Ada", "country": "DE"},
        "reason": None,
    }
