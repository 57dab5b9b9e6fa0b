"""A running stack in a temporary folder, as tests use it: HTTP in, topics and tables out, and processes to kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx
import orjson
from confluent_kafka import TopicPartition

from gateway.auth import issue
from runtime import health, kafka
from runtime.run import die_with
from runtime.settings import Settings
from runtime.stack import read_report, read_stack, stack_settings
from schemas.base import Envelope
from schemas.codec import Undecodable, decode, encode
from tests.support.infrastructure import infrastructure
from tests.support.processes import until

T = TypeVar("T")

ADDRESS = {
    "street_address": "Torstraße 1",
    "city": "Berlin",
    "state": None,
    "postal_code": "10119",
    "country": "DE",
}
START_SECONDS = 120.0


def cart(*items: tuple[str, int], submit: bool = True, token: str = "pm_card_visa", **changes: Any) -> dict[str, Any]:
    """The body of POST /v1/orders."""
    return {
        "items": [{"sku": sku, "quantity": quantity} for sku, quantity in items],
        "currency": "EUR",
        "shipping_address": {"recipient_name": "Ada Lovelace", **ADDRESS},
        "billing_address": {"name": "Ada Lovelace", **ADDRESS},
        "shipping_method": "standard",
        "payment_token": token,
        "submit": submit,
        **changes,
    }


@dataclass(frozen=True)
class Record:
    """A record as it lies on its topic, with the message in it when it is one of ours."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    message: Envelope | None
    at: datetime
    """When the broker appended it."""


