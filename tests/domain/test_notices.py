"""What customers are told of which event, in which words."""

from __future__ import annotations

from typing import Any
from uuid import uuid5

import pytest

from processors.kit import Incoming
from processors.notification.notices import OPTIONAL, TRANSACTIONAL, Known, evolve, notice
from processors.notification.processor import KNOWN, handle
from processors.notification.templates import languages, render
from schemas import events as e
from schemas.base import Event, Payload
from schemas.notification import NoticeLine, SendNotice
from schemas.order import Line, Order, Payment, ShipmentLine, Totals
from tests.support.examples import NAMES, ORDER, T0, address, at

LINES = (
    Line(
        line_id="L1",
        product_id="p",
        sku="MUG",
        name="A mug",
        category="home",
        tax_category="standard",
        weight_grams=400,
        quantity=3,
        unit_price=1000,
        tax=570,
        line_total=3000,
    ),
)
TOTALS = Totals(subtotal=3000, tax=570, shipping=490, total=4060)
CREATED = e.OrderCreated(number="ABCDE-FGHJK", customer_id="42", currency="EUR", lines=LINES, totals=TOTALS)
SUBMITTED = e.OrderSubmitted(lines=LINES, totals=TOTALS, estimated_delivery="2026-03-06")
PARCEL = (ShipmentLine(line_id="L1", sku="MUG", quantity=2),)
DISPATCHED = e.OrderShipmentDispatched(
    shipment_id="s1",
    lines=PARCEL,
    carrier="Parcels",
    tracking_number="T-1",
    tracking_url="https://track.example/T-1",
    estimated_delivery="2026-03-07",
)


def told(*payloads: Payload, imported: bool = False) -> list[SendNotice]:
    """The messages about an order with these events."""
    known: Known | None = None
    found = []
    for version, payload in enumerate(payloads, start=1):
        event: Event[Any] = Event(
            id=str(uuid5(NAMES, f"event {version}")),
            order_id=ORDER,
            version=version,
            occurred_at=at(version),
            actor="customer:42",
            correlation_id="c",
            causation_id="c",
            previous_hash="",
            data=payload,
            imported=imported,
        )
        known = evolve(known, event)
        found.append(notice(known, event))
    return [one for one in found if one is not None]


def test_a_submission_is_confirmed_with_what_was_ordered() -> None:
    (found,) = told(CREATED, SUBMITTED)
    assert (found.kind, found.customer_id, found.order_number) == ("order_confirmation", "42", "ABCDE-FGHJK")
    assert found.lines == (NoticeLine(name="A mug", sku="MUG", quantity=3, total="35.70 EUR"),)
    assert (found.total, found.estimated_delivery) == ("40.60 EUR", "2026-03-06")


def test_a_parcel_is_told_with_its_tracking_link_and_what_is_in_it() -> None:
    _, found = told(CREATED, SUBMITTED, DISPATCHED)
    assert found.kind == "shipped"
    assert [(x.sku, x.quantity, x.total) for x in found.lines] == [("MUG", 2, "23.80 EUR")]
    assert (found.carrier, found.tracking_url) == ("Parcels", "https://track.example/T-1")
    assert found.estimated_delivery == "2026-03-07"


def test_another_attempt_to_deliver_is_no_second_shipping() -> None:
    again = DISPATCHED.model_copy(update={"redelivery": True})
    assert [x.kind for x in told(CREATED, SUBMITTED, DISPATCHED, again)] == ["order_confirmation", "shipped"]


def test_what_was_cancelled_is_in_no_later_message() -> None:
    two = e.OrderItemsCancelled(lines=PARCEL, reason="customer_request")
    started = e.OrderProcessingStarted(lines=LINES, shipping_address=address(), shipping_method="standard")
    found = told(CREATED, SUBMITTED, two, started, e.OrderDelivered(shipments=("s1",)))
    assert [(x.kind, [(line.quantity, line.total) for line in x.lines]) for x in found] == [
        ("order_confirmation", [(3, "35.70 EUR")]),
        ("items_cancelled", [(2, "23.80 EUR")]),
        ("processing", [(1, "11.90 EUR")]),
        ("delivered", [(1, "11.90 EUR")]),
    ]


