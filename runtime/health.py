"""How a process tells the supervisor (and so /readyz and `oms status`) how it is: a small file, replaced whole.

`DATA_DIR/run/NAME-SLOT.json`: {"name", "slot", "pid", "state", "at", "facts"}. States: starting, ready, degraded,
failed. `facts` are small JSON values, such as {"lag": 12}.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any, Literal

import orjson

from runtime.settings import Settings, settings

State = Literal["starting", "ready", "degraded", "failed"]


def path(data_dir: Path, name: str, slot: int) -> Path:
    return data_dir / "run" / f"{name}-{slot}.json"


def report(name: str, state: State, *, of: Settings | None = None, **facts: Any) -> None:
    """Say how this process (`of` its settings, or those given) is. Cheap enough for once a second, not once a message.

    Threads may call it at the same time.
    """
    here = of or settings()
    target = path(here.data_dir, name, here.slot)
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_suffix(f".{os.getpid()}-{threading.get_ident()}.tmp")
    fresh.write_bytes(
        orjson.dumps(
            {
                "name": name,
                "slot": here.slot,
                "pid": os.getpid(),
                "state": state,
                "at": time.time(),
                "facts": facts,
            }
        )
    )
    fresh.replace(target)


def read(data_dir: Path, name: str, slot: int) -> dict[str, Any] | None:
    """The last report, or None when there is none (yet)."""
    try:
        found: dict[str, Any] = orjson.loads(path(data_dir, name, slot).read_bytes())
    except FileNotFoundError:
        return None
    return found
