"""Reads from the views in ClickHouse: the statements of `gateway/sql`, over the async client.

Where there are two ClickHouses with the views, the second is asked when the first does not answer, within the same
request, and instead of it until it answers again.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import cache
from typing import Any, TypeVar

import orjson
import structlog

from analytics import kpis
from analytics.statements import statement
from gateway.freshness import Offsets, Reading, include, note, reading, views_in
from gateway.problems import Problem, unavailable
from gateway.server import FAILED, Server
from runtime.settings import Settings
from schemas.order import Order

POLL = 0.05
LOOKING = 0.1
"""Seconds between two looks for orders that somebody waits for, and the share of the time that looking may take: one
look serves everybody who waits."""
LONGEST_PAUSE = 1.0
"""Seconds between two looks at most: one slow look is not to keep everybody waiting for ten times as long."""
POLL_WHEN_DOWN = 0.5
PATIENCE = 5.0
"""Seconds that a statement may take (KPIs may take longer)."""

T = TypeVar("T")

log = structlog.get_logger(__name__)


_COMMENT = re.compile(r"^ *--.*\n", re.MULTILINE)


@cache
def sql(name: str, given: frozenset[str] = frozenset()) -> str:
    """A statement of `gateway/sql`, of what it includes the lines whose parameters are `given`. Comments stay here: the
    embedded engine would parse a statement twice when there is a semicolon in one."""
    return _COMMENT.sub("", statement("gateway", "sql", name, given))


class Views:
    """Every method raises Problem (503) when no ClickHouse answers."""

    def __init__(self, settings: Settings) -> None:
        self.servers = [Server("clickhouse", settings)]
        if (url := settings.clickhouse_replica_url) is not None:
            self.servers.append(Server("clickhouse-replica", settings.model_copy(update={"clickhouse_url": url})))
        self._watch = Watch(self._look)
        self._looked = Reading()

    async def rows(self, statement: str, **parameters: Any) -> list[dict[str, Any]]:
        """The rows of a statement of `gateway/sql` as JSON objects."""
        text = sql(statement, frozenset(parameters))

        async def ask(client: Any) -> bytes:
            async with asyncio.timeout(PATIENCE):
                raw: bytes = await client.raw_query(text, parameters=parameters, fmt="JSONEachRow")
                return raw

        return [orjson.loads(line) for line in (await self._ask(statement, text, ask)).splitlines()]

    async def order(self, order_id: str) -> Order | None:
        """The order as the view has it."""
        rows = await self.rows("order", order_id=order_id)
        return _order(rows[0]) if rows else None

    async def order_id(self, number: str) -> str | None:
        """The order that has this number."""
        rows = await self.rows("order_by_number", number=number)
        return str(rows[0]["order_id"]) if rows else None

    async def orders(self, order_ids: Sequence[str]) -> dict[str, Order]:
        rows = await self.rows("orders_by_id", order_ids=list(order_ids))
        return {row["order_id"]: _order(row) for row in rows}

    async def wait(self, order_id: str, until: Callable[[Order], bool], patience: float) -> Order | None:
        """The order once it is as wanted, or as it is after `patience` seconds, or None when there is none."""
        found = await self._watch.wait(order_id, until, patience)
        include(self._looked)
        return found

    async def _look(self, order_ids: Sequence[str]) -> dict[str, Order]:
        """Of the watch, on behalf of everybody who waits."""
        with reading() as read:
            found = await self.orders(order_ids)
        self._looked = read
        return found

    async def events(self, order_id: str) -> list[dict[str, Any]]:
        return await self.rows("order_events", order_id=order_id)

    async def version_after(self, order_id: str, command_id: str) -> int:
        """The order's version after this command, 0 when it led to no event (yet)."""
        rows = await self.rows("command_version", order_id=order_id, command_id=command_id)
        return int(rows[0]["version"])

    async def kpi(self, name: str, what: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The rows of a KPI, and what can be asked of it, as `analytics.kpis.run` has them."""
        return await self._ask(name, kpis.load()[name].sql, lambda client: kpis.run_async(client, name, what))

    @asynccontextmanager
    async def kpi_stream(self, kpi: kpis.Kpi, what: kpis.Asked) -> AsyncIterator[AsyncIterator[list[kpis.Row]]]:
        """The same in blocks, as they come."""
        async with AsyncExitStack() as open_:

            def ask(client: Any) -> Awaitable[AsyncIterator[list[kpis.Row]]]:
                return open_.enter_async_context(kpis.stream_async(client, kpi, what))

            blocks = await self._ask(kpi.name, kpi.sql, ask)
            with _answering(kpi.name):
                yield blocks

    async def look(self, at: float | None, ends: Offsets) -> None:
        """See which servers answer and how far their views have come (`Server.look`)."""
        await asyncio.gather(*(server.look(at, ends) for server in self.servers))

    @property
    def asked(self) -> Server:
        """The server that the next statement goes to."""
        return self._in_turn()[0]

    async def close(self) -> None:
        self._watch.close()
        for server in self.servers:
            await server.close()

    def _in_turn(self) -> list[Server]:
        """One that is back after a while answers at once, but has not caught up yet."""
        return sorted(self.servers, key=lambda server: (not server.answers, server.behind))

    async def _ask(self, name: str, statement: str, ask: Callable[[Any], Awaitable[T]]) -> T:
        for server in self._in_turn():
            # Before it is asked: what comes into the views meanwhile may or may not be in the answer.
            as_of = server.freshness.as_of(views_in(statement))
            try:
                found = await ask(await server.client())
            except FAILED as error:
                server.failed(name, error)
                continue
            note(statement, as_of)
            return found
        raise _unreadable()


def _unreadable() -> Problem:
    return unavailable("clickhouse-unavailable", "Reading is not possible at the moment.")


@contextmanager
def _answering(statement: str) -> Iterator[None]:
    """While an answer comes, it is too late to ask somebody else."""
    try:
        yield
    except FAILED as error:
        log.warning("ClickHouse stopped answering", statement=statement, error=str(error)[:500])
        raise _unreadable() from error


def _order(row: dict[str, Any]) -> Order:
    return Order.model_validate_json(row["document"])


class Watch:
    """Waits for orders to change in the view. One query per look, for all orders that are waited for."""

    def __init__(self, look: Callable[[Sequence[str]], Any]) -> None:
        self._look = look
        self._waiting: dict[str, list[tuple[Callable[[Order], bool], asyncio.Future[Order]]]] = {}
        self._newest: dict[str, Order] = {}
        self._task: asyncio.Task[None] | None = None

    async def wait(self, order_id: str, until: Callable[[Order], bool], patience: float) -> Order | None:
        future: asyncio.Future[Order] = asyncio.get_running_loop().create_future()
        entry = (until, future)
        self._waiting.setdefault(order_id, []).append(entry)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="watch")
        try:
            await asyncio.wait([future], timeout=patience)
            return future.result() if future.done() else self._newest.get(order_id)
        finally:
            future.cancel()
            self._waiting[order_id].remove(entry)
            if not self._waiting[order_id]:
                del self._waiting[order_id]
                self._newest.pop(order_id, None)

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while self._waiting:
            began = time.monotonic()
            try:
                found = await self._look(list(self._waiting))
            except Exception as error:  # noqa: BLE001  (whoever waits is told, whatever it is)
                for entries in self._waiting.values():
                    for _, future in entries:
                        if not future.done():
                            future.set_exception(error)
                await asyncio.sleep(POLL_WHEN_DOWN)
                continue
            for order_id, order in found.items():
                entries = self._waiting.get(order_id, [])
                if entries:
                    self._newest[order_id] = order
                for until, future in entries:
                    if not future.done() and until(order):
                        future.set_result(order)
            # The more it costs, the less often.
            took = time.monotonic() - began
            await asyncio.sleep(min(LONGEST_PAUSE, max(POLL, took * (1 - LOOKING) / LOOKING)))
