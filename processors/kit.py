"""What a stream processor is, without Kafka: a function from a message and the state under its key to messages.

`runtime.streams` runs such a handler on quixstreams, `tests.simulation` in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from schemas.base import Envelope


class State(Protocol):
    """The entries under one message key. Values are JSON data; there is no scan across entries or keys."""

    def get(self, key: str, default: Any = None) -> Any: ...

    def set(self, key: str, value: Any, ttl: timedelta | None = None) -> None: ...

    def delete(self, key: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Incoming:
    """A decoded message with where it came from. `appended_at` is the broker's time."""

    topic: str
    key: str
    message: Envelope
    appended_at: datetime


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to write, in the same transaction as the state. `value` when it is encoded already."""

    topic: str
    key: str
    message: Envelope
    value: bytes | None = None


Handler = Callable[[State, Incoming], Iterable[Outgoing]]


class TooLarge(Exception):
    """An output or a state value is larger than a Kafka message may be."""
