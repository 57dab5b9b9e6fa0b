"""docs/events.md, made of the public message classes: `python -m schemas.contract [--check] FILE`."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from datetime import datetime
from pathlib import Path
from typing import Any, Union

from pydantic import BaseModel

import schemas  # noqa: F401  (registers every family)
from schemas.avro import store
from schemas.base import FAMILIES

PUBLIC = ("order.events", "order.states", "inventory.events", "inventory.levels")
HEAD = """# The public contract

Made of the classes in `schemas/` by `make schemas`; don't edit it.

Values are Avro in the Confluent wire format: a zero byte, the schema id (4 bytes, big-endian), the record. The gateway
serves the schemas on a schema registry's paths, so that a stock deserializer needs nothing but its URL. Headers follow
the CloudEvents Kafka binding (`ce_id`, `ce_type`, `ce_source`, `ce_time`, `ce_subject`) and carry `traceparent`,
`correlation_id` and `causation_id`. Schemas are FULL_TRANSITIVE compatible: a reader of any version reads every other.

Amounts are integers in minor units of the order's currency. Times are UTC, in microseconds. What names a person is
sealed: `{key_id, nonce, ciphertext}`.
"""


def render() -> str:
    """The whole page."""
    parts = [HEAD]
    nested: dict[str, type[BaseModel]] = {}
    for name in PUBLIC:
        family = FAMILIES[name]
        parts.append(f"\n## {name}\n\n{inspect.getdoc(family.envelope)}\n\n{_table(family.envelope, nested)}")
        for payload in family.payloads.values():
            committed = store.newest()[name, payload.__name__]
            meaning = payload.__doc__ or ""
            parts.append(f"\n### {payload.__name__}\n")
            parts.append(f"\nSchema id {committed.id}, version {committed.version}. {' '.join(meaning.split())}\n")
            parts.append(f"\n{_table(payload, nested)}")
    parts.append("\n## Records inside\n")
    done: set[str] = set()
    while waiting := sorted(set(nested) - done):
        for name in waiting:
            done.add(name)
            parts.append(f"\n### {name}\n\n{' '.join((nested[name].__doc__ or '').split())}\n\n")
            parts.append(_table(nested[name], nested))
    return "".join(parts).replace(" \n", "\n")


def _table(model: type[BaseModel], nested: dict[str, type[BaseModel]]) -> str:
    rows = ["| field | type | |\n", "|---|---|---|\n"]
    for name, field in model.model_fields.items():
        kind = "the record below" if name == "data" else _type(field.annotation, nested)
        rows.append(f"| {name} | {kind} | {field.description or ''} |\n")
    return "".join(rows)


def _type(annotation: Any, nested: dict[str, type[BaseModel]]) -> str:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(args[0], nested)
    if origin in (Union, types.UnionType):
        return f"{_type(next(arg for arg in args if arg is not types.NoneType), nested)}, or null"
    if origin is tuple:
        return f"list of {_type(args[0], nested)}"
    if origin is dict:
        return f"map to {_type(args[1], nested)}"
    if issubclass(annotation, BaseModel):
        nested[annotation.__name__] = annotation
        return f"{annotation.__name__}"
    return {int: "long", str: "string", bool: "boolean", datetime: "time", bytes: "bytes"}[annotation]


def main(arguments: list[str]) -> int:
    file = Path(next(argument for argument in arguments if argument != "--check"))
    fresh = render()
    if "--check" not in arguments:
        file.write_text(fresh)
        return 0
    if not file.exists() or file.read_text() != fresh:
        print(f"{file} is not as the classes say: run `make schemas`")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
