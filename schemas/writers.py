"""Messages → Avro, by a function for each schema that is written line by line as one would for that record: no dict of
the message, no loop over a schema's fields, no trying which member of a union fits. The same bytes as fastavro's
(tests/schemas/test_writers.py), in a tenth of the time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from schemas.avro.code import indented, kind

Write = Callable[[Any, bytearray], None]
"""(what has the record's fields as attributes, where to append it)

Raises whatever a value of another type than its field's leads to (AttributeError, TypeError), and OverflowError when a
number is none of 64 bits."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_TIMES: dict[datetime, bytes] = {}
"""The times of an order are in each of its events and states again."""
_MOST_TIMES = 50_000


def writer(schema: dict[str, Any]) -> Write:
    """The function for records of this schema, whose fields are all attributes of what it writes."""
    maker = _Maker()
    name = maker.record(schema)
    exec("\n".join(maker.functions), maker.names)  # noqa: S102  (made of our own committed schemas)
    made: Write = maker.names[name]
    return made


class _Maker:
    """Writes the functions of one schema: one for each record in it, which call each other."""

    def __init__(self) -> None:
        self.functions: list[str] = []
        self.names: dict[str, Any] = {"small": _SMALL, "number": _number, "times": _TIMES, "time": _time}
        self._known: dict[str, str] = {}

    def record(self, schema: dict[str, Any]) -> str:
        """The name of the function that writes such a record."""
        name = f"write_{len(self._known)}"
        self._known[f"{schema['namespace']}.{schema['name']}"] = name
        lines = [line for field in schema["fields"] for line in self._value(field["type"], f"o.{field['name']}", 0)]
        self.functions += [f"def {name}(o, b):", *indented(lines or ["pass"])]
        return name

    def _value(self, schema: Any, source: str, depth: int) -> list[str]:
        """The lines that append what `source` gives. `depth`: of arrays and maps in each other: each has its names."""
        v = f"v{depth}"
        match kind(schema):
            case "null":
                return [
                    f"{v} = {source}",
                    f"if {v} is None: b.append(0)",
                    "else:",
                    *indented(["b.append(2)", *self._value(schema[1], v, depth + 1)]),
                ]
            case "long":
                return [f"n = {source}", _LONG]
            case "string":
                return [f"s = {source}.encode()", "n = len(s)", _LONG, "b += s"]
            case "bytes":
                return [f"s = {source}", "n = len(s)", _LONG, "b += s"]
            case "boolean":
                return [f"b.append(1 if {source} else 0)"]
            case "time":
                return [f"t = {source}", "b += times.get(t) or time(t)"]
            case "array":
                item = self._value(schema["items"], f"i{depth}", depth + 1)
                loop = ["n = len(" + v + ")", _LONG, f"for i{depth} in {v}:", *indented(item)]
                return [f"{v} = {source}", f"if {v}:", *indented(loop), "b.append(0)"]
            case "map":
                item = [
                    *self._value("string", f"k{depth}", depth + 1),
                    *self._value(schema["values"], f"i{depth}", depth + 1),
                ]
                loop = ["n = len(" + v + ")", _LONG, f"for k{depth}, i{depth} in {v}.items():", *indented(item)]
                return [f"{v} = {source}", f"if {v}:", *indented(loop), "b.append(0)"]
        name = self.record(schema) if isinstance(schema, dict) else self._known[schema]
        return [f"{name}({source}, b)"]


def _number(n: int) -> bytes:
    if not -(2**63) <= n < 2**63:
        raise OverflowError(f"{n} is no number of 64 bits")
    z = (n << 1) ^ (n >> 63)
    found = bytearray()
    while z > 127:
        found.append(z & 127 | 128)
        z >>= 7
    found.append(z)
    return bytes(found)


def _time(at: datetime) -> bytes:
    if len(_TIMES) > _MOST_TIMES:
        _TIMES.clear()
    found = _TIMES[at] = _number((at - _EPOCH) // _MICROSECOND)
    return found


_SMALL = {n: _number(n) for n in range(-64, 1024)}
"""Most numbers and lengths are among them."""
_LONG = "b += small.get(n) or number(n)"
