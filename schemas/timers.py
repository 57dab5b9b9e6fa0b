"""The language of time. Keyed by shard; a tick's time is the broker's."""

from __future__ import annotations

from zlib import crc32

from schemas.base import Family, Instant, Message, Payload

Family("timer.commands", Message)
Family("timer.ticks", Message)

SHARDS = 64


def shard_of(order_id: str) -> str:
    """The key of an order's timers."""
    return str(crc32(order_id.encode()) % SHARDS)


class SetTimer(Payload, family="timer.commands"):
    """At `due_at`, fire. Setting a timer_id again moves it. `kind` picks what a fire sends (processors/timers);
    `generation` travels with it, so that `decide` can tell a stale fire; `args` are the fire's own words."""

    timer_id: str
    kind: str  # a name of processors/timers/fires.py
    due_at: Instant
    generation: str
    args: dict[str, str] = {}


class CancelTimer(Payload, family="timer.commands"):
    """Only an optimization: a fire that comes too late is ignored by who gets it."""

    timer_id: str


class ContinueTimers(Payload, family="timer.commands"):
    """More was due than one message may fire: go on up to `until`."""

    until: Instant


class Tick(Payload, family="timer.ticks"):
    """Time has passed; how far is the broker's timestamp of this message."""

    source: str
