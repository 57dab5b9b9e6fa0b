"""Money: what a provider is asked to do, and what its answers mean for the order."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from processors.placement import exceptions
from processors.placement.model import Attempt, Cause, Placement, Send
from schemas import commands as c
from schemas import events as e
from schemas import payment as p
from schemas.base import Message
from schemas.policy import PaymentRules
from schemas.timers import SetTimer, shard_of


def charges(before: Placement | None, after: Placement) -> list[Send]:
    """The attempts whose turn it is."""
    if before is None or before.attempts is after.attempts:
        return []
    uncharged = {a.attempt_id for a in before.attempts if a.fate == "requested"}
    known = {a.attempt_id for a in before.attempts}
    due = [a for a in after.attempts if a.attempt_id in uncharged or a.attempt_id not in known]
    return [_charge(a) for a in due if a.fate == "charging" or (a.fate == "captured" and not a.amount)]


def _charge(attempt: Attempt) -> Send:
    if not attempt.amount:
        return confirm(attempt)
    ask: type[p.AuthorizePayment | p.ChargePayment] = p.AuthorizePayment if attempt.authorize else p.ChargePayment
    command = ask(
        attempt_id=attempt.attempt_id,
        amount=attempt.amount,
        currency=attempt.currency,
        payment_token=attempt.token,
        valid_until=attempt.valid_until,
    )
    return Send("payment.commands", f"charge:{attempt.attempt_id}", command)


def transfers(after: Placement, cause: Cause) -> list[Send]:
    """What the order wants done with money that is there."""
    match cause.data:
        case e.OrderRefundInitiated() as refund:
            attempt = after.attempt(refund.attempt_id)
            currency = refund.currency or (attempt.currency if attempt else after.currency)
            return [refund_payment(refund.refund_id, refund.attempt_id, refund.amount, currency)]
        case e.OrderPaymentCaptureRequested() as capture:
            return [capture_payment(capture.capture_id, capture.attempt_id, capture.amount, capture.currency)]
        case e.OrderPaymentVoidRequested(attempt_id=attempt_id):
            return [void_payment(attempt_id)]
        case _:
            return []


def refund_payment(refund_id: str, attempt_id: str, amount: int, currency: str) -> Send:
    command = p.RefundPayment(refund_id=refund_id, attempt_id=attempt_id, amount=amount, currency=currency)
    return Send("payment.commands", f"refund:{refund_id}", command)


def capture_payment(capture_id: str, attempt_id: str, amount: int, currency: str) -> Send:
    command = p.CapturePayment(capture_id=capture_id, attempt_id=attempt_id, amount=amount, currency=currency)
    return Send("payment.commands", f"capture:{capture_id}", command)


def void_payment(attempt_id: str) -> Send:
    return Send("payment.commands", f"void:{attempt_id}", p.VoidPayment(attempt_id=attempt_id))


def results(before: Placement, after: Placement, cause: Cause, rules: PaymentRules) -> list[Send]:
    """What a provider's answer means."""
    match cause.data:
        case p.PaymentCaptured() | p.PaymentAuthorized() as made:
            known = before.attempt(made.attempt_id)
            return exceptions.nobody_asked(cause) if known is None else _made(known, after, made, rules)
        case p.PaymentDeclined(attempt_id=attempt_id) | p.PaymentNotMade(attempt_id=attempt_id):
            known = before.attempt(attempt_id)
            return [] if known is None else _not_made(known, cause.data)
        case p.PaymentUnknown() as unknown:
            known = before.attempt(unknown.attempt_id)
            if known is None:
                return exceptions.nobody_asked(cause)
            return [] if known.settled else _ask_again(after.order_id, unknown, cause, rules)
        case p.PaymentVoided(attempt_id=attempt_id):
            return _voided(before, attempt_id)
        case p.PaymentVoidFailed() as failed:
            return _void_failed(before, failed)
        case p.PaymentRefunded() as refunded:
            return _refunded(before, refunded, rules)
        case p.RefundFailed() as failed:
            return _refund_failed(before, failed)
        case p.PaymentCaptureMade() as captured:
            return _captured(before, captured, rules)
        case p.PaymentCaptureFailed() as failed:
            return _capture_failed(before, failed)
        case _:
            return []


def _made(
    known: Attempt, after: Placement, made: p.PaymentCaptured | p.PaymentAuthorized, rules: PaymentRules
) -> list[Send]:
    now = "captured" if isinstance(made, p.PaymentCaptured) else "authorized"
    if known.fate in (now, "captured") or (known.fate == "voided" and now == "authorized"):
        return []  # said before, or overtaken
    differs = exceptions.amount_differs(known.attempt_id, known.amount, made.amount, rules)
    if known.fate == "authorized":  # more was taken than we asked for: a person must look
        return [exceptions.contradiction(known, now), *differs]
    contradiction = [exceptions.contradiction(known, now)] if known.settled else []
    if after.edit is not None and after.edit.attempt_id == known.attempt_id and after.edit.step == "completing":
        return [*contradiction, *differs]  # CompleteEdit tells of the money
    attempt = after.attempt(made.attempt_id)
    return [*([confirm(attempt)] if attempt else []), *contradiction, *differs]


