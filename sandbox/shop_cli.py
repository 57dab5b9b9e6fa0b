"""`oms simulate` and `oms demo`: the simulated shop with something to look at. Typer registers these functions."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar
from uuid import uuid4

import aiohttp
import httpx
import typer
import uvloop
import yaml
from rich.console import Console
from rich.table import Table

from gateway.auth import issue
from runtime.errors import UserError
from runtime.settings import Settings
from runtime.stack import free_port, read_stack, stack_settings
from sandbox.books import Check, audit, read_books
from sandbox.catalogue import CatalogueError, catalogue, for_sale, load_catalogue
from sandbox.client import session
from sandbox.mix import Mix, MixError, mixed, parse_share
from sandbox.people import arrivals, plan
from sandbox.promotions import PROMOTIONS, load_promotions
from sandbox.shop import Shop, closed_loop, open_loop
from sandbox.shop_screen import SHOWN, listed, show_failures, summary, watched
from sandbox.tally import PLACED, Tally
from schemas import policy

T = TypeVar("T")
TOKEN_LIFE = timedelta(hours=12)
SETTLE_SECONDS = 30.0
"""How long refunds and releases may take to arrive in the books after the last order has ended."""


class Until(StrEnum):
    END = "end"
    PAID = "paid"


Orders = Annotated[int, typer.Option(help="how many customers come", min=1)]
Seed = Annotated[int, typer.Option(help="the same seed, the same customers and baskets")]
DataDir = Annotated[Path, typer.Option(envvar="OMS_DATA_DIR", show_envvar=False, help="of the stack")]
Url = Annotated[str | None, typer.Option(help="of a gateway, instead of the stack's in the data folder")]
MixFile = Annotated[
    Path | None, typer.Option(help="a YAML file of shares, as in `returns: 0.1`", exists=True, dir_okay=False)
]
Shares = Annotated[
    list[str] | None,
    typer.Option(help="NAME=SHARE (0 to 1) of a kind of visitor; several times. What is not named shares the rest"),
]
HERE = Path(".oms")


def simulate(
    orders: Orders = 1000,
    rate: Annotated[float | None, typer.Option(help="customers a second, by chance", min=0.01)] = None,
    concurrency: Annotated[int, typer.Option(help="without a rate: how many are there at a time", min=1)] = 32,
    seed: Seed = 1,
    until: Annotated[Until, typer.Option(help="follow orders to their end, or until they are paid")] = Until.END,
    mix: MixFile = None,
    share: Shares = None,
    data_dir: DataDir = HERE,
    url: Url = None,
) -> None:
    """Drive a running shop over HTTP with simulated customers and staff, and show how it goes.

    With `rate`, so many customers a second come by chance, however fast the shop is; else `concurrency` customers
    are there at a time. Orders are followed to their end: edits, reviews, parcels, returns, surveys. Loads the sample
    catalogue first if it isn't there. Exit code 1 when something was lost or failed.
    """
    console = Console()
    visitors = Visitors(orders, seed, chosen_mix(mix, share), rate, concurrency, until is Until.END)
    settings, url = target(data_dir, url)
    tally = run_async(_simulate(console, settings, url, visitors))
    console.print(summary(tally))
    show_failures(console, tally)
    if tally.failures:
        raise typer.Exit(1)


def demo(orders: Orders = 1000, seed: Seed = 1, mix: MixFile = None, share: Shares = None) -> None:
    """The whole thing once: start a stack of its own, sell and deliver, show the KPIs, check the books, stop. Exit code
    1 when the books don't balance or something failed."""
    console = Console()
    visitors = Visitors(orders, seed, chosen_mix(mix, share))
    steps: list[tuple[str, float]] = []

    @contextlib.contextmanager
    def step(title: str) -> Iterator[None]:
        console.print()
        console.rule(f"[bold]{title}", align="left", style="cyan")
        began = time.perf_counter()
        yield
        steps.append((title, time.perf_counter() - began))

    began = time.perf_counter()
    with terminable(), tempfile.TemporaryDirectory(prefix="oms-demo-", ignore_cleanup_errors=True) as folder:
        data_dir = Path(folder)
        with own_stack(console, data_dir, step, demo_rules(console, data_dir)) as (settings, url):
            with step("Customers shop, parcels travel"):
                tally = run_async(_simulate(console, settings, url, visitors))
                console.print(summary(tally))
                show_failures(console, tally)
            with step("KPIs, out of ClickHouse"):
                show_kpis(settings)
            with step("Do the books balance?"):
                checks = settled_books(settings, tally)
                show_checks(console, checks)
                show_exceptions(console, settings, url)
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


@dataclass(frozen=True)
class Visitors:
    """`rate`: customers a second, by chance; None: `concurrency` at a time. `to_the_end`: of their orders, else until
    they are paid."""

    orders: int
    seed: int
    mix: Mix
    rate: float | None = None
    concurrency: int = 48
    to_the_end: bool = True


def chosen_mix(file: Path | None, shares: list[str] | None) -> Mix:
    """The default with what the file says instead, and with what the options say instead of that. UserError."""
    try:
        said = {} if file is None else yaml.safe_load(file.read_text()) or {}
        if not isinstance(said, dict):
            raise MixError(f"{file} is no list of shares such as `returns: 0.1`")
        return mixed({**said, **dict(parse_share(share) for share in shares or ())})
    except (MixError, yaml.YAMLError) as error:
        raise UserError(f"The mix of visitors is wrong: {error}.") from error


