"""The placement processor: runs the saga on its joined topics. State under an order id: `placement`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from processors.kit import Handler, Incoming, Outgoing, State
from processors.placement.saga import Placement, Send, evolve, react
from processors.shapes import Shape
from schemas.base import Command, Event, Message
from schemas.inventory import CommitStock, ReleaseStock, ReserveStock
from schemas.policy import Policy
from schemas.timers import shard_of

ACTOR = "system:placement"
PLACEMENT = Shape(Placement)


def handler(policy: Policy) -> Handler:
    """The handler for `runtime.streams` and the simulation."""

    def handle(state: State, incoming: Incoming) -> Iterable[Outgoing]:
        cause = incoming.message
        if isinstance(cause, Command):
            raise TypeError(f"a saga hears of what happened; {type(cause.data).__name__} is a command")
        before = PLACEMENT.load(state, "placement")
        after = evolve(before, cause)
        if after is not None and after is not before:
            PLACEMENT.save(state, "placement", after)
        return [_outgoing(send, incoming.key, cause) for send in react(before, after, cause, policy.payment)]

    return handle


def _outgoing(send: Send, order_id: str, cause: Event[Any] | Message[Any]) -> Outgoing:
    envelope: type[Command[Any] | Message[Any]] = Command if send.topic == "order.internal" else Message
    message: Command[Any] | Message[Any] = envelope(
        id=str(uuid5(NAMESPACE_URL, f"oms:placement:{order_id}:{send.name}")),
        order_id=order_id,
        at=cause.occurred_at if isinstance(cause, Event) else cause.at,
        actor=ACTOR,
        correlation_id=cause.correlation_id,
        causation_id=cause.id,
        data=send.payload,
    )
    return Outgoing(send.topic, _key(send, order_id), message)


def _key(send: Send, order_id: str) -> str:
    if isinstance(send.payload, ReserveStock | ReleaseStock | CommitStock):
        return f"{send.payload.sku}#{send.payload.pool}"
    return shard_of(order_id) if send.topic == "timer.commands" else order_id
