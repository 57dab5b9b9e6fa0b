"""The books of a stack, computed independently from the topics in plain Python, and held against everything else."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import orjson

from analytics.clickhouse import connect
from processors.order.evolve import evolve
from processors.order.refunding import share
from processors.sinks.progress import look_at, reached
from processors.sinks.views import VIEWS
from runtime import kafka
from runtime.dead_letters import for_me
from runtime.keystore import vault
from schemas import events as e
from schemas.base import Event
from schemas.inventory import StockLevel
from schemas.order import Order, OrderState, OrderStatus
from schemas.promotion import PromotionLevel
from tests.support import view_fold
from tests.support.stack import Stack

LEGAL = {
    (None, "DRAFT"),
    ("DRAFT", "PENDING_PAYMENT"),
    ("DRAFT", "CANCELLED"),
    ("PENDING_PAYMENT", "PAYMENT_CONFIRMED"),
    ("PENDING_PAYMENT", "CANCELLED"),
    ("PAYMENT_CONFIRMED", "PROCESSING"),
    ("PAYMENT_CONFIRMED", "CANCELLED"),
    ("PROCESSING", "SHIPPED"),
    ("PROCESSING", "CANCELLED"),
    ("SHIPPED", "PROCESSING"),
    ("SHIPPED", "DELIVERED"),
    ("DELIVERED", "REFUND_REQUESTED"),
    ("DELIVERED", "REFUNDED"),
    ("REFUND_REQUESTED", "DELIVERED"),
    ("REFUND_REQUESTED", "REFUNDED"),
}
"""The epic's state machine; besides, staff may give everything back without a return."""
LIVES = frozenset(OrderStatus) - {OrderStatus.DRAFT, OrderStatus.CANCELLED}
"""An order in one of these holds stock for what it has still to ship, and the promotions it was placed with."""
PAID = LIVES - {OrderStatus.PENDING_PAYMENT}


@dataclass
class Books:
    """orders: the fold of order.events. events: how many there are per order. By SKU and pool (`sku#pool`): adjusted,
    units put in; moved, what the ledger of stock says by kind; left and came_back, what the orders' events say of
    parcels and returns. left_late: orders of which cancelled units left all the same, as an exception says."""

    orders: dict[str, Order] = field(default_factory=dict)
    events: Counter[str] = field(default_factory=Counter)
    adjusted: Counter[str] = field(default_factory=Counter)
    levels: dict[str, StockLevel] = field(default_factory=dict)
    moved: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    left: Counter[str] = field(default_factory=Counter)
    came_back: Counter[str] = field(default_factory=Counter)
    promotions: dict[str, PromotionLevel] = field(default_factory=dict)
    left_late: set[str] = field(default_factory=set)

    @property
    def ours(self) -> Iterator[Order]:
        """Those that were not imported: for these nothing was charged and nothing moved."""
        return (order for order in self.orders.values() if not order.imported)


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
        assert step[0] == step[1] or step in LEGAL, (event.order_id, type(event.data).__name__, step)
        assert record.value is not None
        digest = hashlib.sha256(record.value).hexdigest()
        books.orders[event.order_id] = after.model_copy(update={"last_hash": digest})
        books.events[event.order_id] += 1
        if not event.imported:
            _count_goods(books, event)
    for record in stack.read("inventory.levels"):
        if record.message is not None and record.key is not None:
            books.levels[record.key.decode()] = record.message.data
    for record in stack.read("promotion.levels"):
        if record.message is not None and record.key is not None:
            books.promotions[record.key.decode()] = record.message.data
    for record in stack.read("exceptions"):
        if record.message is not None and getattr(record.message.data, "kind", None) == "shipped_after_cancel":
            books.left_late.add(str(record.message.order_id))
    seen = set()
    for record in stack.read("inventory.events"):
        if record.message is None or record.message.id in seen:
            continue
        seen.add(record.message.id)
        moved = record.message.data
        books.moved[moved.kind][f"{moved.sku}#{moved.pool}"] += moved.quantity
    books.adjusted = books.moved["adjusted"]
    return books


def _count_goods(books: Books, event: Event[Any]) -> None:
    match event.data:
        case e.OrderShipmentDispatched(lines=lines, redelivery=False):
            for x in lines:
                books.left[f"{x.sku}#main"] += x.quantity
        case e.OrderShipmentLost(lines=lines, reason=reason) if reason != "lost":
            for x in lines:
                books.came_back[f"{x.sku}#main"] += x.quantity
        case e.OrderReturnInspected(items=items):
            for item in items:
                books.came_back[f"{item.sku}#main"] += item.quantity


def assert_balanced(stack: Stack) -> Books:
    """Guarantees 2 to 5 on everything the stack has ever done. Call it when nothing is under way."""
    books = read_books(stack)
    _assert_stock(books)
    _assert_promotions(books)
    _assert_money(stack, books)
    stack.until(lambda: _views_have_everything(stack), "the views have caught up", 60)
    _assert_views(stack, books)
    _assert_every_row(stack)
    return books


