"""Payments of an order, money that is only reserved, and holds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import commands as c
from schemas.policy import Policy
from tests.domain.order_lives import (
    ON_SHIPMENT,
    OVER,
    PATIENT,
    SAGA,
    authorize,
    authorized,
    held_money,
    paid,
    pay,
    placed,
    processing,
    ship,
)
from tests.domain.order_story import Story
from tests.support.examples import POLICY, T0, address, at, line, terms

TIMERS = "system:timers"
FRAUD = c.HoldOrder(kind="fraud", reason="velocity", score=60)
STAFF = c.HoldOrder(kind="staff", reason="call the customer")
AGAIN = c.PayOrder(payment_token="pm_other")


def last(story: Story) -> Any:
    return story.history[-1].data


def decline(story: Story, attempt_id: str | None = None) -> Story:
    return story.when(c.FailPayment(attempt_id=attempt_id or story.attempt, code="card_declined"), actor=SAGA)


# Attempts


def test_submission_asks_for_the_money() -> None:
    asked = next(x.data for x in placed().history if type(x.data).__name__ == "OrderPaymentRequested")
    assert (asked.purpose, asked.authorize, asked.attempt) == ("order", False, 1)
    asked = next(x.data for x in placed(policy=ON_SHIPMENT).history if type(x.data).__name__ == "OrderPaymentRequested")
    assert asked.authorize


def test_payment_confirms_the_order_once() -> None:
    story = pay(placed()).then("OrderPaymentConfirmed")
    assert story.now.status == "PAYMENT_CONFIRMED"
    assert story.now.modifiable_until == OVER
    assert story.now.payment_due_at is None
    pay(story, amount=1).then()
    assert held_money(story) == story.now.totals.total


@pytest.mark.parametrize("difference", [-1, 1])
def test_an_unexpected_amount_is_recorded_as_it_is(difference: int) -> None:
    story = placed()
    total = story.now.totals.total
    pay(story, amount=total + difference).then("OrderPaymentConfirmed")
    assert held_money(story) == total + difference


def test_an_order_that_costs_nothing_is_paid_with_nothing() -> None:
    free = terms("ALL", percent="100"), terms("POST", kind="free_shipping")
    story = placed(line("MUG"), promo_codes=("ALL", "POST"), promotions=free, policy=ON_SHIPMENT)
    pay(story, amount=0, provider_ref="nothing-to-pay").then("OrderPaymentConfirmed")
    assert (story.now.status, story.now.captured) == ("PAYMENT_CONFIRMED", 0)
    story.when(c.CancelOrder(reason="customer_request")).then("OrderCancelled")


def test_the_last_declined_attempt_cancels() -> None:
    story = decline(placed()).then("OrderPaymentFailed", "OrderCancelled")
    assert story.history[-2].data.attempts_left == 0
    assert story.now.cancellation is not None
    assert story.now.cancellation.reason == "payment_declined"


def test_a_declined_attempt_with_attempts_left_waits_for_another() -> None:
    story = decline(placed(policy=PATIENT)).then("OrderPaymentFailed")
    assert (last(story).attempts_left, last(story).purpose) == (2, "order")
    assert story.now.status == "PENDING_PAYMENT"
    story.when(AGAIN, at=at(60)).then("OrderPaymentRequested")
    asked = last(story)
    assert (asked.attempt, asked.payment_token, asked.amount) == (2, "pm_other", story.now.totals.total)
    assert asked.due_at == story.now.payment_due_at == at(60) + POLICY.payment.timeout
    assert len({p.attempt_id for p in story.now.payments}) == 2
    decline(story).then("OrderPaymentFailed")
    story.given(AGAIN)
    decline(story).then("OrderPaymentFailed", "OrderCancelled")


def test_the_second_attempt_pays() -> None:
    story = pay(decline(placed(policy=PATIENT)).given(AGAIN)).then("OrderPaymentConfirmed")
    assert [p.status for p in story.now.payments] == ["declined", "captured"]


def test_a_decline_is_heard_once() -> None:
    story = placed(policy=PATIENT)
    first = story.attempt
    decline(story).then("OrderPaymentFailed")
    decline(story, first).then()
    decline(paid(policy=PATIENT)).then()


def test_one_attempt_at_a_time() -> None:
    story = placed(policy=PATIENT).when(AGAIN).refused("payment-under-way")
    decline(story).given(AGAIN)
    story.when(AGAIN).refused("payment-under-way")


def test_attempts_run_out_when_policy_has_become_stricter() -> None:
    story = decline(placed(policy=PATIENT))
    story.policy = POLICY
    story.when(AGAIN).refused("no-attempts-left")


def test_a_held_order_is_not_paid_again() -> None:
    story = decline(placed(policy=PATIENT)).given(STAFF, actor="staff:eve")
    story.when(AGAIN).refused("order-held")


def test_only_an_unpaid_order_can_be_paid() -> None:
    story = paid().when(AGAIN).refused("cannot-pay")
    assert story.refusal is not None
    assert story.refusal.extra["status"] == "PAYMENT_CONFIRMED"


def test_an_unpaid_order_is_cancelled_at_its_deadline_and_not_by_a_stale_fire() -> None:
    story = placed()
    due = story.now.payment_due_at
    assert due is not None
    story.when(c.ExpirePayment(attempt_id="another", due_at=due)).then()
    story.when(c.ExpirePayment(attempt_id=story.attempt, due_at=due - timedelta(seconds=1))).then()
    story.when(c.ExpirePayment(attempt_id=story.attempt, due_at=due), at=due).then("OrderCancelled")
    assert story.now.cancellation is not None
    assert story.now.cancellation.reason == "payment_timeout"
    story.when(c.ExpirePayment(attempt_id=story.attempt, due_at=due)).then()


def test_the_deadline_of_an_attempt_ends_with_the_next_one() -> None:
    story = placed(policy=PATIENT)
    first, due = story.attempt, story.now.payment_due_at
    assert due is not None
    decline(story).given(AGAIN, at=at(60))
    story.when(c.ExpirePayment(attempt_id=first, due_at=due), at=due, actor=TIMERS).then()
    later = story.now.payment_due_at
    assert later is not None
    story.when(c.ExpirePayment(attempt_id=story.attempt, due_at=later), at=later, actor=TIMERS).then("OrderCancelled")


def test_a_declined_order_expires_when_nobody_pays_again() -> None:
    story = decline(placed(policy=PATIENT))
    due = story.now.payment_due_at
    assert due is not None
    story.when(c.ExpirePayment(attempt_id=story.attempt, due_at=due), at=due, actor=TIMERS).then("OrderCancelled")


def test_an_edit_does_not_hide_the_attempt_that_the_deadline_is_for() -> None:
    story = placed()
    first, due = story.attempt, story.now.payment_due_at
    assert due is not None
    story.given(c.AddItem(line=line("CUP")))
    story.when(c.ExpirePayment(attempt_id=first, due_at=due), at=due, actor=TIMERS).then("OrderCancelled")


def test_a_paid_order_does_not_expire() -> None:
    story = placed()
    due = story.now.payment_due_at
    assert due is not None
    pay(story).when(c.ExpirePayment(attempt_id=story.attempt, due_at=due)).then()


def test_payments_that_nobody_asked_for_are_refused() -> None:
    story = placed()
    for payload in (
        c.ConfirmPayment(attempt_id="x", amount=1, provider_ref="r"),
        c.FailPayment(attempt_id="x", code="r"),
        c.ConfirmCapture(attempt_id="x", capture_id="y", amount=1, provider_ref="r"),
        c.FailCapture(attempt_id="x", capture_id="y", amount=1, code="r"),
        c.ConfirmVoid(attempt_id="x"),
    ):
        story.when(payload, actor=SAGA).refused("unknown-payment")
    story.when(c.ConfirmCapture(attempt_id=story.attempt, capture_id="y", amount=1, provider_ref="r"))
    story.refused("unknown-capture")
    story.when(c.RenewAuthorization(attempt_id="x"), actor=TIMERS).then()


def test_a_decline_that_turns_into_a_payment_pays_the_order_and_a_second_payment_goes_back() -> None:
    story = placed(policy=PATIENT)
    first = story.attempt
    decline(story).given(AGAIN)
    second = story.attempt
    pay(story, attempt_id=first).then("OrderPaymentConfirmed")
    pay(story, attempt_id=second).then("OrderRefundInitiated")
    assert last(story).reason == "paid_in_vain"
    assert held_money(story) == story.now.totals.total


# Reserved money


def test_reserved_money_confirms_the_order_and_is_taken_parcel_by_parcel() -> None:
    story = authorized()
    payment = story.now.payments[0]
    assert (payment.status, payment.expires_at, story.now.captured) == ("authorized", at(7 * 86400), 0)
    authorize(story).then()
    ship(processing(story), "S1", L1=3).then("OrderShipmentDispatched", "OrderPaymentCaptureRequested")
    first = last(story)
    captured = c.ConfirmCapture(
        attempt_id=first.attempt_id, capture_id=first.capture_id, amount=first.amount, provider_ref="cp_1"
    )
    story.when(captured, actor=SAGA).then("OrderPaymentCaptured")
    story.when(captured, actor=SAGA).then()
    assert (story.now.captured, story.now.payments[0].capturing) == (first.amount, 0)
    ship(story, "S2", L2=1).then("OrderShipmentDispatched", "OrderPaymentCaptureRequested", "OrderShipped")
    second = story.history[-2].data
    assert first.amount + second.amount == story.now.totals.total
    assert first.capture_id != second.capture_id
    story.when(
        c.ConfirmCapture(
            attempt_id=second.attempt_id, capture_id=second.capture_id, amount=second.amount, provider_ref="cp_2"
        )
    ).then("OrderPaymentCaptured")
    assert story.now.captured == story.now.totals.total
    assert story.now.payments[0].status == "captured"


def test_what_is_left_of_a_reservation_after_the_last_parcel_is_given_free() -> None:
    story = authorized().given(c.ChangeQuantity(line_id="L1", quantity=1))
    ship(processing(story), "S1", L1=1, L2=1)
    asked = story.history[-2].data
    capture = c.ConfirmCapture(
        attempt_id=asked.attempt_id, capture_id=asked.capture_id, amount=asked.amount, provider_ref="cp_1"
    )
    story.when(capture, actor=SAGA).then("OrderPaymentCaptured", "OrderPaymentVoidRequested")
    story.when(c.ConfirmVoid(attempt_id=asked.attempt_id), actor=SAGA).then("OrderPaymentVoided")
    assert story.now.payments[0].status == "captured"
    assert story.now.captured == story.now.totals.total


def test_a_failed_capture_frees_what_it_asked_for_and_may_still_succeed() -> None:
    story = ship(processing(authorized()), "S1", L1=3)
    asked = last(story)
    fail = c.FailCapture(attempt_id=asked.attempt_id, capture_id=asked.capture_id, amount=asked.amount, code="expired")
    story.when(fail, actor=SAGA).then("OrderPaymentCaptureFailed")
    assert (story.now.captured, story.now.payments[0].capturing) == (0, 0)
    story.when(fail, actor=SAGA).then()
    again = c.ConfirmCapture(
        attempt_id=asked.attempt_id, capture_id=asked.capture_id, amount=asked.amount, provider_ref="cp_1"
    )
    story.when(again, actor=SAGA).then("OrderPaymentCaptured")
    story.when(fail, actor=SAGA).then()
    assert story.now.captured == asked.amount


def test_a_capture_of_an_order_that_ended_meanwhile_goes_back() -> None:
    story = ship(processing(authorized(line("MUG"))), "S1", L1=1)
    asked = story.history[-2].data
    assert type(asked).__name__ == "OrderPaymentCaptureRequested"
    story.order = story.now.model_copy(update={"status": "CANCELLED"})
    capture = c.ConfirmCapture(
        attempt_id=asked.attempt_id, capture_id=asked.capture_id, amount=asked.amount, provider_ref="cp_1"
    )
    story.when(capture, actor=SAGA).then("OrderPaymentCaptured", "OrderRefundInitiated")
    assert held_money(story) == 0


def test_a_capture_of_what_was_given_free_is_news() -> None:
    story = authorized().given(c.CancelOrder(reason="customer_request"))
    pay(story, provider_ref="ch_9").then("OrderRefundInitiated")
    assert held_money(story) == 0
    pay(story, provider_ref="ch_9").then()


def test_a_reservation_that_expires_is_renewed_and_the_old_one_given_free() -> None:
    story = authorized()
    old = story.attempt
    renew = c.RenewAuthorization(attempt_id=old)
    story.when(renew, at=at(86400), actor=TIMERS).then("OrderPaymentRequested")
    asked = last(story)
    assert (asked.purpose, asked.authorize, asked.amount) == ("renewal", True, story.now.totals.total)
    assert (asked.payment_token, story.now.payment_due_at) == ("pm_card_visa", None)
    story.when(renew, at=at(86400), actor=TIMERS).then()
    authorize(story).then("OrderPaymentConfirmed", "OrderPaymentVoidRequested")
    assert (last(story).attempt_id, story.now.status) == (old, "PAYMENT_CONFIRMED")
    assert story.now.modifiable_until == OVER, "a renewal gives no new time to modify"
    assert [p.status for p in story.now.payments] == ["voiding", "authorized"]
    story.when(renew, at=at(86400), actor=TIMERS).then()
    ship(processing(story), "S1", L1=3, L2=1)
    assert story.now.payments[1].capturing == story.now.totals.total


def test_only_what_is_still_to_be_taken_is_renewed() -> None:
    story = ship(processing(authorized()), "S1", L1=2)
    taken = last(story).amount
    cancelled = c.CancelOrder(reason="changed_mind", items=(c.ItemQuantity(line_id="L1", quantity=1),))
    story.given(cancelled, at=OVER).when(c.RenewAuthorization(attempt_id=story.attempt), at=OVER)
    story.then("OrderPaymentRequested")
    assert last(story).amount == story.now.totals.total - taken - 1190


@pytest.mark.parametrize("end", ["ship", "cancel", "captured"])
def test_a_reservation_that_is_not_needed_any_more_is_not_renewed(end: str) -> None:
    story = paid() if end == "captured" else authorized()
    if end == "ship":
        ship(processing(story), "S1", L1=3, L2=1)
    if end == "cancel":
        story.given(c.CancelOrder(reason="customer_request"))
    story.when(c.RenewAuthorization(attempt_id=story.attempt), at=OVER, actor=TIMERS).then()


def test_a_renewal_that_comes_too_late_is_given_free() -> None:
    story = authorized().given(c.RenewAuthorization(attempt_id=authorized().attempt))
    story.given(c.CancelOrder(reason="customer_request"))
    authorize(story).then("OrderPaymentVoidRequested")
    assert last(story).attempt_id == story.attempt


def test_a_declined_renewal_leaves_the_order_as_it_is() -> None:
    story = authorized().given(c.RenewAuthorization(attempt_id=authorized().attempt))
    decline(story).then("OrderPaymentFailed")
    assert last(story).purpose == "renewal"
    assert [p.status for p in story.now.payments] == ["authorized", "declined"]
    assert story.now.status == "PAYMENT_CONFIRMED"


@settings(max_examples=100, deadline=None)
@given(
    quantities=st.tuples(*[st.integers(1, 6)] * 2),
    prices=st.tuples(*[st.integers(1, 9_999)] * 2),
    cuts=st.lists(st.tuples(st.sampled_from(["L1", "L2"]), st.integers(1, 3), st.booleans()), max_size=10),
)
def test_parcel_by_parcel_exactly_the_price_is_taken(
    quantities: tuple[int, int], prices: tuple[int, int], cuts: list[tuple[str, int, bool]]
) -> None:
    story = processing(authorized(line("MUG", quantities[0], prices[0]), line("LAMP", quantities[1], prices[1])))
    for i, (line_id, quantity, succeeds) in enumerate(cuts):
        found = story.now.line(line_id)
        if found is not None and found.to_ship:
            _send(story, f"S{i}", succeeds, **{line_id: min(quantity, found.to_ship)})
    rest = {x.line_id: x.to_ship for x in story.now.lines if x.to_ship}
    if rest:
        _send(story, "S-last", True, **rest)
    failed = sum(x.amount for p in story.now.payments for x in p.captures if x.status == "failed")
    assert story.now.captured <= story.now.totals.total
    if rest or not failed:
        assert story.now.captured == story.now.totals.total, "a failed capture is made up for by the next parcel"


def _send(story: Story, shipment_id: str, succeeds: bool, **units: int) -> None:
    ship(story, shipment_id, **units)
    for asked in [x.data for x in story.history[-3:] if type(x.data).__name__ == "OrderPaymentCaptureRequested"]:
        if any(x.capture_id == asked.capture_id and x.status == "requested" for x in story.now.payments[0].captures):
            told = {"attempt_id": asked.attempt_id, "capture_id": asked.capture_id, "amount": asked.amount}
            yes, no = c.ConfirmCapture(**told, provider_ref="cp"), c.FailCapture(**told, code="refused")
            story.given(yes if succeeds else no, actor=SAGA)


# Holds


def test_a_fraud_review_has_a_deadline_and_stops_the_payment_clock() -> None:
    story = placed()
    due = story.now.payment_due_at
    assert due is not None
    story.when(FRAUD, actor=SAGA).then("OrderHeld")
    hold = story.now.hold
    assert hold is not None
    assert (hold.kind, hold.score, hold.due_at) == ("fraud", 60, T0 + POLICY.fraud.review_within)
    assert story.now.payment_due_at is None
    story.when(c.ExpirePayment(attempt_id=story.attempt, due_at=due), at=due, actor=TIMERS).then()


def test_a_release_asks_afresh_for_the_money() -> None:
    story = placed().given(FRAUD)
    old = story.attempt
    story.when(c.ReleaseOrder(comment="known customer"), actor="staff:eve", at=at(3600))
    story.then("OrderReleased", "OrderPaymentRequested")
    assert (story.history[-2].data.kind, story.history[-2].data.comment) == ("fraud", "known customer")
    assert [p.status for p in story.now.payments] == ["superseded", "requested"]
    assert last(story).due_at == story.now.payment_due_at == at(3600) + POLICY.payment.timeout
    assert story.now.hold is None
    decline(story, old).then()
    pay(story).then("OrderPaymentConfirmed")


def test_a_superseded_attempt_that_was_charged_all_the_same_pays_once() -> None:
    story = placed().given(STAFF, actor="staff:eve")
    old = story.attempt
    story.given(c.ReleaseOrder(), actor="staff:eve")
    new = story.attempt
    pay(story, attempt_id=old).then("OrderPaymentConfirmed")
    pay(story, attempt_id=new).then("OrderRefundInitiated")
    assert held_money(story) == story.now.totals.total


def test_an_attempt_is_settled_when_its_outcome_comes_not_when_another_takes_its_place() -> None:
    story = placed().given(FRAUD)
    old = story.attempt
    story.given(c.ReleaseOrder(), actor="staff:eve", at=at(60))
    assert story.now.payments[0].settled_at is None
    for attempt, seconds in ((story.attempt, 61), (old, 90)):  # the old one was captured late: it goes back
        yes = c.ConfirmPayment(attempt_id=attempt, amount=story.now.totals.total, provider_ref="ch")
        story.given(yes, actor=SAGA, at=at(seconds))
    assert [(p.status, p.settled_at) for p in story.now.payments] == [("captured", at(90)), ("captured", at(61))]


def test_payment_may_be_confirmed_while_held_but_fulfilment_waits_for_the_release() -> None:
    story = placed().given(STAFF, actor="staff:eve")
    pay(story).then("OrderPaymentConfirmed")
    assert story.now.hold is not None
    story.when(c.BeginFulfilment(due_at=OVER), at=OVER, actor=TIMERS).then()
    story.when(c.ReleaseOrder(), actor="staff:eve", at=OVER).then("OrderReleased", "OrderProcessingStarted")
    early = paid().given(STAFF, actor="staff:eve")
    early.when(c.ReleaseOrder(), actor="staff:eve", at=at(60)).then("OrderReleased")


def test_a_release_does_not_begin_fulfilment_under_a_pending_edit() -> None:
    story = paid().given(c.ChangeShippingAddress(address=address("FR"))).given(STAFF, actor="staff:eve")
    story.when(c.ReleaseOrder(), actor="staff:eve", at=OVER).then("OrderReleased")
    assert story.now.edit is not None
    done = c.ExpireEdit(edit_id=story.now.edit.edit_id)
    story.when(done, at=OVER, actor=TIMERS).then("OrderEditFailed", "OrderProcessingStarted")


def test_an_order_is_held_once_but_a_fraud_review_takes_over() -> None:
    story = placed().given(STAFF, actor="staff:eve")
    story.when(STAFF, actor="staff:eve").refused("already-held")
    story.when(FRAUD, actor=SAGA).then("OrderHeld")
    assert story.now.hold is not None
    assert story.now.hold.kind == "fraud"
    story.when(STAFF, actor="staff:eve").refused("already-held")
    story.when(FRAUD, actor=SAGA).refused("already-held")


def test_holds_that_can_not_be() -> None:
    story = placed().when(c.HoldOrder(kind="whim", reason="r"), actor="staff:eve")
    story.refused("unknown-hold", 422, "kind")
    story.when(c.ReleaseOrder(), actor="staff:eve").refused("not-held")
    processing(paid()).when(STAFF, actor="staff:eve", at=OVER).refused("cannot-hold")


def unreviewed(what: str) -> Policy:
    return POLICY.model_copy(update={"fraud": POLICY.fraud.model_copy(update={"unreviewed": what})})


def test_an_order_that_nobody_reviewed_is_cancelled_or_released_by_policy() -> None:
    due = T0 + POLICY.fraud.review_within
    expire = c.ExpireReview(due_at=due)
    story = placed(policy=unreviewed("cancel")).given(FRAUD)
    story.when(expire, at=due, actor=TIMERS).then("OrderCancelled")
    assert story.now.cancellation is not None
    assert story.now.cancellation.reason == "fraud"
    story.when(expire, at=due, actor=TIMERS).then()
    story = placed(policy=unreviewed("release")).given(FRAUD)
    story.when(expire, at=due, actor=TIMERS).then("OrderReleased", "OrderPaymentRequested")


def test_the_deadline_of_another_review_is_stale() -> None:
    story = placed().given(FRAUD)
    story.when(c.ExpireReview(due_at=at(1)), actor=TIMERS).then()
    story.given(c.ReleaseOrder(), actor="staff:eve")
    story.when(c.ExpireReview(due_at=T0 + POLICY.fraud.review_within), actor=TIMERS).then()
    held = placed().given(STAFF, actor="staff:eve")
    held.when(c.ExpireReview(due_at=T0 + POLICY.fraud.review_within), actor=TIMERS).then()
