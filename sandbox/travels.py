"""Orders on their way: who waits for one keeps nothing busy. A staff list, read now and then, tells of all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sandbox.client import Client

PAUSE = 0.5
LOOKING = 0.2
"""Share of the time that looking may take: the more there is to read, the less often."""
PAGE = 100
YOUNG = timedelta(seconds=45)
"""Orders older than this are asked for one by one: a list that begins with them would hold everybody else's too."""
OLD_PAUSE = 2.0
ASIDE = 8
"""So many of the old ones are asked for at a time."""
ON_THE_WAY = ("PROCESSING", "SHIPPED")
"""Also looked at, so that those who watch see orders move."""


@dataclass
class _Traveller:
    created_at: datetime
    statuses: frozenset[str]
    arrived: asyncio.Future[dict[str, Any]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Travels:
    """`until` waits; the looking begins with the first who waits and ends with the last."""

    def __init__(self, client: Client, notice: Callable[[dict[str, Any]], None]) -> None:
        """`notice` is shown every order that a look finds."""
        self._client = client
        self._notice = notice
        self._waiting: dict[str, _Traveller] = {}
        self._looking: asyncio.Task[None] | None = None
        self._old_looked_at = 0.0

    async def until(self, order: dict[str, Any], statuses: Iterable[str], patience: float) -> dict[str, Any]:
        """The order once it is in one of the statuses. TimeoutError after `patience` seconds."""
        order_id, wanted = order["id"], frozenset(statuses)
        if order["status"] in wanted:
            return order
        traveller = _Traveller(datetime.fromisoformat(order["created_at"]), wanted)
        self._waiting[order_id] = traveller
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look(), name="travels")
        try:
            async with asyncio.timeout(patience):
                return await traveller.arrived
        except TimeoutError:
            raise TimeoutError(
                f"order {order_id} is in none of {', '.join(sorted(wanted))} after {patience:.0f} s"
            ) from None
        finally:
            del self._waiting[order_id]

    async def _look(self) -> None:
        while self._waiting:
            began = time.perf_counter()
            young = datetime.now(UTC) - YOUNG
            since = [one.created_at for one in self._waiting.values() if one.created_at >= young]
            try:
                if since:
                    await self._read_list(min(since))
                if began - self._old_looked_at > OLD_PAUSE:
                    self._old_looked_at = began
                    await self._read_old(young)
            except Exception as error:  # noqa: BLE001  (whoever waits is told, whatever it is)
                for one in self._waiting.values():
                    if not one.arrived.done():
                        one.arrived.set_exception(error)
                return
            took = time.perf_counter() - began
            await asyncio.sleep(max(PAUSE, took * (1 - LOOKING) / LOOKING))

    async def _read_list(self, since: datetime) -> None:
        wanted = {status for one in self._waiting.values() for status in one.statuses}
        query = [("status", status) for status in sorted(wanted.union(ON_THE_WAY))]
        query += [("created_from", since.isoformat()), ("limit", str(PAGE))]
        while True:
            page = await self._client.get("/v1/orders", None, query)
            if page is None:
                return
            for order in page["items"]:
                self._seen(order)
            if page["next"] is None:
                return
            query = [*(pair for pair in query if pair[0] != "cursor"), ("cursor", page["next"])]

    async def _read_old(self, young: datetime) -> None:
        gate = asyncio.Semaphore(ASIDE)

        async def one(order_id: str) -> None:
            async with gate:
                order = await self._client.read(None, order_id)
            if order is not None:
                self._seen(order)

        old = [order_id for order_id, one in self._waiting.items() if one.created_at < young]
        await asyncio.gather(*(one(order_id) for order_id in old))

    def _seen(self, order: dict[str, Any]) -> None:
        self._notice(order)
        traveller = self._waiting.get(order["id"])
        if traveller is not None and order["status"] in traveller.statuses and not traveller.arrived.done():
            traveller.arrived.set_result(order)
