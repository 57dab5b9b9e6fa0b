"""ClickHouse on its own, for tests that need no whole stack (see `parts` for the rest)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.parts import Child, child, until


@contextmanager
def clickhouse(folder: Path, port: int) -> Iterator[Child]:
    """An engine that answers at http://127.0.0.1:PORT; it may be killed."""
    with child(
        ["runtime.embedded_clickhouse", "--data-dir", str(folder), "--port", str(port)], folder / "clickhouse.out"
    ) as engine:

        def answers() -> bool:
            assert engine.exit_code is None, engine.tail()
            try:
                return httpx.get(f"http://127.0.0.1:{port}/ping", timeout=5).status_code == 200
            except httpx.TransportError:
                return False

        until(answers, "ClickHouse answers", 60)
        yield engine
