"""The placement saga: what it sends for what it hears, also in odd orders and twice."""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.placement.processor import PLACEMENT
from processors.placement.saga import Placement, Send, evolve, react
from schemas import commands as c
from schemas import events as e
from schemas import fraud as f
from schemas import inventory as i
from schemas import payment as p
from schemas import promotion as promo
from schemas.base import Event, Message, Payload
from schemas.operations import ExceptionOpened, ExceptionResolved
from schemas.order import AppliedPromotion, Edit, Line, PromotionTerms, ShipmentLine, Totals
from schemas.policy import Policy
from schemas.replies import CommandRejected, Rejection
from schemas.timers import CancelTimer, SetTimer
from tests.support.examples import ORDER, POLICY, T0, address, at

P = TypeVar("P", bound=Payload)
SILENT = POLICY.model_copy(update={"payment": POLICY.payment.model_copy(update={"feed": False})})
ATTEMPT = "attempt-1"


def order_line(n: int, sku: str, quantity: int = 2, cancelled: int = 0, backorder: bool = False) -> Line:
    return Line(
        line_id=f"L{n}", product_id="p", sku=sku, name=sku, category="c", tax_category="standard", weight_grams=1,
        quantity=quantity, cancelled=cancelled, backorder=backorder, unit_price=100, line_total=100 * quantity,
    )  # fmt: skip


def submitted(*skus: str, **changes: Any) -> e.OrderSubmitted:
    lines = tuple(order_line(n, sku) for n, sku in enumerate(skus, start=1))
    return e.OrderSubmitted(**{"lines": lines, "totals": Totals(total=600), **changes})


def applied(*codes: str) -> tuple[AppliedPromotion, ...]:
    return tuple(AppliedPromotion(terms=PromotionTerms(code=code, kind="free_shipping"), amount=10) for code in codes)


REQUESTED = e.OrderPaymentRequested(
    attempt_id=ATTEMPT, attempt=1, amount=600, currency="EUR", payment_token="t", due_at=at(900), valid_until=at(600)
)
CAPTURED = p.PaymentCaptured(attempt_id=ATTEMPT, amount=600, currency="EUR", provider_ref="ch_1")
DECLINED = p.PaymentDeclined(attempt_id=ATTEMPT, code="card_declined")
CANCELLED = e.OrderCancelled(reason="changed_mind")


def unknown(asked: int = 0) -> p.PaymentUnknown:
    return p.PaymentUnknown(attempt_id=ATTEMPT, amount=600, currency="EUR", reason="timeout", asked=asked)


def held(line: str, version: int = 2) -> i.StockReserved:
    return i.StockReserved(line_id=line, sku="MUG", quantity=2, order_version=version)


def short(line: str, sku: str = "MUG", version: int = 2) -> i.StockRefused:
    return i.StockRefused(line_id=line, sku=sku, quantity=2, available=0, reason="insufficient", order_version=version)


class Story:
    """An order's placement and what it sent last. Events are numbered as they come; the first one here is version 2."""

    def __init__(self, policy: Policy = POLICY) -> None:
        self.policy = policy
        self.placement: Placement | None = None
        self.version = 1
        self.sent: list[Send] = []
        self.cause: Event[Any] | Message[Any] | None = None

    def hears(self, *payloads: Payload, imported: bool = False) -> Story:
        for payload in payloads:
            if payload.family == "order.events":
                self.version += 1
                self._take(
                    Event(
                        id=f"e{self.version}", order_id=ORDER, version=self.version, occurred_at=T0, actor="a",
                        correlation_id="c", causation_id="x", previous_hash="", data=payload, imported=imported,
                    )
                )  # fmt: skip
            else:
                self._take(Message(id="m", at=T0, actor="a", correlation_id="c", order_id=ORDER, data=payload))
        return self

    def hears_again(self) -> Story:
        assert self.cause is not None
        self._take(self.cause)
        return self

    def _take(self, cause: Event[Any] | Message[Any]) -> None:
        after = evolve(self.placement, cause, self.policy)
        self.sent = react(self.placement, after, cause, self.policy)
        self.placement, self.cause = after, cause

    def sends(self, *kinds: type[Payload]) -> Story:
        """Just these, in any order: they go to different topics."""
        assert Counter(type(s.payload) for s in self.sent) == Counter(kinds), self.sent
        return self

    def only(self) -> Any:
        assert len(self.sent) == 1, self.sent
        return self.sent[0].payload

    def one(self, kind: type[P]) -> P:
        (found,) = [s.payload for s in self.sent if isinstance(s.payload, kind)]
        return found

    def all(self, kind: type[P]) -> list[P]:
        return [s.payload for s in self.sent if isinstance(s.payload, kind)]


def placed(*skus: str) -> Story:
    return Story().hears(submitted(*skus), REQUESTED)


def charging() -> Story:
    return placed("MUG").hears(held("L1"))


CONFIRMED = e.OrderPaymentConfirmed(attempt_id=ATTEMPT, amount=600, provider_ref="ch_1")


def paid(*skus: str, **changes: Any) -> Story:
    """A paid order; the next event is version 5."""
    skus = skus or ("MUG",)
    story = Story().hears(submitted(*skus, **changes), REQUESTED)
    story.hears(*(held(f"L{n}") for n in range(1, len(skus) + 1)))
    story.hears(*(promo.PromotionRedeemed(code=x.terms.code, order_version=2) for x in changes.get("promotions", ())))
    return story.hears(CAPTURED, CONFIRMED)


def offered(story: Story) -> Any:
    """What the exception offers to send again."""
    (again,) = [s.retry for s in story.sent if isinstance(s.payload, ExceptionOpened)]
    assert again is not None
    return again.payload


def test_the_happy_way() -> None:
    story = Story()
    story.hears(submitted("MUG", "LAMP")).sends(i.ReserveStock, i.ReserveStock)
    story.hears(REQUESTED).sends(SetTimer)
    story.hears(held("L1")).sends()
    story.hears(held("L2")).sends(p.ChargePayment)
    assert story.only().valid_until == at(600)
    story.hears(CAPTURED).sends(c.ConfirmPayment)
    story.hears(e.OrderPaymentConfirmed(attempt_id=ATTEMPT, amount=600, provider_ref="ch_1")).sends(CancelTimer)


def test_results_that_come_before_the_payment_request_still_lead_to_one_charge() -> None:
    story = Story().hears(submitted("MUG"), held("L1")).sends()
    story.hears(REQUESTED).sends(SetTimer, p.ChargePayment)


