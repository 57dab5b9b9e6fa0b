"""Runs a worker: messages in, a call to the outside world for each, results out. At least once.

    def run(settings: Settings, name: str) -> None:
        workers.run(settings, name, calls)      # `calls` opens the connections and yields an async handle()

One event loop calls; one thread talks to the consumer, because librdkafka blocks. Messages of one key are handled
one after the other, those of different keys at the same time, at most `concurrency`. An offset is committed when
its message and all those before it in the partition are done: handled, and its results acknowledged by the broker.
So a crash repeats some of them; a handler makes its calls idempotent, and its results' ids repeat.

What can't be handled becomes a dead letter, and the rest goes on (no key is parked here: there is no state).
"""

from __future__ import annotations

import asyncio
import random
import signal
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from itertools import count
from time import monotonic
from typing import Any

import structlog
import uvloop
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from processors.kit import Outgoing, TooLarge
from runtime import dead_letters, health, kafka, topology
from runtime.settings import Settings
from schemas.base import Envelope
from schemas.codec import Undecodable, decode, encode

log = structlog.get_logger(__name__)

Handle = Callable[[Envelope, int], Awaitable[Sequence[Outgoing]]]
"""handle(message, attempt) → results. `attempt` counts from 0, anew in each process. Raises TryLater."""

Calls = Callable[[Settings], AbstractAsyncContextManager[Handle]]

CONCURRENCY = 64
PENDING = 5_000
"""Messages in memory, those that wait for another try among them; at so many, consumption pauses."""
BACKOFF = (0.2, 10.0)
"""Seconds before the first repeat, and at most; doubling, less up to a half by chance."""
MAX_BYTES = 1_000_000
_COMMIT_EVERY = 0.2
_DRAIN = 4.0
_SESSION_TIMEOUT_MS = 10_000
_REJOIN_WITHIN = 30.0
"""Seconds without partitions after the session was lost; then the process ends, to be started again. A client that lost
its coordinator together with its session sometimes never joins again (librdkafka issues 2944, 3396)."""


class TryLater(Exception):
    """Nothing came of it yet: call again after a while. Its key waits, others go on."""


def run(settings: Settings, name: str, calls: Calls, *, concurrency: int = CONCURRENCY) -> None:
    """Run the worker that topology.yaml calls `name` until SIGTERM or SIGINT; then what is in flight gets 4 s.

    Raises:
        KafkaException: the broker refuses what can't be mended by trying again.
    """
    spec = topology.load(settings.topology).workers[name]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, spec, calls, concurrency))


async def _serve(settings: Settings, spec: topology.Worker, calls: Calls, concurrency: int) -> None:
    health.report(spec.name, "starting")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with calls(settings) as handle:
        results = _Results(settings)
        try:
            await _Worker(settings, spec, handle, results, concurrency).run(stop)
        finally:
            results.close()


class _Progress:
    """How far one assigned partition is done. Offsets have gaps (transactions), so it goes by what was delivered."""

    def __init__(self) -> None:
        self.committable: int | None = None
        self.committed: int | None = None
        self.position = 0
        self.revoked = False
        self._open: deque[int] = deque()
        self._done: set[int] = set()

    def started(self, offset: int) -> None:
        self._open.append(offset)
        self.position = offset + 1

    def finished(self, offset: int) -> None:
        self._done.add(offset)
        while self._open and self._open[0] in self._done:
            first = self._open.popleft()
            self._done.remove(first)
            self.committable = self._open[0] if self._open else first + 1


class _Results:
    """An idempotent producer whose acknowledgements can be awaited."""

    def __init__(self, settings: Settings) -> None:
        self._loop = asyncio.get_running_loop()
        self._producer = kafka.producer(settings, message_max_bytes=dead_letters.MAX_BYTES)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, name="results", daemon=True)
        self._thread.start()

    async def send(self, topic: str, key: bytes, value: bytes, headers: list[tuple[str, bytes]]) -> None:
        """Write, and return when the broker has it. KafkaException when it never will."""
        future: asyncio.Future[None] = self._loop.create_future()

        def settle(error: KafkaError | None) -> None:
            if future.done():
                return
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(KafkaException(error))

        def delivered(error: KafkaError | None, _: object) -> None:
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(settle, error)

        self._producer.produce(topic, key=key, value=value, headers=headers, on_delivery=delivered)
        await future

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._producer.flush(0.5)

    def _poll(self) -> None:
        while not self._stop.is_set():
            self._producer.poll(0.1)


