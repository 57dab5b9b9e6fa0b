"""The end of an order before it was fulfilled, whole or of some of its units."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import commands as c
from schemas.order import CancellationReason, OrderStatus
from tests.domain.order_lives import (
    OVER,
    SAGA,
    authorize,
    authorized,
    complete,
    held_money,
    paid,
    pay,
    placed,
    processing,
    ship,
)
from tests.domain.order_story import Story
from tests.support.examples import create, line, quote

CANCEL = c.CancelOrder(reason="customer_request", comment="found it cheaper")


def units(**wanted: int) -> c.CancelOrder:
    items = tuple(c.ItemQuantity(line_id=line_id, quantity=quantity) for line_id, quantity in wanted.items())
    return c.CancelOrder(reason="changed_mind", comment="less is more", items=items)


# Whole


def test_a_draft_and_an_unpaid_order_are_cancelled_without_a_refund() -> None:
    for story in (Story().given(create()), placed()):
        story.when(CANCEL).then("OrderCancelled")
        assert story.now.cancellation is not None
        assert (story.now.cancellation.reason, story.now.cancellation.comment) == (
            "customer_request",
            "found it cheaper",
        )
        assert story.now.payment_due_at is None


@pytest.mark.parametrize("begun", [False, True])
def test_cancelling_a_paid_order_gives_everything_back(begun: bool) -> None:
    story = processing(paid()) if begun else paid()
    story.when(CANCEL).then("OrderCancelled", "OrderRefundInitiated")
    refund = story.now.refunds[0]
    assert (refund.amount, refund.reason) == (story.now.totals.total, "cancelled")
    assert held_money(story) == 0
    story.given(c.CompleteRefund(refund_id=refund.refund_id, provider_ref="re_1"))
    assert story.now.status == "CANCELLED"


def test_each_payment_is_refunded() -> None:
    story = paid().given(c.AddItem(line=line("CUP")))
    complete(story)
    story.when(CANCEL).then("OrderCancelled", "OrderRefundInitiated", "OrderRefundInitiated")
    assert {r.attempt_id for r in story.now.refunds} == {p.attempt_id for p in story.now.payments}
    assert held_money(story) == 0


def test_what_was_refunded_before_is_not_refunded_again() -> None:
    story = paid().given(c.ChangeQuantity(line_id="L1", quantity=1), CANCEL)
    assert len({r.refund_id for r in story.now.refunds}) == 2
    assert held_money(story) == 0


def test_reserved_money_is_given_free() -> None:
    story = authorized().when(CANCEL).then("OrderCancelled", "OrderPaymentVoidRequested")
    assert (story.now.refunds, story.now.payments[0].status) == ((), "voiding")
    void = c.ConfirmVoid(attempt_id=story.attempt)
    story.when(void, actor=SAGA).then("OrderPaymentVoided")
    assert story.now.payments[0].status == "voided"
    story.when(void, actor=SAGA).then()


def test_a_pending_edit_dies_with_its_order_and_its_money_goes_back() -> None:
    story = paid().given(c.AddItem(line=line("CUP")))
    edit = story.now.edit
    assert edit is not None
    story.when(CANCEL).then("OrderCancelled", "OrderRefundInitiated")
    assert story.now.edit is None
    story.when(c.FailEdit(edit_id=edit.edit_id, reason="out_of_stock"), actor=SAGA).then()
    story.when(c.ExpireEdit(edit_id=edit.edit_id)).then()
    late = c.CompleteEdit(edit_id=edit.edit_id, attempt_id=edit.attempt_id, amount=edit.due, provider_ref="ch_late")
    story.when(late, actor=SAGA).then("OrderRefundInitiated")
    assert story.now.status == "CANCELLED"
    assert held_money(story) == 0
    story.when(late, actor=SAGA).then()


def test_a_held_order_can_be_cancelled() -> None:
    story = paid().given(c.HoldOrder(kind="staff", reason="r"), actor="staff:eve")
    story.when(CANCEL).then("OrderCancelled", "OrderRefundInitiated")
    assert story.now.hold is None


@pytest.mark.parametrize("status", ["SHIPPED", "DELIVERED", "REFUND_REQUESTED", "REFUNDED", "CANCELLED"])
def test_a_shipped_order_can_not_be_cancelled(status: str) -> None:
    story = paid()
    story.order = story.now.model_copy(update={"status": status})
    story.when(CANCEL).refused("cannot-cancel")
    story.when(units(L1=1)).refused("cannot-cancel")


def test_an_order_of_which_something_was_shipped_is_not_cancelled_whole() -> None:
    story = ship(processing(paid()), "S1", L1=1)
    assert story.now.status == "PROCESSING"
    story.when(CANCEL, at=OVER).refused("cannot-cancel")
    assert story.refusal is not None
    assert "shipped already" in story.refusal.detail
    assert story.refusal.extra == {"status": "PROCESSING", "allowed_actions": "nothing"}


def test_cancelled_is_final() -> None:
    story = paid().given(CANCEL)
    story.when(CANCEL).refused("cannot-cancel")
    story.when(c.ChangeQuantity(line_id="L1", quantity=1)).refused("cannot-modify")
    story.when(c.PayOrder(payment_token="t")).refused("cannot-pay")
    story.when(c.SubmitOrder(payment_token="t", quotes=(quote(),))).refused("cannot-submit")
    story.when(c.HoldOrder(kind="staff", reason="r")).refused("cannot-hold")
    story.when(c.ReleaseOrder()).refused("cannot-release")


# Why


def test_a_customer_gives_a_customers_reason() -> None:
    story = Story().given(create())
    story.when(c.CancelOrder(reason="fraud")).refused("reason-not-allowed", 422, "reason")
    story.when(c.CancelOrder(reason="whim")).refused("reason-not-allowed", 422, "reason")
    story.when(c.CancelOrder(reason="whim"), actor="staff:eve").refused("unknown-reason", 422, "reason")


@pytest.mark.parametrize("reason", list(CancellationReason))
def test_staff_and_the_system_give_any_reason(reason: str) -> None:
    for actor in ("staff:eve", SAGA):
        story = placed().when(c.CancelOrder(reason=reason, skus=("MUG",)), actor=actor).then("OrderCancelled")
        assert story.now.cancellation is not None
        assert (story.now.cancellation.reason, story.now.cancellation.skus) == (reason, ("MUG",))


def test_an_abandoned_draft_is_cancelled_unless_somebody_came_back() -> None:
    story = Story().given(create(line("MUG", 2)))
    story.when(c.AbandonDraft(version=0), actor="system:timers").then()
    story.given(c.ChangeQuantity(line_id="L1", quantity=3))
    story.when(c.AbandonDraft(version=1), actor="system:timers").then()
    story.when(c.AbandonDraft(version=2), actor="system:timers").then("OrderCancelled")
    assert story.now.cancellation is not None
    assert story.now.cancellation.reason == "abandoned"
    story.when(c.AbandonDraft(version=3), actor="system:timers").then()
    submitted = placed()
    submitted.when(c.AbandonDraft(version=submitted.now.version), actor="system:timers").then()


# Some of its units


@pytest.mark.parametrize("begun", [False, True])
def test_units_that_have_not_left_are_cancelled_and_their_share_given_back(begun: bool) -> None:
    story = processing(paid()) if begun else paid()
    before = story.now
    story.when(units(L1=2), at=OVER).then("OrderItemsCancelled", "OrderRefundInitiated")
    told = story.history[-2].data
    assert (told.reason, told.comment) == ("changed_mind", "less is more")
    assert [(x.line_id, x.sku, x.quantity) for x in told.lines] == [("L1", "MUG", 2)]
    mugs = story.now.line("L1")
    assert mugs is not None
    assert (mugs.quantity, mugs.cancelled, mugs.to_ship) == (3, 2, 1)
    assert (story.now.totals, story.now.status) == (before.totals, before.status), "totals stay as ordered"
    # 2 of 3 mugs at 10.00 and 19 %
    assert story.now.refunds[0].items[0].model_dump() == {"line_id": "L1", "quantity": 2, "amount": 2380}
    assert story.now.refunds[0].amount == 2380


def test_units_for_which_money_was_only_reserved_are_not_captured() -> None:
    story = authorized()
    total = story.now.totals.total
    story.when(units(L1=2)).then("OrderItemsCancelled")
    ship(processing(story), "S1", L1=1, L2=1)
    assert story.now.payments[0].capturing == total - 2380


def test_with_the_last_open_unit_the_order_is_cancelled_whole() -> None:
    story = paid().given(units(L1=1))
    story.when(units(L1=2, L2=1)).then("OrderCancelled", "OrderRefundInitiated")
    assert story.now.cancellation is not None
    assert (story.now.cancellation.reason, story.now.cancellation.comment) == ("changed_mind", "less is more")
    assert held_money(story) == 0, "shipping too"


def test_what_is_left_of_a_partly_shipped_order_can_be_cancelled() -> None:
    story = ship(processing(paid()), "S1", L1=3)
    story.when(units(L2=1), at=OVER).then("OrderItemsCancelled", "OrderRefundInitiated", "OrderShipped")
    assert story.now.status == "SHIPPED"
    story.when(units(L1=1), at=OVER).refused("cannot-cancel")


@pytest.mark.parametrize("story", [Story().given(create(line("MUG", 2), line("LAMP"))), placed()])
def test_units_of_what_is_not_paid_are_taken_out_by_changing_it(story: Story) -> None:
    before = story.now
    story.when(units(L1=1)).refused("cannot-cancel", 409, "items")
    assert story.refusal is not None
    assert "changing its lines" in story.refusal.detail
    assert before.status in story.refusal.detail
    assert {"modify", "cancel"} <= set(story.refusal.extra["allowed_actions"].split(", ")), "whole, it can be"
    everything = units(**{x.line_id: x.quantity for x in before.lines})
    story.when(everything).then("OrderCancelled")


def test_units_are_not_cancelled_under_a_pending_edit() -> None:
    story = paid().given(c.AddItem(line=line("CUP")))
    story.when(units(L1=1)).refused("edit-pending")
    story.when(units(L1=3, L2=1)).then("OrderCancelled", "OrderRefundInitiated")


@pytest.mark.parametrize(
    ("items", "type", "field"),
    [
        ([("L9", 1)], "unknown-line", "items[0].line_id"),
        ([("L2", 1), ("L1", 4)], "quantity-out-of-range", "items[1].quantity"),
        ([("L1", 2), ("L1", 2)], "quantity-out-of-range", "items[1].quantity"),
        ([("L1", 0)], "quantity-out-of-range", "items[0].quantity"),
        ([("L1", -1)], "quantity-out-of-range", "items[0].quantity"),
    ],
)
def test_units_that_are_not_there_can_not_be_cancelled(items: list[tuple[str, int]], type: str, field: str) -> None:
    wanted = tuple(c.ItemQuantity(line_id=line_id, quantity=quantity) for line_id, quantity in items)
    paid().when(c.CancelOrder(reason="changed_mind", items=wanted)).refused(type, 422, field)


def test_shipped_units_can_not_be_cancelled() -> None:
    story = ship(processing(paid()), "S1", L1=2)
    story.when(units(L1=2), at=OVER).refused("quantity-out-of-range", 422, "items[0].quantity")
    assert story.refusal is not None
    assert "1 units" in story.refusal.detail


def test_a_line_may_be_named_twice() -> None:
    wanted = tuple(c.ItemQuantity(line_id="L1", quantity=1) for _ in range(2))
    story = paid().when(c.CancelOrder(reason="changed_mind", items=wanted))
    story.then("OrderItemsCancelled", "OrderRefundInitiated")
    assert story.now.refunds[0].amount == 2380


# Late answers of a provider


def test_money_that_comes_after_the_cancellation_goes_back_by_itself() -> None:
    story = pay(placed().given(CANCEL), amount=7000, provider_ref="ch_9").then("OrderRefundInitiated")
    assert story.history[-1].data.captured_late == "ch_9"
    assert story.history[-1].data.currency == "EUR"
    assert (story.now.status, story.now.captured, held_money(story)) == ("CANCELLED", 7000, 0)
    pay(story, amount=7000, provider_ref="ch_9").then()


def test_money_reserved_after_the_cancellation_is_given_free() -> None:
    story = authorize(placed().given(CANCEL)).then("OrderPaymentVoidRequested")
    authorize(story).then()
    story.when(c.ConfirmVoid(attempt_id=story.attempt)).then("OrderPaymentVoided")
    authorize(story).then()
    assert (story.now.status, story.now.captured) == ("CANCELLED", 0)


@settings(max_examples=150, deadline=None)
@given(
    prices=st.tuples(*[st.integers(1, 9_999)] * 2),
    quantities=st.tuples(*[st.integers(1, 7)] * 2),
    steps=st.lists(st.tuples(st.sampled_from(["L1", "L2"]), st.integers(1, 4)), max_size=12),
)
def test_the_shares_of_cancelled_units_add_up_to_the_cent(
    prices: tuple[int, int], quantities: tuple[int, int], steps: list[tuple[str, int]]
) -> None:
    story = paid(line("MUG", quantities[0], prices[0]), line("LAMP", quantities[1], prices[1]))
    for line_id, quantity in steps:
        story.when(units(**{line_id: quantity}))
        for x in story.now.lines:
            if x.cancelled == x.quantity and story.now.status != OrderStatus.CANCELLED:
                given_back = sum(i.amount for r in story.now.refunds for i in r.items if i.line_id == x.line_id)
                assert given_back == x.paid
    if all(x.to_ship == 0 for x in story.now.lines) or story.now.status == OrderStatus.CANCELLED:
        assert held_money(story) == 0
    else:
        assert held_money(story) > 0
