"""ClickHouse's HTTP interface as an ASGI application over the embedded engine.

What clickhouse-connect (sync and async), the JDBC driver, curl and BI tools use: GET and POST on `/`, the query in the
URL, the body or both, INSERT data after it, `param_*`, settings in the URL, compression both ways, basic auth or
X-ClickHouse-User, the X-ClickHouse-* response headers, and `/ping`. A `session_id` is accepted and has no effect:
nothing is kept between requests. Not there: external tables and `decompress=1`; both are refused by name.

Analysts take turns: two of their queries at a time, each until its result is fetched or its time is up.
"""

import asyncio
import hmac
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import Any

from runtime import clickhouse_sql as sql
from runtime.clickhouse_compression import BLOCKS, COMPRESSORS
from runtime.clickhouse_engine import ANALYST_SECONDS, Answer, Engine, Query, User
from runtime.clickhouse_request import ClientGoneError, Message, Receive, Request
from runtime.clickhouse_sql import ClickHouseError

log = logging.getLogger(__name__)

Send = Callable[[Message], Awaitable[None]]

# An analyst's slow queries wait for each other, never in front of anyone else's.
_THREADS: dict[User, int] = {"default": 16, "analyst": 2}
_ANALYSTS_WAITING = 32
_CHUNK_BYTES = 1 << 20
_KILL_AGAIN_SECONDS = 0.1
_COMPRESS_FROM_BYTES = 4096

_STATUS = {
    sql.SYNTAX_ERROR: 400,
    sql.BAD_ARGUMENTS: 400,
    27: 400,  # CANNOT_PARSE_INPUT_ASSERTION_FAILED
    53: 400,  # TYPE_MISMATCH
    6: 400,  # CANNOT_PARSE_TEXT
    46: 404,  # UNKNOWN_FUNCTION
    47: 404,  # UNKNOWN_IDENTIFIER
    60: 404,  # UNKNOWN_TABLE
    81: 404,  # UNKNOWN_DATABASE
    sql.UNKNOWN_SETTING: 404,
    sql.TOO_MANY_SIMULTANEOUS_QUERIES: 429,
    sql.AUTHENTICATION_FAILED: 403,
    sql.NOT_IMPLEMENTED: 501,
}
_CONTENT_TYPES = {
    "JSONEachRow": "application/x-ndjson; charset=UTF-8",
    "JSON": "application/json; charset=UTF-8",
    "TabSeparated": "text/tab-separated-values; charset=UTF-8",
    "TSV": "text/tab-separated-values; charset=UTF-8",
    "CSV": "text/csv; charset=UTF-8",
    "Pretty": "text/plain; charset=UTF-8",
}


