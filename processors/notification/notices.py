"""Which events customers hear of, and what a message about one needs to say. Pure.

`evolve` keeps the little of an order that messages mention; `notice` makes the message of an event, or none. Imported
history is nobody's news.
"""

from __future__ import annotations

from typing import Any

from processors.order.parcels import units
from schemas import events as e
from schemas.base import Event, Model
from schemas.money import to_text
from schemas.notification import NoticeLine, SendNotice
from schemas.order import Line, Order, ShipmentLine, Totals

OPTIONAL = frozenset(
    {"payment_confirmed", "processing", "out_for_delivery", "delivered", "return_received", "return_expired"}
)
"""Kinds of messages that a customer may do without. The others are transactional: a contract needs them, so that they
are sent whatever somebody has opted out of."""

TRANSACTIONAL = frozenset(
    {
        "order_confirmation",
        "payment_failed",
        "order_changed",
        "change_failed",
        "shipped",
        "delivery_failed",
        "parcel_lost",
        "items_cancelled",
        "cancelled",
        "refund_requested",
        "return_approved",
        "return_label",
        "refund_denied",
        "refund_completed",
    }
)


class Item(Model):
    """A line. `paid` is for all its `quantity` units, those `cancelled` too (minor units)."""

    line_id: str
    sku: str
    name: str
    quantity: int
    paid: int
    cancelled: int = 0


class Parcel(Model):
    carrier: str
    tracking_number: str
    tracking_url: str


class Known(Model):
    """What messages about an order mention."""

    customer_id: str
    number: str
    currency: str
    total: int = 0
    estimated_delivery: str | None = None
    items: tuple[Item, ...] = ()
    parcels: dict[str, Parcel] = {}
    back: tuple[str, ...] = ()  # RMAs of which the goods have arrived
    paid: bool | None = None  # whether money was ever taken, a reservation is none; None: state from before it was kept


def evolve(known: Known | None, event: Event[Any]) -> Known | None:
    """What is known after the event; None before an order's first."""
    data = event.data
    if isinstance(data, e.OrderCreated):
        return Known(
            customer_id=data.customer_id,
            number=data.number,
            currency=data.currency,
            total=data.totals.total,
            estimated_delivery=data.estimated_delivery,
            items=_items(data.lines),
            paid=False,
        )
    if known is None:
        return _imported(data.order) if isinstance(data, e.OrderImported) and data.order is not None else None
    changes: dict[str, Any] = {}
    lines: tuple[Line, ...] | None = getattr(data, "lines", None) if isinstance(data, _WITH_LINES) else None
    totals: Totals | None = getattr(data, "totals", None)
    if lines is not None and totals is not None:
        changes |= {"items": _items(lines), "total": totals.total}
    if (eta := getattr(data, "estimated_delivery", None)) is not None:
        changes["estimated_delivery"] = eta
    if isinstance(data, e.OrderShipmentDispatched):
        parcel = Parcel(carrier=data.carrier, tracking_number=data.tracking_number, tracking_url=data.tracking_url)
        changes["parcels"] = {**known.parcels, data.shipment_id: parcel}
    if isinstance(data, e.OrderItemsCancelled):
        changes["items"] = _without(known.items, data.lines)
    if isinstance(data, e.OrderReturnReceived):
        changes["back"] = (*known.back, data.rma)
    if _takes_money(data):
        changes["paid"] = True
    return known.model_copy(update=changes) if changes else known


def _imported(order: Order) -> Known:
    """What the events of its history would have told."""
    return Known(
        customer_id=order.customer_id,
        number=order.number,
        currency=order.currency,
        total=order.totals.total,
        estimated_delivery=order.estimated_delivery,
        items=_items(order.lines),
        parcels={
            parcel.shipment_id: Parcel(
                carrier=parcel.carrier, tracking_number=parcel.tracking_number, tracking_url=parcel.tracking_url
            )
            for parcel in order.shipments
            if parcel.carrier is not None and parcel.tracking_number is not None and parcel.tracking_url is not None
        },
        paid=order.captured > 0,
    )


def _takes_money(data: Any) -> bool:
    match data:
        case (
            e.OrderPaymentConfirmed(authorized=False, amount=amount)
            | e.OrderEditCompleted(authorized=False, amount=amount)
            | e.OrderPaymentCaptured(amount=amount)
        ):
            return bool(amount > 0)
        case e.OrderRefundInitiated(captured_late=reference):
            return reference is not None
        case _:
            return False


def notice(known: Known | None, event: Event[Any]) -> SendNotice | None:
    """The message about this event; `known` is what is known after it."""
    if known is None or event.imported:
        return None
    found = _about(known, event.data)
    if found is None:
        return None
    kind, words = found
    return SendNotice(
        kind=kind,
        event_id=event.id,
        customer_id=known.customer_id,
        order_number=known.number,
        occurred_at=event.occurred_at,
        paid=known.paid,
        **{"total": _money(known.total, known), "estimated_delivery": known.estimated_delivery, **words},
    )


