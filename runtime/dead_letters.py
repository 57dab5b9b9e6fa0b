"""Dead letters: a message that a process could not process, whole, on `dead.letters`, and the way back.

A letter is *open* until it is retried or discarded. Retrying re-produces it to the topic it came from, with its
own key, value and headers, and with headers of ours that say whom it is for (`for_me`) and where in a batch it
stands (`retry_of`). If it fails again, that is a new letter, because it lies at another offset.

A processor whose keys are orders parks the order of a dead-lettered message (rule 13): what comes later under that
key follows it here with reason `parked`, so that a retry replays everything in order. The protocol is `admits`,
`park` and `settle` below; they count the open letters of a key in one state entry under that key.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from time import monotonic, sleep
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Producer as KafkaProducer

from processors.kit import State
from runtime import kafka
from runtime.settings import Settings
from runtime.topology import Topology
from schemas.base import Message
from schemas.codec import Undecodable, decode, encode
from schemas.operations import DeadLetterDiscarded, DeadLettered, DeadLetterRetried, RawHeader

# The standard library's: without any set-up it goes to stderr, and so never into what `oms dlq` prints.
log = logging.getLogger(__name__)

TOPIC = "dead.letters"

MAX_BYTES = 3 * 1024 * 1024
"""What `dead.letters` (max.message.bytes) and whoever produces to it (message.max.bytes) must allow: a message
of another topic has at most 1 MiB, its letter carries its key twice, and an error text."""

Headers = Iterable[tuple[str, bytes | str | None]] | None
"""Headers as confluent_kafka and quixstreams give them."""

_LETTERS = uuid.UUID("5d0b6c0e-7c0f-5b0e-9a55-0a6a0f5c8a11")
_ERROR_CHARACTERS = 4_000
_OURS = "oms-dlq-"
_PARKED = "oms.parked"
_FAILED_BATCH = "oms.parked.failed"


def dead_letter(
    *,
    processor: str,
    topic: str,
    partition: int,
    offset: int,
    key: bytes | None,
    value: bytes | None,
    headers: Headers,
    appended_at: datetime,
    reason: str,
    error: str,
) -> Message[DeadLettered]:
    """The letter for a message that `processor` could not process; reason as in `DeadLettered`. Pure, and the
    same for the same message and processor, so that one that is written twice is still one."""
    whole = tuple(RawHeader(name=name, value=_bytes(found)) for name, found in headers or ())
    texts = {header.name: header.value.decode(errors="replace") for header in whole}
    letter_id = str(uuid.uuid5(_LETTERS, f"{processor}/{topic}/{partition}/{offset}"))
    return Message(
        id=letter_id,
        at=appended_at,
        actor=f"system:{processor}",
        correlation_id=texts.get("correlation_id") or letter_id,
        causation_id=texts.get("ce_id"),
        order_id=texts.get("ce_subject"),
        data=DeadLettered(
            letter_id=letter_id,
            processor=processor,
            topic=topic,
            partition=partition,
            offset=offset,
            key=key,
            value=value,
            headers=whole,
            appended_at=appended_at,
            reason=reason,
            error=error[:_ERROR_CHARACTERS],
        ),
    )


def letter_key(key: bytes | None) -> bytes:
    """The Kafka key of a letter: the message's own, so that the letters of a key stay in order."""
    return key or b""


# What consumers of any topic must know about a retried message.


@dataclass(frozen=True, slots=True)
class Retry:
    """What the headers of a retried message say. `count`: letters in the batch; `last`: of the batch; `discard`:
    the letter is only to be counted, never to be handled."""

    letter_id: str
    processor: str
    batch: str
    count: int
    last: bool
    discard: bool


def for_me(headers: Headers, name: str) -> bool:
    """Whether `name` is to handle this message: every message is for everybody, except one that is retried,
    which is for the one that could not process it (the others have had it) and, discarded, for nobody."""
    retry = retry_of(headers)
    return retry is None or (retry.processor == name and not retry.discard)


def is_retried(headers: Sequence[tuple[str, bytes | str | None]] | None) -> bool:
    """Whether these are the headers of a retried message, at a glance: ours come last."""
    return headers is not None and len(headers) > 0 and headers[-1][0].startswith(_OURS)


def retry_of(headers: Headers) -> Retry | None:
    """What the headers say of a retry; None when the message is no retried one."""
    ours = {name: _bytes(value).decode(errors="replace") for name, value in headers or () if name.startswith(_OURS)}
    if not ours:
        return None  # as nearly always
    try:
        return Retry(
            letter_id=ours[f"{_OURS}letter"],
            processor=ours[f"{_OURS}processor"],
            batch=ours[f"{_OURS}batch"],
            count=int(ours[f"{_OURS}count"]),
            last=f"{_OURS}last" in ours,
            discard=f"{_OURS}discard" in ours,
        )
    except (KeyError, ValueError):
        return None


