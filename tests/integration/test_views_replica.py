"""A second ClickHouse, filled by a sink of its own: either may be killed, the other goes on, both are equal at last."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from analytics.clickhouse import connect
from runtime.errors import EXIT_CODE
from tests.support import view_fold
from tests.support.parts import child, kafka_broker, until
from tests.support.sink_world import Engine, World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("replica")
    with kafka_broker(folder / "broker") as settings:
        found = World(settings, folder)
        with found.running:
            yield found


def test_either_may_die_and_both_are_equal_in_the_end(world: World) -> None:
    second = Engine(world.folder / "second", world.running)
    settings = world.settings.model_copy(update={"clickhouse_url": second.url})
    with world.sink() as sink, world.sink("views-replica", OMS_CLICKHOUSE_REPLICA_URL=second.url) as replica:
        world.write(20)
        world.wait_until_complete()
        with connect(settings) as client:
            world.wait_until_complete(client)
            world.check(client)

        second.kill()
        world.write(10)
        world.wait_until_complete()
        world.check()
        until(lambda: world.facts("views-replica")["state"] == "degraded", "the replica's sink says so")
        assert world.facts()["state"] == "ready"
        second.start()
        until(lambda: world.facts("views-replica")["state"] == "ready", "it is well again")
        with connect(settings) as client:
            world.wait_until_complete(client)
            world.check(client)

        world.engine.kill()
        world.write(10)
        with connect(settings) as client:
            world.wait_until_complete(client)
            world.check(client)
        until(lambda: world.facts()["state"] == "degraded", "the first one's sink says so")
        world.engine.start()
        until(lambda: world.facts()["state"] == "ready", "it is well again")
        world.wait_until_complete()

        with world.client() as here, connect(settings) as there:
            for view in view_fold.IDENTITY:
                assert view_fold.found(here, view) == view_fold.found(there, view)
        world.check()
        assert sink.exit_code is None
        assert replica.exit_code is None


def test_without_a_second_clickhouse_its_sink_says_so(world: World) -> None:
    arguments = ["runtime", "run", "views-replica"]
    environment = {"OMS_DATA_DIR": str(world.folder), "OMS_KAFKA_BOOTSTRAP": world.settings.kafka_bootstrap}
    with child(arguments, world.folder / "none.out", **environment) as sink:
        until(lambda: sink.exit_code is not None, "it ended", 30)
        assert sink.exit_code == EXIT_CODE
        assert "say where it is with OMS_CLICKHOUSE_REPLICA_URL" in sink.tail()
