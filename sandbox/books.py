"""Do the books balance? What the orders view says, against the payment provider's ledger, the ledger of stock, and the
promotions' counts.

`audit` is pure; `read_books` asks all of them: ClickHouse, the provider over HTTP, and the topics `inventory.levels`,
`inventory.events`, `promotion.levels` and `exceptions`. Call it when nothing is under way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
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
from schemas.inventory import StockLevel, StockMoved
from schemas.operations import ExceptionOpened
from schemas.order import Order, OrderStatus, Return
from schemas.promotion import PromotionLevel

ENDED = frozenset({OrderStatus.DELIVERED, OrderStatus.REFUNDED, OrderStatus.CANCELLED})
"""Where an order of the simulated shop comes to rest."""
LIVES = frozenset(OrderStatus) - {OrderStatus.DRAFT, OrderStatus.CANCELLED}
"""An order in one of these holds stock for what it has still to ship, and the promotions it was placed with."""
RECEIVED = ("inspected", "closed")
LEFT_LATE = "shipped_after_cancel"


@dataclass(frozen=True)
class Books:
    """`ledger`: the provider's entries. `levels`: stock by `sku#pool`. `moves`: every movement of stock. `promotions`:
    by code. `left_late`: orders of which cancelled units left all the same, as an exception says. Amounts in minor
    units."""

    orders: list[Order]
    ledger: list[dict[str, Any]]
    levels: dict[str, StockLevel]
    moves: list[StockMoved]
    promotions: dict[str, PromotionLevel] = field(default_factory=dict)
    left_late: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Check:
    """One sentence that must be true. `wrong` says where it is not."""

    name: str
    facts: str
    wrong: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        return not self.wrong


def audit(books: Books, accepted: Mapping[str, bool]) -> list[Check]:
    """`accepted`: every order that the shop said yes to, and whether it was placed (else it is a draft that someone
    left). What was imported from elsewhere moved neither money nor goods here."""
    ours = [order for order in books.orders if not order.imported]
    return [
        _all_ended(ours, accepted),
        _taken(ours, books.ledger),
        _given_back(ours, books.ledger),
        _kept(ours),
        _stock(books.levels, books.moves),
        _reserved(ours, books.levels),
        _moved(ours, books.moves, books.left_late),
        _uses(ours, books.promotions),
    ]


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


# Money


def _taken(orders: list[Order], ledger: list[dict[str, Any]]) -> Check:
    """What was taken, at once or by captures of an authorization: attempt by attempt the same on both sides."""
    there: Counter[tuple[str, str]] = Counter()
    for entry in ledger:
        if entry["kind"] in ("charge", "capture") and entry["status"] == "captured":
            there[entry["attempt_id"], entry["currency"]] += entry["amount"]
    here = Counter(
        {(payment.attempt_id, order.currency): payment.taken for order in orders for payment in order.payments}
    )
    wrong = [
        f"attempt {attempt_id}: the provider took {_money(there[attempt_id, currency], currency)}, "
        f"the order says {_money(here[attempt_id, currency], currency)}"
        for attempt_id, currency in sorted(there | here)
        if there[attempt_id, currency] != here[attempt_id, currency]
    ]
    count = sum(amount > 0 for amount in there.values())
    return Check("Money taken: provider's ledger = orders", f"{count:,} payments", wrong)


def _given_back(orders: list[Order], ledger: list[dict[str, Any]]) -> Check:
    """Refund by refund the same on both sides; of a payment never more than was taken; of a cancelled order all."""
    there = Counter(
        (entry["attempt_id"], entry["amount"], entry["currency"])
        for entry in ledger
        if entry["kind"] == "refund" and entry["status"] == "refunded"
    )
    here: Counter[tuple[str, int, str]] = Counter()
    wrong = []
    for order in orders:
        back: Counter[str] = Counter()
        for refund in order.refunds:
            back[refund.attempt_id] += refund.amount if refund.counts else 0
            if refund.status == "completed":
                here[refund.attempt_id, refund.amount, order.currency] += 1
            else:
                wrong.append(f"order {order.order_id}: refund {refund.refund_id} is {refund.status}")
        for payment in order.payments:
            if back[payment.attempt_id] > payment.taken:
                wrong.append(f"order {order.order_id}: more was given back of {payment.attempt_id} than was taken")
        if order.status == OrderStatus.CANCELLED and order.captured != order.refunded:
            kept = _money(order.captured - order.refunded, order.currency)
            wrong.append(f"order {order.order_id} is cancelled and {kept} were kept")
        if order.status == OrderStatus.CANCELLED and any(p.status == "authorized" for p in order.payments):
            wrong.append(f"order {order.order_id} is cancelled and money is still reserved for it")
    wrong += [f"a refund of {_refund(one)} is in the ledger only" for one in (there - here).elements()]
    wrong += [f"a refund of {_refund(one)} is in the orders only" for one in (here - there).elements()]
    return Check("Refunds: provider's ledger = orders", f"{there.total():,} refunds", wrong)


def _kept(orders: list[Order]) -> Check:
    """What the shop kept of an order is its price: without units that were cancelled, and what staff gave back. (What
    goods that came back are worth depends on their condition; of those orders only the bounds are certain.)"""
    wrong = []
    count = 0
    for order in orders:
        if order.status not in LIVES or order.status == OrderStatus.PENDING_PAYMENT or _waits_for_capture(order):
            continue
        count += 1
        kept, price = order.captured - order.refunded, _price(order)
        returned = any(line.returned for line in order.lines)
        if not (0 <= kept <= price if returned else kept == price):
            told = f"{_money(kept, order.currency)} were kept of order {order.order_id}"
            wrong.append(f"{told}, which costs {_money(price, order.currency)}")
    return Check("What was kept is what was sold", f"{count:,} orders", wrong)


def _waits_for_capture(order: Order) -> bool:
    """Money of which only a part was taken yet, because only a part was shipped."""
    return any(payment.status == "authorized" or payment.capturing for payment in order.payments)


def _price(order: Order) -> int:
    units = sum(_share(line.paid, line.cancelled, line.quantity) for line in order.lines)
    goodwill = sum(refund.amount for refund in order.refunds if refund.kept and refund.counts)
    return order.totals.total - units - goodwill


def _share(amount: int, units: int, quantity: int) -> int:
    """What so many of `quantity` units are worth, half up."""
    return (2 * amount * units + quantity) // (2 * quantity)


# Goods


def _stock(levels: Mapping[str, StockLevel], moves: Iterable[StockMoved]) -> Check:
    """Per SKU: what is there is what was put there, less what was lost or written off."""
    put: Counter[str] = Counter()
    for move in moves:
        if move.kind == "adjusted":
            put[f"{move.sku}#{move.pool}"] += move.quantity
        elif move.kind in ("lost", "written_off"):
            put[f"{move.sku}#{move.pool}"] -= move.quantity
    wrong = [f"{key} has a negative count: {level}" for key, level in levels.items() if _negative(level)]
    for key in sorted({*put, *levels}):
        level = levels.get(key)
        found = 0 if level is None else level.on_hand + level.reserved + level.shipped
        if found != put[key]:
            wrong.append(f"{key}: {put[key]:,} units were put there, {found:,} are accounted for")
    facts = ", ".join(
        f"{sum(getattr(level, name) for level in levels.values()):,} {name.replace('_', ' ')}"
        for name in ("on_hand", "reserved", "shipped")
    )
    return Check("Stock adds up, for every SKU", facts, wrong)


def _negative(level: StockLevel) -> bool:
    return min(level.on_hand, level.reserved, level.shipped) < 0


def _reserved(orders: list[Order], levels: Mapping[str, StockLevel]) -> Check:
    """Per SKU: what is reserved is what orders have still to ship. What may be back-ordered may wait."""
    held: Counter[str] = Counter()
    may_wait: Counter[str] = Counter()
    for order in orders:
        for line in order.lines if order.status in LIVES else ():
            held[line.sku] += line.to_ship
            may_wait[line.sku] += line.to_ship if line.backorder else 0
    reserved: Counter[str] = Counter()
    for level in levels.values():
        reserved[level.sku] += level.reserved
    wrong = [
        f"{sku}: {reserved[sku]} are reserved, orders hold {held[sku]}"
        for sku in sorted(reserved | held)
        if not held[sku] - may_wait[sku] <= reserved[sku] <= held[sku]
    ]
    return Check("Reserved is what orders wait for", f"{reserved.total():,} units", wrong)


def _moved(orders: list[Order], moves: Iterable[StockMoved], left_late: Collection[str]) -> Check:
    """Per SKU: what left and what came back is what the orders' parcels and returns held. Cancelled units that left all
    the same are a person's concern; they may be booked or not."""
    booked: dict[str, Counter[str]] = {"left": Counter(), "came back": Counter()}
    for move in moves:
        if move.kind == "committed":
            booked["left"][move.sku] += move.quantity
        elif move.kind in ("restocked", "written_off"):
            booked["came back"][move.sku] += move.quantity
    told: dict[str, Counter[str]] = {"left": Counter(), "came back": Counter()}
    late: Counter[str] = Counter()
    for order in orders:
        for shipment in order.shipments:
            for held in shipment.lines if shipment.shipped_at else ():
                told["left"][held.sku] += held.quantity
                told["came back"][held.sku] += held.quantity if shipment.status == "returned" else 0
        for item in _inspected(order.returns):
            told["came back"][item.sku] += item.quantity
        for line in order.lines if order.order_id in left_late else ():
            late[line.sku] += line.quantity
    wrong = [
        f"{sku}: {booked[way][sku]} units {way} by the books of stock, {told[way][sku]} by the orders"
        for way in booked
        for sku in sorted(booked[way] | told[way])
        if not told[way][sku] <= booked[way][sku] <= told[way][sku] + late[sku]
    ]
    facts = f"{booked['left'].total():,} units left, {booked['came back'].total():,} came back"
    return Check("Goods moved: stock = parcels and returns", facts, wrong)