def test_a_line_with_nothing_left_is_not_listed() -> None:
    lamp = LINES[0].model_copy(update={"line_id": "L2", "sku": "LAMP"})
    both = SUBMITTED.model_copy(update={"lines": (*LINES, lamp)})
    units = (PARCEL[0], PARCEL[0].model_copy(update={"quantity": 1}))
    gone = e.OrderItemsCancelled(lines=units, reason="out_of_stock")
    *_, partly, found = told(CREATED, both, gone, e.OrderDelivered(shipments=("s1",)))
    assert [(x.sku, x.quantity) for x in partly.lines] == [("MUG", 3)]
    assert [(x.sku, x.quantity) for x in found.lines] == [("LAMP", 3)]


def test_lines_after_a_change_are_without_what_was_cancelled_before_it() -> None:
    lines = (LINES[0].model_copy(update={"cancelled": 1}),)
    changed = e.OrderLineItemQuantityChanged(line_id="L1", sku="MUG", before=2, quantity=3, lines=lines, totals=TOTALS)
    done = e.OrderEditCompleted(edit_id="x", kind="change_quantity", requested_by="42", before=TOTALS, after=TOTALS)
    *_, found = told(CREATED, SUBMITTED, changed, done)
    assert [(x.quantity, x.total) for x in found.lines] == [(2, "23.80 EUR")]


PAID = e.OrderPaymentConfirmed(attempt_id="a", amount=4060, provider_ref="ch")
RESERVED = PAID.model_copy(update={"authorized": True})
MORE = e.OrderEditCompleted(
    edit_id="x",
    kind="add_item",
    requested_by="42",
    before=TOTALS,
    after=TOTALS,
    attempt_id="b",
    amount=100,
    provider_ref="ch",
)
DECLINED = e.OrderPaymentFailed(attempt_id="a", code="card_declined", attempts_left=1)


@pytest.mark.parametrize("language", sorted(languages()))
@pytest.mark.parametrize(("left", "says"), [(0, False), (2, True)])
def test_another_card_is_spoken_of_only_while_there_is_another_attempt(left: int, says: bool, language: str) -> None:
    *_, found = told(CREATED, SUBMITTED, DECLINED.model_copy(update={"attempts_left": left}))
    assert found.attempts_left == left
    card = {"en": "another card", "de": "anderen Karte", "fr": "autre carte"}[language]
    assert (card in render(found, language).text) is says


@pytest.mark.parametrize("language", sorted(languages()))
@pytest.mark.parametrize(
    ("before", "paid"),
    [
        ([], False),
        ([DECLINED], False),
        ([PAID.model_copy(update={"amount": 0})], False),
        ([RESERVED], False),
        ([RESERVED, MORE.model_copy(update={"authorized": True})], False),
        ([PAID], True),
        ([DECLINED, PAID], True),
        ([RESERVED, MORE], True),
        ([RESERVED, e.OrderPaymentCaptured(attempt_id="a", capture_id="c", amount=100, provider_ref="ch")], True),
        ([e.OrderRefundInitiated(refund_id="r", attempt_id="a", amount=1, reason="x", captured_late="ch")], True),
    ],
)
@pytest.mark.parametrize(
    "event", [e.OrderCancelled(reason="out_of_stock"), e.OrderItemsCancelled(lines=PARCEL, reason="out_of_stock")]
)
def test_money_comes_back_only_when_some_was_taken(
    event: Payload, before: list[Payload], paid: bool, language: str
) -> None:
    *_, found = told(CREATED, SUBMITTED, *before, event)
    assert found.paid is paid
    text = render(found, language).text
    back = {"en": "on its way back", "de": "auf dem Weg zurück", "fr": "vous est rendu"}[language]
    nothing = {"en": "pay", "de": "bezahlen", "fr": "payer"}[language]
    assert (back in text, f" {nothing} " in text or f" {nothing}." in text) == (paid, not paid)


@pytest.mark.parametrize("captured", [0, 4060])
def test_of_an_imported_order_it_is_known_whether_it_was_paid(captured: int) -> None:
    order = Order(
        order_id=ORDER,
        number="ABCDE-FGHJK",
        customer_id="42",
        status="PAYMENT_CONFIRMED",
        version=1,
        currency="EUR",
        created_at=T0,
        updated_at=T0,
        lines=LINES,
        totals=TOTALS,
        payments=(Payment(attempt_id="a", amount=4060, status="captured", captured=captured),),
    )
    end = e.OrderImported(source="old", external_id="1", order=order)
    assert [x.paid for x in told(end, e.OrderCancelled(reason="staff"))] == [captured > 0]


