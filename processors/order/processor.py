"""The order processor: commands of one order in, its events, its state and the outcome out.

State under an order id: `order` (the fold), and an entry for each command seen with the hash of its body and its
whole outcome, so that every duplicate gets the same answer.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from uuid_utils import NAMESPACE_URL, uuid5

from processors.kit import Handler, Incoming, Outgoing, State
from processors.order import editing
from processors.order.checks import may_touch
from processors.order.decide import decide
from processors.order.evolve import evolve
from processors.order.importing import Past
from processors.order.traces import with_history
from processors.shapes import Shape
from schemas.base import Command, Event, Message, Payload
from schemas.codec import encode
from schemas.commands import ImportOrder
from schemas.events import OrderEditRequested
from schemas.order import Order, OrderState
from schemas.policy import Policy
from schemas.replies import IDEMPOTENCY_KEY_REUSED, CommandOutcome, CommandRejected, Rejection

# Shape 1 had neither parcels nor returns; what they default to is what such an order had. Shape 2 had no history.
ORDER = Shape(Order, 3, {1: lambda value: value, 2: with_history})


def handler(policy: Policy) -> Handler:
    """The handler for `runtime.streams` and the simulation."""

    def handle(state: State, incoming: Incoming) -> Iterable[Outgoing]:
        command = incoming.message
        if not isinstance(command, Command):
            raise TypeError(f"{type(command).__name__} is not a command")
        return handle_command(state, command, policy)

    return handle


def handle_command(state: State, command: Command[Any], policy: Policy) -> list[Outgoing]:
    order = ORDER.load(state, "order")
    if command.dry_run:
        return _answer(command, _preview(order, command, policy), None)
    seen_key = f"command:{command.id}"
    seen = state.get(seen_key)
    if seen is not None:
        return _answer(command, _again(seen, command), order)
    decision = decide(order, command, policy)
    if isinstance(decision, Rejection):
        outcome = _refused(command, order, decision)
        outputs: list[Outgoing] = []
    else:
        before = order
        order, outputs = _record(order, command, decision)
        if order is None:
            raise ValueError(f"{type(command.data).__name__} made neither an order nor a refusal")
        if order is not before:
            ORDER.save(state, "order", order)
            outputs.append(Outgoing("order.states", order.order_id, _state_message(command, order)))
        # Nobody reads the order in an outcome that goes nowhere, or in that of an import.
        answer = order if command.reply_to and not isinstance(command.data, ImportOrder) else None
        outcome = CommandOutcome(command_id=command.id, accepted=True, version=order.version, order=answer)
    state.set(
        seen_key,
        {"body_hash": command.body_hash, "outcome": outcome.model_dump(mode="json")},
        ttl=policy.idempotency_kept,
    )
    return [*outputs, *_answer(command, outcome, order)]


def _record(
    order: Order | None, command: Command[Any], payloads: Iterable[Payload]
) -> tuple[Order | None, list[Outgoing]]:
    """Number, date and chain the decided events, and fold them in."""
    outputs = []
    last_hash = order.last_hash if order else ""
    for decided in payloads:
        # An event of imported history has its own time and author.
        past = decided if isinstance(decided, Past) else None
        payload = past.payload if past else decided
        version = order.version + 1 if order else 1
        event: Event[Any] = Event(
            id=str(uuid5(NAMESPACE_URL, f"oms:event:{command.order_id}:{version}")),
            order_id=command.order_id,
            version=version,
            occurred_at=_not_before(order, past.at if past else command.at),
            actor=past.actor if past else command.actor,
            correlation_id=command.correlation_id,
            causation_id=command.id,
            previous_hash=last_hash,
            data=payload,
            imported=past is not None,
        )
        value = encode(event)
        last_hash = hashlib.sha256(value).hexdigest()
        order = past.after if past else evolve(order, event)
        outputs.append(Outgoing("order.events", command.order_id, event, value))
    if order is not None and outputs:
        order = order.model_copy(update={"last_hash": last_hash})
    return order, outputs


def _not_before(order: Order | None, at: datetime) -> datetime:
    return max(order.updated_at, at) if order else at


def _preview(order: Order | None, command: Command[Any], policy: Policy) -> CommandOutcome:
    """What the command would lead to; nothing is remembered or written."""
    decision = decide(order, command, policy)
    if isinstance(decision, Rejection):
        return _refused(command, order, decision)
    after, _ = _record(order, command, decision)
    if any(isinstance(decided, OrderEditRequested) for decided in decision) and after is not None:
        after = editing.applied(after)  # the totals as they will be
    return CommandOutcome(command_id=command.id, accepted=True, version=order.version if order else 0, order=after)


def _again(seen: dict[str, Any], command: Command[Any]) -> CommandOutcome:
    if seen["body_hash"] == command.body_hash:
        return CommandOutcome.model_validate(seen["outcome"])
    return CommandOutcome(command_id=command.id, accepted=False, version=0, rejection=IDEMPOTENCY_KEY_REUSED)


def _refused(command: Command[Any], order: Order | None, rejection: Rejection) -> CommandOutcome:
    visible = order if order and may_touch(command.actor, order) else None
    return CommandOutcome(
        command_id=command.id,
        accepted=False,
        version=visible.version if visible else 0,
        rejection=rejection,
        order=visible,
    )


def _state_message(command: Command[Any], order: Order) -> Message[Any]:
    return Message(
        id=str(uuid5(NAMESPACE_URL, f"oms:state:{order.order_id}:{order.version}")),
        at=order.updated_at,
        actor=command.actor,
        correlation_id=command.correlation_id,
        causation_id=command.id,
        order_id=order.order_id,
        data=OrderState(order=order),
    )


def _answer(command: Command[Any], outcome: CommandOutcome, order: Order | None) -> list[Outgoing]:
    """To the gateway that waits; a refusal that no gateway waits for goes where the sagas hear it."""
    if command.reply_to is not None:
        return [Outgoing("order.replies", command.reply_to, _message(command, outcome))]
    if outcome.rejection is None:
        return []
    rejected = CommandRejected(
        command_id=command.id,
        command=type(command.data).__name__,
        status=order.status if order else None,
        version=outcome.version,
        rejection=outcome.rejection,
        actor=command.actor,
    )
    return [Outgoing("order.rejections", command.order_id, _message(command, rejected))]


def _message(command: Command[Any], payload: Payload) -> Message[Any]:
    return Message(
        id=str(uuid5(NAMESPACE_URL, f"oms:{type(payload).__name__}:{command.id}")),
        at=command.at,
        actor="system:order",
        correlation_id=command.correlation_id,
        causation_id=command.id,
        order_id=command.order_id,
        data=payload,
    )
