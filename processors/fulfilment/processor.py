"""The fulfilment processor: runs the saga on its joined topics. State under an order id: `fulfilment`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from processors.fulfilment.model import ACTOR, Cause, Fulfilment, Send, message_id
from processors.fulfilment.saga import step
from processors.kit import Handler, Incoming, Outgoing, State
from processors.shapes import Shape
from schemas.base import Command, Event, Message, Payload
from schemas.codec import encode
from schemas.inventory import CommitStock, LoseStock, ReserveStock, RestockStock
from schemas.operations import ExceptionOpened
from schemas.policy import Policy
from schemas.timers import shard_of

FULFILMENT = Shape(Fulfilment)


def handler(policy: Policy) -> Handler:
    """The handler for `runtime.streams` and the simulation."""

    def handle(state: State, incoming: Incoming) -> Iterable[Outgoing]:
        cause = incoming.message
        if isinstance(cause, Command):
            raise TypeError(f"a saga hears of what happened; {type(cause.data).__name__} is a command")
        before = FULFILMENT.load(state, "fulfilment")
        after, sends = step(before, cause, policy)
        if after is not None and after != before:
            FULFILMENT.save(state, "fulfilment", after)
        return [_outgoing(send, incoming.key, cause) for send in sends]

    return handle


def _outgoing(send: Send, order_id: str, cause: Cause) -> Outgoing:
    envelope: type[Command[Any] | Message[Any]] = Command if send.topic == "order.internal" else Message
    message: Command[Any] | Message[Any] = envelope(
        id=message_id(order_id, send.name),
        order_id=order_id,
        at=cause.occurred_at if isinstance(cause, Event) else cause.at,
        actor=ACTOR,
        correlation_id=cause.correlation_id,
        causation_id=cause.id,
        data=_payload(send, order_id, cause),
    )
    return Outgoing(send.topic, _key(send, order_id), message)


def _payload(send: Send, order_id: str, cause: Cause) -> Payload:
    """An exception carries what to send again, encoded."""
    if send.retry is None or not isinstance(send.payload, ExceptionOpened):
        return send.payload
    again = _outgoing(send.retry, order_id, cause)
    retry = {"retry_topic": again.topic, "retry_key": again.key, "retry": encode(again.message)}
    return send.payload.model_copy(update=retry)


def _key(send: Send, order_id: str) -> str:
    if isinstance(send.payload, ReserveStock | CommitStock | LoseStock | RestockStock):
        return f"{send.payload.sku}#{send.payload.pool}"
    return shard_of(order_id) if send.topic == "timer.commands" else order_id
