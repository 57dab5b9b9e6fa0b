"""`oms bench --mode views`: how fast the views are filled: by a sink that is behind, and by `oms rebuild`.

A broker and a ClickHouse alone, in a temporary folder; the topics hold whole lives of orders (`sandbox.past`), copied
under other order ids. First the sink reads all of it into every view, then rebuilds read it once more.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from clickhouse_connect.driver.client import Client
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from rich.console import Console
from rich.table import Table

from analytics.clickhouse import connect
from analytics.migrate import migrate
from processors.sinks import progress
from processors.sinks.views import VIEWS
from runtime import embedded_kafka, kafka, topology, topology_apply
from runtime.errors import UserError
from runtime.settings import Settings
from runtime.stack import free_port
from sandbox.bench_reads import answering
from sandbox.load import ended_children
from sandbox.past import Life, lives
from schemas.codec import encode

ORDERS = 30_000
LIVES = 1_000
"""So many are told; the others are copies."""
TOPICS = ("order.events", "order.states")
REBUILDS = (
    ("order_events",),
    ("order_events", "--processes", "2"),
    ("orders",),
    ("order_summaries", "customer_orders"),
    ("--all",),
)
"""What `oms rebuild` is given."""
_READ = re.compile(r"read ([\d,]+) messages in ([\d.]+) s")
_PATIENCE = 900.0


@dataclass(frozen=True, slots=True)
class Filled:
    """By whom; seconds until the last row was written; cpu: seconds of its processes, start and end among them."""

    what: str
    messages: int
    seconds: float
    cpu: float

    @property
    def per_second(self) -> float:
        return self.messages / self.seconds


def measure(console: Console, folder: Path, orders: int = ORDERS) -> list[Filled]:
    """The sink, then each rebuild.

    Raises:
        UserError: one of them did not get to the end.
    """
    with _parts(folder) as settings:
        console.print(f"[bold]Write the events and states of {orders:,} orders")
        written = _produce(settings, orders)
        console.print(f"{written:,} messages. The sink reads them into {len(VIEWS)} views …")
        found = [_sink(settings, folder, written)]
        for given in REBUILDS:
            console.print(f"oms rebuild {' '.join(given)} …")
            found.append(_rebuild(settings, folder, given))
        return found


def table(found: Sequence[Filled]) -> Table:
    shown = Table("who", "messages", "seconds", "messages/s", "CPU µs a message", title="Filling the views")
    for one in found:
        shown.add_row(
            one.what,
            f"{one.messages:,}",
            f"{one.seconds:.1f}",
            f"{one.per_second:,.0f}",
            f"{one.cpu / one.messages * 1e6:.0f}",
        )
    return shown


# What is read


def _produce(settings: Settings, orders: int) -> int:
    """Whole lives to the topics, an order's messages in their order; how many messages."""
    week = datetime.now(UTC) - timedelta(days=7)
    told = [_messages(life) for life in lives(min(orders, LIVES), seed=7, week=week)]
    producer = Producer({**settings.kafka_config(), "partitioner": "murmur2", "linger.ms": 50})
    count = 0
    for number in range(orders):
        order_id, messages = told[number % len(told)]
        own = f"{number:08x}{order_id[8:]}"
        before, after = order_id.encode(), own.encode()
        for topic, value, headers in messages:
            while True:
                try:
                    producer.produce(topic, key=own, value=value.replace(before, after), headers=headers)
                    break
                except BufferError:
                    producer.poll(0.1)
            count += 1
        producer.poll(0)
    producer.flush()
    return count


def _messages(life: Life) -> tuple[str, list[tuple[str, bytes, list[tuple[str, bytes]]]]]:
    """(order id, its messages: topic, value, headers)"""
    events = [("order.events", raw, kafka.headers(event)) for event, raw in life.events]
    states = [("order.states", encode(state), kafka.headers(state)) for state in life.states]
    return life.order.order_id, [*events, *states]


# Who reads it


def _sink(settings: Settings, folder: Path, messages: int) -> Filled:
    log = folder / "views.out"
    admin, before = kafka.admin(settings), ended_children()
    with _child(["runtime", "run", "views"], settings, log) as sink, closing(connect(settings)) as client:
        until = time.monotonic() + _PATIENCE
        began = None
        while left := _left(client, admin):
            if sink.poll() is not None or time.monotonic() > until:
                raise UserError(f"The sink did not get to the end: {_last_line(log)}")
            if began is None and left < messages:
                began, messages = time.monotonic(), left
            time.sleep(0.1)
        if began is None:
            raise UserError("The sink was done before one could look: there are too few orders.")
        seconds = time.monotonic() - began
    return Filled("the sink, every view", messages, seconds, ended_children() - before)


def _left(client: Client, admin: AdminClient) -> int:
    """Messages that not every view has."""
    left = 0
    for name in TOPICS:
        topic = progress.look_at(admin, name)
        reached = progress.starts(client, [view.name for view in VIEWS.values() if name in view.sources], topic)
        left += sum(end - reached[part] for part, (_, end) in topic.ends.items())
    return left


def _rebuild(settings: Settings, folder: Path, given: Sequence[str]) -> Filled:
    log = folder / "rebuild.out"
    before = ended_children()
    log.unlink(missing_ok=True)
    arguments = ["runtime", "rebuild", *given, "--force", "--data-dir", str(folder)]
    with _child(arguments, settings, log) as process:
        code = process.wait(_PATIENCE)
    said = _READ.search(log.read_text())
    if code or said is None:
        raise UserError(f"The rebuild did not get to the end: {_last_line(log)}")
    return Filled(
        f"oms rebuild {' '.join(given)}", int(said[1].replace(",", "")), float(said[2]), ended_children() - before
    )


# The processes


@contextmanager
def _parts(folder: Path) -> Iterator[Settings]:
    """A broker with the topics and a ClickHouse with the tables."""
    broker, engine = free_port(), free_port()
    settings = Settings(
        data_dir=folder, kafka_bootstrap=f"127.0.0.1:{broker}", clickhouse_url=f"http://127.0.0.1:{engine}"
    )

    def arguments(module: str, *first: str, port: int) -> list[str]:
        return [f"runtime.{module}", *first, "--data-dir", str(folder), "--port", str(port)]

    with (
        _child(arguments("embedded_kafka", "run", port=broker), settings, folder / "kafka.out"),
        _child(arguments("embedded_clickhouse", port=engine), settings, folder / "clickhouse.out"),
    ):
        embedded_kafka.wait_until_answers(settings.kafka_bootstrap, 60)
        topology_apply.apply(settings, topology.load(), "embedded")
        with closing(answering(settings)) as client:
            migrate(client)
        yield settings


@contextmanager
def _child(arguments: list[str], settings: Settings, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours, its output in a file; ended with the block."""
    environment = {
        "OMS_DATA_DIR": str(settings.data_dir),
        "OMS_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
        "OMS_CLICKHOUSE_URL": settings.clickhouse_url,
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments], stdout=output, stderr=output, env={**os.environ, **environment}
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _last_line(log: Path) -> str:
    return (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
