"""The sandbox payment provider and the client for it, over real HTTP and with real crashes."""

from __future__ import annotations

import asyncio
import json
import signal
import sqlite3
import subprocess
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from threading import Thread
from typing import Any

import aiohttp
import httpx
import pytest
from pydantic import SecretStr

from gateway.routes.webhooks_payments import PaymentEvents
from gateway.webhooks import what_is_wrong
from processors.outside import Unavailable
from processors.payment.client import HttpPaymentProvider
from processors.payment.provider import (
    Authorized,
    Captured,
    CaptureMade,
    CaptureRefused,
    ChargeOutcome,
    Declined,
    NotFound,
    ProviderUnavailable,
    Refunded,
    RefundRefused,
    Unknown,
    Voided,
    VoidRefused,
)
from processors.payment.worker import PaymentWorker
from runtime.workers import TryLater
from sandbox.payment_ledger import ChargeRequest, Ledger
from sandbox.payment_provider import DATABASE
from schemas.base import Message, Payload
from schemas.payment import (
    CapturePayment,
    PaymentCaptureFailed,
    PaymentCaptureMade,
    PaymentRefunded,
    PaymentVoided,
    PaymentVoidFailed,
    RefundFailed,
    RefundPayment,
    VoidPayment,
)
from tests.support.parts import until
from tests.support.processes import free_port, spawn, stop, wait_for

CARD = "4111111111111111"
SECRET = "a secret for tests"


def start(folder: Path, port: int, *options: str, **env: str) -> subprocess.Popen[bytes]:
    arguments = ("--data-dir", str(folder), "--port", str(port), *options)
    return spawn("sandbox.payment_provider", *arguments, log=folder / "provider.log", env=env)


class Service:
    """A provider process on a folder; it can be killed and started again."""

    def __init__(self, folder: Path, *options: str, **env: str) -> None:
        self.folder = folder
        self.options = options
        self.env = env
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx.Client(base_url=self.url, timeout=10.0)
        self.start()

    def start(self) -> None:
        self.process = start(self.folder, self.port, *self.options, **self.env)
        wait_for(f"{self.url}/healthz", self.process)

    def close(self) -> None:
        self.http.close()
        stop(self.process)

    def charge(self, key: str, token: str = "pm_card_visa", **changes: Any) -> httpx.Response:
        body = {"amount": 1000, "currency": "EUR", "payment_token": token, "reference": f"order-{key}", "capture": True}
        return self.http.post("/v1/charges", headers={"Idempotency-Key": key}, content=json.dumps(body | changes))

    def refund(self, key: str, attempt_id: str, amount: int, **more: Any) -> httpx.Response:
        body = {"attempt_id": attempt_id, "amount": amount} | more
        return self.http.post("/v1/refunds", headers={"Idempotency-Key": key}, json=body)

    def authorize(self, key: str, token: str = "pm_card_visa", **changes: Any) -> httpx.Response:
        body = {"amount": 1000, "currency": "EUR", "payment_token": token, "reference": f"order-{key}"}
        return self.http.post("/v1/authorizations", headers={"Idempotency-Key": key}, json=body | changes)

    def capture(self, key: str, attempt_id: str, amount: int, **more: Any) -> httpx.Response:
        body = {"attempt_id": attempt_id, "amount": amount} | more
        return self.http.post("/v1/captures", headers={"Idempotency-Key": key}, json=body)

    def void(self, attempt_id: str) -> httpx.Response:
        return self.http.post("/v1/voids", headers={"Idempotency-Key": attempt_id}, json={"attempt_id": attempt_id})

    def status(self, key: str) -> str:
        return str(self.http.get(f"/v1/charges/{key}").json()["status"])

    def ledger(self, limit: int = 1000) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            page = self.http.get("/v1/ledger", params={"after": after, "limit": limit}).json()
            entries += page["items"]
            after = page["next"]
        return entries

    def entries(self, attempt_id: str) -> list[dict[str, Any]]:
        return [entry for entry in self.ledger() if entry["attempt_id"] == attempt_id]

    def outage(self, seconds: float) -> None:
        assert self.http.post("/sandbox/outage", json={"seconds": seconds}).status_code == 200


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    running = Service(tmp_path_factory.mktemp("provider"))
    yield running
    running.close()


@pytest.fixture
def own_service(tmp_path: Path) -> Iterator[Service]:
    running = Service(tmp_path)
    yield running
    running.close()


@pytest.fixture
def key() -> str:
    return str(uuid.uuid4())


class Clock:
    """The breaker's clock, which a test puts forward."""

    def __init__(self) -> None:
        self.passed = 0.0

    def time(self) -> float:
        return time.time() + self.passed


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("purgatory.domain.model.time", clock)
    return clock


