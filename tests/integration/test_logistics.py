"""The logistics worker, the sandbox's warehouse and carrier, and the gateway's webhooks, on a real broker: what is
asked for has its result and its reports, whoever is killed meanwhile."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest

from runtime import kafka
from runtime.keystore import SqliteKeyStore, Vault
from runtime.settings import Settings
from sandbox.webhooks import sign
from schemas.address import Address
from schemas.base import Message, Payload
from schemas.codec import decode, encode
from schemas.logistics import (
    BookingFailed,
    BookShipment,
    CancelPick,
    CancelShipment,
    CarrierReported,
    CustomsItem,
    MakeReturnLabel,
    Picked,
    PickShipment,
    RedeliverShipment,
    ReturnLabelFailed,
    ReturnLabelMade,
    ShipmentBooked,
    WarehouseReported,
)
from schemas.operations import DeadLettered
from tests.gateway.conftest import problem
from tests.integration.test_payment_worker import from_the_end
from tests.support.parts import Child, answering, child, free_port, logistics_partners, oms_run, until

pytestmark = pytest.mark.stack

SECRET = "a secret of this test"
PACE = "0.1"
GOOD = ["shipped", "in_transit", "out_for_delivery", "delivered"]


@contextmanager
def gateway(settings: Settings, folder: Path, port: int, **environment: str) -> Iterator[Child]:
    """A gateway that answers; without ClickHouse, so never quite well."""
    with child(
        ["runtime", "run", "gateway"],
        folder / "gateway.out",
        OMS_DATA_DIR=str(folder),
        OMS_KAFKA_BOOTSTRAP=settings.kafka_bootstrap,
        OMS_CLICKHOUSE_URL=f"http://127.0.0.1:{free_port()}",
        OMS_GATEWAY_PORT=str(port),
        **{"OMS_WEBHOOK_SECRET": SECRET, **environment},
    ) as started:
        answering(started, port)
        yield started


class Rig:
    """Commands in; results, reports and dead letters of this rig's own orders out."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.gateway_port = free_port()
        self.partners_port = free_port()
        self.gateway_url = f"http://127.0.0.1:{self.gateway_port}"
        self.partners_url = f"http://127.0.0.1:{self.partners_port}"
        self.vault = Vault(SqliteKeyStore(folder / "keys.sqlite"), remembered=0)
        self.orders: set[str] = set()
        self.results: list[Message[Any]] = []
        self.reports: dict[str, list[Any]] = defaultdict(list)
        """By shipment id or RMA; each event once, in the order of its first arrival."""
        self.letters: list[Message[Any]] = []
        self._seen: set[str] = set()
        self._producer = kafka.producer(settings)
        topics = ("shipping.results", "warehouse.events", "carrier.events", "dead.letters")
        self._consumer = from_the_end(settings, *topics)

    def worker(self) -> Any:
        return oms_run("logistics", self.settings, self.folder, OMS_LOGISTICS_URL=self.partners_url)

    def gateway(self) -> Any:
        return gateway(self.settings, self.folder, self.gateway_port)

    def partners(self, **environment: str) -> Any:
        urls = {"OMS_GATEWAY_URL": self.gateway_url, "OMS_WEBHOOK_SECRET": SECRET, "OMS_SANDBOX_PACE": PACE}
        return logistics_partners(self.folder, self.partners_port, **{**urls, **environment})

    def address(self, customer: str = "ada") -> Address:
        personal = {"name": "Ada Lovelace", "street_address": "Torstraße 1", "city": "Berlin"}
        return Address(sealed=self.vault.seal(customer, personal), postal_code="10119", country="DE")

    def order(self) -> str:
        order_id = str(uuid4())
        self.orders.add(order_id)
        return order_id

    def send(self, topic: str, order_id: str, *payloads: Payload) -> list[Message[Any]]:
        messages: list[Message[Any]] = [
            Message(
                id=str(uuid4()),
                at=datetime.now(UTC),
                actor="system:fulfilment",
                correlation_id=f"request-of-{order_id}",
                order_id=order_id,
                data=payload,
            )
            for payload in payloads
        ]
        for message in messages:
            self._producer.produce(topic, key=order_id.encode(), value=encode(message))
        assert self._producer.flush(20) == 0
        return messages

    def pick(self, order_id: str, sku: str = "MUG", quantity: int = 2) -> str:
        shipment_id = str(uuid4())
        line = Picked(line_id="l1", sku=sku, name="Mug", quantity=quantity, weight_grams=300)
        self.send("warehouse.commands", order_id, PickShipment(shipment_id=shipment_id, lines=(line,)))
        return shipment_id

    def book(self, order_id: str, shipment_id: str, **changes: Any) -> Message[Any]:
        values = {
            "shipment_id": shipment_id,
            "shipping_method": "standard",
            "address": self.address(),
            "customer_id": "ada",
            "weight_grams": 600,
            "currency": "EUR",
        }
        return self.send("shipping.commands", order_id, BookShipment(**{**values, **changes}))[0]

    def answer(self, command: Message[Any], timeout: float = 30) -> Any:
        """What the first result of a command says."""

        def found() -> list[Message[Any]]:
            return [result for result in self.results if result.causation_id == command.id]

        self.wait(lambda: bool(found()), f"a result of {type(command.data).__name__}", timeout)
        result = found()[0]
        assert (result.order_id, result.correlation_id) == (command.order_id, command.correlation_id)
        return result.data

    def kinds(self, subject: str) -> list[str]:
        return [report.kind for report in self.reports[subject]]

    def comes_to(self, subject: str, kind: str, timeout: float = 60) -> None:
        self.wait(lambda: kind in self.kinds(subject), f"{kind} of {subject}", timeout)

    def reported(self, subject: str, *kinds: str, timeout: float = 30) -> None:
        """Wait for the last of these, and see that there were all of them, in this order, and no others."""
        self.comes_to(subject, kinds[-1], timeout)
        assert self.kinds(subject) == list(kinds)

    def wait(self, done: Callable[[], bool], what: str, timeout: float = 30) -> None:
        def look() -> bool:
            self._drain()
            return done()

        until(look, what, timeout)

    def control(self, path: str, **body: Any) -> None:
        httpx.post(f"{self.partners_url}/v1/control/{path}", json=body, timeout=10).raise_for_status()

    def close(self) -> None:
        self._consumer.close()

    def _drain(self) -> None:
        while (record := self._consumer.poll(0.02)) is not None:
            assert record.error() is None, record.error()
            message = decode(record.value())
            assert isinstance(message, Message)
            if record.topic() == "dead.letters":
                self.letters.append(message)
            elif message.order_id not in self.orders:
                continue  # another test's
            elif record.topic() == "shipping.results":
                assert record.key() == message.order_id.encode()
                self.results.append(message)
            elif message.id not in self._seen:
                assert record.key() == message.order_id.encode()
                assert isinstance(message.data, WarehouseReported | CarrierReported)
                self._seen.add(message.id)
                data = message.data
                self.reports[data.shipment_id if isinstance(data, WarehouseReported) else data.reference].append(data)


