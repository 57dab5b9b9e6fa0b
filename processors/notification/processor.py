"""The notices processor: events of orders in, messages to customers out. State under an order id: `known`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from uuid_utils import NAMESPACE_URL, uuid5

from processors.kit import Handler, Incoming, Outgoing, State
from processors.notification.notices import Known, evolve, notice
from processors.shapes import Shape
from schemas.base import Event, Message
from schemas.policy import Policy

ACTOR = "system:notices"
KNOWN = Shape(Known)


def handler(_: Policy) -> Handler:
    """The handler for `runtime.streams` and the simulation."""
    return handle


def handle(state: State, incoming: Incoming) -> Iterable[Outgoing]:
    event = incoming.message
    if not isinstance(event, Event):
        raise TypeError(f"{type(event.data).__name__} is no event of an order")
    before = KNOWN.load(state, "known")
    known = evolve(before, event)
    if known is not None and known is not before:
        KNOWN.save(state, "known", known)
    found = notice(known, event)
    if found is None:
        return []
    message: Message[Any] = Message(
        id=str(uuid5(NAMESPACE_URL, f"oms:notice:{event.id}")),
        at=event.occurred_at,
        actor=ACTOR,
        correlation_id=event.correlation_id,
        causation_id=event.id,
        order_id=event.order_id,
        data=found,
    )
    return [Outgoing("notification.commands", found.customer_id, message)]
