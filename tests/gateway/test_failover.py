"""Two ClickHouse engines with the same views, and a gateway that reads: either may die, or stop without a word."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import structlog

from analytics.clickhouse import connect
from analytics.migrate import migrate
from gateway.auth import issue
from gateway.freshness import TOPICS
from gateway.main import create_app, create_parts
from gateway.queries import PATIENCE
from gateway.server import BEHIND, Server
from runtime.settings import Settings
from runtime.stack import free_port
from tests.gateway.conftest import problem
from tests.support.histories import History
from tests.support.processes import clickhouse
from tests.support.view_tables import fill_histories

PLACED = History("failover").created(0).submitted(10)
READ = f"/v1/orders/{PLACED.order_id}"


@dataclass
class Engine:
    folder: Path
    port: int

    def __post_init__(self) -> None:
        self._running = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._process = self._running.enter_context(clickhouse(self.folder, self.port))

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)
        if number == signal.SIGKILL:
            self._process.wait(10)

    def end(self) -> None:
        self.signal(signal.SIGCONT)
        self._running.close()


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[list[Engine]]:
    """The first and the second, with one order in both."""
    found = [Engine(tmp_path / name, free_port()) for name in ("first", "second")]
    with ExitStack() as ending, structlog.testing.capture_logs():
        for engine in found:
            engine.start()
            ending.callback(engine.end)
            with connect(Settings(clickhouse_url=engine.url)) as client:
                migrate(client)
                fill_histories(client, [PLACED])
        yield found


@dataclass
class Reader:
    http: httpx.AsyncClient
    servers: list[Server]

    async def read(self) -> None:
        answer = await self.http.get(READ)
        assert answer.status_code == 200, answer.text
        assert answer.json()["id"] == PLACED.order_id

    async def until(self, look: Callable[[], bool]) -> None:
        """Reading all the time, and never in vain."""
        deadline = time.monotonic() + 20
        while not look():
            await self.read()
            await asyncio.sleep(0.02)
            assert time.monotonic() < deadline

    async def dependencies(self) -> dict[str, bool]:
        found = (await self.http.get("/readyz")).json()["dependencies"]
        return {server.name: found[server.name]["ready"] for server in self.servers}


@asynccontextmanager
async def gateway(engines: list[Engine], folder: Path) -> AsyncIterator[Reader]:
    """Kafka is not there at all: reading needs none."""
    settings = Settings(
        data_dir=folder,
        kafka_bootstrap=f"127.0.0.1:{free_port()}",
        clickhouse_url=engines[0].url,
        clickhouse_replica_url=engines[1].url,
    )
    headers = {"Authorization": f"Bearer {issue(settings, admin='clerk', ttl=timedelta(hours=1))}"}
    parts = create_parts(settings)
    app = create_app(parts)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x", headers=headers) as http,
    ):
        yield Reader(http, parts.views.servers)


def test_reads_go_on_whichever_dies_and_the_first_is_asked_again_when_it_is_back(
    engines: list[Engine], tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with gateway(engines, tmp_path) as reader:
            first, second = reader.servers
            await reader.read()
            assert first.answers
            engines[0].signal(signal.SIGKILL)
            await reader.read()
            assert not first.answers
            await asyncio.sleep(3)
            await reader.read()
            assert await reader.dependencies() == {"clickhouse": False, "clickhouse-replica": True}
            await asyncio.to_thread(engines[0].start)
            await reader.until(lambda: first.answers)
            engines[1].signal(signal.SIGKILL)
            await reader.read()
            await reader.until(lambda: not second.answers)
            await reader.read()
            engines[0].signal(signal.SIGKILL)
            problem(await reader.http.get(READ), 503, "clickhouse-unavailable")

    asyncio.run(scenario())


def test_one_that_stops_without_a_word_costs_the_first_requests_seconds_and_no_error(
    engines: list[Engine], tmp_path: Path
) -> None:
    async def scenario() -> None:
        async with gateway(engines, tmp_path) as reader:
            await reader.read()
            engines[0].signal(signal.SIGSTOP)
            began = time.monotonic()
            await reader.read()
            assert time.monotonic() - began < 10
            await reader.until(lambda: not reader.servers[0].answers)
            began = time.monotonic()
            await reader.read()
            assert time.monotonic() - began < PATIENCE - 1, "the one that stands still is not asked again"
            engines[0].signal(signal.SIGCONT)
            await reader.until(lambda: reader.servers[0].answers)

    asyncio.run(scenario())


def test_one_that_is_behind_is_asked_after_one_that_is_not() -> None:
    ends = {topic: {0: 10} for topic in TOPICS}
    done = [{"view": "orders", "topic": "order.states", "partition": 0, "offset": 10}]
    views = create_parts(Settings(clickhouse_replica_url="http://127.0.0.1:1")).views
    first, second = views.servers
    now = time.monotonic()
    assert views.asked is first  # nothing is known of either
    second.freshness.look(now, ends, done)
    assert views.asked is second
    first.freshness.look(now - BEHIND - 1, ends, done)
    assert views.asked is second
    first.freshness.look(now, ends, done)
    assert views.asked is first
    first.answers = False
    assert views.asked is second
    second.answers = False
    assert views.asked is first
