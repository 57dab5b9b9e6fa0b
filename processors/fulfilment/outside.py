"""What stock, warehouse, carrier and the refusals of the order mean for a fulfilment. Pure."""

from __future__ import annotations

from processors.fulfilment.model import (
    ACTOR,
    OWNER,
    POOL,
    Cause,
    Fulfilment,
    Item,
    Parcel,
    Send,
    Step,
    message_id,
)
from processors.fulfilment.planning import plan_name
from processors.order.parcels import without
from schemas import commands as c
from schemas import inventory as i
from schemas import logistics as g
from schemas.base import Payload
from schemas.operations import ExceptionOpened, ExceptionResolved
from schemas.order import CancellationReason, OrderStatus, ShipmentLine
from schemas.replies import CommandRejected

SEEN = 32
"""So many reports of a parcel are known again; an older repeat is for the order to recognize."""
PATIENCE = 20
"""So many reports of a carrier wait for the booking's result."""
NEWS = ("shipped", "in_transit", "out_for_delivery")

# Stock


def stock(state: Fulfilment, answer: i.StockReserved | i.StockAllocated | i.StockRefused) -> Step:
    item = state.item(answer.line_id)
    if item is None:
        return state, []
    match answer:
        case i.StockReserved(order_version=version, backordered=missing) if version >= item.asked:
            # A repeated answer to the same question is no older than the first, and no more is missing.
            again = version == item.asked and not item.pending
            now = min(missing, item.missing) if again else missing
            return state.with_item(item.line_id, missing=now, pending=0, asked=version), []
        case i.StockAllocated(waiting=waiting) if not item.pending:
            return state.with_item(item.line_id, missing=min(item.missing, waiting)), []
        case i.StockRefused(order_version=version) if version == item.asked and item.pending:
            if answer.reason != "insufficient":
                return state, []  # the order has ended, or a newer question will be answered
            return _give_up(state, item, version)
        case _:
            return state, []


def _give_up(state: Fulfilment, item: Item, version: int) -> Step:
    """There is nothing to send again: these units are cancelled."""
    state = state.with_item(item.line_id, missing=item.missing + item.pending, pending=0)
    cancel = c.CancelOrder(
        reason=CancellationReason.OUT_OF_STOCK,
        skus=(item.sku,),
        items=(c.ItemQuantity(line_id=item.line_id, quantity=item.pending),),
    )
    return state, [Send("order.internal", f"out of stock:{item.line_id}:{version}", cancel)]


# The carrier's answer to a booking


def booked(state: Fulfilment, result: g.ShipmentBooked | g.BookingFailed) -> Step:
    parcel = state.parcel(result.shipment_id)
    if parcel is None or parcel.status == "back":
        return state, []
    if parcel.status == "called_back" and isinstance(result, g.BookingFailed):
        return state, []
    name = f"booking:{parcel.shipment_id}"
    sends = []
    if isinstance(result, g.BookingFailed):
        if parcel.booking == "made":
            return state, []
        state = state.with_parcel(parcel.shipment_id, booking="failed", waiting=())
        opened = ExceptionOpened(
            exception_id=name,
            kind="booking_failed",
            owner=OWNER,
            detail=f"The carrier did not take the parcel: {result.code}.",
            facts={"shipment_id": parcel.shipment_id, "code": result.code},
        )
        retry = Send("shipping.commands", f"book:{parcel.shipment_id}", _booking(state, parcel))
        sends.append(Send("exceptions", f"raise:{name}", opened, retry=retry))
    else:
        state = state.with_parcel(
            parcel.shipment_id,
            booking="made",
            carrier=result.carrier,
            tracking_number=result.tracking_number,
            tracking_url=result.tracking_url,
            estimated_delivery=result.estimated_delivery,
            waiting=(),
        )
        if parcel.booking == "failed":
            resolved = ExceptionResolved(exception_id=name, resolution="the carrier has taken it")
            sends.append(Send("exceptions", f"resolve:{name}", resolved))
    for report in parcel.waiting:
        state, more = _told(state, report)
        sends += more
    return state, sends


