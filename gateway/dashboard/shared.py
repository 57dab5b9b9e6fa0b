"""One look at the views for all who look at the dashboard at the same time, however many they are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

from gateway.freshness import Reading, include, reading

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Seen(Generic[T]):
    """What was found. It was asked for at `asked` and holds everything that had happened up to `as_of`: earlier where
    the views were behind, the same where nobody knows."""

    value: T
    asked: datetime
    as_of: datetime

    @property
    def behind(self) -> float:
        """Seconds that the views were behind."""
        return (self.asked - self.as_of).total_seconds()


@dataclass(frozen=True, slots=True)
class _Look(Generic[T]):
    seen: Seen[T]
    read: Reading
    ended: float
    took: float
    """`ended` and `took` in seconds (monotonic)."""


class Shared(Generic[K, T]):
    """Values by key, found by `look`, and asked again when they are `fresh(key)` seconds old. Looking may take `share`
    of the time: with a fifth, what takes a second is asked every five seconds at most."""

    def __init__(self, look: Callable[[K], Awaitable[T]], fresh: Callable[[K], float], share: float) -> None:
        self._look = look
        self._fresh = fresh
        self._share = share
        self._looks: dict[K, _Look[T]] = {}
        self._looking: dict[K, asyncio.Task[_Look[T]]] = {}

    async def get(self, key: K) -> Seen[T]:
        """The value; what `look` raises, to everybody who waited for it."""
        found = self._looks.get(key)
        if found is None or self._is_old(key, found):
            if key not in self._looking:
                self._looking[key] = asyncio.create_task(self._renew(key), name=f"dashboard {key}")
                self._looking[key].add_done_callback(lambda _: self._looking.pop(key))
            # One who goes away must not take the answer from the others.
            found = await asyncio.shield(self._looking[key])
        include(found.read)
        return found.seen

    def last(self, key: K) -> Seen[T] | None:
        """The value as it was last found, however old."""
        found = self._looks.get(key)
        return found.seen if found else None

    def _is_old(self, key: K, found: _Look[T]) -> bool:
        return time.monotonic() >= found.ended + max(self._fresh(key), found.took / self._share)

    async def _renew(self, key: K) -> _Look[T]:
        began, asked = time.monotonic(), datetime.now(UTC)
        with reading() as read:
            value = await self._look(key)
        lag, ended = read.lag, time.monotonic()
        as_of = asked if lag is None else min(asked, datetime.now(UTC) - timedelta(seconds=lag))
        self._looks[key] = _Look(Seen(value, asked, as_of), read, ended, ended - began)
        return self._looks[key]
