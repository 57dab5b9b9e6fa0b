"""ClickHouse's HTTP interface as an ASGI application over the embedded engine.

What clickhouse-connect (sync and async), the JDBC driver, curl and BI tools use: GET and POST on `/`, the query in the
URL, the body or both, INSERT data after it, `param_*`, settings in the URL, compression both ways, basic auth or
X-ClickHouse-User, the X-ClickHouse-* response headers, and `/ping`. A `session_id` is accepted and has no effect:
nothing is kept between requests. Not there: external tables and `decompress=1`; both are refused by name.

Analysts take turns: two of their queries at a time, each until its result is fetched or its time is up.
"""

import asyncio
import base64
import binascii
import hmac
import json
import logging
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import parse_qsl

from runtime import clickhouse_sql as sql
from runtime.clickhouse_compression import BLOCKS, COMPRESSORS, DECOMPRESS_ERRORS, DECOMPRESSORS, HTTP_ENCODINGS
from runtime.clickhouse_engine import ANALYST_SECONDS, Answer, Engine, Query, User
from runtime.clickhouse_sql import ClickHouseError, InlineInsert

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# An analyst's slow queries wait for each other, never in front of anyone else's.
_THREADS: dict[User, int] = {"default": 16, "analyst": 2}
_ANALYSTS_WAITING = 32
# A statement is in memory before the engine sees it, an INSERT's data never is.
_STATEMENT_BYTES: dict[User, int] = {"default": 1 << 24, "analyst": 1 << 20}
_READ_AHEAD_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 20
_COMPRESS_FROM_BYTES = 4096

# URL parameters that are the transport's business; every other one is an engine setting.
_TRANSPORT = frozenset(
    {
        "buffer_size",
        "cancel_http_readonly_queries_on_client_close",
        "client_protocol_version",
        "close_session",
        "compress",
        "database",
        "decompress",
        "default_format",
        "enable_http_compression",
        "http_headers_progress_interval_ms",
        "http_zlib_compression_level",
        "password",
        "query",
        "query_id",
        "quota_key",
        "role",
        "send_progress_in_http_headers",
        "session_check",
        "session_id",
        "session_timeout",
        "stacktrace",
        "user",
        "wait_end_of_query",
    }
)
_PARAMETER = re.compile(r"param_([A-Za-z_][A-Za-z0-9_]*)")
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


class _ClientGoneError(Exception):
    """The client closed the connection before its request was answered."""


