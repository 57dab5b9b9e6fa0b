"""What the order's events mean for its fulfilment. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from processors.fulfilment.model import OWNER, POOL, Fulfilment, Item, Parcel, Send, Step
from processors.fulfilment.planning import free
from processors.order.parcels import overfull, units, without
from schemas import events as e
from schemas import inventory as i
from schemas import logistics as g
from schemas.base import Event, Instant
from schemas.operations import ExceptionOpened, ExceptionResolved
from schemas.order import CancellationReason, Line, Order, OrderStatus, ShipmentLine
from schemas.policy import Policy
from schemas.timers import CancelTimer, SetTimer


def begin(event: Event[Any]) -> Fulfilment | None:
    """There is something to fulfil once an order is paid, and to remember once it is stuck before that."""
    match event.data:
        case e.OrderImported(order=order) if order is not None:
            return _imported(order, event.version)
        case e.OrderPaymentConfirmed(purpose="order") | e.OrderStuck():
            return Fulfilment(order_id=event.order_id)
        case _:
            return None


def _imported(order: Order, version: int) -> Fulfilment | None:
    """What its events, told one by one, would have left (tests/domain/test_importing.py compares them): an order that
    was never paid is not ours yet, and of one that came to its end a tombstone stays."""
    paid = next((payment for payment in order.payments if payment.status == "captured"), None)
    if paid is None:
        return None
    begun = Fulfilment(order_id=order.order_id, status=order.status, version=version, imported=True)
    if order.status == OrderStatus.CANCELLED:
        return begun.model_copy(update={"phase": "ended"})
    if order.delivered_at is not None:
        return begun.model_copy(update={"phase": "ended", "status": OrderStatus.DELIVERED})
    begun = begun.model_copy(update={"begin_at": order.modifiable_until or paid.settled_at})
    if order.status == OrderStatus.PAYMENT_CONFIRMED:
        return begun
    return begun.model_copy(
        update={
            "phase": "processing",
            "items": tuple(_item(line, version).model_copy(update={"shipped": line.shipped}) for line in order.lines),
            "address": order.shipping_address,
            "shipping_method": order.shipping_method,
            "customer_id": order.customer_id,
            "currency": order.currency,
            "incoterm": order.incoterm,
        }
    )


def heard(state: Fulfilment, event: Event[Any], policy: Policy) -> Step:
    match event.data:
        case e.OrderPaymentConfirmed(purpose="order", modifiable_until=until) if state.phase == "waiting":
            due = until or event.occurred_at
            paid = _at(state.model_copy(update={"begin_at": due}), OrderStatus.PAYMENT_CONFIRMED)
            return paid, [_begin_timer(state.order_id, due, event.version)]
        case e.OrderEditCompleted() | e.OrderEditFailed() | e.OrderReleased():
            # The timer may have fired while the edit or the hold stood in the way.
            if state.phase != "waiting" or state.begin_at is None:
                return state, []
            return state, [_begin_timer(state.order_id, state.begin_at, event.version)]
        case e.OrderProcessingStarted() as started if state.phase == "waiting":
            return _processing(state, started, event.version)
        case e.OrderShipmentPlanned(shipment_id=shipment_id) if state.parcel(shipment_id):
            planned = state.with_parcel(shipment_id, status="planned")
            return planned, [Send("warehouse.commands", f"pick:{shipment_id}", _pick(planned, shipment_id))]
        case e.OrderShipmentDispatched() as sent:
            return _dispatched(state, sent, event.version)
        case e.OrderShipped():
            return _at(state, OrderStatus.SHIPPED), []
        case e.OrderDeliveryFailed() as failed:
            return _not_shipped(state), _try_again(state, failed, event.occurred_at, policy.fulfilment.redeliver_after)
        case e.OrderShipmentDelivered(shipment_id=shipment_id):
            return state.without_parcel(shipment_id), _no_redelivery(state, shipment_id)
        case e.OrderShipmentLost() as lost:
            return _lost(_not_shipped(state), lost, event.version)
        case e.OrderItemsCancelled() as cancelled:
            return _items_cancelled(state, cancelled, event.version)
        case e.OrderDelivered():
            return _ended(state, OrderStatus.DELIVERED), []
        case e.OrderCancelled():
            return _ended(state, OrderStatus.CANCELLED), _called_off(state)
        case e.OrderRefundRequested(rma=rma):
            return _asked_for(state, rma), []
        case e.OrderRefundInitiated(refund_id=refund_id, rma=rma) if state.status in _ARRIVED:
            return _asked_for(state, refund_id, instead_of=rma), []
        case e.OrderRefundDenied(rma=rma) | e.OrderReturnExpired(rma=rma):
            return _settled(state, rma), []
        case e.OrderReturnInspected(rma=rma, amount=0):
            return _settled(state, rma), []
        case e.OrderRefundCompleted(refund_id=refund_id):
            return _settled(state, refund_id), []
        case e.OrderStuck(status=status):
            return _stuck(state, status, event.version)
        case _:
            return state, []


def _begin_timer(order_id: str, due: Instant, version: int) -> Send:
    """Each has an id of its own: one that is set anew must not move one that is still to fire."""
    timer = SetTimer(
        timer_id=f"{order_id}:begin_fulfilment:{version}",
        kind="begin_fulfilment",
        due_at=due,
        generation=str(version),
    )
    return Send("timer.commands", f"begin:{version}", timer)


def watch(before: Fulfilment, after: Fulfilment, event: Event[Any], policy: Policy) -> Step:
    """One timer asks, after each change of status, whether the order is stuck in it. An exception that said so is over
    with the status."""
    if after.status == before.status:
        return after, []
    sends = _stuck_timer(before.status, after.status, event, policy)
    if after.stuck is not None:
        resolved = ExceptionResolved(exception_id=after.stuck, resolution=f"the order is {after.status} now")
        sends.append(Send("exceptions", f"resolve:{after.stuck}", resolved))
        after = after.model_copy(update={"stuck": None})
    return after, sends


def watch_unpaid(event: Event[Any], policy: Policy) -> list[Send]:
    """The same for an order of which nothing is known here: most are paid in a moment, so no state is kept of them. A
    hold takes away the payment's deadline, and nothing else would end the wait."""
    match event.data:
        case e.OrderSubmitted():
            return _stuck_timer(OrderStatus.DRAFT, OrderStatus.PENDING_PAYMENT, event, policy)
        case e.OrderCancelled(reason=reason) if reason != CancellationReason.ABANDONED:  # a draft, never submitted
            return _stuck_timer(OrderStatus.PENDING_PAYMENT, OrderStatus.CANCELLED, event, policy)
        case _:
            return []