def test_state_from_before_payments_were_kept_promises_nothing() -> None:
    known = Known(customer_id="42", number="ABCDE-FGHJK", currency="EUR", items=(), total=4060)
    recorded = {name: value for name, value in known.model_dump(mode="json").items() if name != "paid"}
    before = KNOWN.read({"shape": 1, "value": {**recorded, "status": "PROCESSING"}})
    assert before.paid is None
    found = render(FULL.model_copy(update={"kind": "cancelled", "paid": None}), "en").text
    assert "way back" not in found
    assert "nothing to pay" not in found


DELIVERED = e.OrderDelivered(shipments=("s1",))


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        ([PAID, DISPATCHED], "shipped"),
        ([PAID, DELIVERED, e.OrderRefundDenied(rma="R", reason="x")], "refund_denied"),
        ([PAID, DELIVERED, e.OrderRefundCompleted(refund_id="r", amount=4060, provider_ref="re")], "refund_completed"),
        ([PAID, DISPATCHED, RESERVED.model_copy(update={"purpose": "renewal"}), DELIVERED], "delivered"),
    ],
)
def test_a_message_says_nothing_of_a_status_that_may_be_another_one(events: list[Payload], kind: str) -> None:
    *_, found = told(CREATED, SUBMITTED, *events)
    assert (found.kind, found.status) == (kind, "")


@pytest.mark.parametrize("reason", ["lost", "undeliverable"])
def test_a_lost_parcel_that_is_sent_again_is_told_with_what_was_in_it(reason: str) -> None:
    lost = e.OrderShipmentLost(shipment_id="s1", lines=PARCEL, reason=reason, reship=True)
    *_, found = told(CREATED, SUBMITTED, DISPATCHED, lost)
    assert (found.kind, found.reason, found.tracking_url) == ("parcel_lost", reason, None)
    assert [(x.sku, x.quantity) for x in found.lines] == [("MUG", 2)]
    assert "again" in render(found, "en").short
    assert "2 × A mug" in render(found, "en").text


def test_of_a_lost_parcel_that_is_not_sent_again_the_cancellation_tells() -> None:
    lost = e.OrderShipmentLost(shipment_id="s1", lines=PARCEL, reason="lost", reship=False)
    cancelled = e.OrderItemsCancelled(lines=PARCEL, reason="lost", shipment_id="s1")
    kinds = [x.kind for x in told(CREATED, SUBMITTED, DISPATCHED, lost, cancelled)]
    assert kinds == ["order_confirmation", "shipped", "items_cancelled"]


@pytest.mark.parametrize(
    ("event", "kind", "says"),
    [
        (e.OrderPaymentConfirmed(attempt_id="a", amount=4060, provider_ref="ch"), "payment_confirmed", "40.60 EUR"),
        (e.OrderPaymentFailed(attempt_id="a", code="card_declined"), "payment_failed", None),
        (e.OrderDeliveryFailed(shipment_id="s1", attempt=1, reason="nobody home"), "delivery_failed", None),
        (e.OrderDelivered(shipments=("s1",)), "delivered", None),
        (e.OrderCancelled(reason="out_of_stock"), "cancelled", None),
        (e.OrderItemsCancelled(lines=PARCEL, reason="out_of_stock"), "items_cancelled", None),
        (e.OrderRefundRequested(rma="RMA-1", amount=1000), "refund_requested", "10.00 EUR"),
        (e.OrderRefundDenied(rma="RMA-1", reason="worn"), "refund_denied", None),
        (e.OrderRefundCompleted(refund_id="r", amount=1000, provider_ref="re"), "refund_completed", "10.00 EUR"),
        (e.OrderReturnReceived(rma="RMA-1"), "return_received", None),
        (e.OrderReturnExpired(rma="RMA-1"), "return_expired", None),
        (e.OrderEditFailed(edit_id="x", kind="add_item", reason="out_of_stock"), "change_failed", None),
        (
            e.OrderReturnApproved(rma="RMA-1", expires_at=T0, items=(), shipping_address=address()),
            "return_approved",
            None,
        ),
        (
            e.OrderReturnLabelCreated(rma="RMA-1", carrier="P", tracking_number="T", label_url="https://l.example"),
            "return_label",
            None,
        ),
    ],
)
def test_each_stage_has_its_message(event: Payload, kind: str, says: str | None) -> None:
    *_, found = told(CREATED, SUBMITTED, event)
    assert (found.kind, found.amount) == (kind, says)


