"""`oms simulate` and `oms demo`: the simulated shop with something to look at. Typer registers these functions."""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import uuid4

import aiohttp
import typer
import uvloop
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from gateway.auth import issue
from runtime.errors import UserError
from runtime.settings import Settings
from runtime.stack import free_port, read_stack, stack_settings
from sandbox.books import Check, audit, read_books
from sandbox.catalogue import catalogue, for_sale, load_catalogue
from sandbox.people import arrivals, plan
from sandbox.shop import Outcome, Shop, Tally, closed_loop, open_loop, percentile, session

T = TypeVar("T")
TOKEN_LIFE = timedelta(hours=12)
SHOWN = 5
RECENT = 5000
"""The live display's percentiles are of so many, because it sorts them several times a second."""
SETTLE_SECONDS = 30.0
"""How long refunds and releases may take to arrive in the books after the last order has ended."""


Orders = Annotated[int, typer.Option(help="how many customers come", min=1)]
Seed = Annotated[int, typer.Option(help="the same seed, the same customers and baskets")]
DataDir = Annotated[Path, typer.Option(envvar="OMS_DATA_DIR", show_envvar=False, help="of the stack")]
Url = Annotated[str | None, typer.Option(help="of a gateway, instead of the stack's in the data folder")]
HERE = Path(".oms")


def simulate(
    orders: Orders = 1000,
    rate: Annotated[float | None, typer.Option(help="customers a second, by chance", min=0.01)] = None,
    concurrency: Annotated[int, typer.Option(help="without a rate: how many are there at a time", min=1)] = 32,
    seed: Seed = 1,
    data_dir: DataDir = HERE,
    url: Url = None,
) -> None:
    """Drive a running shop over HTTP with simulated customers, and show how it goes.

    With `rate`, so many customers a second come by chance, however fast the shop is; else `concurrency` customers
    are there at a time. Loads the sample catalogue first if it isn't there. Exit code 1 when something was lost or
    failed.
    """
    console = Console()
    settings, url = target(data_dir, url)
    tally = run_async(_simulate(console, settings, url, orders, rate, concurrency, seed))
    console.print(summary(tally))
    _show_failures(console, tally)
    if tally.failures:
        raise typer.Exit(1)


def demo(orders: Orders = 1000, seed: Seed = 1) -> None:
    """The whole thing once: start a stack of its own, sell, show the KPIs, check the books, stop. Exit code 1 when
    the books don't balance or something failed."""
    console = Console()
    steps: list[tuple[str, float]] = []

    @contextlib.contextmanager
    def step(title: str) -> Iterator[None]:
        console.print()
        console.rule(f"[bold]{title}", align="left", style="cyan")
        began = time.perf_counter()
        yield
        steps.append((title, time.perf_counter() - began))

    began = time.perf_counter()
    with _terminable(), tempfile.TemporaryDirectory(prefix="oms-demo-", ignore_cleanup_errors=True) as folder:
        data_dir = Path(folder)
        with own_stack(console, data_dir, step) as (settings, url):
            with step("Customers shop"):
                tally = run_async(_simulate(console, settings, url, orders, None, 32, seed))
                console.print(summary(tally))
                _show_failures(console, tally)
            with step("KPIs, out of ClickHouse"):
                show_kpis(settings)
            with step("Do the books balance?"):
                checks = settled_books(settings, tally, {product.sku: product.stock for product in catalogue()})
                show_checks(console, checks)
    good = not tally.failures and all(check.holds for check in checks)
    table = Table(title="Where the time went", title_justify="left", box=None, pad_edge=False)
    table.add_column("step", style="dim")
    table.add_column("seconds", justify="right")
    for title, seconds in [*steps, ("Everything", time.perf_counter() - began)]:
        table.add_row(title, f"{seconds:.1f}")
    console.print()
    console.print(table)
    console.print()
    if not good:
        console.print("[bold red]Something does not add up; see above.")
        raise typer.Exit(1)
    console.print(
        f"[bold green]{len(tally.orders):,} orders, every one accounted for.[/] "
        "`make up` keeps a stack running; the README goes on from there."
    )


# The simulation


def target(data_dir: Path, url: str | None) -> tuple[Settings, str]:
    """Settings (for tokens) and address of the stack to use. UserError when none is known."""
    if url is None:
        stack = read_stack(data_dir)
        if stack is None or stack.process() is None:
            raise UserError(
                f"No stack is running in {data_dir}: start one with `oms up --data-dir {data_dir}`, or name a "
                "gateway with --url."
            )
        url = stack.url
    return stack_settings(data_dir), url.rstrip("/")


def staff_token(settings: Settings) -> str:
    return issue(settings, admin="sample-shop", ttl=TOKEN_LIFE)


def customer_tokens(settings: Settings) -> Callable[[str], str]:
    return lambda customer_id: issue(settings, customer=customer_id, ttl=TOKEN_LIFE)


