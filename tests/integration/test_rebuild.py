"""`oms rebuild` on a real broker and the real engine, with the sink and queries at work: whenever it is killed, the
views are what the topics say."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from processors.sinks import comparing, sharing
from processors.sinks.beside import Beside
from processors.sinks.views import VIEWS
from tests.support import view_fold
from tests.support.parts import ROOT, Child, child, kafka_broker, until
from tests.support.sink_world import World

SETTLED = 5.5
"""Seconds after which a row is so old that it must be in both tables (processors.sinks.rebuild.SLACK)."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("rebuild")
    with kafka_broker(folder / "broker") as settings:
        found = World(settings, folder)
        with found.running, found.sink():
            found.write(60)
            found.wait_until_complete()
            found.check()
            yield found


def environment(world: World) -> dict[str, str]:
    return {
        "OMS_DATA_DIR": str(world.folder),
        "OMS_KAFKA_BOOTSTRAP": world.settings.kafka_bootstrap,
        "OMS_CLICKHOUSE_URL": world.settings.clickhouse_url,
    }


def start(world: World, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "runtime", "rebuild", *arguments, "--data-dir", str(world.folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment(world)},
    )


def rebuild(world: World, *arguments: str, code: int = 0) -> str:
    """What it said."""
    running = start(world, *arguments)
    said, _ = running.communicate(timeout=120)
    assert running.returncode == code, said
    return said


def tables(world: World) -> dict[str, str]:
    """Of all that rebuilds make: their names with what they are marked with."""
    with world.client() as client:
        rows = client.query(
            "SELECT database || '.' || name, comment FROM system.tables WHERE database IN ('oms', 'personal')"
            " AND (comment != '' OR match(name, '__(new|old)$'))"
        ).result_rows
    return {str(name): str(comment) for name, comment in rows}


def traces(world: World) -> int:
    """What is on record of unfinished rebuilds."""
    with world.client() as client:
        found = client.query("SELECT count() FROM oms.sink_progress WHERE endsWith(view, '__new')").result_rows
    return int(found[0][0])


class Asking(threading.Thread):
    """Somebody who asks all the time for all orders; `fewest`: that any answer has had."""

    def __init__(self, world: World) -> None:
        super().__init__(daemon=True)
        self._world = world
        self.stopped = threading.Event()
        self.answers = 0
        self.fewest = 1_000_000
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            with self._world.client() as client:
                while not self.stopped.is_set():
                    ((events, orders),) = client.query(
                        "SELECT (SELECT uniqExact(order_id) FROM oms.order_events FINAL), count() FROM oms.orders FINAL"
                    ).result_rows
                    self.fewest = min(self.fewest, events, orders)
                    self.answers += 1
        except Exception as error:  # noqa: BLE001  (the test tells it)
            self.error = error


def test_a_new_table_is_as_the_live_one(world: World) -> None:
    """Also where `queries/new_tables.sql` repeats what a migration says."""
    made = "SELECT create_table_query FROM system.tables WHERE database || '.' || name = {name:String}"
    with world.client() as client:
        for view in VIEWS.values():
            side = Beside(client, view)
            side.begin()
            ((new,),) = client.query(made, {"name": side.new}).result_rows
            client.command(f"DROP TABLE {side.new}")
            ((live,),) = client.query(made, {"name": side.live}).result_rows
            assert new == f"{live} COMMENT 'rebuild'".replace(side.live, side.new)


def test_every_view_at_once_while_orders_come_in_and_queries_go_on(world: World) -> None:
    known = len({one.message.order_id for one in world.lying() if one.topic == "order.events" and one.message})
    asking = Asking(world)
    asking.start()
    running = start(world, "--all", "--processes", "2")
    while running.poll() is None:
        world.write(2)
        time.sleep(0.1)
    said = running.stdout.read() if running.stdout else ""
    asking.stopped.set()
    asking.join(30)
    assert running.returncode == 0, said
    for name, view in VIEWS.items():
        assert re.search(rf"^{name}: [\d,]+ rows, the same as in the live table", said, re.MULTILINE), said
        kept = "is gone, as it held personal data" if name == "personal" else f"is {view.table}__old"
        assert f"{name}: swapped; the old table {kept}" in said
    assert re.search(r"read [\d,]+ messages in [\d.]+ s", said)
    assert asking.error is None
    assert asking.answers > 5
    assert asking.fewest >= known
    world.write(3)
    world.wait_until_complete()
    world.check()
    assert tables(world) == {f"{view.table}__old": "" for view in VIEWS.values() if view.name != "personal"}
    assert traces(world) == 0
    assert "orders: oms.orders__old is dropped" in rebuild(world, "--drop-old", "--all")
    assert tables(world) == {}
    world.check()


