"""The topology of topology.yaml in memory: the real handlers in the real runner (decoding, dead letters, parking),
real bytes between them, a clock that a test moves, and a seeded scheduler that picks who goes next, so that a run
can be repeated and every interleaving across topics that Kafka allows can happen.

Only what lies beyond a port is replaced: the log (lists), the state store (dicts), and the payment provider's HTTP.
"""

from __future__ import annotations

import contextvars
import importlib
import random
from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from quixstreams.context import set_message_context
from quixstreams.models import MessageContext

from processors.kit import Handler, Outgoing
from runtime import dead_letters, kafka, topology
from runtime.settings import Settings
from runtime.streams import Runner
from schemas import policy
from schemas.base import Envelope, Message
from schemas.codec import Undecodable, decode, encode
from schemas.policy import Policy
from schemas.timers import Tick
from tests.simulation.bank import Bank
from tests.simulation.logistics import Logistics
from tests.support.examples import T0

PARTITIONS = 4


@dataclass
class Written:
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    at: datetime

    @property
    def message(self) -> Envelope | None:
        try:
            return decode(self.value)
        except Undecodable:
            return None


class Store:
    """quixstreams' state under one key, as far as the runner uses it."""

    def __init__(self, entries: dict[str, bytes]) -> None:
        self._entries = entries

    def get_bytes(self, key: str) -> bytes | None:
        return self._entries.get(key)

    def set_bytes(self, key: str, value: bytes, ttl: timedelta | None = None) -> None:
        self._entries[key] = value

    def delete(self, key: str) -> None:
        self._entries.pop(key, None)


@dataclass
class Consumer:
    """A processor or worker with its position on each partition that it reads."""

    name: str
    inputs: tuple[str, ...]
    runner: Runner | None
    positions: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))
    state: dict[bytes, dict[str, bytes]] = field(default_factory=lambda: defaultdict(dict))


class World:
    """`seed` decides every interleaving. Without `logistics` nobody answers warehouse and carrier commands. `rules`:
    the shop's policy, else that of the settings."""

    def __init__(
        self,
        seed: int = 1,
        settings: Settings | None = None,
        logistics: Logistics | None = None,
        rules: Policy | None = None,
    ) -> None:
        self.topology = _topology()
        rules = rules or (policy.load(settings.policy).scaled(settings.time_scale) if settings else _shipped())
        self.random = random.Random(seed)
        self.now = T0
        self.bank = Bank()
        self.log: dict[str, list[list[Written]]] = {
            topic: [[] for _ in range(PARTITIONS)] for topic in self.topology.topics
        }
        self.consumers = [
            Consumer(
                name,
                spec.inputs,
                Runner(
                    name,
                    _handler(spec.handler, rules),
                    [*spec.outputs, dead_letters.TOPIC],
                    parks=dead_letters.parks(self.topology, name),
                ),
            )
            for name, spec in self.topology.processors.items()
        ]
        self.consumers.append(Consumer("payment", ("payment.commands",), None))
        self.logistics = logistics or Logistics()
        if logistics is not None:
            self.consumers.append(Consumer("logistics", ("warehouse.commands", "shipping.commands"), None))
        self.frozen: set[str] = set()

    # Writing and reading

    def write(self, topic: str, key: str | bytes | None, value: Envelope | bytes | None) -> None:
        raw_key = key.encode() if isinstance(key, str) else key
        raw = value if value is None or isinstance(value, bytes) else encode(value)
        headers = [] if value is None or isinstance(value, bytes) else kafka.headers(value)
        self._append(topic, raw_key, raw, headers)

    def _append(self, topic: str, key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
        partition = kafka.partition_of(key or b"", PARTITIONS)
        self.log[topic][partition].append(Written(key, value, headers, self.now))

    def records(self, topic: str) -> list[Written]:
        return [record for partition in self.log[topic] for record in partition]

    def messages(self, topic: str, key: str | None = None) -> list[Any]:
        """Payloads on a topic (of one key), in order within a key."""
        wanted = None if key is None else key.encode()
        found = [r for r in self.records(topic) if wanted is None or r.key == wanted]
        return [r.message.data for r in found if r.message is not None]

    # Running

    def step(self) -> bool:
        """One message to one consumer, chosen by the seed; False when there is nothing to do."""
        ready = [
            (consumer, topic, partition)
            for consumer in self.consumers
            if consumer.name not in self.frozen
            for topic in consumer.inputs
            for partition in range(PARTITIONS)
            if consumer.positions[topic, partition] < len(self.log[topic][partition])
        ]
        parcels = [] if "logistics" in self.frozen else self.logistics.busy()
        if not ready and not parcels:
            return False
        if parcels and self.random.randrange(len(ready) + len(parcels)) >= len(ready):
            self._write(self.logistics.step(self.random.choice(parcels), self.now))
        else:
            self._deliver(*self.random.choice(ready))
        return True

    def _deliver(self, consumer: Consumer, topic: str, partition: int) -> None:
        offset = consumer.positions[topic, partition]
        record = self.log[topic][partition][offset]
        consumer.positions[topic, partition] = offset + 1
        if consumer.runner is None:
            self._write(self._answers(consumer.name, record))
            return
        store = Store(consumer.state[record.key or b""])
        context = contextvars.copy_context()
        context.run(set_message_context, MessageContext(topic=topic, partition=partition, offset=offset, size=0))
        stamp = round(record.at.timestamp() * 1000)
        for out in context.run(consumer.runner, record.value, record.key, stamp, record.headers, store):
            self._append(out.topic, out.key, out.value, out.headers)

    def _answers(self, worker: str, record: Written) -> list[Outgoing]:
        message = record.message
        assert isinstance(message, Message)
        outside = self.bank if worker == "payment" else self.logistics
        return outside.handle(message, self.now)

    def _write(self, outputs: list[Outgoing]) -> None:
        for output in outputs:
            self.write(output.topic, output.key, output.message)

    def settle(self, limit: int = 200_000) -> None:
        """Run until nobody has anything to do."""
        for _ in range(limit):
            if not self.step():
                return
        raise AssertionError(f"still busy after {limit} messages")

    def pass_time(self, seconds: float) -> None:
        """Move the clock, tick, and settle."""
        self.tick(seconds)
        self.settle()

    def tick(self, seconds: float) -> None:
        """Move the clock, and tell every shard that ever had a timer."""
        self.now += timedelta(seconds=seconds)
        keys = {record.key for record in self.records("timer.commands")}
        for shard in sorted(int(key) for key in keys if key is not None and key.isdigit()):
            tick: Message[Any] = Message(
                id=f"tick-{shard}-{self.now.timestamp()}",
                at=self.now,
                actor="system:timers",
                correlation_id="tick",
                data=Tick(source="world"),
            )
            self.write("timer.ticks", str(shard), tick)


def _handler(place: str, rules: Policy) -> Handler:
    module, _, name = place.partition(":")
    made: Handler = getattr(importlib.import_module(module), name)(rules)
    return made


@cache
def _topology() -> topology.Topology:
    return topology.load()


@cache
def _shipped() -> Policy:
    """Reading it takes longer than most lives."""
    return policy.load()
