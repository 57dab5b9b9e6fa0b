"""Writes `timer.ticks`: one tick per shard, twice a second, not in any transaction.

A tick says only that time has passed; its time is what the broker stamps on it. So several tickers at once do no
harm, and one that stops delays fires until another one, or itself again, goes on.
"""

from __future__ import annotations

import threading
import uuid
from datetime import UTC, datetime
from time import monotonic

import structlog
from confluent_kafka import KafkaError
from confluent_kafka import Message as Record

from runtime import kafka
from runtime.settings import Settings
from schemas.base import Message
from schemas.codec import encode
from schemas.timers import SHARDS, Tick

EVERY = 0.5  # seconds
TOPIC = "timer.ticks"
log = structlog.get_logger(__name__)


def run(settings: Settings, name: str, stop: threading.Event) -> None:
    """Tick until `stop` is set. While the broker is away ticks are lost, and that is logged; none is kept for
    later, because the next one says all that the lost ones would have."""
    source = f"{name}-{settings.slot}"
    # A tick that can't be written within some seconds is stale. All 64 of a round leave as a batch a partition, and
    # being all the same they compress to next to nothing; with headers and without compression a day has 4 GB, so 0.2.
    producer = kafka.producer(settings, linger_ms=5, compression_type="zstd", message_timeout_ms=5_000)
    lost = 0

    def delivered(error: KafkaError | None, _: Record) -> None:
        nonlocal lost
        if error is not None:
            lost += 1

    due = monotonic()
    while not stop.wait(max(0.0, due - monotonic())):
        due = max(due + EVERY, monotonic())
        tick: Message[Tick] = Message(
            id=str(uuid.uuid4()),
            at=datetime.now(UTC),
            actor=f"system:{name}",
            correlation_id="ticks",
            data=Tick(source=source),
        )
        value = encode(tick)
        for shard in range(SHARDS):
            producer.produce(TOPIC, key=str(shard).encode(), value=value, on_delivery=delivered)
        producer.poll(0)
        if lost:
            log.warning("ticks lost", count=lost)
            lost = 0
    producer.flush(2)
