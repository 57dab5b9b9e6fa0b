"""Do the books balance? What the orders view says, against the payment provider's ledger and the stock levels.

`audit` is pure; `read_books` asks the three of them: ClickHouse, the provider over HTTP, and the topic
`inventory.levels`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any
from uuid import uuid4

import httpx
from confluent_kafka import OFFSET_BEGINNING, TopicPartition

from analytics.clickhouse import connect
from runtime import kafka
from runtime.settings import Settings
from schemas import codec
from schemas.inventory import StockLevel
from schemas.order import Order, OrderStatus

ENDED = frozenset({OrderStatus.PAYMENT_CONFIRMED, OrderStatus.CANCELLED})
"""Where an order of the simulated shop comes to rest."""
HOLDS_STOCK = frozenset({OrderStatus.PENDING_PAYMENT, OrderStatus.PAYMENT_CONFIRMED, OrderStatus.PROCESSING})


@dataclass(frozen=True)
class Books:
    """`ledger`: the provider's entries. `levels`: stock by `sku#pool`. Amounts in minor units."""

    orders: list[Order]
    ledger: list[dict[str, Any]]
    levels: dict[str, StockLevel]


@dataclass(frozen=True)
class Check:
    """One sentence that must be true. `wrong` says where it is not."""

    name: str
    facts: str
    wrong: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.wrong


def audit(books: Books, accepted: Mapping[str, bool], stocked: Mapping[str, int]) -> list[Check]:
    """`accepted`: every order that the shop said yes to, and whether it was placed (else it is a draft that someone
    left). `stocked`: units of each SKU ever put on the shelf."""
    return [_all_ended(books.orders, accepted), _charges(books), _refunds(books), _stock(books, stocked)]


def _all_ended(orders: list[Order], accepted: Mapping[str, bool]) -> Check:
    """Every order accepted is in the view, and those placed have come to their one end."""
    status = {order.order_id: order.status for order in orders}
    wrong = [f"order {order_id} was accepted and is not there" for order_id in accepted if order_id not in status]
    wrong += [
        f"order {order_id} is {status[order_id]}"
        for order_id, placed in accepted.items()
        if order_id in status and (status[order_id] in ENDED) is not placed
    ]
    ends = Counter(status.values())
    facts = ", ".join(f"{count:,} {name}" for name, count in sorted(ends.items()))
    return Check("Every order accepted has one end", f"{len(accepted):,} accepted: {facts}", wrong)


def _charges(books: Books) -> Check:
    """What was captured: attempt by attempt the same in the ledger and in the orders."""
    charged = [
        (entry["attempt_id"], entry["amount"], entry["currency"])
        for entry in books.ledger
        if entry["kind"] == "charge" and entry["status"] == "captured"
    ]
    captured = [
        (payment.attempt_id, payment.amount, order.currency)
        for order in books.orders
        for payment in order.payments
        if payment.status == "captured"
    ]
    return Check(
        "Charges: provider's ledger = orders",
        f"{len(charged):,} charges",
        _differences("charge", charged, captured),
    )


def _refunds(books: Books) -> Check:
    returned = [
        (entry["attempt_id"], entry["amount"], entry["currency"]) for entry in books.ledger if entry["kind"] == "refund"
    ]
    refunded = [
        (refund.attempt_id, refund.amount, order.currency) for order in books.orders for refund in order.refunds
    ]
    wrong = _differences("refund", returned, refunded)
    owed = [
        f"order {order.order_id} is cancelled and {order.captured - order.refunded} {order.currency} were kept"
        for order in books.orders
        if order.status == OrderStatus.CANCELLED and order.captured != order.refunded
    ]
    return Check("Refunds: provider's ledger = orders", f"{len(returned):,} refunds", wrong + owed)


def _stock(books: Books, stocked: Mapping[str, int]) -> Check:
    """Per SKU: on hand + reserved + shipped is what was put there, and reserved is what orders hold."""
    held: Counter[str] = Counter()
    for order in books.orders:
        if order.status in HOLDS_STOCK:
            for line in order.lines:
                held[line.sku] += line.quantity
    on_hand: Counter[str] = Counter()
    reserved: Counter[str] = Counter()
    shipped: Counter[str] = Counter()
    wrong = []
    for level in books.levels.values():
        on_hand[level.sku] += level.on_hand
        reserved[level.sku] += level.reserved
        shipped[level.sku] += level.shipped
        if min(level.on_hand, level.reserved, level.shipped) < 0:
            wrong.append(f"{level.sku} has a negative count: {level}")
    for sku, units in stocked.items():
        found = on_hand[sku] + reserved[sku] + shipped[sku]
        if found != units:
            wrong.append(f"{sku}: {units:,} units were put there, {found:,} are accounted for")
        if reserved[sku] != held[sku]:
            wrong.append(f"{sku}: {reserved[sku]} are reserved, orders hold {held[sku]}")
    facts = f"{on_hand.total():,} on hand + {reserved.total():,} reserved + {shipped.total():,} shipped"
    return Check("Stock adds up, for every SKU", facts, wrong)


def _differences(what: str, there: Iterable[tuple[str, int, str]], here: Iterable[tuple[str, int, str]]) -> list[str]:
    ledger, orders = Counter(there), Counter(here)
    only_there = [f"{what} {_money(one)} is in the ledger only" for one in (ledger - orders).elements()]
    return only_there + [f"{what} {_money(one)} is in the orders only" for one in (orders - ledger).elements()]


def _money(entry: tuple[str, int, str]) -> str:
    attempt_id, minor, currency = entry
    return f"of {minor} {currency} (minor units, attempt {attempt_id})"


def read_books(settings: Settings) -> Books:
    """All three books as they are now."""
    return Books(_orders(settings), _ledger(settings.payment_url), _levels(settings))


def _orders(settings: Settings) -> list[Order]:
    client = connect(settings)
    try:
        rows = client.query(files(__package__).joinpath("sql/orders.sql").read_text()).result_rows
    finally:
        client.close()
    return [Order.model_validate_json(document) for (document,) in rows]


def _ledger(payment_url: str) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    after: int | None = 0
    with httpx.Client(base_url=payment_url, timeout=30) as client:
        while after is not None:
            page = client.get("/v1/ledger", params={"after": after}).raise_for_status().json()
            entries += page["items"]
            after = page["next"]
    return entries


def _levels(settings: Settings) -> dict[str, StockLevel]:
    """The newest level of every `sku#pool`, read from the topic's beginning to its end."""
    topic = "inventory.levels"
    consumer = kafka.consumer(settings, f"books-{uuid4()}", enable_partition_eof=True)
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
        levels: dict[str, StockLevel] = {}
        unread = set(partitions)
        while unread:
            record = consumer.poll(10)
            if record is None:
                raise TimeoutError(f"{topic} can't be read to its end")
            if record.error() is not None:
                if record.error().name() != "_PARTITION_EOF":
                    raise RuntimeError(f"{topic}: {record.error()}")
                unread.discard(record.partition())
                continue
            level = codec.decode(record.value()).data
            levels[record.key().decode()] = level
        return levels
    finally:
        consumer.close()
