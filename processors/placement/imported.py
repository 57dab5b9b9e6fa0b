"""The placement of an order from another system, made of the order as a whole: the same that its events, told one by
one, leave (tests/domain/test_importing.py compares them). Pure."""

from __future__ import annotations

from processors.placement.model import Attempt, Placement, Timer, Transfer
from processors.placement.told import asked_scores, new_need
from schemas.order import Order, OrderStatus, Payment
from schemas.policy import Policy

_SUBMITTED = 2
"""The version of the order that was submitted: the one before created it."""
_PHASES = {
    OrderStatus.DRAFT: "draft",
    OrderStatus.PENDING_PAYMENT: "placing",
    OrderStatus.CANCELLED: "ended",
}


def placement(order: Order, policy: Policy) -> Placement:
    phase = _PHASES.get(OrderStatus(order.status), "paid")
    begun = Placement(order_id=order.order_id, phase=phase, customer_id=order.customer_id, currency=order.currency)
    if order.submitted_at is None:
        return begun
    transfers = tuple(Transfer(transfer_id=refund.refund_id, amount=refund.amount) for refund in order.refunds)
    taken = tuple(_attempt(order, payment, policy) for payment in order.payments if payment.status == "captured")
    if phase == "ended":
        return begun.but(attempts=taken, transfers=transfers)
    needs = tuple(new_need(line, line.quantity, _SUBMITTED) for line in order.lines)
    if phase == "paid":
        return begun.but(needs=needs, attempts=taken, transfers=transfers)
    last = order.payments[-1]
    return begun.but(
        needs=needs,
        scores=asked_scores(order.customer_id, order.shipping_address, _SUBMITTED, policy),
        attempts=(_attempt(order, last, policy),),
        timers=(Timer(kind="payment_timeout", due_at=order.payment_due_at, generation=last.attempt_id),),
    )


def _attempt(order: Order, payment: Payment, policy: Policy) -> Attempt:
    asked = Attempt(
        attempt_id=payment.attempt_id,
        amount=order.totals.total,
        currency=order.currency,
        token=order.payment_token or "",
        valid_until=(payment.requested_at or order.updated_at) + policy.payment.submit_within,
    )
    if payment.status != "captured":
        return asked
    words = {"fate": "captured", "taken": payment.amount, "provider_ref": payment.provider_ref, "token": ""}
    return asked.model_copy(update=words)
