"""What the makers of code for a schema have in common (`schemas.trusted` reads, `schemas.writers` writes)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def kind(schema: Any) -> str:
    """null (or something else), long, string, boolean, bytes, time, array, map or record."""
    if isinstance(schema, list):
        return "null"
    if isinstance(schema, dict):
        found: str = schema["type"]
        return "time" if schema.get("logicalType") == "timestamp-micros" else found
    return schema if schema in ("string", "long", "boolean", "bytes") else "record"


def indented(lines: Sequence[str]) -> list[str]:
    return [" " + line for line in lines]