class HttpInterface:
    """The ASGI application. `password` is that of the user `default`; the read-only `analyst` has any."""

    def __init__(self, engine: Engine, password: str) -> None:
        self._engine = engine
        self._password = password
        self._pools = {user: ThreadPoolExecutor(size, f"clickhouse-{user}") for user, size in _THREADS.items()}
        self._turns = asyncio.Semaphore(_THREADS["analyst"])
        self._waiting = 0

    def close(self) -> None:
        """Wait for the statements that are running."""
        for pool in self._pools.values():
            pool.shutdown(cancel_futures=True)

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        url = dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True))
        if scope["path"] != "/":
            known = scope["path"] == "/ping"
            await _respond(send, 200 if known else 404, {}, b"Ok.\n" if known else b"There is no handle here.\n")
            return
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
        query_id = url.get("query_id") or str(uuid.uuid4())
        common = {"X-ClickHouse-Query-Id": query_id, "X-ClickHouse-Timezone": self._engine.timezone}
        body = _Body(receive)
        try:
            query = self._query(scope["method"], url, headers, query_id)
            query, insert = await _read(query, headers, body)
            if insert is not None:
                answer = await self._run(query.user, self._engine.insert, query, *insert)
            elif not query.sql.strip():
                answer = _answer_nothing(query)
            elif query.user == "default" and not sql.is_read(query.sql):
                answer = await self._run(query.user, self._engine.run, query)
            else:
                stream = url.get("wait_end_of_query", "0") != "1"
                await self._read_out(send, query, stream, common, _encoding(url, headers), body)
                return
            await self._send(send, query.user, answer, common, _encoding(url, headers))
        except _ClientGoneError:
            return
        except ClickHouseError as error:
            # A client that is still sending would otherwise see a broken pipe instead of the error.
            await body.drain()
            text = f"{error} (version {self._engine.version})\n"
            exception = {**common, "X-ClickHouse-Exception-Code": str(error.code)}
            await _respond(send, _STATUS.get(error.code, 500), exception, text.encode())

    def _query(self, method: str, url: Mapping[str, str], headers: Mapping[str, str], query_id: str) -> Query:
        """The request without its text, which may still be in the body.

        Raises:
            ClickHouseError: wrong user or password, or an option that isn't there.
        """
        if url.get("decompress") == "1":
            raise ClickHouseError.of(
                sql.NOT_IMPLEMENTED, "decompress=1 is not there: use Content-Encoding, or no compression."
            )
        return Query(
            sql=url.get("query", ""),
            user=self._authenticate(url, headers),
            query_id=query_id,
            database=url.get("database") or headers.get("x-clickhouse-database"),
            format=url.get("default_format") or headers.get("x-clickhouse-format") or "TabSeparated",
            settings=_settings(url),
            parameters=_parameters(url),
            read_only=method != "POST",
        )

    def _authenticate(self, url: Mapping[str, str], headers: Mapping[str, str]) -> User:
        name, password = _credentials(url, headers)
        if name == "analyst":
            return "analyst"
        if name == "default" and hmac.compare_digest(password.encode(), self._password.encode()):
            return "default"
        raise ClickHouseError.of(
            sql.AUTHENTICATION_FAILED,
            f"{name}: Authentication failed: password is incorrect, or there is no user with such name.",
        )

    async def _run(self, user: User, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._pools[user], function, *arguments)

    async def _read_out(
        self, send: Send, query: Query, stream: bool, common: dict[str, str], encoding: str | None, body: "_Body"
    ) -> None:
        """Run a read and send what it finds; cancel it when the client leaves."""
        gone = asyncio.ensure_future(body.wait_until_gone())
        try:
            async with self._turn(query.user, gone):
                answer = await self._run_watched(query, stream, gone)
                await self._send(send, query.user, answer, common, encoding, gone)
        finally:
            gone.cancel()

    @asynccontextmanager
    async def _turn(self, user: User, gone: asyncio.Future[None]) -> AsyncIterator[None]:
        """An analyst's turn, from the query's start until its result is sent.

        Raises:
            ClickHouseError: too many are waiting already.
            _ClientGoneError: the client did not wait for it.
        """
        if user == "default":
            yield
            return
        if self._waiting == _ANALYSTS_WAITING:
            text = f"Too many simultaneous queries of analysts: {_ANALYSTS_WAITING} are waiting."
            raise ClickHouseError.of(sql.TOO_MANY_SIMULTANEOUS_QUERIES, text)
        self._waiting += 1
        turn = asyncio.ensure_future(self._turns.acquire())
        try:
            either: set[asyncio.Future[Any]] = {turn, gone}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._waiting -= 1
            turn.cancel()
        if not turn.done():
            raise _ClientGoneError
        try:
            yield
        finally:
            self._turns.release()

    async def _run_watched(self, query: Query, stream: bool, gone: asyncio.Future[None]) -> Answer:
        work = self._pools[query.user].submit(self._engine.run, query, stream=stream)
        running = asyncio.wrap_future(work)
        either: set[asyncio.Future[Any]] = {running, gone}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            return running.result()
        if not work.cancel():
            await asyncio.to_thread(self._engine.kill, query)
            with suppress(ClickHouseError):
                _close(await running)
        raise _ClientGoneError

    async def _send(
        self,
        send: Send,
        user: User,
        answer: Answer,
        common: dict[str, str],
        encoding: str | None,
        gone: asyncio.Future[None] | None = None,
    ) -> None:
        headers = {**common, "Content-Type": _content_type(answer.format)}
        if answer.format is not None:
            headers["X-ClickHouse-Format"] = answer.format
        if answer.summary:
            headers["X-ClickHouse-Summary"] = json.dumps(answer.summary, separators=(",", ":"))
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
            log.warning("a result broke off: %s", error or f"not fetched within {ANALYST_SECONDS} s")
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


class _Body:
    """The request's body, decompressed as it is read."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._new_decompressor: Callable[[], Any] | None = None
        self._decompressor: Any = None
        self.complete = False

    def decode_with(self, encoding: str | None) -> None:
        """Set the Content-Encoding, before the first read."""
        if encoding and encoding != "identity":
            self._new_decompressor = DECOMPRESSORS.get(encoding)
            if self._new_decompressor is None:
                raise ClickHouseError.of(sql.NOT_IMPLEMENTED, f"Content-Encoding {encoding} is not known.")

    async def read(self, at_least: int) -> bytes:
        """At least so many bytes, or what is left.

        Raises:
            _ClientGoneError: the connection closed before the end of the body.
            ClickHouseError: the body is not what its Content-Encoding says.
        """
        data = bytearray()
        while not self.complete and len(data) < at_least:
            data += self._decompress(await self._next())
        if self.complete and self._decompressor is not None:
            raise ClickHouseError.of(sql.CANNOT_DECOMPRESS, "The compressed request body ends too early.")
        return bytes(data)

    async def read_rest(self, most: int) -> bytes:
        """What is left.

        Raises:
            _ClientGoneError, ClickHouseError: see `read`; also when it is more than `most` bytes.
        """
        data = await self.read(most + 1)
        if len(data) > most:
            raise ClickHouseError.of(sql.SYNTAX_ERROR, "Max query size exceeded.")
        return data

    async def drain(self) -> None:
        """Take in what the client still sends."""
        with suppress(_ClientGoneError):
            while not self.complete:
                await self._next()

    async def wait_until_gone(self) -> None:
        """Return when the client closes the connection; to be called once the body is complete."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise _ClientGoneError
        self.complete = not message.get("more_body", False)
        data: bytes = message.get("body", b"")
        return data

    def _decompress(self, data: bytes) -> bytes:
        """clickhouse-connect compresses each block by itself, so a body is any number of frames."""
        if self._new_decompressor is None:
            return data
        parts = []
        try:
            while data:
                if self._decompressor is None:
                    self._decompressor = self._new_decompressor()
                parts.append(self._decompressor.decompress(data))
                data = b""
                if self._decompressor.eof:
                    data = self._decompressor.unused_data or b""
                    self._decompressor = None
        except DECOMPRESS_ERRORS as error:
            raise ClickHouseError.of(sql.CANNOT_DECOMPRESS, f"Cannot decompress the request body: {error}.") from error
        return b"".join(parts)


