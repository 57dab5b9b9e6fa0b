"""However many look at the dashboard, ClickHouse is asked once: counted by the engine itself."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine, Iterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
from clickhouse_connect.driver.client import Client
from fastapi import FastAPI

from analytics.clickhouse import connect
from analytics.migrate import migrate
from gateway import problems
from gateway.auth import Authenticator, issue
from gateway.dashboard import contents, routes
from gateway.queries import Views
from runtime.settings import Settings
from tests.support.histories import History
from tests.support.processes import clickhouse, free_port
from tests.support.view_tables import fill_histories

Get = Callable[[str], Coroutine[Any, Any, httpx.Response]]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Of an engine that nobody else asks, with the views' tables in it."""
    port, folder = free_port(), tmp_path_factory.mktemp("clickhouse")
    with clickhouse(folder, port):
        yield Settings(data_dir=folder, clickhouse_url=f"http://127.0.0.1:{port}")


@pytest.fixture
def engine(settings: Settings) -> Iterator[Client]:
    with connect(settings) as client:
        migrate(client)
        yield client


def viewed(settings: Settings, look: Callable[[Get], Coroutine[Any, Any, None]]) -> None:
    """`look` at the pages of a gateway that was just started."""

    async def scenario() -> None:
        class Parts:
            authenticator = Authenticator(settings)
            views = Views(settings)

        app = FastAPI()
        app.state.parts = Parts
        problems.install(app)
        routes.install(app, Parts)  # type: ignore[arg-type]
        await Parts.views.rows("open_exceptions")  # connecting asks something, too
        headers = {"Authorization": f"Bearer {issue(settings, admin='bo', ttl=timedelta(hours=1))}"}
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://oms", headers=headers) as http:

            async def get(period: str) -> httpx.Response:
                answer = await http.get(f"/dashboard?period={period}")
                assert '<main data-state="live"' in answer.text
                return answer

            await look(get)
        await Parts.views.close()

    asyncio.run(scenario())


def test_ten_who_look_cost_what_one_costs(settings: Settings, engine: Client) -> None:
    asked: dict[int, int] = {}
    for viewers in (1, 10):

        async def look(get: Get, viewers: int = viewers) -> None:
            before = selects(engine)
            await asyncio.gather(*(get("24h") for _ in range(viewers)))
            asked[viewers] = selects(engine) - before - 1  # that of the second count

        viewed(settings, look)
    assert asked[10] == asked[1] >= 10


def test_while_the_figures_are_fresh_only_what_happens_now_is_asked_again(
    settings: Settings, engine: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contents, "NOW_FRESH", 0)
    monkeypatch.setattr(contents, "NOW_SHARE", 1e9)

    async def look(get: Get) -> None:
        await get("7d")
        for _ in range(3):
            before = selects(engine)
            await get("7d")
            # Minutes, exceptions and the tail.
            assert selects(engine) - before - 1 == 3

    viewed(settings, look)


def test_figures_that_are_slow_stay_as_they_were(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contents, "NOW_FRESH", 60)
    monkeypatch.setattr(contents, "FIGURES_SHARE", 1e9)
    monkeypatch.setattr(contents.Period, "fresh", 0)

    async def look(get: Get) -> None:
        as_of = [figures_at(await get("7d"))]
        monkeypatch.setattr(contents, "PATIENCE", 0)
        as_of.append(figures_at(await get("7d")))
        monkeypatch.setattr(contents, "PATIENCE", 8)
        as_of.append(figures_at(await get("7d")))
        assert as_of[0] == as_of[1] < as_of[2]

    viewed(settings, look)


def test_what_is_under_way_is_so_now_whenever_it_was_created(settings: Settings, engine: Client) -> None:
    old = History("old").created(0).submitted(10).payment_requested(10).paid(12).processing(100)
    back = History("back").created(0).submitted(10).payment_requested(10).paid(12).processing(100).shipped(200)
    back.delivered(300).return_requested(400, "defective")
    fill_histories(engine, [old, back, History("draft").created(0)])

    async def look(get: Get) -> None:
        page = (await get("1h")).text
        assert card(page, "active") == [("Processing", "1")]
        assert card(page, "funnel") == []

    viewed(settings, look)


def card(page: str, name: str) -> list[tuple[str, str]]:
    """(label, first figure) of the rows of one of the page's cards."""
    [found] = re.findall(rf'<section class="card" id="{name}".*?</section>', page, re.DOTALL)
    return re.findall(r'<tr><th scope="row">([^<]+)</th><td>.*?</td><td>([^<]+)</td>', found)


def figures_at(page: httpx.Response) -> str:
    [found] = re.findall(r'data-live="figures-at">as of <time datetime="([^"]+)"', page.text)
    return str(found)


def selects(engine: Client) -> int:
    """That were ever begun, this one included."""
    found = engine.query("SELECT value FROM system.events WHERE event = 'SelectQuery'").result_rows
    return int(found[0][0])
