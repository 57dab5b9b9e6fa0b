"""The sink on a real broker and the real engine: whatever is killed, the views are what the messages say."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from analytics import kpis
from analytics.clickhouse import connect
from processors.sinks.rows import micros
from processors.sinks.views import VIEWS
from runtime import health, kafka, topology, topology_apply
from runtime.errors import EXIT_CODE
from runtime.keystore import vault
from runtime.settings import Settings
from runtime.stack import free_port
from schemas.address import Address
from schemas.codec import decode, encode
from schemas.operations import DeadLettered
from schemas.order import Order
from tests.support.histories import History
from tests.support.parts import ROOT, Child, child, kafka_broker, oms_run, until

TABLES = tuple(view.table for view in VIEWS.values())


class World:
    """A broker, an engine that can be killed, and every history that was written."""

    def __init__(self, settings: Settings, port: int, folder: Path) -> None:
        self.settings = settings.model_copy(update={"clickhouse_url": f"http://127.0.0.1:{port}", "data_dir": folder})
        self.folder = folder
        self.port = port
        self.histories: list[History] = []
        self.vault = vault(self.settings)
        self.producer = kafka.producer(settings)
        self.running = ExitStack()
        self.engine = self.start_engine()

    def start_engine(self) -> Child:
        arguments = ["runtime.embedded_clickhouse", "--data-dir", str(self.folder), "--port", str(self.port)]
        self.engine = self.running.enter_context(child(arguments, self.folder / "clickhouse.out"))
        return self.engine

    def client(self) -> Client:
        return connect(self.settings)

    def address(self, customer: str, city: str) -> Address:
        sealed = self.vault.seal(customer, {"name": f"Person {customer}", "street_address": "Way 1", "city": city})
        return Address(sealed=sealed, postal_code="10115", country="DE")

    def write(self, count: int) -> list[History]:
        """Whole lives of orders, interleaved."""
        fresh = []
        for number in range(len(self.histories), len(self.histories) + count):
            story = History(f"o{number}", str(number % 7), ("EUR", "JPY")[number % 2], 1000 + number)
            story.created(number, self.address(story.customer, f"City {number}")).submitted(number + 1)
            if number % 3 == 0:
                story.cancelled(number + 2, "out_of_stock")
            elif number % 3 == 1:
                story.payment_requested(number + 1).paid(number + 3)
            fresh.append(story)
        for version in range(4):
            for story in fresh:
                if version < len(story.events):
                    for topic, message in (
                        ("order.events", story.events[version]),
                        ("order.states", story.states[version]),
                    ):
                        self.producer.produce(
                            topic, key=story.order_id, value=encode(message), headers=kafka.headers(message)
                        )
        assert self.producer.flush(20) == 0
        self.histories += fresh
        return fresh

    @contextmanager
    def sink(self, **environment: str) -> Iterator[Child]:
        with oms_run(
            "views", self.settings, self.folder, OMS_CLICKHOUSE_URL=self.settings.clickhouse_url, **environment
        ) as running:
            yield running

    def facts(self) -> dict[str, Any]:
        report = health.read(self.folder, "views", 0)
        return {} if report is None else {"state": report["state"], **report["facts"]}

    def wait_until_complete(self) -> None:
        """Until the newest order is visible at its last version everywhere: order is kept only within a partition,
        so all of them are asked."""
        events = sum(len(story.events) for story in self.histories)
        versions = sum(story.order.version for story in self.histories)

        def complete() -> bool:
            with self.client() as client:
                return client.query(
                    "SELECT (SELECT count() FROM oms.order_events FINAL), (SELECT sum(version) FROM oms.orders FINAL),"
                    " (SELECT sum(version) FROM oms.customer_orders FINAL),"
                    " (SELECT sum(version) FROM personal.addresses FINAL),"
                    " (SELECT sum(version) FROM oms.order_lines FINAL), (SELECT count() FROM oms.audit FINAL)"
                ).result_rows == [(events, versions, versions, 2 * versions, versions, events)]

        until(complete, "the views are complete", 30)

    def check(self) -> None:
        """Every view against what was written, each row and column, without the sink's own code."""
        with self.client() as client:
            events = client.query(
                "SELECT order_id, version, id, type, toUnixTimestamp64Micro(occurred_at), actor, correlation_id,"
                " causation_id, previous_hash FROM oms.order_events FINAL ORDER BY order_id, version"
            ).result_rows
            orders = client.query("SELECT order_id, status, total, document FROM oms.orders FINAL").result_rows
            history = client.query(
                "SELECT customer_id, order_id, version, status, currency, total, skus, cancellation_reason"
                " FROM oms.customer_orders FINAL ORDER BY order_id"
            ).result_rows
            cities = client.query(
                "SELECT order_id, kind, name, city FROM personal.addresses FINAL ORDER BY order_id, kind"
            ).result_rows
            broken = client.query(
                "SELECT count() FROM (SELECT previous_hash, lagInFrame(hash, 1, '') OVER (PARTITION BY order_id"
                " ORDER BY version ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING) AS before"
                " FROM oms.order_events FINAL) WHERE previous_hash != before"
            ).result_rows
        stories = sorted(self.histories, key=lambda story: story.order_id)
        assert events == [
            (
                e.order_id,
                e.version,
                e.id,
                type(e.data).__name__,
                micros(e.occurred_at),
                e.actor,
                e.correlation_id,
                e.causation_id,
                e.previous_hash,
            )
            for story in stories
            for e in story.events
        ]
        assert broken == [(0,)]
        assert {row[0]: Order.model_validate_json(row[3]) for row in orders} == {s.order_id: s.order for s in stories}
        assert all(row[1:3] == (s.order.status, s.total) for row, s in zip(sorted(orders), stories, strict=True))
        assert history == [
            (
                s.customer,
                s.order_id,
                len(s.events),
                s.order.status,
                s.currency,
                s.total,
                ["MUG"],
                "out_of_stock" if s.order.cancellation else "",
            )
            for s in stories
        ]
        assert cities == [
            (s.order_id, kind, f"Person {s.customer}", f"City {s.name[1:]}")
            for s in stories
            for kind in ("billing", "shipping")
        ]

    def kpis(self) -> dict[str, Any]:
        with self.client() as client:
            return {name: kpis.run(client, name) for name in kpis.ORDER}

    def rows(self) -> int:
        """Rows that lie in the views, replaced ones too."""
        with self.client() as client:
            return sum(client.query(f"SELECT count() FROM {table}").result_rows[0][0] for table in TABLES)  # noqa: S608


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("sink")
    with kafka_broker(folder / "broker") as settings:
        found = World(settings, free_port(), folder)
        with found.running:
            yield found


