"""One look at the views for all who look at the dashboard at the same time, however many they are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

SHARE = 0.2
"""How much of the time looking may take: what takes a second is asked every five seconds at most."""


@dataclass(frozen=True, slots=True)
class _Found(Generic[T]):
    value: T
    until: float
    """When it is to be asked again (monotonic)."""


class Shared(Generic[K, T]):
    """Values by key, found by `look`, and asked again when they are `fresh` seconds old (older, if looking is slow)."""

    def __init__(self, look: Callable[[K], Awaitable[T]], fresh: float) -> None:
        self._look = look
        self._fresh = fresh
        self._found: dict[K, _Found[T]] = {}
        self._looking: dict[K, asyncio.Task[T]] = {}

    async def get(self, key: K) -> T:
        """The value; what `look` raises, to everybody who waited for it."""
        found = self._found.get(key)
        if found is not None and time.monotonic() < found.until:
            return found.value
        if key not in self._looking:
            self._looking[key] = asyncio.create_task(self._renew(key), name=f"dashboard {key}")
            self._looking[key].add_done_callback(lambda _: self._looking.pop(key))
        # One who goes away must not take the answer from the others.
        return await asyncio.shield(self._looking[key])

    def last(self, key: K) -> T | None:
        """The value as it was last found, however old."""
        found = self._found.get(key)
        return found.value if found else None

    async def _renew(self, key: K) -> T:
        began = time.monotonic()
        value = await self._look(key)
        now = time.monotonic()
        self._found[key] = _Found(value, now + max(self._fresh, (now - began) / SHARE))
        return value
