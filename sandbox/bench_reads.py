"""`oms bench --mode reads`: how fast reading is, and how its cost grows with the number of orders there are."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import orjson
from clickhouse_connect.driver.client import Client
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from analytics import kpis
from analytics.clickhouse import connect
from analytics.migrate import migrate
from gateway.auth import issue
from runtime.errors import UserError
from runtime.settings import Settings
from runtime.stack import free_port
from sandbox.archive import SETTINGS, fill
from sandbox.client import session
from sandbox.load import Load, percentiles, processes
from sandbox.shop_cli import run_async

SIZES = (10_000, 100_000, 1_000_000)
REQUESTS = 200
SECONDS = 2.0
"""A question is asked so often, or for so long, whichever is less."""
AT_ONCE = 8
WRITING = 5.0
"""Orders a second that are placed while reading is measured once more, unless another rate is asked for."""
WRITTEN_FOR = 1_800.0
"""Seconds for which they could be placed; reading is done before."""
PATIENCE = 120.0
"""Seconds until the first of them must be there."""
ASKED_ABOUT = 400
"""Different orders that are asked for."""
PAGE = {"limit": "50"}
RECENT = timedelta(days=90)

Query = dict[str, str]


@dataclass(frozen=True)
class Archive:
    """What can be asked for: of all orders some, with their customers and parcels; SKUs, the most bought ones first;
    cursors into the middle of everybody's orders."""

    orders: Sequence[tuple[str, str, str]]
    parcels: Sequence[str]
    skus: Sequence[str]
    cursors: Sequence[Query]


@dataclass(frozen=True)
class Question:
    """`ask` draws (path, query) of one request; `target`: P95 in milliseconds at a million orders."""

    name: str
    target: float
    ask: Callable[[random.Random, Archive], tuple[str, Query]]


def _list(name: str, ask: Callable[[random.Random, Archive], Query]) -> Question:
    return Question(name, 100.0, lambda chance, archive: ("/v1/orders", {**PAGE, **ask(chance, archive)}))


def _of_order(chance: random.Random, archive: Archive) -> str:
    return f"/v1/orders/{chance.choice(archive.orders)[0]}"


QUESTIONS = (
    Question("order by id", 20.0, lambda chance, archive: (_of_order(chance, archive), {})),
    _list("order by number", lambda chance, archive: {"number": chance.choice(archive.orders)[1]}),
    Question("timeline of an order", 100.0, lambda chance, archive: (f"{_of_order(chance, archive)}/events", {})),
    Question(
        "orders of a customer",
        100.0,
        lambda chance, archive: (f"/v1/customers/{chance.choice(archive.orders)[2]}/orders", PAGE),
    ),
    Question("orders of the largest customer", 100.0, lambda *_: ("/v1/customers/customer-whale/orders", PAGE)),
    _list("everybody's, first page", lambda *_: {}),
    _list("everybody's, a page in the middle", lambda chance, archive: chance.choice(archive.cursors)),
    _list("status DELIVERED (84 of 100)", lambda *_: {"status": "DELIVERED"}),
    _list("status REFUNDED (2 of 100)", lambda *_: {"status": "REFUNDED"}),
    _list("status REFUND_REQUESTED (3 of 10,000)", lambda *_: {"status": "REFUND_REQUESTED"}),
    _list("the SKU bought most", lambda _, archive: {"sku": archive.skus[0]}),
    _list("the SKU bought least", lambda _, archive: {"sku": archive.skus[-1]}),
    _list(
        "a part of a product's name", lambda chance, _: {"product": chance.choice(("lamp", "mug", "tent", "coffee"))}
    ),
    _list("tracking number", lambda chance, archive: {"tracking_number": chance.choice(archive.parcels)}),
    _list(
        "amount from … to",
        lambda chance, _: {
            "currency": "EUR",
            "total_min": str(least := chance.randint(20, 400)),
            "total_max": str(least + 1),
        },
    ),
    _list("count of a status", lambda *_: {"status": "CANCELLED", "count": "true", "limit": "1"}),
)


