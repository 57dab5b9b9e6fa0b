"""Makes a cluster have the topics that topology.yaml describes. Creates and adjusts; never deletes, never loses a
message: what would need either is refused with a sentence."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ClusterMetadata,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from runtime import kafka
from runtime.settings import Settings
from runtime.topology import Profile, Topic, Topology, TopologyError

TIMEOUT = 15.0
PATIENCE = 10.0
"""Seconds for brokers to be there: as many as copies are wanted."""
"""Seconds for each request to the cluster."""

_HOUR = 3_600_000
_DAY = 24 * _HOUR


@dataclass(frozen=True)
class Wanted:
    """A topic as the cluster should have it. `config`: only what we decide; the rest is the broker's default."""

    name: str
    partitions: int
    replicas: int
    config: dict[str, str]


def wanted(settings: Settings, topology: Topology, profile: Profile) -> list[Wanted]:
    """Every topic, and the changelog of every stateful processor."""
    partitions = settings.kafka_partitions or topology.partitions(profile)
    replicas = settings.kafka_replication_factor
    base = {
        "message.timestamp.type": "LogAppendTime",  # rule 5
        "min.insync.replicas": str(max(1, replicas - 1)),
    }
    topics = [Wanted(topic.name, partitions, replicas, {**base, **_kept(topic)}) for topic in topology.topics.values()]
    changelogs = [
        Wanted(name, partitions, replicas, {**base, **_compacted(), "max.message.bytes": "1048576"})
        for name in topology.changelog_topics()
    ]
    return topics + changelogs