# Parking, for processors with state. `retry` is `retry_of` the message, and must be for this processor.


def parks(topology: Topology, name: str) -> bool:
    """Whether this processor parks the key of a dead-lettered message. One that is keyed by order does: an order's
    messages build on each other, and only that order waits. A SKU or a shard of timers is shared by many orders, of
    which one bad message must not stop a single one."""
    return all(topology.topics[topic].key == "order_id" for topic in topology.processors[name].inputs)


def admits(state: State, retry: Retry | None) -> bool:
    """Whether a message of this key may be handled now; if not, it is to be dead-lettered as `parked`. A retried
    one may, unless an earlier one of its batch has failed again."""
    if retry is None:
        return not state.get(_PARKED)
    return bool(state.get(_FAILED_BATCH) != retry.batch)


def park(state: State, retry: Retry | None) -> None:
    """A message of this key becomes a dead letter (again)."""
    state.set(_PARKED, state.get(_PARKED, 0) + 1)
    if retry is not None:
        state.set(_FAILED_BATCH, retry.batch)


def settle(state: State, retry: Retry | None) -> None:
    """After every message, handled or not: the last of a batch takes the batch's letters off the count. At none
    left, the key is free."""
    if retry is None or not retry.last:
        return
    left = max(0, state.get(_PARKED, 0) - retry.count)
    if left:
        state.set(_PARKED, left)
    else:
        state.delete(_PARKED)
    state.delete(_FAILED_BATCH)


# For operators.


@dataclass(frozen=True, slots=True)
class Letter:
    """An open letter; `at` is when it was written (the broker's time)."""

    data: DeadLettered
    message: Message[Any]
    at: datetime

    @property
    def key_text(self) -> str:
        return "" if self.data.key is None else self.data.key.decode(errors="backslashreplace")

    @property
    def retried_from(self) -> str | None:
        """The id of the letter whose retry failed and so became this one."""
        found = retry_of((header.name, header.value) for header in self.data.headers)
        return found.letter_id if found else None


def open_letters(settings: Settings, timeout: float = 60) -> list[Letter]:
    """All open letters; those of one processor and key in the order in which they must be retried.

    Raises:
        KafkaException: no broker, or no `dead.letters`.
        TimeoutError: not read to its end within `timeout` seconds.
    """
    found: dict[str, Letter] = {}
    settled: set[str] = set()
    for message, at in _read_all(settings, timeout):
        match message.data:
            # A gateway reads its reference data from the beginning at each start, and writes the same letter again.
            case DeadLettered(letter_id=letter_id) as data if letter_id not in settled:
                found.setdefault(letter_id, Letter(data, message, at))
            case DeadLetterRetried(letter_id=letter_id) | DeadLetterDiscarded(letter_id=letter_id):
                settled.add(letter_id)
                found.pop(letter_id, None)
            case _:
                pass
    return list(found.values())


def retry(settings: Settings, letters: Sequence[Letter], timeout: float = 30) -> bool:
    """Give letters back to their processors: a batch per processor and key, each in order. True when the
    processors have consumed all of it; what failed again is an open letter again. False when they didn't within
    `timeout` seconds (not running, or far behind).

    Where this process dies half-way, the letters stay open and may be retried twice: processors know the ids of
    commands they have had.

    Raises:
        KafkaException: the broker did not take a message.
    """
    consumed = [_send(settings, batch, timeout, discard=False) for batch in _batches(letters)]
    return all(consumed)


def discard(settings: Settings, letters: Sequence[Letter], comment: str, *, parks: frozenset[str]) -> None:
    """Give letters up for good. `parks`: the processors that park keys; these are told, so that a key whose
    letters are all settled is free again.

    Raises:
        KafkaException: the broker did not take a message.
    """
    for batch in _batches(letters):
        if batch[0].data.processor in parks and batch[0].data.key is not None and batch[0].data.value is not None:
            _send(settings, batch, 0, discard=True)
        _record(settings, batch, [DeadLetterDiscarded(letter_id=x.data.letter_id, comment=comment) for x in batch])


def _batches(letters: Iterable[Letter]) -> list[list[Letter]]:
    batches: dict[tuple[str, bytes | None, bool], list[Letter]] = {}
    for letter in letters:
        # A message without a value belongs to no order: it parks nothing, and so is not counted.
        data = letter.data
        batches.setdefault((data.processor, data.key, data.value is None), []).append(letter)
    return list(batches.values())