def _stuck_timer(before: str, after: str, event: Event[Any], policy: Policy) -> list[Send]:
    timer_id, watched = f"{event.order_id}:stuck", policy.deadlines.stuck_after
    if patience := watched.get(OrderStatus(after)):
        timer = SetTimer(
            timer_id=timer_id,
            kind="stuck",
            due_at=event.occurred_at + patience,
            generation=str(event.version),
            args={"status": after, "version": str(event.version)},
        )
        return [Send("timer.commands", f"stuck:{event.version}", timer)]
    if before in watched:
        return [Send("timer.commands", f"stuck:{event.version}", CancelTimer(timer_id=timer_id))]
    return []


def _at(state: Fulfilment, status: str) -> Fulfilment:
    return state.model_copy(update={"status": status})


_ARRIVED = (OrderStatus.DELIVERED, OrderStatus.REFUND_REQUESTED)


def _asked_for(state: Fulfilment, name: str, instead_of: str | None = None) -> Fulfilment:
    """A return, or the refund that it led to. While there is one, the order is REFUND_REQUESTED."""
    asked = (*(x for x in state.asked if x not in (name, instead_of)), name)
    return _at(state, OrderStatus.REFUND_REQUESTED).model_copy(update={"asked": asked})


def _settled(state: Fulfilment, name: str) -> Fulfilment:
    if name not in state.asked:
        return state
    asked = tuple(x for x in state.asked if x != name)
    status = OrderStatus.REFUND_REQUESTED if asked else OrderStatus.DELIVERED
    return _at(state, status).model_copy(update={"asked": asked})


