"""Runs a processor's handler on quixstreams: one application, one group, one process; exactly once.

The settings that differ from the library's defaults were each measured (docs/decisions/0003-quixstreams.md): the
commit interval bounds every hop's latency, stable transactional and instance ids keep `kill -9` from stalling the
readers downstream, and the concatenated inputs are not aligned by time, because one open transaction anywhere would
stall them all.
"""

from __future__ import annotations

import importlib
import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import orjson
import structlog
from confluent_kafka import TopicPartition
from quixstreams import Application, message_context
from quixstreams.kafka.configuration import ConnectionConfig
from quixstreams.models.serializers import SerializationContext, Serializer
from structlog.typing import FilteringBoundLogger

from processors.kit import Handler, Incoming, Outgoing, TooLarge
from runtime import dead_letters, health, history, kafka, logs
from runtime.errors import UserError
from runtime.settings import Settings
from runtime.topology import Processor, Topology
from schemas import policy
from schemas.base import Event
from schemas.codec import Undecodable, decode, encode

log = structlog.get_logger(__name__)

MAX_BYTES = 1_000_000
"""What a value may have: a Kafka message holds 1 MiB, with its key and headers."""

COMMIT_INTERVAL = 0.02
MOST_COMMIT_INTERVAL = 0.1
BUSY = 200
"""Messages a second at which the commit interval is at its longest. A transaction costs the broker some 3 ms whatever
is in it: a quiet processor commits soon, a busy one fills its transactions."""

UNHURRIED = 1.0
"""Of a transaction without a message: what was read, and what was kept of it, is for this processor alone."""

RELAXED_FETCH = {"fetch.wait.max.ms": 250, "fetch.min.bytes": 1_000_000}
"""Of processors that nobody waits for (topology.yaml: relaxed): they read four times a second, or what is much."""

BEHIND = 100
BEHIND_COMMIT_INTERVAL = 0.25
"""Of a processor that has more than a second's work before it, and at least so many messages. Each of them waits for
those before it anyway. On a busy machine a commit can take longer than the usual interval: the slower a processor went,
the more of its time it would spend committing."""

LINGER_MS = 20
"""A commit flushes, whatever the linger; until then records wait for each other instead of going out one by one."""

QUIET = {"timer.ticks"}
"""Topics whose messages get no line in the log each: a tick is nobody's request."""
TRANSACTION_TIMEOUT_MS = 10_000
SESSION_TIMEOUT_MS = 10_000


class StateFailed(Exception):
    """The state store itself failed: not the message's fault, so the process ends and starts anew."""


@dataclass(frozen=True, slots=True)
class Record:
    """An encoded message on its way out."""

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


