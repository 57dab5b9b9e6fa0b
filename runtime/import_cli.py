"""`oms import FILE.jsonl`: the command around `runtime.imports`."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from processors.order.history import PastOrder
from runtime import logs
from runtime.errors import UserError
from runtime.imports import Importer, Tally, lines_of
from runtime.stack import stack_settings


def command(
    file: Annotated[Path | None, typer.Argument(help="JSON lines, an order each (docs/import.md)")] = None,
    source: Annotated[str, typer.Option(help="name of the other system: ids are unique within it")] = "import",
    report: Annotated[Path | None, typer.Option(help="rejected lines go here; default: FILE.rejected.jsonl")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="print the format's JSON schema and do nothing")] = False,
    data_dir: Annotated[
        Path, typer.Option("--data-dir", envvar="OMS_DATA_DIR", help="of the running stack", show_envvar=False)
    ] = Path(".oms"),
) -> None:
    """Bring in history from another system. It can be stopped and started again; nothing is imported twice or by
    halves. Exits 1 when lines were rejected."""
    if schema:
        typer.echo(json.dumps(PastOrder.model_json_schema(), indent=2))
        return
    if file is None:
        raise UserError("Which file? `oms import FILE.jsonl` (or --schema for its format).")
    logs.configure("oms-cli")  # to stderr: stdout has the result
    logging.getLogger().setLevel(logging.WARNING)
    size = _size(file)
    rejected = report or file.with_name(f"{file.name}.rejected.jsonl")
    began = time.monotonic()
    with (
        rejected.open("w") as out,
        Progress(
            TextColumn("importing"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        ) as progress,
    ):
        task = progress.add_task("", total=size, said="")

        def show(tally: Tally) -> None:
            rate = tally.lines / max(0.001, time.monotonic() - began)
            progress.update(task, said=f"{tally.imported:,} orders, {tally.rejected:,} rejected, {rate:,.0f}/s")

        def read() -> Iterator[bytes]:
            for line in lines_of(file):
                progress.advance(task, len(line))
                yield line

        importer = Importer(stack_settings(data_dir), source, out, show)
        tally = importer.run(read())
    seconds = time.monotonic() - began
    typer.echo(
        f"{tally.imported:,} orders imported, {tally.known:,} there already, {tally.rejected:,} rejected, "
        f"in {seconds:.1f} s ({tally.lines / max(0.001, seconds):,.0f} lines/s)"
    )
    if tally.rejected:
        typer.echo(f"the rejected lines and their reasons: {rejected}", err=True)
        raise typer.Exit(1)
    rejected.unlink()


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError as error:
        raise UserError(f"{file} can't be read: {error.strerror}.") from error
