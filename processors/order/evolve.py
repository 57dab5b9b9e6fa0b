"""evolve(order, event) → order: what each event means for the order. It never refuses: what happened has happened."""

from __future__ import annotations

from typing import Any

from processors.order import attempts, edits, parcels, traces
from schemas import events as e
from schemas.base import Event
from schemas.order import Cancellation, Hold, Order, OrderStatus, Payment, Refund, Return, Stay, Survey


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
            promotions=data.promotions,
            incoterm=data.incoterm,
            exchange_of=data.exchange_of,
            last_line=len(data.lines),
            history=(Stay(status=OrderStatus.DRAFT, since=event.occurred_at),),
        )
    if event.version != order.version + 1:
        raise ValueError(f"order {order.order_id} is at {order.version}: event {event.version} does not follow")
    update = {**_changes(order, event), "version": event.version, "updated_at": event.occurred_at}
    if update.get("status", order.status) != order.status:
        update |= {"status_version": event.version, "status_since": event.occurred_at, "stuck": None}
    return order.model_copy(update=update | traces.left_by(order, update, event.occurred_at))


def _changes(order: Order, event: Event[Any]) -> dict[str, Any]:
    match event.data:
        case (
            e.OrderLineItemAdded()
            | e.OrderLineItemRemoved()
            | e.OrderLineItemQuantityChanged()
            | e.OrderShippingAddressChanged()
            | e.OrderBillingAddressChanged()
            | e.OrderShippingMethodChanged()
            | e.OrderPromotionApplied()
            | e.OrderPromotionRemoved()
            | e.OrderEditRequested()
            | e.OrderEditCompleted()
            | e.OrderEditFailed() as change
        ):
            return edits.changes(order, change)
        case e.OrderSubmitted(lines=lines, totals=totals, estimated_delivery=eta) as submitted:
            return {
                "status": OrderStatus.PENDING_PAYMENT,
                "submitted_at": event.occurred_at,
                "lines": lines,
                "totals": totals,
                "estimated_delivery": eta,
                "promised_delivery": eta,
                "incoterm": submitted.incoterm,
                **edits.with_promotions(submitted.promotions),
            }
        case (
            e.OrderPaymentRequested()
            | e.OrderPaymentConfirmed()
            | e.OrderPaymentFailed()
            | e.OrderPaymentCaptureRequested()
            | e.OrderPaymentCaptured()
            | e.OrderPaymentCaptureFailed()
            | e.OrderPaymentVoidRequested()
            | e.OrderPaymentVoided() as money
        ):
            return attempts.changes(order, money)
        case e.OrderHeld() as held:
            hold = Hold(
                kind=held.kind, reason=held.reason, score=held.score, since=event.occurred_at, due_at=held.due_at
            )
            return {"hold": hold, "payment_due_at": None}
        case e.OrderReleased():
            return {"hold": None}
        case e.OrderCancelled(reason=reason, comment=comment, skus=skus):
            return {
                "status": OrderStatus.CANCELLED,
                "shipments": parcels.ended(order),
                "payment_due_at": None,
                "edit": None,
                "hold": None,
                "cancellation": Cancellation(reason=reason, comment=comment, skus=skus),
            }
        case e.OrderRefundInitiated() as initiated:
            return _refund_initiated(order, initiated)
        case e.OrderRefundCompleted() as completed:
            return _refund_completed(order, completed)
        case e.OrderRefundFailed(refund_id=refund_id):
            return _refund_failed(order, refund_id)
        case e.OrderRefundAbandoned() as abandoned:
            return _refund_abandoned(order, abandoned)
        case e.OrderReturnRequested(rma=rma, items=items, comment=comment):
            wish = Return(rma=rma, status="requested", items=items, requested_at=event.occurred_at, comment=comment)
            return _with_status(order, {"returns": (*order.returns, wish)})
        case e.OrderRefundRequested():
            return {}
        case e.OrderReturnApproved(rma=rma, expires_at=expires_at):
            return _with_return(order, rma, {"status": "approved", "expires_at": expires_at})
        case e.OrderReturnLabelCreated(rma=rma) as label:
            made = {
                "carrier": label.carrier,
                "tracking_number": label.tracking_number,
                "label_url": label.label_url,
            }
            return _with_return(order, rma, made)
        case e.OrderReturnReceived(rma=rma):
            return _with_return(order, rma, {"status": "received"})
        case e.OrderReturnInspected() as inspected:
            return _return_inspected(order, inspected)
        case e.OrderRefundDenied(rma=rma, reason=reason):
            return _with_return(order, rma, {"status": "denied", "denied": reason})
        case e.OrderReturnExpired(rma=rma):
            return _with_return(order, rma, {"status": "expired"})
        case e.OrderSurveyAnswered(score=score, comment=comment):
            return {"survey": Survey(score=score, comment=comment, answered_at=event.occurred_at)}
        case (
            e.OrderProcessingStarted()
            | e.OrderShipmentPlanned()
            | e.OrderShipmentUpdated()
            | e.OrderShipmentDispatched()
            | e.OrderShipped()
            | e.OrderDeliveryFailed()
            | e.OrderShipmentDelivered()
            | e.OrderDelivered()
            | e.OrderShipmentLost()
            | e.OrderItemsCancelled()
            | e.OrderStuck() as fact
        ):
            return parcels.changes(order, fact, event.occurred_at)
        case e.OrderImported():
            return {"imported": True}
        case other:
            raise ValueError(f"evolve has no case for {type(other).__name__}")