def test_a_shortage_waits_for_every_answer_and_names_all_that_is_short() -> None:
    story = placed("MUG", "LAMP", "CUP")
    story.hears(short("L2", "LAMP")).sends()
    story.hears(held("L1")).sends()
    story.hears(short("L3", "CUP")).sends(c.CancelOrder)
    assert story.only().reason == "out_of_stock"
    assert story.only().skus == ("CUP", "LAMP")
    story.hears(e.OrderCancelled(reason="out_of_stock")).sends(i.ReleaseStock, CancelTimer)
    assert story.one(i.ReleaseStock).line_id == "L1"


def test_a_declined_payment_fails_the_order_and_its_end_gives_stock_back() -> None:
    story = charging().hears(DECLINED).sends(c.FailPayment)
    story.hears(e.OrderPaymentFailed(attempt_id=ATTEMPT, code="card_declined")).sends()
    story.hears(e.OrderCancelled(reason="payment_declined")).sends(i.ReleaseStock, CancelTimer)


def test_repeats_send_nothing() -> None:
    story = charging()
    story.hears(held("L1")).sends()
    story.hears(CAPTURED).sends(c.ConfirmPayment)
    story.hears(CAPTURED).sends()
    story = charging().hears(DECLINED)
    story.hears(DECLINED).sends()
    story.hears(CANCELLED)
    story.hears(CANCELLED).sends()


def test_a_cancelled_order_is_not_charged_when_its_stock_arrives_late() -> None:
    story = placed("MUG", "LAMP").hears(CANCELLED).sends(i.ReleaseStock, i.ReleaseStock, CancelTimer)
    story.hears(held("L1"), held("L2")).sends()


def test_a_capture_after_the_end_is_handed_to_the_order_which_gives_it_back() -> None:
    story = charging().hears(CANCELLED).hears(CAPTURED).sends(c.ConfirmPayment)
    refund = e.OrderRefundInitiated(
        refund_id="r1", attempt_id=ATTEMPT, amount=600, reason="paid_after_end", captured_late="ch_1"
    )
    story.hears(refund).sends(p.RefundPayment)
    done = p.PaymentRefunded(refund_id="r1", attempt_id=ATTEMPT, amount=600, currency="EUR", provider_ref="re_1")
    story.hears(done).sends(c.CompleteRefund)
    story.hears(done).sends()


def test_no_answer_is_asked_for_again_ever_more_slowly() -> None:
    story = charging().hears(unknown()).sends(SetTimer)
    assert story.only().kind == "payment_query"
    assert story.only().due_at == T0 + POLICY.payment.ask_first_after
    assert story.only().args == {"attempt_id": ATTEMPT, "amount": "600", "currency": "EUR", "asked": "1"}
    story.hears(unknown(asked=3)).sends(SetTimer)
    assert story.only().due_at == T0 + POLICY.payment.ask_first_after * 8
    story.hears(unknown(asked=100))
    assert story.only().due_at == T0 + POLICY.payment.ask_at_most_every
    story.hears(unknown(asked=POLICY.payment.ask_times)).sends(ExceptionOpened)
    assert story.only().kind == "payment_unknown"
    story.hears(unknown(asked=POLICY.payment.ask_times)).sends()
    story.hears(CAPTURED).sends(c.ConfirmPayment, ExceptionResolved)


def test_an_order_that_ends_unanswered_goes_to_a_person_until_the_answer_comes() -> None:
    story = charging().hears(unknown()).hears(e.OrderCancelled(reason="payment_timeout"))
    story.sends(i.ReleaseStock, CancelTimer, ExceptionOpened)
    story.hears(unknown(asked=1)).sends(SetTimer)
    story.hears(CAPTURED).sends(c.ConfirmPayment, ExceptionResolved)


def test_an_order_that_ended_before_the_first_no_answer_goes_to_a_person_too() -> None:
    charging().hears(CANCELLED).hears(unknown()).sends(ExceptionOpened, SetTimer)


def test_the_provider_never_heard_of_it() -> None:
    story = charging().hears(unknown(), CANCELLED).hears(p.PaymentNotMade(attempt_id=ATTEMPT))
    story.sends(ExceptionResolved)
    charging().hears(p.PaymentNotMade(attempt_id=ATTEMPT)).sends()


def test_contradictions_go_to_a_person_and_money_is_still_handed_on() -> None:
    charging().hears(DECLINED).hears(CAPTURED).sends(c.ConfirmPayment, ExceptionOpened)
    charging().hears(CAPTURED).hears(DECLINED).sends(ExceptionOpened)


def test_money_that_nobody_asked_for_is_not_given_back_by_guess() -> None:
    other = CAPTURED.model_copy(update={"attempt_id": "other"})
    charging().hears(other).sends(ExceptionOpened)
    Story().hears(other).sends(ExceptionOpened)


def test_a_refund_that_failed_goes_to_a_person_until_another_try_succeeds() -> None:
    refund = e.OrderRefundInitiated(refund_id="r1", attempt_id=ATTEMPT, amount=600, reason="cancelled")
    failed = p.RefundFailed(refund_id="r1", attempt_id=ATTEMPT, amount=600, code="closed")
    done = p.PaymentRefunded(refund_id="r1", attempt_id=ATTEMPT, amount=600, currency="EUR", provider_ref="re")
    story = paid().hears(CANCELLED, refund).sends(p.RefundPayment)
    asked = story.only()
    story.hears(failed).sends(c.FailRefund, ExceptionOpened)
    assert offered(story) == asked
    raised = story.one(ExceptionOpened).exception_id
    story.hears(done).sends(c.CompleteRefund, ExceptionResolved)
    assert story.one(ExceptionResolved).exception_id == raised
    story.hears(done).sends()
    story.hears(failed).sends(ExceptionOpened)
    assert story.only().kind == "payment_contradiction"


def test_refused_commands_are_heard() -> None:
    def refused(command: str, type: str) -> CommandRejected:
        return CommandRejected(command_id="x", command=command, rejection=Rejection(type=type, detail="no"))

    charging().hears(refused("CancelOrder", "cannot-cancel")).sends()
    charging().hears(refused("ConfirmPayment", "unknown-payment")).sends(ExceptionOpened)


# Refusals of our own commands


def refused(command: str, type: str, actor: str = "system:placement") -> CommandRejected:
    return CommandRejected(command_id="x", command=command, rejection=Rejection(type=type, detail="no"), actor=actor)


