"""The sink: topics → views in ClickHouse, exactly once in effect.

For every batch, in this order: dead letters, rows, progress, Kafka's own offsets (those for lag only). A process that
dies anywhere in between repeats the batch, and rows are keyed by version. While ClickHouse is away it tries again and
reads no further. Views that nobody waits for are written once a second, each with its progress after its rows, so that
a dozen tables cost little more than the few that people wait for.
"""

from __future__ import annotations

import gc
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar
from zlib import crc32

import structlog
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import DataError, Error, ProgrammingError
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Record
from tenacity import RetryCallState, RetryError, Retrying, retry_if_exception, wait_exponential_jitter
from tenacity.nap import sleep_using_event
from tenacity.stop import stop_when_event_set

from analytics.clickhouse import connect
from analytics.migrate import migrate
from runtime import health, kafka
from runtime.dead_letters import MAX_BYTES, TOPIC, dead_letter, for_me, letter_key
from runtime.errors import UserError
from runtime.keystore import vault
from runtime.settings import Settings
from runtime.topology import load
from schemas.codec import Undecodable, decode, encode

from . import progress
from .later import Ends, Later
from .opening import KeysAway, opener
from .tables import Tables
from .views import VIEWS, Making, View, newest

log = structlog.get_logger(__name__)

BATCH = 10_000
"""Messages in a batch at most: less than half a second of work."""

GATHER = 0.1
MOST_GATHER = 0.3
WRITE_SHARE = 0.1
"""Seconds that a batch waits for company after its first message. It costs six inserts, whatever its size, so under
load it waits until writing is at most this share of the time."""

_IDLE = 0.5
_NAMED = 100

T = TypeVar("T")


class Stopped(Exception):
    """The process was asked to stop while it waited for something."""


def run(settings: Settings, name: str) -> None:
    """Fill the views that topology.yaml gives the sink `name`, until SIGTERM or SIGINT.

    Raises:
        UserError: topics and views don't belong together (one side was wiped or restored), or there is no such topic.
    """
    declared = load(settings.topology).sinks[name]
    views = [VIEWS[view] for view in declared.views]
    if {topic for view in views for topic in view.sources} != set(declared.inputs):
        raise UserError(f"topology.yaml: the views of {name} are made of other topics than its inputs.")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    sink = Sink(settings, name, views, stop)
    try:
        sink.run()
    except Stopped:
        pass
    except UserError as error:
        health.report(name, "failed", error=str(error))
        raise
    finally:
        sink.close()


def run_replica(settings: Settings, name: str) -> None:
    """The same into the second ClickHouse, whose progress is its own.

    Raises:
        UserError: there is none, or as `run`.
    """
    if settings.clickhouse_replica_url is None:
        raise UserError(f"{name} fills a second ClickHouse: say where it is with OMS_CLICKHOUSE_REPLICA_URL.")
    run(settings.model_copy(update={"clickhouse_url": settings.clickhouse_replica_url}), name)


