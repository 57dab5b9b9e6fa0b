"""Two gateways for commands and two for queries, beside the stack's own processes and on its broker and ClickHouse."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
import structlog

from gateway.auth import issue
from gateway.main import create_app, create_parts
from runtime.settings import Settings
from runtime.stack import free_port, read_stack
from tests.gateway.conftest import UNKNOWN, Shop, problem
from tests.support.parts import child, until
from tests.support.stack import Stack


@dataclass
class Gateways:
    commands: list[Shop]
    queries: list[Shop]


@contextmanager
def gateway(stack: Stack, name: str, slot: int, folder: Path, **environment: str) -> Iterator[Shop]:
    """`oms run NAME --slot SLOT` on a port of its own, ready."""
    found = read_stack(stack.data_dir)
    assert found is not None
    port = free_port()
    # The stack has these two from the test run's environment.
    rules = {"OMS_POLICY": str(stack.data_dir / "policy.yaml"), "OMS_TIME_SCALE": "1"}
    given = {**found.env, **rules, **environment, "OMS_GATEWAY_PORT": str(port)}
    with (
        child(["runtime", "run", name, "--slot", str(slot)], folder / f"{name}-{slot}.out", **given) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=40) as client,
    ):

        def ready() -> bool:
            assert process.exit_code is None, process.tail()
            try:
                return client.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        until(ready, f"{name}-{slot} is ready", 60)
        yield Shop(stack, client)


@pytest.fixture(scope="module")
def gateways(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateways]:
    folder = tmp_path_factory.mktemp("gateways")
    with ExitStack() as running:
        found = [
            [running.enter_context(gateway(stack, name, slot, folder)) for slot in range(2)]
            for name in ("gateway-command", "gateway-query")
        ]
        yield Gateways(*found)


def test_two_of_each_are_one_shop(gateways: Gateways) -> None:
    [first, second], queries = gateways.commands, gateways.queries
    for other in (second, *queries):
        other.customer = first.customer
    sku = first.product()
    key = uuid4().hex
    body = first.body(sku, payment_token="pm_card_visa", submit=True)
    until(
        lambda: second.call("POST", "/v1/orders?dry_run=true", body).status_code == 200, "the other knows the product"
    )
    placed = first.call("POST", "/v1/orders", body, key=key)
    assert placed.status_code == 201, placed.text
    order = placed.json()

    again = second.call("POST", "/v1/orders", body, key=key)
    assert again.status_code == 201
    assert again.json() == order

    path = f"/v1/orders/{order['id']}"
    for query in queries:
        read = query.call("GET", f"{path}?min_version={order['version']}")
        assert read.status_code == 200, read.text
        assert read.json()["version"] >= order["version"]
        assert float(read.headers["x-view-lag"]) >= 0
        # The list is another view than the order.
        until(lambda query=query: order["id"] in query.call("GET", "/v1/orders").text, "it is in the list")
        assert query.call("GET", "/v1/kpis/orders_created", as_="staff").status_code == 200
        until(lambda query=query: sku in query.call("GET", "/v1/products").text, "a query gateway knows the product")

    cancelled = second.call("POST", f"{path}/cancel", {"reason": "customer_request"}, key=uuid4().hex)
    assert cancelled.status_code == 200, cancelled.text
    version = cancelled.json()["version"]
    for query in queries:
        read = query.call("GET", f"{path}?min_version={version}")
        assert read.json()["status"] == "CANCELLED"


def test_what_is_for_the_other_role_is_told_so(gateways: Gateways) -> None:
    for command in gateways.commands:
        for path in (
            f"/v1/orders/{UNKNOWN}",
            "/v1/orders",
            "/v1/kpis",
            "/v1/admin/audit",
            "/dashboard",
            "/v1/products",
        ):
            found = problem(command.call("GET", path, as_="staff"), 421, "wrong-role")
            assert "role command" in found["detail"]
            assert "role query" in found["detail"]
        assert "get" not in command.client.get("/openapi.json").json()["paths"]["/v1/orders"]
        assert command.call("GET", "/v1/admin/promotions", as_="staff").status_code == 200
    for query in gateways.queries:
        problem(query.call("POST", "/v1/orders", {}), 421, "wrong-role")
        problem(query.call("POST", f"/v1/orders/{UNKNOWN}/cancel", {}), 421, "wrong-role")
        problem(query.call("GET", f"/v1/orders/{UNKNOWN}/commands/{UNKNOWN}"), 421, "wrong-role")
        problem(query.call("POST", "/v1/payments/events", {}, as_=None), 421, "wrong-role")
        assert "post" not in query.client.get("/openapi.json").json()["paths"]["/v1/orders"]
        assert set(query.client.get("/readyz").json()["dependencies"]) == {
            "kafka",
            "catalogue",
            "processes",
            "clickhouse",
        }


def test_commands_are_taken_without_clickhouse(stack: Stack, tmp_path: Path) -> None:
    nowhere = f"http://127.0.0.1:{free_port()}"
    with gateway(stack, "gateway-command", 7, tmp_path, OMS_CLICKHOUSE_URL=nowhere) as shop:
        assert shop.client.get("/readyz").json()["status"] == "degraded"
        placed = shop.placed(shop.product())
        again = shop.call("POST", f"/v1/orders/{placed['id']}/cancel", {"reason": "changed_mind"}, key=uuid4().hex)
        assert again.status_code == 200


def test_a_query_gateway_needs_clickhouse_only(tmp_path: Path) -> None:
    settings = Settings(
        data_dir=tmp_path,
        kafka_bootstrap=f"127.0.0.1:{free_port()}",
        clickhouse_url=f"http://127.0.0.1:{free_port()}",
        gateway_role="query",
    )
    headers = {"Authorization": f"Bearer {issue(settings, customer='ada', ttl=timedelta(hours=1))}"}

    async def scenario() -> tuple[httpx.Response, httpx.Response]:
        app = create_app(create_parts(settings))
        transport = httpx.ASGITransport(app)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=transport, base_url="http://x", headers=headers) as http,
        ):
            await app.state.monitor.look()
            return await http.get("/readyz"), await http.post("/v1/orders", json={})

    with structlog.testing.capture_logs():
        ready, placing = asyncio.run(scenario())
    assert ready.status_code == 503
    dependencies: dict[str, Any] = ready.json()["dependencies"]
    assert [name for name, dependency in dependencies.items() if dependency["needed"]] == ["clickhouse"]
    problem(placing, 421, "wrong-role")
