"""What can be asked of a KPI, and how a query is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any
from zoneinfo import ZoneInfo, available_timezones

from .sidecars import Kpi

GRAINS = ("hour", "day", "week")
EVERYTHING = "everything"
"""What every query has in place of a dimension, to put all rows into one group. It is a constant of the whole query: of
a column with the same text in every row the engine would make keys (0.1 s in a million orders)."""
EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)
"""These two are no bounds to the SQL function `is_within`."""
PARAMETERS = ("from", "to", "grain", "group_by", "tz", "now")


class BadParameter(ValueError):
    """`field` is the parameter; `detail` says what it can be."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(f"{field} {detail}")
        self.field = field
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Asked:
    """The period [since, until), cut into hours, days or weeks of a time zone (None: whole), each of them into the
    groups of a dimension (None: whole). `now`: when it is asked."""

    since: datetime
    until: datetime
    grain: str | None
    group_by: str | None
    tz: str
    now: datetime

    def parameters(self) -> dict[str, str]:
        """As the queries take them."""
        return {
            "from": _text(self.since),
            "to": _text(self.until),
            "grain": self.grain or "",
            "group_by": self.group_by or EVERYTHING,
            "tz": self.tz,
            "now": _text(self.now),
        }


def asked(kpi: Kpi, params: Mapping[str, Any] | None = None) -> Asked:
    """`params`: from and to (a datetime, or a text: a date or a time, on the clocks of `tz` unless it says otherwise),
    grain, group_by, tz (IANA name, UTC by default). What is missing, None or empty was not asked for.

    Raises:
        BadParameter: one of them can't be.
    """
    given = {name: value for name, value in (params or {}).items() if value not in (None, "")}
    for name in given:
        if name not in PARAMETERS:
            raise BadParameter(name, f"is no parameter of a KPI; there are {', '.join(PARAMETERS[:-1])}")
    tz = given.get("tz", "UTC")
    if tz not in _zones():
        raise BadParameter("tz", "must be a time zone's name, as in Europe/Berlin")
    since = _instant("from", given.get("from", EARLIEST), ZoneInfo(tz))
    until = _instant("to", given.get("to", LATEST), ZoneInfo(tz))
    if since >= until:
        raise BadParameter("to", "must be after `from`")
    return Asked(
        since,
        until,
        _one_of("grain", given.get("grain"), GRAINS),
        _one_of("group_by", given.get("group_by"), kpi.dimensions),
        tz,
        given.get("now", datetime.now(UTC)),
    )


def _instant(field: str, given: datetime | str, zone: ZoneInfo) -> datetime:
    try:
        at = given if isinstance(given, datetime) else datetime.fromisoformat(given)
    except ValueError as error:
        raise BadParameter(
            field, "must be a date or a time, as in 2026-03-29, 2026-03-29T13:00 or 2026-03-29T11:00:00Z"
        ) from error
    if not EARLIEST.year <= at.year < LATEST.year:
        return EARLIEST if at.year < EARLIEST.year else LATEST
    return min(max((at if at.tzinfo else at.replace(tzinfo=zone)).astimezone(UTC), EARLIEST), LATEST)


def _one_of(field: str, given: str | None, possible: tuple[str, ...]) -> str | None:
    if given is None or given in possible:
        return given
    if not possible:
        raise BadParameter(field, "is not possible with this KPI")
    raise BadParameter(field, f"must be one of {', '.join(possible)}")


@cache
def _zones() -> frozenset[str]:
    """`localtime` is whatever this machine's is."""
    return frozenset(available_timezones() - {"localtime"})


def _text(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
