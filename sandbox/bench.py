"""`oms bench`: how fast, how far and at what cost, over HTTP. docs/benchmarks.md says how to read it."""

from __future__ import annotations

import contextlib
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import orjson
import psutil
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from analytics.clickhouse import connect
from runtime.errors import UserError
from runtime.settings import Settings
from runtime.stack import read_stack
from sandbox import bench_import as importing
from sandbox import bench_reads as reads
from sandbox import bench_views as views
from sandbox.catalogue import add_stock, catalogue
from sandbox.client import session
from sandbox.load import GENERATOR, Load, Result, parse, processes
from sandbox.shop_cli import (
    HERE,
    DataDir,
    Url,
    ensure_catalogue,
    own_stack,
    run_async,
    staff_token,
    target,
    terminable,
)
from sandbox.shop_screen import ms

LOADS = (5.0, 10.0)
RAMP = (5.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0, 200.0, 300.0, 500.0, 1000.0)
WARM_UP = (10.0, 15.0)
"""Orders a second, for so many seconds."""
IDLE_SECONDS = 5.0
STOCK = 10_000_000
"""Units of every product put on the shelf before, so that none runs out."""

OUT = Path("bench-results")
WIDTH = 150
"""Columns where there is no terminal: a log keeps whole tables."""


class Mode(StrEnum):
    LATENCY = "latency"
    SATURATION = "saturation"
    READS = "reads"
    VIEWS = "views"
    IMPORT = "import"