async def _simulate(
    console: Console, settings: Settings, url: str, orders: int, rate: float | None, concurrency: int, seed: int
) -> Tally:
    async with session() as client:
        await ensure_catalogue(client, url, settings)
        shop = Shop(client, url, customer_tokens(settings), run=uuid4().hex[:12])
        visits = plan(seed, orders, catalogue())
        if rate is None:
            work = closed_loop(shop, visits, concurrency)
        else:
            work = open_loop(visits, arrivals(rate, orders, seed), shop.visit)
        await _watched(console, shop.tally, orders, work)
    return shop.tally


async def ensure_catalogue(client: aiohttp.ClientSession, url: str, settings: Settings) -> None:
    """Load the sample catalogue unless the shop has it already, and wait until all of it is for sale. UserError when
    nobody answers or it isn't after 30 s."""
    token = staff_token(settings)
    wanted = {product.sku for product in catalogue()}
    try:
        known = await for_sale(url, token, client)
    except aiohttp.ClientConnectionError as error:
        raise UserError(f"Nobody answers at {url}: is the stack up (`oms status`)?") from error
    if wanted <= known.keys():
        return
    await load_catalogue(url, token, client)
    until = time.perf_counter() + 30
    while time.perf_counter() < until:
        known = await for_sale(url, token, client)
        if all(known.get(sku) for sku in wanted):
            return
        await asyncio.sleep(0.1)
    raise UserError("The catalogue was loaded, but the shop doesn't list all of it after 30 s: see `oms status`.")


# Something to look at


async def _watched(console: Console, tally: Tally, total: int, work: Coroutine[Any, Any, None]) -> None:
    """Run the work with a live display, or a line every 2 seconds where there is no terminal."""
    doing = asyncio.create_task(work)
    if not console.is_terminal:
        while not doing.done():
            await asyncio.wait([doing], timeout=2.0)
            console.print(_line(tally, total), highlight=False, soft_wrap=True)
        return await doing
    bar = Progress(
        TextColumn("[bold]{task.description}"), BarColumn(bar_width=None), MofNCompleteColumn(), TaskProgressColumn(),
        TimeRemainingColumn(), console=console, expand=True,
    )  # fmt: skip
    task = bar.add_task("visits", total=total)
    with Live(console=console, refresh_per_second=8) as live:
        while True:
            await asyncio.wait([doing], timeout=0.2)
            bar.update(task, completed=tally.visits)
            grid = Table.grid(expand=True)
            grid.add_row(bar)
            grid.add_row(_figures(tally))
            live.update(grid)
            if doing.done():
                return await doing


def _figures(tally: Tally) -> Table:
    table = Table(box=None, expand=True, padding=(0, 1))
    for name, style in (
        ("placed", "bold"), ("paid", "green"), ("cancelled", "yellow"), ("refused", "magenta"), ("open", "cyan"),
        ("failed", "red"), ("orders/s", "bold"), ("create P95", ""), ("create → paid P95", ""),
    ):  # fmt: skip
        table.add_column(name, justify="right", style=style)
    table.add_row(*_values(tally))
    return table


def _values(tally: Tally) -> list[str]:
    return [
        f"{len(tally.orders):,}",
        f"{tally.outcomes[Outcome.PAID]:,}",
        f"{tally.outcomes[Outcome.CANCELLED]:,}",
        f"{tally.refusals.total():,}",
        f"{tally.open:,}",
        f"{tally.outcomes[Outcome.FAILED] + tally.outcomes[Outcome.UNFINISHED]:,}",
        f"{len(tally.orders) / tally.seconds():.0f}",
        ms(percentile(tally.create[-RECENT:], 95)),
        ms(percentile(tally.paid[-RECENT:], 95)),
    ]


def _line(tally: Tally, total: int) -> str:
    placed, paid, cancelled, refused, still_open, failed, speed, create, to_paid = _values(tally)
    return (
        f"{tally.seconds():5.1f} s  visits {tally.visits:,}/{total:,}  placed {placed}  paid {paid}  "
        f"cancelled {cancelled}  refused {refused}  open {still_open}  failed {failed}  {speed}/s  "
        f"P95 create {create}  create → paid {to_paid}"
    )


