"""What a request to ClickHouse's HTTP interface asks for, and its body as it comes off the connection."""

import asyncio
import base64
import binascii
import re
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, replace
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any
from urllib.parse import parse_qsl

from runtime import clickhouse_sql as sql
from runtime.clickhouse_compression import BLOCKS, DECOMPRESS_ERRORS, DECOMPRESSORS, HTTP_ENCODINGS
from runtime.clickhouse_engine import Query, User
from runtime.clickhouse_sql import ClickHouseError, InlineInsert

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

# A statement is in memory before the engine sees it, an INSERT's data never is.
_STATEMENT_BYTES: dict[User, int] = {"default": 1 << 24, "analyst": 1 << 20}
_READ_AHEAD_BYTES = 1 << 20

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
# A query's id goes back as a header.
_NOT_PRINTABLE = re.compile(r"[^ -~]")
_PARAMETER = re.compile(r"param_([A-Za-z_][A-Za-z0-9_]*)")


class ClientGoneError(Exception):
    """The client closed the connection before its request was answered."""


class Body:
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
            ClientGoneError: the connection closed before the end of the body.
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
            ClientGoneError, ClickHouseError: see `read`; also when it is more than `most` bytes.
        """
        data = await self.read(most + 1)
        if len(data) > most:
            raise ClickHouseError.of(sql.SYNTAX_ERROR, "Max query size exceeded.")
        return data

    async def drain(self) -> None:
        """Take in what the client still sends."""
        with suppress(ClientGoneError):
            while not self.complete:
                await self._next()

    async def wait_until_gone(self) -> None:
        """Return when the client closes the connection; to be called once the body is complete."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
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


@dataclass(frozen=True)
class Request:
    """A request on `/`. The names of `headers` are in lower case."""

    method: str
    url: Mapping[str, str]
    headers: Mapping[str, str]
    body: Body
    query_id: str

    @classmethod
    def of(cls, scope: Mapping[str, Any], receive: Receive) -> "Request":
        """Of what ASGI gives."""
        url = dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True))
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
        query_id = _NOT_PRINTABLE.sub("?", url.get("query_id", "")) or str(uuid.uuid4())
        return cls(scope["method"], url, headers, Body(receive), query_id)

    def credentials(self) -> tuple[str, str]:
        """User and password, from where ClickHouse takes them, in its order.

        Raises:
            ClickHouseError: the Authorization header can't be read.
        """
        if "x-clickhouse-user" in self.headers:
            return self.headers["x-clickhouse-user"], self.headers.get("x-clickhouse-key", "")
        scheme, _, encoded = self.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "basic":
            try:
                name, _, password = base64.b64decode(encoded, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError) as error:
                raise ClickHouseError.of(
                    sql.AUTHENTICATION_FAILED, "The Authorization header can't be read."
                ) from error
            return name or "default", password
        return self.url.get("user") or "default", self.url.get("password", "")

    def encoding(self) -> str | None:
        """How to compress the result: blocks if asked for, else the first that the client accepts and that is known."""
        if self.url.get("compress") == "1":
            return BLOCKS
        if self.url.get("enable_http_compression") != "1":
            return None
        accepted = (name.partition(";")[0].strip() for name in self.headers.get("accept-encoding", "").split(","))
        return next((name for name in accepted if name in HTTP_ENCODINGS), None)

    def streams(self) -> bool:
        """Whether the client takes the beginning of a result before its end is known."""
        return self.url.get("wait_end_of_query", "0") != "1"

    async def read(self, user: User) -> tuple[Query, tuple[InlineInsert, Iterator[bytes]] | None]:
        """The query, whose text may be in the URL, the body or both; and an INSERT's data, if it is one.

        Raises:
            ClickHouseError: too long, or sent in a way that is not there.
            ClientGoneError: it did not come whole.
        """
        if self.url.get("decompress") == "1":
            raise ClickHouseError.of(
                sql.NOT_IMPLEMENTED, "decompress=1 is not there: use Content-Encoding, or no compression."
            )
        query = self._without_text(user)
        most = _STATEMENT_BYTES[user]
        if self.headers.get("content-type", "").startswith("multipart/form-data"):
            return _from_form(query, await self.body.read_rest(most), self.headers["content-type"]), None
        encoding = self.headers.get("content-encoding")
        if user == "analyst" and encoding:
            # Data to insert is what one would compress, and a few bytes can unpack to gigabytes.
            raise ClickHouseError.of(sql.READONLY, "analyst: Cannot execute query in readonly mode: it is compressed.")
        self.body.decode_with(encoding)
        text = await self.body.read(_READ_AHEAD_BYTES)
        if query.sql and text:
            text = query.sql.rstrip().encode() + b"\n" + text
        elif query.sql:
            text = query.sql.encode()
        insert = sql.split_insert(text) if user == "default" else None
        if insert is not None:
            return query, (insert, _pull(text[insert.data_offset :], self.body, asyncio.get_running_loop()))
        statement = text + await self.body.read_rest(most - len(text))
        try:
            return replace(query, sql=statement.decode()), None
        except UnicodeDecodeError as error:
            raise ClickHouseError.of(sql.SYNTAX_ERROR, "The query is not UTF-8.") from error

    def _without_text(self, user: User) -> Query:
        return Query(
            sql=self.url.get("query", ""),
            user=user,
            query_id=self.query_id,
            database=self.url.get("database") or self.headers.get("x-clickhouse-database"),
            format=self.url.get("default_format") or self.headers.get("x-clickhouse-format") or "TabSeparated",
            settings=_settings(self.url),
            parameters=_parameters(self.url),
            read_only=self.method != "POST",
        )


def _pull(first: bytes, body: Body, loop: asyncio.AbstractEventLoop) -> Iterator[bytes]:
    """An INSERT's data for a worker thread; the event loop reads it off the connection."""
    if first:
        yield first
    while not body.complete:
        chunk = asyncio.run_coroutine_threadsafe(body.read(_READ_AHEAD_BYTES), loop).result()
        if chunk:
            yield chunk


def _settings(url: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in url.items()
        if name not in _TRANSPORT and not _PARAMETER.fullmatch(name) and value
    }


def _parameters(values: Mapping[str, str]) -> dict[str, str]:
    return {found[1]: value for name, value in values.items() if (found := _PARAMETER.fullmatch(name))}


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
    return replace(query, sql=text, parameters=parameters)
