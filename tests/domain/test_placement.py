"""The placement saga: what it sends for what it hears, also in odd orders and twice."""

from __future__ import annotations

from typing import Any

from processors.placement.saga import Placement, Send, evolve, react
from schemas import commands as c
from schemas import events as e
from schemas import inventory as i
from schemas import payment as p
from schemas.base import Event, Message, Payload
from schemas.operations import ExceptionOpened, ExceptionResolved
from schemas.order import Line, Totals
from schemas.replies import CommandRejected, Rejection
from schemas.timers import CancelTimer, SetTimer
from tests.support.examples import ORDER, POLICY, T0, at

ATTEMPT = "attempt-1"


def submitted(*skus: str) -> e.OrderSubmitted:
    lines = tuple(
        Line(
            line_id=f"L{n}", product_id="p", sku=sku, name=sku, category="c", tax_category="standard",
            weight_grams=1, quantity=2, unit_price=100, line_total=200,
        )
        for n, sku in enumerate(skus, start=1)
    )  # fmt: skip
    return e.OrderSubmitted(lines=lines, totals=Totals(total=600))


REQUESTED = e.OrderPaymentRequested(
    attempt_id=ATTEMPT, attempt=1, amount=600, currency="EUR", payment_token="t", due_at=at(900), valid_until=at(600)
)
CAPTURED = p.PaymentCaptured(attempt_id=ATTEMPT, amount=600, currency="EUR", provider_ref="ch_1")
DECLINED = p.PaymentDeclined(attempt_id=ATTEMPT, code="card_declined")
CANCELLED = e.OrderCancelled(reason="changed_mind")


def unknown(asked: int = 0) -> p.PaymentUnknown:
    return p.PaymentUnknown(attempt_id=ATTEMPT, amount=600, currency="EUR", reason="timeout", asked=asked)


def held(line: str) -> i.StockReserved:
    return i.StockReserved(line_id=line, sku="MUG", quantity=2, order_version=2)


def short(line: str, sku: str = "MUG") -> i.StockRefused:
    return i.StockRefused(line_id=line, sku=sku, quantity=2, available=0, reason="insufficient", order_version=2)


class Story:
    def __init__(self) -> None:
        self.placement: Placement | None = None
        self.version = 1
        self.sent: list[Send] = []

    def hears(self, *payloads: Payload) -> Story:
        for payload in payloads:
            cause: Event[Any] | Message[Any]
            if isinstance(payload, e.Payload) and payload.family == "order.events":
                self.version += 1
                cause = Event(
                    id=f"e{self.version}", order_id=ORDER, version=self.version, occurred_at=T0, actor="a",
                    correlation_id="c", causation_id="x", previous_hash="", data=payload,
                )  # fmt: skip
            else:
                cause = Message(id="m", at=T0, actor="a", correlation_id="c", order_id=ORDER, data=payload)
            after = evolve(self.placement, cause)
            self.sent = react(self.placement, after, cause, POLICY.payment)
            self.placement = after
        return self

    def sends(self, *kinds: type[Payload]) -> Story:
        assert [type(s.payload) for s in self.sent] == list(kinds), self.sent
        return self

    def only(self) -> Any:
        assert len(self.sent) == 1, self.sent
        return self.sent[0].payload


def placed(*skus: str) -> Story:
    return Story().hears(submitted(*skus), REQUESTED)


def charging() -> Story:
    return placed("MUG").hears(held("L1"))


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
    assert story.sent[0].payload.line_id == "L1"  # type: ignore[attr-defined]


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
    story.hears(unknown(asked=POLICY.payment.ask_times)).sends()


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


def test_a_refund_that_failed_goes_to_a_person() -> None:
    failed = p.RefundFailed(refund_id="r1", attempt_id=ATTEMPT, amount=600, code="closed")
    charging().hears(failed).sends(ExceptionOpened)


def test_refused_commands_are_heard() -> None:
    def refused(command: str, type: str) -> CommandRejected:
        return CommandRejected(command_id="x", command=command, rejection=Rejection(type=type, detail="no"))

    charging().hears(refused("CancelOrder", "cannot-cancel")).sends()
    charging().hears(refused("ConfirmPayment", "unknown-payment")).sends(ExceptionOpened)


def test_a_draft_is_nothing_to_the_saga() -> None:
    Story().hears(CANCELLED).sends()