def _about(known: Known, data: Any) -> tuple[str, dict[str, Any]] | None:
    """(kind, what it says besides the order's number, total and estimated delivery)"""
    match data:
        case e.OrderSubmitted():
            return "order_confirmation", {"lines": _lines(known)}
        case e.OrderPaymentConfirmed(purpose="order", amount=amount):
            return "payment_confirmed", {"amount": _money(amount, known)}
        case e.OrderPaymentFailed(purpose="order", code=code, attempts_left=left):
            return "payment_failed", {"reason": code, "attempts_left": left}
        case e.OrderEditCompleted():
            return "order_changed", {"lines": _lines(known)}
        case e.OrderEditFailed(reason=reason):
            return "change_failed", {"reason": reason}
        case e.OrderProcessingStarted():
            return "processing", {"lines": _lines(known)}
        case e.OrderShipmentDispatched(redelivery=False, lines=lines, shipment_id=shipment_id):
            return "shipped", {"lines": _lines(known, lines), **_parcel(known, shipment_id)}
        case e.OrderShipmentUpdated(status="out_for_delivery", shipment_id=shipment_id):
            return "out_for_delivery", _parcel(known, shipment_id)
        case e.OrderDeliveryFailed(reason=reason, shipment_id=shipment_id):
            return "delivery_failed", {"reason": reason, **_parcel(known, shipment_id)}
        case e.OrderShipmentLost(reship=True, lines=lines, reason=reason):
            # Of what is not sent again OrderItemsCancelled tells. No tracking: that parcel is nothing to follow.
            return "parcel_lost", {"lines": _lines(known, lines), "reason": reason}
        case e.OrderDelivered():
            return "delivered", {"lines": _lines(known)}
        case e.OrderItemsCancelled(lines=lines, reason=reason):
            return "items_cancelled", {"lines": _lines(known, lines), "reason": reason}
        case e.OrderCancelled(reason=reason) if reason != "abandoned":
            return "cancelled", {"lines": _lines(known), "reason": reason}
        case e.OrderRefundRequested(rma=rma, amount=amount):
            return "refund_requested", {"rma": rma, "amount": _money(amount, known)}
        case e.OrderReturnApproved(rma=rma):
            return "return_approved", {"rma": rma}
        case e.OrderReturnLabelCreated(rma=rma) if rma in known.back:
            return None  # the news of the label came after the goods: nobody needs it any more
        case e.OrderReturnLabelCreated(rma=rma, carrier=carrier, tracking_number=number, label_url=url):
            return "return_label", {"rma": rma, "carrier": carrier, "tracking_number": number, "label_url": url}
        case e.OrderReturnReceived(rma=rma):
            return "return_received", {"rma": rma}
        case e.OrderReturnExpired(rma=rma):
            return "return_expired", {"rma": rma}
        case e.OrderRefundDenied(rma=rma, reason=reason):
            return "refund_denied", {"rma": rma, "reason": reason}
        case e.OrderRefundCompleted(amount=amount):
            return "refund_completed", {"amount": _money(amount, known)}
        case _:
            return None


_WITH_LINES = (
    e.OrderLineItemAdded
    | e.OrderLineItemRemoved
    | e.OrderLineItemQuantityChanged
    | e.OrderShippingAddressChanged
    | e.OrderShippingMethodChanged
    | e.OrderPromotionApplied
    | e.OrderPromotionRemoved
    | e.OrderSubmitted
)


def _items(lines: tuple[Line, ...]) -> tuple[Item, ...]:
    return tuple(
        Item(
            line_id=line.line_id,
            sku=line.sku,
            name=line.name,
            quantity=line.quantity,
            paid=line.paid,
            cancelled=line.cancelled,
        )
        for line in lines
    )


def _without(items: tuple[Item, ...], cancelled: tuple[ShipmentLine, ...]) -> tuple[Item, ...]:
    count = units(cancelled)
    return tuple(item.model_copy(update={"cancelled": item.cancelled + count.get(item.line_id, 0)}) for item in items)


def _lines(known: Known, some: tuple[ShipmentLine, ...] | None = None) -> tuple[NoticeLine, ...]:
    """All units that were not cancelled, or the named ones. A line without any is not listed."""
    left = {item.line_id: item.quantity - item.cancelled for item in known.items}
    quantities = left if some is None else units(some)
    return tuple(
        NoticeLine(
            name=item.name,
            sku=item.sku,
            quantity=quantities[item.line_id],
            total=_money(item.paid * quantities[item.line_id] // item.quantity, known),
        )
        for item in known.items
        if quantities.get(item.line_id, 0) > 0
    )


def _parcel(known: Known, shipment_id: str) -> dict[str, Any]:
    parcel = known.parcels.get(shipment_id)
    return {} if parcel is None else parcel.model_dump()


def _money(minor: int, known: Known) -> str:
    return f"{to_text(minor, known.currency)} {known.currency}"
