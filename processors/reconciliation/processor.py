"""The reconciliation processor: order.events and payment.feed, joined by order. State under an order id: an entry for
each movement of money, so that none grows, and `watch` once something had to be waited for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from uuid_utils import NAMESPACE_URL, uuid5

from processors.kit import Handler, Incoming, Outgoing, State
from processors.reconciliation.rules import Movement, Send, Watch, concerns, names, react
from processors.shapes import Shape
from schemas.base import Command, Event, Message, Payload
from schemas.codec import encode
from schemas.operations import ExceptionOpened
from schemas.policy import Policy
from schemas.timers import shard_of

ACTOR = "system:reconciliation"
MOVEMENT = Shape(Movement)
WATCH = Shape(Watch)


def handler(policy: Policy) -> Handler:
    """The handler for `runtime.streams` and the simulation."""

    def handle(state: State, incoming: Incoming) -> Iterable[Outgoing]:
        cause = incoming.message
        if isinstance(cause, Command):
            raise TypeError(f"reconciliation hears of what happened; {type(cause.data).__name__} is a command")
        if not concerns(cause):
            return []
        order_id, now = incoming.key, incoming.appended_at
        watch = WATCH.load(state, "watch") or Watch()
        found = {name: MOVEMENT.load(state, name) for name in names(watch, cause)}
        known = {name: movement for name, movement in found.items() if movement is not None}
        outcome = react(order_id, known, watch, cause, now, policy.payment)
        for name, movement in outcome.changed.items():
            MOVEMENT.save(state, name, movement)
        if outcome.watch != watch:
            WATCH.save(state, "watch", outcome.watch)
        return [_outgoing(send, order_id, incoming) for send in outcome.sends]

    return handle


def _outgoing(send: Send, order_id: str, incoming: Incoming) -> Outgoing:
    cause = incoming.message
    message: Message[Any] = Message(
        id=str(uuid5(NAMESPACE_URL, f"oms:reconciliation:{order_id}:{send.name}")),
        order_id=order_id,
        at=cause.occurred_at if isinstance(cause, Event) else cause.at,
        actor=ACTOR,
        correlation_id=cause.correlation_id,
        causation_id=cause.id,
        data=_with_retry(send, order_id, incoming),
    )
    return Outgoing(send.topic, shard_of(order_id) if send.topic == "timer.commands" else order_id, message)


def _with_retry(send: Send, order_id: str, incoming: Incoming) -> Payload:
    if send.again is None or not isinstance(send.payload, ExceptionOpened):
        return send.payload
    retry = _outgoing(Send("payment.commands", f"retry:{send.name}", send.again), order_id, incoming)
    changes = {"retry_topic": retry.topic, "retry_key": retry.key, "retry": encode(retry.message)}
    return send.payload.model_copy(update=changes)
