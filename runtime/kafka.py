"""Kafka clients, all made here, so that all of them agree on what a mixed fleet gets wrong: the partitioner
(librdkafka's own default, CRC32, silently breaks co-partitioned joins), isolation, acks, headers."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from time import monotonic, sleep
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from runtime.settings import Settings
from schemas.base import Envelope, Event
from schemas.events import OrderImported

PARTITIONER = "murmur2"

FETCH_WAIT_MS = 500
"""How long a fetch waits at the broker when there is nothing to read; what comes meanwhile is sent at once. Each
costs the broker most of a millisecond. A broker answers the requests of a connection one after the other, so that
whatever else a consumer asks waits behind its fetch: where a topic begins or ends is asked on another connection."""

LOOK_WAIT_MS = 50
"""The same for who reads to the end and stops: that there is no more, in each partition, is what a fetch says when it
has waited."""

HISTORY = "history"
"""The header of events that were imported: `end` on the last one of an order, which carries all that came of the
others, on each of them `event`. Readers who need no more are spared decoding them (topology.yaml: history)."""

_NO_COORDINATOR = frozenset(
    {
        KafkaError.NOT_COORDINATOR,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    }
)
_UUID = re.compile(r"[0-9a-f]{32}")


def producer(settings: Settings, **extra: Any) -> Producer:
    """An idempotent producer outside of any transaction. `extra`: librdkafka options, `_` for `.`."""
    return Producer(
        {
            **settings.kafka_config(),
            "partitioner": PARTITIONER,
            "enable.idempotence": True,
            "linger.ms": 1,
            **_options(extra),
        }
    )


def consumer(settings: Settings, group: str, **extra: Any) -> Consumer:
    """A read-committed consumer that commits only when told to and starts at the beginning. Who stays and follows its
    topics gives `fetch_wait_max_ms=FETCH_WAIT_MS`."""
    return Consumer(
        {
            **settings.kafka_config(),
            "group.id": group,
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": LOOK_WAIT_MS,
            **_options(extra),
        }
    )


def admin(settings: Settings) -> AdminClient:
    # Without librdkafka's remarks on its own shutting down, which end up among what a command prints.
    return AdminClient({**settings.kafka_config(), "log_level": 5})


def committed(consumer: Consumer, partitions: list[TopicPartition], timeout: float = 30) -> list[TopicPartition]:
    """The offsets that the consumer's group has committed (negative: none). While the group has no coordinator, as
    on a broker that has just started, it waits.

    Raises:
        KafkaException: it is not that, or lasts longer than `timeout` seconds.
    """
    deadline = monotonic() + timeout
    while True:
        try:
            found: list[TopicPartition] = consumer.committed(partitions, timeout=max(1.0, deadline - monotonic()))
        except KafkaException as error:
            if error.args[0].code() not in _NO_COORDINATOR or monotonic() >= deadline:
                raise
            sleep(0.1)
        else:
            return found


def ends(
    admin: AdminClient, partitions: Iterable[TopicPartition], spec: OffsetSpec | None = None, timeout: float = 10
) -> dict[tuple[str, int], int]:
    """(topic, partition) → where it ends (or begins, by `spec`), as the broker says; marks of transactions count.

    Raises:
        KafkaException: the broker did not answer within `timeout` seconds.
    """
    asked = {TopicPartition(at.topic, at.partition): spec or OffsetSpec.latest() for at in partitions}
    answers = admin.list_offsets(asked, request_timeout=timeout)
    return {(at.topic, at.partition): answer.result().offset for at, answer in answers.items()}


def _options(extra: dict[str, Any]) -> dict[str, Any]:
    return {name if name.endswith("_cb") else name.replace("_", "."): value for name, value in extra.items()}


def headers(message: Envelope) -> list[tuple[str, bytes]]:
    """CloudEvents (Kafka binary binding) and the tracing headers of a message; made fresh for each output."""
    at = message.occurred_at if isinstance(message, Event) else message.at
    found = [
        ("ce_specversion", b"1.0"),
        ("ce_id", message.id.encode()),
        ("ce_type", f"oms.{type(message.data).family}.{type(message.data).__name__}".encode()),
        ("ce_source", f"/oms/{message.actor}".encode()),
        ("ce_time", at.isoformat().replace("+00:00", "Z").encode()),
        ("content-type", b"avro/binary"),
        ("correlation_id", message.correlation_id.encode()),
        ("traceparent", traceparent(message.correlation_id, message.id).encode()),
    ]
    if message.order_id is not None:
        found.append(("ce_subject", message.order_id.encode()))
    if message.causation_id is not None:
        found.append(("causation_id", message.causation_id.encode()))
    if isinstance(message, Event) and message.imported:
        found.append((HISTORY, b"end" if isinstance(message.data, OrderImported) else b"event"))
    return found


def traceparent(correlation_id: str, message_id: str) -> str:
    """W3C trace context: one trace per correlation id, one span per message."""
    return f"00-{_hex(correlation_id)}-{_hex(message_id)[:16]}-01"


def _hex(name: str) -> str:
    """32 hex digits: a UUID's own, or a hash of any other name."""
    digits = name.replace("-", "")
    return digits if _UUID.fullmatch(digits) else hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()


def murmur2(data: bytes) -> int:
    """Kafka's murmur2 (unsigned 32 bits), as in org.apache.kafka.common.utils.Utils."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = (0x9747B28C ^ len(data)) & mask
    whole = len(data) & ~3
    for i in range(0, whole, 4):
        k = int.from_bytes(data[i : i + 4], "little") * m & mask
        k = (k ^ k >> 24) * m & mask
        h = (h * m & mask) ^ k
    if tail := data[whole:]:
        h = (h ^ int.from_bytes(tail, "little")) * m & mask
    h = (h ^ h >> 13) * m & mask
    return h ^ h >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """The partition that Java's, quixstreams' and our producers give this key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
