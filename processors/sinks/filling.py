"""Topics → the new tables of a rebuild, from where these are to where the topics end: as fast as one process can.

Messages are read and rows are made by the functions that the sink uses. While one batch is written, the next is read. A
row that is written twice, because a rebuild was killed before its progress was, is there once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as Record

from analytics.clickhouse import connect
from runtime import kafka
from runtime.dead_letters import for_me, is_retried
from runtime.errors import UserError
from runtime.keystore import vault
from runtime.settings import Settings
from schemas.codec import decode

from .later import Ends
from .opening import KeysAway, opener
from .tables import Tables
from .views import Making, View, newest

GROUP = "oms-rebuild"
"""It commits nothing and has no members; a consumer must have one."""

_READ = 2_000
"""Messages at a time: more of them are in no cache any more when their turn comes."""
_BATCH = 40_000
"""Messages whose rows are written together."""
_WAIT = 0.2
_MAY_PASS = frozenset({KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN})
_SILENCE = 60.0
"""Seconds without a message, where there are some, after which it is given up."""


class Filling:
    """Where each partition is read, and what has been written. `target`: the table that a view's rows go to now.

    read: messages so far. skipped: of these, the ones that can't be rows; the sink has dead letters of them.
    """

    def __init__(self, settings: Settings, views: Sequence[View], sinks: Sequence[str]) -> None:
        topics = {topic for view in views for topic in view.sources}
        self.positions: Ends = {}
        self.read = self.skipped = 0
        self._views = {topic: [view for view in views if topic in view.sources] for topic in topics}
        self._sinks = frozenset(sinks)
        self._topic_ids: dict[str, str] = {}
        self._open = opener(vault(settings))
        self._tables = Tables(connect(settings))
        self._consumer = kafka.consumer(
            settings,
            GROUP,
            enable_partition_eof=True,
            auto_offset_reset="error",
            queued_min_messages=200_000,
            fetch_message_max_bytes=4_000_000,
        )

    def begin(self, starts: Ends, topic_ids: Mapping[str, str]) -> None:
        """Read from there on."""
        self.positions = dict(starts)
        self._topic_ids = dict(topic_ids)
        self._consumer.assign([TopicPartition(*at, offset) for at, offset in starts.items()])

    def fill(self, ends: Ends, targets: Mapping[str, tuple[str, str]], told: Callable[[], None]) -> None:
        """Until everything before these offsets is in the tables, and that on record. `targets`: view → (its table,
        the name of its progress). `told` is called now and then.

        Raises:
            UserError: Kafka has nothing more to say, though there is something.
            KafkaException, KeysAway, clickhouse_connect.driver.exceptions.Error: fill again, also in a new process.
        """
        batch = _Batch(self._views)
        heard = time.monotonic()
        with ThreadPoolExecutor(1) as writer:
            writing: Future[None] | None = None
            while self._behind(ends):
                if records := self._consumer.consume(_READ, _WAIT):
                    heard = time.monotonic()
                elif time.monotonic() - heard > _SILENCE:
                    raise UserError(f"Kafka has given nothing for {_SILENCE:.0f} s, though the topics go on.")
                for record in records:
                    self._take(record, batch)
                self.positions |= batch.ends
                if batch.messages >= _BATCH or not self._behind(ends):
                    if writing is not None:
                        writing.result()
                    writing = writer.submit(self._write, batch, targets)
                    batch = _Batch(self._views)
                told()
            if writing is not None:
                writing.result()

    def close(self) -> None:
        self._consumer.close()
        self._tables.close()

    def _behind(self, ends: Ends) -> bool:
        return any(self.positions[at] < end for at, end in ends.items())

    def _take(self, record: Record, batch: _Batch) -> None:
        topic = record.topic()
        if (error := record.error()) is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                batch.ends[topic, record.partition()] = record.offset()
            elif error.code() not in _MAY_PASS and not error.retriable():
                raise KafkaException(error)
            return
        batch.ends[topic, record.partition()] = record.offset() + 1
        batch.messages += 1
        self.read += 1
        headers = record.headers()
        if is_retried(headers) and not any(for_me(headers, sink) for sink in self._sinks):
            return
        raw = record.value()
        try:
            batch.making[topic].add(decode(raw), raw, record.timestamp()[1], self._open)
        except KeysAway:
            raise
        except Exception:  # noqa: BLE001  (as the sink, which has written a dead letter of it)
            self.skipped += 1

    def _write(self, batch: _Batch, targets: Mapping[str, tuple[str, str]]) -> None:
        for view in {view.name: view for views in self._views.values() for view in views}.values():
            if rows := batch.rows[view.name]:
                self._tables.insert(targets[view.name][0], view.columns, newest(view, rows))
        self._tables.insert_progress(
            (targets[view.name][1], topic, self._topic_ids[topic], partition, offset)
            for (topic, partition), offset in batch.ends.items()
            for view in self._views[topic]
        )


class _Batch:
    """Rows by view, and what they reach."""

    def __init__(self, views: Mapping[str, Sequence[View]]) -> None:
        self.rows: dict[str, list[Any]] = {view.name: [] for of_topic in views.values() for view in of_topic}
        self.making = {topic: Making(of_topic, topic, self.rows) for topic, of_topic in views.items()}
        self.ends: Ends = {}
        self.messages = 0
