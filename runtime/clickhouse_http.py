"""ClickHouse's HTTP interface as an ASGI application over the embedded engine.

What clickhouse-connect (sync and async), curl and BI tools use: GET and POST on `/`, the query in the URL, the body or
both, INSERT data after it, `param_*`, settings in the URL, compression both ways, basic auth or X-ClickHouse-User, the
X-ClickHouse-* response headers, and `/ping`. A `session_id` is accepted and has no effect: nothing is kept between
requests. Not there: external tables, and the block format of `compress=1`; both are refused by name.
"""

import asyncio
import base64
import binascii
import gzip
import hmac
import json
import logging
import re
import uuid
import zlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.parser import BytesParser
from email.policy import HTTP
from functools import partial
from typing import Any
from urllib.parse import parse_qsl

from backports import zstd
from lz4 import frame as lz4  # type: ignore[import-untyped]

from runtime import clickhouse_sql as sql
from runtime.clickhouse_engine import Answer, Engine, Query, User
from runtime.clickhouse_sql import ClickHouseError

log = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

# An analyst's slow queries wait for each other, never in front of anyone else's.
_THREADS: dict[User, int] = {"default": 16, "analyst": 2}
_READ_AHEAD_BYTES = 1 << 20
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
_COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "lz4": lz4.compress,
    "zstd": partial(zstd.compress, level=1),
    "gzip": partial(gzip.compress, compresslevel=1),
}
_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "lz4": lz4.LZ4FrameDecompressor,
    "zstd": zstd.ZstdDecompressor,
    "gzip": partial(zlib.decompressobj, wbits=31),
    "deflate": zlib.decompressobj,
}
_DECOMPRESS_ERRORS = (RuntimeError, zlib.error, zstd.ZstdError)


class _ClientGoneError(Exception):
    """The client closed the connection before its request was answered."""


