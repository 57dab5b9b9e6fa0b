"""Figures in words, for people: the same on the command line and on the dashboard."""

from __future__ import annotations

from typing import Any

NONE = "–"
"""What can't be said: a rate of nothing."""


def figure(value: Any, unit: str) -> str:
    """A KPI's value as its column's unit has it: "1,234", "93.5 %", "2.5 h", "4.31", "1,234.50 EUR"; NONE for None."""
    if value is None:
        return NONE
    match unit:
        case "count":
            return f"{value:,}"
        case "ratio":
            return f"{value:.1%}".replace("%", " %")
        case "seconds":
            return duration(value)
        case "points":
            return f"{value:.2f}"
        case "money":
            return f"{grouped(value['amount'])} {value['currency']}"
        case _:
            return str(value)


def duration(seconds: float) -> str:
    """With a precision that somebody can use: "340 ms", "2.50 s", "4.0 min", "36 h", "4.5 days"."""
    if seconds < 1:
        return f"{seconds * 1000:,.0f} ms"
    if seconds < 120:
        return f"{seconds:.2f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:,.1f} h"
    return f"{seconds / 86400:,.1f} days"


def age(seconds: float) -> str:
    """How long ago: "now", "5 s", "12 min", "3 h", "9 days"."""
    if seconds < 1:
        return "now"
    for length, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds // length:,.0f} {unit}"
    return f"{seconds:.0f} s"


def grouped(amount: str) -> str:
    """'1234567.80' → '1,234,567.80', whatever number of digits the currency has."""
    whole, point, fraction = amount.partition(".")
    return f"{int(whole):,}{point}{fraction}" if whole.lstrip("-") != "0" else amount
