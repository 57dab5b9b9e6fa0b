"""What the dashboard shows, as rows of the views: some of now, some of a period. What is of now is asked every few
seconds, figures the more seldom the longer their period is and the more they cost, and all of it once for all who look.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from analytics import kpis
from analytics.kpis import Row
from gateway import times
from gateway.dashboard.shared import Seen, Shared
from gateway.problems import Problem
from gateway.queries import Views

T = TypeVar("T")

NOW_FRESH = 2.0
"""Seconds for which what happens now serves whoever asks."""
NOW_SHARE = 0.2
FIGURES_SHARE = 0.05
"""Of the time that asking may take, for all who look together: with a million orders, where the figures of a period
take a second or two, they are asked every half a minute."""
AT_ONCE = 2
"""KPIs that are asked for at the same time."""
PATIENCE = 8.0
"""Seconds that a page waits. What takes longer goes on, and is there for the next one."""
MINUTES = 60
EVENTS = 20
TABLES = ("funnel", "time_in_status", "active_orders", "cancellations_by_reason", "revenue")
ALL_TIME = ("active_orders",)
"""Of them what says how it is now, whenever the orders were created."""
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
        length, _ = _LENGTHS[self]
        return kpis.EARLIEST if length is None else now - length

    @property
    def fresh(self) -> float:
        """Seconds for which its figures serve whoever asks, at least: what a few more orders do to those of a month,
        nobody sees."""
        _, seconds = _LENGTHS[self]
        return seconds


_LENGTHS: Mapping[Period, tuple[timedelta | None, float]] = {
    Period.HOUR: (timedelta(hours=1), 5.0),
    Period.DAY: (timedelta(hours=24), 10.0),
    Period.WEEK: (timedelta(days=7), 30.0),
    Period.MONTH: (timedelta(days=30), 30.0),
    Period.ALL: (None, 30.0),
}


@dataclass(frozen=True, slots=True)
class Now:
    """Rows as the statements of these names (`gateway/sql`) give them."""

    orders_a_minute: list[Row]
    newest_events: list[Row]
    open_exceptions: list[Row]


Figures = Mapping[str, list[Row]]


@dataclass(frozen=True, slots=True)
class Found:
    """What could be read, now or the last time. `figures`: rows of a period by the KPI's name."""

    now: Seen[Now] | None
    figures: Seen[Figures] | None
    complete: bool
    """Whether ClickHouse answers. Figures may be older all the same, if it was too slow."""


class Contents:
    def __init__(self, views: Views) -> None:
        self._views = views
        self._now: Shared[None, Now] = Shared(self._look, lambda _: NOW_FRESH, NOW_SHARE)
        self._figures: Shared[Period, Figures] = Shared(self._reckon, lambda period: period.fresh, FIGURES_SHARE)

    async def get(self, period: Period) -> Found:
        """Never raises for ClickHouse's sake: then it is what was read last."""
        now, figures = await asyncio.gather(_soon(self._now.get(None)), _soon(self._figures.get(period)))
        figures = figures or self._figures.last(period)
        return Found(now or self._now.last(None), figures, now is not None and figures is not None)

    async def _look(self, _: None) -> Now:
        now = datetime.now(UTC)
        rows = self._views.rows
        minutes, events, exceptions = await asyncio.gather(
            rows("orders_a_minute", from_us=times.micros(now - timedelta(minutes=MINUTES)), to_us=times.micros(now)),
            rows("newest_events", limit=EVENTS),
            rows("open_exceptions"),
        )
        return Now(minutes, events, exceptions)

    async def _reckon(self, period: Period) -> Figures:
        names = [name for name, kpi in kpis.load().items() if kpi.target or name in TABLES or name in OTHERS]
        since = {"from": period.since(datetime.now(UTC))}

        async def one_after_another(some: Sequence[str]) -> Figures:
            return {name: await self._views.kpi(name, {} if name in ALL_TIME else since) for name in some}

        # All at once they would be in front of everybody else's reads.
        found = await asyncio.gather(*(one_after_another(names[start::AT_ONCE]) for start in range(AT_ONCE)))
        return {name: rows for some in found for name, rows in some.items()}


async def _soon(looking: Awaitable[Seen[T]]) -> Seen[T] | None:
    """What was found, None when ClickHouse does not answer or takes too long."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await looking
    except (Problem, TimeoutError):
        return None
