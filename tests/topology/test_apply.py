"""`apply` on a real broker of its own."""

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from runtime import kafka, streams
from runtime.settings import Settings
from runtime.topology import TopologyError, load
from runtime.topology_apply import apply, wanted
from tests.support import processes


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of an empty broker that nobody else uses."""
    folder = tmp_path_factory.mktemp("broker")
    with processes.kafka(folder, processes.free_port()) as bootstrap:
        yield Settings(kafka_bootstrap=bootstrap, data_dir=folder)


@pytest.fixture(scope="module")
def applied(broker: Settings) -> list[str]:
    """What the first apply on the empty broker did."""
    return apply(broker, load(), "embedded")


def configs(settings: Settings, *topics: str) -> dict[str, dict[str, str]]:
    resources = [ConfigResource(ResourceType.TOPIC, topic) for topic in topics]
    admin = kafka.admin(settings)  # kept in a name: without one it would be gone before its answer comes
    described = admin.describe_configs(resources)
    return {
        resource.name: {name: entry.value for name, entry in future.result().items()}
        for resource, future in described.items()
    }


def set_config(admin: AdminClient, resource: ConfigResource) -> None:
    admin.incremental_alter_configs([resource])[resource].result()


def test_all_topics_and_changelogs_are_made(broker: Settings, applied: list[str]) -> None:
    topology = load()
    names = {*topology.topics, *topology.changelog_topics()}
    assert len(applied) == len(names)
    assert "created order.events: 4 partitions, kept 2562 d" in applied
    assert "created order.states: 4 partitions, compacted" in applied
    there = kafka.admin(broker).list_topics(timeout=10).topics
    assert names <= set(there)
    assert {len(there[name].partitions) for name in names} == {4}


def test_they_are_configured_as_the_design_says(broker: Settings, applied: list[str]) -> None:
    topology = load()
    found = configs(broker, *topology.topics, *topology.changelog_topics())
    for name, config in found.items():
        assert config["message.timestamp.type"] == "LogAppendTime", name
        assert config["min.insync.replicas"] == "1", name
        assert config["max.message.bytes"] == ("3145728" if name == "dead.letters" else "1048576"), name
    for name in ["order.states", "catalog.products", *topology.changelog_topics()]:
        assert found[name]["cleanup.policy"] == "compact", name
    assert found["order.events"]["cleanup.policy"] == "delete"
    assert found["order.events"]["retention.ms"] == str(7 * 366 * 86_400_000)
    assert found["order.replies"]["retention.ms"] == "3600000"
    assert found["order.replies"]["segment.ms"] == "900000"


def test_again_it_does_nothing_and_fast(broker: Settings, applied: list[str]) -> None:
    began = time.monotonic()
    assert apply(broker, load(), "embedded") == []
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("name", ["order", "inventory", "placement", "timers"])
def test_quixstreams_finds_its_changelog_under_the_name_in_topology_yaml(
    broker: Settings, applied: list[str], name: str
) -> None:
    """The application may create no topic, so wiring it fails unless it finds all of them."""
    topology = load()
    spec = topology.processors[name]
    runner = streams.Runner(name, lambda state, incoming: (), spec.outputs)
    app = streams.application(broker, topology, name, runner)
    manager: Any = app._topic_manager
    assert [topic.name for topic in manager.changelog_topics_list] == [topology.changelog(name)]


def test_what_differs_is_changed_and_said(broker: Settings, applied: list[str]) -> None:
    admin = kafka.admin(broker)
    entries = [
        ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
        for key, value in (("retention.ms", "1000"), ("message.timestamp.type", "CreateTime"))
    ]
    set_config(admin, ConfigResource(ResourceType.TOPIC, "payment.results", incremental_configs=entries))
    processes.until(
        lambda: configs(broker, "payment.results")["payment.results"]["retention.ms"] == "1000", "the change is seen"
    )
    assert sorted(apply(broker, load(), "embedded")) == [
        "changed payment.results: message.timestamp.type is LogAppendTime, was CreateTime",
        f"changed payment.results: retention.ms is {7 * 366 * 86_400_000}, was 1000",
    ]
    processes.until(lambda: apply(broker, load(), "embedded") == [], "the change back is seen")


def test_other_topics_are_none_of_its_business(broker: Settings, applied: list[str]) -> None:
    admin = kafka.admin(broker)
    admin.create_topics([NewTopic("somebody.elses", 1, 1)])["somebody.elses"].result()
    apply(broker, load(), "embedded")
    processes.until(lambda: "somebody.elses" in admin.list_topics(timeout=10).topics, "the topic is still there")


def test_another_number_of_partitions_is_refused(broker: Settings, applied: list[str]) -> None:
    with pytest.raises(TopologyError) as caught:
        apply(broker.model_copy(update={"kafka_partitions": 8}), load(), "embedded")
    others = len(load().topics) + len(load().changelog_topics()) - 1
    told = f"order.commands has 4 partitions and should have 8 (and {others} more topics differ)"
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)
    assert len(kafka.admin(broker).list_topics("order.commands", timeout=10).topics["order.commands"].partitions) == 4


def test_the_copies_that_production_wants(broker: Settings) -> None:
    production = broker.model_copy(update={"kafka_replication_factor": 3})
    for topic in wanted(production, load(), "production"):
        assert (topic.partitions, topic.replicas, topic.config["min.insync.replicas"]) == (64, 3, "2")


def test_a_broker_that_forgets_offsets_too_soon_is_refused(
    broker: Settings, applied: list[str], tmp_path: Path
) -> None:
    """Ours keeps them for ten years, so a topology that wants more must be told no (rule 4)."""
    path = tmp_path / "topology.yaml"
    text = load().path.read_text()
    path.write_text(text.replace("exceptions, retention: 7y", "exceptions, retention: 11y"))
    with pytest.raises(TopologyError, match=r"forget a group's offsets after 5256000 minutes, .* kept for 5797440"):
        apply(broker, load(path), "embedded")
    assert configs(broker, "exceptions")["exceptions"]["retention.ms"] == str(7 * 366 * 86_400_000)


def test_no_broker_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.topology_apply.TIMEOUT", 0.5)
    with socket.socket() as bound:  # bound but not listening: nobody else can take the port, and nobody answers
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(TopologyError, match=rf"Kafka at {address} did not do as asked: .* Is it running"):
            apply(Settings(kafka_bootstrap=address), load(), "embedded")
