"""Times as the statements of `gateway/sql` take and give them: microseconds since 1970, UTC. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
EVER = (datetime(2200, 1, 1, tzinfo=UTC) - _EPOCH) // _MICROSECOND
"""After everything that a view can hold."""


def of(micros: int | str) -> datetime:
    """The time that a view holds (a text, where JSON can't say so large a number)."""
    return _EPOCH + int(micros) * _MICROSECOND


def micros(when: datetime) -> int:
    """As a view holds this time, or the nearest one that it can hold: 0 to EVER."""
    return min(max((when - _EPOCH) // _MICROSECOND, 0), EVER)
