"""The fulfilment saga, pure: wait until the order can't be changed any more → have parcels picked, packed and fetched →
tell the order what warehouse and carrier report, until everything has arrived or will never come.

`step` says what a message means for the fulfilment and what has to be sent because of it. The topics that it joins keep
no order among each other, so it is right under any interleaving; a repeated message changes nothing that matters, and
what it sends has the ids of the first time. What the order decides is known by its events only: the saga asks, and the
order may refuse, because it has heard of something that the saga has not.

After its end a fulfilment stays as a tombstone; what is reported then goes to the order, which knows whether that is a
repeat or a parcel that should not exist.
"""

from __future__ import annotations

from typing import Any

from processors.fulfilment import orders, outside
from processors.fulfilment.model import Cause, Fulfilment, Send
from processors.fulfilment.planning import plan
from schemas import inventory as i
from schemas import logistics as g
from schemas.base import Event, Message
from schemas.policy import Policy
from schemas.replies import CommandRejected


def step(state: Fulfilment | None, cause: Cause, policy: Policy) -> tuple[Fulfilment | None, list[Send]]:
    """The fulfilment after the message, and what to send."""
    if isinstance(cause, Event):
        return _event(state, cause, policy)
    order_id = cause.order_id
    if order_id is None:
        raise ValueError(f"a {type(cause.data).__name__} belongs to an order")
    if state is None:
        return None, outside.about_nothing(cause)
    after, sends = _message(state, cause)
    return _onward(after, sends, policy)


def _event(state: Fulfilment | None, event: Event[Any], policy: Policy) -> tuple[Fulfilment | None, list[Send]]:
    if state is None:
        state = orders.begin(event)
        if state is None:
            return None, [] if event.imported else orders.watch_unpaid(event, policy)
    elif event.version <= state.version:
        return state, []
    before = state
    if event.imported and not state.imported:
        state = state.model_copy(update={"imported": True})
    after, sends = orders.heard(state, event, policy)
    after = after.model_copy(update={"version": event.version})
    after, planned = plan(after, policy.fulfilment)
    sends = _of_ours(after, [*sends, *planned])
    after, about_time = orders.watch(before, after, event, policy)
    return after, [] if event.imported else [*sends, *about_time]


def _message(state: Fulfilment, cause: Message[Any]) -> tuple[Fulfilment, list[Send]]:
    match cause.data:
        case i.StockReserved() | i.StockAllocated() | i.StockRefused() as answer:
            return outside.stock(state, answer)
        case g.ShipmentBooked() | g.BookingFailed() as booking:
            return outside.booked(state, booking)
        case g.WarehouseReported() as report:
            return outside.warehouse(state, report)
        case g.CarrierReported() as report:
            return outside.carrier(state, report)
        case CommandRejected() as rejected:
            return outside.rejected(state, rejected)
        case _:
            return state, []


def _onward(state: Fulfilment, sends: list[Send], policy: Policy) -> tuple[Fulfilment, list[Send]]:
    after, planned = plan(state, policy.fulfilment)
    return after, _of_ours(after, [*sends, *planned])


def _of_ours(state: Fulfilment, sends: list[Send]) -> list[Send]:
    """An imported order's goods are somebody else's: the order hears what is reported, and that is all."""
    if not state.imported:
        return sends
    return [send for send in sends if send.topic in ("order.internal", "exceptions")]