CRASHES = """
import os, signal, sys
from pathlib import Path
from processors.sinks import beside, rebuild_cli, tables
from runtime.errors import UserError

step, insert, statement = 0, tables.Tables.insert, beside.Beside._command


def counted(action):
    def call(*arguments, **parameters):
        global step
        step += 1
        if step == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return action(*arguments, **parameters)

    return call


tables.Tables.insert, beside.Beside._command = counted(insert), counted(statement)
for last in range(1, 100, int(sys.argv[2])):
    if (pid := os.fork()) == 0:
        try:
            rebuild_cli.command(["orders", "stock_ledger"], data_dir=Path(sys.argv[1]))
        except UserError as error:
            print(error, flush=True)
            os._exit(1)
        os._exit(0)
    ended = os.waitpid(pid, 0)[1]
    print("step", last, "ended", ended, flush=True)
    if ended == 0:
        break
"""


def test_killed_before_each_statement_and_each_insert_it_is_taken_up_again(world: World) -> None:
    """The first run dies before its first step, the second before its second, …, until one gets to the end; without
    OMS_CHAOS the second before its fourth, the third before its seventh."""
    (world.folder / "crashes.py").write_text(CRASHES)
    path = {"PYTHONPATH": f"{ROOT}{os.pathsep}{world.folder}"}
    chaos = "OMS_CHAOS" in os.environ
    arguments = ["crashes", str(world.folder), "1" if chaos else "3"]
    with child(arguments, world.folder / "crashes.out", **environment(world), **path) as dying:
        while dying.exit_code is None:
            world.write(1)
            time.sleep(0.3)
    ended = re.findall(r"^step (\d+) ended (\d+)$", dying.log.read_text(), re.MULTILINE)
    assert [code for _, code in ended] == [str(signal.SIGKILL.value)] * (len(ended) - 1) + ["0"], dying.tail()
    assert len(ended) > (8 if chaos else 4)
    assert tables(world) == {"oms.orders__old": "", "oms.stock_ledger__old": ""}
    assert traces(world) == 0
    world.wait_until_complete()
    world.check()
    rebuild(world, "--drop-old", "orders", "stock_ledger")


def test_a_table_that_is_not_the_same_is_not_swapped_in(world: World) -> None:
    gone, changed = world.histories[0].order_id, world.histories[1].order_id
    with world.client() as client:
        client.command("DELETE FROM oms.orders WHERE order_id = {id:String}", parameters={"id": gone})
        client.command(
            "INSERT INTO oms.orders SELECT * REPLACE ('LOST' AS status, total + 1 AS total) FROM oms.orders FINAL"
            " WHERE order_id = {id:String}",
            parameters={"id": changed},
        )
        client.command(
            "INSERT INTO oms.orders SELECT * REPLACE ('nobody' AS order_id)"
            " FROM (SELECT * FROM oms.orders FINAL WHERE order_id = {id:String})",
            parameters={"id": changed},
        )
    time.sleep(SETTLED)
    said = rebuild(world, "orders", "refunds", code=1)
    assert f'1 rows differ in status, total, such as "{changed}"' in said
    assert '1 rows are in oms.orders only, such as "nobody"' in said
    assert f'1 rows are in oms.orders__new only, such as "{gone}"' in said
    assert "It was not swapped" in said
    assert "refunds: swapped" in said
    assert tables(world) == {"oms.orders__new": "rebuild", "oms.refunds__old": ""}
    with pytest.raises(AssertionError), world.client() as client:
        view_fold.assert_equal(client, view_fold.Fold(world.lying(), world.vault.open).views())
    assert "not compared, as you wish" in rebuild(world, "orders", "--force")
    world.wait_until_complete()
    world.check()
    rebuild(world, "--drop-old", "orders", "refunds")


