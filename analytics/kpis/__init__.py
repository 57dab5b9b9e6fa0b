"""The KPIs: each is `NAME.sql`, and beside it `NAME.yaml` with what it means and how its columns are to be read.

A KPI takes a period [from, to), and counts what happened in it by the events' own times. Every query deduplicates
(FINAL), so that a replay changes no number.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.client import Client
from pydantic import BaseModel, ConfigDict, Field

from schemas.money import Money

ORDER = (
    "orders_created",
    "completion",
    "cancellations_by_reason",
    "average_order_value",
    "time_to_payment",
    "active_orders",
)
"""How a report lists them."""

EARLIEST = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)

Unit = Literal["text", "count", "ratio", "seconds", "money"]
Row = dict[str, Any]


class Line(BaseModel):
    """How a report shows a row: `label` and `note` name columns in braces, `value` is one; `target` is the value's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    value: str
    note: str = ""
    target: str | None = None


class Kpi(BaseModel):
    """`unit` is the headline's; `columns` says how each column is to be read: ratio 0…1, money in the `currency` of
    its row."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    question: str
    meaning: str
    grain: str
    unit: str
    target: str | None = Field(default=None, description="what the business wants, in words")
    columns: dict[str, Unit]
    lines: tuple[Line, ...]
    sql: str


@cache
def load() -> dict[str, Kpi]:
    """All KPIs by name, in the order in which a report lists them."""
    return {name: _read(name) for name in ORDER}


def run(client: Client, name: str, params: Mapping[str, datetime] | None = None) -> list[Row]:
    """The KPI's rows as JSON data: counts are int, ratios and seconds float, money {"amount": "129.90", "currency":
    "EUR"}, what can't be said (a rate of nothing) None. `params`: `from` (inclusive) and `to` (exclusive), with time
    zone; default: all time.

    Raises:
        KeyError: no such KPI.
        clickhouse_connect.driver.exceptions.Error: ClickHouse is away, or the views are not there yet.
    """
    kpi = load()[name]
    found = client.query(kpi.sql, parameters=_period(params))
    return _rows(kpi, found.column_names, found.result_rows)


async def run_async(client: AsyncClient, name: str, params: Mapping[str, datetime] | None = None) -> list[Row]:
    """`run` for the event loop."""
    kpi = load()[name]
    found = await client.query(kpi.sql, parameters=_period(params))
    return _rows(kpi, found.column_names, found.result_rows)


def _period(params: Mapping[str, datetime] | None) -> dict[str, Any]:
    period = {"from": EARLIEST, "to": LATEST, **(params or {})}
    if unknown := period.keys() - {"from", "to"}:
        raise ValueError(f"a KPI has no parameter {', '.join(sorted(unknown))}")
    return {name: at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f") for name, at in period.items()}


def _rows(kpi: Kpi, names: Sequence[str], found: Iterable[Sequence[Any]]) -> list[Row]:
    rows = [dict(zip(names, values, strict=True)) for values in found]
    money = [name for name, unit in kpi.columns.items() if unit == "money"]
    return [{**row, **{name: Money.of(row[name], row["currency"]).model_dump() for name in money}} for row in rows]


def _read(name: str) -> Kpi:
    folder = files(__package__)
    sidecar = yaml.safe_load((folder / f"{name}.yaml").read_text())
    return Kpi(name=name, sql=(folder / f"{name}.sql").read_text(), **sidecar)