async def _read(
    query: Query, headers: Mapping[str, str], body: _Body
) -> tuple[Query, tuple[InlineInsert, Iterator[bytes]] | None]:
    """The query with its text, which may be in the URL, the body or both; and an INSERT's data, if it is one.

    Raises:
        ClickHouseError: too long, or sent in a way that is not there.
        _ClientGoneError: it did not come whole.
    """
    most = _STATEMENT_BYTES[query.user]
    if headers.get("content-type", "").startswith("multipart/form-data"):
        return _from_form(query, await body.read_rest(most), headers["content-type"]), None
    encoding = headers.get("content-encoding")
    if query.user == "analyst" and encoding:
        # A few bytes unpack to gigabytes; data to insert is what one would compress.
        raise ClickHouseError.of(sql.NOT_IMPLEMENTED, "analyst: Content-Encoding is for inserts.")
    body.decode_with(encoding)
    text = await body.read(_READ_AHEAD_BYTES)
    if query.sql and text:
        text = query.sql.rstrip().encode() + b"\n" + text
    elif query.sql:
        text = query.sql.encode()
    insert = sql.split_insert(text) if query.user == "default" else None
    if insert is not None:
        return query, (insert, _pull(text[insert.data_offset :], body, asyncio.get_running_loop()))
    statement = text + await body.read_rest(most - len(text))
    return _with_sql(query, statement.decode("utf-8", "surrogateescape")), None


def _answer_nothing(query: Query) -> Answer:
    if query.read_only:
        return Answer(b"Ok.\n", None, {})
    raise ClickHouseError.of(sql.SYNTAX_ERROR, "Empty query.")


def _pull(first: bytes, body: _Body, loop: asyncio.AbstractEventLoop) -> Iterator[bytes]:
    """An INSERT's data for a worker thread; the event loop reads it off the connection."""
    if first:
        yield first
    while not body.complete:
        chunk = asyncio.run_coroutine_threadsafe(body.read(_READ_AHEAD_BYTES), loop).result()
        if chunk:
            yield chunk


def _credentials(url: Mapping[str, str], headers: Mapping[str, str]) -> tuple[str, str]:
    """User and password, from where ClickHouse takes them, in its order."""
    if "x-clickhouse-user" in headers:
        return headers["x-clickhouse-user"], headers.get("x-clickhouse-key", "")
    scheme, _, encoded = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise ClickHouseError.of(sql.AUTHENTICATION_FAILED, "The Authorization header can't be read.") from error
        return name or "default", password
    return url.get("user") or "default", url.get("password", "")


def _settings(url: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in url.items()
        if name not in _TRANSPORT and not _PARAMETER.fullmatch(name) and value
    }


def _parameters(values: Mapping[str, str]) -> dict[str, str]:
    return {found[1]: value for name, value in values.items() if (found := _PARAMETER.fullmatch(name))}


def _with_sql(query: Query, text: str) -> Query:
    return Query(**{**vars(query), "sql": text})


def _from_form(query: Query, body: bytes, content_type: str) -> Query:
    """The query out of a multipart form, which clickhouse-connect sends when its parameters are too long for a URL.

    Raises:
        ClickHouseError: the form holds an external table.
    """
    message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {content_type}\r\n\r\n".encode() + body)
    fields: dict[str, str] = {}
    for part in message.walk():
        name = part.get_param("name", header="content-disposition")
        if part.get_filename() is not None:
            raise ClickHouseError.of(sql.NOT_IMPLEMENTED, "External tables are not there.")
        if isinstance(name, str):
            payload = part.get_payload(decode=True)
            fields[name] = payload.decode() if isinstance(payload, bytes) else ""
    text = "\n".join(part for part in (query.sql, fields.get("query", "")) if part)
    parameters = {**query.parameters, **_parameters(fields)}
    return Query(**{**vars(query), "sql": text, "parameters": parameters})


def _encoding(url: Mapping[str, str], headers: Mapping[str, str]) -> str | None:
    """ClickHouse's blocks if they are asked for, else the first encoding that the client accepts and that is known."""
    if url.get("compress") == "1":
        return BLOCKS
    if url.get("enable_http_compression") != "1":
        return None
    accepted = (name.partition(";")[0].strip() for name in headers.get("accept-encoding", "").split(","))
    return next((name for name in accepted if name in HTTP_ENCODINGS), None)


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