def error(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


# The provider


@pytest.mark.parametrize(
    ("token", "ending"),
    [
        ("pm_card_visa", {"status": "captured"}),
        ("pm_card_chargeDeclined", {"status": "declined", "decline_code": "card_declined"}),
        ("pm_nobody_knows", {"status": "declined", "decline_code": "invalid_token"}),
    ],
)
def test_a_charge_ends_as_its_token_says_and_is_in_the_ledger(
    service: Service, key: str, token: str, ending: dict[str, str]
) -> None:
    answer = service.charge(key, token)
    assert answer.status_code == 200
    body = answer.json()
    assert body.pop("id").startswith("ch_")
    assert body == {"amount": 1000, "currency": "EUR", "reference": f"order-{key}"} | ending
    assert service.http.get(f"/v1/charges/{key}").json() == answer.json()
    (entry,) = service.entries(key)
    assert entry.pop("seq") > 0
    assert entry.pop("at").endswith("+00:00")
    assert entry == {
        "kind": "charge",
        "key": key,
        "attempt_id": key,
        "reference": f"order-{key}",
        "amount": 1000,
        "currency": "EUR",
        "status": ending["status"],
    }


def test_an_authorization_is_captured_in_parts_and_its_rest_given_free(service: Service, key: str) -> None:
    authorized = service.authorize(key)
    body = authorized.json()
    assert (body["status"], body["amount"], body["id"][:3]) == ("authorized", 1000, "au_")
    lasts = datetime.fromisoformat(body["expires_at"]) - datetime.now(UTC)
    assert timedelta(days=6, hours=23) < lasts < timedelta(days=7)
    assert error(service.refund(f"{key}-r0", key, 1)) == (409, "charge_not_captured")

    first = service.capture(f"{key}-1", key, 400)
    assert first.json() | {"id": ""} == {
        "id": "",
        "status": "captured",
        "amount": 400,
        "currency": "EUR",
        "reference": f"order-{key}",
        "attempt_id": key,
    }
    assert service.capture(f"{key}-1", key, 400).content == first.content
    assert service.http.get(f"/v1/captures/{key}-1").content == first.content
    assert error(service.capture(f"{key}-1", key, 401)) == (409, "idempotency_key_reuse")
    assert error(service.capture(f"{key}-2", key, 601)) == (409, "amount_exceeds_authorized")
    assert error(service.capture(f"{key}-2", key, 1, currency="USD")) == (409, "currency_mismatch")
    assert service.capture(f"{key}-2", key, 350).status_code == 200

    voided = service.void(key)
    assert (voided.json()["status"], voided.json()["amount"]) == ("voided", 250)
    assert service.void(key).content == service.http.get(f"/v1/voids/{key}").content == voided.content
    assert error(service.capture(f"{key}-3", key, 1)) == (409, "authorization_voided")
    assert service.authorize(key).content == authorized.content  # what was answered once, also now
    assert service.http.get(f"/v1/authorizations/{key}").json()["status"] == "authorized"  # a part was taken

    assert error(service.refund(f"{key}-r", key, 751)) == (409, "amount_exceeds_refundable")
    assert service.refund(f"{key}-r", key, 750).json()["status"] == "refunded"
    assert [(entry["kind"], entry["status"], entry["amount"]) for entry in service.entries(key)] == [
        ("authorization", "authorized", 1000),
        ("capture", "captured", 400),
        ("capture", "captured", 350),
        ("void", "voided", 250),
        ("refund", "refunded", 750),
    ]


def test_captures_never_exceed_the_authorization_whatever_comes_at_once(service: Service, key: str) -> None:
    service.authorize(key)
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda n: service.capture(f"{key}-{n}", key, 150), range(32)))
    assert Counter(answer.status_code for answer in answers) == {200: 6, 409: 26}
    assert {error(answer) for answer in answers if answer.status_code == 409} == {(409, "amount_exceeds_authorized")}


def test_an_authorization_expires(service: Service, key: str) -> None:
    service.authorize(key)
    service.authorize(f"{key}-part")
    service.capture(f"{key}-p1", f"{key}-part", 1)
    for name in (key, f"{key}-part"):
        assert service.http.post(f"/sandbox/authorizations/{name}/expire").status_code == 200
    assert service.http.get(f"/v1/authorizations/{key}").json()["status"] == "expired"
    assert error(service.capture(f"{key}-1", key, 1)) == (409, "authorization_expired")
    assert service.capture(f"{key}-p1", f"{key}-part", 1).status_code == 200  # it was made before
    assert service.void(key).json()["status"] == "voided"
    assert service.http.get(f"/v1/authorizations/{key}").json()["status"] == "voided"


def test_how_long_an_authorization_lasts_can_be_set(tmp_path: Path, key: str) -> None:
    brief = Service(tmp_path, "--authorization-seconds", "0.5")
    try:
        brief.authorize(key)
        assert brief.capture(f"{key}-1", key, 1).status_code == 200
        time.sleep(0.6)
        assert error(brief.capture(f"{key}-2", key, 1)) == (409, "authorization_expired")
    finally:
        brief.close()


def test_what_cannot_be_captured_or_voided(service: Service, key: str) -> None:
    assert error(service.capture(f"{key}-1", key, 1)) == (404, "authorization_not_found")
    assert error(service.void(key)) == (404, "authorization_not_found")
    for kind in ("authorization", "capture", "void"):
        assert error(service.http.get(f"/v1/{kind}s/{key}")) == (404, f"{kind}_not_found")
    assert service.authorize(key, "pm_card_chargeDeclined").json()["decline_code"] == "card_declined"
    assert error(service.capture(f"{key}-1", key, 1)) == (409, "authorization_declined")
    assert error(service.void(key)) == (409, "authorization_declined")
    service.charge(f"{key}-charge")
    assert error(service.capture(f"{key}-1", f"{key}-charge", 1)) == (404, "authorization_not_found")
    assert error(service.authorize(f"{key}-card", CARD)) == (422, "card_number")


def test_the_token_whose_captures_fail(service: Service, key: str) -> None:
    assert service.authorize(key, "pm_sandbox_captureFails").json()["status"] == "authorized"
    assert error(service.capture(f"{key}-1", key, 1)) == (402, "capture_declined")
    assert service.void(key).json()["status"] == "voided"
    assert service.charge(f"{key}-c", "pm_sandbox_captureFails").json()["decline_code"] == "capture_declined"


def test_the_token_whose_answers_get_lost(service: Service, key: str) -> None:
    assert error(service.charge(f"{key}-c", "pm_sandbox_reportsLate")) == (500, "internal_error")
    assert service.status(f"{key}-c") == "captured"
    assert error(service.authorize(key, "pm_sandbox_reportsLate")) == (500, "internal_error")
    assert service.http.get(f"/v1/authorizations/{key}").json()["status"] == "authorized"
    assert error(service.capture(f"{key}-1", key, 300)) == (500, "internal_error")
    assert error(service.capture(f"{key}-1", key, 300)) == (500, "internal_error")
    assert error(service.refund(f"{key}-r", key, 100)) == (500, "internal_error")
    assert error(service.void(key)) == (500, "internal_error")
    kinds = [(entry["kind"], entry["amount"]) for entry in service.entries(key)]
    assert kinds == [("authorization", 1000), ("capture", 300), ("refund", 100), ("void", 700)]