class HttpInterface:
    """The ASGI application. `password` is that of the user `default`; the read-only `analyst` has any."""

    def __init__(self, engine: Engine, password: str) -> None:
        self._engine = engine
        self._password = password
        self._pools = {user: ThreadPoolExecutor(size, f"clickhouse-{user}") for user, size in _THREADS.items()}

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
            answer = await self._answer(query, url, headers, body)
        except _ClientGoneError:
            return
        except ClickHouseError as error:
            # A client that is still sending would otherwise see a broken pipe instead of the error.
            await body.drain()
            text = f"{error} (version {self._engine.version})\n"
            exception = {**common, "X-ClickHouse-Exception-Code": str(error.code)}
            await _respond(send, _STATUS.get(error.code, 500), exception, text.encode())
            return
        await self._send(send, query.user, answer, common, _encoding(url, headers), body)

    def _query(self, method: str, url: Mapping[str, str], headers: Mapping[str, str], query_id: str) -> Query:
        """The request without its text, which may still be in the body.

        Raises:
            ClickHouseError: wrong user or password, or an option that isn't there.
        """
        if "1" in (url.get("compress"), url.get("decompress")):
            raise ClickHouseError.of(
                sql.NOT_IMPLEMENTED, "compress=1 is not there: use enable_http_compression, or no compression."
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

    async def _answer(self, query: Query, url: Mapping[str, str], headers: Mapping[str, str], body: "_Body") -> Answer:
        if headers.get("content-type", "").startswith("multipart/form-data"):
            query = _from_form(query, await body.read_all(), headers["content-type"])
            text = query.sql.encode()
        else:
            body.decode_with(headers.get("content-encoding"))
            text = await body.read(_READ_AHEAD_BYTES)
            if query.sql and text:
                text = query.sql.rstrip().encode() + b"\n" + text
            elif query.sql:
                text = query.sql.encode()
        insert = sql.split_insert(text)
        if insert is not None:
            data = _pull(text[insert.data_offset :], body, asyncio.get_running_loop())
            return await self._run(query.user, self._engine.insert, query, insert, data)
        statement = (text + await body.read_all()).decode("utf-8", "surrogateescape")
        if not statement.strip():
            if query.read_only:
                return Answer(b"Ok.\n", None, {})
            raise ClickHouseError.of(sql.SYNTAX_ERROR, "Empty query.")
        query = _with_sql(query, statement)
        stream = url.get("wait_end_of_query", "0") != "1"
        if not sql.is_read(statement):
            return await self._run(query.user, self._engine.run, query)
        return await self._run_watched(query, stream, body)

    async def _run(self, user: User, function: Callable[..., Answer], *arguments: Any) -> Answer:
        return await asyncio.get_running_loop().run_in_executor(self._pools[user], function, *arguments)

    async def _run_watched(self, query: Query, stream: bool, body: "_Body") -> Answer:
        """Run a read, and cancel it when the client leaves."""
        work = self._pools[query.user].submit(self._engine.run, query, stream=stream)
        running = asyncio.wrap_future(work)
        gone = asyncio.ensure_future(body.wait_until_gone())
        either: set[asyncio.Future[Any]] = {running, gone}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            gone.cancel()
            return running.result()
        if not work.cancel():
            await asyncio.to_thread(self._engine.kill, query.query_id)
            with suppress(ClickHouseError):
                _close(await running)
        raise _ClientGoneError

    async def _send(
        self, send: Send, user: User, answer: Answer, common: dict[str, str], encoding: str | None, body: "_Body"
    ) -> None:
        headers = {**common, "Content-Type": _content_type(answer.format)}
        if answer.format is not None:
            headers["X-ClickHouse-Format"] = answer.format
        if answer.summary:
            headers["X-ClickHouse-Summary"] = json.dumps(answer.summary, separators=(",", ":"))
        if answer.rest is None and len(answer.body) < _COMPRESS_FROM_BYTES:
            encoding = None
        if encoding is not None:
            headers["Content-Encoding"] = encoding
        compress = _COMPRESS[encoding] if encoding is not None else bytes
        loop, pool = asyncio.get_running_loop(), self._pools[user]
        first = answer.body if encoding is None else await loop.run_in_executor(pool, compress, answer.body)
        if answer.rest is None:
            await _respond(send, 200, headers, first)
            return
        rest = answer.rest
        gone = asyncio.ensure_future(body.wait_until_gone())
        try:
            await _start(send, 200, headers)
            await send({"type": "http.response.body", "body": first, "more_body": True})
            while not gone.done() and (chunk := await loop.run_in_executor(pool, next, rest, None)) is not None:
                chunk = await loop.run_in_executor(pool, compress, chunk) if encoding is not None else chunk
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            if not gone.done():
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        except ClickHouseError as error:
            # The status is sent already; a body that breaks off is how the client learns of it.
            log.warning("a result broke off: %s", error)
        finally:
            gone.cancel()
            await loop.run_in_executor(pool, _close, answer)


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
            self._new_decompressor = _DECOMPRESSORS.get(encoding)
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

    async def read_all(self) -> bytes:
        """What is left."""
        parts = []
        while not self.complete:
            parts.append(await self.read(_READ_AHEAD_BYTES))
        return b"".join(parts)

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
        except _DECOMPRESS_ERRORS as error:
            raise ClickHouseError.of(sql.CANNOT_DECOMPRESS, f"Cannot decompress the request body: {error}.") from error
        return b"".join(parts)


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
    """The first encoding that the client accepts and that is known here, if it asked for compression at all."""
    if url.get("enable_http_compression") != "1":
        return None
    accepted = (name.partition(";")[0].strip() for name in headers.get("accept-encoding", "").split(","))
    return next((name for name in accepted if name in _COMPRESS), None)


def _content_type(result_format: str | None) -> str:
    if result_format is None:
        return "text/plain; charset=UTF-8"
    known = (value for prefix, value in _CONTENT_TYPES.items() if result_format.startswith(prefix))
    return next(known, "application/octet-stream")


def _close(answer: Answer) -> None:
    if answer.rest is not None:
        answer.rest.close()  # type: ignore[attr-defined]


async def _start(send: Send, status: int, headers: Mapping[str, str]) -> None:
    encoded = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})


async def _respond(send: Send, status: int, headers: Mapping[str, str], body: bytes) -> None:
    complete = {"Content-Type": "text/plain; charset=UTF-8", **headers, "Content-Length": str(len(body))}
    await _start(send, status, complete)
    await send({"type": "http.response.body", "body": body})
