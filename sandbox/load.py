"""The load generator of `oms bench`, a process of its own: `python -m sandbox.load '{…}'` (the fields of Load as JSON)
drives a stack once and writes the result (fields of Result) to stdout as JSON.

Open loop, evenly spaced; every order is one request (create with submit) with an ordinary card, so that all of them
must come to be paid.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import psutil
import uvloop

from analytics.clickhouse import connect
from gateway.auth import issue
from runtime.stack import read_report, stack_settings
from sandbox.catalogue import catalogue
from sandbox.client import Refused, session
from sandbox.people import Customer, Persona, Visit, arrivals, plan
from sandbox.shop import Shop, open_loop
from sandbox.tally import percentile

GENERATOR = "load generator"


@dataclass(frozen=True)
class Load:
    """`rate`: orders a second, for `seconds`; `reads`: GETs by id a second. So many orders a second are `followed` to
    PAYMENT_CONFIRMED one by one, at most; the others are counted in the view. `seed` also names the customers."""

    data_dir: str
    url: str
    rate: float
    seconds: float
    seed: int
    reads: float = 20.0
    followed: float = 20.0
    drain_seconds: float = 60.0


@dataclass
class Result:
    """Times in seconds; `create`, `read` and `paid` as percentiles {"p50", "p95", "p99", "max", "count"}."""

    rate: float
    seconds: float
    accepted: int = 0
    paid: int = 0
    """Paid and visible in the view when all were, or when we lost patience."""
    lost: int = 0
    """Accepted, and not paid in the view at the end."""
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    """The first of them."""
    retries: int = 0
    missed_reads: int = 0
    """Orders placed a second before and not in the view yet, or nobody there to ask."""
    drained_after: float = 0.0
    """From the last order's arrival until all were visible as paid."""
    placements_per_second: float = 0.0
    """Paid and visible ÷ time from the first arrival until the last was visible."""
    most_requests_at_once: int = 0
    generator_late: dict[str, float] = field(default_factory=dict)
    """How much later than due the generator itself began requests: if this is large, it was the bottleneck."""
    create: dict[str, float] = field(default_factory=dict)
    read: dict[str, float] = field(default_factory=dict)
    create_to_paid: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    """By process, over the whole run."""
    memory_mb: dict[str, float] = field(default_factory=dict)
    restarted: list[str] = field(default_factory=list)
    """Processes that were replaced meanwhile; their CPU time is not whole."""

    @property
    def cpu_ms_per_order(self) -> dict[str, float]:
        return {name: seconds / max(1, self.accepted) * 1000 for name, seconds in self.cpu_seconds.items()}

    @property
    def kept_up(self) -> bool:
        """Nothing was lost or failed, and no queue had built up."""
        return not self.lost and not self.failed and self.drained_after < 2.0 and self.create["p95"] < 1.0