class Staged:
    """The state under one key with its writes held back, so that a handler that fails half-way leaves nothing."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._writes: dict[str, tuple[bytes | None, timedelta | None]] = {}

    def get(self, key: str, default: Any = None) -> Any:
        found = self.get_raw(key)
        return default if found is None else orjson.loads(found)

    def get_raw(self, key: str) -> bytes | None:
        if key in self._writes:
            return self._writes[key][0]
        try:
            found: bytes | None = self._store.get_bytes(key)
        except Exception as error:
            raise StateFailed(key) from error
        return found

    def set(self, key: str, value: Any, ttl: timedelta | None = None) -> None:
        self.set_raw(key, orjson.dumps(value), ttl)

    def set_raw(self, key: str, raw: bytes, ttl: timedelta | None = None) -> None:
        if len(raw) > MAX_BYTES:
            raise TooLarge(f"the state entry {key!r} would have {len(raw)} bytes")
        self._writes[key] = (raw, ttl)

    def delete(self, key: str) -> None:
        self._writes[key] = (None, None)

    def flush(self) -> None:
        for key, (raw, ttl) in self._writes.items():
            if raw is None:
                self._store.delete(key)
            else:
                self._store.set_bytes(key, raw, ttl=ttl)


class Runner:
    """Turns a record into records: decode, handle, encode; what can't be processed becomes a dead letter, and with
    `parks` (`dead_letters.parks`) parks its key (rule 13). `lays_aside`: the end of an imported order's history, until
    the order's next message (`runtime.history`). `wrote`: whether there were any records, since somebody last
    looked."""

    def __init__(
        self,
        name: str,
        handler: Handler,
        outputs: Iterable[str],
        *,
        parks: bool = True,
        lays_aside: bool = False,
        log: FilteringBoundLogger | None = None,
    ) -> None:
        self.parks = parks
        self.lays_aside = lays_aside
        self.wrote = False
        self._log = log
        self.name = name
        self.handler = handler
        self.outputs = frozenset(outputs)

    def __call__(self, value: Any, key: Any, timestamp: int, headers: Any, store: Any) -> list[Record]:
        records = self._run(value, key, timestamp, headers, store)
        self.wrote = self.wrote or bool(records)
        return records

    def _run(self, value: Any, key: Any, timestamp: int, headers: Any, store: Any) -> list[Record]:
        retry = dead_letters.retry_of(headers)
        if retry is not None and retry.processor != self.name:
            return []
        if key is None or value is None:
            return [
                self._letter(value, key, timestamp, headers, "undecodable", "no key" if key is None else "no value")
            ]
        state = Staged(store)
        laid_aside = self.lays_aside and history.is_end(headers)
        records = self._process(state, value, key, timestamp, retry, laid_aside)
        if isinstance(records, Failed):
            state = Staged(store)  # nothing that the handler wrote before it failed
            if self.parks:
                dead_letters.park(state, retry)
            records = [self._letter(value, key, timestamp, headers, records.reason, records.error)]
        dead_letters.settle(state, retry)
        state.flush()
        return records

    def _process(
        self,
        state: Staged,
        value: bytes,
        key: bytes,
        timestamp: int,
        retry: dead_letters.Retry | None,
        laid_aside: bool,
    ) -> list[Record] | Failed:
        if retry is not None and retry.discard:
            return []
        if not dead_letters.admits(state, retry):
            return Failed("parked", "an earlier message of this key is a dead letter")
        if laid_aside:
            history.lay_aside(state, value, timestamp)
            return []
        try:
            incoming = Incoming(message_context().topic, key.decode(), decode(value), _time(timestamp))
            records = [
                self._encoded(output)
                for message in [*self._taken_up(state, incoming.key), incoming]
                for output in self.handler(state, message)
            ]
        except (Undecodable, UnicodeDecodeError) as error:
            return self._failed("undecodable", error)
        except TooLarge as error:
            return self._failed("too_large", error)
        except StateFailed:
            raise
        except Exception as error:  # noqa: BLE001
            # Handlers are pure: whatever else they raise is a bug that this very message brings out every time.
            return self._failed("failed", error)
        self._handled(incoming, records)
        return records

    def _taken_up(self, state: Staged, key: str) -> list[Incoming]:
        found = history.take_up(state) if self.lays_aside else None
        return [Incoming("order.events", key, decode(found[0]), _time(found[1]))] if found else []

    def _handled(self, incoming: Incoming, records: list[Record]) -> None:
        if self._log is None or incoming.topic in QUIET:
            return
        message = incoming.message
        if not records and isinstance(message, Event) and message.imported:
            return  # history is nobody's request either
        self._log.info(
            "handled",
            topic=incoming.topic,
            type=type(message.data).__name__,
            key=incoming.key,
            correlation_id=message.correlation_id,
            id=message.id,
            wrote=[record.topic for record in records],
        )

    def _failed(self, reason: str, error: Exception) -> Failed:
        where = message_context()
        log.error(
            "dead letter",
            reason=reason,
            topic=where.topic,
            partition=where.partition,
            offset=where.offset,
            exc_info=error,
        )
        return Failed(reason, f"{type(error).__name__}: {error}")

    def _encoded(self, output: Outgoing) -> Record:
        if output.topic not in self.outputs:
            raise LookupError(f"topology.yaml does not let {self.name} write {output.topic}")
        value = output.value or encode(output.message)
        if len(value) > MAX_BYTES:
            raise TooLarge(f"a message to {output.topic} would have {len(value)} bytes")
        return Record(output.topic, output.key.encode(), value, kafka.headers(output.message))

    def _letter(self, value: Any, key: Any, timestamp: int, headers: Any, reason: str, error: str) -> Record:
        where = message_context()
        letter = dead_letters.dead_letter(
            processor=self.name,
            topic=where.topic,
            partition=where.partition,
            offset=where.offset,
            key=key,
            value=value,
            headers=headers,
            appended_at=_time(timestamp),
            reason=reason,
            error=error,
        )
        return Record(dead_letters.TOPIC, dead_letters.letter_key(key), encode(letter), kafka.headers(letter))


@dataclass(frozen=True, slots=True)
class Failed:
    reason: str
    error: str


def _time(timestamp_ms: int) -> datetime:
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC)


class _Value(Serializer):
    """quixstreams carries our records as they are; only here they become bytes."""

    def __call__(self, value: Record, ctx: SerializationContext) -> bytes:
        return value.value


class Pace:
    """Says when the open transaction ends; called once a message. One that writes messages ends soon, by how many a
    second are read and how many (`lag`) are still to be; one that does not, takes its time."""

    WINDOW = 0.25

    def __init__(self, context: Any, runner: Runner, lag: Callable[[], int]) -> None:
        self._context = context
        self._runner = runner
        self._lag = lag
        self._interval = COMMIT_INTERVAL
        self._count = 0
        self._since = time.monotonic()

    def __call__(self, topic: str, partition: int, offset: int) -> None:
        now = time.monotonic()
        self._count += 1
        seconds = now - self._since
        if seconds >= self.WINDOW:
            self._interval = commit_interval(self._count / seconds, self._lag())
            self._count, self._since = 0, now
        if self._runner.wrote:
            self._runner.wrote = False
            checkpoint = self._context.checkpoint
            due = now - checkpoint._created_at + self._interval
            checkpoint._commit_interval = min(checkpoint._commit_interval, due)


def commit_interval(rate: float, lag: int) -> float:
    """Seconds from the first message that a transaction writes to its end, when so many a second are read and so many
    are still to be."""
    if lag > max(BEHIND, rate):
        return BEHIND_COMMIT_INTERVAL
    return COMMIT_INTERVAL + (MOST_COMMIT_INTERVAL - COMMIT_INTERVAL) * min(1.0, rate / BUSY)


def application(settings: Settings, topology: Topology, name: str, runner: Runner) -> Application:
    """The quixstreams application of a processor, wired but not running."""
    spec = topology.processors[name]
    group = topology.group(name)
    slot = f"{group}-{settings.slot}"
    app = Application(
        broker_address=ConnectionConfig.from_librdkafka_dict(settings.kafka_config()),
        consumer_group=group,
        processing_guarantee="exactly-once",
        auto_offset_reset="earliest",
        commit_interval=UNHURRIED,
        consumer_poll_timeout=0.01,
        auto_create_topics=False,
        state_dir=settings.data_dir / "state" / f"{name}-{settings.slot}",
        loglevel=None,
        auto_recover_from_source_offset_out_of_range=False,
        consumer_extra_config={
            "group.instance.id": slot,
            "session.timeout.ms": SESSION_TIMEOUT_MS,
            "fetch.wait.max.ms": kafka.FETCH_WAIT_MS,
            "isolation.level": "read_committed",
            **(RELAXED_FETCH if spec.relaxed else {}),
        },
        producer_extra_config={
            "transactional.id": slot,
            "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
            "linger.ms": LINGER_MS,
            "partitioner": kafka.PARTITIONER,
            "message.max.bytes": dead_letters.MAX_BYTES,
        },
    )
    wire(app, spec, runner)
    # These are private; the library's version is pinned, and a test fails when one no longer works (rule 2).
    app._on_message_processed = Pace(app._processing_context, runner, lambda: _lag(app, spec)[0])
    app._dataframe_registry._requires_time_alignment = False
    history.pass_by(app, spec.history)
    _ask_beside(app, settings, group)
    return app


def _ask_beside(app: Application, settings: Settings, group: str) -> None:
    """When it gets its partitions, the library asks where each begins and ends. On the connection that it reads from,
    each question waits behind a fetch (`kafka.FETCH_WAIT_MS`): seconds, with two dozen partitions."""
    beside = cache(lambda: kafka.consumer(settings, group))
    known = app._consumer.get_watermark_offsets

    def ask(partition: TopicPartition, timeout: float | None = None, cached: bool = False) -> tuple[int, int]:
        asked = known if cached else beside().get_watermark_offsets
        found: tuple[int, int] = asked(partition, timeout=timeout or 30, cached=cached)
        return found

    app._consumer.get_watermark_offsets = ask  # type: ignore[method-assign]


def wire(app: Application, spec: Processor, runner: Runner) -> None:
    """inputs → runner → the topic that each record names."""
    inputs = [
        app.dataframe(app.topic(topic, key_deserializer="bytes", value_deserializer="bytes"))
        for topic in sorted(spec.inputs)
    ]
    outputs = {
        topic: app.topic(topic, key_serializer="bytes", value_serializer=_Value())
        for topic in [*spec.outputs, dead_letters.TOPIC]
    }
    stream = inputs[0]
    for other in inputs[1:]:
        stream = stream.concat(other)
    stream = stream.apply(runner, stateful=True, expand=True, metadata=True)
    stream = stream.set_headers(lambda record, key, timestamp, headers: record.headers)
    stream.to_topic(lambda record, key, timestamp, headers: outputs[record.topic], key=lambda record: record.key)


def run(settings: Settings, topology: Topology, name: str) -> None:
    """Run a processor until it is told to stop. Blocks the main thread."""
    health.report(name, "starting")
    spec = topology.processors[name]
    outputs = [*spec.outputs, dead_letters.TOPIC]
    runner = Runner(
        name,
        load_handler(settings, spec),
        outputs,
        parks=dead_letters.parks(topology, name),
        lays_aside=spec.history == "end",
        log=logs.operations(name),
    )
    app = application(settings, topology, name, runner)
    refuse_lost_offsets(settings, topology, name)
    stop = threading.Event()
    threads = [threading.Thread(target=_report, args=(app, name, spec, stop), daemon=True)]
    if spec.beside:
        threads.append(threading.Thread(target=_load(spec.beside.run), args=(settings, name, stop), daemon=True))
    for thread in threads:
        thread.start()
    try:
        app.run()
    finally:
        stop.set()
    if app._failed:
        sys.exit(1)


def load_handler(settings: Settings, spec: Processor) -> Handler:
    """The handler that topology.yaml names, made with the shop's policy."""
    made: Handler = _load(spec.handler)(policy.load(settings.policy).scaled(settings.time_scale))
    return made


