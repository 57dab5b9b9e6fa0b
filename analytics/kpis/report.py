"""KPIs for people: what they mean and their figures as texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .asked import GRAINS
from .reading import Row
from .sidecars import DIMENSIONS, Kpi, Target, Unit

_SPANS = ((1, "{:,.0f} ms", 0.001), (120, "{:.2f} s", 1), (7_200, "{:.1f} min", 60), (172_800, "{:.1f} h", 3_600))


def described(kpi: Kpi) -> dict[str, Any]:
    """The KPI as JSON data, without its query."""
    target = None
    if kpi.target is not None:
        target = {**kpi.target.model_dump(exclude_none=True), "text": target_text(kpi, kpi.target)}
    return {
        **kpi.model_dump(exclude={"sql", "headline", "dimensions", "target"}),
        "target": target,
        "grains": list(GRAINS),
        "dimensions": {name: DIMENSIONS[name] for name in kpi.dimensions},
    }


def headline(kpi: Kpi, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """The rows as the report shows them: {label, column, value, unit, text, note, target, verdict}; the verdict is None
    where there is no target or nothing to judge."""
    return [_line(kpi, line, row) for row in rows for line in kpi.headline]


def _line(kpi: Kpi, line: Any, row: Row) -> dict[str, Any]:
    texts = {name: text(row[name], unit) for name, unit in kpi.columns.items()}
    target = kpi.target if kpi.target is not None and kpi.target.column == line.value else None
    return {
        "label": line.label.format(**texts),
        "column": line.value,
        "value": row[line.value],
        "unit": kpi.columns[line.value],
        "text": texts[line.value],
        "note": line.note.format(**texts),
        "target": target_text(kpi, target) if target else None,
        "verdict": target.verdict(row) if target else None,
    }


def target_text(kpi: Kpi, target: Target) -> str:
    """'> 95 %'."""
    return f"{'>' if target.over is not None else '<'} {_bound(target.bound, kpi.columns[target.column])}"


def text(value: Any, unit: Unit) -> str:
    """A figure for people: 0.955 of a ratio is '95.5 %'."""
    if value is None:
        return "–"
    match unit:
        case "count":
            return f"{value:,}"
        case "ratio":
            return f"{value * 100:.1f} %"
        case "seconds":
            return _span(value)
        case "points" | "number":
            return f"{value:.2f}"
        case "money":
            return f"{_grouped(value['amount'])} {value['currency']}"
        case "text":
            return str(value)


def _bound(value: float, unit: Unit) -> str:
    match unit:
        case "ratio":
            return f"{value * 100:g} %"
        case "seconds" if value % 86_400 == 0:
            return f"{value / 86_400:g} days"
        case _:
            return f"{value:g}"


def _span(seconds: float) -> str:
    for most, form, unit in _SPANS:
        if seconds < most:
            return form.format(seconds / unit)
    return f"{seconds / 86_400:,.1f} days"


def _grouped(amount: str) -> str:
    """'1234567.80' → '1,234,567.80', whatever number of digits the currency has."""
    whole, point, fraction = amount.partition(".")
    return f"{int(whole):,}{point}{fraction}" if whole.lstrip("-") != "0" else amount