class Run:
    """One load on one stack."""

    def __init__(self, load: Load, client: aiohttp.ClientSession) -> None:
        settings = stack_settings(Path(load.data_dir))
        self._load = load
        life = timedelta(hours=2)
        self._shop = Shop(
            client,
            load.url,
            lambda who: issue(settings, customer=who, ttl=life),
            f"bench-{load.seed}",
            whole_lives=False,
        )
        self._clickhouse = connect(settings)
        self._chance = random.Random(load.seed)  # noqa: S311
        self._placed: list[tuple[float, Customer, str]] = []
        self._late: list[float] = []
        self._reading: list[float] = []
        self._now = self._most = 0
        self._result = Result(load.rate, load.seconds)

    async def run(self) -> Result:
        load, result, tally = self._load, self._result, self._shop.tally
        count = round(load.rate * load.seconds)
        plenty = [product for product in catalogue() if not product.scarce]
        visits = list(plan(load.seed, count, plenty, {Persona.BUYS_AT_ONCE: 1.0}, customers=max(50, count // 4)))
        self._shop.warm(visit.customer for visit in visits)
        before = processes(Path(load.data_dir))
        began = time.perf_counter()
        reading = asyncio.create_task(self._read_now_and_then())
        await open_loop(visits, arrivals(load.rate, count), self._place)
        last_arrival = began + (count - 1) / load.rate
        reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await reading
        ended = await self._drain()
        after = processes(Path(load.data_dir))
        result.accepted = len(tally.orders)
        result.lost = result.accepted - result.paid
        result.failed, result.failures = len(tally.failures), tally.failures[:20]
        result.retries = tally.retries
        result.drained_after = max(0.0, ended - last_arrival)
        result.placements_per_second = result.paid / (ended - began)
        result.most_requests_at_once = self._most
        result.generator_late = percentiles(self._late)
        result.create, result.read = percentiles(tally.create), percentiles(self._reading)
        result.create_to_paid = percentiles(tally.paid)
        result.restarted = sorted(name for name in before if name not in after or after[name].pid != before[name].pid)
        for name, usage in after.items():
            since = before.get(name)
            result.cpu_seconds[name] = usage.cpu - (since.cpu if since and since.pid == usage.pid else 0.0)
            result.memory_mb[name] = usage.memory_mb
        return result

    async def _place(self, visit: Visit, due: float) -> None:
        self._late.append(time.perf_counter() - due)
        self._now += 1
        self._most = max(self._most, self._now)
        try:
            order = await self._shop.create(visit, due)
        except (Refused, aiohttp.ClientError, TimeoutError) as error:
            self._shop.tally.failures.append(f"{type(error).__name__}: {error}")
            return
        finally:
            self._now -= 1
        self._placed.append((time.perf_counter(), visit.customer, order["id"]))
        if self._load.followed and visit.number % max(1, round(self._load.rate / self._load.followed)) == 0:
            await self._follow(visit, order, due)

    async def _follow(self, visit: Visit, order: dict[str, Any], due: float) -> None:
        try:
            await self._shop.follow(visit.customer, order)
        except (Refused, aiohttp.ClientError, TimeoutError) as error:
            self._shop.tally.failures.append(f"{type(error).__name__}: {error}")
        else:
            self._shop.tally.paid.append(time.perf_counter() - due)

    async def _read_now_and_then(self) -> None:
        """GET an order that was placed at least a second ago, at the load's rate of reads."""
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for after in arrivals(self._load.reads, round(self._load.reads * (self._load.seconds + 60))):
                due = began + after
                await asyncio.sleep(max(0.0, due - time.perf_counter()))
                for _ in range(10):
                    if not self._placed:
                        break
                    at, customer, order_id = self._chance.choice(self._placed)
                    if at < due - 1.0:
                        group.create_task(self._read(customer, order_id, due))
                        break

    async def _read(self, customer: Customer, order_id: str, due: float) -> None:
        try:
            found = await self._shop.read(customer, order_id)
        except (Refused, aiohttp.ClientError, TimeoutError) as error:
            self._shop.tally.failures.append(f"{type(error).__name__}: {error}")
            return
        if found is None:
            self._result.missed_reads += 1
        else:
            self._reading.append(time.perf_counter() - due)

    async def _drain(self) -> float:
        """When (perf_counter) every order accepted was visible as paid, or when patience ended."""
        query = files(__package__).joinpath("sql/visible.sql").read_text()
        customers = {"customers": f"shopper-{self._load.seed}-"}
        until = time.perf_counter() + self._load.drain_seconds
        while True:
            answer = await asyncio.to_thread(self._clickhouse.query, query, parameters=customers)
            now = time.perf_counter()
            _visible, self._result.paid = answer.result_rows[0]
            if self._result.paid >= len(self._shop.tally.orders) or now > until:
                return now
            await asyncio.sleep(0.05)


@dataclass(frozen=True)
class Usage:
    """`cpu`: user and system seconds so far, with child processes (Kafka's JVM is one)."""

    pid: int
    cpu: float
    memory_mb: float


def processes(data_dir: Path) -> dict[str, Usage]:
    """CPU and memory of every process of the stack, by name (and slot, unless 0), and of this one."""
    found = {GENERATOR: _usage(psutil.Process())}
    report = read_report(data_dir)
    for child in report.children.values() if report else ():
        name = child["name"] if not child["slot"] else f"{child['name']}-{child['slot']}"
        with contextlib.suppress(psutil.NoSuchProcess):
            if child["pid"] is not None:
                found[name] = _usage(psutil.Process(child["pid"]))
    return found


def _usage(process: psutil.Process) -> Usage:
    cpu = memory = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            with one.oneshot():
                times, resident = one.cpu_times(), one.memory_info().rss
        except psutil.NoSuchProcess:  # a helper that has just ended
            continue
        cpu += times.user + times.system
        memory += resident / 1e6
    return Usage(process.pid, cpu, memory)


def ended_children() -> float:
    """CPU seconds of all processes that this one started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def percentiles(values: list[float]) -> dict[str, float]:
    """P50, P95, P99 and the maximum in seconds, and how many there were. All 0 when there were none."""
    if not values:
        return {"p50": 0.0, "p95": 0.0, "p99": 0.0, "max": 0.0, "count": 0}
    return {
        **{f"p{percent}": percentile(values, percent) for percent in (50, 95, 99)},
        "max": max(values),
        "count": len(values),
    }


def parse(result: Mapping[str, Any]) -> Result:
    return Result(**result)


async def _main(load: Load) -> Result:
    async with session() as client:
        return await Run(load, client).run()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as _runner:
        _found = _runner.run(_main(Load(**orjson.loads(sys.argv[1]))))
    sys.stdout.write(orjson.dumps(asdict(_found)).decode() + "\n")
