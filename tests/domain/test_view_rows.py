"""Whole orders, stock and changes → rows of the read side, by themselves."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from processors.sinks import audit_rows, order_rows, stock_rows
from processors.sinks.rows import micros
from processors.sinks.views import VIEWS, newest
from schemas import commands as c
from schemas.base import Message, Payload
from schemas.inventory import StockLevel, StockMoved
from schemas.operations import ExceptionOpened, ExceptionResolved, ExceptionRetried
from schemas.order import Order, OrderState, PromotionTerms
from schemas.promotion import PromotionChanged, PromotionLevel
from schemas.timers import Tick
from tests.domain.order_lives import OVER, PATIENT, SAGA, paid, pay, placed, processing, ship
from tests.domain.order_story import Story
from tests.support.examples import T0, at, create, line

AT = 1_772_445_600_123
LATER = OVER + timedelta(days=1)


def state(order: Order) -> Message[OrderState]:
    return Message(id="s", at=order.updated_at, actor="a", correlation_id="c", data=OrderState(order=order))


def said(data: Payload, actor: str = "staff:bo") -> Message[Any]:
    return Message(id="m1", at=T0, actor=actor, correlation_id="c1", causation_id="x1", data=data)


def delivered() -> Story:
    story = processing(paid(line("MUG", 3), line("LAMP", 1, 5000)))
    ship(story, "S1", L1=3, L2=1)
    return story.given(c.DeliverShipment(shipment_id="S1"), at=LATER, actor="system:fulfilment")


def returned() -> Story:
    story = delivered()
    wish = c.ReturnWish(line_id="L1", quantity=2, reason="changed_mind")
    story.given(c.RequestReturn(items=(wish,)), at=LATER)
    rma = story.now.returns[0].rma
    for step in (c.ApproveReturn(rma=rma), c.ReceiveReturn(rma=rma)):
        story.given(step, at=LATER, actor="staff:bo")
    looked = c.InspectReturn(rma=rma, items=(c.Inspected(line_id="L1", condition="as_new"),))
    story.given(looked, at=LATER + timedelta(hours=1), actor="staff:bo")
    done = c.CompleteRefund(refund_id=story.now.refunds[0].refund_id, provider_ref="re_1")
    return story.given(done, at=LATER + timedelta(hours=2), actor="system:placement")


def test_a_summary_knows_the_way_and_the_facts_of_an_order() -> None:
    order = returned().now
    (row,) = order_rows.summary_rows(state(order), AT)
    way = ["DRAFT", "PENDING_PAYMENT", "PAYMENT_CONFIRMED", "PROCESSING", "SHIPPED", "DELIVERED"]
    assert row.statuses == [*way, "REFUND_REQUESTED", "DELIVERED"]
    assert row.entered == sorted(row.entered)
    assert row.entered[3] == micros(OVER)
    assert row.left_statuses == [*way[:-1], "REFUND_REQUESTED"], "not what it is in, though it left that once, too"
    assert row.left_at == [*row.entered[1:6], row.entered[7]]
    assert row.stayed == [until - row.entered[at] for at, until in zip((0, 1, 2, 3, 4, 6), row.left_at, strict=True)]
    assert (row.paid_at, row.processing_at, row.shipped_at) == (row.entered[2], micros(OVER), micros(OVER))
    assert (row.delivered_at, row.cancelled_at, row.refunded_at) == (micros(LATER), None, None)
    assert row.promised_delivery is not None
    assert row.promised_delivery.isoformat() == order.promised_delivery
    assert (row.units, row.cancelled_units, row.returned_units) == (4, 0, 2)
    assert (row.captured, row.refunded) == (order.totals.total, order.refunds[0].amount)
    assert (row.skus, row.country, row.shipping_method) == (["MUG", "LAMP"], "DE", "standard")
    assert (row.tracking_numbers, row.payment_attempts, row.payment_declines) == (["n"], 1, 0)
    assert (row.returns, row.return_requested_at) == (1, micros(LATER))


def released(story: Story) -> None:
    hold = c.HoldOrder(kind="fraud", reason="velocity", score=60)
    story.given(hold, actor=SAGA).given(c.ReleaseOrder(), actor="staff:eve")


def declined(story: Story) -> None:
    story.given(c.FailPayment(attempt_id=story.attempt, code="card_declined"), actor=SAGA)


def again(story: Story) -> None:
    story.given(c.PayOrder(payment_token="pm_other"))


def first_pays(story: Story) -> None:
    pay(story, attempt_id=story.now.payments[0].attempt_id)


@pytest.mark.parametrize(
    ("steps", "tries"),
    [
        ([pay], (1, 0)),
        ([declined], (1, 1)),
        ([declined, again], (2, 1)),
        # A release asks afresh: no other try of the customer, also when the money of the first attempt comes as well.
        ([released], (1, 0)),
        ([released, pay], (1, 0)),
        ([released, pay, first_pays], (1, 0)),
        ([released, first_pays], (1, 0)),
        ([declined, again, released, pay], (2, 1)),
        ([released, declined, again, declined], (2, 2)),
    ],
)
def test_a_summary_counts_how_often_the_customer_tried_to_pay(
    steps: list[Callable[[Story], Any]], tries: tuple[int, int]
) -> None:
    story = placed(policy=PATIENT)
    for step in steps:
        step(story)
    (row,) = order_rows.summary_rows(state(story.now), AT)
    assert (row.payment_attempts, row.payment_declines) == tries


def test_the_units_of_a_cancelled_order_are_all_cancelled() -> None:
    story = placed(line("MUG", 3)).given(c.CancelOrder(reason="changed_mind"))
    (row,) = order_rows.summary_rows(state(story.now), AT)
    assert (row.units, row.cancelled_units, row.cancellation_reason) == (3, 3, "changed_mind")
    assert row.cancelled_at == row.entered[-1]


def test_a_line_that_was_taken_out_is_deleted_and_its_number_not_used_again() -> None:
    story = Story().given(create(line("MUG", 3), line("LAMP", 1, 5000)))
    story.given(c.RemoveItem(line_id="L1"), at=at(5)).given(c.AddItem(line=line("CUP", 2)), at=at(6))
    found = order_rows.line_rows(state(story.now), AT)
    assert [(r.line_id, r.sku, r.quantity, r.is_deleted) for r in found] == [
        ("L2", "LAMP", 1, 0),
        ("L3", "CUP", 2, 0),
        ("L1", "MUG", 0, 1),
    ]
    before = order_rows.line_rows(state(Story().given(create(line("MUG", 3), line("LAMP", 1, 5000))).now), AT)
    kept = newest(VIEWS["order_lines"], [*before, *found])
    assert [(r.line_id, r.is_deleted) for r in kept] == [("L1", 1), ("L2", 0), ("L3", 0)]
    assert len({r.created_at for r in found}) == 1, "the key of a line never changes"


def test_money_parcels_and_returns_are_rows_with_their_times() -> None:
    order = returned().now
    (payment,) = order_rows.payment_rows(state(order), AT)
    assert (payment.status, payment.captured, payment.refunded) == (
        "captured",
        order.totals.total,
        order.refunds[0].amount,
    )
    assert (payment.requested_at, payment.settled_at) == (micros(T0), micros(T0))
    (refund,) = order_rows.refund_rows(state(order), AT)
    assert (refund.status, refund.reason, refund.rma) == ("completed", "return", order.returns[0].rma)
    assert refund.initiated_at == micros(LATER + timedelta(hours=1))
    assert refund.completed_at == micros(LATER + timedelta(hours=2))
    (parcel,) = order_rows.shipment_rows(state(order), AT)
    assert (parcel.status, parcel.line_ids, parcel.skus, parcel.quantities) == (
        "delivered",
        ["L1", "L2"],
        ["MUG", "LAMP"],
        [3, 1],
    )
    (item,) = order_rows.return_rows(state(order), AT)
    assert (item.status, item.sku, item.quantity, item.condition, item.restock) == ("closed", "MUG", 2, "as_new", True)
    assert item.ended_at == micros(LATER + timedelta(hours=2))


def test_stock_is_its_newest_level_and_a_ledger() -> None:
    level = StockLevel(sku="MUG", pool="main", on_hand=5, reserved=2, shipped=1, version=9)
    (row,) = stock_rows.stock_rows(said(level), AT)
    assert (row.sku, row.on_hand, row.reserved, row.shipped, row.version) == ("MUG", 5, 2, 1, 9)
    (entry,) = stock_rows.ledger_rows(said(moved("adjusted", 3)), AT)
    assert (entry.kind, entry.quantity, entry.on_hand, entry.actor, entry.reason) == (
        "adjusted",
        3,
        8,
        "staff:bo",
        "count",
    )


def moved(kind: str, quantity: int) -> StockMoved:
    counts = {"on_hand": 8, "reserved": 0, "shipped": 0}
    return StockMoved(kind=kind, sku="MUG", pool="main", quantity=quantity, reason="count", version=2, **counts)


def test_the_audit_log_says_who_changed_what_from_what_to_what_and_why() -> None:
    story = Story().given(create(line("MUG", 3)))
    story.given(c.ChangeQuantity(line_id="L1", quantity=5, reason="guests"), actor="staff:bo")
    created, changed = (row for event in story.history for row in audit_rows.audit_of_order(event, AT))
    assert (created.actor, created.what, created.before, created.version) == ("customer:42", "OrderCreated", "", 1)
    assert (changed.actor, changed.what, changed.why) == ("staff:bo", "OrderLineItemQuantityChanged", "guests")
    assert json.loads(changed.before) == {"line_id": "L1", "sku": "MUG", "quantity": 3}
    assert json.loads(changed.after) == {"line_id": "L1", "sku": "MUG", "quantity": 5}


def test_every_event_of_a_whole_life_is_in_the_audit_log() -> None:
    story = returned()
    found = [row for event in story.history for row in audit_rows.audit_of_order(event, AT)]
    assert [row.version for row in found] == list(range(1, len(story.history) + 1))
    assert all(json.loads(row.after) is not None for row in found)


@pytest.mark.parametrize("kind", ["reserved", "released", "committed"])
def test_what_orders_do_to_stock_is_not_told_twice(kind: str) -> None:
    assert audit_rows.audit_of_stock(said(moved(kind, 1)), AT) == []


def test_who_counted_stock_and_who_defined_a_promotion_is_in_the_audit_log() -> None:
    (counted,) = audit_rows.audit_of_stock(said(moved("adjusted", 3)), AT)
    assert (counted.subject, counted.subject_id, counted.actor, counted.why) == (
        "stock",
        "MUG#main",
        "staff:bo",
        "count",
    )
    assert json.loads(counted.before)["on_hand"] == 5
    (put,) = audit_rows.audit_of_promotion(said(PromotionChanged(kind="put", code="TEN", used=0, limit=3)), AT)
    assert (put.subject_id, json.loads(put.after)) == ("TEN", {"limit": 3, "used": 0})
    assert put.before == ""
    level = PromotionLevel(terms=PromotionTerms(code="TEN", kind="percentage", percent="10"))
    more = PromotionChanged(kind="put", code="TEN", used=0, before=level, after=level.model_copy(update={"limit": 3}))
    (put,) = audit_rows.audit_of_promotion(said(more), AT)
    assert (json.loads(put.before)["limit"], json.loads(put.after)["limit"]) == (None, 3)
    assert audit_rows.audit_of_promotion(said(PromotionChanged(kind="redeemed", code="TEN", used=1)), AT) == []


def test_what_was_done_about_an_exception_is_in_the_audit_log_and_not_that_it_came_up() -> None:
    opened = ExceptionOpened(exception_id="x", kind="lost", owner="logistics", detail="gone")
    assert audit_rows.audit_of_exception(said(opened), AT) == []
    (retried,) = audit_rows.audit_of_exception(said(ExceptionRetried(exception_id="x")), AT)
    (resolved,) = audit_rows.audit_of_exception(said(ExceptionResolved(exception_id="x", resolution="found")), AT)
    assert (retried.subject, retried.subject_id, retried.what, retried.why) == ("exception", "x", "retried", "")
    assert (resolved.subject_id, resolved.what, resolved.why) == ("x", "resolved", "found")


@pytest.mark.parametrize(
    "audit_of",
    [
        audit_rows.audit_of_stock,
        audit_rows.audit_of_promotion,
        audit_rows.audit_of_product,
        audit_rows.audit_of_preferences,
        audit_rows.audit_of_exception,
    ],
)
def test_what_the_audit_log_does_not_know_is_poison(audit_of: Any) -> None:
    with pytest.raises(ValueError, match="a Tick is no"):
        audit_of(said(Tick(source="timers-0")), AT)
