"""The placement processor: runs the saga on its joined topics. State under an order id: `placement`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from uuid_utils import NAMESPACE_URL, uuid5

from processors.kit import Handler, Incoming, Outgoing, State
from processors.placement.model import ACTOR, Placement, Send
from processors.placement.saga import evolve, react
from processors.shapes import Shape
from schemas.base import Command, Event, Message, Payload
from schemas.codec import encode
from schemas.operations import ExceptionOpened
from schemas.policy import Policy


def handler(policy: Policy) -> Handler:
    """The handler for `runtime.streams` and the simulation."""

    def handle(state: State, incoming: Incoming) -> Iterable[Outgoing]:
        cause = incoming.message
        if isinstance(cause, Command):
            raise TypeError(f"a saga hears of what happened; {type(cause.data).__name__} is a command")
        before = PLACEMENT.load(state, "placement")
        after = evolve(before, cause, policy)
        if after is not None and after is not before:
            PLACEMENT.save(state, "placement", after)
        return [_outgoing(send, incoming.key, cause) for send in react(before, after, cause, policy)]

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
        data=_with_retry(send, order_id, cause),
    )
    return Outgoing(send.topic, send.key or order_id, message)


def _with_retry(send: Send, order_id: str, cause: Event[Any] | Message[Any]) -> Payload:
    if send.retry is None or not isinstance(send.payload, ExceptionOpened):
        return send.payload
    again = _outgoing(send.retry, order_id, cause)
    changes = {"retry_topic": again.topic, "retry_key": again.key, "retry": encode(again.message)}
    return send.payload.model_copy(update=changes)


# The upcasters of older shapes


def _with_edits_and_reviews(old: dict[str, Any]) -> dict[str, Any]:
    """1 → 2: lines became needs (what is wanted, what is asked, since which version), refunds transfers, and running
    timers are known."""
    phases = {"reserving": "placing", "charging": "placing", "short": "refused"}
    phase = phases.get(old["phase"], old["phase"])
    ended = phase == "ended"
    attempts = old["attempts"]
    waits = [] if phase in ("paid", "ended") else attempts[-1:]
    return {
        "order_id": old["order_id"],
        "phase": phase,
        "currency": attempts[-1]["currency"] if attempts else "",
        "needs": () if ended else [_need(line, old["version"]) for line in old["lines"]],
        "attempts": [{**a, "raised": ended and a["fate"] == "unknown"} for a in attempts],
        "transfers": [{"transfer_id": refund, "amount": 0, "fate": "done"} for refund in old["refunded"]],
        "timers": [{"kind": "payment_timeout", "due_at": a["due_at"], "generation": a["attempt_id"]} for a in waits],
        "version": old["version"],
    }


def _need(line: dict[str, Any], version: int) -> dict[str, Any]:
    units = {"wanted": line["quantity"], "asked": line["quantity"]}
    return {"line_id": line["line_id"], "sku": line["sku"], **units, "version": version, "fate": line["fate"]}


PLACEMENT = Shape(Placement, 3, {1: _with_edits_and_reviews, 2: dict})  # 3: scores of edits, which have defaults