@dataclass
class Measured:
    """Times in seconds (P50, P95, P99, max, count), by situation: "1" and "8" at once, the same "while writing"; of a
    KPI also "SQL", the bare query. `cpu`: seconds that gateway and ClickHouse worked for one request, by situation,
    where nothing else was going on. `failures`: answers that were not 200."""

    name: str
    target: float
    times: dict[str, dict[str, float]] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


@dataclass
class Size:
    """What was measured at one number of orders."""

    orders: int
    filled_in: float
    parts: dict[str, int] = field(default_factory=dict)
    """Of each table, when measuring began."""
    written_per_second: float = 0.0
    """Orders that came in while reading was measured."""
    questions: list[Measured] = field(default_factory=list)


class Reader:
    """Asks the gateway as a member of staff. `cpu`: CPU seconds that gateway and ClickHouse have worked."""

    def __init__(
        self,
        client: aiohttp.ClientSession,
        url: str,
        settings: Settings,
        seconds: float,
        cpu: Callable[[], float] | None = None,
    ) -> None:
        token = issue(settings, admin="bench", ttl=timedelta(hours=12))
        self._client = client
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"}
        self._seconds = seconds
        self._cpu = cpu

    async def get(self, path: str, query: Query) -> Any:
        """The answer. ValueError when it is not 200."""
        async with self._client.get(self._url + path, params=query, headers=self._headers) as answer:
            raw = await answer.read()
            if answer.status != 200:
                raise ValueError(f"GET {path} {query}: {answer.status} {raw[:200].decode(errors='replace')}")
            return orjson.loads(raw)

    async def measure(self, question: Question, archive: Archive, at_once: int, into: Measured, situation: str) -> None:
        """So many at once, each asking again as soon as it has its answer."""
        chance = random.Random(f"{question.name}/{situation}")  # noqa: S311
        times: list[float] = []
        until = time.perf_counter() + self._seconds
        left = iter(range(REQUESTS))

        async def one_after_another() -> None:
            for _ in left:
                began = time.perf_counter()
                if began > until:
                    return
                path, query = question.ask(chance, archive)
                try:
                    await self.get(path, query)
                except (ValueError, aiohttp.ClientError, TimeoutError) as error:
                    into.failures.append(f"{type(error).__name__}: {error}")
                    continue
                times.append(time.perf_counter() - began)

        before = self._cpu() if self._cpu else 0.0
        await asyncio.gather(*(one_after_another() for _ in range(at_once)))
        into.times[situation] = percentiles(times)
        if self._cpu and times:
            into.cpu[situation] = (self._cpu() - before) / len(times)


def prefill(folder: Path, orders: int) -> float:
    """Fill the ClickHouse of a data folder in which no stack has run yet; seconds that it took."""
    began = time.perf_counter()
    port = free_port()
    engine = subprocess.Popen(
        [sys.executable, "-m", "runtime.embedded_clickhouse", "--data-dir", str(folder), "--port", str(port)]
    )
    try:
        clickhouse = answering(Settings(data_dir=folder, clickhouse_url=f"http://127.0.0.1:{port}"))
        try:
            migrate(clickhouse)
            today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            fill(clickhouse, orders, today, say=lambda _: None)
        finally:
            clickhouse.close()
    finally:
        engine.terminate()
        engine.wait()
    return time.perf_counter() - began


def measure_size(
    console: Console, settings: Settings, url: str, folder: Path, size: Size, writing: float, seconds: float = SECONDS
) -> None:
    """Ask a stack that was filled every question, for so many seconds each at most: alone, and while it writes
    (`writing` orders a second)."""
    clickhouse = connect(settings)
    try:
        size.parts = _parts(clickhouse)
        archive = run_async(alone(console, size, settings, url, clickhouse, seconds, lambda: _worked(folder)))
        console.print(f"  the same while {writing:g} orders a second come in")
        with written(folder, url, clickhouse, writing):
            began, before = time.perf_counter(), _count(clickhouse)
            run_async(_meanwhile(size, settings, url, archive, seconds))
            size.written_per_second = (_count(clickhouse) - before) / (time.perf_counter() - began)
    finally:
        clickhouse.close()


