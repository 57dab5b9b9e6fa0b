"""Bytes → messages without validating what the bytes can't say wrongly: the same objects as validating gives, several
times as fast. Most classes ask no more of a value than its type, which its schema has already (`suffices`).

For each schema that was ever written a function is made, line by line as one would write it for that record: no loop
over a schema's fields at run time, no object between the bytes and the message. Long runs of fields are mostly empty
(nothing cancelled, no hold, no edit); in Avro each of these is a zero byte, so that one comparison settles the run.
"""

from __future__ import annotations

import typing
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import groupby
from types import UnionType
from typing import Any, Union

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from schemas.avro import store
from schemas.avro.code import indented, kind
from schemas.base import FAMILIES, Envelope, Instant
from schemas.wire import MAGIC, Undecodable

Read = Callable[[bytes, int], tuple[Any, int]]
"""(bytes, where to begin) → (what is there, where it ends)"""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SMALL = tuple((n >> 1) ^ -(n & 1) for n in range(128))
"""A number of one byte."""
_TIMES: dict[bytes, datetime] = {}
"""The times of an order are in each of its events and states again."""
_MOST_TIMES = 200_000
_RUN = 3
"""So many fields that may be empty are worth a comparison."""
_OF_INSTANTS = typing.get_args(Instant)[1:]
"""Their zone: what is read here has it."""
_CONTAINERS = (Union, UnionType, tuple, dict)
_TYPES = (str, int, bool, bytes, datetime, type(None))
_EMPTY: dict[str, Any] = {"long": 0, "string": "", "boolean": False, "array": (), "map": {}, "null": None}
"""What a zero byte means."""


def decode(raw: bytes | None) -> Envelope:
    """The message in these bytes. Undecodable when it is none, or of no schema that is committed here."""
    if raw is None or len(raw) < 5 or raw[0] != MAGIC:
        raise Undecodable("not in our wire format")
    read = _reader(raw[1:5])
    try:
        message, end = read(raw, 5)
    except (ValueError, IndexError, OverflowError) as error:
        raise Undecodable(f"not Avro of schema id {int.from_bytes(raw[1:5])}: {error}") from error
    if end != len(raw):
        raise Undecodable(f"ends at byte {end} of {len(raw)}")
    found: Envelope = message
    return found


@cache
def suffices(schema_id: bytes) -> bool:
    """Whether `decode` refuses all that validating would refuse of messages with this id (4 bytes)."""
    committed = store.by_id().get(int.from_bytes(schema_id))
    if committed is None:
        return False
    family = FAMILIES[committed.family]
    payload = family.payloads.get(committed.name)
    return payload is not None and asks_only_types(family.envelope) and asks_only_types(payload)


@cache
def asks_only_types(model: type[BaseModel]) -> bool:
    """Whether a value of the right type is always a right value of each field, the envelope's `data` left aside."""
    rules = model.__pydantic_decorators__
    if rules.field_validators or rules.model_validators:
        return False
    return all(
        all(rule in _OF_INSTANTS for rule in field.metadata) and _is_only_type(field.annotation)
        for name, field in model.model_fields.items()
        if name != "data"
    )


def _is_only_type(annotation: Any) -> bool:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        rules = [rule for rule in args[1:] if not (isinstance(rule, FieldInfo) and not rule.metadata)]
        return all(rule in _OF_INSTANTS for rule in rules) and _is_only_type(args[0])
    if args:
        return origin in _CONTAINERS and all(_is_only_type(arg) for arg in args if arg is not Ellipsis)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return asks_only_types(annotation)
    return annotation in _TYPES


@cache
def _reader(schema_id: bytes) -> Read:
    committed = store.by_id().get(int.from_bytes(schema_id))
    if committed is None:
        raise Undecodable(f"schema id {int.from_bytes(schema_id)} is not known here")
    family = FAMILIES[committed.family]
    payload = family.payloads.get(committed.name)
    if payload is None:
        raise Undecodable(f"{committed.fullname} has no class any more")
    return _Maker().make(committed.schema, family.envelope, payload)


