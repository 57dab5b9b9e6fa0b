"""The business metrics by themselves: what becomes of counts, and of ClickHouse's absence."""

from __future__ import annotations

import asyncio
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest

from gateway.business_metrics import BusinessMetrics
from gateway.problems import unavailable


def rows(cancelled: int, small: int, large: int) -> list[dict[str, Any]]:
    """Orders that were cancelled, and submitted ones up to 10 EUR and up to 20."""
    row = {"kind": "", "status": "", "reason": "", "currency": "", "bucket": -1, "orders": 0, "sum": 0.0}
    return [
        {**row, "kind": "status", "status": "CANCELLED", "reason": "fraud", "orders": cancelled},
        {**row, "kind": "status", "status": "SHIPPED", "orders": small + large},
        {**row, "kind": "duration", "orders": cancelled + small + large},
        {**row, "kind": "value", "currency": "EUR", "bucket": 1, "orders": small, "sum": small * 500.0},
        {**row, "kind": "value", "currency": "EUR", "bucket": 2, "orders": large, "sum": large * 1500.0},
    ]


def exported(metrics: BusinessMetrics) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(metrics)
    lines = [x for x in generate_latest(registry).decode().splitlines() if not x.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_a_view_made_anew_turns_no_counter_back() -> None:
    metrics = BusinessMetrics()
    metrics.take(rows(cancelled=3, small=2, large=2))
    full = exported(metrics)
    metrics.take(rows(cancelled=1, small=0, large=1))
    behind = exported(metrics)
    assert behind["orders_created_total"] == full["orders_created_total"] == 7
    assert behind['orders_cancelled_total{reason="fraud"}'] == 3
    assert behind['order_value_bucket{currency="EUR",le="10"}'] == 2
    assert behind['order_value_count{currency="EUR"}'] == 4
    assert behind['order_value_sum{currency="EUR"}'] == 40
    assert behind['active_orders{status="SHIPPED"}'] == 1, "a gauge says what is"
    metrics.take(rows(cancelled=4, small=5, large=2))
    assert exported(metrics)['order_value_bucket{currency="EUR",le="20"}'] == 7


def test_buckets_are_cumulated_though_orders_change_theirs() -> None:
    metrics = BusinessMetrics()
    metrics.take(rows(cancelled=0, small=4, large=0))
    metrics.take(rows(cancelled=0, small=0, large=5))
    found = exported(metrics)
    counts = [value for name, value in found.items() if name.startswith("order_value_bucket")]
    assert counts == sorted(counts)
    assert counts[-1] == found['order_value_count{currency="EUR"}'] == 5


class Views:
    def __init__(self, away: bool) -> None:
        self.away = away
        self.asked = asyncio.Event()

    async def rows(self, statement: str, **parameters: Any) -> list[dict[str, Any]]:
        assert statement == "business_metrics"
        self.asked.set()
        if self.away:
            raise unavailable("clickhouse-unavailable", "away")
        return rows(cancelled=1, small=1, large=1)


def test_without_clickhouse_there_are_no_numbers_and_their_age_grows() -> None:
    now = 100.0
    metrics = BusinessMetrics(clock=lambda: now)

    async def looked(away: bool) -> None:
        views = Views(away)
        task = asyncio.create_task(metrics.run(views))  # type: ignore[arg-type]
        await views.asked.wait()
        await asyncio.sleep(0)
        assert not task.done()
        task.cancel()

    now = 107.0
    asyncio.run(looked(away=True))
    assert exported(metrics) == {"oms_business_metrics_age_seconds": 7}
    asyncio.run(looked(away=False))
    found = exported(metrics)
    assert (found["oms_business_metrics_age_seconds"], found["orders_created_total"]) == (0, 3)
    now = 110.0
    asyncio.run(looked(away=True))
    assert exported(metrics) == {**found, "oms_business_metrics_age_seconds": 3}