def _not_shipped(state: Fulfilment) -> Fulfilment:
    return _at(state, OrderStatus.PROCESSING) if state.status == OrderStatus.SHIPPED else state


def _ended(state: Fulfilment, status: str) -> Fulfilment:
    """What a tombstone keeps."""
    return Fulfilment(
        order_id=state.order_id,
        phase="ended",
        status=status,
        version=state.version,
        count=state.count,
        stuck=state.stuck,
        imported=state.imported,
    )


def _processing(state: Fulfilment, started: e.OrderProcessingStarted, version: int) -> Step:
    """Lines that may be back-ordered are asked for anew, in the same quantity: the answer says what is missing."""
    after = state.model_copy(
        update={
            "phase": "processing",
            "status": OrderStatus.PROCESSING,
            "items": tuple(_item(line, version) for line in started.lines if line.quantity > line.cancelled),
            "address": started.shipping_address,
            "shipping_method": started.shipping_method,
            "customer_id": started.customer_id or "",
            "currency": started.currency or "",
            "incoterm": started.incoterm,
        }
    )
    return after, [_reserve(item, version) for item in after.items if item.pending]


def _item(line: Line, version: int) -> Item:
    return Item(
        line_id=line.line_id,
        sku=line.sku,
        name=line.name,
        weight_grams=line.weight_grams,
        quantity=line.quantity,
        net=line.line_total - line.discount,
        cancelled=line.cancelled,
        wanted=line.quantity - line.cancelled,
        pending=line.quantity - line.cancelled if line.backorder else 0,
        asked=version,
        backorder=line.backorder,
        hs_code=line.hs_code,
        origin=line.origin,
    )


def _reserve(item: Item, version: int) -> Send:
    ask = i.ReserveStock(
        line_id=item.line_id,
        sku=item.sku,
        pool=POOL,
        quantity=item.wanted,
        order_version=version,
        backorder=item.backorder,
    )
    return Send("inventory.commands", f"reserve:{item.line_id}:{version}", ask)


def _pick(state: Fulfilment, shipment_id: str) -> g.PickShipment:
    parcel = state.parcel(shipment_id)
    items = {item.line_id: item for item in state.items}
    return g.PickShipment(
        shipment_id=shipment_id,
        lines=tuple(
            g.Picked(
                line_id=x.line_id,
                sku=x.sku,
                name=items[x.line_id].name,
                quantity=x.quantity,
                weight_grams=items[x.line_id].weight_grams,
            )
            for x in (parcel.lines if parcel else ())
        ),
    )


def _dispatched(state: Fulfilment, sent: e.OrderShipmentDispatched, version: int) -> Step:
    parcel = state.parcel(sent.shipment_id)
    state = state.with_parcel(sent.shipment_id, status="out", announced=True, lines=sent.lines, short=())
    if sent.redelivery:
        return state, _no_redelivery(state, sent.shipment_id)
    for x in sent.lines:
        state = _count(state, x, shipped=1)
    left, extra, sends = sent.lines, {}, []
    if parcel is not None and parcel.status == "called_back":
        left, too_much = parcel.contents, without(parcel.contents, sent.lines)
        extra = units(too_much)
        state = state.with_parcel(parcel.shipment_id, extra=too_much)
        sends.append(_left_all_the_same(parcel.shipment_id, too_much))
    for x in left:
        commit = i.CommitStock(
            line_id=x.line_id,
            sku=x.sku,
            pool=POOL,
            order_version=version,
            quantity=x.quantity,
            shipment_id=sent.shipment_id,
            extra=extra.get(x.line_id, 0),
        )
        sends.append(Send("inventory.commands", f"commit:{sent.shipment_id}:{x.line_id}", commit))
    return state, sends


