"""What happens to an order's parcels: the fold of the events of fulfilment, and which parcels are where."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from schemas import events as e
from schemas.base import Instant
from schemas.order import Line, Order, OrderStatus, Shipment, ShipmentLine

AT_HOME = frozenset({"planned", "picked", "packed"})
UNDER_WAY = frozenset({"shipped", "in_transit", "out_for_delivery"})
STRANDED = frozenset({"failed", "undeliverable"})
GONE = frozenset({"lost", "returned"})

Facts = (
    e.OrderProcessingStarted
    | e.OrderShipmentPlanned
    | e.OrderShipmentUpdated
    | e.OrderShipmentDispatched
    | e.OrderShipped
    | e.OrderDeliveryFailed
    | e.OrderShipmentDelivered
    | e.OrderDelivered
    | e.OrderShipmentLost
    | e.OrderItemsCancelled
    | e.OrderStuck
)


def changes(order: Order, fact: Facts, at: Instant) -> dict[str, Any]:
    """The fields of the order that the event changes."""
    parcel: dict[str, Any]
    match fact:
        case e.OrderProcessingStarted():
            return {"status": OrderStatus.PROCESSING}
        case e.OrderShipmentPlanned(shipment_id=shipment_id, lines=lines):
            planned = Shipment(shipment_id=shipment_id, status="planned", lines=lines)
            return {"shipments": (*order.shipments, planned)}
        case e.OrderShipmentUpdated(estimated_delivery=eta):
            parcel = {"status": fact.status} | ({"estimated_delivery": eta} if eta else {})
            return _expected(order, {"shipments": _with(order, fact.shipment_id, parcel)})
        case e.OrderShipmentDispatched():
            return _expected(order, _dispatched(order, fact, at))
        case e.OrderShipped(estimated_delivery=eta):
            return {"status": OrderStatus.SHIPPED, "estimated_delivery": eta or order.estimated_delivery}
        case e.OrderDeliveryFailed(estimated_delivery=eta):
            parcel = {"status": "undeliverable" if fact.final else "failed", "attempts": fact.attempt}
            parcel |= {"estimated_delivery": eta} if eta else {}
            return _expected(order, {**_not_shipped(order), "shipments": _with(order, fact.shipment_id, parcel)})
        case e.OrderShipmentDelivered(shipment_id=shipment_id, lines=lines):
            parcel = {"status": "delivered", "delivered_at": at}
            return {"shipments": _with(order, shipment_id, parcel), "lines": _counted(order, lines, "delivered")}
        case e.OrderDelivered():
            return {"status": OrderStatus.DELIVERED, "delivered_at": at}
        case e.OrderShipmentLost(shipment_id=shipment_id, lines=lines):
            parcel = {"status": "lost" if fact.reason == "lost" else "returned", "reshipped": fact.reship}
            return {
                **_not_shipped(order),
                "shipments": _with(order, shipment_id, parcel),
                "lines": _counted(order, lines, "shipped", -1),
            }
        case e.OrderItemsCancelled():
            return _items_cancelled(order, fact)
        case e.OrderStuck(status=status):
            return {"stuck": status}


def ended(order: Order) -> tuple[Shipment, ...]:
    """The parcels once the order is cancelled: what is still at home stays there."""
    return tuple(s.model_copy(update={"status": "cancelled"}) if s.status in AT_HOME else s for s in order.shipments)


def held(shipments: Iterable[Shipment], line_id: str) -> int:
    """Units of a line in parcels that have not left yet."""
    return sum(x.quantity for s in shipments if s.status in AT_HOME for x in s.lines if x.line_id == line_id)


def overfull(parcels: Iterable[tuple[str, Iterable[ShipmentLine]]], to_ship: Mapping[str, int]) -> frozenset[str]:
    """Which of the parcels that have not left (oldest first) can't stay as they are, because they hold more units of a
    line than are `to_ship`. The newest give way first."""
    room = dict(to_ship)
    out = set()
    for shipment_id, lines in parcels:
        count = units(lines)
        if any(quantity > room.get(line_id, 0) for line_id, quantity in count.items()):
            out.add(shipment_id)
        else:
            room |= {line_id: room[line_id] - quantity for line_id, quantity in count.items()}
    return frozenset(out)


def without(lines: Iterable[ShipmentLine], missing: Iterable[ShipmentLine]) -> tuple[ShipmentLine, ...]:
    """The lines of a parcel without some units; a line of which nothing is left is gone."""
    take = units(missing)
    left = []
    for line in lines:
        gone = min(line.quantity, take.get(line.line_id, 0))
        take[line.line_id] = take.get(line.line_id, 0) - gone
        if gone < line.quantity:
            left.append(line.model_copy(update={"quantity": line.quantity - gone}))
    return tuple(left)


def units(lines: Iterable[ShipmentLine]) -> dict[str, int]:
    """Line id → units."""
    count: dict[str, int] = {}
    for line in lines:
        count[line.line_id] = count.get(line.line_id, 0) + line.quantity
    return count


def _dispatched(order: Order, sent: e.OrderShipmentDispatched, at: Instant) -> dict[str, Any]:
    parcel: dict[str, Any] = {
        "status": "shipped",
        "carrier": sent.carrier,
        "tracking_number": sent.tracking_number,
        "tracking_url": sent.tracking_url,
    }
    if sent.estimated_delivery:
        parcel["estimated_delivery"] = sent.estimated_delivery
    if sent.redelivery:
        return {"shipments": _with(order, sent.shipment_id, parcel)}
    parcel |= {"shipped_at": at, "lines": sent.lines}
    return {
        "shipments": _with(order, sent.shipment_id, parcel),
        "lines": _counted(order, sent.lines, "shipped"),
    }


def _items_cancelled(order: Order, fact: e.OrderItemsCancelled) -> dict[str, Any]:
    """With a shipment the units are out of that one; without, parcels that would now hold too much are called back."""
    lines = _counted(order, fact.lines, "cancelled")
    shipments = order.shipments
    parcel = None if fact.shipment_id is None else order.shipment(fact.shipment_id)
    if parcel is not None and parcel.status in AT_HOME:
        left = without(parcel.lines, fact.lines)
        shipments = _with(order, parcel.shipment_id, {"lines": left, "status": parcel.status if left else "cancelled"})
    home = [(s.shipment_id, s.lines) for s in shipments if s.status in AT_HOME]
    back = overfull(home, {line.line_id: line.to_ship for line in lines})
    return {
        "lines": lines,
        "shipments": tuple(
            s.model_copy(update={"status": "cancelled"}) if s.shipment_id in back else s for s in shipments
        ),
    }


def _not_shipped(order: Order) -> dict[str, Any]:
    return {"status": OrderStatus.PROCESSING} if order.status == OrderStatus.SHIPPED else {}


def _expected(order: Order, update: dict[str, Any]) -> dict[str, Any]:
    """With the order's estimated delivery: that of its last parcel; while units are at home, no earlier than it was."""
    lines: tuple[Line, ...] = update.get("lines", order.lines)
    shipments: tuple[Shipment, ...] = update["shipments"]
    dates = [s.estimated_delivery for s in shipments if s.status in UNDER_WAY | STRANDED and s.estimated_delivery]
    if order.estimated_delivery and (not dates or any(line.to_ship for line in lines)):
        dates.append(order.estimated_delivery)
    return {**update, "estimated_delivery": max(dates, default=None)}


def _with(order: Order, shipment_id: str, update: dict[str, Any]) -> tuple[Shipment, ...]:
    return tuple(s.model_copy(update=update) if s.shipment_id == shipment_id else s for s in order.shipments)


def _counted(order: Order, lines: Iterable[ShipmentLine], fate: str, sign: int = 1) -> tuple[Line, ...]:
    count = units(lines)
    return tuple(
        line.model_copy(update={fate: getattr(line, fate) + sign * count[line.line_id]})
        if line.line_id in count
        else line
        for line in order.lines
    )
