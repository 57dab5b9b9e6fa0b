"""Payments of an order: asked for, confirmed, failed, expired, captured, given free; and holds, which stop them."""

from __future__ import annotations

from processors.order import attempts, cancelling, capturing, fulfilling, refunding
from processors.order.checks import Decision, not_now, order_held
from processors.order.names import payment_attempt_id, refund_id
from schemas import commands as c
from schemas import events as e
from schemas.base import Instant, Payload
from schemas.order import CancellationReason, Capture, Hold, Order, OrderStatus, Payment
from schemas.policy import Policy
from schemas.replies import Rejection

HOLDS = ("fraud", "staff")


def pay_again(order: Order, pay: c.PayOrder, actor: str, at: Instant, policy: Policy) -> Decision:
    """Another attempt, with a deadline of its own, once the one before was declined."""
    if held := order_held(order, actor):
        return held
    last = attempts.newest(order)
    if last is None or last.status != "declined":
        why = "A payment of this order is under way; only when it is declined can there be another one"
        return not_now(order, actor, "payment-under-way", why)
    if attempts.declined(order) >= policy.payment.max_attempts:
        most = policy.payment.max_attempts
        why = f"The payment was declined {attempts.declined(order)} times; an order has {most} attempts"
        return not_now(order, actor, "no-attempts-left", why, over="pay")
    return [_asked(order, pay.payment_token, at, policy)]


def confirm_payment(order: Order, confirm: c.ConfirmPayment, at: Instant, policy: Policy) -> Decision:
    """Money that nothing waits for any more goes back by itself. The amount is the provider's word, whatever was asked;
    who asked (the placement saga) raises a difference."""
    payment = attempts.find(order, confirm.attempt_id)
    if payment is None:
        return _unknown_payment(confirm.attempt_id)
    waits = not _settled(payment, confirm)
    if waits and payment.purpose == "order" and order.status == OrderStatus.PENDING_PAYMENT:
        return [_confirmed(confirm, at + policy.edits.modification_window)]
    if waits and payment.purpose == "renewal" and confirm.authorized and _to_capture(order) > 0:
        return [_confirmed(confirm, None, "renewal"), *fulfilling.voids(order)]
    return too_late(order, confirm)


def too_late(order: Order, money: c.ConfirmPayment | c.CompleteEdit) -> list[Payload]:
    """Money of a known attempt that came when nothing waited for it: captured money is refunded, reserved money is
    given free. What was told before leads to nothing."""
    payment = attempts.find(order, money.attempt_id)
    if payment is None or money.provider_ref is None or _settled(payment, money):
        return []
    if money.authorized:
        return [e.OrderPaymentVoidRequested(attempt_id=payment.attempt_id)]
    return [
        e.OrderRefundInitiated(
            refund_id=_next_refund(order, payment),
            attempt_id=payment.attempt_id,
            amount=money.amount,
            currency=order.currency,
            reason="paid_after_end" if order.status == OrderStatus.CANCELLED else "paid_in_vain",
            captured_late=money.provider_ref,
        )
    ]


def fail_payment(order: Order, fail: c.FailPayment, policy: Policy) -> Decision:
    payment = attempts.find(order, fail.attempt_id)
    if payment is None:
        return _unknown_payment(fail.attempt_id)
    if payment.status != "requested" or payment.purpose == "edit":
        return []
    if payment.purpose == "renewal":
        return [e.OrderPaymentFailed(attempt_id=fail.attempt_id, code=fail.code, purpose="renewal")]
    if order.status != OrderStatus.PENDING_PAYMENT:
        return []
    left = max(0, policy.payment.max_attempts - attempts.declined(order) - 1)
    failed = e.OrderPaymentFailed(attempt_id=fail.attempt_id, code=fail.code, attempts_left=left)
    return [failed] if left else [failed, *cancelling.end(order, CancellationReason.PAYMENT_DECLINED)]


