"""The example of a downstream service (examples/loyalty.py), as a process on the running stack: it knows `order.events`
and the registry's paths, and nothing else of ours."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from processors.order.evolve import evolve
from schemas.base import Event
from schemas.order import Order
from tests.support.parts import ROOT
from tests.support.stack import Stack

EXAMPLE = ROOT / "examples" / "loyalty.py"
PATIENCE = 180.0


class Programme:
    """The loyalty programme over one database."""

    def __init__(self, stack: Stack, database: Path) -> None:
        self.stack = stack
        self.database = database

    @contextmanager
    def running(self) -> Iterator[subprocess.Popen[bytes]]:
        """Stopped with SIGTERM at the end, unless the test killed it."""
        where = ("--bootstrap", self.stack.settings.kafka_bootstrap, "--registry", self.stack.url)
        log = self.database.with_suffix(".log")
        with log.open("ab") as output:
            command = [sys.executable, str(EXAMPLE), *where, "--database", str(self.database)]
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield process
            assert process.poll() in (None, -9), log.read_text()
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)

    def killed_after(self, more: int) -> None:
        """kill -9 once it has read so many events more."""
        before = self.read()
        with self.running() as process:
            self.until(lambda: self.read() >= before + more, "it reads", process)
            process.kill()
            process.wait(10)

    def until(self, look: Callable[[], bool], what: str, process: subprocess.Popen[bytes]) -> None:
        def seen() -> bool:
            assert process.poll() is None, self.database.with_suffix(".log").read_text()
            return look()

        self.stack.until(seen, what, PATIENCE)

    def show(self, customer: str) -> int:
        """Points, as the programme itself tells them."""
        command = [sys.executable, str(EXAMPLE), "--database", str(self.database), "--show", customer]
        return int(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)

    def read(self) -> int:
        """Offsets passed, in all partitions."""
        return sum(row["next"] for row in self.rows("SELECT next FROM offsets"))

    def points(self) -> dict[str, int]:
        """Of every customer who has some."""
        query = "SELECT customer_id, sum(points) AS points FROM orders GROUP BY customer_id HAVING sum(points) != 0"
        return {row["customer_id"]: row["points"] for row in self.rows(query)}

    def rows(self, query: str) -> list[dict[str, Any]]:
        if not self.database.exists():
            return []
        with closing(sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=10)) as database:
            database.row_factory = sqlite3.Row
            try:
                return [dict(row) for row in database.execute(query)]
            except sqlite3.OperationalError as error:
                if "no such table" not in str(error):  # it has just been started
                    raise
                return []


def by_our_own_books(stack: Stack) -> dict[str, int]:
    """The points of every customer, by the fold of all events: a whole unit of what a delivered order has cost."""
    orders: dict[str, Order] = {}
    for record in stack.read("order.events"):
        if isinstance(record.message, Event):
            orders[record.message.order_id] = evolve(orders.get(record.message.order_id), record.message)
    points: Counter[str] = Counter()
    for order in orders.values():
        given = sum(refund.amount for refund in order.refunds if refund.status == "completed")
        if order.delivered_at is not None:
            points[order.customer_id] += max(0, order.captured - given) // 100
    return {customer: count for customer, count in points.items() if count}


def delivered(stack: Stack, sku: str, quantity: int, customer: str) -> dict[str, Any]:
    """An order that arrived. One that could not be paid within the ten seconds of this stack is placed again."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        order_id = stack.place((sku, quantity), customer=customer)["id"]
        ended = stack.until(lambda o=order_id: at_its_end(stack.order(o)), "it arrives", PATIENCE)  # type: ignore[misc]
        if ended["status"] == "DELIVERED":
            return ended
        assert ended["cancellation"]["reason"] == "payment_timeout"
    raise AssertionError("no order is ever paid in time")


def at_its_end(order: dict[str, Any]) -> dict[str, Any] | None:
    return order if order and order["status"] in ("DELIVERED", "CANCELLED") else None


def test_points_are_earned_on_delivery_and_taken_back_on_refund(lively_stack: Stack, tmp_path: Path) -> None:
    """Killed with kill -9 three times, and started anew from nothing: always the same points."""
    stack, customer = lively_stack, f"loyal-{uuid4().hex[:12]}"
    first = Programme(stack, tmp_path / "loyalty.sqlite")
    mug = stack.product(stock=20)
    stack.place((mug, 1), submit=False)
    first.killed_after(1)
    order = delivered(stack, mug, 3, customer)
    assert order["total"]["amount"] == "42.72"
    with first.running() as process:
        first.until(lambda: first.points().get(customer) == 42, "the points of the delivery", process)
        goodwill = {"reason": "damaged", "amount": {"amount": "12.00", "currency": "EUR"}}
        stack.done("POST", f"/v1/admin/orders/{order['id']}/refunds", goodwill)
        first.until(lambda: first.points().get(customer) == 30, "12 points are taken back", process)
        process.kill()
        process.wait(10)
    assert first.show(customer) == 30  # 42.72 − 12.00
    assert first.show("nobody") == 0

    second = Programme(stack, tmp_path / "again.sqlite")
    second.killed_after(1)
    expected = by_our_own_books(stack)
    assert expected[customer] == 30
    with second.running() as process:
        second.until(lambda: second.points() == expected, "all of it is read once more", process)
    with first.running() as process:
        first.until(lambda: first.points() == expected, "the first one has read all too", process)
    assert first.rows("SELECT * FROM orders ORDER BY order_id") == second.rows("SELECT * FROM orders ORDER BY order_id")