class _Worker:
    def __init__(
        self, settings: Settings, spec: topology.Worker, handle: Handle, results: _Results, concurrency: int
    ) -> None:
        self._name = spec.name
        self._inputs = spec.inputs
        self._outputs = frozenset(spec.outputs)
        self._group = spec.group
        self._instance = f"{spec.group}-{settings.slot}"
        self._settings = settings
        self._handle = handle
        self._results = results
        self._slots = asyncio.Semaphore(concurrency)
        self._partitions: dict[tuple[str, int], _Progress] = {}
        self._queues: dict[Hashable, deque[tuple[Any, _Progress]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._pending = 0
        self._waiting = 0
        self._busy = 0
        self._idle = asyncio.Event()
        self._stopping = False
        self._paused = False
        self._newly_assigned = False
        self._stuck = 0
        self._lost_at: float | None = None
        self._broken: BaseException | None = None
        self._trouble: str | None = None

    async def run(self, stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="consumer") as thread:
            consumer = await loop.run_in_executor(thread, self._open)
            try:
                next_commit = next_report = monotonic()
                while not stop.is_set() and self._broken is None:
                    for record in await loop.run_in_executor(thread, self._fetch, consumer):
                        self._take(record)
                    now = monotonic()
                    if now >= next_commit:
                        await loop.run_in_executor(thread, self._commit, consumer)
                        next_commit = now + _COMMIT_EVERY
                    if now >= next_report:
                        await loop.run_in_executor(thread, self._report, consumer)
                        next_report = now + 1.0
                await self._drain()
            finally:
                await loop.run_in_executor(thread, self._close, consumer)
        if self._broken is not None:
            raise self._broken

    # On the consumer's thread. The event loop waits for it, or changes `_partitions` only through `_Progress`.

    def _open(self) -> Consumer:
        consumer = kafka.consumer(
            self._settings,
            self._group,
            group_instance_id=self._instance,
            session_timeout_ms=_SESSION_TIMEOUT_MS,
            partition_assignment_strategy="cooperative-sticky",
            enable_partition_eof=True,
            fetch_wait_max_ms=kafka.FETCH_WAIT_MS,
        )
        consumer.subscribe(list(self._inputs), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost)
        return consumer

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            self._partitions[partition.topic, partition.partition] = _Progress()
        self._newly_assigned = True
        self._lost_at = None
        log.info("assigned", partitions=_names(partitions))

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """What is done is committed while the partitions are still ours; what isn't, the next owner repeats."""
        self._commit(consumer)
        self._forget(partitions)

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._lost_at = monotonic()
        self._forget(partitions)

    def _forget(self, partitions: list[TopicPartition]) -> None:
        for partition in partitions:
            self._partitions.pop((partition.topic, partition.partition), _Progress()).revoked = True
        log.info("revoked", partitions=_names(partitions))

    def _fetch(self, consumer: Consumer) -> list[tuple[Any, _Progress]]:
        """Wait up to 0.1 s for a message, and take what has come with it."""
        if self._pending >= PENDING and (not self._paused or self._newly_assigned):
            consumer.pause(consumer.assignment())
            self._paused, self._newly_assigned = True, False
        elif self._pending <= PENDING // 2 and self._paused:
            consumer.resume(consumer.assignment())
            self._paused = False
        first = consumer.poll(0.1)
        if first is None:
            return []
        taken = []
        for record in [first, *consumer.consume(255, 0)]:
            error = record.error()
            if error is not None and error.code() != KafkaError._PARTITION_EOF:
                if error.fatal():
                    raise KafkaException(error)
                self._trouble = error.str()
                log.warning("consumer", error=error.str())
                continue
            self._trouble = None
            progress = self._partitions.get((record.topic(), record.partition()))
            if progress is None:
                continue  # revoked since it was fetched: the next owner gets it
            if error is None:
                progress.started(record.offset())
                taken.append((record, progress))
            else:
                progress.position = record.offset()
        return taken

    def _commit(self, consumer: Consumer) -> None:
        done = {
            place: progress
            for place, progress in self._partitions.items()
            if progress.committable is not None and progress.committable != progress.committed
        }
        if not done:
            return
        offsets = {place: progress.committable for place, progress in done.items()}
        try:
            consumer.commit(
                offsets=[TopicPartition(topic, number, offset) for (topic, number), offset in offsets.items()],
                asynchronous=False,
            )
        except KafkaException as exception:
            if exception.args[0].fatal():
                raise
            # The group is about to be rebalanced, or the broker is away: the next commit, or a repeat, mends it.
            log.warning("commit", error=str(exception))
            return
        for place, progress in done.items():
            progress.committed = offsets[place]

    def _report(self, consumer: Consumer) -> None:
        if self._lost_at is not None and monotonic() - self._lost_at > _REJOIN_WITHIN:
            raise RuntimeError(f"lost its session, and has not joined its group again for {_REJOIN_WITHIN:g} s")
        lag = 0
        for (topic, number), progress in list(self._partitions.items()):
            _, high = consumer.get_watermark_offsets(TopicPartition(topic, number), cached=True)
            lag += max(0, high - progress.position) if progress.position else max(0, high)
        facts: dict[str, Any] = {
            "lag": lag,
            "partitions": len(self._partitions),
            "in_flight": self._pending,
            "waiting": self._waiting,
        }
        # A single repeat is nobody's business; several seconds of it are an outage on the other side.
        self._stuck = self._stuck + 1 if self._waiting else 0
        if self._trouble is not None:
            health.report(self._name, "degraded", reason=self._trouble, **facts)
        elif self._stuck > 3:
            health.report(self._name, "degraded", reason="calls fail and are repeated", **facts)
        else:
            health.report(self._name, "ready" if self._partitions else "starting", **facts)

    def _close(self, consumer: Consumer) -> None:
        self._commit(consumer)
        consumer.close()

    # On the event loop.

    def _take(self, item: tuple[Any, _Progress]) -> None:
        record = item[0]
        key: Hashable = record.key() or (record.topic(), record.partition(), record.offset())
        self._pending += 1
        if key in self._queues:
            self._queues[key].append(item)
            return
        self._queues[key] = deque([item])
        task = asyncio.create_task(self._work(key))
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._broken = task.exception()

    async def _work(self, key: Hashable) -> None:
        """Handle the messages of one key in turn, until there is none left."""
        queue = self._queues[key]
        while queue:
            record, progress = queue[0]
            if not progress.revoked:
                self._count_busy(1)
                try:
                    await self._process(record)
                finally:
                    self._count_busy(-1)
            progress.finished(record.offset())
            queue.popleft()
            self._pending -= 1
        del self._queues[key]

    async def _process(self, record: Any) -> None:
        if not dead_letters.for_me(record.headers(), self._name):
            return
        try:
            message = decode(record.value())
        except Undecodable as error:
            await self._bury(record, "undecodable", error)
            return
        with structlog.contextvars.bound_contextvars(correlation_id=message.correlation_id):
            try:
                outputs = await self._called(message)
                written = [self._encoded(output) for output in outputs]
            except TooLarge as error:
                await self._bury(record, "too_large", error)
            except Exception as error:  # noqa: BLE001  (whatever it is, it goes with the letter)
                await self._bury(record, "failed", error)
            else:
                for one in written:
                    await self._results.send(*one)
                log.info(
                    "handled",
                    topic=record.topic(),
                    type=type(message.data).__name__,
                    id=message.id,
                    wrote=[topic for topic, *_ in written],
                )

    async def _called(self, message: Envelope) -> Sequence[Outgoing]:
        for attempt in count():
            try:
                async with self._slots:
                    if self._stopping:
                        raise asyncio.CancelledError
                    return await self._handle(message, attempt)
            except TryLater as reason:
                if attempt == 0:
                    log.info("will try again", message=message.id, reason=str(reason))
            self._waiting += 1
            self._count_busy(-1)
            try:
                await asyncio.sleep(backoff(attempt))
            finally:
                self._waiting -= 1
                self._count_busy(1)
        raise AssertionError("count() does not end")

    def _encoded(self, output: Outgoing) -> tuple[str, bytes, bytes, list[tuple[str, bytes]]]:
        if output.topic not in self._outputs:
            raise LookupError(f"topology.yaml does not let {self._name} write {output.topic}")
        value = encode(output.message)
        if len(value) > MAX_BYTES:
            raise TooLarge(f"a message to {output.topic} would have {len(value)} bytes")
        return output.topic, output.key.encode(), value, kafka.headers(output.message)

    async def _bury(self, record: Any, reason: str, error: Exception) -> None:
        place = {"topic": record.topic(), "partition": record.partition(), "offset": record.offset()}
        log.error("dead letter", reason=reason, exc_info=error, **place)
        letter = dead_letters.dead_letter(
            processor=self._name,
            **place,
            key=record.key(),
            value=record.value(),
            headers=record.headers(),
            appended_at=datetime.fromtimestamp(record.timestamp()[1] / 1000, UTC),
            reason=reason,
            error=f"{type(error).__name__}: {error}",
        )
        key = dead_letters.letter_key(record.key())
        await self._results.send(dead_letters.TOPIC, key, encode(letter), kafka.headers(letter))

    def _count_busy(self, change: int) -> None:
        """Messages that are being handled, and don't wait for another try."""
        self._busy += change
        if self._busy:
            self._idle.clear()
        else:
            self._idle.set()

    async def _drain(self) -> None:
        """Let calls in flight end; what only waits for another try, or takes too long, the next process repeats."""
        self._stopping = True
        if self._busy:
            try:
                await asyncio.wait_for(self._idle.wait(), _DRAIN)
            except TimeoutError:
                log.warning("calls cut off", count=self._busy)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def backoff(attempt: int) -> float:
    """Seconds to wait after this attempt (from 0)."""
    first, most = BACKOFF
    return min(most, first * 2.0 ** min(attempt, 30)) * random.uniform(0.5, 1)  # noqa: S311


def _names(partitions: list[TopicPartition]) -> list[str]:
    return [f"{partition.topic}/{partition.partition}" for partition in partitions]