def _load(place: str) -> Any:
    module, _, attribute = place.partition(":")
    return getattr(importlib.import_module(module), attribute)


def refuse_lost_offsets(settings: Settings, topology: Topology, name: str) -> None:
    """Rule 4: the library restores a changelog only up to the group's committed offset. A changelog partition with
    data whose inputs have no committed offset means that the state would start empty without a word.

    Raises:
        UserError: says which changelog, and what to do.
    """
    looker = kafka.consumer(settings, topology.group(name), enable_partition_eof=True)
    try:
        changelog = topology.processors[name].changelog
        if changelog is None:
            return
        partitions = looker.list_topics(changelog, timeout=30).topics[changelog].partitions
        for partition in partitions:
            inputs = [TopicPartition(topic, partition) for topic in topology.processors[name].inputs]
            if any(found.offset >= 0 for found in kafka.committed(looker, inputs)):
                continue
            if _has_data(looker, changelog, partition):
                raise UserError(
                    f"{name}: its changelog {changelog}[{partition}] holds state, but the group "
                    f"{topology.group(name)} has no committed offset: starting now would begin with empty state. "
                    "Restore the group's offsets, or delete the changelog and replay the inputs on purpose "
                    "(docs/operations.md, “Offsets are lost”)."
                )
    finally:
        looker.close()


