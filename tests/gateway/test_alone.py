"""The gateway with nothing else there: it starts, says what is missing, answers within bounds, and stops."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from starlette.types import Receive, Scope, Send

from gateway.auth import issue
from gateway.edge import Edge
from gateway.main import _listen, create_app, create_parts
from gateway.metrics import Metrics
from runtime.errors import UserError
from runtime.settings import Settings
from runtime.stack import Report, write_report
from tests.gateway.conftest import SHIP_TO, UNKNOWN, problem

ITEM = {"sku": "X", "quantity": 1}


def nobody_there() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path,
        kafka_bootstrap=f"127.0.0.1:{nobody_there()}",
        clickhouse_url=f"http://127.0.0.1:{nobody_there()}",
        command_timeout=1,
    )


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


def test_without_kafka_and_clickhouse(settings: Settings) -> None:
    write_report(settings.data_dir, Report(1, "degraded", 0.0, {}, ["placement-0"]))
    headers = {"Authorization": f"Bearer {issue(settings, customer='ada', ttl=timedelta(hours=1))}"}

    async def scenario() -> dict[str, Any]:
        app = create_app(create_parts(settings))
        found: dict[str, Any] = {}
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x") as http,
        ):
            order = f"/v1/orders/{UNKNOWN}"
            body = {"items": [ITEM], "currency": "EUR"}
            began = time.monotonic()
            found["create"] = await http.post("/v1/orders", json=body, headers=headers)
            found["async"] = await http.put(
                f"{order}/shipping-address", json=SHIP_TO, headers={**headers, "Prefer": "respond-async"}
            )
            found["change"] = await http.patch(f"{order}/items/L1", json={"quantity": 2}, headers=headers)
            found["read"] = await http.get(order, headers=headers)
            found["list"] = await http.get("/v1/orders", headers=headers)
            found["invalid"] = await http.patch(f"{order}/items/L1", json={}, headers=headers)
            found["seconds"] = time.monotonic() - began
            await app.state.monitor.look()
            found["ready"] = await http.get("/readyz")
            found["alive"] = await http.get("/healthz")
            began = time.monotonic()
        found["stop"] = time.monotonic() - began
        return found

    found = asyncio.run(scenario())
    problem(found["create"], 503, "catalogue-loading")
    problem(found["async"], 503, "kafka-unavailable")
    problem(found["change"], 503, "kafka-unavailable")
    problem(found["read"], 503, "clickhouse-unavailable")
    problem(found["list"], 503, "clickhouse-unavailable")
    problem(found["invalid"], 422, "invalid-request", "quantity")
    for name in ("create", "async", "change", "read", "list"):
        assert found[name].headers["retry-after"] == "1"
    assert found["seconds"] < 8
    assert found["alive"].status_code == 200
    assert found["ready"].status_code == 503
    dependencies = found["ready"].json()["dependencies"]
    assert {name for name, dependency in dependencies.items() if not dependency["ready"]} == {
        "kafka",
        "replies",
        "catalogue",
        "promotions",
        "preferences",
        "clickhouse",
        "processes",
    }
    assert not dependencies["clickhouse"]["needed"]
    assert "placement-0" in dependencies["processes"]["detail"]
    assert found["stop"] < 5


def test_what_nobody_expected_is_a_problem_that_tells_nothing() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError("the secret is 4242")

    async def scenario() -> httpx.Response:
        transport = httpx.ASGITransport(Edge(broken, Metrics()))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as http:
            return await http.get("/")

    answer = asyncio.run(scenario())
    problem(answer, 500, "internal-error")
    assert "secret" not in answer.text


def test_a_taken_port_is_one_clear_sentence(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"can't listen on 127\.0\.0\.1:{port} .*choose another port"):
            _listen(settings.model_copy(update={"gateway_port": port}))
