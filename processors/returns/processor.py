"""The returns processor: runs the saga on its joined topics. State under an order id: `returns`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from uuid_utils import NAMESPACE_URL, uuid5

from processors.kit import Handler, Incoming, Outgoing, State
from processors.returns.saga import ACTOR, Returns, Send, evolve, react
from processors.shapes import Shape
from schemas.base import Command, Event, Message
from schemas.codec import encode
from schemas.inventory import RestockStock
from schemas.operations import ExceptionOpened
from schemas.policy import Policy
from schemas.timers import shard_of

RETURNS = Shape(Returns)


def handler(_: Policy) -> Handler:
    """The handler for `runtime.streams` and the simulation."""

    def handle(state: State, incoming: Incoming) -> Iterable[Outgoing]:
        cause = incoming.message
        if isinstance(cause, Command):
            raise TypeError(f"a saga hears of what happened; {type(cause.data).__name__} is a command")
        before = RETURNS.load(state, "returns")
        after = evolve(before, cause)
        if after is not None and after is not before:
            RETURNS.save(state, "returns", after)
        return [_outgoing(send, incoming.key, cause) for send in react(before, after, cause)]

    return handle


def _outgoing(send: Send, order_id: str, cause: Event[Any] | Message[Any]) -> Outgoing:
    payload = send.payload
    if send.retry is not None and isinstance(payload, ExceptionOpened):
        again = _outgoing(send.retry, order_id, cause)
        retry = {"retry_topic": again.topic, "retry_key": again.key, "retry": encode(again.message)}
        payload = payload.model_copy(update=retry)
    about = send.order_id or order_id
    envelope: type[Command[Any] | Message[Any]] = Command if send.topic == "order.internal" else Message
    message: Command[Any] | Message[Any] = envelope(
        id=str(uuid5(NAMESPACE_URL, f"oms:returns:{order_id}:{send.name}")),
        order_id=about,
        at=cause.occurred_at if isinstance(cause, Event) else cause.at,
        actor=ACTOR,
        correlation_id=cause.correlation_id,
        causation_id=cause.id,
        data=payload,
    )
    return Outgoing(send.topic, _key(send, about), message)


def _key(send: Send, order_id: str) -> str:
    if isinstance(send.payload, RestockStock):
        return f"{send.payload.sku}#{send.payload.pool}"
    return shard_of(order_id) if send.topic == "timer.commands" else order_id
