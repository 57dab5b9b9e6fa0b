"""KPIs out of ClickHouse: the query's rows → rows as the API has them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.client import Client

from schemas.money import Money

from .asked import Asked, asked
from .sidecars import Kpi, load

Row = dict[str, Any]


def run(client: Client, name: str, params: Mapping[str, Any] | None = None) -> list[Row]:
    """The KPI's rows as JSON data, ordered by period, group and key: counts are int, ratios, seconds and points float,
    money {"amount": "129.90", "currency": "EUR"}, what can't be said (a rate of nothing) None. With a grain each row
    begins with `at`, the period's beginning ("2026-03-29T00:00:00+01:00"), with group_by follows the dimension under
    its name. A period or group without anything has no row; the whole of a KPI of one row always has one.
    `params`: see `asked`; default: all time, whole.

    Raises:
        KeyError: no such KPI.
        BadParameter: a parameter can't be.
        clickhouse_connect.driver.exceptions.Error: ClickHouse is away, or the views are not there yet.
    """
    kpi = load()[name]
    what = asked(kpi, params)
    found = client.query(kpi.sql, parameters=what.parameters())
    return _rows(kpi, what, found.result_rows) or _none(kpi, what)


async def run_async(client: AsyncClient, name: str, params: Mapping[str, Any] | None = None) -> list[Row]:
    """`run` for the event loop."""
    kpi = load()[name]
    what = asked(kpi, params)
    found = await client.query(kpi.sql, parameters=what.parameters())
    return _rows(kpi, what, found.result_rows) or _none(kpi, what)


@contextmanager
def stream(client: Client, kpi: Kpi, what: Asked) -> Iterator[Iterator[list[Row]]]:
    """The rows of `run`, in blocks as they come."""
    with client.query_row_block_stream(kpi.sql, parameters=what.parameters()) as blocks:

        def found() -> Iterator[list[Row]]:
            came = False
            for block in blocks:
                came = came or bool(block)
                yield _rows(kpi, what, block)
            if not came:
                yield _none(kpi, what)

        yield found()


@asynccontextmanager
async def stream_async(client: AsyncClient, kpi: Kpi, what: Asked) -> AsyncIterator[AsyncIterator[list[Row]]]:
    """`stream` for the event loop."""
    async with await client.query_row_block_stream(kpi.sql, parameters=what.parameters()) as blocks:

        async def found() -> AsyncIterator[list[Row]]:
            came = False
            async for block in blocks:
                came = came or bool(block)
                yield _rows(kpi, what, block)
            if not came:
                yield _none(kpi, what)

        yield found()


def _none(kpi: Kpi, what: Asked) -> list[Row]:
    """What there is when there is no row."""
    if what.grain is not None or what.group_by is not None or kpi.keys:
        return []
    return [{name: 0 if unit == "count" else None for name, unit in kpi.columns.items()}]


def _rows(kpi: Kpi, what: Asked, found: Iterable[Sequence[Any]]) -> list[Row]:
    return [_row(kpi, what, *values) for values in found]


def _row(kpi: Kpi, what: Asked, at: datetime, group: str, *figures: Any) -> Row:
    row: Row = {}
    if what.grain is not None:
        row["at"] = at.astimezone(ZoneInfo(what.tz)).isoformat()
    if what.group_by is not None:
        row[what.group_by] = group
    row.update(zip(kpi.columns, figures, strict=True))
    for name, unit in kpi.columns.items():
        if unit == "money":
            row[name] = Money.of(row[name], row["currency"]).model_dump()
    return row
