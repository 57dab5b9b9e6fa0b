"""pydantic → Avro, and the command that commits a new version of what changed: `python -m schemas.avro.generate`.

A message's record is its envelope with the payload as the nested record `data`. Schemas carry no docs, so that a
better sentence makes no new version.
"""

from __future__ import annotations

import json
import sys
import types
import typing
from datetime import datetime
from enum import StrEnum
from typing import Any, Union

from pydantic import BaseModel
from pydantic.fields import FieldInfo

import schemas  # noqa: F401  (registers every family)
from schemas.avro import store
from schemas.base import FAMILIES, Family, Payload

PRIMITIVES: dict[type, Any] = {
    str: "string",
    bool: "boolean",
    int: "long",
    float: "double",
    bytes: "bytes",
    datetime: {"type": "long", "logicalType": "timestamp-micros"},
}


def schema_of(family: Family, payload: type[Payload]) -> dict[str, Any]:
    """The Avro schema of one message type, as plain JSON data."""
    namespace = f"oms.{family.name}"
    defined: set[str] = set()
    data = _record(f"{namespace}.{payload.__name__}Data", payload, defined)
    fields = [_field(name, field, defined) for name, field in family.envelope.model_fields.items() if name != "data"]
    fields.append({"name": "data", "type": data})
    return {"type": "record", "name": payload.__name__, "namespace": namespace, "fields": fields}


def _record(name: str, model: type[BaseModel], defined: set[str]) -> Any:
    if name in defined:
        return name
    defined.add(name)
    namespace, _, short = name.rpartition(".")
    fields = [_field(field_name, field, defined) for field_name, field in model.model_fields.items()]
    return {"type": "record", "name": short, "namespace": namespace, "fields": fields}


def _field(name: str, field: FieldInfo, defined: set[str]) -> dict[str, Any]:
    out: dict[str, Any] = {"name": name, "type": _type(field.annotation, defined)}
    if not field.is_required():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            default = default.model_dump(mode="json")
        out["default"] = list(default) if isinstance(default, tuple) else default
    return out


def _type(annotation: Any, defined: set[str]) -> Any:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type(args[0], defined)
    if origin in (Union, types.UnionType):
        inner = [arg for arg in args if arg is not types.NoneType]
        if len(inner) != 1 or len(inner) == len(args):
            raise TypeError(f"only X | None is a union that we write, not {annotation}")
        return ["null", _type(inner[0], defined)]
    if origin is tuple and len(args) == 2 and args[1] is Ellipsis:
        return {"type": "array", "items": _type(args[0], defined)}
    if origin is dict and args[0] is str:
        return {"type": "map", "values": _type(args[1], defined)}
    if isinstance(annotation, type):
        if annotation in PRIMITIVES:
            return PRIMITIVES[annotation]
        if issubclass(annotation, StrEnum):
            return "string"
        if issubclass(annotation, BaseModel):
            return _record(f"oms.types.{annotation.__name__}", annotation, defined)
    raise TypeError(f"no Avro type for {annotation!r}")


def changed() -> list[tuple[Family, type[Payload], int]]:
    """The message types whose class is not as its newest committed schema says, with the version that comes next."""
    return [
        (family, payload, len(versions) + 1)
        for family in FAMILIES.values()
        for payload in family.payloads.values()
        if not (versions := store.versions(family.name, payload.__name__))
        or versions[-1].schema != schema_of(family, payload)
    ]


def main(arguments: list[str]) -> int:
    """Write a new version of every schema that changed; with --check only say so, and fail."""
    found = changed()
    if "--check" in arguments:
        for family, payload, _ in found:
            print(f"{family.name}/{payload.__name__} is not as committed: run `make schemas`")
        return 1 if found else 0
    for family, payload, version in found:
        path = store.path(family.name, payload.__name__, version)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(schema_of(family, payload), indent=1) + "\n")
        print(f"wrote {family.name}/{path.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