def _kept(topic: Topic) -> dict[str, str]:
    size = {"max.message.bytes": str(topic.max_message_bytes)}
    if topic.retention is None:
        return {**_compacted(), **size}
    retention = topic.retention * 1000
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(retention),
        # Whole segments go, so a topic that is kept for an hour needs short ones, and one for years needs few files.
        "segment.ms": str(min(max(retention // 4, _HOUR // 4), 30 * _DAY)),
        **size,
    }


def _compacted() -> dict[str, str]:
    """Compacted soon, because whoever starts reads it whole: a gateway its products, a processor its state."""
    return {
        "cleanup.policy": "compact",
        "min.cleanable.dirty.ratio": "0.2",
        "segment.ms": str(_HOUR),  # the open segment is never compacted
        "segment.bytes": str(64 * 1024 * 1024),
        # A process that was away for less than this still sees every deletion when it catches up.
        "delete.retention.ms": str(7 * _DAY),
    }


def apply(settings: Settings, topology: Topology, profile: Profile) -> list[str]:
    """Create what is missing and adjust what differs; returns what was done, a sentence each (empty: nothing).

    Raises:
        TopologyError: the cluster can't be reached or won't; it forgets offsets too soon (rule 4); or a topic is
            there with another number of partitions. Nothing has been changed then.
    """
    admin = kafka.admin(settings)
    topics = wanted(settings, topology, profile)
    try:
        cluster = admin.list_topics(timeout=TIMEOUT)
        there = [topic for topic in topics if topic.name in cluster.topics]
        missing = [topic for topic in topics if topic.name not in cluster.topics]
        _refuse_other_partitions(there, cluster)
        _refuse_forgotten_offsets(admin, topology, cluster)
        return _create(admin, missing) + _alter(admin, there) + _other_replicas(there, cluster)
    except KafkaException as error:
        raise TopologyError(
            f"Kafka at {settings.kafka_bootstrap} did not do as asked: {error.args[0].str()}. "
            "Is it running, and may this user describe, create and alter topics?"
        ) from error


def _refuse_other_partitions(topics: list[Wanted], cluster: ClusterMetadata) -> None:
    found = {topic.name: len(cluster.topics[topic.name].partitions) for topic in topics}
    other = [topic for topic in topics if found[topic.name] != topic.partitions]
    if not other:
        return
    first = other[0]
    more = f" (and {len(other) - 1} more topics differ)" if len(other) > 1 else ""
    raise TopologyError(
        f"{first.name} has {found[first.name]} partitions and should have {first.partitions}{more}: keys would move "
        "to other partitions, away from their state, so the number of a topic that exists can't change. Keep it "
        f"(OMS_KAFKA_PARTITIONS={found[first.name]}), or replay into a new cluster (docs/decisions/0005-topology.md)."
    )


def _refuse_forgotten_offsets(admin: AdminClient, topology: Topology, cluster: ClusterMetadata) -> None:
    """A group that was away longer than its offsets are kept would start with empty state (rule 4)."""
    needed = topology.longest_retention() // 60
    broker = ConfigResource(ResourceType.BROKER, str(min(cluster.brokers)))
    kept = int(_describe(admin, [broker])[broker.name]["offsets.retention.minutes"])
    if kept < needed:
        raise TopologyError(
            f"The brokers forget a group's offsets after {kept} minutes, but topics are kept for {needed}, and lost "
            f"offsets are lost state: set offsets.retention.minutes={needed} or more on every broker."
        )


def _create(admin: AdminClient, topics: list[Wanted]) -> list[str]:
    if not topics:
        return []
    new = [
        NewTopic(t.name, num_partitions=t.partitions, replication_factor=t.replicas, config=t.config) for t in topics
    ]
    done = []
    until = time.monotonic() + PATIENCE
    while new:
        again = []
        futures = admin.create_topics(new, request_timeout=TIMEOUT)
        for topic in new:
            try:
                futures[topic.topic].result()
                done.append(topic.topic)
            except KafkaException as error:
                code = error.args[0].code()
                # A broker that has just come up on a busy machine does not count as one yet.
                if code == KafkaError.INVALID_REPLICATION_FACTOR and time.monotonic() < until:
                    again.append(topic)
                elif code != KafkaError.TOPIC_ALREADY_EXISTS:  # another apply was faster
                    raise
        new = again
        if new:
            time.sleep(0.5)
    _wait_for_leaders(admin, {topic.name for topic in topics})
    return [
        f"created {topic.name}: {topic.partitions} partitions, "
        + (
            "compacted"
            if topic.config["cleanup.policy"] == "compact"
            else f"kept {_span(topic.config['retention.ms'])}"
        )
        for topic in topics
        if topic.name in done
    ]


def _wait_for_leaders(admin: AdminClient, names: set[str]) -> None:
    """A topic that was just created is not at once known to every broker; whoever starts next relies on it."""
    deadline = time.monotonic() + TIMEOUT
    while True:
        topics = admin.list_topics(timeout=TIMEOUT).topics
        waiting = [
            name
            for name in sorted(names)
            if name not in topics
            or not topics[name].partitions
            or any(partition.leader < 0 for partition in topics[name].partitions.values())
        ]
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise TopologyError(f"{', '.join(waiting)} had no leader {TIMEOUT:g} s after being created; try again.")
        time.sleep(0.05)


def _alter(admin: AdminClient, topics: list[Wanted]) -> list[str]:
    if not topics:
        return []
    found = _describe(admin, [ConfigResource(ResourceType.TOPIC, topic.name) for topic in topics])
    done, changes = [], []
    for topic in topics:
        differing = {key: value for key, value in topic.config.items() if found[topic.name][key] != value}
        done += [
            f"changed {topic.name}: {key} is {value}, was {found[topic.name][key]}" for key, value in differing.items()
        ]
        if differing:
            entries = [
                ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET) for key, value in differing.items()
            ]
            changes.append(ConfigResource(ResourceType.TOPIC, topic.name, incremental_configs=entries))
    if changes:
        for future in admin.incremental_alter_configs(changes, request_timeout=TIMEOUT).values():
            future.result()
    return done


def _other_replicas(topics: list[Wanted], cluster: ClusterMetadata) -> list[str]:
    return [
        f"{topic.name} has {found} replicas and should have {topic.replicas}: move it with kafka-reassign-partitions"
        for topic in topics
        if (found := len(cluster.topics[topic.name].partitions[0].replicas)) != topic.replicas
    ]


def _describe(admin: AdminClient, resources: list[ConfigResource]) -> dict[str, dict[str, Any]]:
    described = admin.describe_configs(resources, request_timeout=TIMEOUT)
    return {
        resource.name: {entry.name: entry.value for entry in future.result().values()}
        for resource, future in described.items()
    }


def _span(milliseconds: str) -> str:
    hours = int(milliseconds) // _HOUR
    return f"{hours // 24} d" if hours >= 24 else f"{hours} h"
