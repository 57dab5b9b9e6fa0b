"""A loyalty programme: the example of a service that lives downstream of OMS.

    python examples/loyalty.py --bootstrap 127.0.0.1:9092 --registry http://127.0.0.1:8080 --database loyalty.sqlite
    python examples/loyalty.py --database loyalty.sqlite --show CUSTOMER

It knows OMS by its public contract alone (docs/events.md): the topic `order.events`, schemas from the registry's paths,
and a stock Avro deserializer; it imports nothing of ours. One point for each whole unit of currency that a delivered
order has cost, taken back as money goes back.

Exactly once in effect: points, what is known of an order and the offset are written in one SQLite transaction, and
after a crash the consumer goes on at the offset in the database. An event that comes twice (its version is not above
the order's) changes nothing, so that a replay of the whole topic gives the same points. History that was imported earns
points too: it was paid for.
"""

from __future__ import annotations

import argparse
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer
from confluent_kafka.serialization import MessageField, SerializationContext

TOPIC = "order.events"

SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    order_id    TEXT PRIMARY KEY,
    version     INTEGER NOT NULL,
    customer_id TEXT NOT NULL,
    paid        INTEGER NOT NULL DEFAULT 0,  -- minor units taken
    refunded    INTEGER NOT NULL DEFAULT 0,  -- minor units given back
    delivered   INTEGER NOT NULL DEFAULT 0,  -- 1 once it has arrived
    currency    TEXT NOT NULL,
    points      INTEGER NOT NULL DEFAULT 0   -- what the order is worth now
);
CREATE INDEX IF NOT EXISTS orders_by_customer ON orders (customer_id);
CREATE TABLE IF NOT EXISTS offsets (part INTEGER PRIMARY KEY, next INTEGER NOT NULL);
"""

WITHOUT_DECIMALS = {"JPY", "KRW", "VND", "CLP", "ISK"}


def points(paid: int, refunded: int, currency: str, delivered: bool) -> int:
    """What an order is worth: a point for each whole unit that the customer has paid and not got back, once the order
    was delivered."""
    if not delivered:
        return 0
    return max(0, paid - refunded) // (1 if currency in WITHOUT_DECIMALS else 100)


def apply(database: sqlite3.Connection, kind: str, event: Mapping[str, Any]) -> None:
    """Fold one event in. Events that mean nothing for loyalty only move the order's version."""
    data = event["data"]
    order = event["order_id"]
    if kind == "OrderCreated":
        database.execute(
            "INSERT OR IGNORE INTO orders (order_id, version, customer_id, currency) VALUES (?, ?, ?, ?)",
            (order, event["version"], data["customer_id"], data["currency"]),
        )
        return
    found = database.execute(
        "SELECT version, paid, refunded, delivered, currency FROM orders WHERE order_id = ?", (order,)
    ).fetchone()
    if found is None or event["version"] <= found[0]:
        return
    _, paid, refunded, delivered, currency = found
    match kind:
        case "OrderPaymentConfirmed" if not data["authorized"]:
            paid += data["amount"]
        case "OrderPaymentCaptured":
            paid += data["amount"]
        case "OrderEditCompleted" if data["provider_ref"]:
            paid += data["amount"]
        case "OrderRefundInitiated" if data["captured_late"]:
            paid += data["amount"]  # money that came when nobody waited for it any more, and goes back
        case "OrderRefundCompleted":
            refunded += data["amount"]
        case "OrderDelivered":
            delivered = 1
    database.execute(
        "UPDATE orders SET version = ?, paid = ?, refunded = ?, delivered = ?, points = ? WHERE order_id = ?",
        (event["version"], paid, refunded, delivered, points(paid, refunded, currency, bool(delivered)), order),
    )


def balance(database: sqlite3.Connection, customer_id: str) -> int:
    """The customer's points."""
    row = database.execute("SELECT sum(points) FROM orders WHERE customer_id = ?", (customer_id,)).fetchone()
    return int(row[0] or 0)


def opened(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    database.executescript("PRAGMA journal_mode = WAL;" + SCHEMA)
    return database


def run(database: sqlite3.Connection, bootstrap: str, registry: str, stop: Callable[[], bool]) -> None:
    """Follow the topic until `stop` says so."""
    deserialize = AvroDeserializer(SchemaRegistryClient({"url": registry}))
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "loyalty",
            # A static member: after a crash it goes on at once, not when the broker has given up its predecessor.
            "group.instance.id": "loyalty-0",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
        }
    )

    def begin(consumer: Consumer, partitions: list[TopicPartition]) -> None:
        known = dict(database.execute("SELECT part, next FROM offsets").fetchall())
        for partition in partitions:
            partition.offset = known.get(partition.partition, OFFSET_BEGINNING)
        consumer.assign(partitions)

    consumer.subscribe([TOPIC], on_assign=begin)
    try:
        while not stop():
            records = [record for record in consumer.consume(1_000, 0.5) if record.error() is None]
            if not records:
                continue
            database.execute("BEGIN IMMEDIATE")
            for record in records:
                # ce_type is oms.order.events.OrderDelivered, say; a tombstone or a type of tomorrow is passed by.
                headers = dict(record.headers() or [])
                kind = headers.get("ce_type", b"").decode().rsplit(".", 1)[-1]
                if record.value() is not None and kind:
                    event = deserialize(record.value(), SerializationContext(TOPIC, MessageField.VALUE))
                    apply(database, kind, event)
                database.execute(
                    "INSERT INTO offsets VALUES (?, ?) ON CONFLICT (part) DO UPDATE SET next = excluded.next",
                    (record.partition(), record.offset() + 1),
                )
            database.execute("COMMIT")
    finally:
        consumer.close()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bootstrap", default="127.0.0.1:9092")
    parser.add_argument("--registry", default="http://127.0.0.1:8080")
    parser.add_argument("--database", type=Path, default=Path("loyalty.sqlite"))
    parser.add_argument("--show", metavar="CUSTOMER", help="print a customer's points and exit")
    given = parser.parse_args(arguments)
    with closing(opened(given.database)) as database:
        if given.show is not None:
            print(balance(database, given.show))
            return 0
        stopping = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stopping.set())
        run(database, given.bootstrap, given.registry, stopping.is_set)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
