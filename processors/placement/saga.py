"""The placement saga, pure: reserve every line → charge → confirm; any shortage, decline or end gives everything back.

`evolve` says what a message means for the placement, `react` what has to be sent because of it. The saga joins topics
that keep no order among each other, so that both are right under any interleaving; a repeated message changes nothing
and sends nothing new. After its end a placement stays as a tombstone of payment attempts and what became of them: a
late capture is handed to the order (which gives the money back), one that nobody asked for goes to a person.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from schemas import commands as c
from schemas import events as e
from schemas import inventory as i
from schemas import payment as p
from schemas.base import Event, Instant, Message, Model, Payload
from schemas.operations import ExceptionOpened, ExceptionResolved
from schemas.order import CancellationReason
from schemas.policy import PaymentRules
from schemas.replies import CommandRejected
from schemas.timers import CancelTimer, SetTimer

POOL = "main"
Cause = Event[Any] | Message[Any]


class LineNeed(Model):
    """A line's units: asked | reserved | refused."""

    line_id: str
    sku: str
    quantity: int
    fate: str = "asked"


class Attempt(Model):
    """A payment attempt: requested | charging | unknown | captured | declined | not_made."""

    attempt_id: str
    amount: int
    currency: str
    token: str
    due_at: Instant
    valid_until: Instant
    fate: str = "requested"

    @property
    def settled(self) -> bool:
        return self.fate in ("captured", "declined", "not_made")


