"""What a timer sends when it fires, by its kind. Pure.

Whoever gets a fire ignores a stale one (by attempt id), so a fire that is late, or doubled, does no harm; its id is
derived from the timer, so that a repeat is the same message.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime

from processors.kit import Outgoing
from processors.timers.wheel import Timer
from schemas.base import Command, Message
from schemas.commands import ExpirePayment
from schemas.payment import QueryPayment

ACTOR = "system:timers"
_FIRES = uuid.UUID("0d3f5c36-4f5c-5f0a-8a0b-6d3c6f1f9f52")


def fire(timer: Timer, at: datetime) -> Outgoing:
    """The message that this timer sends at `at`.

    Raises:
        ValueError: its kind is unknown, or its `args` are not what that kind needs.
    """
    try:
        build = _KINDS[timer.command.kind]
    except KeyError:
        raise ValueError(f"no timer of kind {timer.command.kind!r} is known") from None
    try:
        return build(timer, at)
    except KeyError as error:
        raise ValueError(f"a {timer.command.kind} timer needs {error} in its args") from None


def fire_id(timer: Timer) -> str:
    set_ = timer.command
    return str(uuid.uuid5(_FIRES, f"{set_.timer_id}/{set_.generation}/{set_.due_at.isoformat()}"))


def _payment_timeout(timer: Timer, at: datetime) -> Outgoing:
    command: Command[ExpirePayment] = Command(
        id=fire_id(timer),
        order_id=timer.order_id,
        at=at,
        actor=ACTOR,
        correlation_id=timer.correlation_id,
        causation_id=timer.message_id,
        data=ExpirePayment(attempt_id=timer.command.generation, due_at=timer.command.due_at),
    )
    return Outgoing("order.internal", timer.order_id, command)


def _payment_query(timer: Timer, at: datetime) -> Outgoing:
    args = timer.command.args
    message: Message[QueryPayment] = Message(
        id=fire_id(timer),
        at=at,
        actor=ACTOR,
        correlation_id=timer.correlation_id,
        causation_id=timer.message_id,
        order_id=timer.order_id,
        data=QueryPayment(
            attempt_id=args["attempt_id"],
            amount=int(args["amount"]),
            currency=args["currency"],
            asked=int(args["asked"]),
        ),
    )
    return Outgoing("payment.commands", timer.order_id, message)


_KINDS: dict[str, Callable[[Timer, datetime], Outgoing]] = {
    "payment_timeout": _payment_timeout,
    "payment_query": _payment_query,
}