def test_a_slow_and_a_hung_authorization_end_authorized(service: Service, key: str) -> None:
    with ThreadPoolExecutor(1) as threads:
        slow = threads.submit(service.authorize, f"{key}-s", "pm_sandbox_slow")
        body = {"amount": 1, "currency": "EUR", "payment_token": "pm_sandbox_timeout", "reference": "o"}
        headers = {"Idempotency-Key": key}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{service.url}/v1/authorizations", headers=headers, json=body, timeout=0.3)
        settle = f"/sandbox/authorizations/{key}/settle"
        assert error(service.http.post(settle, json={"status": "captured"})) == (422, "invalid_request")
        assert service.http.post(settle, json={"status": "authorized"}).json()["status"] == "authorized"
        assert slow.result().json()["status"] == "authorized"


def test_a_ledger_of_the_first_release_is_brought_up_to_date(tmp_path: Path, key: str) -> None:
    db = sqlite3.connect(tmp_path / DATABASE)
    db.executescript(
        """
        CREATE TABLE entries (
            seq INTEGER PRIMARY KEY, kind TEXT NOT NULL CHECK (kind IN ('charge', 'refund')), key TEXT NOT NULL,
            attempt_id TEXT NOT NULL, id TEXT NOT NULL, reference TEXT NOT NULL,
            amount INTEGER NOT NULL CHECK (amount > 0), currency TEXT NOT NULL,
            status TEXT NOT NULL CHECK (status IN ('captured', 'declined', 'processing', 'refunded')),
            decline_code TEXT, body_hash BLOB NOT NULL, due_at REAL, at TEXT NOT NULL, UNIQUE (kind, key)
        ) STRICT;
        CREATE INDEX refunds ON entries (attempt_id) WHERE kind = 'refund';
        CREATE TABLE refused_once (key TEXT PRIMARY KEY) WITHOUT ROWID, STRICT;
        INSERT INTO entries VALUES
            (7, 'charge', 'old', 'old', 'ch_1', 'order-old', 900, 'EUR', 'captured', NULL, x'00', NULL, '2026-01-01');
        """
    )
    db.close()
    for _ in range(2):
        service = Service(tmp_path)
        try:
            (old, *new) = service.ledger()
            assert (old["seq"], old["key"], old["amount"], old["status"]) == (7, "old", 900, "captured")
            assert [entry["kind"] for entry in new] == (["authorization"] if new else [])
            assert service.refund(f"{key}-r", "old", 901).status_code == 409
            assert service.authorize(key).status_code == 200
        finally:
            service.close()


def test_a_charge_never_seen_is_404(service: Service, key: str) -> None:
    assert error(service.http.get(f"/v1/charges/{key}")) == (404, "charge_not_found")
    assert error(service.http.get(f"/v1/refunds/{key}")) == (404, "refund_not_found")
    assert error(service.http.get("/v1/nothing")) == (404, "not_found")


def test_one_key_charges_once_however_many_send_it_at_once(service: Service, key: str) -> None:
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: service.charge(key).content, range(64)))
    assert len(set(answers)) == 1
    assert len(service.entries(key)) == 1


def test_a_key_with_another_body_is_409(service: Service, key: str) -> None:
    service.charge(key)
    for change in ({"amount": 1001}, {"currency": "USD"}, {"payment_token": "pm_x"}, {"reference": "another"}):
        assert error(service.charge(key, **change)) == (409, "idempotency_key_reuse")
    assert [entry["amount"] for entry in service.entries(key)] == [1000]


def test_refunds_never_exceed_the_charge_whatever_comes_at_once(service: Service, key: str) -> None:
    service.charge(key)
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda n: service.refund(f"{key}-{n}", key, 150), range(32)))
    assert Counter(answer.status_code for answer in answers) == {200: 6, 409: 26}
    assert {error(answer) for answer in answers if answer.status_code == 409} == {(409, "amount_exceeds_refundable")}
    assert service.refund(f"{key}-rest", key, 100).json()["status"] == "refunded"
    assert error(service.refund(f"{key}-cent", key, 1)) == (409, "amount_exceeds_refundable")
    refunds = [entry for entry in service.entries(key) if entry["kind"] == "refund"]
    assert sum(entry["amount"] for entry in refunds) == 1000
    assert {entry["reference"] for entry in refunds} == {f"order-{key}"}


def test_one_refund_key_refunds_once(service: Service, key: str) -> None:
    service.charge(key)
    first = service.refund(f"{key}-r", key, 400)
    assert service.refund(f"{key}-r", key, 400).content == first.content
    assert service.http.get(f"/v1/refunds/{key}-r").content == first.content
    assert error(service.refund(f"{key}-r", key, 401)) == (409, "idempotency_key_reuse")
    assert [entry["amount"] for entry in service.entries(key)] == [1000, 400]


def test_what_cannot_be_refunded(service: Service, key: str) -> None:
    assert error(service.refund(f"{key}-r", key, 1)) == (404, "charge_not_found")
    service.charge(key, "pm_card_chargeDeclined")
    assert error(service.refund(f"{key}-r", key, 1)) == (409, "charge_not_captured")
    service.charge(f"{key}-2")
    assert error(service.refund(f"{key}-r", f"{key}-2", 1, currency="USD")) == (409, "currency_mismatch")
    assert error(service.refund(f"{key}-r", f"{key}-2", 0)) == (422, "invalid_request")
    assert error(service.refund(f"{key}-r", f"{key}-2", -1)) == (422, "invalid_request")
    assert not [entry for entry in service.ledger() if entry["key"] == f"{key}-r"]