def _booking(state: Fulfilment, parcel: Parcel) -> g.BookShipment:
    """`customs` when the order has an incoterm: it leaves the country (or the customs union)."""
    if state.address is None:
        raise ValueError(f"order {state.order_id} is processed without an address")
    items = {item.line_id: item for item in state.items}
    packed = [(items[x.line_id], x.quantity) for x in parcel.contents]
    customs = [
        g.CustomsItem(
            sku=item.sku,
            name=item.name,
            quantity=quantity,
            value=(2 * item.net * quantity + item.quantity) // (2 * item.quantity),
            hs_code=item.hs_code,
            origin=item.origin,
        )
        for item, quantity in packed
    ]
    return g.BookShipment(
        shipment_id=parcel.shipment_id,
        shipping_method=state.shipping_method,
        address=state.address,
        customer_id=state.customer_id,
        weight_grams=sum(item.weight_grams * quantity for item, quantity in packed),
        currency=state.currency,
        customs=tuple(customs) if state.incoterm else (),
        incoterm=state.incoterm,
    )


# What warehouse and carrier report


def warehouse(state: Fulfilment, report: g.WarehouseReported) -> Step:
    parcel = state.parcel(report.shipment_id)
    if parcel is None and report.kind == "short":
        return state, _short(report, report.lines)
    if parcel is None:  # a late word about a parcel that has ended is no news
        return state, [] if state.had(report.shipment_id) else [_stray(report)]
    if report.event_id in parcel.seen:
        return state, []
    state = _seen(state, parcel, report.event_id)
    match report.kind:
        case "short":
            missing = without(parcel.contents, without(parcel.contents, report.lines))
            after = state.with_parcel(parcel.shipment_id, short=(*parcel.short, *missing))
            called_back = parcel.status == "called_back"
            sends = [*(_short(report, missing) if missing else ()), *_not_in_it(report, parcel)]
            return _gone(after, parcel.shipment_id) if called_back else after, sends
        case "cancelled" if parcel.status == "called_back":
            return state.without_parcel(parcel.shipment_id), []
        case "cancelled" if parcel.at_home:
            return state, [_pick_cancelled(f"pick:{parcel.shipment_id}", parcel.shipment_id)]
        case "picked" if parcel.status == "planned":
            return state, [_update(parcel.shipment_id, "picked")]
        case "packed" if parcel.status == "planned" and parcel.contents and not parcel.announced:
            asked = {"status": "packed", "booking": "asked"}
            book = Send("shipping.commands", f"book:{parcel.shipment_id}", _booking(state, parcel))
            return state.with_parcel(parcel.shipment_id, **asked), [_update(parcel.shipment_id, "packed"), book]
        case _:
            return state, []


def _gone(state: Fulfilment, shipment_id: str) -> Fulfilment:
    """A parcel that was called back, and of which the warehouse found nothing, needs no further word."""
    parcel = state.parcel(shipment_id)
    return state if parcel and parcel.contents else state.without_parcel(shipment_id)


def _short(report: g.WarehouseReported, missing: tuple[ShipmentLine, ...]) -> list[Send]:
    """The order cancels the units if it still wants them; for the stock they are lost in any case."""
    name = f"warehouse:{report.event_id}"
    sends = [Send("order.internal", name, c.ShortItems(shipment_id=report.shipment_id, lines=missing))]
    for x in missing:
        lost = i.LoseStock(line_id=x.line_id, sku=x.sku, pool=POOL, quantity=x.quantity, cause_id=report.event_id)
        sends.append(Send("inventory.commands", f"{name}:{x.line_id}", lost))
    return sends


def _not_in_it(report: g.WarehouseReported, parcel: Parcel) -> list[Send]:
    """Nothing is cancelled for these units; what the warehouse has in its hands, a person has to find out."""
    beyond = without(report.lines, parcel.contents)
    if not beyond:
        return []
    name, units = f"short:{report.event_id}", ", ".join(f"{x.quantity} × {x.sku}" for x in beyond)
    opened = ExceptionOpened(
        exception_id=name,
        kind="warehouse_contradiction",
        owner=OWNER,
        detail=f"The warehouse misses what is not in the parcel: {units}.",
        facts={"shipment_id": parcel.shipment_id},
    )
    return [Send("exceptions", f"raise:{name}", opened)]