def test_only_refusals_of_its_own_commands_are_its_business() -> None:
    charging().hears(refused("ConfirmPayment", "unknown-payment")).sends(ExceptionOpened)
    charging().hears(refused("ConfirmPayment", "unknown-payment", actor="")).sends(ExceptionOpened)
    charging().hears(refused("ShipShipment", "cannot-ship", actor="")).sends()
    charging().hears(refused("CancelOrder", "unknown-reason", actor="system:fulfilment")).sends()


@pytest.mark.parametrize(
    ("command", "type"), [("CancelOrder", "cannot-cancel"), ("HoldOrder", "cannot-hold"), ("HoldOrder", "already-held")]
)
def test_what_the_order_has_come_to_makes_void_and_no_exception(command: str, type: str) -> None:
    charging().hears(CANCELLED).hears(refused(command, type)).sends()


# Drafts


CREATED = e.OrderCreated(
    number="n", customer_id="42", currency="EUR", lines=(order_line(1, "MUG"),), totals=Totals(total=600),
    abandon_at=at(1000),
)  # fmt: skip
ADDED = e.OrderLineItemAdded(
    line_id="L2", sku="CUP", quantity=1, lines=(order_line(1, "MUG"), order_line(2, "CUP")), totals=Totals(total=700)
)


def test_a_draft_asks_for_nothing_but_a_timer_that_each_change_moves() -> None:
    story = Story().hears(CREATED).sends(SetTimer)
    assert (story.only().kind, story.only().due_at, story.only().args) == (
        "abandoned_draft", at(1000), {"version": "2"},
    )  # fmt: skip
    story.hears(ADDED).sends(SetTimer)
    assert story.only().due_at == T0 + POLICY.deadlines.draft_abandoned_after
    assert story.only().args == {"version": "3"}
    story.hears(submitted("MUG", "CUP")).sends(i.ReserveStock, i.ReserveStock, CancelTimer)
    assert story.one(CancelTimer).timer_id == f"{ORDER}:abandoned_draft"


def test_a_cancelled_draft_has_nothing_to_give_back() -> None:
    Story().hears(CREATED, CANCELLED).sends(CancelTimer)
    Story().hears(CANCELLED).sends()


def test_history_from_elsewhere_is_known_and_moves_nothing() -> None:
    story = Story()
    for event in (CREATED, submitted("MUG"), REQUESTED, CONFIRMED):
        story.hears(event, imported=True).sends()
    refund = e.OrderRefundInitiated(refund_id="r1", attempt_id=ATTEMPT, amount=600, reason="goodwill")
    story.hears(refund).sends(p.RefundPayment)
    assert story.only().currency == "EUR"


# Promotions and fraud

CODES = applied("SPRING", "FREE")
REDEEMED = promo.PromotionRedeemed(code="SPRING", order_version=2)
BUYER = {"customer_id": "42", "shipping_address": address().model_copy(update={"fingerprint": "f1"})}


def scored(aspect: str, score: int, *reasons: str, version: int = 3) -> f.OrderScored:
    return f.OrderScored(aspect=aspect, score=score, reasons=reasons, order_version=version)


def test_stock_promotions_and_scores_are_asked_side_by_side_and_all_waited_for() -> None:
    story = Story().hears(CREATED, submitted("MUG", promotions=CODES[:1], **BUYER))
    story.sends(i.ReserveStock, promo.RedeemPromotion, f.ScoreOrder, f.ScoreOrder, CancelTimer)
    assert story.one(promo.RedeemPromotion) == promo.RedeemPromotion(code="SPRING", customer_id="42", order_version=3)
    customer, by_address = story.all(f.ScoreOrder)
    assert (customer.subject, by_address.subject) == ("customer:42", "address:f1")
    assert (customer.amount, customer.currency, customer.shipping_country) == (600, "EUR", "DE")
    assert [s.key for s in story.sent if s.topic == "fraud.commands"] == ["customer:42", "address:f1"]
    answers = [held("L1", 3), promo.PromotionRedeemed(code="SPRING", order_version=3)]
    story.hears(REQUESTED, *answers, scored("customer", 0)).sends()
    story.hears(scored("address", 0)).sends(p.ChargePayment)


def test_no_scores_are_asked_without_fraud_rules_and_no_address_without_a_fingerprint() -> None:
    off = POLICY.model_copy(update={"fraud": POLICY.fraud.model_copy(update={"enabled": False})})
    Story(off).hears(submitted("MUG", **BUYER)).sends(i.ReserveStock)
    Story().hears(submitted("MUG", **{**BUYER, "shipping_address": address()})).sends(i.ReserveStock, f.ScoreOrder)


def test_a_refused_promotion_cancels_the_order_and_gives_the_others_back() -> None:
    story = Story().hears(submitted("MUG", promotions=CODES), REQUESTED, held("L1"), REDEEMED)
    refusal = promo.PromotionRefused(code="FREE", reason="used_up", order_version=2)
    story.hears(refusal).sends(c.CancelOrder)
    assert story.only().reason == "promotion_unavailable"
    story.hears(e.OrderCancelled(reason="promotion_unavailable"))
    story.sends(i.ReleaseStock, promo.ReleasePromotion, CancelTimer)
    assert story.one(promo.ReleasePromotion).code == "SPRING"


def placed_by_buyer() -> Story:
    return Story().hears(CREATED, submitted("MUG", **BUYER), REQUESTED, held("L1", 3))


def test_scores_add_up_to_a_rejection() -> None:
    story = placed_by_buyer().hears(scored("customer", 60, "customer_velocity"), scored("address", 40, "mismatch"))
    assert story.only() == c.CancelOrder(reason="fraud")


HELD = e.OrderHeld(kind="fraud", reason="amount", score=50, due_at=at(86400))
RELEASED = e.OrderReleased(kind="fraud")
AGAIN = REQUESTED.model_copy(update={"attempt_id": "attempt-2", "attempt": 2})


def test_a_suspicious_order_is_reviewed_and_charged_once_it_is_released() -> None:
    story = placed_by_buyer().hears(scored("customer", 50, "amount"), scored("address", 0)).sends(c.HoldOrder)
    assert story.only() == c.HoldOrder(kind="fraud", reason="amount", score=50)
    story.hears(HELD).sends(CancelTimer, SetTimer)
    assert (story.one(SetTimer).kind, story.one(SetTimer).due_at) == ("review_deadline", at(86400))
    story.hears(RELEASED).sends(CancelTimer)
    story.hears(AGAIN).sends(SetTimer, p.ChargePayment)
    assert story.one(p.ChargePayment).attempt_id == "attempt-2"


