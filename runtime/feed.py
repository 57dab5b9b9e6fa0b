"""A thread that follows topics, read-committed and without a group, and hands messages over in batches.

What can't be decoded goes to `dead.letters` whole, and the rest flows on. Kafka being away is waited out.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from runtime import dead_letters, kafka
from runtime.settings import Settings
from schemas.base import Envelope
from schemas.codec import Undecodable, decode, encode

BATCH = 500
RETRY_AFTER = 1.0
SILENCE = 10.0
"""Seconds without a message after which the broker is asked whether there is one."""
METADATA_TIMEOUT = 5.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Received:
    """One message. `message` is None for a tombstone."""

    topic: str
    key: str
    message: Envelope | None


Assign = Callable[[Consumer], list[TopicPartition]]
Take = Callable[[Sequence[Received]], None]
Wanted = Callable[[bytes], bool]


class Stuck(Exception):
    """The broker has messages that the consumer does not get. Seen after a start under heavy load: librdkafka had lost
    the thread of a broker, and said nothing."""


class Feed:
    """`assign` picks partitions and offsets (it may ask the broker), `take` gets each batch, in the feed's thread.
    `wanted` sorts out by key before anything is decoded; `process` is whose dead letters these are."""

    def __init__(
        self,
        settings: Settings,
        name: str,
        producer: Producer,
        assign: Assign,
        take: Take,
        wanted: Wanted | None = None,
        process: str = "gateway",
    ) -> None:
        self._process = process
        self._settings = settings
        self._name = name
        self._producer = producer
        self._assign = assign
        self._take = take
        self._wanted = wanted
        self._stop = threading.Event()
        self._unread: set[tuple[str, int]] = set()
        self._ends: dict[tuple[str, int], int] = {}
        self.caught_up = threading.Event()
        self.lag = 0
        self._thread = threading.Thread(target=self._run, name=f"feed-{name}", daemon=True)

    @property
    def alive(self) -> bool:
        """False when a bug ended the thread."""
        return self._thread.is_alive()

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float) -> None:
        self._stop.set()
        self._thread.join(timeout)

    def _run(self) -> None:
        while not self._stop.is_set():
            consumer = kafka.consumer(
                self._settings,
                f"oms-{self._name}",
                enable_partition_eof=True,
                fetch_wait_max_ms=kafka.FETCH_WAIT_MS,
            )
            try:
                self._follow(consumer)
            except (KafkaException, Stuck) as error:
                log.warning("following topics again after an error", feed=self._name, error=str(error))
                self._stop.wait(RETRY_AFTER)
            finally:
                consumer.close()

    def _follow(self, consumer: Consumer) -> None:
        partitions = self._assign(consumer)
        self._ends = {}
        if not self.caught_up.is_set():
            self._unread = {(p.topic, p.partition) for p in partitions}
        consumer.assign(partitions)
        measured = heard = time.monotonic()
        suspected: dict[tuple[str, int], int] = {}
        while not self._stop.is_set():
            # consume() alone would wait for a full batch; what is there already is taken with the first message.
            first = consumer.poll(0.2)
            if first is not None:
                heard = time.monotonic()
                batch = self._received([first, *consumer.consume(BATCH, timeout=0)])
                if batch:
                    self._take(batch)
                if not self._unread and not self.caught_up.is_set():
                    log.info("read to the end", feed=self._name)
                    self.caught_up.set()
            if time.monotonic() - measured > 1:
                measured = time.monotonic()
                self.lag = _lag(consumer, partitions)
            if time.monotonic() - heard > SILENCE:
                heard = time.monotonic()
                behind = self._behind(partitions)
                if behind and behind == suspected:
                    raise Stuck(f"{len(behind)} partition(s) do not get on")
                suspected = behind

    def _received(self, records: Sequence[Any]) -> list[Received]:
        batch = []
        for record in records:
            error = record.error()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:
                    self._unread.discard((record.topic(), record.partition()))
                    self._ends[record.topic(), record.partition()] = record.offset()
                    continue
                raise KafkaException(error)
            key = record.key() or b""
            if self._wanted is not None and not self._wanted(key):
                continue
            if not dead_letters.for_me(record.headers(), self._process):
                continue
            value = record.value()
            try:
                message = None if value is None else decode(value)
                batch.append(Received(record.topic(), key.decode(), message))
            except (Undecodable, UnicodeDecodeError) as undecodable:
                self._dead_letter(record, undecodable)
        return batch

    @cached_property
    def _admin(self) -> AdminClient:
        """Asks on a connection of its own; made when there is a first silence."""
        return kafka.admin(self._settings)

    def _behind(self, partitions: Sequence[TopicPartition]) -> dict[tuple[str, int], int]:
        """Partitions that go on after what was told to be their end (that end). The broker is asked; the marks of
        transactions count, so that a position would not do."""
        highs = kafka.ends(self._admin, partitions, timeout=METADATA_TIMEOUT)
        return {at: end for at, high in highs.items() if high > (end := self._ends.get(at, 0))}

    def _dead_letter(self, record: Any, error: Exception) -> None:
        letter = dead_letters.dead_letter(
            processor=self._process,
            topic=record.topic(),
            partition=record.partition(),
            offset=record.offset(),
            key=record.key(),
            value=record.value(),
            headers=record.headers(),
            appended_at=datetime.fromtimestamp(record.timestamp()[1] / 1000, UTC),
            reason="undecodable",
            error=str(error),
        )
        log.error("dead letter", letter_id=letter.data.letter_id, topic=record.topic(), error=str(error))
        self._producer.produce(
            dead_letters.TOPIC,
            key=dead_letters.letter_key(record.key()),
            value=encode(letter),
            headers=kafka.headers(letter),
        )


def _lag(consumer: Consumer, partitions: Sequence[TopicPartition]) -> int:
    """Messages that are there and not read yet; from what the consumer knows anyway."""
    behind = 0
    for position in consumer.position([TopicPartition(p.topic, p.partition) for p in partitions]):
        _, high = consumer.get_watermark_offsets(position, cached=True)
        if position.offset >= 0 and high > 0:
            behind += max(0, high - position.offset)
    return behind


def partitions_of(consumer: Consumer, topic: str) -> int:
    """How many partitions the topic has. KafkaException when there is no broker or no such topic."""
    found = consumer.list_topics(topic, timeout=METADATA_TIMEOUT).topics[topic]
    if found.error is not None:
        raise KafkaException(found.error)
    return len(found.partitions)


def from_beginning(*topics: str) -> Assign:
    def assign(consumer: Consumer) -> list[TopicPartition]:
        return [
            TopicPartition(topic, partition, OFFSET_BEGINNING)
            for topic in topics
            for partition in range(partitions_of(consumer, topic))
        ]

    return assign


def from_now(topic: str, key: bytes) -> Assign:
    """The one partition where this key's messages lie, from its end. The end is asked for before anything else
    goes on, so that no reply to a later command can come before it."""

    def assign(consumer: Consumer) -> list[TopicPartition]:
        partition = kafka.partition_of(key, partitions_of(consumer, topic))
        _, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=METADATA_TIMEOUT)
        return [TopicPartition(topic, partition, high)]

    return assign