class Placement(Model):
    """phase: reserving | short | charging | paid | ended."""

    order_id: str
    phase: str = "reserving"
    lines: tuple[LineNeed, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    refunded: tuple[str, ...] = ()
    version: int = 0

    def attempt(self, attempt_id: str) -> Attempt | None:
        return next((a for a in self.attempts if a.attempt_id == attempt_id), None)

    @property
    def answered(self) -> bool:
        return all(line.fate != "asked" for line in self.lines)

    @property
    def short_skus(self) -> tuple[str, ...]:
        return tuple(sorted({line.sku for line in self.lines if line.fate == "refused"}))


@dataclass(frozen=True)
class Send:
    """Something to send. `name` tells it from the saga's other messages about this order, and its id derives from it:
    the same reason gives the same message."""

    topic: str
    name: str
    payload: Payload


def evolve(placement: Placement | None, cause: Cause) -> Placement | None:
    """The placement after the message; None while the order is a draft."""
    data = cause.data
    if isinstance(data, e.OrderSubmitted) and isinstance(cause, Event):
        if placement is not None:
            return placement
        lines = tuple(LineNeed(line_id=x.line_id, sku=x.sku, quantity=x.quantity) for x in data.lines)
        return Placement(order_id=cause.order_id, lines=lines, version=cause.version)
    if placement is None:
        return None
    match data:
        case e.OrderPaymentRequested():
            return _charging_when_reserved(_with_new_attempt(placement, data))
        case e.OrderPaymentConfirmed():
            return placement.model_copy(update={"phase": "paid"})
        case e.OrderCancelled():
            return placement.model_copy(update={"phase": "ended"})
        case i.StockReserved(line_id=line_id):
            return _charging_when_reserved(_with_line(placement, line_id, "reserved"))
        case i.StockRefused(line_id=line_id):
            return _charging_when_reserved(_with_line(placement, line_id, "refused"))
        case p.PaymentCaptured(attempt_id=attempt_id):
            return _with_attempt(placement, attempt_id, "captured")
        case p.PaymentDeclined(attempt_id=attempt_id):
            return _settled_once(placement, attempt_id, "declined")
        case p.PaymentNotMade(attempt_id=attempt_id):
            return _settled_once(placement, attempt_id, "not_made")
        case p.PaymentUnknown(attempt_id=attempt_id):
            return _settled_once(placement, attempt_id, "unknown")
        case p.PaymentRefunded(refund_id=refund_id) if refund_id not in placement.refunded:
            return placement.model_copy(update={"refunded": (*placement.refunded, refund_id)})
        case _:
            return placement


def _with_new_attempt(placement: Placement, data: e.OrderPaymentRequested) -> Placement:
    if placement.attempt(data.attempt_id) is not None:
        return placement
    attempt = Attempt(
        attempt_id=data.attempt_id,
        amount=data.amount,
        currency=data.currency,
        token=data.payment_token,
        due_at=data.due_at,
        valid_until=data.valid_until,
    )
    return placement.model_copy(update={"attempts": (*placement.attempts, attempt)})


def _charging_when_reserved(placement: Placement) -> Placement:
    if placement.phase != "reserving" or not placement.answered:
        return placement
    if placement.short_skus:
        return placement.model_copy(update={"phase": "short"})
    if not placement.attempts:
        return placement
    newest = placement.attempts[-1]
    return _with_attempt(placement, newest.attempt_id, "charging").model_copy(update={"phase": "charging"})


def _with_line(placement: Placement, line_id: str, fate: str) -> Placement:
    """Only an open question is answered: a late repeat doesn't turn a refusal into a reservation."""
    lines = tuple(
        line.model_copy(update={"fate": fate}) if line.line_id == line_id and line.fate == "asked" else line
        for line in placement.lines
    )
    return placement.model_copy(update={"lines": lines})


def _with_attempt(placement: Placement, attempt_id: str, fate: str) -> Placement:
    attempts = tuple(
        a.model_copy(update={"fate": fate}) if a.attempt_id == attempt_id else a for a in placement.attempts
    )
    return placement.model_copy(update={"attempts": attempts})


def _settled_once(placement: Placement, attempt_id: str, fate: str) -> Placement:
    attempt = placement.attempt(attempt_id)
    return placement if attempt is None or attempt.settled else _with_attempt(placement, attempt_id, fate)


def react(before: Placement | None, after: Placement | None, cause: Cause, rules: PaymentRules) -> list[Send]:
    """What has to be sent because of the message."""
    if after is None:
        return _nobody_asked(cause)
    match cause.data:
        case e.OrderSubmitted() if before is None and isinstance(cause, Event):
            return [_reserve(line, cause.version) for line in after.lines]
        case e.OrderPaymentRequested() as requested:
            if before is not None and before.attempt(requested.attempt_id) is not None:
                return []
            return [_payment_timer(after.order_id, requested), *_charge_if_now(before, after)]
        case e.OrderPaymentConfirmed():
            return [_cancel_payment_timer(after.order_id)]
        case e.OrderCancelled() if before is not None and before.phase != "ended" and isinstance(cause, Event):
            return [
                *(_release(line, cause.version) for line in after.lines if line.fate != "refused"),
                _cancel_payment_timer(after.order_id),
                *(_raise_unknown(a) for a in after.attempts if a.fate == "unknown"),
            ]
        case i.StockReserved() | i.StockRefused():
            return [*_charge_if_now(before, after), *_cancel_if_short(before, after)]
        case p.PaymentCaptured() | p.PaymentDeclined() | p.PaymentNotMade() | p.PaymentUnknown():
            return _payment_result(before, after, cause, rules)
        case e.OrderRefundInitiated() as refund:
            return [_refund(after, refund)]
        case p.PaymentRefunded() as done if before is not None and done.refund_id not in before.refunded:
            complete = c.CompleteRefund(refund_id=done.refund_id, provider_ref=done.provider_ref)
            return [Send("order.internal", f"refunded:{done.refund_id}", complete)]
        case p.RefundFailed() as failed:
            return [_raise_refund_failed(failed)]
        case CommandRejected() as rejected:
            return _refused(rejected)
        case _:
            return []


def _reserve(line: LineNeed, version: int) -> Send:
    ask = i.ReserveStock(line_id=line.line_id, sku=line.sku, pool=POOL, quantity=line.quantity, order_version=version)
    return Send("inventory.commands", f"reserve:{line.line_id}:{version}", ask)


def _release(line: LineNeed, version: int) -> Send:
    give_back = i.ReleaseStock(line_id=line.line_id, sku=line.sku, pool=POOL, order_version=version)
    return Send("inventory.commands", f"release:{line.line_id}:{version}", give_back)


def _charge_if_now(before: Placement | None, after: Placement) -> list[Send]:
    if after.phase != "charging" or (before is not None and before.phase == "charging"):
        return []
    attempt = after.attempts[-1]
    charge = p.ChargePayment(
        attempt_id=attempt.attempt_id,
        amount=attempt.amount,
        currency=attempt.currency,
        payment_token=attempt.token,
        valid_until=attempt.valid_until,
    )
    return [Send("payment.commands", f"charge:{attempt.attempt_id}", charge)]


def _cancel_if_short(before: Placement | None, after: Placement) -> list[Send]:
    if after.phase != "short" or (before is not None and before.phase == "short"):
        return []
    cancel = c.CancelOrder(reason=CancellationReason.OUT_OF_STOCK, skus=after.short_skus)
    return [Send("order.internal", f"short:{after.version}", cancel)]


def _payment_timer(order_id: str, requested: e.OrderPaymentRequested) -> Send:
    timer = SetTimer(
        timer_id=f"{order_id}:payment_timeout",
        kind="payment_timeout",
        due_at=requested.due_at,
        generation=requested.attempt_id,
    )
    return Send("timer.commands", f"timeout:{requested.attempt_id}", timer)


def _cancel_payment_timer(order_id: str) -> Send:
    return Send("timer.commands", "timeout:cancel", CancelTimer(timer_id=f"{order_id}:payment_timeout"))


def _payment_result(before: Placement | None, after: Placement, cause: Cause, rules: PaymentRules) -> list[Send]:
    result: p.PaymentCaptured | p.PaymentDeclined | p.PaymentNotMade | p.PaymentUnknown = cause.data
    known = before.attempt(result.attempt_id) if before is not None else None
    if known is None:
        return _nobody_asked(cause)
    match result:
        case p.PaymentCaptured() if known.fate == "captured":
            return []
        case p.PaymentCaptured():
            confirm = c.ConfirmPayment(
                attempt_id=result.attempt_id, amount=result.amount, provider_ref=result.provider_ref
            )
            contradiction = [_raise_contradiction(known, "captured")] if known.settled else []
            return [
                Send("order.internal", f"captured:{result.attempt_id}", confirm),
                *contradiction,
                *_resolve_unknown(known, "captured"),
            ]
        case p.PaymentDeclined() | p.PaymentNotMade() if known.settled:
            fate = "declined" if isinstance(result, p.PaymentDeclined) else "not_made"
            return [_raise_contradiction(known, fate)] if known.fate == "captured" else []
        case p.PaymentDeclined(code=code):
            fail = c.FailPayment(attempt_id=result.attempt_id, code=code)
            return [Send("order.internal", f"failed:{result.attempt_id}", fail), *_resolve_unknown(known, "declined")]
        case p.PaymentNotMade():
            return _resolve_unknown(known, "not_made")  # if the order still waits, its deadline ends it
        case p.PaymentUnknown():
            if known.settled:
                return []
            raised = [_raise_unknown(known)] if after.phase == "ended" and known.fate != "unknown" else []
            return [*raised, *_ask_again(after.order_id, result, cause, rules)]


def _ask_again(order_id: str, unknown: p.PaymentUnknown, cause: Cause, rules: PaymentRules) -> list[Send]:
    asked = unknown.asked + 1
    if asked > rules.ask_times or not isinstance(cause, Message):
        return []
    timer = SetTimer(
        timer_id=f"{order_id}:payment_query:{unknown.attempt_id}",
        kind="payment_query",
        due_at=cause.at + _backoff(unknown.asked, rules),
        generation=str(asked),
        args={
            "attempt_id": unknown.attempt_id,
            "amount": str(unknown.amount),
            "currency": unknown.currency,
            "asked": str(asked),
        },
    )
    return [Send("timer.commands", f"query:{unknown.attempt_id}:{asked}", timer)]


def _backoff(asked: int, rules: PaymentRules) -> timedelta:
    doublings = min(asked, 30)  # far beyond the cap; keeps the product a valid timedelta
    return min(rules.ask_first_after * (1 << doublings), rules.ask_at_most_every)


def _refund(placement: Placement, refund: e.OrderRefundInitiated) -> Send:
    attempt = placement.attempt(refund.attempt_id)
    if attempt is None:
        raise ValueError(f"order {placement.order_id} refunds attempt {refund.attempt_id}, which it never made")
    pay_back = p.RefundPayment(
        refund_id=refund.refund_id,
        attempt_id=refund.attempt_id,
        amount=refund.amount,
        currency=attempt.currency,
    )
    return Send("payment.commands", f"refund:{refund.refund_id}", pay_back)


def _refused(rejected: CommandRejected) -> list[Send]:
    """A cancellation that is refused because the order has ended is what we wanted. The rest is for a person."""
    if rejected.command == "CancelOrder" and rejected.rejection.type == "cannot-cancel":
        return []
    return [
        _raise(
            f"refused:{rejected.command_id}",
            kind="saga_command_refused",
            detail=f"{rejected.command} was refused: {rejected.rejection.detail}",
            facts={"command_id": rejected.command_id, "type": rejected.rejection.type},
        )
    ]


# What needs a person


def _nobody_asked(cause: Cause) -> list[Send]:
    """Money of an attempt that this order never made. It is not given back by guess."""
    if not isinstance(cause.data, p.PaymentCaptured | p.PaymentUnknown):
        return []
    return [
        _raise(
            f"unasked:{cause.data.attempt_id}",
            kind="payment_unmatched",
            detail="The provider reports a payment attempt that the order never made.",
            facts={"attempt_id": cause.data.attempt_id, "amount": str(cause.data.amount)},
        )
    ]


def _raise_unknown(attempt: Attempt) -> Send:
    return _raise(
        f"unknown:{attempt.attempt_id}",
        kind="payment_unknown",
        detail="The order ended before the provider said whether it was paid. The provider is asked on.",
        facts={"attempt_id": attempt.attempt_id, "amount": str(attempt.amount), "currency": attempt.currency},
    )


def _resolve_unknown(attempt: Attempt, resolution: str) -> list[Send]:
    if attempt.fate != "unknown":
        return []
    name = f"unknown:{attempt.attempt_id}"
    return [Send("exceptions", f"resolve:{name}", ExceptionResolved(exception_id=name, resolution=resolution))]


def _raise_contradiction(attempt: Attempt, now: str) -> Send:
    return _raise(
        f"contradiction:{attempt.attempt_id}:{now}",
        kind="payment_contradiction",
        detail=f"The provider said {attempt.fate} first and {now} later.",
        facts={"attempt_id": attempt.attempt_id, "amount": str(attempt.amount)},
    )


def _raise_refund_failed(failed: p.RefundFailed) -> Send:
    return _raise(
        f"refund:{failed.refund_id}",
        kind="refund_failed",
        detail=f"The provider did not refund: {failed.code}.",
        facts={"refund_id": failed.refund_id, "attempt_id": failed.attempt_id, "amount": str(failed.amount)},
    )


def _raise(name: str, *, kind: str, detail: str, facts: dict[str, str]) -> Send:
    opened = ExceptionOpened(exception_id=name, kind=kind, owner="payments", detail=detail, facts=facts)
    return Send("exceptions", f"raise:{name}", opened)