def test_a_reviewed_order_that_is_cancelled_is_never_charged() -> None:
    story = placed_by_buyer().hears(scored("customer", 50, "amount"), scored("address", 0), HELD)
    story.hears(e.OrderCancelled(reason="fraud")).sends(i.ReleaseStock, CancelTimer)


def test_a_hold_by_staff_stops_the_charge_and_does_not_stand_for_a_review() -> None:
    story = placed_by_buyer().hears(scored("address", 0), e.OrderHeld(kind="staff", reason="a call")).sends(CancelTimer)
    story.hears(scored("customer", 50, "amount")).sends()
    story.hears(e.OrderReleased(kind="staff")).sends(c.HoldOrder)
    story.hears(AGAIN).sends(SetTimer)


def test_a_hold_for_review_that_met_one_by_staff_is_asked_for_again() -> None:
    story = placed_by_buyer().hears(scored("customer", 50, "amount"), scored("address", 0))
    first = story.sent[0].name
    story.hears(e.OrderHeld(kind="staff", reason="a call"), e.OrderReleased(kind="staff")).sends(
        c.HoldOrder,
    )
    assert story.sent[0].name != first


def test_a_release_while_the_first_charge_is_under_way_does_not_charge_twice() -> None:
    story = charging().hears(e.OrderHeld(kind="staff", reason="a call"), e.OrderReleased(kind="staff"))
    story.hears(AGAIN).sends(SetTimer)
    story.hears(DECLINED).sends(c.FailPayment, p.ChargePayment)
    assert story.one(p.ChargePayment).attempt_id == "attempt-2"


def test_scores_of_an_order_that_ended_are_ignored() -> None:
    placed_by_buyer().hears(CANCELLED).hears(scored("customer", 100), scored("address", 100)).sends()


# Payment


def test_the_next_attempt_is_charged_at_once_while_the_stock_is_held() -> None:
    story = charging().hears(DECLINED, e.OrderPaymentFailed(attempt_id=ATTEMPT, code="card_declined", attempts_left=1))
    story.hears(AGAIN).sends(SetTimer, p.ChargePayment)
    assert story.one(SetTimer).generation == "attempt-2"
    assert story.one(p.ChargePayment).attempt_id == "attempt-2"


def test_nothing_to_pay_asks_no_provider() -> None:
    free = REQUESTED.model_copy(update={"amount": 0})
    story = Story().hears(submitted("MUG"), free).hears(held("L1")).sends(c.ConfirmPayment)
    assert (story.only().amount, story.only().provider_ref) == (0, "nothing-to-pay")
    late = Story().hears(submitted("MUG"), held("L1")).hears(free).sends(SetTimer, c.ConfirmPayment)
    late.hears_again().sends()


def test_another_amount_than_asked_for_is_confirmed_as_it_is_and_raised_where_nobody_else_raises_it() -> None:
    told = CAPTURED.model_copy(update={"amount": 599})
    reporting = charging().hears(told).sends(c.ConfirmPayment)
    assert reporting.only().amount == 599
    silent = Story(SILENT).hears(submitted("MUG"), REQUESTED, held("L1"), told)
    silent.sends(c.ConfirmPayment, ExceptionOpened)
    assert silent.one(ExceptionOpened).kind == "payment_amount_differs"
    refund = e.OrderRefundInitiated(refund_id="r1", attempt_id=ATTEMPT, amount=500, reason="goodwill")
    done = p.PaymentRefunded(refund_id="r1", attempt_id=ATTEMPT, amount=499, currency="EUR", provider_ref="re_1")
    reporting.hears(refund, done).sends(c.CompleteRefund)
    silent.hears(refund, done).sends(c.CompleteRefund, ExceptionOpened)


def test_the_question_that_a_person_may_ask_again_sets_off_no_others() -> None:
    story = charging().hears(unknown(), CANCELLED)
    assert offered(story) == p.QueryPayment(
        attempt_id=ATTEMPT, amount=600, currency="EUR", asked=POLICY.payment.ask_times
    )
    story.hears(unknown(asked=POLICY.payment.ask_times)).sends()


EXPIRES = T0 + 3 * POLICY.payment.renew_before
AUTHORIZED = p.PaymentAuthorized(
    attempt_id=ATTEMPT, amount=600, currency="EUR", provider_ref="au_1", expires_at=EXPIRES
)


def authorized() -> Story:
    """A paid order whose money is reserved; the next event is version 5."""
    ask = REQUESTED.model_copy(update={"authorize": True})
    story = Story().hears(submitted("MUG"), ask, held("L1")).sends(p.AuthorizePayment)
    story.hears(AUTHORIZED).sends(c.ConfirmPayment)
    confirm = story.only()
    assert (confirm.authorized, confirm.expires_at) == (True, EXPIRES)
    return story.hears(CONFIRMED.model_copy(update={"authorized": True, "expires_at": EXPIRES}))


def test_an_authorization_is_renewed_in_time_and_the_old_one_voided() -> None:
    story = authorized().sends(CancelTimer, SetTimer)
    renewal = story.one(SetTimer)
    assert (renewal.kind, renewal.due_at, renewal.args) == (
        "authorization_renewal", EXPIRES - POLICY.payment.renew_before, {"attempt_id": ATTEMPT},
    )  # fmt: skip
    again = AGAIN.model_copy(update={"authorize": True, "purpose": "renewal"})
    story.hears(again).sends(p.AuthorizePayment)
    new = AUTHORIZED.model_copy(update={"attempt_id": "attempt-2"})
    story.hears(new).sends(c.ConfirmPayment)
    confirmed = e.OrderPaymentConfirmed(
        attempt_id="attempt-2", amount=600, provider_ref="au_2", authorized=True, expires_at=EXPIRES, purpose="renewal"
    )
    story.hears(confirmed).sends(SetTimer)
    story.hears(e.OrderPaymentVoidRequested(attempt_id=ATTEMPT)).sends(p.VoidPayment, CancelTimer)
    story.hears(p.PaymentVoided(attempt_id=ATTEMPT)).sends(c.ConfirmVoid)
    story.hears(p.PaymentVoided(attempt_id=ATTEMPT)).sends()


