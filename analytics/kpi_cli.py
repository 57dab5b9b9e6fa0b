"""What `oms kpi` does: for people a table, for programs JSON, CSV or Parquet."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

import orjson
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from analytics import kpis
from analytics.clickhouse import connect_analyst, opened
from analytics.kpis import Asked, Kpi, Row
from analytics.kpis.exports import MEDIA_TYPES, export, names
from runtime.errors import UserError
from runtime.settings import Settings

Format = Literal["table", "json", "csv", "parquet"]

_SHOWN = 3
"""Rows of one KPI in the report of all."""


def kpi(settings: Settings, name: str | None = None, format: Format = "table", **params: str | None) -> None:
    """Print one KPI, or without a name the figures that matter of all of them, to stdout. `params`: what is asked of
    it, as `kpis.asked` has it.

    Raises:
        UserError: there is no such KPI, it can't be asked for this, or ClickHouse does not answer.
    """
    chosen = _chosen(name)
    what: dict[str, Any] = {"now": datetime.now(UTC), **params}
    try:
        asked = [kpis.asked(one, what) for one in chosen]
    except kpis.BadParameter as error:
        raise UserError(f"--{error.field.replace('_', '-')} {error.detail}.") from error
    if name is None:
        _print_all(settings, what, asked[0], format)
    elif format in MEDIA_TYPES:
        _export(settings, chosen[0], asked[0], format)
    else:
        with opened(settings, connect_analyst) as client:
            rows = kpis.run(client, name, what)
        if format == "json":
            _print_json({**kpis.described(chosen[0]), "rows": rows})
        else:
            print_kpi(Console(), chosen[0], asked[0], rows)


def _chosen(name: str | None) -> list[Kpi]:
    catalogue = kpis.load()
    if name is None:
        return list(catalogue.values())
    if name not in catalogue:
        raise UserError(f"There is no KPI {name}; there are {', '.join(catalogue)}.")
    return [catalogue[name]]


def _print_all(settings: Settings, what: dict[str, Any], asked: Asked, format: Format) -> None:
    if format == "parquet":
        raise UserError("A Parquet file holds one table: say which KPI, as in `oms kpi revenue --format parquet`.")
    # People get the figures that matter, programs get all.
    chosen = [one for one in kpis.load().values() if one.headline or format != "table"]
    with opened(settings, connect_analyst) as client:
        found = [(one, kpis.run(client, one.name, what)) for one in chosen]
    match format:
        case "json":
            _print_json({one.name: {**kpis.described(one), "rows": rows} for one, rows in found})
        case "csv":
            _print_csv(("kpi", "of", "measure", "value", "unit"), _measures(found))
        case "table":
            Console().print(headline_table(found, period_text(asked)))


def _export(settings: Settings, one: Kpi, asked: Asked, format: Format) -> None:
    if format == "parquet" and sys.stdout.isatty():
        raise UserError(f"Parquet is nothing to look at: send it to a file, `… > {one.name}.parquet`.")
    out, file = sys.stdout.buffer, export(format, one, asked)
    with opened(settings, connect_analyst) as client, kpis.stream(client, one, asked) as blocks:
        for rows in blocks:
            out.write(file.block(rows))
    out.write(file.end())
    out.flush()


def headline_table(found: Sequence[tuple[Kpi, list[Row]]], period: str = "all time") -> Table:
    """The figures that matter, those with a target first, within 80 columns; of each no more than a few."""
    table = Table(
        box=box.SIMPLE_HEAD,
        title=f"Key figures, {period}",
        title_justify="left",
        title_style="bold",
        caption="More: oms kpi NAME, also " + ", ".join(n for n, k in kpis.load().items() if not k.headline),
        caption_justify="left",
        pad_edge=False,
    )
    table.add_column("KPI", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True, style="bold")
    table.add_column("target", no_wrap=True)
    table.add_column("", style="dim")
    for one, rows in found:
        lines = kpis.headline(one, rows)
        for number, line in enumerate(lines[:_SHOWN]):
            said = " ".join(part for part in (line["label"], line["note"]) if part)
            if number == _SHOWN - 1 and len(lines) > _SHOWN:
                said += f", and {len(lines) - _SHOWN} more"
            table.add_row(one.title if number == 0 else "", line["text"], _judged(line), Text(said))
        if not lines:
            table.add_row(one.title, "none", "", "")
    return table


def _judged(line: dict[str, Any]) -> Text:
    match line["verdict"]:
        case "met":
            return Text(f"✓ {line['target']}", style="green")
        case "missed":
            return Text(f"✗ {line['target']}", style="red")
        case "open":
            return Text(f"… {line['target']} open")
        case _:
            return Text(f"  {line['target'] or ''}", style="dim")


def print_kpi(console: Console, one: Kpi, asked: Asked, rows: list[Row]) -> None:
    """One KPI whole: what it means, and its rows."""
    console.print(Text(f"{one.title}, {period_text(asked)}", style="bold"))
    console.print(Text(one.meaning, style="dim"))
    if one.target is not None:
        console.print(Text(f"Target: {one.target.column} {kpis.target_text(one, one.target)}", style="dim"))
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in names(one, asked):
        is_text = one.columns.get(name, "text") == "text"
        justify: Literal["left", "right"] = "left" if is_text else "right"
        table.add_column(Text(name.replace("_", " ")), justify=justify, no_wrap=name == "at")
    for row in rows:
        at = [Text(_clock(row["at"], asked.grain))] if "at" in row else []
        table.add_row(*at, *(_figure(one, name, row) for name in row if name != "at"))
    console.print(table if rows else Text("\nnone"))


def _clock(at: str, grain: str | None) -> str:
    """A period's beginning, as short as it can be: '2026-03-29', '2026-10-25 02:00+01:00'."""
    return at[:10] if grain != "hour" else f"{at[:10]} {at[11:16]}{at[19:]}"


def _figure(one: Kpi, name: str, row: Row) -> Text:
    shown = Text(kpis.text(row[name], one.columns.get(name, "text")))
    if one.target is not None and one.target.column == name:
        shown.stylize(_STYLES.get(one.target.verdict(row), ""))
    return shown


_STYLES: Mapping[kpis.Verdict | None, str] = {"met": "green", "missed": "red"}


def period_text(asked: Asked) -> str:
    """'from 2026-03-01 00:00 Europe/Berlin'."""
    zone = ZoneInfo(asked.tz)
    ends = (("from", asked.since, kpis.EARLIEST), ("to", asked.until, kpis.LATEST))
    parts = [f"{word} {at.astimezone(zone):%Y-%m-%d %H:%M}" for word, at, end in ends if at != end]
    return f"{' '.join(parts)} {asked.tz}" if parts else "all time"


def _measures(found: Sequence[tuple[Kpi, list[Row]]]) -> Iterator[tuple[str, str, str, Any, str]]:
    """A line per figure: of what (the row's texts), which measure, its plain value, its unit."""
    for one, rows in found:
        for row in rows:
            of = " ".join(row[name] for name in one.keys)
            for name, unit in one.columns.items():
                value = row[name]
                if unit == "money":
                    yield one.name, of, name, value["amount"], value["currency"]
                elif unit != "text":
                    yield one.name, of, name, "" if value is None else value, unit


def _print_json(value: Any) -> None:
    print(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())


def _print_csv(head: Sequence[str], rows: Iterator[Sequence[Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