@terminable()
def bench(
    mode: Annotated[
        Mode,
        typer.Option(
            help="two loads; more and more until it doesn't keep up; reading, by the amount of orders; filling views; "
            "bringing in history"
        ),
    ] = Mode.LATENCY,
    rate: Annotated[
        list[float] | None, typer.Option(help="orders a second; may be given several times (reads: while it reads)")
    ] = None,
    seconds: Annotated[float, typer.Option(help="of each load; of reads, of each question at most", min=0.05)] = 20.0,
    sizes: Annotated[str, typer.Option(help="of reads: numbers of orders, the smallest first")] = ",".join(
        map(str, reads.SIZES)
    ),
    data_dir: DataDir = HERE,
    url: Url = None,
    out: Annotated[Path, typer.Option(help="the folder for the JSON file")] = OUT,
) -> None:
    """Drive the running stack (or one of its own, if none runs) with an open-loop load over HTTP; print tables and
    write them to a JSON file. `latency`: 5 and 10 orders a second; `saturation`: more and more until it doesn't
    keep up. `reads` fills a stack of its own with orders of two years, asks everything that can be asked, alone and
    while orders come in, and shows how that grows. `views`: how fast the sink and `oms rebuild` are. `import`: how fast
    `oms import` is. Exit code 1 when an accepted order was lost or a read failed."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    if mode is Mode.READS:
        _reads(console, _numbers(sizes), (rate or [reads.WRITING])[0], min(seconds, reads.SECONDS), out)
        return
    if mode is Mode.VIEWS:
        _views(console, out)
        return
    if mode is Mode.IMPORT:
        _import(console, data_dir, out)
        return
    with _stack(console, data_dir, url) as (settings, address, folder):
        run_async(_prepare(settings, address))
        size = _orders(settings)
        console.print(f"{size:,} orders are there. Idle for {IDLE_SECONDS:.0f} s, then warming up …")
        idle = _idle(folder)
        _drive(Load(str(folder), address, *WARM_UP, seed=_fresh_seed()))
        results = []
        for offered in rate or (LOADS if mode is Mode.LATENCY else RAMP):
            console.print(f"{offered:g} orders a second for {seconds:g} s …")
            asked = 20.0 if mode is Mode.LATENCY else 5.0
            result = _drive(Load(str(folder), address, offered, seconds, seed=_fresh_seed(), reads=asked))
            results.append(result)
            for failure in result.failures[:3]:
                console.print(f"[red]{failure}", highlight=False)
            if mode is Mode.SATURATION and not result.kept_up:
                console.print(f"It does not keep up with {offered:g} a second.")
                break
        show(console, results, idle)
        loads = [
            {**asdict(result), "cpu_ms_per_order": result.cpu_ms_per_order, "kept_up": result.kept_up}
            for result in results
        ]
        path = _write(out, mode, {"orders_before": size, "idle_cpu_cores": idle, "loads": loads})
        console.print(f"Written to {path}.")
    if any(result.lost for result in results):
        raise typer.Exit(1)


def _numbers(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError as error:
        raise UserError(f"--sizes are numbers with commas between them, not {text!r}.") from error


def _reads(console: Console, sizes: Sequence[int], writing: float, seconds: float, out: Path) -> None:
    """A fresh stack for each size, on a ClickHouse that was filled before."""
    found = []
    for orders in sizes:
        with tempfile.TemporaryDirectory(prefix="oms-bench-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            console.print(f"[bold]Fill the views with {orders:,} orders")
            size = reads.Size(orders, reads.prefill(folder, orders))
            with own_stack(console, folder, _step(console)) as (settings, address):
                run_async(_prepare(settings, address))
                reads.measure_size(console, settings, address, folder, size, writing, seconds)
            found.append(size)
    console.print()
    console.print(reads.table(found))
    console.print(reads.in_sql(found))
    console.print(f"Written to {_write(out, Mode.READS, {'sizes': [asdict(size) for size in found]})}.")
    failures = [failure for size in found for question in size.questions for failure in question.failures]
    if failures:
        console.print(f"[red]{failures[0]}", highlight=False)
        raise typer.Exit(1)


def _views(console: Console, out: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="oms-bench-", ignore_cleanup_errors=True) as name:
        found = views.measure(console, Path(name))
    console.print()
    console.print(views.table(found))
    console.print(f"Written to {_write(out, Mode.VIEWS, {'filled': [asdict(one) for one in found]})}.")


def _import(console: Console, data_dir: Path, out: Path) -> None:
    with _stack(console, data_dir, None) as (_, _, folder):
        found = importing.measure(console, folder)
    console.print()
    for table in importing.tables(found):
        console.print(table)
    console.print(f"Written to {_write(out, Mode.IMPORT, asdict(found))}.")


@contextlib.contextmanager
def _stack(console: Console, data_dir: Path, url: str | None) -> Iterator[tuple[Settings, str, Path]]:
    """The stack that runs in the data folder, or a fresh one in a temporary folder."""
    running = read_stack(data_dir)
    if url is not None or (running is not None and running.process() is not None):
        yield *target(data_dir, url), data_dir
        return
    with (
        tempfile.TemporaryDirectory(prefix="oms-bench-", ignore_cleanup_errors=True) as folder,
        own_stack(console, Path(folder), _step(console)) as (settings, address),
    ):
        yield settings, address, Path(folder)


def _step(console: Console) -> Callable[[str], contextlib.AbstractContextManager[None]]:
    @contextlib.contextmanager
    def step(title: str) -> Iterator[None]:
        console.print(f"[bold]{title}")
        yield

    return step


async def _prepare(settings: Settings, url: str) -> None:
    """The catalogue, and so much stock that nothing runs out."""
    run = uuid4().hex[:12]
    async with session() as client:
        await ensure_catalogue(client, url, settings)
        token = staff_token(settings)
        for product in catalogue():
            if not product.scarce:
                key = f"bench-{run}-{product.sku}"
                await add_stock(url, token, client, product.sku, STOCK, "benchmark", key)


def _orders(settings: Settings) -> int:
    client = connect(settings)
    try:
        return int(client.query(files(__package__).joinpath("sql/data_size.sql").read_text()).result_rows[0][0])
    finally:
        client.close()


def _idle(data_dir: Path) -> dict[str, float]:
    """CPU seconds a second that each process takes when nothing happens."""
    before = processes(data_dir)
    time.sleep(IDLE_SECONDS)
    after = processes(data_dir)
    return {
        name: (usage.cpu - before[name].cpu) / IDLE_SECONDS
        for name, usage in after.items()
        if name in before and name != GENERATOR
    }


def _drive(load: Load) -> Result:
    """One load, in a process of its own, so that generator and display don't take time from each other."""
    argument = orjson.dumps(asdict(load)).decode()
    done = subprocess.run([sys.executable, "-m", "sandbox.load", argument], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise UserError(f"The load generator failed: {last[0]}")
    return parse(orjson.loads(done.stdout))


def _fresh_seed() -> int:
    return uuid4().int >> 96


# What is shown and written


def show(console: Console, results: list[Result], idle: dict[str, float]) -> None:
    console.print()
    for table in (placements(results), latencies(results), costs(results, idle)):
        console.print(table)
    best = max(results, key=lambda result: result.placements_per_second)
    console.print(f"Most placements a second: {best.placements_per_second:.1f} (at a load of {best.rate:g}/s)")


def placements(results: list[Result]) -> Table:
    """One row a load: was it carried?"""
    table = Table(
        title="Placements over HTTP: created, paid and visible in the view", title_justify="left", box=SIMPLE_HEAD
    )
    for name in ("load/s", "placed/s", "accepted", "lost", "failed", "at once", "drained", "kept up"):
        table.add_column(name, justify="right")
    for result in results:
        table.add_row(
            f"{result.rate:g}",
            f"{result.placements_per_second:.1f}",
            f"{result.accepted:,}",
            f"{result.lost:,}",
            f"{result.failed:,}",
            f"{result.most_requests_at_once:,}",
            f"{result.drained_after:.2f} s",
            "[green]yes" if result.kept_up else "[red]no",
        )
    return table


def latencies(results: list[Result]) -> Table:
    """Three rows a load."""
    table = Table(title="Latency, from the moment when a request was due", title_justify="left", box=SIMPLE_HEAD)
    for name in ("load/s", "", "P50", "P95", "P99", "max", "count"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for result in results:
        kinds = (("create", result.create), ("read by id", result.read), ("create → paid", result.create_to_paid))
        for name, values in kinds:
            numbers = [ms(values[one]) if values["count"] else "–" for one in ("p50", "p95", "p99", "max")]
            rate = f"{result.rate:g}" if name == "create" else ""
            table.add_row(rate, name, *numbers, f"{values['count']:,.0f}", end_section=name == kinds[-1][0])
    return table


def costs(results: list[Result], idle: dict[str, float]) -> Table:
    """CPU by process: one column a load."""
    table = Table(title="CPU milliseconds per order, by process", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("process")
    for result in results:
        table.add_column(f"{result.rate:g}/s", justify="right")
    table.add_column("idle, % core", justify="right", style="dim")
    table.add_column("MB", justify="right", style="dim")
    last = results[-1]
    for name in sorted(last.cpu_seconds, key=lambda name: -last.cpu_seconds[name]):
        cells = [f"{result.cpu_ms_per_order.get(name, 0.0):.2f}" for result in results]
        table.add_row(name, *cells, f"{idle.get(name, 0.0) * 100:.1f}", f"{last.memory_mb[name]:.0f}")
    totals = [f"{sum(result.cpu_ms_per_order.values()):.2f}" for result in results]
    table.add_section()
    table.add_row(
        "all", *totals, f"{sum(idle.values()) * 100:.1f}", f"{sum(last.memory_mb.values()):.0f}", style="bold"
    )
    return table


def _write(out: Path, mode: Mode, found: dict[str, Any]) -> Path:
    now = datetime.now(UTC)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{now:%Y%m%d-%H%M%S}-{mode}.json"
    found = {"at": now.isoformat(), "mode": mode, "machine": machine(), **found}
    path.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2))
    return path


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "cpus": psutil.cpu_count(),
        "cpu": _cpu_model(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average_before": psutil.getloadavg()[0],
    }


def _cpu_model() -> str:
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        for line in facts.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