@pytest.mark.parametrize("token", [CARD, "4111 1111 1111 1111", "pm-4111-1111-1111-1111", "4222222222222", f"x{CARD}y"])
def test_a_card_number_is_refused_and_kept_nowhere(service: Service, key: str, token: str) -> None:
    answer = service.charge(key, token)
    assert error(answer) == (422, "card_number")
    assert answer.json()["error"]["field"] == "payment_token"
    # In a place where no token belongs it is only an invalid body, and not repeated either.
    stray = service.charge(key, card_number=token)
    assert error(stray) == (422, "invalid_request")
    assert error(service.http.get(f"/v1/charges/{key}")) == (404, "charge_not_found")
    kept = b"".join(path.read_bytes() for path in service.folder.iterdir()) + answer.content + stray.content
    assert token.encode() not in kept
    assert b"pm_card_visa" not in kept  # nor any other token


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"amount": 0}, "amount"),
        ({"amount": 10.0}, "amount"),
        ({"amount": "10"}, "amount"),
        ({"amount": True}, "amount"),
        ({"amount": 10**13}, "amount"),
        ({"currency": "eur"}, "currency"),
        ({"payment_token": ""}, "payment_token"),
        ({"reference": ""}, "reference"),
        ({"reference": "\ud800"}, None),
        ({"capture": False}, "capture"),
        ({"tip": 1}, "tip"),
    ],
)
def test_a_bad_body_is_422_and_names_the_field(
    service: Service, key: str, change: dict[str, Any], field: str | None
) -> None:
    answer = service.charge(key, **change)
    assert error(answer) == (422, "invalid_request")
    assert answer.json()["error"].get("field") == field
    assert service.entries(key) == []


def test_a_charge_needs_a_key_of_plain_characters(service: Service) -> None:
    for bad in ("", "é", "x" * 256):
        answer = service.http.post("/v1/charges", headers=[(b"Idempotency-Key", bad.encode())], json={})
        assert error(answer) == (400, "idempotency_key_required")


def test_the_ledger_comes_in_pages(service: Service, key: str) -> None:
    for n in range(5):
        service.charge(f"{key}-{n}")
    whole = service.ledger()
    assert service.ledger(limit=2) == whole
    assert [entry["seq"] for entry in whole] == sorted({entry["seq"] for entry in whole})
    assert error(service.http.get("/v1/ledger", params={"after": "-1"})) == (422, "invalid_request")
    assert error(service.http.get("/v1/ledger", params={"after": "9" * 19})) == (422, "invalid_request")


def test_the_timeout_token_never_answers_and_a_test_says_how_it_ended(service: Service, key: str) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(
            f"{service.url}/v1/charges",
            headers={"Idempotency-Key": key},
            json={"amount": 1000, "currency": "EUR", "payment_token": "pm_sandbox_timeout", "reference": "o"},
            timeout=0.3,
        )
    assert service.status(key) == "processing"
    (before,) = service.entries(key)
    assert error(service.refund(f"{key}-r", key, 1)) == (409, "charge_not_captured")
    settle = f"/sandbox/charges/{key}/settle"
    assert service.http.post(settle, json={"status": "captured"}).json()["status"] == "captured"
    assert service.http.post(settle, json={"status": "captured"}).status_code == 200
    assert error(service.http.post(settle, json={"status": "declined"})) == (409, "already_settled")
    (after,) = service.entries(key)
    assert (before["status"], after["status"]) == ("processing", "captured")
    assert after["seq"] > before["seq"]  # so that a reader of pages sees it again
    assert error(service.http.post(f"/sandbox/charges/{key}-no/settle", json={"status": "captured"}))[0] == 404


def test_the_slow_token_takes_three_seconds_for_all_who_ask_and_for_those_who_left(service: Service, key: str) -> None:
    started = time.monotonic()
    with ThreadPoolExecutor(3) as threads:
        both = [threads.submit(service.charge, key, "pm_sandbox_slow") for _ in range(2)]
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(
                f"{service.url}/v1/charges",
                headers={"Idempotency-Key": f"{key}-left"},
                json={"amount": 1000, "currency": "EUR", "payment_token": "pm_sandbox_slow", "reference": "o"},
                timeout=0.3,
            )
        assert (service.status(key), service.status(f"{key}-left")) == ("processing", "processing")
        answers = [future.result() for future in both]
    assert 2.9 < time.monotonic() - started < 6
    assert [answer.json()["status"] for answer in answers] == ["captured", "captured"]
    assert answers[0].content == answers[1].content
    until(lambda: service.status(f"{key}-left") == "captured", "the charge whose client left is captured")
    assert len(service.entries(key)) == 1


def test_the_flaky_token_fails_once_per_key(service: Service, key: str) -> None:
    assert error(service.charge(key, "pm_sandbox_flaky")) == (503, "temporarily_unavailable")
    assert error(service.http.get(f"/v1/charges/{key}")) == (404, "charge_not_found")
    assert service.charge(key, "pm_sandbox_flaky").json()["status"] == "captured"
    assert service.charge(key, "pm_sandbox_flaky").json()["status"] == "captured"
    assert len(service.entries(key)) == 1


def test_an_outage_turns_everything_away_but_the_ledger(service: Service, key: str) -> None:
    service.outage(60)
    try:
        assert error(service.charge(key)) == (503, "unavailable")
        assert error(service.http.get(f"/v1/charges/{key}")) == (503, "unavailable")
        assert service.entries(key) == []
        assert service.http.get("/healthz").status_code == 200
    finally:
        service.outage(0)
    assert service.charge(key).status_code == 200


def test_a_second_provider_on_the_same_ledger_does_not_start(service: Service) -> None:
    second = start(service.folder, free_port())
    try:
        assert second.wait(10) != 0
    finally:
        stop(second)
    assert "database is locked" in (service.folder / "provider.log").read_text()


