"""Webhooks at the edge, without Kafka: signatures, sizes, schemas. What is right gets as far as Kafka (503)."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from gateway.main import create_app, create_parts
from gateway.webhooks import signature, what_is_wrong
from runtime.settings import Settings
from sandbox.webhooks import sign

SECRET = "a secret for tests"
PATH = "/v1/payments/events"
NOW = 1_800_000_000.0


# Signatures


def test_what_the_sandbox_signs_the_gateway_takes() -> None:
    assert what_is_wrong(sign(SECRET, b"{}", NOW), b"{}", SECRET, NOW) is None


@pytest.mark.parametrize("away", [-300, -1, 0, 299, 300])
def test_a_signature_within_five_minutes_is_right(away: float) -> None:
    assert what_is_wrong(sign(SECRET, b"x", NOW), b"x", SECRET, NOW + away) is None


@pytest.mark.parametrize("away", [-301, 301, 86_400])
def test_one_that_is_too_old_or_from_the_future_is_not(away: float) -> None:
    assert "away" in str(what_is_wrong(sign(SECRET, b"x", NOW), b"x", SECRET, NOW + away))


def test_one_of_several_signatures_is_enough_so_that_a_secret_can_be_changed() -> None:
    seconds = str(int(NOW))
    both = f"t={seconds}, v1={signature('the old one', seconds, b'x')}, v1={signature(SECRET, seconds, b'x')}"
    assert what_is_wrong(both, b"x", SECRET, NOW) is None
    assert what_is_wrong(f"t={seconds},v0={signature(SECRET, seconds, b'x')}", b"x", SECRET, NOW) is not None


def test_a_signature_holds_for_its_own_body_time_and_secret_only() -> None:
    right = sign(SECRET, b"body", NOW)
    assert what_is_wrong(right, b"body", SECRET, NOW) is None
    assert what_is_wrong(right, b"Body", SECRET, NOW) is not None
    assert what_is_wrong(right, b"body", SECRET + "!", NOW) is not None
    assert what_is_wrong(right.replace("t=18", "t=19"), b"body", SECRET, NOW + 100_000_000) is not None


@pytest.mark.parametrize(
    "header",
    [None, "", "v1=00", "t=,v1=00", "t=1", "t=x,v1=00", "t=1,t=2,v1=00", "t=-1,v1=00", "t=١,v1=00", "t=1,v1=é", "=,="],
)
def test_a_header_that_is_no_signature_is_refused(header: str | None) -> None:
    assert what_is_wrong(header, b"x", SECRET, NOW) is not None


# The route


def event(**changes: Any) -> dict[str, Any]:
    values = {
        "event_id": "evt_1",
        "kind": "captured",
        "order_id": "00000000-0000-4000-8000-000000000001",
        "reference": "a1",
        "amount": 1000,
        "currency": "EUR",
        "provider_ref": "ch_1",
        "occurred_at": "2026-03-02T10:00:00Z",
    }
    return {name: value for name, value in {**values, **changes}.items() if value is not ...}


def nobody_there() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with structlog.testing.capture_logs():
        yield


class Gateway:
    def __init__(self, folder: Path, secret: str) -> None:
        self.settings = Settings(
            data_dir=folder,
            kafka_bootstrap=f"127.0.0.1:{nobody_there()}",
            clickhouse_url=f"http://127.0.0.1:{nobody_there()}",
            command_timeout=1,
            webhook_secret=secret,
        )

    def post(self, *bodies: bytes, path: str = PATH, headers: dict[str, str] | None = None) -> list[httpx.Response]:
        async def scenario() -> list[httpx.Response]:
            app = create_app(create_parts(self.settings))
            transport = httpx.ASGITransport(app)
            async with (
                app.router.lifespan_context(app),
                httpx.AsyncClient(transport=transport, base_url="http://x", timeout=30) as http,
            ):
                return [
                    await http.post(
                        path,
                        content=body,
                        headers={"OMS-Signature": sign(SECRET, body)} if headers is None else headers,
                    )
                    for body in bodies
                ]

        return asyncio.run(scenario())


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path, SECRET)


def told(answer: httpx.Response) -> tuple[int, str, list[str]]:
    found = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, found["type"], [error["field"] for error in found.get("errors", [])]


def bodies(*events: dict[str, Any]) -> list[bytes]:
    return [json.dumps({"events": [one]}).encode() for one in events]


def test_without_a_secret_there_are_no_webhooks(tmp_path: Path) -> None:
    (answer,) = Gateway(tmp_path, "").post(*bodies(event()))
    assert told(answer) == (503, "/problems/webhooks-off", [])
    assert answer.headers["retry-after"] == "60"


def test_a_wrong_or_missing_signature_is_401_whatever_the_body(gateway: Gateway) -> None:
    (body,) = bodies(event())
    for headers in (
        {},
        {"OMS-Signature": sign("another", body)},
        {"OMS-Signature": sign(SECRET, body, time.time() - 400)},
    ):
        for answer in gateway.post(body, b"no json", headers=headers):
            assert told(answer) == (401, "/problems/bad-signature", ["OMS-Signature"])


def test_a_body_that_does_not_fit_names_the_field(gateway: Gateway) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        (event(kind="paid"), "events[0].kind"),
        (event(amount="1000"), "events[0].amount"),
        (event(amount=10.5), "events[0].amount"),
        (event(amount=-1), "events[0].amount"),
        (event(currency="EURO"), "events[0].currency"),
        (event(occurred_at="2026-03-02T10:00:00"), "events[0].occurred_at"),
        (event(order_id=""), "events[0].order_id"),
        (event(order_id="a\nb"), "events[0].order_id"),
        (event(reference="x" * 256), "events[0].reference"),
        (event(event_id=...), "events[0].event_id"),
        (event(kind="capture"), "events[0].attempt_id"),
        (event(kind="refunded", attempt_id=None), "events[0].attempt_id"),
        (event(tip=1), "events[0].tip"),
    ]
    answers = gateway.post(*bodies(*(one for one, _ in wrong)))
    assert [told(answer) for answer in answers] == [(422, "/problems/invalid-request", [field]) for _, field in wrong]
    empty, many, other, broken = gateway.post(
        b'{"events": []}', json.dumps({"events": [event()] * 501}).encode(), b"[]", b'{"events": '
    )
    assert told(empty) == told(many) == (422, "/problems/invalid-request", ["events"])
    assert told(other)[:2] == (422, "/problems/invalid-request")
    assert told(broken) == (400, "/problems/malformed-json", ["body"])


def test_a_short_parcel_says_what_is_not_there(gateway: Gateway) -> None:
    report = {name: event()[name] for name in ("event_id", "order_id", "occurred_at")} | {"shipment_id": "s1"}
    lines = {"lines": [{"line_id": "L1", "sku": "MUG", "quantity": 1}]}
    missing, empty, said, picked = gateway.post(
        *bodies(
            {**report, "kind": "short"},
            {**report, "kind": "short", "lines": []},
            {**report, "kind": "short", **lines},
            {**report, "kind": "picked"},
        ),
        path="/v1/warehouse/events",
    )
    assert told(missing) == told(empty) == (422, "/problems/invalid-request", ["events[0].lines"])
    # What is right only fails because no Kafka is there.
    assert told(said) == told(picked) == (503, "/problems/kafka-unavailable", [])


def test_a_body_has_at_most_1_mib(gateway: Gateway) -> None:
    fits = json.dumps({"events": [event(event_id=f"evt_{n}") for n in range(400)]}).encode()
    padded = fits + b" " * (1024 * 1024 - len(fits))
    large, allowed = gateway.post(padded + b" ", padded)
    assert told(large) == (413, "/problems/body-too-large", [])
    assert large.json()["detail"] == "A body has at most 1024 KiB."
    assert told(allowed)[:2] == (503, "/problems/kafka-unavailable")


def test_what_kafka_does_not_take_is_not_accepted(gateway: Gateway) -> None:
    (answer,) = gateway.post(*bodies(event()))
    assert told(answer) == (503, "/problems/kafka-unavailable", [])
    assert "retry-after" in answer.headers


def test_it_is_documented_with_its_signature_and_without_a_token(gateway: Gateway) -> None:
    app = create_app(create_parts(gateway.settings))
    operation = app.openapi()["paths"][PATH]["post"]
    assert "security" not in operation
    assert "OMS-Signature" in [parameter["name"] for parameter in operation["parameters"]]
    assert "requestBody" in operation
