"""Rows → what a person reads: tiles, bars, ages. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import log
from typing import Any, Literal

from analytics.kpis import Kpi, Row, Target, load
from analytics.wording import NONE, age, duration, figure
from gateway.dashboard.contents import Found, Now

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NO_BREAK = "\u00a0"
"""A space that no line breaks at."""

Verdict = Literal["met", "missed", "open", "none"]
"""Of a KPI about its target: `open` while there is nothing to judge, `none` where no target is set."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A KPI in one number, in words."""

    name: str
    title: str
    question: str
    label: str
    value: str
    note: str
    target: str
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of a table, with a bar of `share` (0 to 1) of the width; `figures` in words."""

    label: str
    share: float
    figures: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Span:
    """A row of a table, with a bar from P50 to P95: shares (0 to 1) of the width of a logarithmic axis."""

    label: str
    figures: tuple[str, ...]
    p50: float
    p95: float


def shown(found: Found, now: datetime) -> dict[str, Any]:
    """What the template of the dashboard takes, besides who looks and the period."""
    return {
        "state": "live" if found.complete else "stale" if found.now or found.figures else "nothing",
        "now": found.now and _now(found.now, now),
        "figures": found.figures and _figures(found.figures),
    }


def tiles(rows: Mapping[str, Sequence[Row]], kpis: Mapping[str, Kpi]) -> Iterator[Tile]:
    """One per line of the KPIs' headlines."""
    for name, kpi in kpis.items():
        for row in rows[name]:
            texts = {column: figure(row[column], unit) for column, unit in kpi.columns.items()}
            for line in kpi.headline:
                target = kpi.target if kpi.target and kpi.target.column == line.value else None
                note = line.note.format(**texts)
                yield Tile(
                    name=name,
                    title=kpi.title,
                    question=kpi.question,
                    label=line.label.format(**texts),
                    value=texts[line.value],
                    note="" if NONE in note else note,
                    target=_target(target, kpi.columns[line.value]) if target else "",
                    verdict=_verdict(target, row[line.value]),
                )


def bars(rows: Sequence[Row], label: str, value: str, *others: tuple[str, str]) -> list[Bar]:
    """The columns `label` and `value` (a count) of the rows, and `others` (column, unit); the longest bar is full."""
    most = max((row[value] for row in rows), default=0)
    return [
        Bar(
            words(row[label]),
            row[value] / most if most else 0,
            (figure(row[value], "count"), *(figure(row[column], unit) for column, unit in others)),
        )
        for row in rows
    ]


def spans(rows: Sequence[Row], label: str) -> list[Span]:
    """The columns `label`, `orders`, `p50` and `p95` (seconds) of the rows."""
    times = [max(row[column], _SHORTEST) for row in rows for column in ("p50", "p95")]
    if not times:
        return []
    low, high = log(min(times) / 1.5), log(max(times) * 1.1)

    def place(seconds: float) -> float:
        return (log(max(seconds, _SHORTEST)) - low) / (high - low)

    return [
        Span(
            words(row[label]),
            (figure(row["orders"], "count"), duration(row["p50"]), duration(row["p95"])),
            place(row["p50"]),
            place(row["p95"]),
        )
        for row in rows
    ]


_SHORTEST = 0.001
"""Seconds; a logarithmic axis has no zero."""


def words(name: str) -> str:
    """As a person says it: PENDING_PAYMENT, OrderPaymentConfirmed, out_of_stock → "Pending payment", …"""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.removeprefix("Order") or name)
    return apart.replace("_", " ").capitalize()


def events(rows: Sequence[Row], now: datetime) -> list[dict[str, str]]:
    """Of `newest_events`, for the tail."""
    return [
        {
            "id": row["id"],
            "what": words(row["type"]),
            "order_id": row["order_id"],
            # The order's own view may be a moment behind.
            "number": row["number"] or row["order_id"][:8],
            "actor": row["actor"],
            "age": age((now - _time(row["at_us"])).total_seconds()),
        }
        for row in rows
    ]


def timeline(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Of `order_events`: each with the time since the one before it."""
    times = [_time(row["occurred_us"]) for row in rows]
    before = [None, *times]
    return [
        {
            "version": row["version"],
            "what": words(row["type"]),
            "at": at,
            "actor": row["actor"],
            "after": duration((at - last).total_seconds()) if last else "",
        }
        for row, at, last in zip(rows, times, before, strict=False)
    ]


def _now(found: Now, now: datetime) -> dict[str, Any]:
    minutes = found.orders_a_minute
    return {
        "at": found.at,
        "minutes": [{**row, "at": datetime.fromtimestamp(row["minute"], UTC)} for row in minutes],
        "totals": {name: sum(row[name] for row in minutes) for name in ("created", "paid", "cancelled")},
        "events": events(found.newest_events, now),
        "exceptions": [
            {
                "what": words(row["kind"]),
                "count": int(row["exceptions"]),
                "age": age((now - _time(row["oldest_us"])).total_seconds()),
            }
            for row in found.open_exceptions
        ],
    }


def _figures(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    with_target = {name: kpi for name, kpi in load().items() if kpi.target}
    without = {name: kpi for name, kpi in load().items() if not kpi.target and not kpi.keys}
    return {
        "tiles": list(tiles(rows, with_target)),
        "others": list(tiles(rows, without)),
        "active": bars(rows["active_orders"], "status", "orders"),
        "cancellations": bars(rows["cancellations_by_reason"], "reason", "orders", ("share", "ratio")),
        "funnel": bars(rows.get("funnel", []), "step", "orders", ("share", "ratio")),
        "durations": spans(rows["saga_durations"], "saga"),
        "revenue": [
            {name: figure(row[name], unit) for name, unit in load()["average_order_value"].columns.items()}
            for row in rows["average_order_value"]
        ],
    }


def _target(target: Target, unit: str) -> str:
    bound = re.sub(r"(\.\d*?)0+(?!\d)", lambda found: found[1].rstrip("."), figure(target.bound, unit))  # 95.0 % → 95 %
    return f"target {'>' if target.over is not None else '<'} {bound}".replace(" ", NO_BREAK)


def _verdict(target: Target | None, value: float | None) -> Verdict:
    if target is None:
        return "none"
    match target.met(value):
        case None:
            return "open"
        case met:
            return "met" if met else "missed"


def _time(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=int(micros))
