"""evolve(order, event) → order: what each event means for the order. It never refuses: what happened has happened."""

from __future__ import annotations

from typing import Any

from schemas import events as e
from schemas.base import Event
from schemas.order import Cancellation, Order, OrderStatus, Payment, Refund


def evolve(order: Order | None, event: Event[Any]) -> Order:
    """The order after the event. Only OrderCreated can be the first."""
    data = event.data
    if order is None:
        if not isinstance(data, e.OrderCreated):
            raise ValueError(f"an order begins with OrderCreated, not with {type(data).__name__}")
        return Order(
            order_id=event.order_id,
            number=data.number,
            customer_id=data.customer_id,
            status=OrderStatus.DRAFT,
            version=event.version,
            currency=data.currency,
            created_at=event.occurred_at,
            updated_at=event.occurred_at,
            lines=data.lines,
            totals=data.totals,
            shipping_address=data.shipping_address,
            billing_address=data.billing_address,
            shipping_method=data.shipping_method,
            estimated_delivery=data.estimated_delivery,
            promo_codes=data.promo_codes,
            cart_id=data.cart_id,
            last_line=len(data.lines),
        )
    if event.version != order.version + 1:
        raise ValueError(f"order {order.order_id} is at {order.version}: event {event.version} does not follow")
    return order.model_copy(
        update={**_changes(order, event), "version": event.version, "updated_at": event.occurred_at}
    )


def _changes(order: Order, event: Event[Any]) -> dict[str, Any]:
    match event.data:
        case e.OrderLineItemAdded(lines=lines, totals=totals):
            return {"lines": lines, "totals": totals, "last_line": order.last_line + 1}
        case e.OrderLineItemRemoved(lines=lines, totals=totals):
            return {"lines": lines, "totals": totals}
        case e.OrderLineItemQuantityChanged(lines=lines, totals=totals):
            return {"lines": lines, "totals": totals}
        case e.OrderShippingAddressChanged(address=address, lines=lines, totals=totals):
            return {"shipping_address": address, "lines": lines, "totals": totals}
        case e.OrderBillingAddressChanged(address=address):
            return {"billing_address": address}
        case e.OrderShippingMethodChanged(shipping_method=method, lines=lines, totals=totals) as changed:
            return {
                "shipping_method": method,
                "estimated_delivery": changed.estimated_delivery,
                "lines": lines,
                "totals": totals,
            }
        case e.OrderSubmitted(lines=lines, totals=totals, estimated_delivery=eta):
            return {
                "status": OrderStatus.PENDING_PAYMENT,
                "submitted_at": event.occurred_at,
                "lines": lines,
                "totals": totals,
                "estimated_delivery": eta,
            }
        case e.OrderPaymentRequested() as requested:
            payment = Payment(attempt_id=requested.attempt_id, amount=requested.amount, status="requested")
            return {
                "payments": (*order.payments, payment),
                "payment_due_at": requested.due_at,
                "payment_token": requested.payment_token,
            }
        case e.OrderPaymentConfirmed(attempt_id=attempt_id, amount=amount, provider_ref=ref):
            captured = {"status": "captured", "amount": amount, "provider_ref": ref}
            return {
                "status": OrderStatus.PAYMENT_CONFIRMED,
                "payment_due_at": None,
                "payments": _with_payment(order, attempt_id, captured),
            }
        case e.OrderPaymentFailed(attempt_id=attempt_id, code=code):
            return {"payments": _with_payment(order, attempt_id, {"status": "declined", "code": code})}
        case e.OrderCancelled(reason=reason, comment=comment, skus=skus):
            return {
                "status": OrderStatus.CANCELLED,
                "payment_due_at": None,
                "cancellation": Cancellation(reason=reason, comment=comment, skus=skus),
            }
        case e.OrderRefundInitiated() as initiated:
            return _refund_initiated(order, initiated)
        case e.OrderRefundCompleted(refund_id=refund_id, provider_ref=ref):
            done = {"status": "completed", "provider_ref": ref}
            refunds = tuple(r.model_copy(update=done) if r.refund_id == refund_id else r for r in order.refunds)
            return {"refunds": refunds}
        case other:
            raise ValueError(f"evolve has no case for {type(other).__name__}")


def _refund_initiated(order: Order, event: e.OrderRefundInitiated) -> dict[str, Any]:
    refund = Refund(
        refund_id=event.refund_id,
        attempt_id=event.attempt_id,
        amount=event.amount,
        status="initiated",
        reason=event.reason,
    )
    changes: dict[str, Any] = {"refunds": (*order.refunds, refund)}
    if event.captured_late is not None:
        captured = {"status": "captured", "amount": event.amount, "provider_ref": event.captured_late}
        changes["payments"] = _with_payment(order, event.attempt_id, captured)
    payments: tuple[Payment, ...] = changes.get("payments", order.payments)
    changes["payments"] = tuple(
        p.model_copy(update={"refunded": p.refunded + event.amount}) if p.attempt_id == event.attempt_id else p
        for p in payments
    )
    return changes


def _with_payment(order: Order, attempt_id: str, changes: dict[str, Any]) -> tuple[Payment, ...]:
    return tuple(p.model_copy(update=changes) if p.attempt_id == attempt_id else p for p in order.payments)