class _Maker:
    """Writes the functions of one schema: one for each record in it, which call each other."""

    def __init__(self) -> None:
        self._records: dict[str, dict[str, Any]] = {}
        self._functions: list[str] = []
        self._names: dict[str, Any] = {
            "small": _SMALL,
            "number": _number,
            "times": _TIMES,
            "time": _time,
            "new": object.__new__,
            "put": object.__setattr__,
        }

    def make(self, schema: dict[str, Any], envelope: type[BaseModel], payload: type[BaseModel]) -> Read:
        name = self._record(schema, envelope, payload)
        exec("\n".join(self._functions), self._names)  # noqa: S102  (made of our own committed schemas)
        made: Read = self._names[name]
        return made

    def _record(self, schema: dict[str, Any], model: type[BaseModel], payload: type[BaseModel] | None = None) -> str:
        """The name of the function that reads such a record. A field that the schema has not is as the class has it."""
        name = f"{schema['name']}_as_{model.__name__}"
        if name in self._names:
            return name
        fields: list[dict[str, Any]] = schema["fields"]
        start = {key: _default(field) for key, field in model.model_fields.items()}
        start |= {f["name"]: _EMPTY.get(kind(f["type"])) for f in fields if f["name"] in start}
        self._names |= {name: None, f"{name}_class": model, f"{name}_start": start, f"{name}_set": {*start}}
        lines = [f"def {name}(b, p):", f" d = {name}_start.copy()"]
        for may_be_empty, group in groupby(fields, key=_may_be_empty):
            run = list(group)
            read = [line for field in run for line in self._field(field, model, payload)]
            if may_be_empty and len(run) >= _RUN:
                read = [f"if b[p:p + {len(run)}] == {bytes(len(run))!r}: p += {len(run)}", "else:", *indented(read)]
            lines += indented(read)
        lines += [
            f" o = new({name}_class)",
            " put(o, '__dict__', d)",
            f" put(o, '__pydantic_fields_set__', {name}_set)",
        ]
        lines += [" put(o, '__pydantic_extra__', None)", " put(o, '__pydantic_private__', None)", " return o, p"]
        self._functions += lines
        return name

    def _field(self, field: dict[str, Any], model: type[BaseModel], payload: type[BaseModel] | None) -> list[str]:
        known = model.model_fields.get(field["name"])
        target = f"d[{field['name']!r}]" if known is not None else "_"
        inner = payload if payload is not None and field["name"] == "data" else _model_in(known)
        return self._value(field["type"], target, inner)

    def _value(self, schema: Any, target: str, model: type[BaseModel] | None) -> list[str]:
        """The lines that put what begins at `p` into the target and move `p` behind it."""
        match kind(schema):
            case "null":
                some = ["p += 1", *self._value(schema[1], target, model)]
                otherwise = "else: raise ValueError('neither null nor there')"
                return [f"if b[p] == 0: p += 1; {target} = None", "elif b[p] == 2:", *indented(some), otherwise]
            case "long":
                return _long(target)
            case "string":
                return [*_long("n"), "e = p + n", f"{target} = b[p:e].decode()", "p = e"]
            case "bytes":
                return [*_long("n"), "e = p + n", f"{target} = b[p:e]", "p = e"]
            case "boolean":
                return [f"{target} = b[p] == 1", "p += 1"]
            case "time":
                return ["t = times.get(b[p:p + 8])", "if t is None: t, p = time(b, p)", "else: p += 8", f"{target} = t"]
            case "array":
                item = [*self._value(schema["items"], "v", model), "m.append(v)"]
                return ["m = []", *_blocks(item), f"{target} = tuple(m)"]
            case "map":
                item = [*self._value("string", "k", None), *self._value(schema["values"], "v", model), "m[k] = v"]
                return ["m = {}", *_blocks(item), f"{target} = m"]
        if isinstance(schema, dict):
            self._records[f"{schema['namespace']}.{schema['name']}"] = schema
        else:
            schema = self._records[schema]
        if model is None:
            raise TypeError(f"no class for the record {schema['name']}")
        return [f"v, p = {self._record(schema, model)}(b, p)", f"{target} = v"]


def _long(target: str) -> list[str]:
    """Most numbers and lengths take one byte or two."""
    return [
        "n = b[p]",
        f"if n < 128: {target} = small[n]; p += 1",
        f"elif b[p + 1] < 128: n = n & 127 | b[p + 1] << 7; {target} = (n >> 1) ^ -(n & 1); p += 2",
        f"else: {target}, p = number(b, p)",
    ]


def _blocks(item: list[str]) -> list[str]:
    """An array or a map: blocks of items, each with its count before it, until a count of 0."""
    sized = ["c = -c", *_long("n")]  # a negative count has the block's length in bytes after it
    block = [*_long("c"), "if c < 0:", *indented(sized), "for _ in range(c):", *indented(item)]
    return ["while b[p]:", *indented(block), "p += 1"]


def _may_be_empty(field: dict[str, Any]) -> bool:
    found = kind(field["type"])
    return found in ("null", "array", "map") or ("default" in field and found in _EMPTY)


def _default(field: FieldInfo) -> Any:
    return None if field.is_required() else field.get_default(call_default_factory=True)


def _model_in(field: FieldInfo | None) -> type[BaseModel] | None:
    """The class that a field holds, or holds several of."""
    return None if field is None else _class_in(field.annotation)


def _class_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in typing.get_args(annotation) if (found := _class_in(inner))), None)


def _number(b: bytes, p: int) -> tuple[int, int]:
    n, shift = b[p] & 127, 7
    while b[p] > 127:
        p += 1
        n |= (b[p] & 127) << shift
        shift += 7
    return (n >> 1) ^ -(n & 1), p + 1


def _time(b: bytes, p: int) -> tuple[datetime, int]:
    micros, end = _number(b, p)
    found = _EPOCH + timedelta(microseconds=micros)
    if end - p == 8:  # as all of them from 1987 to 2105 have
        if len(_TIMES) > _MOST_TIMES:
            _TIMES.clear()
        _TIMES[b[p:end]] = found
    return found, end
