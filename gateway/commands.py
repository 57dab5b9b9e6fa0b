"""The command bus: writes commands to Kafka and waits for their committed outcomes.

A reply is matched by command id. Duplicates in one gateway share the first one's wait; one with another body waits
until the first is settled and then asks for itself.
"""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog
from confluent_kafka import KafkaError, KafkaException

from gateway.problems import Problem, unavailable
from runtime import dead_letters, kafka
from runtime.feed import Feed, Received, from_now
from runtime.settings import Settings
from schemas.base import Command, Message
from schemas.codec import encode
from schemas.replies import CommandOutcome, PromotionOutcome, StockOutcome

REPLIES = "order.replies"
IN_FLIGHT = 20_000
"""Commands that may wait at once; more is a sign that nobody answers."""
LATE = 10_000
"""Outcomes remembered that came after their request had been answered with 202."""

Outcome = CommandOutcome | PromotionOutcome | StockOutcome
log = structlog.get_logger(__name__)


@dataclass(slots=True, eq=False)
class InFlight:
    """A command on its way. `written` resolves when Kafka has it, `outcome` when its reply is here (and is cancelled
    when nobody waits for it any more)."""

    body_hash: str | None
    written: asyncio.Future[None]
    outcome: asyncio.Future[Outcome]
    waiting: int = 0


def kafka_unavailable() -> Problem:
    return unavailable(
        "kafka-unavailable",
        "This can't be taken at the moment. Repeat the request with the same Idempotency-Key.",
    )