@pytest.mark.parametrize(
    ("hours", "due_hours"), [(12, 6), (24, 12), (36, 18), (48, 24), (72, 48), (0, 0), (-1, 0)]
)  # hours until it expires
def test_a_short_authorization_is_renewed_when_half_of_it_is_over(hours: int, due_hours: int) -> None:
    story = Story().hears(submitted("MUG"), REQUESTED.model_copy(update={"authorize": True}), held("L1"))
    expires = {"authorized": True, "expires_at": at(hours * 3600)}
    story.hears(AUTHORIZED.model_copy(update={"expires_at": at(hours * 3600)}))
    story.hears(CONFIRMED.model_copy(update=expires))
    assert story.one(SetTimer).due_at == at(due_hours * 3600)


def test_a_renewal_that_is_declined_goes_to_a_person_because_the_old_one_lapses() -> None:
    story = authorized().hears(AGAIN.model_copy(update={"authorize": True, "purpose": "renewal"}))
    story.hears(p.PaymentDeclined(attempt_id="attempt-2", code="card_declined")).sends(c.FailPayment, ExceptionOpened)


def test_voiding_the_authorization_ends_its_renewal() -> None:
    authorized().hears(e.OrderPaymentVoidRequested(attempt_id=ATTEMPT)).sends(p.VoidPayment, CancelTimer)


def test_a_failed_void_goes_to_a_person_until_another_try_succeeds() -> None:
    story = authorized().hears(CANCELLED, e.OrderPaymentVoidRequested(attempt_id=ATTEMPT)).sends(p.VoidPayment)
    asked = story.only()
    story.hears(p.PaymentVoidFailed(attempt_id=ATTEMPT, code="no_answer")).sends(ExceptionOpened)
    assert offered(story) == asked
    story.hears(p.PaymentVoided(attempt_id=ATTEMPT)).sends(c.ConfirmVoid, ExceptionResolved)
    story.hears(p.PaymentVoidFailed(attempt_id=ATTEMPT, code="no_answer")).sends()


def test_the_difference_of_an_edit_is_reserved_too_where_money_is_captured_on_shipment() -> None:
    story = authorized().hears(MORE.model_copy(update={"authorize": True}), held("L1", 5)).sends(p.AuthorizePayment)
    story.hears(AUTHORIZED.model_copy(update={"attempt_id": "edit-1", "amount": 300})).sends(c.CompleteEdit)
    assert (story.only().authorized, story.only().expires_at) == (True, EXPIRES)
    story.hears(CHANGED).sends()
    paid_by = {"attempt_id": "edit-1", "authorized": True, "expires_at": EXPIRES}
    story.hears(COMPLETED.model_copy(update=paid_by)).sends(CancelTimer, SetTimer)
    assert story.one(SetTimer).args == {"attempt_id": "edit-1"}
    story.hears(e.OrderPaymentVoidRequested(attempt_id=ATTEMPT)).sends(p.VoidPayment, CancelTimer)
    assert story.one(CancelTimer).timer_id == f"{ORDER}:authorization_renewal:{ATTEMPT}"


CAPTURE = e.OrderPaymentCaptureRequested(attempt_id=ATTEMPT, capture_id="c1", amount=200, currency="EUR")
MADE = p.PaymentCaptureMade(attempt_id=ATTEMPT, capture_id="c1", amount=200, currency="EUR", provider_ref="ca_1")
NOT_MADE = p.PaymentCaptureFailed(attempt_id=ATTEMPT, capture_id="c1", amount=200, code="expired")


def test_captures_are_made_and_told() -> None:
    story = authorized().hears(CAPTURE).sends(p.CapturePayment)
    story.hears_again().sends()
    story.hears(MADE).sends(c.ConfirmCapture)
    story.hears(MADE).sends()


def test_a_failed_capture_goes_to_a_person_until_another_try_succeeds() -> None:
    story = authorized().hears(CAPTURE)
    asked = story.only()
    story.hears(NOT_MADE).sends(c.FailCapture, ExceptionOpened)
    assert offered(story) == asked
    story.hears(MADE).sends(c.ConfirmCapture, ExceptionResolved)


def test_more_taken_than_was_authorized_goes_to_a_person() -> None:
    story = authorized().hears(CAPTURED).sends(ExceptionOpened)
    assert story.only().kind == "payment_contradiction"
    authorized().hears(AUTHORIZED).sends()


def test_money_that_nobody_asked_for_is_seen_in_every_form() -> None:
    for found in (AUTHORIZED, CAPTURED, MADE, unknown()):
        Story().hears(found).sends(ExceptionOpened)
    refunded = p.PaymentRefunded(refund_id="r", attempt_id=ATTEMPT, amount=1, currency="EUR", provider_ref="re")
    Story().hears(refunded).sends(ExceptionOpened)


# Edits of a placed order

EDIT_PAID = p.PaymentCaptured(attempt_id="edit-1", amount=300, currency="EUR", provider_ref="ch_2")


def edit(*lines: Line, amount: int = 0, promotions: tuple[AppliedPromotion, ...] = ()) -> e.OrderEditRequested:
    change = Edit(
        edit_id="E1", kind="change_quantity", actor="customer:42", requested_at=T0, lines=lines,
        totals=Totals(total=600 + amount), promotions=promotions, attempt_id="edit-1" if amount else None,
    )  # fmt: skip
    return e.OrderEditRequested(
        edit=change, amount=amount, currency="EUR", payment_token="t", valid_until=at(600), due_at=at(700)
    )


MORE = edit(order_line(1, "MUG", 5), amount=300)
COMPLETED = e.OrderEditCompleted(
    edit_id="E1", kind="change_quantity", requested_by="customer:42", before=Totals(total=600), after=Totals(total=900)
)
FAILED = e.OrderEditFailed(edit_id="E1", kind="change_quantity", reason="timeout")
CHANGED = e.OrderLineItemQuantityChanged(
    line_id="L1", sku="MUG", before=2, quantity=5, lines=(order_line(1, "MUG", 5),), totals=Totals(total=900)
)


def test_an_edit_reserves_then_charges_then_completes() -> None:
    story = paid().hears(MORE).sends(i.ReserveStock, SetTimer)
    asked = story.one(i.ReserveStock)
    assert (asked.quantity, asked.order_version) == (5, 5)
    assert (story.one(SetTimer).kind, story.one(SetTimer).args) == ("edit_timeout", {"edit_id": "E1"})
    story.hears(held("L1", 5)).sends(p.ChargePayment)
    assert (story.only().attempt_id, story.only().amount) == ("edit-1", 300)
    story.hears(EDIT_PAID).sends(c.CompleteEdit)
    assert story.only() == c.CompleteEdit(edit_id="E1", attempt_id="edit-1", amount=300, provider_ref="ch_2")
    story.hears(CHANGED).sends()
    story.hears(COMPLETED).sends(CancelTimer)
    story.hears(CANCELLED).sends(i.ReleaseStock)