# The tests go on from each other: one broker, one set of views, more and more orders.


def test_views_are_what_was_written(world: World) -> None:
    with world.sink() as sink:
        world.write(60)
        world.wait_until_complete()
        world.check()
        until(lambda: world.facts().get("lag") == 0, "no lag")
        assert world.facts()["state"] == "ready"
        assert sink.stop() < 5
        assert sink.exit_code == 0


def test_started_again_it_goes_on_where_it_was(world: World) -> None:
    before = world.rows()
    fresh = world.write(3)
    with world.sink():
        world.wait_until_complete()
        world.check()
        # Nothing was read again: the new events, and at most a row per new state in each of the other views.
        most = sum(2 * len(story.events) + 7 * len(story.states) for story in fresh)
        assert world.rows() - before <= most


DIES_BEFORE_PROGRESS = """
import os, signal
from processors.sinks import sink
from runtime import logs
from runtime.settings import settings

sink.Sink._insert_progress = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
logs.configure("views")
sink.run(settings(), "views")
"""


def test_killed_between_rows_and_progress(world: World) -> None:
    world.write(60)
    # Its first batch begins at the beginning: rows that have been there for long are written again, and new ones.
    with world.client() as client:
        client.command("TRUNCATE TABLE oms.sink_progress")
        for table in TABLES:
            client.command(f"SYSTEM STOP MERGES {table}")  # which would take repeated rows away before they are counted
    before = world.rows()
    (world.folder / "dies.py").write_text(DIES_BEFORE_PROGRESS)
    environment = {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{world.folder}",
        "OMS_DATA_DIR": str(world.folder),
        "OMS_KAFKA_BOOTSTRAP": world.settings.kafka_bootstrap,
        "OMS_CLICKHOUSE_URL": world.settings.clickhouse_url,
    }
    with child(["dies"], world.folder / "dies.out", **environment) as dying:
        until(lambda: dying.exit_code is not None, "it died", 30)
        assert dying.exit_code == -signal.SIGKILL, dying.tail()
    written = world.rows()
    assert written > before
    with world.client() as client:
        assert client.query("SELECT count() FROM oms.sink_progress").result_rows == [(0,)]
    with world.sink():
        until(lambda: world.rows() > written, "it reads the same again")
        world.wait_until_complete()
        until(lambda: world.facts().get("lag") == 0, "no lag")
        world.check()
        found = world.kpis()
    with world.client() as client:
        for table in TABLES:
            client.command(f"SYSTEM START MERGES {table}")
    paid = [story for story in world.histories if story.order.captured]
    euros = sum(story.total for story in paid if story.currency == "EUR")
    cancelled = sum(story.order.cancellation is not None for story in world.histories)
    assert found["orders_created"][0]["orders"] == found["completion"][0]["submitted"] == len(world.histories)
    assert found["completion"][0]["paid"] == len(paid)
    assert found["cancellations_by_reason"] == [{"reason": "out_of_stock", "orders": cancelled, "share": 1.0}]
    revenue = {row["currency"]: row["revenue"]["amount"] for row in found["average_order_value"]}
    assert revenue["EUR"] == f"{euros / 100:.2f}"
    assert sum(row["orders"] for row in found["active_orders"]) == len(world.histories) - cancelled