def _inspected(returns: Iterable[Return]) -> Iterator[Any]:
    for one in returns:
        if one.status in RECEIVED:
            yield from one.items


# Promotions


def _uses(orders: list[Order], promotions: Mapping[str, PromotionLevel]) -> Check:
    """Per code: it is used as often as orders have it (one that takes nothing off may or may not be), and never more
    often than its limit."""
    least: Counter[str] = Counter()
    most: Counter[str] = Counter()
    for order in orders:
        for applied in order.promotions if order.status in LIVES else ():
            most[applied.terms.code] += 1
            least[applied.terms.code] += applied.amount > 0
    wrong = []
    for code in sorted({*promotions, *most}):
        level = promotions.get(code)
        used = 0 if level is None else level.used
        if not least[code] <= used <= most[code]:
            wrong.append(f"{code}: used {used} times, {most[code]} orders have it")
        if level is not None and level.limit is not None and used > level.limit:
            wrong.append(f"{code}: used {used} times, its limit is {level.limit}")
    used = sum(level.used for level in promotions.values())
    return Check("Promotions: uses = orders that have them", f"{used:,} uses", wrong)


def _money(minor: int, currency: str) -> str:
    return f"{minor} {currency} (minor units)"


def _refund(one: tuple[str, int, str]) -> str:
    attempt_id, amount, currency = one
    return f"{_money(amount, currency)}, attempt {attempt_id},"


# Reading


def read_books(settings: Settings) -> Books:
    """All the books as they are now."""
    levels = {key: message.data for key, message in _topic(settings, "inventory.levels")}
    moves = {message.id: message.data for _, message in _topic(settings, "inventory.events")}
    promotions = {key: message.data for key, message in _topic(settings, "promotion.levels")}
    left_late = frozenset(
        str(message.order_id)
        for _, message in _topic(settings, "exceptions")
        if isinstance(message.data, ExceptionOpened) and message.data.kind == LEFT_LATE
    )
    ledger = _ledger(settings.payment_url)
    return Books(_orders(settings), ledger, levels, list(moves.values()), promotions, left_late)


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


def _topic(settings: Settings, topic: str) -> Iterator[tuple[str, Any]]:
    """(key, message) of every committed record from the topic's beginning to its end."""
    consumer = kafka.consumer(settings, f"books-{uuid4()}", enable_partition_eof=True)
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
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
            yield record.key().decode(), codec.decode(record.value())
    finally:
        consumer.close()
