"""The lines that wait for stock, first come, first served: a linked list over entries of the state, so that no value
grows and who waits no more leaves from wherever it stands."""

from __future__ import annotations

from typing import Any

from processors.kit import State
from processors.shapes import Shape
from schemas.base import Model


class Place(Model):
    """A line in the queue. `before` and `after` are the names of its neighbours."""

    order_id: str
    line_id: str
    correlation_id: str
    before: str | None = None
    after: str | None = None

    @property
    def name(self) -> str:
        return f"{self.order_id}:{self.line_id}"


class Ends(Model):
    first: str | None = None
    last: str | None = None


ENDS = Shape(Ends)
PLACE = Shape(Place)


class Queue:
    """The queue in one key's state."""

    def __init__(self, state: State) -> None:
        self._state = state

    def find(self, order_id: str, line_id: str) -> Place | None:
        return self._at(f"{order_id}:{line_id}")

    def first(self) -> Place | None:
        return self._at(self._ends().first)

    def join(self, place: Place) -> None:
        """At the end."""
        ends = self._ends()
        last = self._at(ends.last)
        if last is not None:
            self._save(last, after=place.name)
        self._save(place, before=ends.last, after=None)
        self._save_ends(Ends(first=ends.first or place.name, last=place.name))

    def leave(self, place: Place) -> None:
        """From wherever it is."""
        before, after, ends = self._at(place.before), self._at(place.after), self._ends()
        if before is not None:
            self._save(before, after=place.after)
        if after is not None:
            self._save(after, before=place.before)
        first = place.after if before is None else ends.first
        self._save_ends(Ends(first=first, last=place.before if after is None else ends.last))
        self._state.delete(f"place:{place.name}")

    def _at(self, name: str | None) -> Place | None:
        return None if name is None else PLACE.load(self._state, f"place:{name}")

    def _save(self, place: Place, **changes: Any) -> None:
        PLACE.save(self._state, f"place:{place.name}", place.model_copy(update=changes))

    def _ends(self) -> Ends:
        return ENDS.load(self._state, "queue") or Ends()

    def _save_ends(self, ends: Ends) -> None:
        ENDS.save(self._state, "queue", ends)
