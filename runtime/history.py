"""What a processor reads of orders that were imported (topology.yaml: history), told by a header, so that what it
passes by is not even decoded.

The end of a history, which carries the whole order, is laid aside in the state as it came. It is handled when the next
message of its order comes, just before that one; for nearly all of what was long ago, none ever does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from confluent_kafka import Message
from quixstreams import Application

from runtime import kafka
from runtime.topology import History

PASSED_BY: dict[History, frozenset[bytes]] = {
    "each": frozenset(),
    "end": frozenset({b"event"}),
    "none": frozenset({b"event", b"end"}),
}
"""Which events, by what their header says. Those from before there was such a header are handled by all."""

MOST_AT_ONCE = 200
"""Messages passed by before the application has its turn to commit."""

_ENTRY = "oms.history"
_TIME = 8


class RawState(Protocol):
    def get_raw(self, key: str) -> bytes | None: ...

    def set_raw(self, key: str, raw: bytes) -> None: ...

    def delete(self, key: str) -> None: ...


def pass_by(app: Application, what: History) -> None:
    """Has the application's consumer pass by what is not to be read, which counts as processed."""
    passed_by = PASSED_BY[what]
    if not passed_by:
        return
    read, context = app._consumer._poll_unbuffered, app._processing_context

    def read_on(timeout: float | None = None) -> Any:
        for _ in range(MOST_AT_ONCE):
            message: Message | None = read(timeout)
            if message is None or _of(message.headers()) not in passed_by:
                return message
            context.store_offset(message.topic(), message.partition(), message.offset())
        return None

    app._consumer._poll_unbuffered = read_on  # type: ignore[method-assign]


def is_end(headers: Sequence[tuple[str, bytes]] | None) -> bool:
    """Whether these are the headers of the end of a history, and not of one that is retried (there ours come last):
    that is handled at once, for whoever could not process it has to count it."""
    return _of(headers) == b"end"


def lay_aside(state: RawState, value: bytes, timestamp: int) -> None:
    state.set_raw(_ENTRY, timestamp.to_bytes(_TIME, "big") + value)


def take_up(state: RawState) -> tuple[bytes, int] | None:
    """The value that was laid aside under this key, and its timestamp; once."""
    raw = state.get_raw(_ENTRY)
    if raw is None:
        return None
    state.delete(_ENTRY)
    return raw[_TIME:], int.from_bytes(raw[:_TIME], "big")


def _of(headers: Sequence[tuple[str, bytes]] | None) -> bytes | None:
    return headers[-1][1] if headers and headers[-1][0] == kafka.HISTORY else None
