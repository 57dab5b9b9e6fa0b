"""How far the views have come, kept in ClickHouse beside them (rule 15), and whether that still fits the topic.

A partition is read from the least offset of the views that it feeds; for the others the rows are a repeat, which
changes nothing. Kafka's own committed offsets are written for monitoring only.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.resources import files

import structlog
from clickhouse_connect.driver.client import Client
from confluent_kafka import KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from runtime import kafka
from runtime.errors import UserError

log = structlog.get_logger(__name__)

_QUERY = (files(__package__) / "queries" / "progress.sql").read_text()
_REACHED = (files(__package__) / "queries" / "reached.sql").read_text()
_ADVICE = (
    "Restore that side from its backup, or empty the views and their progress (docs/analytics.md, Starting over), "
    "and the sink fills them again."
)


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic as the broker has it: its id, and for each partition the first and the next offset."""

    name: str
    id: str
    ends: Mapping[int, tuple[int, int]]


def look_at(admin: AdminClient, name: str, timeout: float = 10) -> Topic:
    """What the broker says of a topic.

    Raises:
        UserError: there is no such topic.
        KafkaException: the broker did not answer.
    """
    try:
        found = admin.describe_topics(TopicCollection([name]), request_timeout=timeout)[name].result()
    except KafkaException as error:
        if error.args[0].name() in ("UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC"):
            raise UserError(f"There is no topic {name}: run `oms topology apply`.") from error
        raise
    partitions = [TopicPartition(name, part.id) for part in found.partitions]
    firsts = kafka.ends(admin, partitions, OffsetSpec.earliest(), timeout)
    lasts = kafka.ends(admin, partitions, timeout=timeout)
    return Topic(
        name, str(found.topic_id), {number: (firsts[name, number], lasts[name, number]) for _, number in lasts}
    )


def starts(client: Client, views: Iterable[str], topic: Topic) -> dict[int, int]:
    """For each partition of the topic the offset from which these views need it.

    Raises:
        UserError: the views were filled from another topic of that name, or from more than the topic holds.
        clickhouse_connect.driver.exceptions.Error: ClickHouse did not answer.
    """
    wanted = sorted(views)
    rows = client.query(_QUERY, parameters={"views": wanted, "topic": topic.name}).result_rows
    reached: dict[tuple[str, int], int] = {}
    for view, topic_id, partition, offset in rows:
        if topic_id != topic.id:
            raise UserError(
                f"The view {view} was filled from another topic {topic.name} (id {topic_id}) than the broker has now "
                f"(id {topic.id}): one of the two was wiped or restored. {_ADVICE}"
            )
        _, end = topic.ends.get(partition, (0, 0))
        if offset > end:
            raise UserError(
                f"The view {view} has read {topic.name} up to offset {offset} of partition {partition}, but the topic "
                f"ends at {end}: one of the two was wiped or restored. {_ADVICE}"
            )
        reached[view, partition] = offset
    found = {}
    for partition, (first, _) in topic.ends.items():
        start = min(reached.get((view, partition), 0) for view in wanted)
        if start < first:
            log.warning("retention_was_first", topic=topic.name, partition=partition, wanted=start, first=first)
        found[partition] = max(first, start)
    return found


def reached(client: Client, view: str) -> dict[tuple[str, str, int], int]:
    """(topic, topic id, partition) → the offset up to which everything is in the view."""
    rows = client.query(_REACHED, parameters={"view": view}).result_rows
    return {(topic, topic_id, partition): offset for topic, topic_id, partition, offset in rows}