def _send(settings: Settings, batch: Sequence[Letter], timeout: float, *, discard: bool) -> bool:
    """Re-produce a batch. Two topics have no order between them, so before going on with another topic it waits
    until the processor has consumed what it was given."""
    name = str(uuid.uuid4())
    producer = kafka.producer(settings, message_max_bytes=MAX_BYTES)
    deadline = monotonic() + timeout
    consumed = True
    sent = 0
    for topic, run in groupby(batch, key=lambda letter: letter.data.topic):
        ends: dict[int, int] = {}
        for letter in run:
            sent += 1
            extra = {
                "letter": letter.data.letter_id,
                "processor": letter.data.processor,
                "batch": name,
                "count": str(len(batch)),
                **({"last": "1"} if sent == len(batch) else {}),
                **({"discard": "1"} if discard else {}),
            }
            kept = [(h.name, h.value) for h in letter.data.headers if not h.name.startswith(_OURS)]
            partition, offset = _produce(
                producer,
                topic,
                letter.data.key,
                letter.data.value,
                [*kept, *((_OURS + k, v.encode()) for k, v in extra.items())],
            )
            ends[partition] = offset + 1
        consumed = _wait_consumed(settings, batch[0].data.processor, topic, ends, deadline)
    if not discard:
        _record(settings, batch, [DeadLetterRetried(letter_id=x.data.letter_id, batch=name) for x in batch])
    return consumed


def _record(
    settings: Settings, batch: Sequence[Letter], entries: Sequence[DeadLetterRetried | DeadLetterDiscarded]
) -> None:
    producer = kafka.producer(settings)
    for letter, entry in zip(batch, entries, strict=True):
        message: Message[Any] = Message(
            id=str(uuid.uuid4()),
            at=datetime.now(UTC),
            actor="system:oms-cli",
            correlation_id=letter.message.correlation_id,
            causation_id=letter.data.letter_id,
            order_id=letter.message.order_id,
            data=entry,
        )
        _produce(producer, TOPIC, letter_key(letter.data.key), encode(message), kafka.headers(message))


def _produce(
    producer: KafkaProducer,
    topic: str,
    key: bytes | None,
    value: bytes | None,
    headers: list[tuple[str, bytes]],
) -> tuple[int, int]:
    """Write one message and wait for it; (partition, offset)."""
    done: list[tuple[int, int]] = []
    failed: list[KafkaError] = []

    def delivered(error: KafkaError | None, message: Any) -> None:
        if error is not None:
            failed.append(error)
        else:
            done.append((message.partition(), message.offset()))

    producer.produce(topic, key=key, value=value, headers=headers, on_delivery=delivered)
    producer.flush(30)
    if failed:
        raise KafkaException(failed[0])
    if not done:
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"{topic} did not take the message within 30 s"))
    return done[0]


def _wait_consumed(settings: Settings, group: str, topic: str, ends: dict[int, int], deadline: float) -> bool:
    """Whether the group has committed these offsets before `deadline` (monotonic seconds)."""
    looker = kafka.consumer(settings, group)
    try:
        while True:
            wanted = [TopicPartition(topic, partition) for partition in ends]
            if all(found.offset >= ends[found.partition] for found in kafka.committed(looker, wanted)):
                return True
            if monotonic() >= deadline:
                return False
            sleep(0.1)
    finally:
        looker.close()


def _read_all(settings: Settings, timeout: float) -> Iterable[tuple[Message[Any], datetime]]:
    """Every committed message on `dead.letters`, in order within a key, with the broker's time."""
    consumer = kafka.consumer(settings, "oms-cli-dead-letters", enable_partition_eof=True)
    deadline = monotonic() + timeout
    try:
        topic = consumer.list_topics(TOPIC, timeout=10).topics[TOPIC]
        if topic.error is not None:
            raise KafkaException(topic.error)
        unread = set(topic.partitions)
        consumer.assign([TopicPartition(TOPIC, partition, OFFSET_BEGINNING) for partition in unread])
        while unread:
            if monotonic() >= deadline:
                raise TimeoutError(f"{TOPIC} could not be read to its end within {timeout:g} s")
            record = consumer.poll(1)
            if record is None:
                continue
            error = record.error()
            if error is None:
                at = datetime.fromtimestamp(record.timestamp()[1] / 1000, UTC)
                try:
                    message = decode(record.value())
                except Undecodable as error_:
                    log.warning("no letter at %s/%s/%s: %s", TOPIC, record.partition(), record.offset(), error_)
                    continue
                if isinstance(message, Message):
                    yield message, at
            elif error.code() == KafkaError._PARTITION_EOF:
                unread.discard(record.partition())
            elif error.fatal() or not error.retriable():
                raise KafkaException(error)
    finally:
        consumer.close()


def _bytes(value: bytes | str | None) -> bytes:
    if value is None:
        return b""
    return value.encode() if isinstance(value, str) else value
