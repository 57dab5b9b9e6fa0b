"""The epic's business metrics, counted in the views. ClickHouse is asked in the background, never by a scrape, so that
its absence costs a scrape nothing but fresh numbers; how old they are is a metric as well.

Every gateway exports the same numbers: take the max of several, not the sum. A view that is behind or being made anew
counts less than has been counted before; the numbers here stay where they were until it has caught up.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pycountry
import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from gateway.problems import Problem
from gateway.queries import Views
from schemas.money import digits
from schemas.order import OrderStatus

LOOK = 15.0
"""Seconds between two looks, at least."""
SHARE = 0.02
"""Of the time that looking may take: the slower it is, the rarer."""

MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0
DURATION_BOUNDS = (
    *(MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, 12 * HOUR),
    *(days * DAY for days in (1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 14.0, 21.0, 30.0)),
)
"""Seconds."""
VALUE_BOUNDS = (10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1_000.0, 2_000.0, 5_000.0, 10_000.0, 100_000.0, 1_000_000.0)
"""Units of the currency."""
ACTIVE = (
    OrderStatus.PENDING_PAYMENT,
    OrderStatus.PAYMENT_CONFIRMED,
    OrderStatus.PROCESSING,
    OrderStatus.SHIPPED,
)

Counts = dict[str, float]
"""By label, '' without one."""

log = structlog.get_logger(__name__)


class Histogram:
    """Orders and their sum by label, cumulated over bounds as Prometheus has it. Each figure only grows."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self._counts: dict[str, list[float]] = {}
        self._sums: Counts = {}

    def grow(self, label: str, counts: Mapping[int, float], total: float) -> None:
        """`counts` by position in the bounds, from 1; 0 is beyond the last."""
        cumulated, so_far = [], 0.0
        for bucket in (*range(1, len(self.bounds) + 1), 0):
            so_far += counts.get(bucket, 0)
            cumulated.append(so_far)
        known = self._counts.get(label, [0.0] * len(cumulated))
        self._counts[label] = [max(pair) for pair in zip(known, cumulated, strict=True)]
        self._sums[label] = max(self._sums.get(label, 0.0), total)

    def samples(self) -> Iterator[tuple[str, list[tuple[str, float]], float]]:
        """(label, [(bound, orders up to it)], sum)."""
        names = [*(f"{bound:g}" if bound < 1e6 else f"{bound:.0f}" for bound in self.bounds), "+Inf"]
        for label, counts in self._counts.items():
            yield label, list(zip(names, counts, strict=True)), self._sums[label]


class BusinessMetrics(Collector):
    """Collects nothing until the first look has succeeded."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._looked = clock()
        self._ready = False
        self._created = 0.0
        self._cancelled: Counts = {}
        self._active: Counts = {}
        self._durations = Histogram(DURATION_BOUNDS)
        self._values = Histogram(VALUE_BOUNDS)

    async def run(self, views: Views) -> None:
        while True:
            began = time.monotonic()
            try:
                self.take(await views.rows("business_metrics", **parameters()))
            except Problem:
                log.warning("business metrics are as they were", age=round(self._clock() - self._looked))
            await asyncio.sleep(max(LOOK, (time.monotonic() - began) / SHARE))

    def take(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """The rows of `business_metrics.sql`."""
        statuses: Counts = defaultdict(float)
        durations: dict[int, float] = {}
        seconds = 0.0
        values: dict[str, dict[int, float]] = defaultdict(dict)
        sums: Counts = defaultdict(float)
        for row in rows:
            orders, bucket = float(row["orders"]), int(row["bucket"])
            match row["kind"]:
                case "status":
                    statuses[row["status"]] += orders
                    if row["status"] == OrderStatus.CANCELLED:
                        self._cancelled[row["reason"]] = max(self._cancelled.get(row["reason"], 0.0), orders)
                case "duration" if bucket >= 0:
                    durations[bucket] = orders
                    seconds += row["sum"]
                case "value" if bucket >= 0:
                    values[row["currency"]][bucket] = orders
                    sums[row["currency"]] += row["sum"] / 10 ** digits(row["currency"])
        self._created = max(self._created, sum(statuses.values()))
        self._active = {status: statuses.get(status, 0.0) for status in ACTIVE}
        self._durations.grow("", durations, seconds)
        for currency, counts in values.items():
            self._values.grow(currency, counts, sums[currency])
        self._looked = self._clock()
        self._ready = True

    def collect(self) -> Iterator[Metric]:
        age = GaugeMetricFamily("oms_business_metrics_age_seconds", "Since the orders were counted the last time.")
        age.add_metric([], self._clock() - self._looked)
        yield age
        if not self._ready:
            return
        yield CounterMetricFamily("orders_created", "Orders created.", value=self._created)
        [(_, delivered, total)] = self._durations.samples()
        yield CounterMetricFamily("orders_completed", "Orders delivered whole.", value=delivered[-1][1])
        cancelled = CounterMetricFamily("orders_cancelled", "Orders cancelled.", labels=["reason"])
        for reason, orders in self._cancelled.items():
            cancelled.add_metric([reason], orders)
        yield cancelled
        active = GaugeMetricFamily("active_orders", "Orders on their way, by status.", labels=["status"])
        for status, orders in self._active.items():
            active.add_metric([status], orders)
        yield active
        yield HistogramMetricFamily(
            "order_processing_duration", "Seconds from submission to delivery.", buckets=delivered, sum_value=total
        )
        value = HistogramMetricFamily(
            "order_value", "Totals of submitted orders, in units of the currency.", labels=["currency"]
        )
        for currency, buckets, total in self._values.samples():
            value.add_metric([currency], buckets, total)
        yield value


def parameters() -> dict[str, Any]:
    """Of `business_metrics.sql`: the bounds, and how many minor units a currency has where it isn't 100."""
    others = [name for name in _currencies() if digits(name) != 2]
    return {
        "duration_bounds": list(DURATION_BOUNDS),
        "value_bounds": list(VALUE_BOUNDS),
        "currencies": others,
        "minor_units": [float(10 ** digits(name)) for name in others],
    }


def _currencies() -> Iterator[str]:
    return (currency.alpha_3 for currency in pycountry.currencies)
