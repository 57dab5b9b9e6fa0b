"""An order's payments: the fold of their events, and how they stand."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from processors.order.refunding import given_back
from schemas import events as e
from schemas.order import Capture, Line, Order, OrderStatus, Payment, Totals

Facts = (
    e.OrderPaymentRequested
    | e.OrderPaymentConfirmed
    | e.OrderPaymentFailed
    | e.OrderPaymentCaptureRequested
    | e.OrderPaymentCaptured
    | e.OrderPaymentCaptureFailed
    | e.OrderPaymentVoidRequested
    | e.OrderPaymentVoided
)


def changes(order: Order, fact: Facts) -> dict[str, Any]:
    """The fields of the order that the event changes."""
    match fact:
        case e.OrderPaymentRequested() as requested:
            return _requested(order, requested)
        case e.OrderPaymentConfirmed() as confirmed:
            paid = {"payments": with_payment(order, confirmed.attempt_id, settled(confirmed))}
            if confirmed.purpose != "order":
                return paid
            return {
                **paid,
                "status": OrderStatus.PAYMENT_CONFIRMED,
                "payment_due_at": None,
                "modifiable_until": confirmed.modifiable_until,
            }
        case e.OrderPaymentFailed(attempt_id=attempt_id, code=code):
            return {"payments": with_payment(order, attempt_id, {"status": "declined", "code": code})}
        case e.OrderPaymentVoidRequested(attempt_id=attempt_id):
            return {"payments": with_payment(order, attempt_id, {"status": "voiding"})}
        case e.OrderPaymentVoided(attempt_id=attempt_id):
            payment = find(order, attempt_id)
            status = "captured" if payment is not None and payment.taken else "voided"
            return {"payments": with_payment(order, attempt_id, {"status": status})}
        case e.OrderPaymentCaptureRequested() | e.OrderPaymentCaptured() | e.OrderPaymentCaptureFailed():
            return _capture(order, fact)


def settled(money: e.OrderPaymentConfirmed | e.OrderEditCompleted) -> dict[str, Any]:
    """A payment whose money was captured or reserved."""
    return {
        "status": "authorized" if money.authorized else "captured",
        "amount": money.amount,
        "provider_ref": money.provider_ref,
        "expires_at": money.expires_at,
    }


def with_payment(order: Order, attempt_id: str | None, update: dict[str, Any]) -> tuple[Payment, ...]:
    return tuple(p.model_copy(update=update) if p.attempt_id == attempt_id else p for p in order.payments)


def find(order: Order, attempt_id: str | None) -> Payment | None:
    return next((p for p in order.payments if p.attempt_id == attempt_id), None)


def newest(order: Order) -> Payment | None:
    """The last attempt to pay the order itself, not an edit of it."""
    return next((p for p in reversed(order.payments) if p.purpose == "order"), None)


def declined(order: Order) -> int:
    """How many attempts to pay the order itself were declined."""
    return sum(p.purpose == "order" and p.status == "declined" for p in order.payments)


def price_of(order: Order, lines: Iterable[Line], totals: Totals) -> int:
    """What these lines and totals cost without the units that the order's customer has back the money of: cancelled
    ones, and those that staff gave back the price of (minor units)."""
    return totals.total - sum(given_back(order, line) for line in lines)


def _requested(order: Order, requested: e.OrderPaymentRequested) -> dict[str, Any]:
    attempt = Payment(
        attempt_id=requested.attempt_id,
        amount=requested.amount,
        status="requested",
        purpose=requested.purpose,
    )
    if requested.purpose != "order":
        return {"payments": (*order.payments, attempt)}
    earlier = tuple(
        p.model_copy(update={"status": "superseded"}) if p.purpose == "order" and p.status == "requested" else p
        for p in order.payments
    )
    return {
        "payments": (*earlier, attempt),
        "payment_due_at": requested.due_at,
        "payment_token": requested.payment_token,
    }


def _capture(
    order: Order, fact: e.OrderPaymentCaptureRequested | e.OrderPaymentCaptured | e.OrderPaymentCaptureFailed
) -> dict[str, Any]:
    payment = find(order, fact.attempt_id)
    if payment is None:
        raise ValueError(f"order {order.order_id} never asked for payment {fact.attempt_id}")
    if isinstance(fact, e.OrderPaymentCaptureRequested):
        captures = (*payment.captures, Capture(capture_id=fact.capture_id, amount=fact.amount))
    else:
        status = "captured" if isinstance(fact, e.OrderPaymentCaptured) else "failed"
        captures = tuple(
            c.model_copy(update={"status": status, "amount": fact.amount}) if c.capture_id == fact.capture_id else c
            for c in payment.captures
        )
    taken = sum(c.amount for c in captures if c.status == "captured")
    update: dict[str, Any] = {
        "captures": captures,
        "capturing": sum(c.amount for c in captures if c.status == "requested"),
        "captured": taken if any(c.status == "captured" for c in captures) else payment.captured,
    }
    if payment.status == "authorized" and taken >= payment.amount:
        update["status"] = "captured"
    return {"payments": with_payment(order, fact.attempt_id, update)}
