"""One ClickHouse that has the views."""

from __future__ import annotations

import asyncio
import time
from importlib.resources import files
from typing import Any

import orjson
import structlog
from aiohttp import ClientError
from clickhouse_connect.driver.exceptions import Error as ClickHouseError
from clickhouse_connect.driver.exceptions import OperationalError

from analytics.clickhouse import connect_async
from gateway.freshness import Freshness, Offsets
from runtime.settings import Settings

AWAY = (OperationalError, ClientError, OSError, TimeoutError)
FAILED = (ClickHouseError, *AWAY)
"""What asking may raise: AWAY, or an error that was the answer."""
LOOK = 2.0
"""Seconds that an answer to `look` may take."""
BEHIND = 10.0
"""Seconds of lag from which the other one is asked, if it is fresher."""

_PROGRESS = (files(__package__) / "sql" / "progress.sql").read_text()

log = structlog.get_logger(__name__)


class Server:
    """`name` is for people, logs and /readyz. `answers` is what was last heard of it, by a look or a request."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.name = name
        self.answers = True
        self.freshness = Freshness()
        self._settings = settings
        self._client: Any = None
        self._connecting = asyncio.Lock()

    async def client(self) -> Any:
        """Made when it is first needed. Raises FAILED."""
        if self._client is None:
            async with self._connecting:
                if self._client is None:
                    self._client = await connect_async(
                        self._settings, connect_timeout=2, send_receive_timeout=30, connector_limit_per_host=32
                    )
        return self._client

    @property
    def behind(self) -> bool:
        """Whether its orders are not as new as they should be, or nobody knows."""
        as_of = self.freshness.as_of(["orders"])
        return as_of is None or time.monotonic() - as_of > BEHIND

    def failed(self, statement: str, error: BaseException) -> None:
        """It did not answer this statement, or with an error. A look finds out when it answers again."""
        if isinstance(error, AWAY):
            self.answers = False
        log.warning("ClickHouse did not answer", server=self.name, statement=statement, error=str(error)[:500])

    async def look(self, at: float | None, ends: Offsets) -> None:
        """See whether it answers, and how far its views have come, given the ends that the topics had at this time
        (None: Kafka did not say)."""
        try:
            async with asyncio.timeout(LOOK):
                client = await self.client()
                self.answers = bool(await client.ping())
                if self.answers and at is not None:
                    raw = await client.raw_query(_PROGRESS, fmt="JSONEachRow")
                    self.freshness.look(at, ends, map(orjson.loads, raw.splitlines()))
        except FAILED as error:
            self.failed("progress", error)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