class Stack:
    """`http` is a client on the gateway; `settings` point at this stack's Kafka and ClickHouse."""

    def __init__(self, data_dir: Path) -> None:
        found = read_stack(data_dir)
        assert found is not None
        self.data_dir = data_dir
        self.url = found.url
        self.settings: Settings = stack_settings(data_dir)
        # A connection is given up before the gateway gives it up (5 s), so that no request meets one that just closes.
        self.http = httpx.Client(base_url=found.url, timeout=30, limits=httpx.Limits(keepalive_expiry=2))
        self._tokens: dict[tuple[str | None, str | None], str] = {}

    # HTTP

    def token(self, *, customer: str | None = None, admin: str | None = None) -> str:
        who = (customer, admin)
        if who not in self._tokens:
            self._tokens[who] = issue(self.settings, customer=customer, admin=admin, ttl=timedelta(hours=1))
        return self._tokens[who]

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        customer: str | None = None,
        admin: str | None = None,
        key: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """One request, as a customer (the default one) or as a member of staff."""
        token = self.token(admin=admin) if admin else self.token(customer=customer or "42")
        sent = {"Authorization": f"Bearer {token}", **(headers or {})}
        if key is not None:
            sent["Idempotency-Key"] = key
        content = None if body is None else orjson.dumps(body)
        if content is not None:
            sent["Content-Type"] = "application/json"
        return self.http.request(method, path, content=content, headers=sent)

    def product(self, sku: str | None = None, *, stock: int, price: str = "10.00") -> str:
        """A product of its own for a test, with stock; gives its SKU once the gateway knows both."""
        sku = sku or f"T-{uuid4().hex[:10].upper()}"
        body = {
            "name": f"Test {sku}",
            "category": "test",
            "tax_category": "standard",
            "weight_grams": 100,
            "prices": [{"amount": price, "currency": "EUR"}],
            "active": True,
        }
        self.done("PUT", f"/v1/admin/products/{sku}", body)
        if stock:
            self.done("POST", f"/v1/admin/products/{sku}/stock", {"delta": stock, "reason": "t"})
        self.until(lambda: self._knows(sku, stock), f"the gateway knows {sku}")
        return sku

    def done(self, method: str, path: str, body: Any, timeout: float = 60) -> dict[str, Any]:
        """What staff asks for, asked again with the same key until it is answered for good."""
        key = uuid4().hex

        def answered() -> httpx.Response | None:
            found = self.call(method, path, body, admin="clerk", key=key)
            return None if found.status_code in (202, 503) else found

        answer = self.until(answered, f"{method} {path} is answered", timeout)
        assert answer.status_code in (200, 201), answer.text
        result: dict[str, Any] = answer.json()
        return result

    def _knows(self, sku: str, stock: int) -> bool:
        items = self.call("GET", "/v1/products").json()["items"]
        return any(item["sku"] == sku and (item["available"] == stock or not stock) for item in items)

    def place(self, *items: tuple[str, int], customer: str = "42", **changes: Any) -> dict[str, Any]:
        """An order, placed: the 201's body."""
        answer = self.call("POST", "/v1/orders", cart(*items, **changes), customer=customer, key=uuid4().hex)
        assert answer.status_code == 201, answer.text
        order: dict[str, Any] = answer.json()
        return order

    def order(self, order_id: str) -> dict[str, Any]:
        """The order as staff see it; {} while the view has none."""
        answer = self.call("GET", f"/v1/orders/{order_id}", admin="clerk")
        return answer.json() if answer.status_code == 200 else {}

    def settled(self, order_id: str, timeout: float = 60) -> dict[str, Any]:
        """The order once it is paid or cancelled."""
        return self.until(
            lambda: (
                found if (found := self.order(order_id)).get("status") in ("PAYMENT_CONFIRMED", "CANCELLED") else None
            ),
            f"order {order_id} is paid or cancelled",
            timeout,
        )

    @staticmethod
    def until(look: Callable[[], T | None], what: str, timeout: float = 60) -> T:
        """What `look` gives once it gives something true."""
        return until(look, what, timeout)

    # Outside the pipeline

    def ledger(self) -> list[dict[str, Any]]:
        """What the payment provider really did, in its own words."""
        entries: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            page = httpx.get(f"{self.settings.payment_url}/v1/ledger", params={"after": after}, timeout=30).json()
            entries.extend(page["items"])
            after = page["next"]
        return entries

    def sql(self, query: str, **parameters: Any) -> list[dict[str, Any]]:
        """Rows of a query, over ClickHouse's own HTTP interface."""
        answer = httpx.post(
            self.settings.clickhouse_url,
            params={"default_format": "JSON", **{f"param_{name}": value for name, value in parameters.items()}},
            content=query,
            headers={
                "X-ClickHouse-User": self.settings.clickhouse_user,
                "X-ClickHouse-Key": self.settings.clickhouse_password.get_secret_value(),
            },
            timeout=60,
        )
        assert answer.status_code == 200, answer.text
        rows: list[dict[str, Any]] = answer.json()["data"]
        return rows

    def read(self, topic: str) -> list[Record]:
        """Every committed record of a topic, in order within each partition."""
        consumer = kafka.consumer(self.settings, f"test-{uuid4()}", enable_partition_eof=True)
        try:
            partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
            consumer.assign([TopicPartition(topic, p, 0) for p in partitions])
            left, records = set(partitions), []
            while left:
                found = consumer.poll(20)
                assert found is not None, f"{topic} could not be read to its end"
                if found.error() is not None:
                    assert found.error().name() == "_PARTITION_EOF", found.error()
                    left.discard(found.partition())
                    continue
                try:
                    message = decode(found.value())
                except Undecodable:
                    message = None
                records.append(
                    Record(
                        topic,
                        found.partition(),
                        found.offset(),
                        found.key(),
                        found.value(),
                        found.headers() or [],
                        message,
                        datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=found.timestamp()[1]),
                    )
                )
            return records
        finally:
            consumer.close()

    def write(self, topic: str, key: bytes | None, value: bytes | Envelope | None) -> None:
        """A record on a topic, as no process of ours would write it."""
        producer = kafka.producer(self.settings)
        raw = value if value is None or isinstance(value, bytes) else encode(value)
        producer.produce(topic, key=key, value=raw)
        assert producer.flush(20) == 0

    # Processes

    def pid(self, name: str) -> int:
        report = self._report(name)
        assert report is not None, f"{name} has never reported"
        return int(report["pid"])

    def _report(self, name: str) -> dict[str, Any] | None:
        """How a process says that it is; a service, which says nothing, as the supervisor sees it. None: it is away."""
        found = health.read(self.data_dir, name, 0)
        if found is None:
            seen = read_report(self.data_dir)
            found = seen.children.get(f"{name}-0") if seen else None
        return found if found and found["pid"] else None

    def kill(self, name: str) -> int:
        """kill -9; gives the pid that died."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGKILL)
        return pid

    def back(self, name: str, dead: int, timeout: float = 60) -> None:
        """Wait until a killed process is replaced and ready."""

        def ready() -> bool:
            report = self._report(name)
            return bool(report and report["pid"] != dead and report["state"] == "ready")

        self.until(ready, f"{name} is back", timeout)

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """Stopped in the middle of what it does (SIGSTOP), and on again afterwards."""
        pid = self.pid(name)
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def running_stack(data_dir: Path, *, own: bool = False, **environment: str) -> Iterator[Stack]:
    """`oms up` on free ports; stopped by its pid, whatever happens. `own`: see `infrastructure`."""
    log = data_dir / "up.log"
    with infrastructure(own=own) as addresses, log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "runtime", "up", "--data-dir", str(data_dir), "--port", "0"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**addresses, **environment},
            start_new_session=True,
            preexec_fn=partial(die_with, os.getpid()),  # also when the test run itself is killed
        )
        try:
            _wait_ready(process, data_dir, log)
            yield Stack(data_dir)
        finally:
            process.terminate()
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)


def _wait_ready(process: subprocess.Popen[bytes], data_dir: Path, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert process.poll() is None, f"the stack ended:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"the stack is not ready:\n{log.read_text()}"
        found = read_stack(data_dir)
        if found is not None:
            try:
                if httpx.get(f"{found.url}/readyz", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                pass  # the gateway is not up yet
        time.sleep(0.2)
