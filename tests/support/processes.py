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
from tests.support.parts import ROOT, free_port

__all__ = ["clickhouse", "free_port", "kafka", "spawn", "started", "stop", "until", "wait_for"]

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


def spawn(module: str, *arguments: str, log: Path, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """`python -m MODULE ARGUMENTS`, its output appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        )


def stop(process: subprocess.Popen[bytes], seconds: float = 10) -> int:
    """SIGTERM, unless it has ended; its exit code. Killed, and the test failed, when it takes longer."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise AssertionError(f"pid {process.pid} was still there {seconds:g} s after SIGTERM") from None


def wait_for(url: str, process: subprocess.Popen[bytes], seconds: float = 30) -> None:
    """Until a GET is answered with 200."""
    deadline = time.monotonic() + seconds
    while True:
        assert process.poll() is None, f"pid {process.pid} ended with {process.returncode}"
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass  # not up yet
        assert time.monotonic() < deadline, f"{url} did not answer within {seconds:g} s"
        time.sleep(0.05)