def test_sigterm_ends_it_cleanly_while_a_client_is_held(own_service: Service, key: str) -> None:
    with ThreadPoolExecutor(1) as threads:
        held = threads.submit(own_service.charge, key, "pm_sandbox_timeout")
        until(lambda: own_service.entries(key), "the held charge is there")
        assert stop(own_service.process, seconds=5) == 0
        assert isinstance(held.exception(), httpx.RemoteProtocolError)


def test_every_answered_charge_survives_kill_9_exactly_once(own_service: Service) -> None:
    keys = [str(uuid.uuid4()) for _ in range(3000)]
    flaky, slow = "flaky-before-the-crash", "slow-before-the-crash"
    own_service.charge(flaky, "pm_sandbox_flaky")

    async def burst() -> dict[str, str]:
        """Charge with all keys; the provider dies after 400 answers. key → charge id of what was answered."""
        answered: dict[str, str] = {}
        left = iter([*keys[:350], slow, *keys[350:]])
        async with aiohttp.ClientSession(own_service.url) as http:

            async def client() -> None:
                for key in left:
                    token = "pm_sandbox_slow" if key == slow else "pm_card_visa"
                    body = {"amount": 700, "currency": "EUR", "payment_token": token, "reference": key}
                    try:
                        async with http.post("/v1/charges", headers={"Idempotency-Key": key}, json=body) as answer:
                            answered[key] = (await answer.json())["id"]
                    except aiohttp.ClientError:
                        return
                    if len(answered) == 400:
                        own_service.process.kill()

            await asyncio.gather(*(client() for _ in range(32)))
        return answered

    answered = asyncio.run(burst())
    own_service.process.wait()
    assert 400 <= len(answered) < 500
    assert slow not in answered
    own_service.start()

    charges = Counter(entry["key"] for entry in own_service.ledger())
    assert set(charges.values()) == {1}
    assert answered.keys() <= charges.keys()
    for key, charge_id in list(answered.items())[-50:]:  # the last ones before the crash
        assert own_service.http.get(f"/v1/charges/{key}").json()["id"] == charge_id
        assert own_service.charge(key, amount=700, reference=key).json()["id"] == charge_id
    assert own_service.charge(flaky, "pm_sandbox_flaky").json()["status"] == "captured"
    until(lambda: own_service.status(slow) == "captured", "the slow charge's clock went on")
    assert len(own_service.ledger()) == len(charges) + 1  # the flaky one


