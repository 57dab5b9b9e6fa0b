"""Timers are set and cancelled as they come and go in a placement."""

from __future__ import annotations

from processors.placement.model import Placement, Send, Timer
from schemas.timers import CancelTimer, SetTimer, shard_of

# What a fire needs to know besides its generation (processors/timers/fires.py).
_ARGS = {"abandoned_draft": "version", "edit_timeout": "edit_id", "authorization_renewal": "attempt_id"}


def timers(before: Placement | None, after: Placement) -> list[Send]:
    old = before.timers if before else ()
    if old is after.timers:
        return []
    kept = {timer.name for timer in after.timers}
    return [
        *(_set(after.order_id, timer) for timer in after.timers if timer not in old),
        *(_cancel(after, timer.name) for timer in old if timer.name not in kept),
    ]


def _set(order_id: str, timer: Timer) -> Send:
    args = {_ARGS[timer.kind]: timer.generation} if timer.kind in _ARGS else {}
    command = SetTimer(
        timer_id=f"{order_id}:{timer.name}",
        kind=timer.kind,
        due_at=timer.due_at,
        generation=timer.generation,
        args=args,
    )
    return Send("timer.commands", f"set:{timer.kind}:{timer.generation}", command, key=shard_of(order_id))


def _cancel(after: Placement, name: str) -> Send:
    command = CancelTimer(timer_id=f"{after.order_id}:{name}")
    return Send("timer.commands", f"cancel:{name}:{after.version}", command, key=shard_of(after.order_id))