def _has_data(looker: Any, topic: str, partition: int) -> bool:
    """Whether there is one committed record; an aborted transaction leaves only markers behind."""
    low, high = looker.get_watermark_offsets(TopicPartition(topic, partition), timeout=30)
    if high <= low:
        return False
    looker.assign([TopicPartition(topic, partition, low)])
    try:
        message = looker.poll(10)
        if message is None:
            raise UserError(f"{topic}[{partition}] could not be read within 10 s; is the broker well?")
        return bool(message.error() is None)  # an error here is the end of the partition
    finally:
        looker.unassign()


def _report(app: Application, name: str, spec: Processor, stop: threading.Event) -> None:
    """Once a second: how far behind, and whether the state is there."""
    while not stop.wait(1.0):
        try:
            facts = _facts(app, spec)
        except Exception as error:  # noqa: BLE001  (a report that fails must not end the processor)
            log.warning("no health report this time", error=str(error))
            continue
        health.report(name, "ready" if facts.pop("ready") else "starting", **facts)


def _facts(app: Application, spec: Processor) -> dict[str, Any]:
    lag, partitions = _lag(app, spec)
    ready = partitions > 0 and not app._state_manager.recovery_required
    return {"ready": ready, "lag": lag, "partitions": partitions}


def _lag(app: Application, spec: Processor) -> tuple[int, int]:
    """(messages that are there and not read yet, partitions), from what the consumer knows anyway."""
    consumer = app._consumer
    mine = [tp for tp in consumer.assignment() if tp.topic in spec.inputs]
    positions = consumer.position(mine) if mine else []
    lag = 0
    for tp in positions:
        low, high = consumer.get_watermark_offsets(tp, timeout=5, cached=True)
        done = tp.offset if tp.offset >= 0 else low
        lag += max(0, high - done) if high >= 0 else 0
    return lag, len(mine)
