"""One recorded message for every committed schema: `golden.json`, schema id → name and bytes (hex).

`python -m tests.schemas.golden` records what is new. What is recorded stays: it stands for seven years of messages.
"""

from __future__ import annotations

import json
import types
import typing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Union

from pydantic import BaseModel

from schemas.avro import store
from schemas.base import FAMILIES, Envelope, Payload
from schemas.codec import encode

FILE = Path(__file__).with_name("golden.json")


def example(payload: type[Payload]) -> Envelope:
    """A message of this type with every field filled, always the same."""
    envelope = FAMILIES[payload.family].envelope
    fields = {name: _value(field.annotation, name) for name, field in envelope.model_fields.items() if name != "data"}
    return envelope(**fields, data=_model(payload))


def _model(model: type[BaseModel]) -> Any:
    return model(**{name: _value(field.annotation, name) for name, field in model.model_fields.items()})


def _value(annotation: Any, name: str) -> Any:
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _value(args[0], name)
    if origin in (Union, types.UnionType):
        return _value(next(arg for arg in args if arg is not types.NoneType), name)
    if origin is tuple:
        return (_value(args[0], name), _value(args[0], f"{name} again"))
    if origin is dict:
        return {"EUR": _value(args[1], name)}
    if issubclass(annotation, BaseModel):
        return _model(annotation)
    number = sum(name.encode())
    plain: dict[type, Any] = {
        bool: True,
        int: number * 1_000_003,
        str: f"{name} ü€",
        bytes: name.encode() + b"\x00\xff",
        datetime: datetime(2026, 1, 2, 3, 4, 5, 678901, UTC) + timedelta(seconds=number),
    }
    return plain[annotation]


def recorded() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return found


def main() -> None:
    found = recorded()
    for (family, name), committed in store.newest().items():
        if str(committed.id) not in found:
            message = example(FAMILIES[family].payloads[name])
            found[str(committed.id)] = {"name": f"{family}/{name}", "hex": encode(message).hex()}
            print(f"recorded {family}/{name}")
    FILE.write_text(json.dumps(dict(sorted(found.items(), key=lambda item: item[1]["name"])), indent=1) + "\n")


if __name__ == "__main__":
    main()