def demo_rules(console: Console, data_dir: Path) -> dict[str, str]:
    """The environment of a stack whose rules show more in less time: the shipped ones, but parcels are split, a refused
    card may be followed by another, and a missed parcel comes again within seconds. Rules of one's own
    (OMS_POLICY) stay as they are."""
    if "OMS_POLICY" in os.environ:
        return {}
    rules = policy.load()
    shown = rules.model_copy(
        update={
            "payment": rules.payment.model_copy(update={"max_attempts": 2}),
            "fulfilment": rules.fulfilment.model_copy(
                update={"split": "ship_available", "redeliver_after": timedelta(hours=1)}
            ),
        }
    )
    path = data_dir / "demo-policy.yaml"
    path.write_text(shown.model_dump_json(indent=2))  # JSON is YAML
    console.print(
        "[dim]The shop's rules are policy.yaml, with fulfilment.split: ship_available, payment.max_attempts: 2 and "
        "redeliver_after: PT1H. Half an hour is three seconds here, a step of a parcel is one."
    )
    return {"OMS_POLICY": str(path)}


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


async def _simulate(console: Console, settings: Settings, url: str, who: Visitors) -> Tally:
    async with session() as client:
        await ensure_catalogue(client, url, settings)
        shop = Shop(
            client,
            url,
            customer_tokens(settings),
            uuid4().hex[:12],
            staff_token(settings),
            settings.logistics_url,
            who.to_the_end,
        )
        mix = who.mix
        visits = plan(who.seed, who.orders, catalogue(), mix.personas, surveys=mix.surveys, preferences=mix.preferences)

        async def everything() -> None:
            if who.rate is None:
                await closed_loop(shop, visits, who.concurrency)
            else:
                await open_loop(visits, arrivals(who.rate, who.orders, who.seed), shop.visit)
            await shop.finish()

        await watched(console, shop.tally, who.orders, everything())
    return shop.tally


async def ensure_catalogue(client: aiohttp.ClientSession, url: str, settings: Settings) -> None:
    """Load the sample catalogue and promotions unless the shop has them already, and wait until all of it is for sale.
    UserError when nobody answers or it isn't after 30 s."""
    token = staff_token(settings)
    wanted = {product.sku for product in catalogue()}
    try:
        known = await for_sale(url, token, client)
    except aiohttp.ClientConnectionError as error:
        raise UserError(f"Nobody answers at {url}: is the stack up (`oms status`)?") from error
    try:
        await load_promotions(url, token, client)
        if wanted <= known.keys():
            return
        await load_catalogue(url, token, client)
    except CatalogueError as error:
        raise UserError(f"The sample catalogue could not be loaded: {error}.") from error
    until = time.perf_counter() + 30
    while time.perf_counter() < until:
        known = await for_sale(url, token, client)
        if all(known.get(sku) for sku in wanted):
            return
        await asyncio.sleep(0.1)
    raise UserError("The catalogue was loaded, but the shop doesn't list all of it after 30 s: see `oms status`.")


# The demo's stack and books


@contextlib.contextmanager
def own_stack(
    console: Console,
    data_dir: Path,
    step: Callable[[str], contextlib.AbstractContextManager[None]],
    env: dict[str, str] | None = None,
) -> Iterator[tuple[Settings, str]]:
    """A stack in this folder (with `env` besides ours) with the sample catalogue in it, for as long as the block lasts;
    stopped whatever happens. Each of its steps runs inside `step(title)`."""
    try:
        with step("Start the stack (Kafka, ClickHouse, processors, gateway)"):
            oms(console, "up", "--detach", "--data-dir", str(data_dir), "--port", str(free_port()), env=env)
        settings, url = target(data_dir, None)
        with step("Load the sample catalogue"):
            run_async(_load(settings, url))
            console.print(f"{len(catalogue())} products in stock, {len(PROMOTIONS)} promotions")
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


def oms(console: Console, *arguments: str, env: dict[str, str] | None = None) -> None:
    """Run an `oms` command; what it says appears line by line. UserError when it fails."""
    # A session of its own: Ctrl-C is for us, and we stop the stack in order.
    process = subprocess.Popen(
        [sys.executable, "-m", "runtime", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={**os.environ, **(env or {})},
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
    from analytics.kpi_cli import kpi

    kpi(settings)


def settled_books(settings: Settings, tally: Tally) -> list[Check]:
    """The checks, when refunds and releases have had their time to arrive."""
    accepted = {order_id: outcome in PLACED for order_id, outcome in tally.orders.items()}
    until = time.perf_counter() + SETTLE_SECONDS
    while True:
        checks = audit(read_books(settings), accepted)
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


def show_exceptions(console: Console, settings: Settings, url: str) -> None:
    """What waits for a person, as when a parcel leaves while its order is being cancelled: no rule settles that."""
    headers = {"Authorization": f"Bearer {staff_token(settings)}"}
    found = httpx.get(f"{url}/v1/admin/exceptions", params={"limit": 100}, headers=headers, timeout=30)
    kinds = Counter(one["kind"] for one in found.raise_for_status().json()["items"])
    console.print(f"Exceptions that wait for a person: {kinds.total()} {listed(kinds)}", highlight=False)


@contextlib.contextmanager
def terminable() -> Iterator[None]:
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
