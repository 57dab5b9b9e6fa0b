"""A processor's state under one key, in memory."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any


class Memory:
    """Values go through JSON, as in the real store, so that nobody gets hold of a shared object. `ttls`: of the entries
    that have one."""

    def __init__(self) -> None:
        self.entries: dict[str, Any] = {}
        self.ttls: dict[str, timedelta] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(json.dumps(self.entries.get(key, default)))

    def set(self, key: str, value: Any, ttl: timedelta | None = None) -> None:
        self.entries[key] = json.loads(json.dumps(value))
        if ttl is not None:
            self.ttls[key] = ttl

    def delete(self, key: str) -> None:
        self.entries.pop(key, None)
