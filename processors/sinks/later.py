"""Rows of views that nobody waits for, gathered over many batches so that an insert is worth its cost."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .views import View

WAIT = 1.0
"""Seconds that the first row waits at most."""
MOST = 20_000
"""Rows that are kept at most."""

Ends = dict[tuple[str, int], int]
"""(topic, partition) → the next offset to read."""


class Later:
    """Rows and how far they go. Nothing in here is on record anywhere: a process that dies reads the messages again."""

    def __init__(self, views: Iterable[View]) -> None:
        self._views = {view.name: view for view in views}
        self._topics = {topic for view in self._views.values() for topic in view.sources}
        self._rows: dict[str, list[Any]] = {name: [] for name in self._views}
        self._ends: Ends = {}
        self._since = 0.0

    def add(self, rows: Mapping[str, Sequence[Any]], ends: Ends) -> None:
        """What these messages made for the relaxed views; messages that made nothing are got over too."""
        if not self._ends:
            self._since = time.monotonic()
        for name in self._views:
            self._rows[name].extend(rows[name])
        self._ends.update({at: offset for at, offset in ends.items() if at[0] in self._topics})

    def due(self) -> bool:
        if not self._ends:
            return False
        return time.monotonic() - self._since >= WAIT or sum(map(len, self._rows.values())) >= MOST

    def take(self) -> tuple[dict[str, list[Any]], Ends]:
        """Everything; it is empty afterwards."""
        rows, ends = self._rows, self._ends
        self._rows, self._ends = {name: [] for name in self._views}, {}
        return rows, ends
