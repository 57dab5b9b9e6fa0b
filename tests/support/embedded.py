"""The embedded broker and engine, each alone: on free ports, in a test's folder, stopped by their own pid."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import clickhouse_connect
from clickhouse_connect.driver.client import Client

from runtime.embedded_kafka import free_port, wait_until_answers

ROOT = Path(__file__).parents[2]
PASSWORD = "correct horse"
"""Of the engine's user `default`, where a test wants one."""

_START_SECONDS = 60.0
_STOP_SECONDS = 20.0


@contextmanager
def running(*arguments: str, log: Path, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m ARGUMENTS` in a session of its own, its output appended to `log`; asked to stop, then killed."""
    environment = {**os.environ, **env}
    with log.open("ab") as output:
        command = [sys.executable, "-m", *arguments]
        process = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT, env=environment, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def broker(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A broker that answers; gives its address and its process."""
    port = free_port()
    arguments = ("runtime.embedded_kafka", "run", "--data-dir", str(folder), "--port", str(port))
    with running(*arguments, log=folder / "out") as process:
        wait_until_answers(f"127.0.0.1:{port}", _START_SECONDS)
        yield f"127.0.0.1:{port}", process


@contextmanager
def engine(folder: Path, password: str = "", **env: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """A ClickHouse that answers on 127.0.0.1; gives its port and its process."""
    port = free_port()
    arguments = ("runtime.embedded_clickhouse", "--data-dir", str(folder), "--port", str(port))
    with running(*arguments, log=folder / "out", OMS_CLICKHOUSE_PASSWORD=password, **env) as process:
        deadline = time.monotonic() + _START_SECONDS
        while not _pings(port):
            assert process.poll() is None, (folder / "out").read_text()
            assert time.monotonic() < deadline, "no answer"
            time.sleep(0.05)
        yield port, process


def connect(port: int, username: str = "default", password: str = PASSWORD, **options: Any) -> Client:
    """A clickhouse-connect client of the engine."""
    options = {"autogenerate_session_id": False, **options}
    return clickhouse_connect.get_client(host="127.0.0.1", port=port, username=username, password=password, **options)


def _pings(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