def test_an_edit_waits_until_the_order_is_paid() -> None:
    story = charging().hears(MORE).sends(SetTimer)
    story.hears(CAPTURED).sends(c.ConfirmPayment)
    story.hears(CONFIRMED).sends(CancelTimer, i.ReserveStock)
    assert story.one(i.ReserveStock).order_version == 4


def test_an_edit_of_a_held_order_is_charged_when_it_is_released() -> None:
    story = paid().hears(e.OrderHeld(kind="staff", reason="a call"), MORE).sends(i.ReserveStock, SetTimer)
    story.hears(held("L1", 6)).sends()
    story.hears(e.OrderReleased(kind="staff")).sends(p.ChargePayment)


def test_an_edit_that_costs_nothing_more_completes_once_the_stock_is_there() -> None:
    story = paid().hears(edit(order_line(1, "MUG", 2), order_line(2, "CUP", 1)))
    assert story.one(i.ReserveStock).line_id == "L2"
    story.hears(held("L2", 5)).sends(c.CompleteEdit)
    assert story.only() == c.CompleteEdit(edit_id="E1")


def test_an_edit_that_only_costs_more_is_charged_at_once() -> None:
    paid().hears(edit(order_line(1, "MUG", 2), amount=300)).sends(p.ChargePayment, SetTimer)


def dearer(actor: str = "customer:42", amount: int = 300) -> e.OrderEditRequested:
    """Three mugs more, of an order of somebody who can be scored."""
    asked = edit(order_line(1, "MUG", 5), amount=amount)
    change = asked.edit.model_copy(update={"actor": actor, "totals": Totals(total=900)})
    return asked.model_copy(
        update={"edit": change, "shipping_address": BUYER["shipping_address"], "billing_address": address("FR")}
    )


def bought(policy: Policy = POLICY) -> Story:
    """A paid order that was scored; the next event is version 6."""
    story = Story(policy).hears(CREATED, submitted("MUG", **BUYER), REQUESTED, held("L1", 3))
    return story.hears(scored("customer", 0), scored("address", 0), CAPTURED, CONFIRMED)


def test_an_edit_that_costs_more_is_scored_before_it_is_charged() -> None:
    story = bought().hears(dearer()).sends(i.ReserveStock, f.ScoreOrder, f.ScoreOrder, SetTimer)
    customer, by_address = story.all(f.ScoreOrder)
    assert (customer.subject, by_address.subject) == ("customer:42", "address:f1")
    assert (customer.amount, customer.shipping_country, customer.billing_country) == (900, "DE", "FR")
    assert (customer.order_version, customer.submitted_at) == (6, T0)
    story.hears_again().sends()
    story.hears(held("L1", 6), scored("customer", 20, "mismatch", version=6)).sends()
    story.hears(scored("address", 0, version=6)).sends(p.ChargePayment)
    story.hears(p.PaymentDeclined(attempt_id="edit-1", code="insufficient_funds")).sends(c.FailEdit)
    assert (story.only().reason, story.only().detail) == ("payment_declined", "insufficient_funds")


def test_a_suspicious_edit_fails_and_the_order_stays_as_it_is() -> None:
    high = scored("customer", 70, "amount", "mismatch", version=6)
    story = bought().hears(dearer(), high, scored("address", 0, version=6)).sends()
    story.hears(held("L1", 6)).sends(c.FailEdit)
    assert story.only() == c.FailEdit(edit_id="E1", reason="fraud", detail="amount, mismatch")
    story.hears(e.OrderEditFailed(edit_id="E1", kind="change_quantity", reason="fraud"))
    story.sends(i.ReserveStock, CancelTimer)
    assert story.one(i.ReserveStock).quantity == 2
    story.hears(high).sends()


def test_an_edit_is_scored_while_the_order_is_not_paid_yet() -> None:
    story = Story().hears(CREATED, submitted("MUG", **BUYER), REQUESTED, dearer())
    assert [x.order_version for x in story.all(f.ScoreOrder)] == [5, 5]
    story.hears(scored("customer", 60, "customer_velocity", version=5), scored("address", 0, version=5)).sends()
    story.hears(held("L1", 3), scored("customer", 0), scored("address", 0)).sends(p.ChargePayment)
    story.hears(CAPTURED, CONFIRMED).sends(CancelTimer, i.ReserveStock)
    story.hears(held("L1", story.version - 1)).sends(c.FailEdit)
    assert story.only().reason == "fraud"


def test_the_score_of_an_edit_that_is_over_is_not_the_next_ones() -> None:
    story = bought().hears(dearer(), e.OrderEditFailed(edit_id="E1", kind="change_quantity", reason="timeout"))
    story.hears(held("L1", 7), dearer(), held("L1", 8))
    story.hears(scored("customer", 60, "amount", version=6), scored("address", 0, version=6)).sends()
    story.hears(scored("customer", 0, version=8), scored("address", 0, version=8)).sends(p.ChargePayment)


def test_what_costs_no_more_and_what_staff_changes_is_not_scored() -> None:
    bought().hears(dearer(amount=0)).sends(i.ReserveStock, SetTimer)
    bought().hears(dearer("staff:eve")).sends(i.ReserveStock, SetTimer)
    off = POLICY.model_copy(update={"fraud": POLICY.fraud.model_copy(update={"enabled": False})})
    Story(off).hears(submitted("MUG", **BUYER), REQUESTED, held("L1"), CAPTURED, CONFIRMED, dearer()).sends(
        i.ReserveStock, SetTimer
    )


def test_an_edit_without_enough_stock_fails_and_the_line_keeps_what_it_had() -> None:
    story = paid().hears(MORE).hears(short("L1", version=5)).sends(c.FailEdit)
    assert (story.only().reason, story.only().skus) == ("out_of_stock", ("MUG",))
    story.hears(FAILED).sends(CancelTimer)
    story.hears(CANCELLED).sends(i.ReleaseStock)


