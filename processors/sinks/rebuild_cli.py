"""`oms rebuild`: views made anew from the topics, beside the live ones."""

from __future__ import annotations

import fcntl
import gc
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Annotated

import typer
from clickhouse_connect.driver.exceptions import Error
from confluent_kafka import KafkaException
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from runtime.errors import UserError
from runtime.stack import stack_settings

from .opening import KeysAway
from .rebuild import Position, Rebuild, Told
from .views import VIEWS

DataDir = Annotated[Path, typer.Option("--data-dir", envvar="OMS_DATA_DIR", help="of the stack", show_envvar=False)]
HERE = Path(".oms")
_EVERY = 5.0
"""Seconds between two lines where there is no terminal."""


def command(
    views: Annotated[list[str] | None, typer.Argument(help="as topology.yaml calls them")] = None,
    everything: Annotated[bool, typer.Option("--all", help="every view")] = False,
    force: Annotated[bool, typer.Option("--force", help="swap without comparing")] = False,
    afresh: Annotated[bool, typer.Option("--afresh", help="throw away what an earlier rebuild has filled")] = False,
    processes: Annotated[int, typer.Option(help="so many fill, each from its share of the partitions", min=1)] = 1,
    drop_old: Annotated[bool, typer.Option("--drop-old", help="only drop the tables that rebuilds have left")] = False,
    data_dir: DataDir = HERE,
) -> None:
    """Fill new tables from the topics' beginning, compare them with the live ones, swap. Queries and the sink go on
    meanwhile; a rebuild that was interrupted goes on where it was."""
    names = list(VIEWS) if everything else list(dict.fromkeys(views or ()))
    if not names:
        raise UserError(f"Which view? One of {', '.join(VIEWS)}, or --all.")
    if unknown := [name for name in names if name not in VIEWS]:
        raise UserError(f"There is no view {', '.join(unknown)}; there are {', '.join(VIEWS)}.")
    settings = stack_settings(data_dir)
    try:
        with _alone(data_dir) as lock, _shown() as told, closing(Rebuild(settings, typer.echo, told, lock)) as rebuild:
            if drop_old:
                rebuild.drop_old(names)
                return
            gc.disable()  # rows hold no cycles, and to look for some among millions of them takes a third of the time
            rebuild.run(names, force, afresh, processes)
    except (Error, KafkaException, KeysAway, OSError) as error:
        what = str(error).partition("\n")[0]
        raise UserError(f"The rebuild was cut short, and goes on from here when it is run again: {what}") from error


@contextmanager
def _alone(data_dir: Path) -> Iterator[int]:
    """One at a time: two would swap one after the other, which is no swap at all. Whoever inherits this file descriptor
    is part of it."""
    path = data_dir / "run" / "rebuild.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError("Another rebuild is running.") from error
        yield file.fileno()


@contextmanager
def _shown() -> Iterator[Told]:
    """A bar on a terminal, a line now and then elsewhere."""
    if not Console(stderr=True).is_terminal:
        yield _lines()
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rate]:>9,.0f} messages/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", rate=0.0)
        pace = _Pace()

        def told(position: Position) -> None:
            pace.see(position)
            total = max(1, position.total)
            progress.update(task, description=position.views, completed=position.done, total=total, rate=pace.messages)

        yield told


def _lines() -> Told:
    pace = _Pace()
    said = time.monotonic()

    def told(position: Position) -> None:
        nonlocal said
        pace.see(position)
        if time.monotonic() - said < _EVERY:
            return
        said = time.monotonic()
        left = (position.total - position.done) / pace.offsets if pace.offsets else 0
        typer.echo(
            f"{position.views}: {position.done / max(1, position.total):.0%} of {position.total:,}, "
            f"{pace.messages:,.0f} messages/s, {left:,.0f} s left",
            err=True,
        )

    return told


class _Pace:
    """messages, offsets: so many a second."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self.messages = self.offsets = 0.0

    def see(self, position: Position) -> None:
        seconds = time.monotonic() - self._began
        self.messages, self.offsets = position.messages / seconds, position.done / seconds