@pytest.fixture
def rig(broker: Settings, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(broker, tmp_path)
    try:
        yield made
    finally:
        made.close()


def test_parcels_from_the_pick_to_the_door_and_what_goes_wrong(rig: Rig) -> None:
    with rig.gateway(), rig.partners(), rig.worker() as worker:
        # All well, with customs.
        order_id = rig.order()
        shipment_id = rig.pick(order_id)
        rig.reported(shipment_id, "picked", "packed")
        item = CustomsItem(sku="MUG", name="Mug", quantity=2, value=1800, hs_code="6912", origin="PT")
        booked = rig.answer(rig.book(order_id, shipment_id, customs=(item,), incoterm="DDP"))
        assert isinstance(booked, ShipmentBooked)
        rig.reported(shipment_id, "picked", "packed", *GOOD)
        assert rig.reports[shipment_id][-1].tracking_number == booked.tracking_number
        known = httpx.get(f"{rig.partners_url}/v1/shipments/{shipment_id}").json()
        assert known["customs"]["items"][0] == {**item.model_dump(), "currency": "EUR"}
        page = httpx.get(booked.tracking_url)
        assert page.headers["content-type"].startswith("text/html")
        assert booked.tracking_number in page.text
        assert "delivered" in page.text

        # Short, failed once, delivered at the second attempt.
        order_id = rig.order()
        rig.control("next", order_id=order_id, short=[{"line": "MUG", "quantity": 1}], fail_attempts=1)
        shipment_id = rig.pick(order_id)
        rig.reported(shipment_id, "short", "picked", "packed")
        assert rig.reports[shipment_id][0].lines[0].quantity == 1
        rig.answer(rig.book(order_id, shipment_id))
        before = ["short", "picked", "packed", *GOOD[:3], "failed_attempt"]
        rig.reported(shipment_id, *before)
        assert rig.reports[shipment_id][-1].attempt == 1
        assert rig.reports[shipment_id][-1].estimated_delivery is not None
        rig.send("shipping.commands", order_id, RedeliverShipment(shipment_id=shipment_id, attempt=1))
        rig.reported(shipment_id, *before, "out_for_delivery", "delivered")

        # Called off: at the warehouse, on its way, and too late.
        order_id = rig.order()
        first = rig.pick(order_id)
        rig.send("warehouse.commands", order_id, CancelPick(shipment_id=first))
        rig.comes_to(first, "cancelled")
        second = rig.pick(order_id)
        rig.reported(second, "picked", "packed")
        rig.answer(rig.book(order_id, second))
        rig.comes_to(second, "shipped")
        rig.send("shipping.commands", order_id, CancelShipment(shipment_id=second))
        rig.comes_to(second, "returned")
        rig.send("shipping.commands", order_id, CancelShipment(shipment_id=second), CancelShipment(shipment_id="none"))
        rig.send("warehouse.commands", order_id, CancelPick(shipment_id=second))

        # A label, and the parcel that comes with it.
        label = MakeReturnLabel(rma="RMA-TEST-1", address=rig.address(), customer_id="ada")
        made = rig.answer(rig.send("shipping.commands", order_id, label)[0])
        assert isinstance(made, ReturnLabelMade)
        assert "RMA-TEST-1" in httpx.get(made.label_url).text
        rig.reported("RMA-TEST-1", "return_received")
        rig.control("returns", order_id=order_id, refuse="no_service")
        again = label.model_copy(update={"rma": "RMA-TEST-2"})
        refused = rig.answer(rig.send("shipping.commands", order_id, again)[0])
        assert refused == ReturnLabelFailed(rma="RMA-TEST-2", code="no_service")

        # A carrier that says no, a customer who was forgotten, an envelope that was tampered with.
        order_id = rig.order()
        rig.control("next", order_id=order_id, refuse="too_heavy")
        assert rig.answer(rig.book(order_id, "s-heavy")) == BookingFailed(shipment_id="s-heavy", code="too_heavy")
        forgotten = rig.address("gone")
        rig.vault.erase("gone")
        failed = rig.answer(rig.book(order_id, "s-gone", address=forgotten))
        assert failed == BookingFailed(shipment_id="s-gone", code="address_forgotten")
        whole, other = rig.address(), rig.address("bob")
        sealed = whole.sealed.model_copy(update={"ciphertext": other.sealed.ciphertext})
        failed = rig.answer(rig.book(order_id, "s-bad", address=whole.model_copy(update={"sealed": sealed})))
        assert failed == BookingFailed(shipment_id="s-bad", code="internal: ValueError")

        assert [letter for letter in rig.letters if letter.order_id in rig.orders] == []
        assert worker.stop() < 5
        assert worker.exit_code == 0
        assert "Lovelace" not in worker.log.read_text()
        assert "Torstra" not in worker.log.read_text()


def test_a_pick_that_the_warehouse_refuses_becomes_a_dead_letter(rig: Rig) -> None:
    with rig.partners(), rig.worker():
        order_id = rig.order()
        shipment_id = rig.pick(order_id)
        other = Picked(line_id="l1", sku="MUG", name="Mug", quantity=9, weight_grams=300)
        rig.send("warehouse.commands", order_id, PickShipment(shipment_id=shipment_id, lines=(other,)))
        rig.wait(lambda: any(letter.data.key == order_id.encode() for letter in rig.letters), "a dead letter")
        letter = next(letter.data for letter in rig.letters if letter.data.key == order_id.encode())
        assert isinstance(letter, DeadLettered)
        assert (letter.processor, letter.topic) == ("logistics", "warehouse.commands")
        assert "shipment_exists" in letter.error


@pytest.mark.long
def test_partners_that_are_out_delay_and_lose_nothing(rig: Rig) -> None:
    with rig.gateway(), rig.worker():
        orders = {rig.order(): "" for _ in range(5)}
        for order_id in orders:
            orders[order_id] = rig.pick(order_id)
        bookings = [rig.book(order_id, shipment_id) for order_id, shipment_id in orders.items()]
        time.sleep(1)
        assert rig.results == []
        with rig.partners():
            for booking in bookings:
                assert isinstance(rig.answer(booking, 60), ShipmentBooked)
            rig.control("outage", seconds=1)
            late = rig.book(rig.order(), "s-late")
            assert isinstance(rig.answer(late, 60), ShipmentBooked)
            for shipment_id in orders.values():
                rig.comes_to(shipment_id, "delivered")
                assert [kind for kind in rig.kinds(shipment_id) if kind in GOOD] == GOOD


def test_everyone_is_killed_in_the_middle_and_each_parcel_has_its_whole_story_in_order(rig: Rig) -> None:
    orders = {rig.order(): "" for _ in range(60)}
    bookings = []
    with ExitStack() as running:
        gateway = running.enter_context(rig.gateway())
        partners = running.enter_context(rig.partners())
        worker = running.enter_context(rig.worker())
        for order_id in orders:
            orders[order_id] = rig.pick(order_id)
            bookings.append(rig.book(order_id, orders[order_id]))
        rig.wait(lambda: len(rig.results) >= 10, "some results")
        worker.kill()
        partners.kill()
        partners = running.enter_context(rig.partners())
        worker = running.enter_context(rig.worker())
        rig.wait(lambda: sum(map(len, rig.reports.values())) >= 60, "some reports")
        gateway.kill()
        partners.kill()
        running.enter_context(rig.partners())
        time.sleep(1)  # its webhooks find nobody
        running.enter_context(rig.gateway())
        for booking in bookings:
            assert isinstance(rig.answer(booking, 60), ShipmentBooked)
        for shipment_id in orders.values():
            rig.comes_to(shipment_id, "delivered")
            rig.comes_to(shipment_id, "packed")  # another topic: what was sent again there may come after it
    for shipment_id in orders.values():
        reports = rig.reports[shipment_id]
        assert [report.kind for report in reports if isinstance(report, CarrierReported)] == GOOD
        assert [report.kind for report in reports if isinstance(report, WarehouseReported)] == ["picked", "packed"]
    answers = defaultdict(set)
    for result in rig.results:
        answers[result.causation_id].add((result.id, result.data.tracking_number))
    assert all(len(found) == 1 for found in answers.values()), "a repeat is the same result"


WAREHOUSE = {
    "event_id": "w-1",
    "order_id": "o-1",
    "shipment_id": "s-1",
    "kind": "short",
    "lines": [{"line_id": "l1", "sku": "MUG", "quantity": 1}],
    "occurred_at": "2026-11-23T10:00:00+01:00",
}
CARRIER = {
    "event_id": "c-1",
    "order_id": "o-1",
    "reference": "s-1",
    "kind": "failed_attempt",
    "tracking_number": "T1",
    "attempt": 1,
    "estimated_delivery": "2026-11-24",
    "occurred_at": "2026-11-23T09:00:00Z",
}
WAREHOUSE_PATH, CARRIER_PATH = "/v1/warehouse/events", "/v1/carriers/events"


def post(url: str, path: str, *events: Any, signature: str | None = "", body: bytes | None = None) -> httpx.Response:
    """Signed with the test's secret unless a `signature` is given; None: not at all."""
    content = orjson.dumps({"events": list(events)}) if body is None else body
    headers = {"Content-Type": "application/json"}
    if signature is not None:
        headers["OMS-Signature"] = signature or sign(SECRET, content)
    return httpx.post(f"{url}{path}", content=content, headers=headers, timeout=20)


def test_webhooks_are_taken_with_the_right_signature_only(rig: Rig) -> None:
    order_id = rig.order()
    warehouse = {**WAREHOUSE, "event_id": str(uuid4()), "order_id": order_id}
    carrier = {**CARRIER, "event_id": str(uuid4()), "order_id": order_id}
    with rig.gateway():
        url = rig.gateway_url
        assert post(url, WAREHOUSE_PATH, warehouse, warehouse).status_code == 202
        assert post(url, CARRIER_PATH, carrier).status_code == 202
        rig.wait(lambda: len(rig.reports["s-1"]) == 2, "both reports")
        short, failed = sorted(rig.reports["s-1"], key=lambda report: str(type(report)), reverse=True)
        assert (short.kind, short.lines[0].quantity) == ("short", 1)
        assert short.occurred_at == failed.occurred_at
        assert (failed.kind, failed.attempt, failed.estimated_delivery) == ("failed_attempt", 1, "2026-11-24")

        body = orjson.dumps({"events": [warehouse]})
        problem(post(url, WAREHOUSE_PATH, warehouse, signature=None), 401, "bad-signature")
        problem(post(url, WAREHOUSE_PATH, warehouse, signature=sign("another", body)), 401, "bad-signature")
        problem(post(url, WAREHOUSE_PATH, warehouse, signature=sign(SECRET, b"other")), 401, "bad-signature")
        old = sign(SECRET, body, at=time.time() - 3600)
        problem(post(url, WAREHOUSE_PATH, warehouse, signature=old), 401, "bad-signature")
        problem(post(url, CARRIER_PATH, body=b"{"), 400, "malformed-json")
        for path, good, change, field in (
            (WAREHOUSE_PATH, warehouse, {"kind": "eaten"}, "events[0].kind"),
            (WAREHOUSE_PATH, warehouse, {"lines": [{"line_id": "l1", "sku": "M", "quantity": 0}]}, "quantity"),
            (WAREHOUSE_PATH, warehouse, {"lines": []}, "events[0].lines"),
            (WAREHOUSE_PATH, warehouse, {"order_id": ""}, "events[0].order_id"),
            (WAREHOUSE_PATH, warehouse, {"occurred_at": "2026-11-23T10:00:00"}, "events[0].occurred_at"),
            (CARRIER_PATH, carrier, {"attempt": -1}, "events[0].attempt"),
            (CARRIER_PATH, carrier, {"estimated_delivery": "soon"}, "events[0].estimated_delivery"),
            (CARRIER_PATH, carrier, {"tracking_number": "no\ttabs"}, "events[0].tracking_number"),
            (CARRIER_PATH, carrier, {"weather": "fine"}, "events[0].weather"),
        ):
            found = problem(post(url, path, good, {**good, **change}), 422, "invalid-request")
            named = [re.sub(r"^events\[1\]", "events[0]", error["field"]) for error in found["errors"]]
            assert any(name.endswith(field) for name in named), found
        problem(post(url, CARRIER_PATH), 422, "invalid-request")
        # Nothing of a batch with a fault in it was taken.
        marker = {**carrier, "event_id": str(uuid4()), "reference": "s-2"}
        assert post(url, CARRIER_PATH, marker).status_code == 202
        rig.wait(lambda: len(rig.reports["s-2"]) == 1, "the last report")
        assert len(rig.reports["s-1"]) == 2


def test_without_a_secret_or_without_kafka_webhooks_have_to_come_again(rig: Rig, tmp_path: Path) -> None:
    port = free_port()
    with gateway(rig.settings, tmp_path / "open", port, OMS_WEBHOOK_SECRET=""):
        unsure = problem(post(f"http://127.0.0.1:{port}", CARRIER_PATH, CARRIER), 503, "webhooks-off")
        assert "OMS_WEBHOOK_SECRET" in unsure["detail"]
    nowhere = rig.settings.model_copy(update={"kafka_bootstrap": f"127.0.0.1:{free_port()}"})
    with gateway(nowhere, tmp_path / "alone", port, OMS_COMMAND_TIMEOUT="1"):
        problem(post(f"http://127.0.0.1:{port}", CARRIER_PATH, CARRIER), 503, "kafka-unavailable")