async def alone(
    console: Console,
    size: Size,
    settings: Settings,
    url: str,
    clickhouse: Client,
    seconds: float,
    cpu: Callable[[], float],
) -> Archive:
    """Every question to a gateway that has nothing else to do; what it asked for."""
    async with session() as http:
        reader = Reader(http, url, settings, seconds, cpu)
        archive = await _archive(reader, clickhouse)
        for question in QUESTIONS:
            console.print(f"  {question.name}")
            into = Measured(question.name, question.target)
            size.questions.append(into)
            for at_once in (1, AT_ONCE):
                await reader.measure(question, archive, at_once, into, f"{at_once}")
        for name in kpis.load():
            console.print(f"  KPI {name}")
            for question in kpi_questions(name):
                into = Measured(question.name, question.target)
                size.questions.append(into)
                await reader.measure(question, archive, 1, into, "1")
            size.questions[-len(kpi_questions(name))].times["SQL"] = _kpi_in_sql(clickhouse, name, seconds)
    return archive


async def _meanwhile(size: Size, settings: Settings, url: str, archive: Archive, seconds: float) -> None:
    async with session() as http:
        reader = Reader(http, url, settings, seconds)
        for question, into in zip(QUESTIONS, size.questions, strict=False):
            for at_once in (1, AT_ONCE):
                await reader.measure(question, archive, at_once, into, f"{at_once} while writing")
        of_kpis = [question for name in kpis.load() for question in kpi_questions(name)]
        for question, into in zip(of_kpis, size.questions[len(QUESTIONS) :], strict=True):
            await reader.measure(question, archive, 1, into, "1 while writing")


def kpi_questions(name: str) -> tuple[Question, Question]:
    """Of all time, whole; and of the last weeks, day by day."""
    recent = {"from": (datetime.now(UTC) - RECENT).date().isoformat(), "grain": "day"}
    return (
        Question(f"KPI {name}", 200.0, lambda *_: (f"/v1/kpis/{name}", {})),
        Question(f"KPI {name}, {RECENT.days} days", 200.0, lambda *_: (f"/v1/kpis/{name}", recent)),
    )


def _kpi_in_sql(clickhouse: Client, name: str, seconds: float) -> dict[str, float]:
    times: list[float] = []
    until = time.perf_counter() + seconds
    while not times or (len(times) < REQUESTS and time.perf_counter() < until):
        began = time.perf_counter()
        kpis.run(clickhouse, name)
        times.append(time.perf_counter() - began)
    return percentiles(times)


async def _archive(reader: Reader, clickhouse: Client) -> Archive:
    def rows(name: str, **parameters: Any) -> Sequence[Sequence[Any]]:
        script = files(__package__).joinpath(f"sql/bench/{name}.sql").read_text()
        return clickhouse.query(script, parameters=parameters).result_rows

    cursors = []
    now = datetime.now(UTC)
    for weeks in range(4, 100, 8):
        asked = {"created_to": (now - timedelta(weeks=weeks)).isoformat()}
        page = await reader.get("/v1/orders", {**PAGE, **asked})
        if page["next"]:
            cursors.append({**asked, "cursor": page["next"]})
    return Archive(
        orders=[
            (str(order_id), str(number), str(customer))
            for order_id, number, customer in rows("sample", wanted=ASKED_ABOUT)
        ],
        parcels=[str(number) for (number,) in rows("parcels", wanted=ASKED_ABOUT)],
        skus=[str(sku) for (sku,) in rows("skus")],
        cursors=cursors,
    )