def test_a_declined_edit_gives_back_what_it_took_with_a_version_that_wins() -> None:
    lines = (order_line(1, "MUG", 5), order_line(2, "CUP", 1))
    story = paid().hears(edit(*lines, amount=300)).hears(held("L1", 5), held("L2", 5))
    story.hears(p.PaymentDeclined(attempt_id="edit-1", code="insufficient_funds")).sends(c.FailEdit)
    assert (story.only().reason, story.only().detail) == ("payment_declined", "insufficient_funds")
    story.hears(FAILED).sends(i.ReserveStock, i.ReleaseStock, CancelTimer)
    assert (story.one(i.ReserveStock).quantity, story.one(i.ReserveStock).order_version) == (2, 6)
    assert (story.one(i.ReleaseStock).line_id, story.one(i.ReleaseStock).order_version) == ("L2", 6)
    story.hears(held("L1", 6)).sends()
    story.hears(CANCELLED).sends(i.ReleaseStock)


def test_a_late_answer_to_an_edit_that_is_over_changes_nothing() -> None:
    story = paid().hears(MORE, FAILED).sends(i.ReserveStock, CancelTimer)
    story.hears(short("L1", version=5)).sends()
    story.hears(held("L1", version=5)).sends()
    story.hears(held("L1", version=6)).sends()


def test_stock_that_refuses_what_it_must_hold_goes_to_a_person() -> None:
    story = paid().hears(MORE, FAILED).hears(short("L1", version=6)).sends(ExceptionOpened)
    assert ORDER in story.only().exception_id


def test_a_refusal_because_fulfilment_has_asked_for_more_since_is_none() -> None:
    stale = short("L1", version=6).model_copy(update={"reason": "stale"})
    paid().hears(MORE, FAILED).hears(stale).sends()


def test_an_edit_redeems_a_new_promotion_and_fails_without_it() -> None:
    added = edit(order_line(1, "MUG", 2), promotions=applied("SPRING"))
    story = paid().hears(added).sends(promo.RedeemPromotion, SetTimer)
    story.hears(promo.PromotionRedeemed(code="SPRING", order_version=5)).sends(c.CompleteEdit)
    story.hears(COMPLETED).sends(CancelTimer)
    story.hears(CANCELLED).sends(i.ReleaseStock, promo.ReleasePromotion)
    story = paid().hears(added, promo.PromotionRefused(code="SPRING", reason="used_up", order_version=5))
    assert story.only().reason == "promotion_unavailable"
    story.hears(FAILED).sends(CancelTimer)


def test_a_failed_edit_gives_its_promotion_back_and_keeps_the_others() -> None:
    story = paid("MUG", promotions=CODES[:1]).hears(edit(order_line(1, "MUG", 5), promotions=CODES))
    assert story.one(promo.RedeemPromotion).code == "FREE"
    story.hears(promo.PromotionRedeemed(code="FREE", order_version=5)).hears(short("L1", version=5)).sends(c.FailEdit)
    story.hears(FAILED).sends(promo.ReleasePromotion, CancelTimer)
    assert story.one(promo.ReleasePromotion) == promo.ReleasePromotion(code="FREE", order_version=6)


def test_money_for_an_edit_that_is_over_is_handed_to_the_order_which_gives_it_back() -> None:
    in_time = paid().hears(MORE, held("L1", 5), EDIT_PAID).sends(c.CompleteEdit)
    in_time.hears(FAILED).sends(i.ReserveStock, CancelTimer, c.ConfirmPayment)
    assert in_time.one(c.ConfirmPayment).attempt_id == "edit-1"
    late = paid().hears(MORE, held("L1", 5), FAILED).hears(EDIT_PAID).sends(c.ConfirmPayment)
    assert late.only().amount == 300
    ended = paid().hears(MORE, held("L1", 5), EDIT_PAID, CANCELLED)
    ended.sends(i.ReleaseStock, CancelTimer, c.ConfirmPayment)


def test_an_edits_attempt_that_was_never_charged_is_forgotten() -> None:
    story = paid().hears(MORE, FAILED, held("L1", 5)).sends()
    assert story.placement is not None
    assert [a.attempt_id for a in story.placement.attempts] == [ATTEMPT]


def test_an_edit_without_an_answer_of_the_provider_waits_for_its_deadline() -> None:
    story = paid().hears(MORE, held("L1", 5)).hears(p.PaymentNotMade(attempt_id="edit-1")).sends()
    story.hears(FAILED).sends(i.ReserveStock, CancelTimer)


def test_an_edit_that_was_declined_and_captured_after_all_is_paid_back() -> None:
    story = paid().hears(MORE, held("L1", 5), p.PaymentDeclined(attempt_id="edit-1", code="x"))
    story.hears(EDIT_PAID).sends(c.ConfirmPayment, ExceptionOpened)


def test_a_cancelled_order_gives_back_what_its_edit_took() -> None:
    lines = (order_line(1, "MUG", 5), order_line(2, "CUP", 1))
    story = paid().hears(edit(*lines, promotions=applied("SPRING")), held("L1", 5)).hears(CANCELLED)
    story.sends(i.ReleaseStock, i.ReleaseStock, promo.ReleasePromotion, CancelTimer)


# Units that come off a placed order


def test_fewer_units_and_removed_lines_are_given_back_with_the_events_version() -> None:
    story = paid("MUG", "CUP", "LAMP")
    fewer = e.OrderLineItemQuantityChanged(
        line_id="L1", sku="MUG", before=2, quantity=1, totals=Totals(),
        lines=(order_line(1, "MUG", 1), order_line(2, "CUP"), order_line(3, "LAMP")),
    )  # fmt: skip
    story.hears(fewer).sends(i.ReserveStock)
    assert (story.only().quantity, story.only().order_version) == (1, 5)
    removed = e.OrderLineItemRemoved(
        line_id="L2", sku="CUP", quantity=2, totals=Totals(), lines=(order_line(1, "MUG", 1), order_line(3, "LAMP"))
    )
    story.hears(removed).sends(i.ReleaseStock)
    assert (story.only().line_id, story.only().order_version) == ("L2", 6)
    off = e.OrderItemsCancelled(lines=(ShipmentLine(line_id="L3", sku="LAMP", quantity=1),), reason="customer_request")
    story.hears(off).sends(i.ReserveStock)
    assert (story.only().line_id, story.only().quantity) == ("L3", 1)
    story.hears_again().sends()
    story.hears(CANCELLED).sends(i.ReleaseStock, i.ReleaseStock)


