"""What a processor reads of imported orders (topology.yaml: history), on a real broker."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from processors.kit import Incoming, Outgoing, State
from runtime import dead_letters, kafka, streams, topology
from runtime.settings import Settings
from schemas import events as e
from schemas.base import Event
from schemas.codec import encode
from tests.support.examples import ORDER, imported

KEY = ORDER.encode()

HISTORY = imported(3, e.OrderShipped(shipments=("s",)))
END = imported(4, e.OrderImported(source="old", external_id="4711"))
LATER = imported(5, e.OrderSurveyAnswered(score=5), imported=False)
FROM_BEFORE = imported(2, e.OrderDelivered(shipments=("s",)))
"""Imported before there was such a header."""


@pytest.fixture(scope="module")
def written(broker: Settings) -> Settings:
    producer = kafka.producer(broker)
    for message in (HISTORY, END, LATER):
        producer.produce("order.events", key=KEY, value=encode(message), headers=kafka.headers(message))
    plain = [header for header in kafka.headers(FROM_BEFORE) if header[0] != kafka.HISTORY]
    producer.produce("order.events", key=KEY, value=encode(FROM_BEFORE), headers=plain)
    retried = [*kafka.headers(HISTORY), *_retry("returns")]
    producer.produce("order.events", key=KEY, value=encode(HISTORY), headers=retried)
    assert producer.flush(20) == 0
    return broker


def _retry(processor: str) -> list[tuple[str, bytes]]:
    batch = {"letter": b"l", "processor": processor.encode(), "batch": b"b", "count": b"1", "last": b"1"}
    return [(f"oms-dlq-{name}", value) for name, value in batch.items()]


@pytest.mark.parametrize(
    ("name", "heard"),
    [
        ("notices", [END, LATER, FROM_BEFORE]),
        ("fulfilment", [END, LATER, FROM_BEFORE]),
        ("placement", [END, LATER, FROM_BEFORE]),
        ("reconciliation", [LATER, FROM_BEFORE]),
        ("returns", [LATER, FROM_BEFORE, HISTORY]),  # its own letter, retried, is not passed by
    ],
)
def test_a_processor_reads_of_imported_orders_what_topology_says(
    written: Settings, name: str, heard: list[Event[Any]]
) -> None:
    everything = topology.load()
    spec = everything.processors[name]
    found = []

    def handler(state: State, incoming: Incoming) -> Iterable[Outgoing]:
        found.append(incoming.message)
        state.set("heard", len(found))
        return []

    runner = streams.Runner(
        name, handler, [*spec.outputs, dead_letters.TOPIC], parks=False, lays_aside=spec.history == "end"
    )
    app = streams.application(written, everything, name, runner)
    app.run(timeout=3)
    assert found == heard
    partition = kafka.partition_of(KEY, everything.partitions("embedded"))
    consumer = kafka.consumer(written, everything.group(name))
    try:
        (at,) = kafka.committed(consumer, [kafka.TopicPartition("order.events", partition)])
        _, end = consumer.get_watermark_offsets(at, timeout=20)
    finally:
        consumer.close()
    assert end - at.offset <= 1, "what is passed by is behind it all the same"