def test_clickhouse_killed_and_started_again(world: World) -> None:
    with world.sink() as sink:
        world.engine.kill()
        world.write(30)
        until(lambda: world.facts()["state"] == "degraded", "it says that it is degraded")
        assert sink.exit_code is None
        world.start_engine()
        until(lambda: world.facts()["state"] == "ready", "it is ready again")
        world.wait_until_complete()
        world.check()


def test_poison_is_buried_whole_and_the_rest_flows(world: World) -> None:
    event, state = world.histories[0].events[0], world.histories[0].states[0]
    unmakeable = encode(event.model_copy(update={"version": 0}))
    poison = [
        ("order.events", b"nothing of ours", "undecodable"),
        ("order.events", None, "undecodable"),
        ("order.events", encode(event)[:-3], "undecodable"),
        ("order.events", unmakeable, "failed"),
        ("order.events", encode(state), "failed"),
        ("order.states", b"\x00\x00\x00\x00\x07x", "undecodable"),
        ("order.states", encode(event), "failed"),
    ]
    for number, (topic, value, _) in enumerate(poison):
        world.producer.produce(topic, key=f"poison-{number}", value=value, headers=[("correlation_id", b"who")])
    world.write(9)
    with world.sink():
        world.wait_until_complete()
        world.check()
        until(lambda: world.facts().get("dead_letters") == len(poison), "all are buried")
        until(lambda: world.facts().get("lag") == 0, "no lag")
    letters = {letter.key: letter for letter in dead_letters(world)}
    for number, (topic, value, reason) in enumerate(poison):
        letter = letters[f"poison-{number}".encode()]
        assert (letter.processor, letter.topic, letter.value, letter.reason) == ("views", topic, value, reason)
        assert [(h.name, h.value) for h in letter.headers] == [("correlation_id", b"who")]
        assert letter.error
    assert len(letters) == len(poison)


