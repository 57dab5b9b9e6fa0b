"""The provider's own reports, from its ledger over the gateway's webhook to Kafka, and held against the orders: real
processes, real time. What differs is found within a minute."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from confluent_kafka import Consumer

from runtime import kafka
from runtime.settings import Settings
from schemas import events as e
from schemas.base import Event, Message, Payload
from schemas.codec import Undecodable, decode, encode
from schemas.operations import ExceptionOpened, ExceptionResolved
from schemas.payment import ProviderReported, QueryPayment
from tests.support.parts import Child, answering, child, free_port, oms_run, payment_provider, until

pytestmark = pytest.mark.stack

SECRET = "a secret for tests"
TOPICS = ("payment.feed", "exceptions", "payment.commands")


@dataclass
class Shop:
    """Orders are written by hand: what is tested is how they are held against the provider."""

    settings: Settings
    provider_url: str
    gateway: Child
    gateway_port: int
    gateway_environment: dict[str, str]
    consumer: Consumer
    seen: list[tuple[str, bytes, Message[Any]]] = field(default_factory=list)
    versions: dict[str, int] = field(default_factory=dict)

    def pay(self, order_id: str, attempt_id: str, amount: int = 1000) -> None:
        body = {"amount": amount, "currency": "EUR", "payment_token": "pm_card_visa", "reference": order_id}
        answer = httpx.post(f"{self.provider_url}/v1/charges", headers={"Idempotency-Key": attempt_id}, json=body)
        assert answer.json()["status"] == "captured"

    def says(self, order_id: str, *payloads: Payload) -> None:
        producer = kafka.producer(self.settings)
        for payload in payloads:
            version = self.versions[order_id] = self.versions.get(order_id, 0) + 1
            event: Event[Payload] = Event(
                id=str(uuid4()),
                order_id=order_id,
                version=version,
                occurred_at=datetime.now(UTC),
                actor="customer:42",
                correlation_id="c",
                causation_id="x",
                previous_hash="",
                data=payload,
            )
            producer.produce("order.events", key=order_id.encode(), value=encode(event))
        assert producer.flush(10) == 0

    def requested(self, order_id: str, attempt_id: str) -> None:
        soon = datetime.now(UTC) + timedelta(minutes=10)
        asked = e.OrderPaymentRequested(
            attempt_id=attempt_id,
            attempt=1,
            amount=1000,
            currency="EUR",
            payment_token="pm",
            due_at=soon,
            valid_until=soon,
        )
        self.says(order_id, asked)

    def confirmed(self, order_id: str, attempt_id: str) -> None:
        self.says(order_id, e.OrderPaymentConfirmed(attempt_id=attempt_id, amount=1000, provider_ref="ch_1"))

    def heard(self, topic: str, order_id: str) -> list[Payload]:
        while (record := self.consumer.poll(0.02)) is not None:
            assert record.error() is None, record.error()
            try:
                message = decode(record.value())
            except Undecodable:
                continue  # poison of another test on this broker
            if isinstance(message, Message) and record.key() is not None:
                self.seen.append((record.topic(), record.key(), message))
        key = order_id.encode()
        return [message.data for name, found, message in self.seen if (name, found) == (topic, key)]

    def opened(self, order_id: str) -> list[str]:
        return [one.kind for one in self.heard("exceptions", order_id) if isinstance(one, ExceptionOpened)]


@pytest.fixture
def shop(broker: Settings, tmp_path: Path) -> Iterator[Shop]:
    gateway_port, provider_port = free_port(), free_port()
    places = {"OMS_WEBHOOK_SECRET": SECRET, "OMS_GATEWAY_URL": f"http://127.0.0.1:{gateway_port}"}
    consumer = kafka.consumer(broker, f"test-{uuid4()}")
    with ExitStack() as stack:
        stack.callback(consumer.close)
        consumer.subscribe(list(TOPICS))
        environment = {
            "OMS_DATA_DIR": str(tmp_path),
            "OMS_KAFKA_BOOTSTRAP": broker.kafka_bootstrap,
            "OMS_GATEWAY_PORT": str(gateway_port),
            "OMS_WEBHOOK_SECRET": SECRET,
        }
        gateway = stack.enter_context(child(["runtime", "run", "gateway"], tmp_path / "gateway.out", **environment))
        answering(gateway, gateway_port)
        for name in ("timers", "reconciliation"):
            stack.enter_context(oms_run(name, broker, tmp_path))
        stack.enter_context(payment_provider(tmp_path, provider_port, **places))
        yield Shop(broker, f"http://127.0.0.1:{provider_port}", gateway, gateway_port, environment, consumer)


def test_what_differs_is_raised_within_a_minute_and_what_agrees_is_left_alone(shop: Shop) -> None:
    agrees, unknown, unpaid, waits = (str(uuid4()) for _ in range(4))
    began = time.monotonic()
    for order_id in (agrees, unknown, waits):
        shop.pay(order_id, f"attempt-{order_id}")
    for order_id in (agrees, unpaid, waits):
        shop.requested(order_id, f"attempt-{order_id}")
    for order_id in (agrees, unpaid):
        shop.confirmed(order_id, f"attempt-{order_id}")

    until(lambda: all(shop.heard("payment.feed", one) for one in (agrees, unknown, waits)), "the reports are there", 10)
    (report,) = shop.heard("payment.feed", agrees)
    assert isinstance(report, ProviderReported)
    assert (report.kind, report.reference, report.amount) == ("captured", f"attempt-{agrees}", 1000)

    until(lambda: shop.heard("payment.commands", waits), "it asks about what the order waits for", 40)
    question = QueryPayment(attempt_id=f"attempt-{waits}", amount=1000, currency="EUR", asked=1)
    assert shop.heard("payment.commands", waits) == [question]
    shop.confirmed(waits, f"attempt-{waits}")

    until(lambda: shop.opened(unknown) and shop.opened(unpaid), "both differences are raised", 50)
    assert time.monotonic() - began < 60
    assert shop.opened(unknown) == ["payment_without_order"]
    assert shop.opened(unpaid) == ["order_without_payment"]
    assert shop.opened(agrees) == shop.opened(waits) == []

    # The late report of the one settles it.
    shop.pay(unpaid, f"attempt-{unpaid}")
    until(
        lambda: [one for one in shop.heard("exceptions", unpaid) if isinstance(one, ExceptionResolved)],
        "it is resolved",
        15,
    )


def test_reports_wait_for_a_gateway_that_is_away(shop: Shop, tmp_path: Path) -> None:
    order_id = str(uuid4())
    shop.gateway.kill()
    shop.pay(order_id, f"attempt-{order_id}")
    time.sleep(1)
    assert shop.heard("payment.feed", order_id) == []
    with child(["runtime", "run", "gateway"], tmp_path / "gateway.out", **shop.gateway_environment) as gateway:
        answering(gateway, shop.gateway_port)
        until(lambda: shop.heard("payment.feed", order_id), "the report arrives", 20)
