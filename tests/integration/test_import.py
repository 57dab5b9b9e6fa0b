"""`oms import` as a process on the running stack: history comes in whole, once, with its own times, and nobody acts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import TopicPartition

from processors.order.history import order_id_of
from runtime import imports, kafka
from runtime.errors import UserError
from runtime.imports import Importer
from runtime.settings import Settings
from sandbox.old_shop import STATUSES, THEN, Document, lines, past
from schemas.base import Event
from tests.support.books import assert_balanced
from tests.support.parts import ROOT
from tests.support.stack import Record, Stack

ORDERS = 300
SILENT = ("notification.commands", "timer.commands", "inventory.commands", "warehouse.commands", "shipping.commands",
          "payment.commands", "promotion.commands", "fraud.commands", "exceptions", "order.rejections")  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    code: int
    said: str
    rejected: list[Document]

    @property
    def counts(self) -> tuple[int, int, int]:
        """(imported, there already, rejected)"""
        words = self.said.replace(",", "").split()
        return int(words[0]), int(words[3]), int(words[6])


@dataclass(frozen=True)
class OldShop:
    """A source of its own, in a folder of its own, for one customer of its own."""

    stack: Stack
    folder: Path
    source: str
    customer: str
    sku: str

    def document(self, n: int, **changes: Any) -> Document:
        return {**past(n, self.sku, self.customer), **changes}

    def order_id(self, n: int) -> str:
        return order_id_of(self.source, f"old-{n}")

    def command(self, file: Path) -> list[str]:
        place = ("--data-dir", str(self.stack.data_dir), "--source", self.source)
        return [sys.executable, "-m", "runtime", "import", str(file), *place]

    def write(self, text: str) -> Path:
        path = self.folder / f"{uuid4().hex[:8]}.jsonl"
        path.write_text(text)
        return path

    def bring(self, file: Path) -> Outcome:
        ended = subprocess.run(self.command(file), cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        assert ended.returncode in (0, 1), ended.stderr
        assert ended.stdout.strip(), ended.stderr
        print(ended.stdout.strip())
        report = file.with_name(f"{file.name}.rejected.jsonl")
        assert report.exists() == (ended.returncode == 1)
        rejected = [json.loads(line) for line in report.read_text().splitlines()] if report.exists() else []
        return Outcome(ended.returncode, ended.stdout, rejected)

    def events(self, *orders: int) -> list[Record]:
        wanted = {self.order_id(n).encode() for n in orders}
        return [record for record in self.stack.read("order.events") if record.key in wanted]

    def seen(self, n: int) -> Document:
        """The order over HTTP, once the view has it."""
        path = f"/v1/orders/{self.order_id(n)}"

        def found() -> Document | None:
            answer = self.stack.call("GET", path, customer=self.customer)
            return dict(answer.json()) if answer.status_code == 200 else None

        return self.stack.until(found, f"{path} is there")


def old_shop(stack: Stack, folder: Path) -> OldShop:
    name = uuid4().hex[:12]
    return OldShop(stack, folder, f"shop-{name}", f"old-customer-{name}", stack.product(stock=7))


WRONG: dict[str, tuple[Document | str, str, str]] = {
    "no JSON": ("{", "invalid", ""),
    "no time zone": ({"created_at": "2019-03-02T10:00:00"}, "invalid", "created_at"),
    "an unknown field": ({"colour": "blue"}, "invalid", "colour"),
    "a wrong sum": ({"total": "28.71"}, "amounts-differ", "total"),
    "shipped unpaid": ({"payments": []}, "cannot-plan-shipment", "shipments[0]"),
    "too much back": (
        {"refunds": [{"at": "2020-01-01T00:00:00Z", "amount": "28.71"}]},
        "refund-too-high",
        "refunds[0].amount",
    ),
    "yet to come": ({"refunds": [{"at": "2999-01-01T00:00:00Z", "amount": "1.00"}]}, "in-the-future", "refunds[0]"),
    "rated unseen": (
        {"shipments": [], "review": {"at": "2020-01-01T00:00:00Z", "score": 5}},
        "cannot-survey",
        "review",
    ),
    "half a cent": ({"shipping": "4.901"}, "invalid", "shipping"),
    "sent nowhere": ({"shipping_address": None}, "invalid", "shipping_address"),
}


@pytest.fixture(scope="module")
def shop(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> OldShop:
    return old_shop(stack, tmp_path_factory.mktemp("import"))


@pytest.fixture(scope="module")
def file(shop: OldShop) -> Path:
    """All good orders, and the bad lines in the middle of them."""
    wrong = [
        what if isinstance(what, str) else json.dumps(shop.document(0, id=name, **what))
        for name, (what, _, _) in WRONG.items()
    ]
    documents = [json.dumps(shop.document(n)) for n in range(ORDERS)]
    return shop.write("\n".join([*documents[:100], *wrong, "", *documents[100:]]) + "\n")


def test_what_is_wrong_is_reported_and_the_rest_comes_in_and_nothing_else_happens(shop: OldShop, file: Path) -> None:
    stack = shop.stack
    ledger = stack.ledger()
    outcome = shop.bring(file)
    assert outcome.code == 1
    assert outcome.counts == (ORDERS, 0, len(WRONG))
    found = {one["line"]: one for one in outcome.rejected}
    for line, (name, (what, type, field)) in enumerate(WRONG.items(), start=101):
        one = found.pop(line)
        assert (one["type"], one["field"]) == (type, field), one
        assert one["id"] == ("" if isinstance(what, str) else name)
        assert one["reason"]
    assert found == {}

    events = shop.events(*range(ORDERS))
    assert {record.key.decode() for record in events if record.key} == {shop.order_id(n) for n in range(ORDERS)}
    assert all(isinstance(record.message, Event) and record.message.imported for record in events)
    statuses = Counter(shop.seen(n)["status"] for n in range(12))
    assert statuses == Counter(STATUSES * 2)

    # Each saga has read an order that was placed afterwards: had it anything to say about these, it would be there.
    order_id = stack.place((shop.sku, 1))["id"]
    assert stack.settled(order_id)["status"] == "PAYMENT_CONFIRMED"
    told = lambda: any(r.message and r.message.order_id == order_id for r in stack.read("notification.commands"))  # noqa: E731
    stack.until(told, "the customers of today are told")
    mentioned = {topic: b"\n".join(r.value or b"" for r in stack.read(topic)) for topic in SILENT}
    for n in range(ORDERS):
        assert not [topic for topic, said in mentioned.items() if shop.order_id(n).encode() in said]
    assert not [topic for topic, said in mentioned.items() if shop.customer.encode() in said]
    assert [entry for entry in stack.ledger() if entry["reference"] != order_id] == ledger
    items = stack.call("GET", "/v1/products?limit=1000").json()["items"]
    assert [item["available"] for item in items if item["sku"] == shop.sku] == [7 - 1]


def test_an_imported_order_has_its_own_times(shop: OldShop) -> None:
    for n, status in enumerate(STATUSES):
        order, told = shop.seen(n), shop.document(n)
        assert (order["status"], order["imported"]) == (status, True)
        assert order["total"] == {"amount": "28.70", "currency": "EUR"}
        assert order["shipping_address"]["recipient_name"] == "Ada Lovelace"
        assert datetime.fromisoformat(order["created_at"]) == datetime.fromisoformat(told["created_at"])
        if "shipments" in told:
            (parcel,), (sent,) = order["shipments"], told["shipments"]
            for name in ("shipped_at", "delivered_at"):
                assert datetime.fromisoformat(parcel[name]) == datetime.fromisoformat(sent[name])
        assert [refund["status"] for refund in order["refunds"]] == ["completed"] * (n in (1, 2, 5))
    assert shop.seen(1)["cancellation"] == {"reason": "changed_mind", "comment": "too late", "skus": []}
    assert shop.seen(3)["survey"] == {"score": 4, "comment": "as ever"}
    path = f"/v1/orders/{shop.order_id(0)}/events"
    timeline = shop.stack.call("GET", path, customer=shop.customer).json()["items"]
    times = [datetime.fromisoformat(event["occurred_at"]) for event in timeline]
    assert times == sorted(times)
    assert times[0] == THEN
    assert (timeline[-1]["type"], timeline[-1]["actor"]) == ("OrderImported", "staff:import")
    assert all(at.year == 2019 for at in times[:-1])


def test_imported_again_is_answered_as_before_and_changes_nothing(shop: OldShop, file: Path) -> None:
    before = {(record.partition, record.offset) for record in shop.events(*range(ORDERS))}
    outcome = shop.bring(file)
    assert (outcome.code, outcome.counts) == (1, (ORDERS, 0, len(WRONG)))
    assert {(record.partition, record.offset) for record in shop.events(*range(ORDERS))} == before


def test_the_same_id_with_other_content_is_refused(shop: OldShop) -> None:
    again = shop.document(0, customer_id="somebody-else")
    outcome = shop.bring(shop.write(lines([again, shop.document(1)])))
    assert (outcome.code, outcome.counts) == (1, (1, 0, 1))
    (refused,) = outcome.rejected
    assert (refused["line"], refused["id"], refused["type"]) == (1, "old-0", "idempotency-key-reused")
    assert "another content" in refused["reason"]
    assert shop.seen(0)["customer_id"] == shop.customer


def test_killed_in_the_middle_and_started_again(stack: Stack, tmp_path: Path) -> None:
    """More lines than are sent before the first outcomes are there, so that it is really in the middle."""
    shop, count = old_shop(stack, tmp_path), 700
    file = shop.write(lines(shop.document(n) for n in range(count)))
    before = sent(stack)
    process = subprocess.Popen(shop.command(file), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while sent(stack) < before + 50:
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(10)
    done = sent(stack) - before
    print(f"killed after {done} of {count} lines")
    assert 50 <= done < count
    outcome = shop.bring(file)
    assert (outcome.code, outcome.counts) == (0, (count, 0, 0))
    steps = Counter(record.key for record in shop.events(*range(count)))
    assert len(steps) == count
    one_of_each = {n % len(STATUSES): steps[shop.order_id(n).encode()] for n in range(len(STATUSES))}
    assert all(steps[shop.order_id(n).encode()] == one_of_each[n % len(STATUSES)] for n in range(count))


def sent(stack: Stack) -> int:
    """Commands on order.internal, answered or not."""
    consumer = kafka.consumer(stack.settings, f"test-{uuid4()}", isolation_level="read_uncommitted")
    try:
        partitions = consumer.list_topics("order.internal", timeout=20).topics["order.internal"].partitions
        where = (TopicPartition("order.internal", partition) for partition in partitions)
        return sum(consumer.get_watermark_offsets(one, timeout=20)[1] for one in where)
    finally:
        consumer.close()


def test_an_imported_order_can_be_refunded_as_far_as_the_provider_knows_it(shop: OldShop) -> None:
    """It does not, here: the refund fails, a person is told, and what was not given can be given in another way."""
    stack, order_id = shop.stack, shop.order_id(0)
    wish = {"items": [{"line_id": "L1", "quantity": 1, "reason": "defective"}]}
    refused = stack.call("POST", f"/v1/orders/{order_id}/returns", wish, customer=shop.customer, key=uuid4().hex)
    assert (refused.status_code, refused.json()["type"]) == (409, "/problems/return-window-closed"), refused.text

    goodwill = {"reason": "goodwill", "amount": {"amount": "5.00", "currency": "EUR"}}
    begun = stack.done("POST", f"/v1/admin/orders/{order_id}/refunds", goodwill)
    assert [refund["status"] for refund in begun["refunds"]] == ["initiated"]
    failed = lambda: [refund["status"] for refund in stack.order(order_id)["refunds"]] == ["failed"]  # noqa: E731
    stack.until(failed, "the refund has failed")

    def opened() -> list[Document]:
        page = stack.call("GET", f"/v1/admin/exceptions?order_id={order_id}", admin="clerk").json()
        return list(page["items"])

    (told,) = stack.until(opened, "a person is told")
    assert (told["kind"], told["retryable"]) == ("refund_failed", True)
    order = stack.order(order_id)
    assert order["payments"][0]["refunded"] == {"amount": "0.00", "currency": "EUR"}
    assert "refund" in order["allowed_actions"]
    assert order["status"] == "REFUND_REQUESTED"
    words = {"resolution": "paid in cash", "paid_elsewhere": True}
    solved = stack.done("POST", f"/v1/admin/exceptions/{told['exception_id']}/resolve", words)
    assert solved["status"] == "resolved"
    settled = lambda: stack.order(order_id)["status"] == "DELIVERED"  # noqa: E731
    stack.until(settled, "the order goes on without the refund")
    order = stack.order(order_id)
    assert [refund["status"] for refund in order["refunds"]] == ["paid_elsewhere"]
    assert order["payments"][0]["refunded"] == {"amount": "5.00", "currency": "EUR"}


def test_lines_without_an_outcome_are_named(broker: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a broker alone: nobody decides them, as nobody decides a dead letter. What came before them is counted."""
    monkeypatch.setattr(imports, "PATIENCE", 5.0)
    report = StringIO()
    importer = Importer(broker, "shop", report)
    file = lines(past(n, "MUG", "42") for n in range(12))
    with pytest.raises(UserError) as found:
        importer.run(iter([b"{", *file.encode().splitlines()]))
    assert "line 2 (id old-0), 3 (id old-1)" in str(found.value)
    assert "11 (id old-9) and 2 more" in str(found.value)
    assert (importer.tally.lines, importer.tally.rejected) == (13, 1)
    assert json.loads(report.getvalue())["line"] == 1


def test_the_books_balance_with_all_that_history(stack: Stack) -> None:
    assert_balanced(stack)