def expire_payment(order: Order, expire: c.ExpirePayment) -> Decision:
    """Stale unless the order still waits for this attempt with this deadline; a held order has none."""
    last = attempts.newest(order)
    waits = order.status == OrderStatus.PENDING_PAYMENT and last is not None and last.attempt_id == expire.attempt_id
    if not waits or order.payment_due_at != expire.due_at:
        return []
    return cancelling.end(order, CancellationReason.PAYMENT_TIMEOUT)


# Authorizations


def confirm_capture(order: Order, captured: c.ConfirmCapture) -> Decision:
    """Also of a capture that failed before: it was tried again. What is left of the authorizations after the last
    parcel is given free. Money taken for what was cancelled meanwhile goes back."""
    found = _capture(order, captured.attempt_id, captured.capture_id)
    if isinstance(found, Rejection):
        return found
    if found[1].status == "captured":
        return []
    events: list[Payload] = [
        e.OrderPaymentCaptured(
            attempt_id=captured.attempt_id,
            capture_id=captured.capture_id,
            amount=captured.amount,
            provider_ref=captured.provider_ref,
        )
    ]
    if order.status == OrderStatus.CANCELLED:
        refund = e.OrderRefundInitiated(
            refund_id=_next_refund(order, found[0]),
            attempt_id=captured.attempt_id,
            amount=captured.amount,
            currency=order.currency,
            reason="paid_after_end",
        )
        return [*events, refund]
    then = fulfilling.after(order, events)
    too_much = min(captured.amount, capturing.excess(then))
    events += refunding.refunds_of(then, too_much, "captured_too_much")
    return [*events, *fulfilling.leftovers(fulfilling.after(order, events))]


def fail_capture(order: Order, failed: c.FailCapture) -> Decision:
    found = _capture(order, failed.attempt_id, failed.capture_id)
    if isinstance(found, Rejection):
        return found
    if found[1].status != "requested":
        return []
    return [
        e.OrderPaymentCaptureFailed(
            attempt_id=failed.attempt_id, capture_id=failed.capture_id, amount=failed.amount, code=failed.code
        )
    ]


def confirm_void(order: Order, voided: c.ConfirmVoid) -> Decision:
    payment = attempts.find(order, voided.attempt_id)
    if payment is None:
        return _unknown_payment(voided.attempt_id)
    if payment.status not in ("voiding", "authorized"):
        return []
    return [e.OrderPaymentVoided(attempt_id=voided.attempt_id)]


def renew_authorization(order: Order, renew: c.RenewAuthorization, at: Instant, policy: Policy) -> Decision:
    """One new authorization of all that is still to be captured; the old ones are given free once it is confirmed.
    Stale when this one is used up or void, nothing is left to ship, or a renewal is under way."""
    payment = attempts.find(order, renew.attempt_id)
    under_way = any(p.purpose == "renewal" and p.status == "requested" for p in order.payments)
    amount = _to_capture(order)
    if payment is None or not capturing.uncaptured(payment) or under_way or amount <= 0:
        return []
    return [_asked(order, order.payment_token or "", at, policy, purpose="renewal", amount=amount)]


# Holds


def hold_order(order: Order, hold: c.HoldOrder, actor: str, at: Instant, policy: Policy) -> Decision:
    """A fraud review takes over an order that staff holds; otherwise an order is held once."""
    if hold.kind not in HOLDS:
        return Rejection(
            type="unknown-hold", status=422, field="kind", detail=f"A hold is {' or '.join(HOLDS)}, not {hold.kind!r}."
        )
    if order.hold is not None and (order.hold.kind, hold.kind) != ("staff", "fraud"):
        return not_now(order, actor, "already-held", f"The order is held already ({order.hold.kind})")
    due_at = at + policy.fraud.review_within if hold.kind == "fraud" else None
    return [e.OrderHeld(kind=hold.kind, reason=hold.reason, score=hold.score, due_at=due_at)]


