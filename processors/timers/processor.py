"""The timers processor: keeps the timers of a shard, and fires what is due when a tick comes. Pure.

Time is the broker's timestamp of a tick, nothing else. One message fires at most MOST timers; when more are due, the
shard sends itself a ContinueTimers.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from uuid_utils import UUID, uuid5

from processors.kit import Handler, Incoming, Outgoing, State
from processors.timers import fires, wheel
from schemas.base import Message
from schemas.policy import Policy
from schemas.timers import CancelTimer, ContinueTimers, SetTimer, Tick

MOST = 1_000
EFFORT = 4_000
_CONTINUES = UUID("6d6f1f0c-97de-5a35-bb0e-6a4f5d6c1c0e")


def handler(_: Policy) -> Handler:
    return handle


def handle(state: State, incoming: Incoming) -> Sequence[Outgoing]:
    """Raises ValueError for a SetTimer that could not fire; it is refused here, because a tick must never fail."""
    message = incoming.message
    match message.data:
        case Tick():
            return _fire_due(state, incoming, until=incoming.appended_at)
        case ContinueTimers(until=until):
            return _fire_due(state, incoming, until=until)
        case SetTimer() as command:
            if message.order_id is None:
                raise ValueError("a SetTimer needs an order_id")
            timer = wheel.Timer(
                slot=wheel.slot_of(command.due_at),
                command=command,
                message_id=message.id,
                order_id=message.order_id,
                correlation_id=message.correlation_id,
            )
            fires.fire(timer, command.due_at)
            wheel.put(state, timer)
        case CancelTimer(timer_id=timer_id):
            wheel.remove(state, timer_id)
        case other:
            raise ValueError(f"timers know no {type(other).__name__}")
    return []


def _fire_due(state: State, incoming: Incoming, until: datetime) -> Sequence[Outgoing]:
    due, more = wheel.take_due(state, until, most=MOST, effort=EFFORT)
    out = [fires.fire(timer, until) for timer in due]
    if more:
        cause = incoming.message
        message: Message[ContinueTimers] = Message(
            id=str(uuid5(_CONTINUES, cause.id)),
            at=until,
            actor=fires.ACTOR,
            correlation_id=cause.correlation_id,
            causation_id=cause.id,
            data=ContinueTimers(until=until),
        )
        out.append(Outgoing("timer.commands", incoming.key, message))
    return out