@pytest.mark.parametrize(
    "event",
    [
        e.OrderBillingAddressChanged(address=address()),
        e.OrderCancelled(reason="abandoned"),
        e.OrderPaymentConfirmed(attempt_id="a", amount=1, provider_ref="ch", purpose="renewal"),
        e.OrderPaymentFailed(attempt_id="a", code="card_declined", purpose="renewal"),
    ],
)
def test_what_is_nobodys_news_has_none(event: Payload) -> None:
    assert told(CREATED, event) == []


def test_a_label_is_no_news_once_its_goods_are_back() -> None:
    label = e.OrderReturnLabelCreated(rma="RMA-2", carrier="P", tracking_number="T", label_url="https://l.example")
    other, back = e.OrderReturnReceived(rma="RMA-1"), e.OrderReturnReceived(rma="RMA-2")
    assert [x.kind for x in told(CREATED, other, label, back)] == ["return_received", "return_label", "return_received"]
    assert [x.kind for x in told(CREATED, other, back, label)] == ["return_received", "return_received"]


def test_imported_history_is_told_to_nobody() -> None:
    assert told(CREATED, SUBMITTED, DISPATCHED, imported=True) == []


def test_the_processor_keys_by_customer_and_gives_a_repeat_the_same_id() -> None:
    event: Event[Any] = Event(
        id="e1",
        order_id=ORDER,
        version=2,
        occurred_at=T0,
        actor="customer:42",
        correlation_id="c",
        causation_id="c",
        previous_hash="",
        data=SUBMITTED,
    )
    created = event.model_copy(update={"id": "e0", "version": 1, "data": CREATED})

    class Store(dict[str, Any]):
        def set(self, key: str, value: Any, ttl: Any = None) -> None:
            self[key] = value

        def delete(self, key: str) -> None:
            del self[key]

    state = Store()
    assert list(handle(state, Incoming("order.events", ORDER, created, T0))) == []
    (first,) = handle(state, Incoming("order.events", ORDER, event, T0))
    (again,) = handle(state, Incoming("order.events", ORDER, event, T0))
    assert (first.topic, first.key) == ("notification.commands", "42")
    assert first.message == again.message


FULL = SendNotice(
    kind="shipped",
    event_id="e",
    customer_id="42",
    order_number="ABCDE-FGHJK",
    occurred_at=T0,
    lines=(NoticeLine(name="<b>Tom & Jerry</b>", sku="MUG", quantity=2, total="23.80 EUR"),),
    total="40.60 EUR",
    amount="10.00 EUR",
    reason="out_of_stock",
    carrier="Parcels",
    tracking_number="T-1",
    tracking_url="https://track.example/T-1?a=1&b=2",
    estimated_delivery="2026-03-07",
    rma="RMA-ABCDE-FGHJK-1",
    label_url="https://label.example/1",
)


@pytest.mark.parametrize("language", sorted(languages()))
@pytest.mark.parametrize("kind", sorted(OPTIONAL | TRANSACTIONAL))
def test_every_language_has_words_for_every_message(kind: str, language: str) -> None:
    found = render(FULL.model_copy(update={"kind": kind}), language)
    assert found.language == language
    assert found.subject
    assert "\n" not in found.subject
    assert "{{" not in found.text + found.html + found.subject
    assert "ABCDE-FGHJK" in found.text
    assert "ABCDE-FGHJK" in found.html


def test_the_tracking_link_is_in_both_forms_and_names_stay_text() -> None:
    found = render(FULL, "en")
    assert "https://track.example/T-1?a=1&b=2" in found.text
    assert 'href="https://track.example/T-1?a=1&amp;b=2"' in found.html
    assert "&lt;b&gt;Tom &amp; Jerry&lt;/b&gt;" in found.html
    assert "<b>Tom" not in found.html
    assert found.short.endswith("https://track.example/T-1?a=1&b=2")


def test_a_reason_in_nobodys_list_is_said_as_it_is() -> None:
    found = render(FULL.model_copy(update={"kind": "refund_denied", "reason": "{{ 7 * 7 }}"}), "en")
    assert "{{ 7 * 7 }}" in found.text


def test_a_language_without_words_falls_back_to_english() -> None:
    assert render(FULL, "xx").language == "en"


def test_a_kind_without_words_is_an_error() -> None:
    with pytest.raises(LookupError, match="no_such_kind"):
        render(FULL.model_copy(update={"kind": "no_such_kind"}), "en")
