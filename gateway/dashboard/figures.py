"""Rows → what a person reads: tiles, bars, ages. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import log
from typing import Any, Literal

from analytics.kpis import Kpi, Row, Unit, Verdict, headline, load, text
from gateway import times
from gateway.dashboard.contents import OTHERS, Found, Now

NO_BREAK = "\u00a0"
"""A space that no line breaks at."""

BEHIND = 10.0
"""Seconds that views may be behind before it is worth a word."""
FEWEST_MINUTES = 15
"""Of the chart, on a stack that is younger than an hour."""


@dataclass(frozen=True, slots=True)
class Tile:
    """A KPI in one number, in words."""

    name: str
    title: str
    label: str
    value: str
    note: str
    target: str
    verdict: Verdict | Literal["none"]
    """`none` where no target is set, or there is nothing to judge."""


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
        "behind": age(found.now.behind) if found.now and found.now.behind > BEHIND else "",
        "now": found.now and {"at": found.now.as_of, **_now(found.now.value, now)},
        "figures": found.figures and {"at": found.figures.as_of, **_figures(found.figures.value)},
    }


def tiles(rows: Mapping[str, Sequence[Row]], kpis: Iterable[Kpi]) -> Iterator[Tile]:
    """One per line of the KPIs' headlines."""
    for kpi in kpis:
        for line in headline(kpi, rows[kpi.name]):
            yield Tile(
                name=kpi.name,
                title=kpi.title,
                label=line["label"],
                value=line["text"],
                note=line["note"] if line["value"] is not None else "",
                target=f"target {line['target']}".replace(" ", NO_BREAK) if line["target"] else "",
                verdict=line["verdict"] or "none",
            )


def bars(rows: Sequence[Row], label: str, value: str, *others: tuple[str, Unit]) -> list[Bar]:
    """The columns `label` and `value` (a count) of the rows, and `others` (column, unit); the longest bar is full."""
    most = max((row[value] for row in rows), default=0)
    return [
        Bar(
            words(row[label]),
            row[value] / most if most else 0,
            (text(row[value], "count"), *(text(row[column], unit) for column, unit in others)),
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
            (text(row["orders"], "count"), text(row["p50"], "seconds"), text(row["p95"], "seconds")),
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
            "age": age((now - times.of(row["at_us"])).total_seconds()),
        }
        for row in rows
    ]


def timeline(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Of `order_events`: each with the time since the one before it."""
    moments = [times.of(row["occurred_us"]) for row in rows]
    before = [None, *moments]
    return [
        {
            "version": row["version"],
            "what": words(row["type"]),
            "at": at,
            "actor": row["actor"],
            "after": text((at - last).total_seconds(), "seconds") if last else "",
        }
        for row, at, last in zip(rows, moments, before, strict=False)
    ]


def _now(found: Now, now: datetime) -> dict[str, Any]:
    minutes = _since_the_first(found.orders_a_minute)
    return {
        "minutes": [{**row, "at": datetime.fromtimestamp(row["minute"], UTC)} for row in minutes],
        "totals": {name: sum(row[name] for row in minutes) for name in ("created", "paid", "cancelled")},
        "events": events(found.newest_events, now),
        "exceptions": [
            {
                "what": words(row["kind"]),
                "count": int(row["exceptions"]),
                "age": age((now - times.of(row["oldest_us"])).total_seconds()),
            }
            for row in found.open_exceptions
        ],
    }


def _since_the_first(minutes: list[Row]) -> list[Row]:
    """Without the quiet ones before the first order, but no fewer than there is something to see in."""
    first = next((at for at, row in enumerate(minutes) if row["created"] or row["paid"] or row["cancelled"]), 0)
    return minutes[max(0, min(first - 1, len(minutes) - FEWEST_MINUTES)) :]


def _figures(rows: Mapping[str, Sequence[Row]]) -> dict[str, Any]:
    catalogue = load()
    created = sum(row["orders"] for row in rows["funnel"])
    return {
        "tiles": list(tiles(rows, (kpi for kpi in catalogue.values() if kpi.target))),
        "others": list(tiles(rows, (catalogue[name] for name in OTHERS))),
        "funnel": bars(rows["funnel"] if created else [], "stage", "orders", ("of_created", "ratio")),
        "times": spans(rows["time_in_status"], "status"),
        "active": bars(rows["active_orders"], "status", "orders"),
        "cancellations": bars(rows["cancellations_by_reason"], "reason", "orders", ("share", "ratio")),
        "revenue": [
            {name: text(row[name], unit) for name, unit in catalogue["revenue"].columns.items()}
            for row in rows["revenue"]
        ],
    }


def age(seconds: float) -> str:
    """How long ago: "now", "5 s", "12 min", "3 h", "9 days"."""
    if seconds < 1:
        return "now"
    for length, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds // length:,.0f} {unit}"
    return f"{seconds:.0f} s"