def test_a_commit_that_fails_answers_nobody_and_keeps_nothing(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    request = ChargeRequest(amount=1, currency="EUR", payment_token=SecretStr("pm_card_visa"), reference="o")

    def bug() -> None:
        raise ZeroDivisionError

    async def scenario() -> None:
        batch = (ledger.write(lambda: ledger.attempt("charge", "a", request)), ledger.write(bug))
        outcomes = await asyncio.gather(*batch, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [ZeroDivisionError, ZeroDivisionError]
        assert ledger.find("charge", "a") is None
        assert (await ledger.write(lambda: ledger.attempt("charge", "a", request))).status == "captured"

    run(scenario())
    ledger.close()


# Its webhooks


class Receiver:
    """Stands where the gateway does: keeps what it took, answers as `plan` says and then 202."""

    def __init__(self) -> None:
        self.plan: list[int] = []
        self.refused: set[str] = set()
        self.taken: list[dict[str, Any]] = []
        self.requests: list[tuple[float, int, int]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert what_is_wrong(self.headers["OMS-Signature"], body, SECRET, time.time()) is None
                status = outer.take(json.loads(body)["events"])
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def take(self, events: list[dict[str, Any]]) -> int:
        status = self.plan.pop(0) if self.plan else 202
        if status == 202 and any(event["reference"] in self.refused for event in events):
            status = 422
        if status == 202:
            self.taken += events
        self.requests.append((time.monotonic(), status, len(events)))
        return status

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    there = Receiver()
    yield there
    there.close()


def reporting(folder: Path, receiver: Receiver) -> Service:
    return Service(folder, OMS_GATEWAY_URL=receiver.url, OMS_WEBHOOK_SECRET=SECRET)


def test_everything_that_it_did_is_reported_signed_and_as_the_gateway_takes_it(
    tmp_path: Path, receiver: Receiver, key: str
) -> None:
    service = reporting(tmp_path, receiver)
    try:
        service.charge(key)
        service.charge(f"{key}-no", "pm_card_chargeDeclined")
        service.charge(f"{key}-late", "pm_sandbox_reportsLate")
        service.refund(f"{key}-r", key, 100)
        service.authorize(f"{key}-a")
        service.capture(f"{key}-c", f"{key}-a", 300)
        service.void(f"{key}-a")
        service.charge(key)  # a repeat is nothing new
        until(lambda: len(receiver.taken) >= 7, "all is reported")
    finally:
        service.close()
    found = [(event["kind"], event["reference"], event["attempt_id"], event["amount"]) for event in receiver.taken]
    assert found == [
        ("captured", key, key, 1000),
        ("declined", f"{key}-no", f"{key}-no", 1000),
        ("captured", f"{key}-late", f"{key}-late", 1000),
        ("refunded", f"{key}-r", key, 100),
        ("authorized", f"{key}-a", f"{key}-a", 1000),
        ("capture", f"{key}-c", f"{key}-a", 300),
        ("voided", f"{key}-a", f"{key}-a", 700),
    ]
    assert PaymentEvents.model_validate_json(json.dumps({"events": receiver.taken}))
    assert {event["order_id"] for event in receiver.taken} == {
        f"order-{key}",
        *(f"order-{key}-{n}" for n in ("no", "late", "a")),
    }
    assert len({event["event_id"] for event in receiver.taken}) == 7


def test_a_charge_that_hangs_is_reported_when_it_has_ended(tmp_path: Path, receiver: Receiver, key: str) -> None:
    service = reporting(tmp_path, receiver)
    try:
        body = {"amount": 1, "currency": "EUR", "payment_token": "pm_sandbox_timeout", "reference": "o"}
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{service.url}/v1/charges", headers={"Idempotency-Key": key}, json=body, timeout=0.3)
        service.charge(f"{key}-2")
        until(lambda: receiver.taken, "the other one is reported")
        service.http.post(f"/sandbox/charges/{key}/settle", json={"status": "captured"})
        until(lambda: len(receiver.taken) == 2, "it is reported")
    finally:
        service.close()
    assert [event["reference"] for event in receiver.taken] == [f"{key}-2", key]


def test_what_is_not_taken_is_sent_again_with_growing_pauses_and_in_order(
    tmp_path: Path, receiver: Receiver, key: str
) -> None:
    receiver.plan = [503, 500, 401, 404, 302]
    service = reporting(tmp_path, receiver)
    try:
        for n in range(3):
            service.charge(f"{key}-{n}")
        until(lambda: len(receiver.taken) >= 3, "all is reported")
    finally:
        service.close()
    assert [event["reference"] for event in receiver.taken] == [f"{key}-{n}" for n in range(3)]
    times = [at for at, _, _ in receiver.requests]
    pauses = [after - before for before, after in pairwise(times)]
    assert pauses[0] < 0.5
    assert pauses[4] > 1.5


def test_one_event_that_nobody_will_ever_take_does_not_hold_up_the_others(
    tmp_path: Path, receiver: Receiver, key: str
) -> None:
    receiver.plan = [503] * 3
    receiver.refused = {f"{key}-3"}
    service = reporting(tmp_path, receiver)
    try:
        for n in range(6):
            service.charge(f"{key}-{n}")
        until(lambda: len(receiver.taken) >= 5, "the others are reported")
    finally:
        service.close()
    assert [event["reference"] for event in receiver.taken] == [f"{key}-{n}" for n in (0, 1, 2, 4, 5)]
    assert f"{key}-3" in (tmp_path / "provider.log").read_text()


def test_killed_or_without_a_receiver_it_goes_on_where_it_was(tmp_path: Path, receiver: Receiver, key: str) -> None:
    receiver.plan = [503] * 1000
    service = reporting(tmp_path, receiver)
    try:
        for n in range(5):
            service.charge(f"{key}-{n}")
        until(lambda: receiver.requests, "it was tried")
        service.process.kill()
        service.process.wait()
        service.start()
        receiver.plan = []
        until(lambda: len(receiver.taken) >= 5, "all is reported")
        first = len(receiver.taken)
        assert stop(service.process) == 0
        service.start()
        service.charge(f"{key}-5")
        until(lambda: len(receiver.taken) > first, "what is new is reported")
        time.sleep(0.5)
    finally:
        service.close()
    assert [event["reference"] for event in receiver.taken] == [f"{key}-{n}" for n in range(6)]


def test_many_events_travel_together(tmp_path: Path, receiver: Receiver, key: str) -> None:
    service = reporting(tmp_path, receiver)
    try:
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(lambda n: service.charge(f"{key}-{n}"), range(400)))
        until(lambda: len(receiver.taken) >= 400, "all is reported")
    finally:
        service.close()
    assert len(receiver.requests) < 60
    assert max(size for _, _, size in receiver.requests) <= 100
    assert Counter(event["reference"] for event in receiver.taken) == Counter(f"{key}-{n}" for n in range(400))


# The client


def run(scenario: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(scenario, 20))


def eager(url: str, **changes: Any) -> HttpPaymentProvider:
    return HttpPaymentProvider(url, **{"backoff": 0.01, "backoff_max": 0.05, **changes})


async def visa(provider: HttpPaymentProvider, key: str, amount: int = 1000) -> ChargeOutcome:
    return await provider.charge(key, "order-1", amount, "EUR", "pm_card_visa")


def test_the_client_tells_what_the_provider_said(service: Service, key: str) -> None:
    async def scenario() -> None:
        async with HttpPaymentProvider(service.url) as provider:
            assert await provider.find_charge(key) == NotFound()
            charged = await visa(provider, key)
            assert isinstance(charged, Captured)
            assert charged.amount == 1000
            assert await visa(provider, key) == charged
            assert await provider.find_charge(key) == charged
            assert await visa(provider, key, amount=2000) == Unknown("idempotency_key_reuse")
            declined = await provider.charge(f"{key}-d", "o", 1, "EUR", "pm_card_chargeDeclined")
            assert declined == Declined("card_declined")
            assert await provider.find_charge(f"{key}-d") == declined
            assert await provider.charge(f"{key}-c", "o", 1, "EUR", CARD) == Declined("card_number")
            odd = f"{key}/../?odd#id%"
            assert isinstance(await visa(provider, odd), Captured)
            assert isinstance(await provider.find_charge(odd), Captured)

            assert await provider.find_refund(key) == NotFound()
            refunded = await provider.refund(key, key, 600, "EUR")
            assert isinstance(refunded, Refunded)
            assert await provider.find_refund(key) == refunded
            assert await provider.refund(key, key, 600, "EUR") == refunded
            assert await provider.refund(key, key, 601, "EUR") == Unknown("idempotency_key_reuse")
            assert await provider.refund(f"{key}-2", key, 401, "EUR") == RefundRefused("amount_exceeds_refundable")
            assert await provider.refund(f"{key}-2", f"{key}-no", 1, "EUR") == RefundRefused("charge_not_found")

    run(scenario())


def test_the_client_authorizes_captures_and_voids(service: Service, key: str) -> None:
    async def scenario() -> None:
        async with HttpPaymentProvider(service.url) as provider:
            assert await provider.find_authorization(key) == NotFound()
            authorized = await provider.authorize(key, "o", 1000, "EUR", "pm_card_visa")
            assert isinstance(authorized, Authorized)
            assert authorized.amount == 1000
            assert await provider.authorize(key, "o", 1000, "EUR", "pm_card_visa") == authorized
            assert await provider.find_authorization(key) == authorized
            assert await provider.authorize(key, "o", 1, "EUR", "pm_card_visa") == Unknown("idempotency_key_reuse")
            assert await provider.find_charge(key) == NotFound()
            declined = await provider.authorize(f"{key}-d", "o", 1, "EUR", "pm_card_chargeDeclined")
            assert declined == await provider.find_authorization(f"{key}-d") == Declined("card_declined")

            assert await provider.find_capture(f"{key}-1") == NotFound()
            made = await provider.capture(f"{key}-1", key, 600, "EUR")
            assert isinstance(made, CaptureMade)
            assert made.amount == 600
            assert await provider.capture(f"{key}-1", key, 600, "EUR") == made
            assert await provider.find_capture(f"{key}-1") == made
            refused = await provider.capture(f"{key}-2", key, 401, "EUR")
            assert refused == CaptureRefused("amount_exceeds_authorized")
            nothing = await provider.capture(f"{key}-2", f"{key}-no", 1, "EUR")
            assert nothing == CaptureRefused("authorization_not_found")

            assert await provider.find_void(key) == NotFound()
            assert await provider.void(key) == Voided()
            assert await provider.void(key) == Voided()
            assert await provider.find_void(key) == Voided()
            assert await provider.void(f"{key}-no") == VoidRefused("authorization_not_found")
            assert await provider.capture(f"{key}-3", key, 1, "EUR") == CaptureRefused("authorization_voided")
            assert isinstance(await provider.refund(f"{key}-r", key, 600, "EUR"), Refunded)

            await provider.authorize(f"{key}-e", "o", 1, "EUR", "pm_card_visa")
            service.http.post(f"/sandbox/authorizations/{key}-e/expire")
            assert await provider.find_authorization(f"{key}-e") == Declined("authorization_expired")

    run(scenario())


def test_what_happened_while_its_answer_got_lost_is_found_out(service: Service, key: str) -> None:
    async def scenario() -> None:
        async with eager(service.url, breaker_threshold=100) as provider:
            late = "pm_sandbox_reportsLate"
            assert isinstance(await provider.charge(f"{key}-c", "o", 1000, "EUR", late), Captured)
            assert isinstance(await provider.authorize(key, "o", 1000, "EUR", late), Authorized)
            assert isinstance(await provider.capture(f"{key}-1", key, 300, "EUR"), CaptureMade)
            assert isinstance(await provider.refund(f"{key}-r", key, 300, "EUR"), Refunded)
            assert await provider.void(key) == Voided()

    run(scenario())


# The worker's patience


class Flood:
    """A port to the real provider whose submissions are all made and never answered."""

    def __init__(self, provider: HttpPaymentProvider, *, arrives: bool) -> None:
        self._provider = provider
        self._arrives = arrives
        self.sent = 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._provider, name)
        if name.startswith("find_"):
            return real

        async def silent(*arguments: Any) -> Unknown:
            self.sent += 1
            if self._arrives:
                await real(*arguments)
            return Unknown("timeout")

        return silent


PARTS: list[tuple[Payload, type[Payload], type[Payload]]] = [
    (
        CapturePayment(attempt_id="A", capture_id="C", amount=300, currency="EUR"),
        PaymentCaptureMade,
        PaymentCaptureFailed,
    ),
    (VoidPayment(attempt_id="A"), PaymentVoided, PaymentVoidFailed),
    (RefundPayment(refund_id="R", attempt_id="A-charge", amount=100, currency="EUR"), PaymentRefunded, RefundFailed),
]


@pytest.mark.parametrize("arrives", [True, False])
@pytest.mark.parametrize(("command", "done", "failed"), PARTS)
def test_before_the_worker_gives_up_it_asks(
    service: Service, key: str, command: Payload, done: type[Payload], failed: type[Payload], arrives: bool
) -> None:
    data = type(command).model_validate(
        {n: f"{key}-{v}" if n.endswith("_id") else v for n, v in command.model_dump().items()}
    )
    message: Message[Payload] = Message(
        id="m", at=datetime.now(UTC), actor="system:placement", correlation_id="c", order_id="o", data=data
    )
    service.authorize(f"{key}-A")
    service.charge(f"{key}-A-charge")

    async def scenario() -> None:
        async with HttpPaymentProvider(service.url) as provider:
            flood = Flood(provider, arrives=arrives)
            worker = PaymentWorker(flood, submissions=3)
            for attempt in range(2):
                with pytest.raises(TryLater):
                    await worker.handle(message, attempt)
            (answer,) = await worker.handle(message, 2)
            assert flood.sent == 3
            assert isinstance(answer.message.data, done if arrives else failed)
            if not arrives:
                assert "no_answer" in answer.message.data.model_dump().values()

    run(scenario())


def test_a_provider_that_is_away_to_the_end_is_given_up_with_a_result(key: str) -> None:
    refund = RefundPayment(refund_id=key, attempt_id=key, amount=1, currency="EUR")
    message: Message[Payload] = Message(
        id="m", at=datetime.now(UTC), actor="system:placement", correlation_id="c", order_id="o", data=refund
    )

    async def scenario() -> None:
        async with eager(f"http://127.0.0.1:{free_port()}") as provider:
            (answer,) = await PaymentWorker(provider, submissions=1).handle(message, 0)
            assert answer.message.data == RefundFailed(refund_id=key, attempt_id=key, amount=1, code="no_answer")

    run(scenario())


def test_the_client_retries_what_was_turned_away(service: Service, key: str) -> None:
    async def scenario() -> None:
        async with eager(service.url) as provider:
            flaky = await provider.charge(key, "o", 1000, "EUR", "pm_sandbox_flaky")
            assert isinstance(flaky, Captured)

    run(scenario())
    assert len(service.entries(key)) == 1


def test_a_charge_without_an_answer_is_unknown_until_the_provider_says_more(
    service: Service, key: str, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with eager(service.url, timeout=1.0, breaker_threshold=1) as provider:
            # One silence opens the breaker, so the question is not even sent.
            hung = await provider.charge(key, "o", 1000, "EUR", "pm_sandbox_timeout")
            assert hung == Unknown("timeout")
        async with eager(service.url, timeout=1.0) as provider:
            hung = await provider.charge(key, "o", 1000, "EUR", "pm_sandbox_timeout")
            assert hung == Unknown("processing")
            service.http.post(f"/sandbox/charges/{key}/settle", json={"status": "captured"})
            assert isinstance(await provider.find_charge(key), Captured)

    run(scenario())
    assert len(service.entries(key)) == 1
    logged = capsys.readouterr()
    assert "circuit breaker" in logged.out + caplog.text
    assert "pm_sandbox" not in logged.out + logged.err + caplog.text


def test_a_connection_lost_after_the_charge_is_found_out(service: Service, key: str) -> None:
    async def scenario() -> None:
        async with Wire(service.port).open() as wire, eager(wire.url) as provider:
            wire.plan = ["answer lost"]
            assert isinstance(await visa(provider, key), Captured)
            wire.plan = ["answer lost"]
            assert isinstance(await provider.refund(key, key, 1, "EUR"), Refunded)

    run(scenario())
    assert [entry["amount"] for entry in service.entries(key)] == [1000, 1]


def test_a_connection_lost_before_the_charge_stays_unknown(service: Service, key: str) -> None:
    async def scenario() -> None:
        async with Wire(service.port).open() as wire, eager(wire.url) as provider:
            wire.plan = ["request lost"]
            assert await visa(provider, key) == Unknown("connection_lost, not seen yet")
            wire.plan = ["request lost"]
            assert await provider.refund(key, key, 1, "EUR") == Unknown("connection_lost, not seen yet")
            wire.plan = ["request lost"] * 2  # aiohttp asks a second time by itself: it may, GET changes nothing
            assert await provider.find_charge(key) == Unknown("connection_lost")
            # The same attempt again is safe.
            assert isinstance(await visa(provider, key), Captured)

    run(scenario())
    assert len(service.entries(key)) == 1


def test_nobody_there_is_unavailable_not_unknown(key: str) -> None:
    async def scenario() -> None:
        async with eager(f"http://127.0.0.1:{free_port()}") as provider:
            with pytest.raises(ProviderUnavailable):
                await visa(provider, key)
            with pytest.raises(ProviderUnavailable):
                await provider.find_charge(key)

    run(scenario())


def test_an_outage_opens_the_breaker_and_its_end_closes_it(service: Service, key: str, clock: Clock) -> None:
    async def scenario() -> None:
        async with (
            Wire(service.port).open() as wire,
            eager(wire.url, attempts=3, breaker_threshold=5, breaker_ttl=60) as provider,
        ):
            for _ in range(2):
                with pytest.raises(ProviderUnavailable):
                    await visa(provider, key)
            assert wire.requests == 5
            for _ in range(20):
                with pytest.raises(ProviderUnavailable, match="open") as refused:
                    await visa(provider, key)
            assert wire.requests == 5
            # purgatory's own exception is one object: it must not collect the tracebacks of all callers.
            assert isinstance(refused.value.__cause__, Unavailable)
            assert refused.value.__cause__.__context__ is not None
            assert refused.value.__cause__.__context__.__traceback__ is None
            service.outage(0)
            clock.passed += 61
            assert isinstance(await visa(provider, key), Captured)

    service.outage(60)
    try:
        run(scenario())
    finally:
        service.outage(0)
    assert len(service.entries(key)) == 1


def test_one_request_at_a_time_probes_a_provider_that_hung(own_service: Service, key: str, clock: Clock) -> None:
    async def scenario() -> None:
        async with eager(own_service.url, timeout=1.0, breaker_threshold=2, breaker_ttl=60) as provider:

            async def many(name: str) -> Counter[type[Any]]:
                outcomes = await asyncio.gather(
                    *(visa(provider, f"{key}-{name}-{n}") for n in range(10)), return_exceptions=True
                )
                return Counter(type(outcome) for outcome in outcomes)

            own_service.process.send_signal(signal.SIGSTOP)
            try:
                assert await many("hang") == {Unknown: 10}
                assert await many("open") == {ProviderUnavailable: 10}
                clock.passed += 61
                assert await many("probe") == {Unknown: 1, ProviderUnavailable: 9}
            finally:
                own_service.process.send_signal(signal.SIGCONT)
            clock.passed += 61
            assert await many("back") == {Captured: 1, ProviderUnavailable: 9}
            assert await many("on") == {Captured: 10}
            # What hung has happened meanwhile, as Unknown says it may have. Asked again, it is known.
            assert Counter([type(await provider.find_charge(f"{key}-hang-{n}")) for n in range(10)]) == {Captured: 10}

    run(scenario())
    assert set(Counter(entry["key"] for entry in own_service.ledger()).values()) == {1}


class Wire:
    """A TCP relay to the provider, one request a connection, that loses what `plan` says; then it is faithful."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.plan: list[str] = []
        self.requests = 0
        self.url = ""

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Wire]:
        async with await asyncio.start_server(self._relay, "127.0.0.1", 0) as server:
            self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield self

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await self._message(reader)
        self.requests += 1
        fate = self.plan.pop(0) if self.plan else "passed on"
        if fate != "request lost":
            there, back = await asyncio.open_connection("127.0.0.1", self._port)
            back.write(request)
            answer = await self._message(there)
            back.close()
            if fate != "answer lost":
                writer.write(answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
        writer.close()

    @staticmethod
    async def _message(reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        return head + (await reader.readexactly(int(lengths[0].split(b":")[1])) if lengths else b"")