def _stray(report: g.WarehouseReported) -> Send:
    """About a parcel that we never had picked: the order will say that there is no such shipment."""
    if report.kind == "cancelled":
        return _pick_cancelled(f"pick:{report.event_id}", report.shipment_id)
    return _update(report.shipment_id, report.kind)


def _update(shipment_id: str, status: str) -> Send:
    update = c.UpdateShipment(shipment_id=shipment_id, status=status)
    return Send("order.internal", f"{status}:{shipment_id}", update)


def _pick_cancelled(name: str, shipment_id: str) -> Send:
    opened = ExceptionOpened(
        exception_id=name,
        kind="pick_cancelled",
        owner=OWNER,
        detail="The warehouse cancelled a parcel that nobody asked it to cancel.",
        facts={"shipment_id": shipment_id},
    )
    return Send("exceptions", f"raise:{name}", opened)


def carrier(state: Fulfilment, report: g.CarrierReported) -> Step:
    """A parcel's reports wait for the result of its booking, which has the carrier's name and the tracking link. One
    that nobody of ours has booked is not waited for."""
    if report.kind == "return_received" or report.reference.startswith("RMA-"):
        return state, []
    parcel = state.parcel(report.reference)
    if parcel is None:
        forward = report.kind not in ("in_transit", "out_for_delivery") or state.imported
        return state, [_fact(report, None)] if forward else []
    if report.event_id in parcel.seen:
        return state, []
    state = _seen(state, parcel, report.event_id)
    if parcel.status == "called_back" and report.kind == "returned" and not parcel.announced:
        return state.with_parcel(parcel.shipment_id, status="back", lines=(), short=(), waiting=()), []
    if parcel.status == "back":
        return state, [_fact(report, parcel)] if report.kind == "delivered" else []
    if parcel.booking == "asked" and not parcel.announced and len(parcel.waiting) < PATIENCE:
        return state.with_parcel(parcel.shipment_id, waiting=(*parcel.waiting, report)), []
    return _told(state, report)


def _told(state: Fulfilment, report: g.CarrierReported) -> Step:
    """The order hears of it; before anything else, that the parcel has left. News from before a failed attempt are
    none."""
    parcel = state.parcel(report.reference)
    if parcel is None:
        return state, []
    if parcel.failed_at is not None and report.kind in NEWS and report.occurred_at < parcel.failed_at:
        return state, []
    sends = []
    if not parcel.announced:
        sends.append(Send("order.internal", f"shipped:{parcel.shipment_id}", _shipped(report, parcel)))
    if parcel.announced or report.kind != "shipped":
        sends.append(_fact(report, parcel))
    changes: dict[str, object] = {"announced": True}
    if report.kind == "failed_attempt":
        changes |= {"attempts": _attempt(report, parcel), "failed_at": report.occurred_at}
    return state.with_parcel(parcel.shipment_id, **changes), sends


def _fact(report: g.CarrierReported, parcel: Parcel | None) -> Send:
    shipment_id = report.reference
    payload: Payload
    match report.kind:
        case "shipped":
            payload = _shipped(report, parcel)
        case "in_transit" | "out_for_delivery":
            payload = c.UpdateShipment(
                shipment_id=shipment_id,
                status=report.kind,
                estimated_delivery=report.estimated_delivery,
                detail=report.detail,
            )
        case "failed_attempt":
            payload = c.FailDelivery(
                shipment_id=shipment_id,
                attempt=_attempt(report, parcel),
                reason=report.detail or "not said",
                estimated_delivery=report.estimated_delivery,
            )
        case "delivered":
            payload = c.DeliverShipment(shipment_id=shipment_id)
        case "lost":
            payload = c.LoseShipment(shipment_id=shipment_id, reason="lost")
        case "returned":
            payload = c.LoseShipment(shipment_id=shipment_id, reason="undeliverable")
        case other:
            raise ValueError(f"a carrier can't report {other!r}")
    return Send("order.internal", f"carrier:{report.event_id}", payload)


