"""What the dashboard shows, as rows of the views: some of now, some of a period."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from analytics import kpis
from analytics.kpis import Row
from gateway import times
from gateway.dashboard.shared import Shared
from gateway.problems import Problem
from gateway.queries import Views

FRESH = 2.0
"""Seconds for which a reading serves whoever asks."""
PATIENCE = 8.0
"""Seconds that a page waits. What takes longer goes on, and is there for the next one."""
MINUTES = 60
EVENTS = 20
TABLES = ("funnel", "time_in_status", "active_orders", "cancellations_by_reason", "revenue")
OTHERS = (
    "orders_created",
    "average_order_value",
    "units_per_order",
    "payment_acceptance",
    "on_time_delivery",
    "stock_outs",
)
"""KPIs that are shown besides those with a target: as tables, and as one figure each."""


class Period(StrEnum):
    """Up to now."""

    HOUR = "1h"
    DAY = "24h"
    WEEK = "7d"
    MONTH = "30d"
    ALL = "all"

    def since(self, now: datetime) -> datetime:
        length = _LENGTHS[self]
        return kpis.EARLIEST if length is None else now - length


_LENGTHS: Mapping[Period, timedelta | None] = {
    Period.HOUR: timedelta(hours=1),
    Period.DAY: timedelta(hours=24),
    Period.WEEK: timedelta(days=7),
    Period.MONTH: timedelta(days=30),
    Period.ALL: None,
}


@dataclass(frozen=True, slots=True)
class Now:
    """As of `at`. Rows as the statements of these names (`gateway/sql`) give them."""

    at: datetime
    orders_a_minute: list[Row]
    newest_events: list[Row]
    open_exceptions: list[Row]


@dataclass(frozen=True, slots=True)
class Found:
    """What could be read, now or the last time. `figures`: rows of a period by the KPI's name."""

    now: Now | None
    figures: Mapping[str, list[Row]] | None
    complete: bool
    """Whether it is of now. Otherwise ClickHouse did not answer."""


class Contents:
    def __init__(self, views: Views) -> None:
        self._views = views
        self._now: Shared[None, Now] = Shared(self._look, FRESH)
        self._figures: Shared[Period, Mapping[str, list[Row]]] = Shared(self._reckon, FRESH)

    async def get(self, period: Period) -> Found:
        """Never raises for ClickHouse's sake: then it is what was read last."""
        try:
            async with asyncio.timeout(PATIENCE):
                now, figures = await asyncio.gather(self._now.get(None), self._figures.get(period))
        except (Problem, TimeoutError):
            return Found(self._now.last(None), self._figures.last(period), False)
        return Found(now, figures, True)

    async def _look(self, _: None) -> Now:
        now = datetime.now(UTC)
        rows = self._views.rows
        minutes, events, exceptions = await asyncio.gather(
            rows("orders_a_minute", from_us=times.micros(now - timedelta(minutes=MINUTES)), to_us=times.micros(now)),
            rows("newest_events", limit=EVENTS),
            rows("open_exceptions"),
        )
        return Now(now, minutes, events, exceptions)

    async def _reckon(self, period: Period) -> Mapping[str, list[Row]]:
        names = [name for name, kpi in kpis.load().items() if kpi.target or name in TABLES or name in OTHERS]
        since = {"from": period.since(datetime.now(UTC))}
        found = await asyncio.gather(*(self._views.kpi(name, since) for name in names))
        return dict(zip(names, found, strict=True))