def _assert_stock(books: Books) -> None:
    """Nothing appears or vanishes; reserved is what orders have still to ship; what left and came back is what parcels
    and returns held."""
    held: Counter[str] = Counter()
    may_wait: Counter[str] = Counter()
    units_left_late: Counter[str] = Counter()
    for order in books.ours:
        for line in order.lines if order.order_id in books.left_late else ():
            units_left_late[f"{line.sku}#main"] += line.quantity
        for line in order.lines if order.status in LIVES else ():
            assert line.to_ship >= 0, order.order_id
            held[f"{line.sku}#main"] += line.to_ship
            may_wait[f"{line.sku}#main"] += line.to_ship if line.backorder else 0
    for key, level in books.levels.items():
        gone = books.moved["lost"][key] + books.moved["written_off"][key]
        back = books.moved["restocked"][key] + books.moved["written_off"][key]
        assert min(level.on_hand, level.reserved, level.shipped) >= 0, key
        assert level.on_hand + level.reserved + level.shipped == books.adjusted[key] - gone, key
        assert level.shipped == books.moved["committed"][key] - back, key
        assert held[key] - may_wait[key] <= level.reserved <= held[key], f"{key}: reserved is what orders wait for"
        late = units_left_late[key]
        left, out = books.left[key], books.moved["committed"][key]
        assert left <= out <= left + late, f"{key}: what left was in parcels"
        came_back = books.came_back[key]
        assert came_back <= back <= came_back + late, f"{key}: what came back was in returns and parcels"
    assert {key for key, units in (held + books.left).items() if units} <= set(books.levels)


def _assert_promotions(books: Books) -> None:
    """A code is used as often as orders have it (one that takes nothing off may or may not hold a use)."""
    least: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for order in books.ours:
        for applied in order.promotions if order.status in LIVES else ():
            most[applied.terms.code] += 1
            least[applied.terms.code] += applied.amount > 0
    for code, level in books.promotions.items():
        assert least[code] <= level.used <= most[code], (
            f"{code}: {level.used} uses, {least[code]} to {most[code]} orders"
        )
    assert set(most) <= set(books.promotions)


def _assert_money(stack: Stack, books: Books) -> None:
    """What the provider really did is what the orders say: at most one charge per attempt, captures within what was
    authorized; and what was kept of an order is its price."""
    captured: Counter[str] = Counter()
    refunded: Counter[str] = Counter()
    charges: dict[str, list[int]] = defaultdict(list)
    reserved: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    for entry in stack.ledger():
        if entry["kind"] == "authorization" and entry["status"] == "authorized":
            reserved[entry["attempt_id"]] += entry["amount"]
        if entry["kind"] in ("charge", "capture") and entry["status"] == "captured":
            charges[f"{entry['kind']}:{entry['key']}"].append(entry["amount"])
            captured[entry["reference"]] += entry["amount"]
            taken[entry["attempt_id"]] += entry["amount"]
            assert entry["kind"] == "charge" or taken[entry["attempt_id"]] <= reserved[entry["attempt_id"]], entry
        if entry["kind"] == "refund" and entry["status"] == "refunded":
            refunded[entry["reference"]] += entry["amount"]
    assert all(len(amounts) == 1 for amounts in charges.values()), "charged twice"
    for order in books.ours:
        order_id = order.order_id
        assert captured[order_id] == order.captured, order_id
        for payment in order.payments:
            assert taken[payment.attempt_id] == payment.taken, order_id
            assert 0 <= payment.refunded <= payment.taken, order_id
        done = sum(refund.amount for refund in order.refunds if refund.status == "completed")
        assert refunded[order_id] == done, order_id
        if order.status == OrderStatus.CANCELLED:
            assert order.captured == done, f"{order_id}: cancelled, and the money is not back"
            assert all(payment.status != "authorized" for payment in order.payments), f"{order_id}: still reserved"
        if order.status == OrderStatus.REFUNDED:
            assert order.captured == done, f"{order_id}: refunded, and not all of it"
        if order.status in PAID:
            _assert_kept(order, order.captured - order.refunded)
    assert set(captured) <= set(books.orders), "money without an order"


def _assert_kept(order: Order, kept: int) -> None:
    """The price of what the customer has, to the cent. Less was taken where only a part was shipped of an authorized
    order; of one with returns the condition of the goods decides."""
    cancelled = sum(share(line.paid, 0, line.cancelled, line.quantity) for line in order.lines)
    goodwill = sum(refund.amount for refund in order.refunds if refund.kept and refund.counts)
    price = order.totals.total - cancelled - goodwill
    part = any(payment.status == "authorized" or payment.capturing for payment in order.payments)
    if part or any(line.returned for line in order.lines):
        assert 0 <= kept <= price, f"{order.order_id}: {kept} kept of {price}"
    else:
        assert kept == price, f"{order.order_id}: {kept} kept of {price}"


def _ends(stack: Stack) -> dict[tuple[str, int], int]:
    """Where the topics that views are made of end, of the partitions that hold something."""
    admin = kafka.admin(stack.settings)
    topics = [look_at(admin, name) for name in sorted({topic for view in VIEWS.values() for topic in view.sources})]
    return {(topic.name, part): end for topic in topics for part, (first, end) in topic.ends.items() if end > first}


def _views_have_everything(stack: Stack) -> bool:
    """Each of them says that it has come to the end of its topics."""
    ends = _ends(stack)
    with connect(stack.settings) as client:
        for view in VIEWS.values():
            there = {(topic, part): offset for (topic, _, part), offset in reached(client, view.name).items()}
            if any(there.get(at, 0) < end for at, end in ends.items() if at[0] in view.sources):
                return False
    return True


def _assert_every_row(stack: Stack) -> None:
    """All views, each row and column, against a fold of the topics; once more if these went on meanwhile."""
    while True:
        stack.until(lambda: _views_have_everything(stack), "the views have caught up", 60)
        ends = _ends(stack)
        lying = [
            view_fold.Lying(record.topic, record.value, record.message, record.at)
            for topic in sorted({topic for topic, _ in ends})
            for record in stack.read(topic)
            if for_me(record.headers, "views")
        ]
        try:
            with connect(stack.settings) as client:
                view_fold.assert_equal(client, view_fold.Fold(lying, vault(stack.settings).open).views())
        except AssertionError:
            if _ends(stack) == ends:
                raise
        else:
            return


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