def release_order(order: Order, release: c.ReleaseOrder, actor: str, at: Instant, policy: Policy) -> Decision:
    """The order goes on where it was: it is asked afresh for an unpaid one's money (with a deadline, which a held order
    has not), and fulfilment of a paid one begins if it is time."""
    if order.hold is None:
        return not_now(order, actor, "not-held", "The order is not held")
    return _released(order, order.hold, release.comment, at, policy)


def expire_review(order: Order, unreviewed: c.ExpireReview, at: Instant, policy: Policy) -> Decision:
    """Stale unless the order is held with this deadline; then what policy says of orders that nobody reviewed."""
    if order.hold is None or order.hold.due_at != unreviewed.due_at:
        return []
    if policy.fraud.unreviewed == "release":
        return _released(order, order.hold, "not reviewed in time", at, policy)
    return cancelling.end(order, CancellationReason.FRAUD, "not reviewed in time")


def _released(order: Order, hold: Hold, comment: str | None, at: Instant, policy: Policy) -> list[Payload]:
    released = e.OrderReleased(kind=hold.kind, comment=comment)
    if order.status == OrderStatus.PENDING_PAYMENT:
        return [released, _asked(order, order.payment_token or "", at, policy)]
    return [released, *fulfilling.start(fulfilling.after(order, [released]), at)]


# Small parts


def _asked(
    order: Order, token: str, at: Instant, policy: Policy, purpose: str = "order", amount: int | None = None
) -> e.OrderPaymentRequested:
    amount = order.totals.total if amount is None else amount
    return e.OrderPaymentRequested(
        attempt_id=payment_attempt_id(order.order_id, len(order.payments) + 1),
        attempt=1 + sum(p.purpose == purpose for p in order.payments),
        amount=amount,
        currency=order.currency,
        payment_token=token,
        due_at=at + policy.payment.timeout,
        valid_until=at + policy.payment.submit_within,
        authorize=purpose == "renewal" or (policy.payment.capture == "on_shipment" and amount > 0),
        purpose=purpose,
    )


def _confirmed(
    confirm: c.ConfirmPayment, modifiable_until: Instant | None, purpose: str = "order"
) -> e.OrderPaymentConfirmed:
    return e.OrderPaymentConfirmed(
        attempt_id=confirm.attempt_id,
        amount=confirm.amount,
        provider_ref=confirm.provider_ref,
        authorized=confirm.authorized,
        expires_at=confirm.expires_at,
        modifiable_until=modifiable_until,
        purpose=purpose,
    )


def _settled(payment: Payment, money: c.ConfirmPayment | c.CompleteEdit) -> bool:
    """Whether the attempt's money was told of before. Captured after it was given free is news, if nothing of it was
    captured step by step."""
    if payment.status in ("voiding", "voided"):
        return money.authorized or bool(payment.captures)
    return payment.status in ("captured", "authorized")


def _to_capture(order: Order) -> int:
    """What of the authorized money is still needed: of the order's price what was not taken and not asked for yet; 0
    when nothing is left to ship."""
    if order.status == OrderStatus.CANCELLED or not any(line.to_ship for line in order.lines):
        return 0
    price = attempts.price_of(order, order.lines, order.totals)
    needed = price - sum(p.taken - p.refunded + p.capturing for p in order.payments)
    return min(needed, sum(capturing.uncaptured(p) for p in order.payments))


def _capture(order: Order, attempt_id: str, capture_id: str) -> tuple[Payment, Capture] | Rejection:
    payment = attempts.find(order, attempt_id)
    if payment is None:
        return _unknown_payment(attempt_id)
    for capture in payment.captures:
        if capture.capture_id == capture_id:
            return payment, capture
    return Rejection(type="unknown-capture", detail=f"The order never asked for capture {capture_id}.")


def _next_refund(order: Order, payment: Payment) -> str:
    return refund_id(payment.attempt_id, 1 + sum(r.attempt_id == payment.attempt_id for r in order.refunds))


def _unknown_payment(attempt_id: str) -> Rejection:
    return Rejection(type="unknown-payment", detail=f"The order never asked for payment {attempt_id}.")
