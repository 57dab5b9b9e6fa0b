"""What a sandbox service is made of: an HTTP application on a durable SQLite file.

Every error is `{"error": {"code", "message", "field"?}}`.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sqlite3
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Literal, TypeVar

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from pydantic import BaseModel, ConfigDict, ValidationError

log = logging.getLogger(__name__)

# Open requests get this long at SIGTERM.
SHUTDOWN_SECONDS = 1.0

T = TypeVar("T")


class Refusal(Exception):
    """An answer that is not 200: HTTP status, a code for machines, words for people, the field at fault."""

    def __init__(self, status: int, code: str, message: str, field: str | None = None) -> None:
        super().__init__(code)
        self.status, self.code, self.message, self.field = status, code, message, field


class Body(BaseModel):
    """What a request says. Strict: "12" is no number."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


RequestBody = TypeVar("RequestBody", bound=Body)


class Journal:
    """One SQLite file, one process. `write` groups the operations of concurrent requests into one transaction and
    answers after it.

    Args:
        synchronous: FULL: what was answered survives a power cut. NORMAL: it survives kill -9.
    """

    def __init__(self, path: Path, schema: str, synchronous: Literal["FULL", "NORMAL"]) -> None:
        self.db = sqlite3.connect(path, timeout=1.0, isolation_level=None)
        self.db.row_factory = sqlite3.Row
        # An exclusive lock: a second service on the same file fails at start.
        self.db.executescript(
            f"PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous={synchronous};{schema}"
        )
        self._waiting: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []

    async def write(self, operation: Callable[[], T]) -> T:
        """Run `operation` in the next transaction; returns or raises its Refusal once that is on disk."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._commit)
        self._waiting.append((operation, future))
        return await future

    def _commit(self) -> None:
        batch, self._waiting = self._waiting, []
        outcomes: list[tuple[Any, Refusal | None]] = []
        try:
            self.db.execute("BEGIN IMMEDIATE")
            for operation, _ in batch:
                try:
                    outcomes.append((operation(), None))
                except Refusal as refusal:  # an operation refuses before it writes
                    outcomes.append((None, refusal))
            self.db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - not swallowed: every request of the batch fails with it
            if self.db.in_transaction:
                self.db.execute("ROLLBACK")
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), (result, refused) in zip(batch, outcomes, strict=True):
            if future.done():  # the client went away; what it asked for is done all the same
                continue
            if refused is None:
                future.set_result(result)
            else:
                future.set_exception(refused)

    def close(self) -> None:
        if self._waiting:
            self._commit()
        self.db.close()


def answer(value: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")


def parse(model: type[RequestBody], body: bytes) -> RequestBody:
    """The body, or Refusal 422 that names the field."""
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        # Without the input: it may hold what must not be repeated. Not chained, for the same reason.
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or None
        raise Refusal(422, "invalid_request", first["msg"], field) from None


def guard(out_of_service: Callable[[str], bool]) -> Middleware:
    """Errors as JSON; 503 where `out_of_service(path)` says so."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if out_of_service(request.path):
                raise Refusal(503, "unavailable", "Out of service.")
            return await handler(request)
        except Refusal as refusal:
            error = {"code": refusal.code, "message": refusal.message}
            if refusal.field is not None:
                error["field"] = refusal.field
            return answer({"error": error}, refusal.status)
        except web.HTTPException as other:  # aiohttp's own: no such route, wrong method, body too large
            code = (other.reason or "error").lower().replace(" ", "_")
            return answer({"error": {"code": code, "message": other.reason}}, other.status)

    return middleware


async def serve(
    application: web.Application,
    running: AbstractAsyncContextManager[object],
    host: str,
    port: int,
) -> None:
    """Serve until SIGTERM or SIGINT, with `running` entered meanwhile. OSError when the port is taken."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        async with running:
            log.info("listening on http://%s:%d", host, port)
            await stop.wait()
    finally:
        await runner.cleanup()