class Bus:
    """Belongs to one event loop. Start it on that loop; `stop` may block, for a second or two."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # A reply address of this very process: replies to its predecessor are nobody's business any more.
        self.address = f"{settings.gateway_instance}.{secrets.token_hex(4)}"
        key = self.address.encode()
        # Kafka gives up on a command before its request does, so that nothing is answered 202 that isn't written.
        timeout = max(500, int(settings.command_timeout * 800))
        self.producer = kafka.producer(settings, message_timeout_ms=timeout, message_max_bytes=dead_letters.MAX_BYTES)
        self.replies = Feed(
            settings, "replies", self.producer, from_now(REPLIES, key), self._take, wanted=lambda found: found == key
        )
        self._in_flight: dict[str, InFlight] = {}
        self._late: OrderedDict[str, Outcome | None] = OrderedDict()
        self._stop = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="producer", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._poller.start()
        self.replies.start()

    def stop(self) -> None:
        self.replies.stop(timeout=1)
        self._stop.set()
        self._poller.join(timeout=1)
        self.producer.flush(1)

    @property
    def waiting(self) -> int:
        """Commands without an outcome yet."""
        return len(self._in_flight)

    async def ask(
        self, topic: str, key: str, message: Command[Any] | Message[Any], body_hash: str | None, patience: float
    ) -> Outcome | None:
        """The outcome of a command, or None when there is none after `patience` seconds (it will still be done).

        Raises:
            Problem: 503, when Kafka did not take the command.
        """
        entry = await self._send(topic, key, message, body_hash)
        entry.waiting += 1
        try:
            await asyncio.wait([entry.outcome], timeout=patience)
            if entry.outcome.done():
                return entry.outcome.result()
            if not entry.written.done():
                raise kafka_unavailable()
            return None
        finally:
            self._leave(message.id, entry)

    async def tell(self, topic: str, key: str, message: Command[Any] | Message[Any], body_hash: str | None) -> None:
        """Return when Kafka has the command; its outcome can be had from `late`.

        Raises:
            Problem: 503, when Kafka did not take the command.
        """
        entry = await self._send(topic, key, message, body_hash)
        entry.waiting += 1
        try:
            either: list[asyncio.Future[Any]] = [entry.written, entry.outcome]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            self._remember(message.id, entry.outcome.result() if entry.outcome.done() else None)
        finally:
            self._leave(message.id, entry)

    def late(self, command_id: str) -> Outcome | None:
        """An outcome that came after its request had been answered; only those of this process, and the newest."""
        return self._late.get(command_id)

    def produce(self, topic: str, key: str, message: Command[Any] | Message[Any]) -> asyncio.Future[None]:
        """Write any message; the future resolves when Kafka has it and raises Problem when it could not be had."""
        written = self._running().create_future()
        self._produce(topic, key, message, written, None)
        return written

    async def _send(
        self, topic: str, key: str, message: Command[Any] | Message[Any], body_hash: str | None
    ) -> InFlight:
        while (entry := self._in_flight.get(message.id)) is not None:
            if entry.body_hash == body_hash:
                return entry
            await asyncio.wait([entry.outcome])
        if len(self._in_flight) >= IN_FLIGHT:
            raise unavailable("overloaded", "Too many commands wait for their outcome.")
        loop = self._running()
        entry = InFlight(body_hash, loop.create_future(), loop.create_future())
        self._in_flight[message.id] = entry
        try:
            self._produce(topic, key, message, entry.written, entry.outcome)
        except BaseException:
            del self._in_flight[message.id]
            raise
        return entry

    def _leave(self, command_id: str, entry: InFlight) -> None:
        """The last one who waited goes; a later duplicate asks anew."""
        entry.waiting -= 1
        if entry.waiting or self._in_flight.get(command_id) is not entry:
            return
        del self._in_flight[command_id]
        if entry.outcome.cancel():
            self._remember(command_id, None)

    def _remember(self, command_id: str, outcome: Outcome | None) -> None:
        self._late[command_id] = outcome
        self._late.move_to_end(command_id)
        while len(self._late) > LATE:
            self._late.popitem(last=False)

    def _running(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            raise RuntimeError("the bus was not started")
        return self._loop

    def _produce(
        self,
        topic: str,
        key: str,
        message: Command[Any] | Message[Any],
        written: asyncio.Future[None],
        outcome: asyncio.Future[Outcome] | None,
    ) -> None:
        value = encode(message)
        try:
            self.producer.produce(
                topic,
                key=key.encode(),
                value=value,
                headers=kafka.headers(message),
                on_delivery=partial(self._on_delivery, written, outcome),
            )
        except BufferError:
            raise kafka_unavailable() from None
        except KafkaException as error:
            log.error("a command can't be produced", topic=topic, error=str(error))
            raise kafka_unavailable() from error

    # In the producer's thread.

    def _poll(self) -> None:
        while not self._stop.is_set():
            self.producer.poll(0.2)

    def _on_delivery(
        self,
        written: asyncio.Future[None],
        outcome: asyncio.Future[Outcome] | None,
        error: KafkaError | None,
        _: Any,
    ) -> None:
        self._running().call_soon_threadsafe(self._delivered, written, outcome, None if error is None else str(error))

    # In the replies' thread.

    def _take(self, batch: Sequence[Received]) -> None:
        outcomes = [
            received.message.data
            for received in batch
            if received.message is not None and isinstance(received.message.data, Outcome)
        ]
        self._running().call_soon_threadsafe(self._resolve, outcomes)

    # On the event loop.

    def _delivered(
        self, written: asyncio.Future[None], outcome: asyncio.Future[Outcome] | None, error: str | None
    ) -> None:
        if error is None:
            if not written.done():
                written.set_result(None)
            return
        log.error("Kafka did not take a command", error=error)
        for future in (written, outcome):
            if future is not None and not future.done():
                future.set_exception(kafka_unavailable())
                future.exception()  # whoever waits raises it; if nobody does, it was logged above

    def _resolve(self, outcomes: Sequence[Outcome]) -> None:
        for found in outcomes:
            entry = self._in_flight.get(found.command_id)
            if entry is not None and not entry.outcome.done():
                entry.outcome.set_result(found)
            if found.command_id in self._late:
                self._remember(found.command_id, found)
