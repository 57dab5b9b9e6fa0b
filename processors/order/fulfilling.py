"""Shipments of an order: planned, packed, on their way, delivered, and what goes wrong between.

What warehouse and carrier report may come in any order and more than once: what is told late leads to what must have
happened before (a delivery to the dispatch that nobody reported), what is told twice leads to nothing.

SHIPPED means that no unit is left to ship and no delivery has failed; DELIVERED, that all that was to come has come.
An order of which nothing will ever come is cancelled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from processors.order import capturing, parcels, refunding
from processors.order.checks import Decision, find_line
from processors.order.evolve import evolve
from schemas import commands as c
from schemas import events as e
from schemas.base import Event, Instant, Payload
from schemas.order import CancellationReason, Order, OrderStatus, Shipment, ShipmentLine
from schemas.policy import FulfilmentRules, Policy
from schemas.replies import Rejection

RANKS = {"planned": 0, "picked": 1, "packed": 2, "shipped": 3, "in_transit": 4, "out_for_delivery": 5}


def start(order: Order, at: Instant) -> list[Payload]:
    """[OrderProcessingStarted] when the time to modify a paid order is over, nothing holds it up and it says where to
    and how, else []. Whoever ends a hold or an edit calls it with the order as it is afterwards."""
    begun = _begun(order, at)
    return [] if isinstance(begun, Rejection) else begun


def begin(order: Order, _: c.BeginFulfilment, at: Instant) -> Decision:
    """Stale when the order is not paid any more, or held, or being edited: the end of that begins it. Refused when it
    does not say where to or how, as history from another system may not."""
    return _begun(order, at)


def plan_shipment(order: Order, plan: c.PlanShipment) -> Decision:
    """Refused unless all its units are to be shipped and in no other parcel."""
    if order.shipment(plan.shipment_id) is not None:
        return []
    if order.status != OrderStatus.PROCESSING:
        return _not_shippable(order, plan.shipment_id)
    wanted: dict[str, int] = {}
    for i, x in enumerate(plan.lines):
        line = find_line(order, x.line_id)
        if isinstance(line, Rejection):
            return line
        wanted[x.line_id] = wanted.get(x.line_id, 0) + x.quantity
        free = line.to_ship - parcels.held(order.shipments, x.line_id)
        if x.quantity < 1 or wanted[x.line_id] > free:
            return Rejection(
                type="units-not-to-ship",
                field=f"lines[{i}].quantity",
                detail=f"Of line {x.line_id} {free} units are to be put into a parcel, not {wanted[x.line_id]}.",
                extra={"shipment_id": plan.shipment_id},
            )
    if not plan.lines:
        return Rejection(type="empty-shipment", status=422, field="lines", detail="A parcel holds at least one unit.")
    return [e.OrderShipmentPlanned(shipment_id=plan.shipment_id, lines=plan.lines)]


def update_shipment(order: Order, update: c.UpdateShipment) -> Decision:
    shipment = _shipment(order, update.shipment_id, with_carrier=RANKS.get(update.status, 0) > RANKS["packed"])
    if isinstance(shipment, Rejection):
        return shipment
    if update.status not in RANKS or update.status == "planned":
        known = ", ".join(status for status in RANKS if status != "planned")
        detail = f"A parcel's status is one of {known}, not {update.status!r}."
        return Rejection(type="unknown-shipment-status", status=422, field="status", detail=detail)
    told = e.OrderShipmentUpdated(
        shipment_id=shipment.shipment_id,
        status=update.status,
        estimated_delivery=update.estimated_delivery,
        detail=update.detail,
    )
    again = shipment.status == "failed" and update.status == "out_for_delivery"
    left = shipment.status in parcels.AT_HOME and RANKS[update.status] > RANKS["packed"]
    if again or left:
        events = _dispatch(order, shipment, estimated_delivery=update.estimated_delivery)
        return events if update.status == "shipped" else [*events, told]
    if shipment.status not in RANKS:
        return []
    if RANKS[update.status] > RANKS[shipment.status]:
        return [told]
    if update.estimated_delivery in (None, shipment.estimated_delivery):
        return []
    return [told.model_copy(update={"status": shipment.status})]


def ship(order: Order, sent: c.ShipShipment) -> Decision:
    """The carrier has it, for the first time or for another attempt after a failed one."""
    shipment = _shipment(order, sent.shipment_id)
    if isinstance(shipment, Rejection):
        return shipment
    if shipment.status not in parcels.AT_HOME and shipment.status != "failed":
        return []
    return _dispatch(
        order,
        shipment,
        carrier=sent.carrier,
        tracking_number=sent.tracking_number,
        tracking_url=sent.tracking_url,
        estimated_delivery=sent.estimated_delivery,
    )


def fail_delivery(order: Order, fail: c.FailDelivery, at: Instant, policy: Policy) -> Decision:
    """The last attempt that policy allows is final: the parcel comes back."""
    shipment = _shipment(order, fail.shipment_id)
    if isinstance(shipment, Rejection):
        return shipment
    over = shipment.status in parcels.GONE or shipment.status in ("delivered", "undeliverable")
    if over or fail.attempt <= shipment.attempts:
        return []
    events = _dispatch(order, shipment) if shipment.status in parcels.AT_HOME else []
    final = fail.attempt >= policy.fulfilment.delivery_attempts
    failed = e.OrderDeliveryFailed(
        shipment_id=shipment.shipment_id,
        attempt=fail.attempt,
        reason=fail.reason,
        final=final,
        estimated_delivery=fail.estimated_delivery
        or (None if final else _next_attempt(order, shipment, at + policy.fulfilment.redeliver_after)),
    )
    return [*events, failed]


def deliver(order: Order, arrived: c.DeliverShipment) -> Decision:
    shipment = _shipment(order, arrived.shipment_id)
    if isinstance(shipment, Rejection):
        return shipment
    if shipment.status == "delivered":
        return []
    if shipment.status in parcels.GONE:
        return _contradiction(shipment, "delivered")
    events = [] if shipment.status in parcels.UNDER_WAY else _dispatch(order, shipment)
    events.append(e.OrderShipmentDelivered(shipment_id=shipment.shipment_id, lines=shipment.lines))
    return [*events, *what_follows(after(order, events))]


def lose(order: Order, lost: c.LoseShipment, policy: Policy) -> Decision:
    """reason: lost | undeliverable (returned). It is sent again, or its units are cancelled, as policy says."""
    shipment = _shipment(order, lost.shipment_id)
    if isinstance(shipment, Rejection):
        return shipment
    if shipment.status in parcels.GONE:
        return []
    if shipment.status == "delivered":
        return _contradiction(shipment, "lost")
    reason = CancellationReason.LOST if lost.reason == "lost" else CancellationReason.UNDELIVERABLE
    reship = _sent_again(order, reason, policy.fulfilment)
    events = _dispatch(order, shipment) if shipment.status in parcels.AT_HOME else []
    events.append(
        e.OrderShipmentLost(shipment_id=shipment.shipment_id, lines=shipment.lines, reason=reason, reship=reship)
    )
    if reship:
        return events
    return [*events, *cancel_units(after(order, events), shipment.lines, reason, shipment_id=shipment.shipment_id)]


def short(order: Order, missing: c.ShortItems) -> Decision:
    """Units that are not in the parcel any more were told of before."""
    shipment = _shipment(order, missing.shipment_id, with_carrier=False)
    if isinstance(shipment, Rejection):
        return shipment
    if shipment.status not in parcels.AT_HOME:
        return _contradiction(shipment, "short")
    gone = _both(shipment.lines, missing.lines)
    if not gone:
        return []
    return cancel_units(order, gone, CancellationReason.OUT_OF_STOCK, shipment_id=shipment.shipment_id)


def report_stuck(order: Order, report: c.ReportStuck) -> Decision:
    """Stale unless the order has been in this status since that version; reported once."""
    if order.status != report.status or order.status_version > report.version or order.stuck == order.status:
        return []
    return [e.OrderStuck(status=report.status, since=order.status_since or order.updated_at)]


# What follows from what, for whoever decides on units of an order in fulfilment


def cancel_units(
    order: Order,
    lines: Sequence[ShipmentLine],
    reason: str,
    *,
    comment: str | None = None,
    shipment_id: str | None = None,
) -> list[Payload]:
    """Units of an order in PROCESSING will not come: their refunds, and what that means for the order. With nothing
    delivered and nothing left to come it is cancelled whole, shipping and all. `lines`: units not cancelled yet; with
    `shipment_id` those of a parcel that is short, or of one that was lost."""
    cancelled = e.OrderItemsCancelled(lines=tuple(lines), reason=reason, comment=comment, shipment_id=shipment_id)
    then = after(order, [cancelled])
    if _nothing_comes(then):
        skus = {line.sku for line in lines} if reason == CancellationReason.OUT_OF_STOCK else ()
        end = e.OrderCancelled(reason=reason, comment=comment, skus=tuple(sorted(skus)))
        return [cancelled, end, *refunding.refund_everything(order, reason), *voids(order)]
    return [cancelled, *_refunds(order, then, cancelled), *what_follows(then), *leftovers(then)]


def what_follows(order: Order) -> list[Payload]:
    """OrderShipped and OrderDelivered, when the order (in PROCESSING or SHIPPED) has come so far."""
    if order.status not in (OrderStatus.PROCESSING, OrderStatus.SHIPPED):
        return []
    stranded = any(s.status in parcels.STRANDED for s in order.shipments)
    if stranded or any(line.to_ship > 0 for line in order.lines) or _nothing_comes(order):
        return []
    events: list[Payload] = []
    under_way = [s.shipment_id for s in order.shipments if s.status in parcels.UNDER_WAY]
    delivered = [s.shipment_id for s in order.shipments if s.status == "delivered"]
    if order.status != OrderStatus.SHIPPED:
        shipped = (*delivered, *under_way)
        events.append(e.OrderShipped(shipments=shipped, estimated_delivery=order.estimated_delivery))
    if not under_way:
        events.append(e.OrderDelivered(shipments=tuple(delivered)))
    return events


def leftovers(order: Order) -> list[Payload]:
    """`voids`, once nothing is left to ship and everything that was asked for is captured."""
    captures = (capture for payment in order.payments for capture in payment.captures)
    if any(line.to_ship for line in order.lines) or any(capture.status != "captured" for capture in captures):
        return []
    return voids(order)


def voids(order: Order) -> list[Payload]:
    """Whatever is left of authorizations is given free."""
    return [
        e.OrderPaymentVoidRequested(attempt_id=payment.attempt_id)
        for payment in order.payments
        if capturing.uncaptured(payment) > 0
    ]


def after(order: Order, payloads: Iterable[Payload]) -> Order:
    """The order once these have happened."""
    for payload in payloads:
        event: Event[Payload] = Event(
            id="",
            order_id=order.order_id,
            version=order.version + 1,
            occurred_at=order.updated_at,
            actor="",
            correlation_id="",
            causation_id="",
            previous_hash="",
            data=payload,
        )
        order = evolve(order, event)
    return order


def _begun(order: Order, at: Instant) -> list[Payload] | Rejection:
    waits = order.hold is not None or order.edit is not None
    early = order.modifiable_until is not None and at < order.modifiable_until
    if order.status != OrderStatus.PAYMENT_CONFIRMED or waits or early:
        return []
    if order.shipping_address is None:
        return _unaddressed("shipping_address", "The order does not say where to.")
    if order.shipping_method is None:
        return _unaddressed("shipping_method", "The order does not say by which shipping method.")
    return [
        e.OrderProcessingStarted(
            lines=order.lines,
            shipping_address=order.shipping_address,
            shipping_method=order.shipping_method,
            estimated_delivery=order.estimated_delivery,
            incoterm=order.incoterm,
            customer_id=order.customer_id,
            currency=order.currency,
        )
    ]


def _nothing_comes(order: Order) -> bool:
    """No unit was delivered, is under way or is to be shipped."""
    coming = parcels.UNDER_WAY | parcels.STRANDED | {"delivered"}
    parcel = any(s.status in coming for s in order.shipments)
    return not parcel and not any(line.to_ship > 0 for line in order.lines)


def _refunds(order: Order, then: Order, cancelled: e.OrderItemsCancelled) -> list[e.OrderRefundInitiated]:
    """What the units cost, as far as it was taken: of a lost parcel, what is not needed for those that are out; of
    units that never left, what is not needed for anything that comes (what is only authorized is not taken instead)."""
    count = parcels.units(cancelled.lines)
    items = [refunding.line_due(order, x, count[x.line_id]) for x in order.lines if count.get(x.line_id)]
    parcel = None if cancelled.shipment_id is None else order.shipment(cancelled.shipment_id)
    lost = parcel is not None and parcel.status in parcels.GONE
    spare = capturing.unused(then) if lost else capturing.excess(then)
    return refunding.refunds_of(order, min(sum(x.amount for x in items), spare), cancelled.reason, items=items)


def _dispatch(
    order: Order,
    shipment: Shipment,
    *,
    carrier: str = "",
    tracking_number: str = "",
    tracking_url: str = "",
    estimated_delivery: str | None = None,
) -> list[Payload]:
    """A parcel is with the carrier; the first time, authorized money for it is captured."""
    sent = e.OrderShipmentDispatched(
        shipment_id=shipment.shipment_id,
        lines=shipment.lines,
        carrier=carrier or shipment.carrier or "",
        tracking_number=tracking_number or shipment.tracking_number or "",
        tracking_url=tracking_url or shipment.tracking_url or "",
        estimated_delivery=estimated_delivery,
        redelivery=shipment.status in parcels.STRANDED,
    )
    captures = [] if sent.redelivery else capturing.captures_for(order, shipment.lines)
    then = after(order, [sent, *captures])
    return [sent, *captures, *what_follows(then), *leftovers(then)]


def _sent_again(order: Order, reason: str, rules: FulfilmentRules) -> bool:
    rule = rules.lost if reason == CancellationReason.LOST else rules.undeliverable
    return rule == "reship" and sum(s.reshipped for s in order.shipments) < rules.max_reships


def _next_attempt(order: Order, shipment: Shipment, at: Instant) -> str | None:
    """The day of the next attempt, when that is later than what was expected."""
    expected = shipment.estimated_delivery or order.estimated_delivery
    day = at.date().isoformat()
    return day if expected is None or day > expected else None


def _both(held: Sequence[ShipmentLine], named: Sequence[ShipmentLine]) -> list[ShipmentLine]:
    """The named units, as far as the parcel holds them."""
    wanted = parcels.units(named)
    found = []
    for line in held:
        quantity = min(line.quantity, wanted.get(line.line_id, 0))
        if quantity > 0:
            wanted[line.line_id] -= quantity
            found.append(line.model_copy(update={"quantity": quantity}))
    return found


def _shipment(order: Order, shipment_id: str, with_carrier: bool = True) -> Shipment | Rejection:
    """The parcel that somebody reports about, or why it should not exist any more. Of one that was called back and is
    `with_carrier` all the same, what is still wanted."""
    shipment = order.shipment(shipment_id)
    if order.status == OrderStatus.CANCELLED and (
        shipment is None or shipment.status not in parcels.GONE | {"delivered"}
    ):
        return _not_shippable(order, shipment_id)
    if shipment is None:
        detail = f"The order has no shipment {shipment_id}."
        return Rejection(type="unknown-shipment", status=404, field="shipment_id", detail=detail)
    if shipment.status != "cancelled":
        return shipment
    wanted = _both(shipment.lines, _free(order)) if with_carrier else []
    if wanted:
        return shipment.model_copy(update={"status": "packed", "lines": tuple(wanted)})
    return Rejection(
        type="shipment-cancelled",
        detail=f"Shipment {shipment_id} was called back, because units in it were cancelled.",
        extra={"shipment_id": shipment_id},
    )


def _free(order: Order) -> list[ShipmentLine]:
    """Units to ship that are in no parcel."""
    return [
        ShipmentLine(
            line_id=x.line_id, sku=x.sku, quantity=max(0, x.to_ship - parcels.held(order.shipments, x.line_id))
        )
        for x in order.lines
    ]


def _unaddressed(field: str, detail: str) -> Rejection:
    return Rejection(type="destination-missing", field=field, detail=detail)


def _not_shippable(order: Order, shipment_id: str) -> Rejection:
    ended = order.status == OrderStatus.CANCELLED
    return Rejection(
        type="shipment-of-ended-order" if ended else "cannot-plan-shipment",
        detail=f"Nothing is to be shipped of an order that is {order.status}.",
        extra={"status": order.status, "shipment_id": shipment_id},
    )


def _contradiction(shipment: Shipment, told: str) -> Rejection:
    return Rejection(
        type="shipment-contradiction",
        detail=f"Shipment {shipment.shipment_id} is {shipment.status}, and now it is said to be {told}.",
        extra={"shipment_id": shipment.shipment_id, "status": shipment.status},
    )
