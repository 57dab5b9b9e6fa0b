"""The fraud processor: scores orders by rules, keyed by what they are looked at for (customer:ID, address:HASH).

State under a subject: `velocity` (bounded), and `scored:ID` for each command seen, with its answer.
"""

from __future__ import annotations

from collections.abc import Iterable

from uuid_utils import NAMESPACE_URL, uuid5

from processors.fraud.rules import Velocity, score
from processors.kit import Handler, Incoming, Outgoing, State
from processors.shapes import Shape
from schemas.base import Message
from schemas.fraud import OrderScored, ScoreOrder
from schemas.policy import Policy

VELOCITY = Shape(Velocity)


def handler(policy: Policy) -> Handler:
    """The handler for `runtime.streams` and the simulation."""

    def handle(state: State, incoming: Incoming) -> Iterable[Outgoing]:
        cause = incoming.message
        if not isinstance(cause, Message) or not isinstance(cause.data, ScoreOrder):
            raise TypeError(f"{type(cause.data).__name__} is not a command to the scorer")
        if cause.order_id is None:
            raise ValueError("a score belongs to an order")
        entry = f"scored:{cause.id}"
        seen = state.get(entry)
        if seen is not None:  # it counts once, and is answered as then
            scored = OrderScored.model_validate(seen)
        else:
            before = VELOCITY.load(state, "velocity") or Velocity()
            velocity, scored = score(before, cause.data, policy.fraud)
            VELOCITY.save(state, "velocity", velocity)
            state.set(entry, scored.model_dump(mode="json"), ttl=policy.idempotency_kept)
        message: Message[OrderScored] = Message(
            id=str(uuid5(NAMESPACE_URL, f"oms:OrderScored:{cause.id}")),
            at=cause.at,
            actor="system:fraud",
            correlation_id=cause.correlation_id,
            causation_id=cause.id,
            order_id=cause.order_id,
            data=scored,
        )
        return [Outgoing("fraud.results", cause.order_id, message)]

    return handle
