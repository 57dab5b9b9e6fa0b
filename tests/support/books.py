"""The books of a stack, computed independently from the topics in plain Python, and held against everything else."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field

import orjson

from processors.order.evolve import evolve
from schemas.base import Event
from schemas.inventory import StockLevel
from schemas.order import Order, OrderState, OrderStatus
from tests.support.stack import Stack

LEGAL = {
    (None, "DRAFT"),
    ("DRAFT", "PENDING_PAYMENT"),
    ("DRAFT", "CANCELLED"),
    ("PENDING_PAYMENT", "PAYMENT_CONFIRMED"),
    ("PENDING_PAYMENT", "CANCELLED"),
    ("PAYMENT_CONFIRMED", "CANCELLED"),
}
"""The epic's state machine, as far as this release goes."""


@dataclass
class Books:
    """orders: the fold of order.events. events: how many there are per order. adjusted: units put in, by SKU."""

    orders: dict[str, Order] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    adjusted: Counter[str] = field(default_factory=Counter)
    levels: dict[str, StockLevel] = field(default_factory=dict)


def read_books(stack: Stack) -> Books:
    """Fold the topics; fails on a gap, a repeat, a broken chain or an illegal transition."""
    books = Books()
    for record in stack.read("order.events"):
        if record.message is None:
            continue  # a poison message of another test
        event = record.message
        assert isinstance(event, Event)
        before = books.orders.get(event.order_id)
        assert event.version == (before.version + 1 if before else 1), "events are numbered 1…n"
        assert event.previous_hash == (before.last_hash if before else ""), "the chain of hashes holds"
        assert before is None or event.occurred_at >= before.updated_at
        after = evolve(before, event)
        step = (before.status if before else None, after.status)
        assert step[0] == step[1] or step in LEGAL, step
        assert record.value is not None
        digest = hashlib.sha256(record.value).hexdigest()
        books.orders[event.order_id] = after.model_copy(update={"last_hash": digest})
        books.events[event.order_id] += 1
    for record in stack.read("inventory.levels"):
        if record.message is not None and record.key is not None:
            books.levels[record.key.decode()] = record.message.data
    seen = set()
    for record in stack.read("inventory.events"):
        if record.message is None or record.message.id in seen:
            continue
        seen.add(record.message.id)
        moved = record.message.data
        if moved.kind == "adjusted":
            books.adjusted[f"{moved.sku}#{moved.pool}"] += moved.quantity
    return books


def assert_balanced(stack: Stack) -> Books:
    """Guarantees 2 to 5 on everything the stack has ever done. Call it when nothing is under way."""
    books = read_books(stack)
    _assert_stock(books)
    _assert_money(stack, books)
    stack.until(lambda: _views_lag(stack, books), "the views have caught up", 60)
    _assert_views(stack, books)
    return books


def _assert_stock(books: Books) -> None:
    held: Counter[str] = Counter()
    for order in books.orders.values():
        if order.status in (OrderStatus.PENDING_PAYMENT, OrderStatus.PAYMENT_CONFIRMED):
            for line in order.lines:
                held[f"{line.sku}#main"] += line.quantity
    for key, level in books.levels.items():
        assert min(level.on_hand, level.reserved, level.shipped) >= 0, key
        assert level.on_hand + level.reserved + level.shipped == books.adjusted[key], key
        assert level.reserved + level.shipped == held[key], f"{key}: no reservation outlives its order"


def _assert_money(stack: Stack, books: Books) -> None:
    """What the provider really did is what the orders say: at most one charge per attempt."""
    captured: Counter[str] = Counter()
    refunded: Counter[str] = Counter()
    charges: dict[str, list[int]] = defaultdict(list)
    for entry in stack.ledger():
        if entry["kind"] == "charge" and entry["status"] == "captured":
            charges[entry["key"]].append(entry["amount"])
            captured[entry["reference"]] += entry["amount"]
        if entry["kind"] == "refund" and entry["status"] == "refunded":
            refunded[entry["reference"]] += entry["amount"]
    assert all(len(amounts) == 1 for amounts in charges.values()), "charged twice"
    for order_id, order in books.orders.items():
        assert captured[order_id] == order.captured, order_id
        done = sum(refund.amount for refund in order.refunds if refund.status == "completed")
        assert refunded[order_id] == done, order_id
        if order.status == OrderStatus.CANCELLED:
            assert order.captured == done, f"{order_id}: cancelled, and the money is not back"
        if order.status == OrderStatus.PAYMENT_CONFIRMED:
            assert order.captured == order.totals.total
    assert set(captured) <= set(books.orders), "money without an order"


def _views_lag(stack: Stack, books: Books) -> bool:
    rows = stack.sql("SELECT count() AS n FROM oms.order_events FINAL")
    orders = stack.sql("SELECT sum(version) AS n FROM oms.orders FINAL")
    return int(rows[0]["n"]) >= books.events.total() and int(orders[0]["n"]) >= books.events.total()


def _assert_views(stack: Stack, books: Books) -> None:
    rows = stack.sql(
        "SELECT order_id, count() AS n, max(version) AS newest FROM oms.order_events FINAL GROUP BY order_id"
    )
    assert {row["order_id"]: int(row["n"]) for row in rows} == dict(books.events)
    assert all(row["n"] == row["newest"] for row in rows)
    details = stack.sql("SELECT order_id, version, status, total, document FROM oms.orders FINAL")
    assert len(details) == len(books.orders)
    for row in details:
        order = books.orders[row["order_id"]]
        assert (int(row["version"]), row["status"], int(row["total"])) == (
            order.version,
            order.status,
            order.totals.total,
        )
        assert Order.model_validate(orjson.loads(row["document"])) == order
    heads = stack.sql("SELECT order_id, version FROM oms.customer_orders FINAL")
    assert {row["order_id"]: int(row["version"]) for row in heads} == {k: o.version for k, o in books.orders.items()}
    states = {r.key.decode(): r.message.data for r in stack.read("order.states") if r.key and r.message}
    assert {k: s.order for k, s in states.items() if isinstance(s, OrderState)} == books.orders
