"""Single processes for tests that don't need the whole stack: started on free ports in a test's folder, stopped by
their own pid whatever happens."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import httpx

from runtime.embedded_kafka import wait_until_answers

T = TypeVar("T")

START_SECONDS = 60.0


def until(look: Callable[[], T | None], what: str, timeout: float = 30) -> T:
    """What `look` gives once it gives something true."""
    deadline = time.monotonic() + timeout
    while True:
        if found := look():
            return found
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.05)


@contextmanager
def started(*arguments: str, log: Path, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """`python ARGUMENTS`, its output appended to `log`. Asked to stop at the end, then killed."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@contextmanager
def kafka(folder: Path, port: int) -> Iterator[str]:
    """A broker; gives its bootstrap address."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = ("-m", "runtime.embedded_kafka", "run", "--data-dir", str(folder), "--port", str(port))
    with started(*arguments, log=folder / "kafka.out"):
        wait_until_answers(f"127.0.0.1:{port}", START_SECONDS)
        yield f"127.0.0.1:{port}"


@contextmanager
def clickhouse(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """An engine that answers at http://127.0.0.1:PORT; gives its process, which may be killed."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = ("-m", "runtime.embedded_clickhouse", "--data-dir", str(folder), "--port", str(port))
    log = folder / "clickhouse.out"
    with started(*arguments, log=log) as process:

        def answers() -> bool:
            assert process.poll() is None, f"ClickHouse ended:\n{log.read_text()}"
            try:
                return httpx.get(f"http://127.0.0.1:{port}/ping", timeout=5).status_code == 200
            except httpx.TransportError:
                return False

        until(answers, "ClickHouse answers", START_SECONDS)
        yield process
