"""State that says which shape it has, so that a later release knows what it reads.

A change to a model that old state can't be read as brings the next shape number and a pure upcaster from the one
before, tested on recorded states (tests/domain/test_shapes.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from processors.kit import State
from schemas.base import Model

M = TypeVar("M", bound=Model)
Upcaster = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass(frozen=True)
class Shape(Generic[M]):
    """How values of one model lie in state. `upcasters`: shape n → the value in shape n + 1."""

    model: type[M]
    number: int = 1
    upcasters: Mapping[int, Upcaster] = field(default_factory=dict)

    def load(self, state: State, key: str) -> M | None:
        stored = state.get(key)
        return None if stored is None else self.read(stored)

    def read(self, stored: dict[str, Any]) -> M:
        """A stored value in today's shape. ValueError when it is from a release after this one."""
        shape, value = stored["shape"], stored["value"]
        if shape > self.number:
            raise ValueError(f"{self.model.__name__} has shape {shape} in state; this release knows {self.number}")
        while shape < self.number:
            value = self.upcasters[shape](value)
            shape += 1
        return self.model.model_validate(value)

    def save(self, state: State, key: str, value: M) -> None:
        state.set(key, {"shape": self.number, "value": value.model_dump(mode="json")})
