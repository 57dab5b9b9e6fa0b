"""The committed schemas: `schemas/avro/FAMILY/Name.VERSION.avsc`, and their ids.

A schema's id is a 31-bit hash of the schema itself, so that a log that is read for seven years needs no registry to
have remembered it, and no registry's counter can give the number to something else.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Committed:
    """One committed version of one message type's schema."""

    family: str
    name: str
    version: int
    id: int
    schema: dict[str, Any]

    @property
    def fullname(self) -> str:
        return f"{self.schema['namespace']}.{self.schema['name']}"

    def subject(self, topic: str) -> str:
        """The registry's subject for it on a topic: by topic and record name."""
        return f"{topic}-{self.fullname}"


def schema_id(schema: dict[str, Any]) -> int:
    """31 bits of the SHA-256 of the schema's JSON with sorted keys; never 0."""
    digest = hashlib.sha256(json.dumps(schema, sort_keys=True, separators=(",", ":")).encode()).digest()
    return (int.from_bytes(digest[:4], "big") & 0x7FFFFFFF) or 1


def path(family: str, name: str, version: int) -> Path:
    return FOLDER / family / f"{name}.{version}.avsc"


def versions(family: str, name: str) -> list[Committed]:
    """Every committed version, oldest first."""
    found = []
    for file in (FOLDER / family).glob(f"{name}.*.avsc"):
        schema = json.loads(file.read_text())
        found.append(Committed(family, name, int(file.name.split(".")[1]), schema_id(schema), schema))
    return sorted(found, key=lambda committed: committed.version)


@cache
def by_id() -> dict[int, Committed]:
    """Every committed schema by its id. ValueError when two share one (the test would have said so before)."""
    everything: dict[int, Committed] = {}
    for file in sorted(FOLDER.glob("*/*.avsc")):
        name, version, _ = file.name.split(".")
        schema = json.loads(file.read_text())
        committed = Committed(file.parent.name, name, int(version), schema_id(schema), schema)
        if committed.id in everything:
            raise ValueError(f"{file} and {everything[committed.id].fullname} have the same schema id")
        everything[committed.id] = committed
    return everything


@cache
def newest() -> dict[tuple[str, str], Committed]:
    """(family, name) → its newest committed schema: what we write."""
    found: dict[tuple[str, str], Committed] = {}
    for committed in by_id().values():
        key = (committed.family, committed.name)
        if key not in found or found[key].version < committed.version:
            found[key] = committed
    return found