def _refund_initiated(order: Order, event: e.OrderRefundInitiated) -> dict[str, Any]:
    refund = Refund(
        refund_id=event.refund_id,
        attempt_id=event.attempt_id,
        amount=event.amount,
        status="initiated",
        reason=event.reason,
        rma=event.rma,
        items=event.items,
        shipping=event.shipping,
        kept=event.kept,
    )
    changes: dict[str, Any] = {"refunds": (*order.refunds, refund)}
    if event.captured_late is not None:
        captured = {"status": "captured", "amount": event.amount, "provider_ref": event.captured_late}
        changes["payments"] = attempts.with_payment(order, event.attempt_id, captured)
    payments: tuple[Payment, ...] = changes.get("payments", order.payments)
    changes["payments"] = _refunded_more(payments, event.attempt_id, event.amount)
    return _with_status(order, changes, asked=True)


def _refund_completed(order: Order, event: e.OrderRefundCompleted) -> dict[str, Any]:
    """A refund that had failed takes its money again: it was retried."""
    refund = next(r for r in order.refunds if r.refund_id == event.refund_id)
    return _refund_over(order, refund, {"status": "completed", "provider_ref": event.provider_ref})


def _refund_abandoned(order: Order, event: e.OrderRefundAbandoned) -> dict[str, Any]:
    refund = next(r for r in order.refunds if r.refund_id == event.refund_id)
    return _refund_over(order, refund, {"status": "paid_elsewhere" if event.paid_elsewhere else "abandoned"})


def _refund_over(order: Order, refund: Refund, update: dict[str, Any]) -> dict[str, Any]:
    """The last refund of a return closes that."""
    refunds = _with_refund(order, refund.refund_id, update)
    after = next(r for r in refunds if r.refund_id == refund.refund_id)
    payments = order.payments
    if after.counts and not refund.counts:
        payments = _refunded_more(payments, refund.attempt_id, refund.amount)
    returns = order.returns
    if refund.rma is not None and all(r.over for r in refunds if r.rma == refund.rma):
        returns = tuple(r.model_copy(update={"status": "closed"}) if r.rma == refund.rma else r for r in returns)
    return _with_status(order, {"refunds": refunds, "payments": payments, "returns": returns})


def _refund_failed(order: Order, refund_id: str) -> dict[str, Any]:
    """What it would have given back is not given."""
    refund = next(r for r in order.refunds if r.refund_id == refund_id)
    return {
        "refunds": _with_refund(order, refund_id, {"status": "failed"}),
        "payments": _refunded_more(order.payments, refund.attempt_id, -refund.amount),
    }


def _return_inspected(order: Order, event: e.OrderReturnInspected) -> dict[str, Any]:
    back = {item.line_id: item.quantity for item in event.items}
    lines = tuple(
        line.model_copy(update={"returned": line.returned + back.get(line.line_id, 0)}) for line in order.lines
    )
    status = "inspected" if event.amount else "closed"
    return {"lines": lines, **_with_return(order, event.rma, {"status": status, "items": event.items})}


def _with_return(order: Order, rma: str, changes: dict[str, Any]) -> dict[str, Any]:
    returns = tuple(r.model_copy(update=changes) if r.rma == rma else r for r in order.returns)
    return _with_status(order, {"returns": returns})


def _with_status(order: Order, changes: dict[str, Any], asked: bool = False) -> dict[str, Any]:
    """The changes, and the status that follows from them: a delivered order is REFUND_REQUESTED from when somebody
    `asked` for money until no return is open and no refund under way; then it is REFUNDED when all that was taken has
    been given back, else DELIVERED again. Nobody asks for what was given back before the delivery: that leaves an order
    DELIVERED, for there is no way from SHIPPED to REFUNDED (decision 0016)."""
    if order.status not in (OrderStatus.DELIVERED, OrderStatus.REFUND_REQUESTED):
        return changes
    after = order.model_copy(update=changes)
    given = sum(r.amount for r in after.refunds if r.given)
    if asked or any(r.open for r in after.returns):
        status = OrderStatus.REFUND_REQUESTED
    elif order.status == OrderStatus.DELIVERED:
        status = OrderStatus.DELIVERED  # refunds from before the delivery come to their end
    elif after.captured and given >= after.captured:
        status = OrderStatus.REFUNDED
    elif not all(r.over for r in after.refunds):
        status = OrderStatus.REFUND_REQUESTED  # a failed one too: it is to be tried again, or given up
    else:
        status = OrderStatus.DELIVERED
    return {**changes, "status": status}


def _with_refund(order: Order, refund_id: str, changes: dict[str, Any]) -> tuple[Refund, ...]:
    return tuple(r.model_copy(update=changes) if r.refund_id == refund_id else r for r in order.refunds)


def _refunded_more(payments: tuple[Payment, ...], attempt_id: str, amount: int) -> tuple[Payment, ...]:
    return tuple(
        p.model_copy(update={"refunded": p.refunded + amount}) if p.attempt_id == attempt_id else p for p in payments
    )
