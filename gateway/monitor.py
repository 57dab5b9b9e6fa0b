"""Looks after the gateway's dependencies, so that /readyz, the metrics and the supervisor's report cost no request
anything: each answers from the last look."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog
from confluent_kafka import KafkaException, TopicPartition

from gateway.call import Parts
from gateway.freshness import TOPICS, Offsets
from gateway.roles import Role
from runtime import health, kafka, stack
from runtime.feed import Feed

LOOK = 1.0
"""Seconds between looks."""
KAFKA_TIMEOUT = 1.5

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Condition:
    """How a dependency is. Without a `needed` one this gateway can't do what its role is: take commands, or read."""

    ready: bool
    needed: bool
    detail: str


class Monitor:
    """`on_dead` is called when a thread that nothing works without has ended by a bug."""

    def __init__(self, parts: Parts, name: str, on_dead: Callable[[], None]) -> None:
        self._parts = parts
        self._name = name
        self._commands = parts.role is not Role.QUERY
        self._on_dead = on_dead
        self._admin = kafka.admin(parts.settings)
        self.conditions: dict[str, Condition] = {}
        self._started_well = False

    @property
    def ready(self) -> bool:
        return bool(self.conditions) and all(c.ready for c in self.conditions.values() if c.needed)

    async def run(self) -> None:
        while True:
            began = time.monotonic()
            await self.look()
            await asyncio.sleep(max(0.1, LOOK - (time.monotonic() - began)))

    async def look(self) -> None:
        parts = self._parts
        broker, (at, ends), crash_loops = await asyncio.gather(
            asyncio.to_thread(self._kafka), asyncio.to_thread(self._ends), asyncio.to_thread(self._crash_loops)
        )
        await parts.views.look(at, ends)
        feeds = parts.feeds()
        readable = any(server.answers for server in parts.views.servers)
        self.conditions = {
            "kafka": broker,
            **{name: self._following(feed) for name, feed in feeds.items()},
            "processes": crash_loops,
            **{
                server.name: Condition(
                    server.answers,
                    not self._commands and not readable,
                    "answers" if server.answers else "does not answer",
                )
                for server in parts.views.servers
            },
        }
        metrics = parts.metrics
        metrics.waiting.set(parts.bus.waiting)
        for name, feed in feeds.items():
            metrics.lag.labels(name).set(feed.lag)
        for view, seconds in parts.views.asked.freshness.lags():
            metrics.view_lag.labels(view).set(seconds)
        for name, condition in self.conditions.items():
            metrics.ready.labels(name).set(condition.ready)
        dead = not all(feed.alive for feed in feeds.values())
        await asyncio.to_thread(health.report, self._name, self._state(dead), of=parts.settings, **self._facts())
        if dead:
            log.critical("a feed's thread has ended")
            self._on_dead()

    def _state(self, dead: bool) -> health.State:
        if dead:
            return "failed"
        # Crash loops are the supervisor's own news; it needn't hear them from us.
        fine = [c.ready for name, c in self.conditions.items() if name != "processes"]
        if all(fine):
            self._started_well = True
            return "ready"
        return "degraded" if self._started_well else "starting"

    def _facts(self) -> dict[str, Any]:
        waiting = [name for name, condition in self.conditions.items() if not condition.ready]
        return {
            "lag": sum(feed.lag for feed in self._parts.feeds().values()),
            "waiting": self._parts.bus.waiting,
            "not_ready": waiting,
        }

    def _kafka(self) -> Condition:
        try:
            brokers = self._parts.bus.producer.list_topics("order.commands", timeout=KAFKA_TIMEOUT).brokers
        except KafkaException as error:
            return Condition(False, self._commands, str(error.args[0].str()))
        return Condition(True, self._commands, f"{len(brokers)} broker(s)")

    def _ends(self) -> tuple[float | None, Offsets]:
        """(when they were asked for, the ends of the topics that views are made of); None when Kafka does not say:
        then what is read only grows older."""
        try:
            topics = self._admin.list_topics(timeout=KAFKA_TIMEOUT).topics
            if not topics.keys() >= TOPICS:
                return None, {}
            partitions = [TopicPartition(topic, number) for topic in TOPICS for number in topics[topic].partitions]
            at = time.monotonic()
            ends: dict[str, dict[int, int]] = {topic: {} for topic in TOPICS}
            for (topic, number), end in kafka.ends(self._admin, partitions, timeout=KAFKA_TIMEOUT).items():
                ends[topic][number] = end
            return at, ends
        except KafkaException:
            return None, {}  # the condition of Kafka says so

    def _following(self, feed: Feed) -> Condition:
        if not feed.caught_up.is_set():
            return Condition(False, self._commands, "still reading")
        return Condition(True, self._commands, f"{feed.lag} message(s) behind")

    def _crash_loops(self) -> Condition:
        report = stack.read_report(self._parts.settings.data_dir)
        if report is None:
            return Condition(True, self._commands, "no supervisor here")
        if report.crash_loops:
            return Condition(False, self._commands, f"crash loop: {', '.join(report.crash_loops)}")
        return Condition(True, self._commands, "no crash loop")