def summary(tally: Tally) -> Table:
    """The figures at the end."""
    table = Table(title="Simulated shop", title_justify="left", show_header=False, box=None, pad_edge=False)
    table.add_column(style="dim")
    table.add_column()
    reasons = ", ".join(f"{count} {reason}" for reason, count in tally.reasons.most_common())
    refusals = ", ".join(f"{count} {kind}" for kind, count in tally.refusals.most_common())
    seconds = tally.ended_after
    table.add_row("orders", f"{len(tally.orders):,} in {seconds:.1f} s, {len(tally.orders) / seconds:.0f} a second")
    table.add_row("paid", f"[green]{tally.outcomes[Outcome.PAID]:,}")
    table.add_row("cancelled", f"[yellow]{tally.outcomes[Outcome.CANCELLED]:,}[/] {reasons and f'({reasons})'}")
    table.add_row("left as drafts", f"{tally.outcomes[Outcome.DRAFT]:,}")
    table.add_row("requests refused", f"{tally.refusals.total():,} {refusals and f'({refusals})'}")
    table.add_row("failed", f"{len(tally.failures):,} (requests sent again: {tally.retries:,})")
    for name, values in (("create", tally.create), ("create → paid, seen in the view", tally.paid)):
        percentiles = "  ".join(f"P{percent} {ms(percentile(values, percent))}" for percent in (50, 95, 99))
        table.add_row(name, percentiles)
    return table


def _show_failures(console: Console, tally: Tally) -> None:
    for failure in tally.failures[:SHOWN]:
        console.print(f"[red]{failure}", highlight=False)
    if len(tally.failures) > SHOWN:
        console.print(f"[red]… and {len(tally.failures) - SHOWN} more")


def ms(seconds: float) -> str:
    if math.isnan(seconds):
        return "–"
    return f"{seconds * 1000:,.0f} ms" if seconds < 10 else f"{seconds:,.1f} s"


# The demo's stack and books


@contextlib.contextmanager
def own_stack(
    console: Console, data_dir: Path, step: Callable[[str], contextlib.AbstractContextManager[None]]
) -> Iterator[tuple[Settings, str]]:
    """A stack in this folder with the sample catalogue in it, for as long as the block lasts; stopped whatever
    happens. Each of its steps runs inside `step(title)`."""
    try:
        with step("Start the stack (Kafka, ClickHouse, processors, gateway)"):
            oms(console, "up", "--detach", "--data-dir", str(data_dir), "--port", str(free_port()))
        settings, url = target(data_dir, None)
        with step("Load the sample catalogue"):
            run_async(_load(settings, url))
            console.print(f"{len(catalogue())} products in stock")
        yield settings, url
    except KeyboardInterrupt:
        console.print("\nInterrupted.")
        raise
    except Exception:
        show_logs(console, data_dir)
        raise
    finally:
        with step("Stop the stack"):
            oms(console, "down", "--data-dir", str(data_dir))


async def _load(settings: Settings, url: str) -> None:
    async with session() as client:
        await ensure_catalogue(client, url, settings)


def oms(console: Console, *arguments: str) -> None:
    """Run an `oms` command; what it says appears line by line. UserError when it fails."""
    # A session of its own: Ctrl-C is for us, and we stop the stack in order.
    process = subprocess.Popen(
        [sys.executable, "-m", "runtime", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None  # noqa: S101 (it is a pipe)
    try:
        for line in process.stdout:
            console.print(f"[dim]{line.rstrip()}", highlight=False, soft_wrap=True)
        code = process.wait()
    except BaseException:
        process.terminate()
        process.wait()
        raise
    if code != 0:
        raise UserError(f"`oms {' '.join(arguments)}` failed with exit code {code}; it says above why.")


def show_logs(console: Console, data_dir: Path) -> None:
    """Save a failed demo's logs from the folder that goes away."""
    logs = data_dir / "logs"
    if logs.is_dir() and any(logs.iterdir()):
        kept = Path(tempfile.mkdtemp(prefix="oms-demo-logs-"))
        shutil.copytree(logs, kept, dirs_exist_ok=True)
        console.print(f"[dim]The logs of this run are in {kept}.")


def show_kpis(settings: Settings) -> None:
    from analytics.cli import kpi

    kpi(settings, "table")


def settled_books(settings: Settings, tally: Tally, stocked: dict[str, int]) -> list[Check]:
    """The checks, when refunds and releases have had their time to arrive."""
    accepted = {
        order_id: outcome in (Outcome.PAID, Outcome.CANCELLED, Outcome.UNFINISHED, Outcome.FAILED)
        for order_id, outcome in tally.orders.items()
    }
    until = time.perf_counter() + SETTLE_SECONDS
    while True:
        checks = audit(read_books(settings), accepted, stocked)
        if all(check.holds for check in checks) or time.perf_counter() > until:
            return checks
        time.sleep(0.5)


def show_checks(console: Console, checks: list[Check]) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for check in checks:
        mark = "[bold green]✓" if check.holds else "[bold red]✗"
        table.add_row(mark, check.name, f"[dim]{check.facts}")
    console.print(table)
    for check in checks:
        for wrong in check.wrong[:SHOWN]:
            console.print(f"[red]  {wrong}", highlight=False)
        if len(check.wrong) > SHOWN:
            console.print(f"[red]  … and {len(check.wrong) - SHOWN} more")


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM unwinds the stack of calls as Ctrl-C does, so that nothing is left running."""

    def stop(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_async(work: Coroutine[Any, Any, T]) -> T:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work)