@pytest.mark.parametrize("name", VIEWS)
def test_rows_that_are_the_same_are_found_to_be(world: World, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In whatever bucket: a row that is not the same makes those that share its bucket suspect too."""
    monkeypatch.setattr(comparing, "_BUCKETS", 1)
    view, copy = VIEWS[name], f"{VIEWS[name].table}__copy"
    with world.client() as client:
        client.command(f"CREATE TABLE {copy} AS {view.table}")
        client.command(f"INSERT INTO {copy} SELECT * FROM {view.table}")  # noqa: S608  (names of our own)
        assert comparing.Comparison(client, view, copy).differences([0], before=0) == []
        client.command(f"DROP TABLE {copy}")


def test_columns_that_a_migration_has_added_are_filled(world: World) -> None:
    with world.client() as client:
        client.command("ALTER TABLE oms.customer_orders DROP COLUMN names, DROP COLUMN paid_at, DROP COLUMN units")
        client.command(
            "ALTER TABLE oms.customer_orders ADD COLUMN names Array(String) CODEC(ZSTD), ADD COLUMN units UInt32,"
            " ADD COLUMN paid_at Nullable(DateTime64(6, 'UTC'))"
        )
    time.sleep(SETTLED)
    said = rebuild(world, "customer_orders")
    assert "not compared, because empty in the live table, as a migration leaves them: names, paid_at, units" in said
    world.wait_until_complete()
    world.check()
    rebuild(world, "--drop-old", "customer_orders")


@pytest.mark.long
def test_a_table_that_a_migration_has_made_is_taken(world: World) -> None:
    """As it does where the key of a table is to be another one."""
    with world.client() as client:
        client.command(
            "CREATE TABLE oms.stock__new AS oms.stock ENGINE = ReplacingMergeTree(version) ORDER BY (pool, sku)"
        )
        rebuild(world, "stock")
        keys = client.query(
            "SELECT sorting_key FROM system.tables WHERE database = 'oms' AND name = 'stock'"
        ).result_rows
        assert keys == [("pool, sku",)]
    world.check()
    rebuild(world, "--drop-old", "stock")


def test_who_was_forgotten_is_not_brought_back(world: World) -> None:
    forget(world, "3")
    assert "personal: swapped" in rebuild(world, "personal")
    world.wait_until_complete()
    world.check()
    assert "Person 3" not in persons(world)
    assert "Person 4" in persons(world)


DIES_BEFORE_THE_SWAP = """
import os, signal, sys
from pathlib import Path
from processors.sinks import beside, rebuild_cli

beside.Beside.swap = lambda side: os.kill(os.getpid(), signal.SIGKILL)
rebuild_cli.command(["personal"], data_dir=Path(sys.argv[1]))
"""


def test_who_is_forgotten_in_the_middle_of_a_rebuild_is_not_brought_back_either(world: World) -> None:
    """It has read the envelopes already, and goes on when the keys are gone."""
    world.write(8)
    world.wait_until_complete()
    (world.folder / "dies.py").write_text(DIES_BEFORE_THE_SWAP)
    path = {"PYTHONPATH": f"{ROOT}{os.pathsep}{world.folder}"}
    with child(["dies", str(world.folder)], world.folder / "dies.out", **environment(world), **path) as dying:
        until(lambda: dying.exit_code is not None, "it died", 60)
        assert dying.exit_code == -signal.SIGKILL, dying.tail()
    assert tables(world) == {"personal.addresses__new": "rebuild"}
    forget(world, "4")
    time.sleep(SETTLED)
    assert "rows are in personal.addresses__new only" in rebuild(world, "personal", code=1)
    rebuild(world, "personal", "--afresh")
    world.wait_until_complete()
    world.check()
    assert "Person 4" not in persons(world)
    assert tables(world) == {}


def forget(world: World, customer: str) -> None:
    """As docs/analytics.md says."""
    assert world.vault.erase(customer)
    with world.client() as client:
        client.command("DELETE FROM personal.addresses WHERE customer_id = {id:String}", parameters={"id": customer})


def persons(world: World) -> set[str]:
    with world.client() as client:
        return {str(name) for (name,) in client.query("SELECT DISTINCT name FROM personal.addresses").result_rows}


def test_several_processes_fill_what_one_does(world: World) -> None:
    names = ["order_events", "orders"]
    for key in "abc":
        world.tell_raw("order.events", f"poison-{key}", b"no message", [])
    filled = []
    for processes in ("1", "2"):
        said = rebuild(world, *names, "--force", "--processes", processes)
        counts = re.findall(r"^(?:read )?([\d,]+) (?:messages in|of them can't be rows)", said, re.MULTILINE)
        with world.client() as client:
            filled.append((counts, [view_fold.found(client, name) for name in names]))
            for name in names:
                Beside(client, VIEWS[name]).drop_old()
    assert filled[0] == filled[1]
    assert filled[0][0][1:] == ["3"]


def test_the_partitions_are_dealt_out(world: World) -> None:
    starts = {("a", 0): 0, ("a", 1): 5, ("b", 0): 30, ("b", 1): 7}
    ends = {("a", 0): 100, ("a", 1): 65, ("b", 0): 80, ("b", 1): 7}  # 100, 60, 50 and none to read
    work = sharing.Work(world.settings, ["audit"], ["views"], {}, {}, starts, ends)

    def dealt(processes: int) -> list[set[tuple[str, int]]]:
        return [set(share.starts) for share in sharing.shares(work, processes)]

    assert dealt(1) == [{("a", 0), ("a", 1), ("b", 0)}]
    assert dealt(2) == [{("a", 0)}, {("a", 1), ("b", 0)}]
    assert dealt(100) == [{("a", 0)}, {("a", 1)}, {("b", 0)}]
    assert all(share.ends.keys() == share.starts.keys() for share in sharing.shares(work, 2))


SHARED = """
import signal, sys
from pathlib import Path
from processors.sinks import rebuild_cli, sharing
from runtime.errors import UserError

signal.signal(signal.SIGINT, signal.default_int_handler)  # also where tests run in the background
sharing._PROGRAM = "stuck"
try:
    rebuild_cli.command(["order_events"], processes=2, data_dir=Path(sys.argv[1]))
except UserError as error:
    sys.exit(str(error))
"""
STUCK = """
import os, time
from pathlib import Path
from processors.sinks import filling, sharing, tables

folder = Path(os.environ["OMS_DATA_DIR"])
step, insert, end_with = 0, tables.Tables.insert, sharing._end_with
filling._READ = filling._BATCH = 5


def stuck(*arguments):
    global step
    step += 1
    if step == 4:  # five messages are on record, and the next five are written
        (folder / f"stuck-{os.getpid()}").touch()
        time.sleep(600)
    insert(*arguments)


def slow(connection):
    connection.poll(None)
    while not (folder / "released").exists():
        time.sleep(0.02)
    end_with(connection)


tables.Tables.insert, sharing._end_with = stuck, slow
sharing.main()
"""


def test_whichever_of_several_processes_is_killed_none_goes_on(world: World) -> None:
    """One of those that fill, then their parent, by force and by Ctrl-C; each run goes on where the one before was."""
    (world.folder / "shared.py").write_text(SHARED)
    (world.folder / "stuck.py").write_text(STUCK)

    with sharing_that_sticks(world) as parent:
        one, other = stuck(world, parent)
        os.kill(one, signal.SIGKILL)
        until(lambda: parent.exit_code is not None and not alive(other), "the others have ended")
        assert "was cut short, and goes on from here when it is run again: one of its processes" in parent.tail()

    with sharing_that_sticks(world) as parent:
        both = stuck(world, parent)
        parent.kill()
        assert "Another rebuild is running" in rebuild(world, "order_events", code=1)
        (world.folder / "released").touch()
        until(lambda: not any(map(alive, both)), "they have ended by themselves")

    with sharing_that_sticks(world) as parent:
        both = stuck(world, parent)
        parent.signal(signal.SIGINT)
        until(lambda: parent.exit_code is not None and not any(map(alive, both)), "all have ended")
        assert parent.exit_code != 0

    assert tables(world) == {"oms.order_events__new": "rebuild"}
    said = rebuild(world, "order_events")
    read = re.search(r"^read ([\d,]+) messages", said, re.MULTILINE)
    assert read is not None
    written = sum(one.topic == "order.events" for one in world.lying())
    assert int(read[1].replace(",", "")) <= written - 3 * 2 * 5
    assert traces(world) == 0
    world.check()
    with world.client() as client:
        Beside(client, VIEWS["order_events"]).drop_old()


@contextmanager
def sharing_that_sticks(world: World) -> Iterator[Child]:
    """A rebuild of two processes that get stuck in the middle."""
    path = {"PYTHONPATH": f"{ROOT}{os.pathsep}{world.folder}"}
    with child(["shared", str(world.folder)], world.folder / "shared.out", **environment(world), **path) as parent:
        yield parent


def stuck(world: World, parent: Child) -> list[int]:
    """The process ids of both, once they are."""

    def found() -> list[Path]:
        assert parent.exit_code is None, parent.tail()
        return list(world.folder.glob("stuck-*"))

    until(lambda: len(found()) == 2, "both are stuck", 60)
    pids = []
    for path in found():
        path.unlink()
        pids.append(int(path.name.partition("-")[2]))
    return pids


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_cannot_be_is_said(world: World) -> None:
    assert "should be greater than or equal to 1" in rebuild(world, "orders", "--processes", "0", code=2)
    assert "There is no view order; there are order_events" in rebuild(world, "order", code=1)
    assert "Which view?" in rebuild(world, code=1)
