"""Messages ↔ bytes: Confluent wire format (0x00, 4 bytes of schema id, Avro binary), so that any stock deserializer
reads our topics. The writer's schema is found by its id, and what is read is resolved to our classes."""

from __future__ import annotations

import io
import struct
from functools import cache
from typing import Any

import fastavro
from pydantic import ValidationError

import schemas  # noqa: F401  (registers every family)
from schemas import trusted
from schemas.avro import store
from schemas.base import FAMILIES, Envelope, Payload
from schemas.wire import MAGIC, Undecodable
from schemas.writers import Write, writer

__all__ = ["MAGIC", "Undecodable", "decode", "encode", "validated"]

_HEADER = struct.Struct(">bI")


@cache
def _parsed(schema_id: int) -> Any:
    return fastavro.parse_schema(store.by_id()[schema_id].schema, named_schemas={})


@cache
def _writer(family: str, name: str) -> tuple[bytes, Write]:
    try:
        committed = store.newest()[family, name]
    except KeyError:
        raise LookupError(f"{name} has no committed schema: run `make schemas`") from None
    return _HEADER.pack(MAGIC, committed.id), writer(committed.schema)


def encode(message: Envelope) -> bytes:
    """A message as it lies on its topic."""
    payload: Payload = message.data
    header, write = _writer(payload.family, type(payload).__name__)
    value = bytearray(header)
    write(message, value)
    return bytes(value)


def decode(raw: bytes | None) -> Envelope:
    """The message in these bytes. Undecodable when it is none, or of no schema that is committed here."""
    if raw is not None and raw[:1] == b"\x00" and trusted.suffices(raw[1:5]):
        return trusted.decode(raw)
    return validated(raw)


def validated(raw: bytes | None) -> Envelope:
    """As `decode`, by fastavro and pydantic, for classes that ask more of a value than its type."""
    if raw is None or len(raw) < _HEADER.size:
        raise Undecodable("empty, or too short for a schema id")
    magic, schema_id = _HEADER.unpack_from(raw)
    if magic != MAGIC:
        raise Undecodable(f"starts with byte {magic}, not with 0")
    written = store.by_id().get(schema_id)
    if written is None:
        raise Undecodable(f"schema id {schema_id} is not known here")
    family = FAMILIES[written.family]
    payload = family.payloads.get(written.name)
    if payload is None:
        raise Undecodable(f"{written.fullname} has no class any more")
    ours = store.newest()[written.family, written.name]
    reader = None if ours.id == written.id else _parsed(ours.id)
    buffer = io.BytesIO(raw)
    buffer.seek(_HEADER.size)
    try:
        record: Any = fastavro.schemaless_reader(buffer, _parsed(schema_id), reader)
        if buffer.tell() != len(raw):
            raise Undecodable(f"{len(raw) - buffer.tell()} bytes are left over after {written.fullname}")
        record["data"] = payload.model_validate(record["data"])
        return family.envelope.model_validate(record)
    except Undecodable:
        raise
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Undecodable(f"{written.fullname}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except Exception as error:
        # fastavro raises whatever its reader stumbles over (EOFError, IndexError, struct.error, UnicodeDecodeError, …)
        raise Undecodable(f"not Avro of {written.fullname}: {type(error).__name__}: {error}") from error
