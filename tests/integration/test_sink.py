"""The sink on a real broker and the real engine: whatever is killed, repeated or doubled, every view and every KPI is
what an independent fold of the topics gives (tests/support/view_fold.py, kpi_fold.py)."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from processors.sinks.views import VIEWS
from runtime import kafka, topology, topology_apply
from runtime.errors import EXIT_CODE
from schemas.codec import decode, encode
from schemas.operations import DeadLettered
from tests.support.forgetful import forgetful
from tests.support.parts import ROOT, child, kafka_broker, oms_run, until
from tests.support.sink_world import TABLES, World

AWAY = float(os.environ.get("OMS_AWAY_SECONDS", "3"))
"""How long ClickHouse is away; `make chaos` has it away for a minute."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("sink")
    with kafka_broker(folder / "broker") as settings:
        found = World(settings, folder)
        with found.running:
            yield found


# The tests go on from each other: one broker, one set of views, more and more orders.


def test_views_are_what_was_written(world: World) -> None:
    with world.sink() as sink:
        world.write(60)
        world.wait_until_complete()
        world.check()
        assert [table for table in TABLES if not world.rows([table])] == [], "each is played with below"
        until(lambda: world.facts().get("lag") == 0, "no lag")
        assert world.facts()["state"] == "ready"
        assert sink.stop() < 5
        assert sink.exit_code == 0


def test_started_again_it_goes_on_where_it_was(world: World) -> None:
    read = world.facts()["rows"]
    before = world.rows()
    with world.sink():
        world.write(3)
        world.wait_until_complete()
        world.check()
        # Nothing was read again: a portion of the world's messages, and not what was there before.
        assert world.rows() - before < before / 2
        until(lambda: 0 < world.facts().get("rows", 0) < read / 2, "only new rows were written")


CRASHES = """
import os, signal, sys
from processors.sinks import later, sink, tables
from runtime import logs
from runtime.settings import settings

later.WAIT = 0.05
insert = tables.Tables.insert
killed = lambda: os.kill(os.getpid(), signal.SIGKILL)


def dying(point):
    "Kill this process before or after the nth insert into a table."
    table, nth, when = point
    seen = 0

    def crash(self, into, columns, rows):
        nonlocal seen
        seen += into == table
        here = into == table and seen == nth
        if here and when == "before":
            killed()
        insert(self, into, columns, rows)
        if here:
            killed()

    tables.Tables.insert = crash
    sink.run(settings(), "views")


logs.configure("views")
for point in eval(sys.argv[1]):
    # All that takes long to import is there already.
    if (pid := os.fork()) == 0:
        dying(point)
        os._exit(0)
    print(point, os.waitpid(pid, 0)[1], flush=True)
"""


def test_killed_before_and_after_each_insert_and_whole_batches_replayed(world: World) -> None:
    """Each time it begins at the beginning, because no view's progress is on record before the last insert of all."""
    with stopped_merges(world):
        world.write(12)
        with world.client() as client:
            client.command("TRUNCATE TABLE oms.sink_progress")
        before = world.rows()
        (world.folder / "crashes.py").write_text(CRASHES)
        environment = {
            "PYTHONPATH": f"{ROOT}{os.pathsep}{world.folder}",
            "OMS_DATA_DIR": str(world.folder),
            "OMS_KAFKA_BOOTSTRAP": world.settings.kafka_bootstrap,
            "OMS_CLICKHOUSE_URL": world.settings.clickhouse_url,
        }
        prompt = [view.table for view in VIEWS.values() if not view.relaxed]
        relaxed = [view.table for view in VIEWS.values() if view.relaxed]
        tables = [*((t, 1) for t in prompt), ("oms.sink_progress", 1), *((t, 1) for t in relaxed)]
        points = [(*table, when) for table in [*tables, ("oms.sink_progress", 2)] for when in ("before", "after")]
        with child(["crashes", repr(points)], world.folder / "crashes.out", **environment) as dying:
            until(lambda: dying.exit_code is not None, "every crash has happened", 120)
        said = dying.log.read_text()
        assert all(f"{point} {signal.SIGKILL.value}\n" in said for point in points), said[-2000:]
        assert world.rows() > 5 * before, "the same rows were written again and again"
        with world.sink():
            world.write(3)
            world.wait_until_complete()
            world.check()


@contextmanager
def stopped_merges(world: World) -> Iterator[None]:
    """Merges would take repeated rows away before they are looked at."""
    for what in ("STOP", "START"):
        with world.client() as client:
            for table in TABLES:
                client.command(f"SYSTEM {what} MERGES {table}")
        if what == "STOP":
            yield


def test_clickhouse_killed_and_started_again(world: World) -> None:
    with world.sink() as sink:
        world.engine.kill()
        world.write(12)
        until(lambda: world.facts()["state"] == "degraded", "it says that it is degraded")
        time.sleep(AWAY)
        assert sink.exit_code is None
        world.engine.start()
        until(lambda: world.facts()["state"] == "ready", "it is ready again")
        world.wait_until_complete()
        world.check()


def test_inserts_that_are_applied_and_not_answered(world: World) -> None:
    with forgetful(world.engine.url) as proxy, world.sink(OMS_CLICKHOUSE_URL=proxy.url) as sink:
        for lost in (1, 4, 9):
            proxy.to_forget = lost
            world.write(6)
            until(lambda: proxy.to_forget == 0, "the answers are lost", 60)
        world.wait_until_complete()
        world.check()
        assert proxy.forgotten == 14
        assert sink.exit_code is None


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
        world.tell_raw(topic, f"poison-{number}", value, [("correlation_id", b"who")])
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


def test_more_sinks_than_there_should_be(world: World, tmp_path: Path) -> None:
    """Two slots share the partitions out and take them from each other; a third sink, of another group, fills the same
    tables besides. One of them is killed in the middle of it, one is frozen for a while."""
    other_group = {"OMS_CLICKHOUSE_REPLICA_URL": world.engine.url}
    with world.sink() as first, world.sink("views-replica", **other_group):
        world.write(6)
        second = {"OMS_CLICKHOUSE_URL": world.engine.url, "OMS_KEY_STORE": str(world.settings.key_store_path)}
        with oms_run("views", world.settings, tmp_path, slot=1, **second) as slot:
            world.write(6)
            first.signal(signal.SIGSTOP)
            world.write(6)
            slot.kill()
            first.signal(signal.SIGCONT)
            world.write(6)
        world.wait_until_complete()
        world.check()


def test_kafka_moves_partitions_in_the_middle_of_a_batch(world: World, tmp_path: Path) -> None:
    second = {"OMS_CLICKHOUSE_URL": world.engine.url, "OMS_KEY_STORE": str(world.settings.key_store_path)}
    with world.sink() as first:
        for _ in range(3):
            world.write(4)
            with oms_run("views", world.settings, tmp_path, slot=1, **second):
                world.write(4)
        world.wait_until_complete()
        world.check()
        assert first.exit_code is None


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
        world.wait_until_complete()
        world.check()
        with world.client() as client:
            assert client.query("SELECT count() FROM oms.order_events").result_rows == [(0,)]
            assert client.query("SELECT count() > 0 FROM oms.orders").result_rows == [(True,)]