class HttpInterface:
    """The ASGI application. The passwords are those of `default` and of `analyst`, who has any if it is empty."""

    def __init__(self, engine: Engine, password: str, analyst_password: str = "") -> None:
        self._engine = engine
        self._passwords: dict[User, str] = {"default": password, "analyst": analyst_password}
        self._pools = {user: ThreadPoolExecutor(size, f"clickhouse-{user}") for user, size in _THREADS.items()}
        self._turns = asyncio.Semaphore(_THREADS["analyst"])
        self._inside = 0

    def close(self) -> None:
        """Wait for the statements that are running."""
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["path"] != "/":
            known = scope["path"] == "/ping"
            await _respond(send, 200 if known else 404, {}, b"Ok.\n" if known else b"There is no handle here.\n")
            return
        request = Request.of(scope, receive)
        try:
            await self._answer(request, send)
        except ClientGoneError:
            return
        except ClickHouseError as error:
            # A client that is still sending would otherwise see a broken pipe instead of the error.
            await request.body.drain()
            text = f"{error} (version {self._engine.version})\n"
            headers = {**self._headers(request), "X-ClickHouse-Exception-Code": str(error.code)}
            await _respond(send, _STATUS.get(error.code, 500), headers, text.encode())

    async def _answer(self, request: Request, send: Send) -> None:
        user = self._authenticate(*request.credentials())
        query, insert = await request.read(user)
        if insert is not None:
            answer = await self._run(user, self._engine.insert, query, *insert)
        elif not query.sql.strip():
            answer = _answer_nothing(query)
        elif user == "default" and not sql.is_read(query.sql):
            answer = await self._run(user, self._engine.run, query)
        else:
            gone = asyncio.ensure_future(request.body.wait_until_gone())
            try:
                async with self._turn(user, gone):
                    answer = await self._run_watched(query, request.streams(), gone)
                    await self._send(send, user, answer, request, gone)
            finally:
                gone.cancel()
            return
        await self._send(send, user, answer, request)

    def _authenticate(self, name: str, password: str) -> User:
        if name == "default" and _same(password, self._passwords["default"]):
            return "default"
        if name == "analyst" and (not self._passwords["analyst"] or _same(password, self._passwords["analyst"])):
            return "analyst"
        raise ClickHouseError.of(
            sql.AUTHENTICATION_FAILED,
            f"{name}: Authentication failed: password is incorrect, or there is no user with such name.",
        )

    def _headers(self, request: Request) -> dict[str, str]:
        return {"X-ClickHouse-Query-Id": request.query_id, "X-ClickHouse-Timezone": self._engine.timezone}

    async def _run(self, user: User, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pools[user], function, *arguments)

    @asynccontextmanager
    async def _turn(self, user: User, gone: asyncio.Future[None]) -> AsyncIterator[None]:
        """An analyst's turn, from the query's start until its result is sent.

        Raises:
            ClickHouseError: too many are waiting already.
            ClientGoneError: the client did not wait for it.
        """
        if user == "default":
            yield
            return
        if self._inside == _THREADS["analyst"] + _ANALYSTS_WAITING:
            text = f"Too many simultaneous queries of analysts: {_ANALYSTS_WAITING} are waiting."
            raise ClickHouseError.of(sql.TOO_MANY_SIMULTANEOUS_QUERIES, text)
        self._inside += 1
        turn = asyncio.ensure_future(self._turns.acquire())
        try:
            await _first_of(turn, gone)
            if not turn.done():
                raise ClientGoneError
            yield
        finally:
            self._inside -= 1
            if not turn.cancel():
                self._turns.release()

    async def _run_watched(self, query: Query, stream: bool, gone: asyncio.Future[None]) -> Answer:
        """Run a read, and cancel it when the client leaves."""
        work = self._pools[query.user].submit(self._engine.run, query, stream=stream)
        running = asyncio.wrap_future(work)
        await _first_of(running, gone)
        if running.done():
            return running.result()
        if not work.cancel():
            # Again and again: one that is still being made ready is not yet among those that can be killed.
            while not running.done():
                await asyncio.to_thread(self._engine.kill, query)
                await asyncio.wait([running], timeout=_KILL_AGAIN_SECONDS)
            with suppress(ClickHouseError):
                _close(running.result())
        raise ClientGoneError

    async def _send(
        self, send: Send, user: User, answer: Answer, request: Request, gone: asyncio.Future[None] | None = None
    ) -> None:
        headers = {**self._headers(request), "Content-Type": _content_type(answer.format)}
        if answer.format is not None:
            headers["X-ClickHouse-Format"] = answer.format
        if answer.summary:
            headers["X-ClickHouse-Summary"] = json.dumps(answer.summary, separators=(",", ":"))
        encoding = request.encoding()
        if encoding != BLOCKS and answer.rest is None and len(answer.body) < _COMPRESS_FROM_BYTES:
            encoding = None
        if encoding is not None and encoding != BLOCKS:
            headers["Content-Encoding"] = encoding
        if encoding is None and answer.rest is None:
            headers["Content-Length"] = str(len(answer.body))
        compressor = COMPRESSORS[encoding]() if encoding is not None else None
        # Who does not fetch a result holds its memory, and an analyst a turn.
        deadline = asyncio.get_running_loop().time() + ANALYST_SECONDS if user == "analyst" else None
        try:
            await _start(send, 200, headers)
            async for chunk in self._chunks(user, answer):
                if gone is not None and gone.done():
                    return
                data = await self._run(user, compressor.compress, chunk) if compressor is not None else chunk
                async with asyncio.timeout_at(deadline):
                    await send({"type": "http.response.body", "body": data, "more_body": True})
            end = compressor.flush() if compressor is not None else b""
            async with asyncio.timeout_at(deadline):
                await send({"type": "http.response.body", "body": end, "more_body": False})
        except (ClickHouseError, TimeoutError) as error:
            # The status is sent already; a body that breaks off is how the client learns of it.
            log.warning("a result broke off: %s", str(error) or f"not fetched within {ANALYST_SECONDS} s")
        finally:
            if answer.rest is not None:
                await self._run(user, _close, answer)

    async def _chunks(self, user: User, answer: Answer) -> AsyncIterator[bytes]:
        """The result, at most 1 MiB at a time, so that no more of it waits in the connection's buffer."""
        for start in range(0, len(answer.body), _CHUNK_BYTES):
            yield answer.body[start : start + _CHUNK_BYTES]
        if answer.rest is not None:
            while (chunk := await self._run(user, next, answer.rest, None)) is not None:
                yield chunk


async def _first_of(*futures: asyncio.Future[Any]) -> None:
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)


def _same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode(), right.encode())


def _answer_nothing(query: Query) -> Answer:
    if query.read_only:
        return Answer(b"Ok.\n", None, {})
    raise ClickHouseError.of(sql.SYNTAX_ERROR, "Empty query.")


def _content_type(result_format: str | None) -> str:
    if result_format is None:
        return "text/plain; charset=UTF-8"
    known = (value for prefix, value in _CONTENT_TYPES.items() if result_format.startswith(prefix))
    return next(known, "application/octet-stream")


def _close(answer: Answer) -> None:
    if answer.rest is not None:
        answer.rest.close()


async def _start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    encoded = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})


async def _respond(send: Send, status: int, headers: Mapping[str, str], body: bytes) -> None:
    complete = {"Content-Type": "text/plain; charset=UTF-8", **headers, "Content-Length": str(len(body))}
    await _start(send, status, complete)
    await send({"type": "http.response.body", "body": body})