def dead_letters(world: World) -> list[DeadLettered]:
    reader = kafka.consumer(world.settings, "test-letters", enable_partition_eof=True)
    partitions = set(reader.list_topics("dead.letters", timeout=20).topics["dead.letters"].partitions)
    reader.assign([TopicPartition("dead.letters", p, 0) for p in partitions])
    found = []
    try:
        while partitions:
            record = reader.poll(20)
            assert record is not None
            if record.error() is not None:
                partitions.discard(record.partition())
                continue
            data = decode(record.value()).data
            assert isinstance(data, DeadLettered)
            found.append(data)
    finally:
        reader.close()
    return found


def test_a_zombie_writes_nothing_new(world: World) -> None:
    with world.sink() as zombie:
        zombie.signal(signal.SIGSTOP)
        try:
            world.write(6)
            with world.sink() as heir:
                world.wait_until_complete()
                with world.client() as client:
                    progress = client.query("SELECT * EXCEPT at FROM oms.sink_progress FINAL ORDER BY ALL").result_rows
                zombie.signal(signal.SIGCONT)
                # Its slot is taken: it is told so, and ends.
                until(lambda: zombie.exit_code is not None, "the zombie ended", 30)
                assert zombie.exit_code != 0
                assert heir.exit_code is None
                world.check()
                with world.client() as client:
                    after = client.query("SELECT * EXCEPT at FROM oms.sink_progress FINAL ORDER BY ALL").result_rows
                assert after == progress
        finally:
            zombie.signal(signal.SIGCONT)


def refuses(world: World) -> str:
    """What a sink says that must not start."""
    with child(
        ["runtime", "run", "views"],
        world.folder / "refuses.out",
        OMS_DATA_DIR=str(world.folder),
        OMS_KAFKA_BOOTSTRAP=world.settings.kafka_bootstrap,
        OMS_CLICKHOUSE_URL=world.settings.clickhouse_url,
    ) as sink:
        until(lambda: sink.exit_code is not None, "it ended", 30)
        assert sink.exit_code == EXIT_CODE, sink.tail()
    facts = world.facts()
    assert facts["state"] == "failed"
    return str(facts["error"])


def test_progress_beyond_the_topics_end_is_refused(world: World) -> None:
    admin = AdminClient({"bootstrap.servers": world.settings.kafka_bootstrap})
    part = TopicPartition("order.states", 0)
    end = admin.list_offsets({part: OffsetSpec.latest()})[part].result().offset
    with world.client() as client:
        ids = client.query("SELECT any(topic_id) FROM oms.sink_progress WHERE topic = 'order.states'").result_rows
        row = ["orders", "order.states", ids[0][0], 0, end + 10]
        names = ["view", "topic", "topic_id", "partition", "offset"]
        client.insert("sink_progress", [row], column_names=names, database="oms")
        sentence = refuses(world)
        assert f"orders has read order.states up to offset {end + 10} of partition 0" in sentence
        assert f"ends at {end}" in sentence
        client.command("DELETE FROM oms.sink_progress WHERE view = 'orders'")


def test_another_topic_of_that_name_is_refused(world: World) -> None:
    admin = AdminClient({"bootstrap.servers": world.settings.kafka_bootstrap})
    admin.delete_topics(["order.events"])["order.events"].result(20)
    until(lambda: "order.events" not in admin.list_topics(timeout=10).topics, "the topic is gone")
    topology_apply.apply(world.settings, topology.load(), "embedded")
    assert "filled from another topic order.events" in refuses(world)
    # As docs/analytics.md says under "Starting over".
    with world.client() as client:
        for table in (*TABLES, "oms.sink_progress"):
            client.command(f"TRUNCATE TABLE {table}")
    with world.sink():
        versions = sum(story.order.version for story in world.histories)
        with world.client() as client:
            query = "SELECT sum(version) FROM oms.orders FINAL"
            until(lambda: client.query(query).result_rows == [(versions,)], "states are there again")
            assert client.query("SELECT count() FROM oms.order_events").result_rows == [(0,)]
        world.histories.clear()
