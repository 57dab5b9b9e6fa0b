"""What `oms sql` does: for people a table, for programs JSON or CSV."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from analytics.clickhouse import connect_analyst, opened
from runtime.clickhouse_sql import trailing_format
from runtime.errors import UserError
from runtime.settings import Settings

Format = Literal["table", "json", "csv"]

_STREAMED: dict[Format, str] = {"csv": "CSVWithNames", "json": "JSONEachRow"}
_SHOWN = 1_000
"""Rows that `sql` shows of a result as a table."""


def sql(settings: Settings, query: str, format: Format = "table", *, parameters: dict[str, str] | None = None) -> None:
    """Run an analyst's query and print its result to stdout. It reads `oms` only, and changes nothing. `parameters`:
    the values of its {name:Type}.

    Raises:
        UserError: ClickHouse does not answer, or refuses the query; the text is its own.
    """
    query = query.strip().rstrip(";")
    if named := trailing_format(query):
        raise UserError(f"Leave FORMAT {named} away, and choose with --format table, json or csv.")
    with opened(settings, connect_analyst) as client:
        if format == "table":
            found = client.query(query, parameters=parameters)
            _print_result(found.column_names, found.result_rows)
            return
        with client.raw_stream(query, parameters=parameters, fmt=_STREAMED[format]) as stream:
            if format == "csv":
                shutil.copyfileobj(stream, sys.stdout.buffer)
            else:
                _print_json_lines(stream)
        sys.stdout.buffer.flush()


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