def confirm(attempt: Attempt) -> Send:
    """The order hears of money that was taken or reserved; what it no longer waits for, it gives back."""
    return Send("order.internal", f"{attempt.fate}:{attempt.attempt_id}", c.ConfirmPayment(**words(attempt)))


def words(attempt: Attempt) -> dict[str, Any]:
    """The provider's."""
    return {
        "attempt_id": attempt.attempt_id,
        "amount": attempt.taken,
        "provider_ref": attempt.provider_ref,
        "authorized": attempt.fate == "authorized",
        "expires_at": attempt.expires_at,
    }


def _not_made(known: Attempt, result: p.PaymentDeclined | p.PaymentNotMade) -> list[Send]:
    """A charge that was never made is no decline: if the order (or its edit) still waits, its deadline ends it."""
    now = "declined" if isinstance(result, p.PaymentDeclined) else "not_made"
    if known.settled:
        return [exceptions.contradiction(known, now)] if known.has_money else []
    lapses = [exceptions.not_renewed(known, now)] if known.purpose == "renewal" else []
    if isinstance(result, p.PaymentNotMade) or known.purpose == "edit":
        return lapses  # FailEdit tells of an edit's decline
    fail = c.FailPayment(attempt_id=result.attempt_id, code=result.code)
    return [Send("order.internal", f"failed:{result.attempt_id}", fail), *lapses]


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
    return [Send("timer.commands", f"query:{unknown.attempt_id}:{asked}", timer, key=shard_of(order_id))]


def _backoff(asked: int, rules: PaymentRules) -> timedelta:
    doublings = min(asked, 30)  # far beyond the cap; keeps the product a valid timedelta
    return min(rules.ask_first_after * (1 << doublings), rules.ask_at_most_every)


def _voided(before: Placement, attempt_id: str) -> list[Send]:
    known = before.attempt(attempt_id)
    if known is not None and known.fate == "captured":
        return [exceptions.contradiction(known, "voided")]
    if known is not None and known.fate == "voided":
        return []
    confirm_void = c.ConfirmVoid(attempt_id=attempt_id)
    return [
        Send("order.internal", f"voided:{attempt_id}", confirm_void),
        *exceptions.transfer_done(before.transfer(attempt_id)),
    ]


def _void_failed(before: Placement, failed: p.PaymentVoidFailed) -> list[Send]:
    known = before.transfer(failed.attempt_id)
    if known is not None and known.fate == "done":
        return []  # it is void, whoever says otherwise now
    return [exceptions.void_failed(failed, void_payment(failed.attempt_id))]


def _refunded(before: Placement, done: p.PaymentRefunded, rules: PaymentRules) -> list[Send]:
    known = before.transfer(done.refund_id)
    if known is not None and known.fate == "done":
        return []
    complete = c.CompleteRefund(refund_id=done.refund_id, provider_ref=done.provider_ref)
    return [
        Send("order.internal", f"refunded:{done.refund_id}", complete),
        *exceptions.transfer_differs(known, done.amount, rules),
        *exceptions.transfer_done(known),
    ]


def _refund_failed(before: Placement, failed: p.RefundFailed) -> list[Send]:
    known = before.transfer(failed.refund_id)
    if known is not None and known.fate == "done":
        return [exceptions.transfer_contradiction(known)]
    attempt = before.attempt(failed.attempt_id)
    currency = attempt.currency if attempt else before.currency
    again = refund_payment(failed.refund_id, failed.attempt_id, failed.amount, currency)
    fail = c.FailRefund(refund_id=failed.refund_id, code=failed.code)
    return [
        Send("order.internal", f"refund failed:{failed.refund_id}", fail),
        exceptions.refund_failed(failed, again),
    ]


def _captured(before: Placement, made: p.PaymentCaptureMade, rules: PaymentRules) -> list[Send]:
    known = before.transfer(made.capture_id)
    if known is not None and known.fate == "done":
        return []
    confirm = c.ConfirmCapture(
        attempt_id=made.attempt_id, capture_id=made.capture_id, amount=made.amount, provider_ref=made.provider_ref
    )
    return [
        Send("order.internal", f"capture made:{made.capture_id}", confirm),
        *exceptions.transfer_differs(known, made.amount, rules),
        *exceptions.transfer_done(known),
    ]


def _capture_failed(before: Placement, failed: p.PaymentCaptureFailed) -> list[Send]:
    known = before.transfer(failed.capture_id)
    if known is not None and known.fate == "done":
        return [exceptions.transfer_contradiction(known)]
    attempt = before.attempt(failed.attempt_id)
    currency = attempt.currency if attempt else before.currency
    again = capture_payment(failed.capture_id, failed.attempt_id, failed.amount, currency)
    fail = c.FailCapture(
        attempt_id=failed.attempt_id, capture_id=failed.capture_id, amount=failed.amount, code=failed.code
    )
    return [
        Send("order.internal", f"capture failed:{failed.capture_id}", fail),
        exceptions.capture_failed(failed, again),
    ]