@contextlib.contextmanager
def written(folder: Path, url: str, clickhouse: Client, rate: float = WRITING) -> Iterator[None]:
    """So many orders a second come in over HTTP while the block lasts. UserError when none do, or not until its end."""
    seed = random.SystemRandom().getrandbits(32)
    load = Load(str(folder), url, rate, WRITTEN_FOR, seed, reads=0.1, followed=0.0)
    argument = orjson.dumps(asdict(load)).decode()
    process = subprocess.Popen([sys.executable, "-m", "sandbox.load", argument], stdout=subprocess.DEVNULL)
    try:
        before, until = _count(clickhouse), time.perf_counter() + PATIENCE
        while _count(clickhouse) == before:
            if process.poll() is not None or time.perf_counter() > until:
                raise UserError("No orders come in: see what the load generator and the stack's logs say.")
            time.sleep(0.5)
        yield
        if process.poll() is not None:
            raise UserError("Orders did not come in until the end: the load generator ended before.")
    finally:
        process.terminate()
        process.wait()


def _worked(folder: Path) -> float:
    """CPU seconds of the stack's gateway and ClickHouse until now."""
    return sum(usage.cpu for name, usage in processes(folder).items() if name in ("gateway", "clickhouse"))


def answering(settings: Settings) -> Client:
    """A client, once the engine has started."""
    until = time.perf_counter() + 60
    while True:
        try:
            httpx.get(f"{settings.clickhouse_url}/ping")
        except httpx.TransportError:
            if time.perf_counter() > until:
                raise
            time.sleep(0.2)
        else:
            return connect(settings, send_receive_timeout=900, settings=SETTINGS)


def _parts(clickhouse: Client) -> dict[str, int]:
    script = files(__package__).joinpath("sql/bench/parts.sql").read_text()
    return {str(table): int(parts) for table, parts in clickhouse.query(script).result_rows}


def _count(clickhouse: Client) -> int:
    return int(clickhouse.query(files(__package__).joinpath("sql/data_size.sql").read_text()).result_rows[0][0])


# What is shown


def table(sizes: Sequence[Size]) -> Table:
    """One row a question: P50, P95 and CPU by size, how much the CPU grew from the smallest to the largest, and of the
    largest the P95 of eight at once and while the pipeline writes."""
    shown = Table(title="Reading over HTTP, milliseconds", title_justify="left", box=SIMPLE_HEAD)
    shown.add_column("question")
    for size in sizes:
        shown.add_column(f"{size.orders:,}\nP50   P95   CPU", justify="right", no_wrap=True)
    shown.add_column("CPU\ngrows", justify="right")
    for head in (f"{AT_ONCE} at once\nP95", "while writing\nP95", "target\nP95", ""):
        shown.add_column(head, justify="right")
    for asked in zip(*(size.questions for size in sizes), strict=True):
        most = asked[-1]
        times = most.times["1"]
        cells = [
            " ".join(_ms(value) for value in (one.times["1"]["p50"], one.times["1"]["p95"], one.cpu.get("1", 0.0)))
            for one in asked
        ]
        least = asked[0].cpu.get("1", 0.0)
        grown = f"× {most.cpu.get('1', 0.0) / least:.1f}" if least and len(sizes) > 1 else "–"
        met = bool(times["count"]) and times["p95"] * 1000 < most.target
        others = [
            _ms(most.times[one]["p95"]) if one in most.times else "–" for one in (f"{AT_ONCE}", "1 while writing")
        ]
        failed = sum(len(one.failures) for one in asked)
        verdict = f"[red]{failed} failed" if failed else "[green]met" if met else "[red]missed"
        shown.add_row(most.name, *cells, grown, *others, f"{most.target:.0f}", verdict)
    return shown


def in_sql(sizes: Sequence[Size]) -> Table:
    """The KPIs' bare queries: one row each."""
    shown = Table(title="KPIs in SQL, milliseconds (P50, P95), all time", title_justify="left", box=SIMPLE_HEAD)
    shown.add_column("KPI")
    for size in sizes:
        shown.add_column(f"{size.orders:,}", justify="right", no_wrap=True)
    for asked in zip(*(size.questions for size in sizes), strict=True):
        if "SQL" in asked[0].times:
            cells = [f"{_ms(one.times['SQL']['p50'])} {_ms(one.times['SQL']['p95'])}" for one in asked]
            shown.add_row(asked[0].name, *cells)
    return shown


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:5.1f}" if seconds else "    –"