class Sink:
    """One process of a sink: its consumer, its ClickHouse client, and what it tells of itself."""

    def __init__(self, settings: Settings, name: str, views: Sequence[View], stop: threading.Event) -> None:
        self._settings = settings
        self._name = name
        topics = {topic for view in views for topic in view.sources}
        self._views = {topic: [v for v in views if topic in v.sources] for topic in topics}
        self._later = Later([view for view in views if view.relaxed])
        self._stop = stop
        self._open = opener(vault(settings))
        self._client: Client | None = None
        self._tables: Tables | None = None
        self._topic_ids: dict[str, str] = {}
        self._positions: Ends = {}
        self._got_over: Ends = {}  # ends of partitions, behind the markers of transactions, that are not on record yet
        self._revoked = False
        self._state: health.State = "starting"
        self._error: str | None = None
        self._kafka_away: str | None = None
        self._rows = self._letters = 0
        self._gather = GATHER
        self._reported = 0.0
        self._admin = kafka.admin(settings)
        self._producer = kafka.producer(settings, message_max_bytes=MAX_BYTES)
        self._consumer = kafka.consumer(
            settings,
            name,
            group_instance_id=_instance(name, settings.slot, self._views),
            session_timeout_ms=10_000,
            enable_partition_eof=True,
            # How old the views are is known when a fetch has waited and says that there is no more.
            fetch_wait_max_ms=round(GATHER * 1000),
            # We say where to start. An offset that the topic hasn't got is a topic that was wiped, never a reason to
            # begin somewhere else.
            auto_offset_reset="error",
            fetch_queue_backoff_ms=10,
            error_cb=self._on_error,
        )

    def run(self) -> None:
        """Until stopped. Stopped or UserError end it, and whatever is a bug."""
        self._report()
        self._patiently(self._prepare)
        # A batch is many small objects that live for half a second and hold no cycles; the default thresholds cost a
        # third of the whole in collections that find nothing.
        gc.freeze()
        gc.set_threshold(200_000, 20, 20)
        self._consumer.subscribe(list(self._views), on_assign=self._on_assign, on_revoke=self._on_revoke)
        while not self._stop.is_set():
            self._report()
            records = self._read()
            if records or self._got_over:
                self._write(records)
            if self._later.due():
                self._write_later()
        self._write_later()

    def close(self) -> None:
        self._consumer.close()
        if self._client is not None:
            self._client.close()

    # Reading

    def _read(self) -> list[Record]:
        """The next batch; empty when there is nothing to read."""
        # Not one call with a longer timeout: `consume` waits that long for a full batch.
        found = self._consumer.consume(1, _IDLE)
        if found:
            found += self._consumer.consume(BATCH, self._gather)
        if self._revoked:
            self._begin_again()
            return []
        return [record for record in found if record.error() is None or self._heed(record, record.error())]

    def _begin_again(self) -> None:
        """Some of what was just read may be of partitions that were taken from us, and what it followed on is gone."""
        self._revoked = False
        self._got_over.clear()
        if partitions := self._consumer.assignment():
            self._on_assign(self._consumer, partitions)

    def _heed(self, record: Record, error: KafkaError) -> bool:
        """What an error in the place of a message means; False, as it is none."""
        match error.code():
            case KafkaError._PARTITION_EOF:
                at = record.topic(), record.partition()
                if record.offset() > self._positions.get(at, record.offset()):
                    self._got_over[at] = record.offset()
            case KafkaError._FATAL:
                # Another process has our slot, for one: this one must end.
                raise KafkaException(error)
            case KafkaError._AUTO_OFFSET_RESET | KafkaError.UNKNOWN_TOPIC_ID | KafkaError.UNKNOWN_TOPIC_OR_PART:
                self._patiently(self._compare)
                log.warning("topic_error", topic=record.topic(), error=error.str())
                if error.code() == KafkaError._AUTO_OFFSET_RESET:
                    raise KafkaException(error)
            case _:
                log.warning("kafka_error", error=error.str())
        return False

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        starts = self._patiently(self._compare)
        for partition in partitions:
            partition.offset = starts[partition.topic, partition.partition]
            self._positions[partition.topic, partition.partition] = partition.offset
        consumer.assign(partitions)
        self._state = "ready"
        log.info("assigned", partitions=sorted((p.topic, p.partition, p.offset) for p in partitions))

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._later.take()  # whoever has the partitions next reads these messages again
        self._revoked = True
        for partition in partitions:
            self._positions.pop((partition.topic, partition.partition), None)

    def _compare(self) -> dict[tuple[str, int], int]:
        """Where each partition is to be read from, after a look at whether views and topics belong together."""
        starts = {}
        for name, views in self._views.items():
            topic = progress.look_at(self._admin, name)
            self._topic_ids[name] = topic.id
            for partition, offset in progress.starts(self._clickhouse(), [v.name for v in views], topic).items():
                starts[name, partition] = offset
        return starts

    # Writing

    def _write(self, records: list[Record]) -> None:
        began = time.monotonic()
        rows, letters, correlation_ids = self._patiently(lambda: self._rows_of(records))
        if letters:
            self._patiently(lambda: self._bury(letters))
        ends = {(record.topic(), record.partition()): record.offset() + 1 for record in records}
        ends |= {at: end for at, end in self._got_over.items() if end > ends.get(at, 0)}
        self._got_over.clear()
        self._later.add(rows, ends)
        self._insert_all({name: found for name, found in rows.items() if not VIEWS[name].relaxed})
        self._patiently(lambda: self._insert_progress(ends, relaxed=False))
        self._consumer.commit(offsets=[TopicPartition(*at, offset) for at, offset in ends.items()], asynchronous=True)
        self._positions.update(ends)
        seconds = time.monotonic() - began
        self._gather = min(MOST_GATHER, max(GATHER, seconds * (1 - WRITE_SHARE) / WRITE_SHARE))
        if not records:
            return
        log.info(
            "written",
            messages=len(records),
            seconds=round(seconds, 4),
            **({"correlation_ids": sorted(correlation_ids)} if len(correlation_ids) <= _NAMED else {}),
        )

    def _write_later(self) -> None:
        rows, ends = self._later.take()
        if ends:
            self._insert_all(rows)
            self._patiently(lambda: self._insert_progress(ends, relaxed=True))

    def _insert_all(self, rows: Mapping[str, list[Any]]) -> None:
        for name, found in rows.items():
            if found:
                kept = newest(VIEWS[name], found)
                self._patiently(partial(self._insert, VIEWS[name], kept))
                self._rows += len(kept)

    def _rows_of(
        self, records: Iterable[Record]
    ) -> tuple[dict[str, list[Any]], list[tuple[Record, str, str]], set[str]]:
        """(rows by view, (record, reason, error) of each that can't be rows, correlation ids)"""
        rows: dict[str, list[Any]] = {view.name: [] for views in self._views.values() for view in views}
        making = {topic: Making(views, topic, rows) for topic, views in self._views.items()}
        letters: list[tuple[Record, str, str]] = []
        correlation_ids: set[str] = set()
        for record in records:
            if not for_me(record.headers(), self._name):
                continue
            raw = record.value()
            try:
                message = decode(raw)
                making[record.topic()].add(message, raw, record.timestamp()[1], self._open)
            except Undecodable as error:
                letters.append((record, "undecodable", str(error)))
            except KeysAway:
                raise
            except Exception as error:  # noqa: BLE001  (whatever it is, the message does it again each time)
                letters.append((record, "failed", f"{type(error).__name__}: {error}"))
            else:
                correlation_ids.add(message.correlation_id)
        return rows, letters, correlation_ids

    def _bury(self, letters: Iterable[tuple[Record, str, str]]) -> None:
        """Write dead letters and wait for them. One that is written twice has the same id."""
        failed: list[KafkaError] = []
        for record, reason, error in letters:
            letter = dead_letter(
                processor=self._name,
                topic=record.topic(),
                partition=record.partition(),
                offset=record.offset(),
                key=record.key(),
                value=record.value(),
                headers=record.headers(),
                appended_at=datetime.fromtimestamp(record.timestamp()[1] / 1000, UTC),
                reason=reason,
                error=error,
            )
            log.error("dead_letter", letter_id=letter.id, topic=record.topic(), offset=record.offset(), error=error)
            self._producer.produce(
                TOPIC,
                key=letter_key(record.key()),
                value=encode(letter),
                headers=kafka.headers(letter),
                on_delivery=lambda problem, _: failed.append(problem) if problem is not None else None,
            )
            self._letters += 1
        if self._producer.flush(10):
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT, "dead letters were not taken within 10 s"))
        if failed:
            raise KafkaException(failed[0])

    def _insert(self, view: View, rows: Sequence[Any]) -> None:
        self._views_tables().insert(view.table, view.columns, rows)

    def _insert_progress(self, ends: Ends, relaxed: bool) -> None:
        self._views_tables().insert_progress(
            (view.name, topic, self._topic_ids[topic], partition, offset)
            for (topic, partition), offset in ends.items()
            for view in self._views[topic]
            if view.relaxed is relaxed
        )

    def _clickhouse(self) -> Client:
        if self._client is None:
            self._client = connect(self._settings)
        return self._client

    def _views_tables(self) -> Tables:
        if self._tables is None:
            self._tables = Tables(self._clickhouse())
        return self._tables

    def _prepare(self) -> None:
        if fresh := migrate(self._clickhouse()):
            log.info("migrated", migrations=fresh)

    # Waiting, and telling how it is

    def _patiently(self, action: Callable[[], T]) -> T:
        """Try until it works: ClickHouse, Kafka or the key store may be away for as long as they like.

        Raises:
            Stopped: the process was asked to stop meanwhile.
        """
        retrying = Retrying(
            retry=retry_if_exception(_may_pass),
            wait=wait_exponential_jitter(initial=0.1, max=2, jitter=0.1),
            stop=stop_when_event_set(self._stop),
            sleep=sleep_using_event(self._stop),
            before_sleep=self._on_failure,
        )
        try:
            result = retrying(action)
        except RetryError as error:
            raise Stopped from error
        if self._error is not None:
            log.info("recovered", after=self._error)
            self._error = None
            self._report(now=True)
        return result

    def _on_failure(self, attempt: RetryCallState) -> None:
        error = attempt.outcome.exception() if attempt.outcome else None
        text = f"{type(error).__name__}: {error}"
        if self._error is None:
            log.warning("waiting", error=text)
        self._error = text
        self._report()

    def _on_error(self, error: KafkaError) -> None:
        log.warning("kafka_error", error=error.str())
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._kafka_away = error.str()

    def _report(self, now: bool = False) -> None:
        if not now and time.monotonic() - self._reported < 1:
            return
        self._reported = time.monotonic()
        facts: dict[str, Any] = {"lag": self._lag(), "rows": self._rows, "dead_letters": self._letters}
        if error := self._error or self._kafka_error():
            health.report(self._name, "degraded", **facts, error=error)
        else:
            health.report(self._name, self._state, **facts)

    def _kafka_error(self) -> str | None:
        """Why Kafka is away, if it is: a consumer that lost its broker is not told when it has it again."""
        if self._kafka_away is not None:
            try:
                self._consumer.list_topics(timeout=0.5)
            except KafkaException:
                return self._kafka_away
            self._kafka_away = None
        return None

    def _lag(self) -> int:
        """Messages that are on the topics and not in the views, as of the last fetch."""
        lag = 0
        for (topic, partition), position in self._positions.items():
            _, high = self._consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
            lag += max(0, high - position)
        return lag


def _instance(name: str, slot: int, topics: Iterable[str]) -> str:
    """The static member of the group that this process is: started again after a kill, it has its partitions at once.

    The topics are part of it, because the broker gives a member that comes back its old partitions even if it has
    subscribed to more topics now: those of a new topic would be nobody's.
    """
    return f"{name}-{slot}-{crc32(','.join(sorted(topics)).encode()):08x}"


def _may_pass(error: BaseException) -> bool:
    """Whether this error is of a dependency that is away, and not of ours."""
    if isinstance(error, (DataError, ProgrammingError)):
        return False
    return isinstance(error, (Error, KafkaException, OSError, KeysAway))