def _shipped(report: g.CarrierReported, parcel: Parcel | None) -> c.ShipShipment:
    return c.ShipShipment(
        shipment_id=report.reference,
        carrier=parcel.carrier if parcel else "",
        tracking_number=(parcel.tracking_number if parcel else "") or report.tracking_number,
        tracking_url=parcel.tracking_url if parcel else "",
        estimated_delivery=report.estimated_delivery or (parcel.estimated_delivery if parcel else None),
    )


def _attempt(report: g.CarrierReported, parcel: Parcel | None) -> int:
    """Carriers that don't count their attempts are counted for."""
    return report.attempt or (parcel.attempts if parcel else 0) + 1


def _seen(state: Fulfilment, parcel: Parcel, event_id: str) -> Fulfilment:
    return state.with_parcel(parcel.shipment_id, seen=(*parcel.seen, event_id)[-SEEN:])


# Refusals


def rejected(state: Fulfilment, refusal: CommandRejected) -> Step:
    if refusal.actor != ACTOR:
        return state, []
    asked = next((p for p in state.parcels if p.status == "asked"), None)
    planned = asked is not None and refusal.command_id == message_id(state.order_id, plan_name(asked.shipment_id))
    if asked is not None and planned:
        state = state.without_parcel(asked.shipment_id)
        state = state.model_copy(update={"wait_for": max(state.wait_for, refusal.version)})
    sends = _raise(refusal)
    if refusal.rejection.type == "shipment-cancelled" and sends:  # nothing in it is wanted any more
        state = state.without_parcel(refusal.rejection.extra.get("shipment_id", ""))
    return state, sends


def about_nothing(cause: Cause) -> list[Send]:
    """Something about an order that nobody has paid: the order will say that there is no such shipment."""
    match cause.data:
        case CommandRejected() as refusal if refusal.actor == ACTOR:
            return _raise(refusal)
        case g.CarrierReported() as report:
            ours = report.kind != "return_received" and not report.reference.startswith("RMA-")
            return [_fact(report, None)] if ours else []
        case g.WarehouseReported(kind="short") as report:
            return _short(report, report.lines)[:1]
        case g.WarehouseReported() as report:
            return [_stray(report)]
        case _:
            return []


def _raise(refusal: CommandRejected) -> list[Send]:
    kind, type = refusal.command, refusal.rejection.type
    if type in ("shipment-of-ended-order", "shipment-cancelled"):
        # It left all the same. What was only picked or planned is called back by the event that the order went by.
        if kind not in ("ShipShipment", "FailDelivery", "DeliverShipment"):
            return []
        shipment_id = refusal.rejection.extra.get("shipment_id", "")
        opened = ExceptionOpened(
            exception_id=f"shipped_after_cancel:{shipment_id}",
            kind="shipped_after_cancel",
            owner=OWNER,
            detail=f"A cancelled parcel is with the carrier. {refusal.rejection.detail}",
            facts={"shipment_id": shipment_id, "status": refusal.status or ""},
        )
        return [Send("exceptions", f"raise:{opened.exception_id}", opened)]
    if kind == "PlanShipment" and type in ("units-not-to-ship", "cannot-plan-shipment"):
        return []  # an event that the saga has not heard yet tells it why
    if kind == "CancelOrder" and refusal.status == OrderStatus.CANCELLED:
        return []
    name = f"refused:{refusal.command_id}"
    facts = {"command_id": refusal.command_id, "type": type, **refusal.rejection.extra}
    opened = ExceptionOpened(
        exception_id=name,
        kind="saga_command_refused",
        owner=OWNER,
        detail=f"{kind} was refused: {refusal.rejection.detail}",
        facts=facts,
    )
    return [Send("exceptions", f"raise:{name}", opened)]
