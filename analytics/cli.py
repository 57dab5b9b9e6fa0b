"""What `oms kpi` and `oms sql` do: for people a table, for programs JSON or CSV."""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from analytics import kpis
from analytics.clickhouse import connect_analyst, opened
from analytics.kpis import Kpi, Row
from runtime.clickhouse_sql import trailing_format
from runtime.errors import UserError
from runtime.settings import Settings

Format = Literal["table", "json", "csv"]

_SHOWN = 1_000
"""Rows that `sql` shows of a result as a table."""


def kpi(
    settings: Settings, format: Format = "table", *, since: datetime | None = None, until: datetime | None = None
) -> None:
    """Print every KPI of the period [since, until) to stdout.

    Raises:
        UserError: ClickHouse does not answer.
    """
    period = {name: at for name, at in (("from", since), ("to", until)) if at is not None}
    with opened(settings, connect_analyst) as client:
        found = [(one, kpis.run(client, name, period)) for name, one in kpis.load().items()]
    match format:
        case "json":
            _print_json({one.name: _described(one, rows) for one, rows in found})
        case "csv":
            _print_csv(("kpi", "of", "measure", "value", "unit"), _measures(found))
        case "table":
            Console().print(kpi_table(found, _period_text(since, until)))


def sql(settings: Settings, query: str, format: Format = "table") -> None:
    """Run an analyst's query and print its result to stdout. It reads `oms` only, and changes nothing.

    Raises:
        UserError: ClickHouse does not answer, or refuses the query; the text is its own.
    """
    query = query.strip().rstrip(";")
    if named := trailing_format(query):
        raise UserError(f"Leave FORMAT {named} away, and choose with --format table, json or csv.")
    with opened(settings, connect_analyst) as client:
        if format == "table":
            found = client.query(query)
            _print_result(found.column_names, found.result_rows)
            return
        with client.raw_stream(query, fmt="CSVWithNames" if format == "csv" else "JSONEachRow") as stream:
            if format == "csv":
                shutil.copyfileobj(stream, sys.stdout.buffer)
            else:
                _print_json_lines(stream)
        sys.stdout.buffer.flush()


def kpi_table(found: Sequence[tuple[Kpi, list[Row]]], period: str = "all time") -> Table:
    """The KPIs and their rows as one table, within 80 columns."""
    table = Table(
        box=box.SIMPLE_HEAD, title=f"Key figures, {period}", title_justify="left", title_style="bold", pad_edge=False
    )
    table.add_column("KPI", no_wrap=True)
    table.add_column("of", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True, style="bold")
    table.add_column("target", justify="right", no_wrap=True)
    table.add_column("", style="dim")
    for one, rows in found:
        lines = [(line, row) for row in rows for line in one.lines]
        for number, (line, row) in enumerate(lines):
            texts = {name: _text(row[name], unit) for name, unit in one.columns.items()}
            table.add_row(
                one.title if number == 0 else "",
                Text(line.label.format(**texts)),
                texts[line.value],
                line.target or "",
                Text(line.note.format(**texts)),
                end_section=number == len(lines) - 1,
            )
        if not lines:
            table.add_row(one.title, "", "none", "", "", end_section=True)
    return table


def _described(one: Kpi, rows: list[Row]) -> dict[str, Any]:
    return {**one.model_dump(exclude={"name", "sql", "lines"}), "rows": rows}


def _measures(found: Sequence[tuple[Kpi, list[Row]]]) -> Iterator[tuple[str, str, str, Any, str]]:
    """A line per figure: of what (the row's texts), which measure, its plain value, its unit."""
    for one, rows in found:
        for row in rows:
            of = " ".join(str(row[name]) for name, unit in one.columns.items() if unit == "text")
            for name, unit in one.columns.items():
                value = row[name]
                if unit == "money":
                    yield one.name, of, name, value["amount"], value["currency"]
                elif unit != "text":
                    yield one.name, of, name, "" if value is None else value, unit


def _text(value: Any, unit: str) -> str:
    if value is None:
        return "–"
    match unit:
        case "count":
            return f"{value:,}"
        case "ratio":
            return f"{value:.1%}".replace("%", " %")
        case "seconds":
            return _duration(value)
        case "money":
            return f"{_grouped(value['amount'])} {value['currency']}"
        case _:
            return str(value)


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:,.0f} ms"
    if seconds < 120:
        return f"{seconds:.2f} s"
    if seconds < 7200:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:,.1f} h"


def _grouped(amount: str) -> str:
    """'1234567.80' → '1,234,567.80', whatever number of digits the currency has."""
    whole, point, fraction = amount.partition(".")
    return f"{int(whole):,}{point}{fraction}" if whole.lstrip("-") != "0" else amount


def _period_text(since: datetime | None, until: datetime | None) -> str:
    if since is None and until is None:
        return "all time"
    parts = [f"{word} {at.astimezone(UTC):%Y-%m-%d %H:%M} UTC" for word, at in (("from", since), ("to", until)) if at]
    return " ".join(parts)


def _print_result(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table; on a terminal that is too narrow for it, each row as a block of its own."""
    console = Console()
    left = len(rows) - _SHOWN
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        caption=f"{left:,} more rows: --format csv gives all"
        if left > 0
        else f"{len(rows):,} row{'s' * (len(rows) != 1)}",
        caption_justify="left",
    )
    for number, name in enumerate(names):
        is_number = bool(rows) and type(rows[0][number]) in (int, float)
        table.add_column(Text(name), justify="right" if is_number else "left", no_wrap=True)
    for row in rows[:_SHOWN]:
        table.add_row(*(Text(_cell(value)) for value in row))
    width = Measurement.get(console, console.options.update(max_width=1_000_000), table).maximum
    if width <= console.width or not console.is_terminal:
        Console(width=max(width, console.width)).print(table)
        return
    for number, row in enumerate(rows[:_SHOWN], start=1):
        console.rule(Text(f"row {number}"), align="left", style="dim")
        block = Table.grid(padding=(0, 2))
        for name, value in zip(names, row, strict=True):
            block.add_row(Text(name, style="dim"), Text(_cell(value), overflow="fold"))
        console.print(block)
    console.print(table.caption, style="dim")


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", "")
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_cell, value))
    return "" if value is None else str(value)


def _print_json(value: Any) -> None:
    print(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def _print_json_lines(stream: Any) -> None:
    """A JSON array of the lines, as they come."""
    out = sys.stdout.buffer
    left, separator = b"", b"[\n "
    while part := stream.read(65_536):
        *lines, left = (left + part).split(b"\n")
        for line in lines:
            out.write(separator + line)
            separator = b",\n "
    out.write(b"\n]\n" if separator.startswith(b",") else b"[]\n")


def _print_csv(head: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