def _left_all_the_same(shipment_id: str, extra: tuple[ShipmentLine, ...]) -> Send:
    """A parcel was called back too late: what was cancelled in it is with the carrier too."""
    units = ", ".join(f"{x.quantity} × {x.sku}" for x in extra)
    opened = ExceptionOpened(
        exception_id=f"shipped_after_cancel:{shipment_id}",
        kind="shipped_after_cancel",
        owner=OWNER,
        detail=f"Cancelled units are with the carrier: {units}.",
        facts={"shipment_id": shipment_id},
    )
    return Send("exceptions", f"raise:{opened.exception_id}", opened)


def _try_again(state: Fulfilment, failed: e.OrderDeliveryFailed, at: Instant, wait: timedelta) -> list[Send]:
    if failed.final:
        bring_back = g.CancelShipment(shipment_id=failed.shipment_id)
        return [Send("shipping.commands", f"bring back:{failed.shipment_id}", bring_back)]
    timer = SetTimer(
        timer_id=_redelivery(state, failed.shipment_id),
        kind="redelivery",
        due_at=at + wait,
        generation=f"{failed.shipment_id}:{failed.attempt + 1}",
        args={"shipment_id": failed.shipment_id, "attempt": str(failed.attempt + 1)},
    )
    return [Send("timer.commands", f"redelivery:{failed.shipment_id}:{failed.attempt}", timer)]


def _no_redelivery(state: Fulfilment, shipment_id: str) -> list[Send]:
    """Only when there was a failed attempt, after which somebody would try again."""
    parcel = state.parcel(shipment_id)
    if parcel is None or not parcel.attempts:
        return []
    name = f"redelivery:{shipment_id}:{parcel.attempts}:cancel"
    return [Send("timer.commands", name, CancelTimer(timer_id=_redelivery(state, shipment_id)))]


def _redelivery(state: Fulfilment, shipment_id: str) -> str:
    return f"{state.order_id}:redelivery:{shipment_id}"


def _lost(state: Fulfilment, lost: e.OrderShipmentLost, version: int) -> Step:
    """What came back can be sold again; what is sent again needs stock again. What isn't sent again stays shipped until
    the event that cancels it, which comes next: it is not to be planned between the two."""
    sends = _no_redelivery(state, lost.shipment_id)
    if lost.reason != "lost":
        sends += _back_again(state, lost)
    state = state.without_parcel(lost.shipment_id)
    for x in lost.lines:
        item = state.item(x.line_id)
        if lost.reship and item is not None:
            again = {
                "shipped": item.shipped - x.quantity,
                "wanted": item.wanted + x.quantity,
                "pending": item.pending + x.quantity,
                "asked": version,
            }
            state = state.with_item(x.line_id, **again)
            sends.append(_reserve(item.model_copy(update=again), version))
    return state, sends


def _back_again(state: Fulfilment, lost: e.OrderShipmentLost) -> list[Send]:
    """Also what was cancelled too late: nobody has to look after that any more."""
    shipment_id = lost.shipment_id
    parcel = state.parcel(shipment_id)
    extra = parcel.extra if parcel else ()
    count = units((*lost.lines, *extra))
    skus = {x.line_id: x.sku for x in (*lost.lines, *extra)}
    sends = []
    for line_id, quantity in count.items():
        back = i.RestockStock(
            line_id=line_id, sku=skus[line_id], pool=POOL, quantity=quantity, cause_id=shipment_id, restock=True
        )
        sends.append(Send("inventory.commands", f"restock:{shipment_id}:{line_id}", back))
    if extra:
        name = f"shipped_after_cancel:{shipment_id}"
        resolved = ExceptionResolved(exception_id=name, resolution="it came back")
        sends.append(Send("exceptions", f"resolve:{name}", resolved))
    return sends


