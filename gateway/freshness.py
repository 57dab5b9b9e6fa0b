"""How old what the views say is at most.

Once a second the ends of the topics are looked at, and how far the sink has come. When a view has everything up to the
ends of some moment, it is as it was at that moment or newer. Times are monotonic seconds of this process.
"""

from __future__ import annotations

import re
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

from processors.sinks.views import VIEWS

REMEMBERED = 600
"""Moments, at most: a view that is further behind is as good as any other."""

Offsets = Mapping[str, Mapping[int, int]]
"""By topic and partition: after the last message (and the marker of its transaction), or the next to read."""

TOPICS = frozenset(topic for view in VIEWS.values() for topic in view.sources)


class Freshness:
    """Of the views of one ClickHouse: up to when each is complete."""

    def __init__(self) -> None:
        self._moments: list[tuple[float, Offsets]] = []
        self._as_of: dict[str, float] = {}

    def look(self, at: float, ends: Offsets, progress: Iterable[Mapping[str, Any]]) -> None:
        """`ends` of TOPICS, asked for at the time `at`, and later the rows of `progress.sql`."""
        self._moments.append((at, ends))
        reached: dict[str, dict[str, dict[int, int]]] = {}
        for row in progress:
            of_topic = reached.setdefault(row["view"], {}).setdefault(row["topic"], {})
            of_topic[int(row["partition"])] = int(row["offset"])
        for name, view in VIEWS.items():
            offsets = reached.get(name, {})
            # Ends only grow, so a view that has not reached those of a moment has not reached later ones.
            reached_moments = bisect_left(
                self._moments,
                True,
                key=lambda moment: not _covers(offsets, moment[1], view.sources),
            )
            if reached_moments:
                self._as_of[name], _ = self._moments[reached_moments - 1]
            else:
                self._as_of.pop(name, None)  # it was emptied
        if len(self._as_of) == len(VIEWS):
            oldest = min(self._as_of.values())
            self._moments = [moment for moment in self._moments if moment[0] >= oldest]
        if len(self._moments) > REMEMBERED:
            # Without some moments a view can only seem older than it is.
            self._moments = self._moments[::2]

    def as_of(self, views: Iterable[str]) -> float | None:
        """The time that all of these views have reached; None while that is not known."""
        times = [self._as_of.get(view) for view in views]
        return None if None in times else min((at for at in times if at is not None), default=None)

    def lags(self) -> Iterator[tuple[str, float]]:
        """(view, seconds), where it is known."""
        now = time.monotonic()
        return ((view, now - at) for view, at in self._as_of.items())


def _covers(offsets: Offsets, ends: Offsets, topics: Iterable[str]) -> bool:
    return all(
        offsets.get(topic, {}).get(partition, 0) >= end for topic in topics for partition, end in ends[topic].items()
    )


@cache
def views_in(statement: str) -> frozenset[str]:
    """The views that a statement reads."""
    return frozenset(
        name for name, view in VIEWS.items() if re.search(rf"\b{re.escape(view.table)}\b", statement) is not None
    )


class Reading:
    """What was read for an answer."""

    def __init__(self) -> None:
        self._known = True
        self._as_of: float | None = None

    def note(self, as_of: float | None) -> None:
        """A statement was answered by views that had reached this time (None: nobody knows)."""
        if as_of is None:
            self._known = False
        elif self._as_of is None or as_of < self._as_of:
            self._as_of = as_of

    def include(self, other: Reading) -> None:
        if not other._known or other._as_of is not None:
            self.note(other._as_of if other._known else None)

    @property
    def lag(self) -> float | None:
        """Seconds that the answer is old, at most; None when nothing was read, or it isn't known how old that was."""
        return None if self._as_of is None or not self._known else time.monotonic() - self._as_of


_READING: ContextVar[Reading | None] = ContextVar("reading", default=None)


@contextmanager
def reading() -> Iterator[Reading]:
    """Whatever is read from the views within, also by tasks that are made within, is noted in it."""
    found = Reading()
    token = _READING.set(found)
    try:
        yield found
    finally:
        _READING.reset(token)


def note(statement: str, as_of: float | None) -> None:
    """This statement was answered by views that had reached this time (None: nobody knows)."""
    if (found := _READING.get()) is not None and views_in(statement):
        found.note(as_of)


def include(other: Reading) -> None:
    """What somebody else has read is part of this answer."""
    if (found := _READING.get()) is not None:
        found.include(other)