def test_lost_units_stay_counted_and_reshipped_ones_count_again() -> None:
    """What inventory counts as wanted includes what was shipped; units that the warehouse has not found never were."""
    one = (ShipmentLine(line_id="L1", sku="MUG", quantity=1),)
    short = paid().hears(e.OrderItemsCancelled(lines=one, reason="out_of_stock", shipment_id="S1"))
    assert short.sends(i.ReserveStock).only().quantity == 1
    story = paid().hears(e.OrderItemsCancelled(lines=one, reason="lost", shipment_id="S1")).sends()
    story.hears(e.OrderShipmentLost(shipment_id="S2", lines=one * 2, reason="lost", reship=True)).sends()
    story.hears(e.OrderItemsCancelled(lines=one, reason="staff")).sends(i.ReserveStock)
    assert story.only().quantity == 3


def test_units_cancelled_while_an_edit_waits_leave_its_reservation_alone_until_it_ends() -> None:
    off = e.OrderItemsCancelled(lines=(ShipmentLine(line_id="L1", sku="MUG", quantity=1),), reason="customer_request")
    story = paid().hears(MORE, off).sends()
    story.hears(FAILED).sends(i.ReserveStock, CancelTimer)
    assert story.one(i.ReserveStock).quantity == 1


def test_a_removed_promotion_is_given_back() -> None:
    story = paid("MUG", promotions=CODES)
    story.hears(e.OrderPromotionRemoved(code="FREE", promotions=CODES[:1], lines=(), totals=Totals()))
    assert story.only() == promo.ReleasePromotion(code="FREE", order_version=5)


# State from the release before


def before_edits(phase: str, fate: str, line: str, *attempts: str, refunded: tuple[str, ...] = ()) -> Story:
    """A placement as the release before stored it; the next event is version 4."""
    story = Story()
    story.placement = PLACEMENT.read(
        {
            "shape": 1,
            "value": {
                "order_id": ORDER,
                "phase": phase,
                "lines": [{"line_id": "L1", "sku": "MUG", "quantity": 2, "fate": line}],
                "attempts": [
                    {
                        "attempt_id": x, "amount": 600, "currency": "EUR", "token": "t", "fate": fate,
                        "due_at": at(900).isoformat(), "valid_until": at(600).isoformat(),
                    }
                    for x in attempts
                ],
                "refunded": refunded,
                "version": 2,
            },
        }
    )  # fmt: skip
    story.version = 3
    return story


def test_what_the_release_before_began_goes_on() -> None:
    story = before_edits("reserving", "requested", "asked")
    story.hears(REQUESTED).sends(SetTimer)
    story.hears(held("L1")).sends(p.ChargePayment)
    before_edits("reserving", "requested", "asked", ATTEMPT).hears(held("L1")).sends(p.ChargePayment)
    before_edits("charging", "charging", "reserved", ATTEMPT).hears(CAPTURED).sends(c.ConfirmPayment)
    before_edits("charging", "charging", "reserved", ATTEMPT).hears(CANCELLED).sends(i.ReleaseStock, CancelTimer)
    before_edits("short", "requested", "refused", ATTEMPT).hears(CANCELLED).sends(CancelTimer)
    before_edits("paid", "captured", "reserved", ATTEMPT).hears(MORE).sends(i.ReserveStock, SetTimer)
    before_edits("ended", "unknown", "reserved", ATTEMPT).hears(CAPTURED).sends(c.ConfirmPayment, ExceptionResolved)
    done = p.PaymentRefunded(refund_id="r1", attempt_id=ATTEMPT, amount=600, currency="EUR", provider_ref="re")
    before_edits("ended", "captured", "reserved", ATTEMPT, refunded=("r1",)).hears(done).sends()
    before_edits("ended", "captured", "reserved", ATTEMPT).hears(done).sends(c.CompleteRefund)


# Under any interleaving


ANSWERS: list[Payload] = [held("L1"), held("L2"), REDEEMED, scored("customer", 0), scored("address", 0)]


@given(order=st.permutations([REQUESTED, *ANSWERS]), repeats=st.lists(st.integers(0, 5), max_size=4))
def test_in_any_order_and_with_repeats_there_is_one_charge(order: list[Payload], repeats: list[int]) -> None:
    story = Story().hears(submitted("MUG", "CUP", promotions=CODES[:1], **BUYER))
    order = [x.model_copy(update={"order_version": 2}) if isinstance(x, f.OrderScored) else x for x in order]
    charges = 0
    for n, payload in enumerate(order):
        story.hears(payload)
        charges += len(story.all(p.ChargePayment))
        if n in repeats:
            story.hears_again().sends()
    assert charges == 1


WORLD: list[Payload] = [
    held("L1"), short("L1"), held("L1", 5), short("L1", version=5), REDEEMED, CAPTURED, DECLINED, unknown(),
    p.PaymentNotMade(attempt_id=ATTEMPT), EDIT_PAID, p.PaymentDeclined(attempt_id="edit-1", code="x"),
    scored("customer", 0, version=2), scored("address", 70, version=2), AUTHORIZED, p.PaymentVoided(attempt_id=ATTEMPT),
    CONFIRMED, MORE, CHANGED, COMPLETED, FAILED, HELD, RELEASED, AGAIN, CANCELLED,
    e.OrderPromotionRemoved(code="SPRING", promotions=(), lines=(), totals=Totals()),
]  # fmt: skip


@given(st.lists(st.sampled_from(WORLD), max_size=25))
def test_whatever_is_heard_it_stays_sound(heard: list[Payload]) -> None:
    """No name stands for two different messages, no attempt is charged twice, a repeat sends nothing new, state is
    read back as it was, and an ended order holds nothing."""
    story = Story().hears(submitted("MUG", promotions=CODES[:1], **BUYER), REQUESTED)
    sent = {(send.topic, send.name): send.payload for send in story.sent}
    charged: list[str] = []
    for payload in heard:
        story.hears(payload)
        charged += [x.attempt_id for x in story.all(p.ChargePayment)]
        for send in story.sent:
            known = sent.setdefault((send.topic, send.name), send.payload)
            assert known == send.payload or isinstance(send.payload, ExceptionOpened), send
        story.hears_again()
        assert {(send.topic, send.name) for send in story.sent} <= sent.keys()
        assert not story.all(p.ChargePayment)
    assert len(charged) == len(set(charged))
    placement = story.placement
    assert placement is not None
    assert Placement.model_validate(placement.model_dump(mode="json")) == placement
    if CANCELLED in heard:
        assert (placement.phase, placement.needs, placement.uses, placement.timers) == ("ended", (), (), ())