def _items_cancelled(state: Fulfilment, cancelled: e.OrderItemsCancelled, version: int) -> Step:
    plain = cancelled.shipment_id is None
    lost = not plain and cancelled.reason in (CancellationReason.LOST, CancellationReason.UNDELIVERABLE)
    for x in cancelled.lines:
        state = _count(state, x, cancelled=1, wanted=0 if lost else -1, shipped=-1 if lost else 0)
    parcel = state.parcel(cancelled.shipment_id or "")
    if parcel is not None and parcel.status != "out":
        left = without(parcel.lines, cancelled.lines)
        state = (
            state.with_parcel(parcel.shipment_id, lines=left, short=without(parcel.short, cancelled.lines))
            if left
            else state.without_parcel(parcel.shipment_id)
        )
    state, calls = _call_back(state)
    state, asks = _asked_anew(state, cancelled, version) if plain else (state, [])
    return state, [*calls, *asks]


def _asked_anew(state: Fulfilment, cancelled: e.OrderItemsCancelled, version: int) -> Step:
    """Placement lowers what is reserved. Of a line of which some is not there, stock is asked what is missing now."""
    sends = []
    for line_id in {x.line_id: None for x in cancelled.lines}:
        item = state.item(line_id)
        if item is None or not (item.backorder or item.missing or item.pending):
            continue
        if item.to_ship <= 0:
            state = state.with_item(line_id, missing=0, pending=0)
            continue
        state = state.with_item(line_id, missing=0, pending=max(0, free(state, item)), asked=version)
        sends.append(_reserve(item, version))
    return state, sends


def _call_back(state: Fulfilment) -> Step:
    """Parcels that hold units which were cancelled. What else is in them is planned anew, once the warehouse says that
    they are cancelled, or the carrier that they came back; at once where the warehouse has found nothing anyway."""
    home = [(parcel.shipment_id, parcel.lines) for parcel in state.parcels if parcel.at_home]
    back = overfull(home, {item.line_id: item.to_ship for item in state.items})
    sends = []
    for parcel in state.parcels:
        if parcel.shipment_id in back and not parcel.contents:
            state = state.without_parcel(parcel.shipment_id)
        elif parcel.shipment_id in back:
            sends += _cancel_parcel(parcel)
            state = state.with_parcel(parcel.shipment_id, status="called_back")
    return state, sends


def _called_off(state: Fulfilment) -> list[Send]:
    """The order is cancelled: whatever is under way is to stop."""
    stays = ("asked", "back")
    sends = [send for parcel in state.parcels if parcel.status not in stays for send in _cancel_parcel(parcel)]
    for parcel in state.parcels:
        sends += _no_redelivery(state, parcel.shipment_id)
    return sends


def _cancel_parcel(parcel: Parcel) -> list[Send]:
    sends = []
    if parcel.booking != "none" or parcel.status == "out":
        carrier = g.CancelShipment(shipment_id=parcel.shipment_id)
        sends.append(Send("shipping.commands", f"cancel shipment:{parcel.shipment_id}", carrier))
    if parcel.status != "out":
        warehouse = g.CancelPick(shipment_id=parcel.shipment_id)
        sends.append(Send("warehouse.commands", f"cancel pick:{parcel.shipment_id}", warehouse))
    return sends


def _count(state: Fulfilment, x: ShipmentLine, **signs: int) -> Fulfilment:
    item = state.item(x.line_id)
    if item is None:
        return state
    return state.with_item(x.line_id, **{name: getattr(item, name) + n * x.quantity for name, n in signs.items()})


def _stuck(state: Fulfilment, status: str, version: int) -> Step:
    name = f"stuck:{status}:{version}"
    opened = ExceptionOpened(
        exception_id=name,
        kind="order_stuck",
        owner=OWNER,
        detail=f"The order has been {status} for longer than policy allows.",
        facts={"status": status},
    )
    return state.model_copy(update={"stuck": name}), [Send("exceptions", f"raise:{name}", opened)]
