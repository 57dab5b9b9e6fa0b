"""Real processes for tests of one part alone: a broker, the sandbox provider, one `oms run NAME`. All of them on free
ports and in the test's folder, and stopped by their pid, also when the test fails."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import httpx

from runtime import embedded_kafka, health, topology, topology_apply
from runtime.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
T = TypeVar("T")


class Child:
    """A process, its output in a file beside its data."""

    def __init__(self, arguments: list[str], log: Path, environment: dict[str, str]) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            )
        self.pid = self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()
        self._process.wait(10)

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self, timeout: float = 10) -> float:
        """SIGTERM; seconds until it was gone. Killed, and the test failed, when it takes too long."""
        began = time.monotonic()
        if self._process.poll() is None:
            self._process.terminate()
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(
                f"pid {self.pid} was still there {timeout:g} s after SIGTERM:\n{self.tail()}"
            ) from None
        return time.monotonic() - began

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]


@contextmanager
def child(arguments: list[str], log: Path, **environment: str) -> Iterator[Child]:
    started = Child(arguments, log, environment)
    try:
        yield started
    finally:
        if started.exit_code is None:
            started.stop(30)


def until(look: Callable[[], T | None], what: str, timeout: float = 30) -> T:
    """What `look` gives once it gives something true."""
    deadline = time.monotonic() + timeout
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {timeout:g} s: {what}"
        time.sleep(0.05)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def kafka_broker(folder: Path) -> Iterator[Settings]:
    """A broker with all topics of topology.yaml; the settings that lead to it."""
    port = free_port()
    arguments = ["runtime.embedded_kafka", "run", "--data-dir", str(folder), "--port", str(port)]
    with child(arguments, folder / "kafka.out"):
        settings = Settings(kafka_bootstrap=f"127.0.0.1:{port}", data_dir=folder)
        embedded_kafka.wait_until_answers(settings.kafka_bootstrap, 60)
        topology_apply.apply(settings, topology.load(), "embedded")
        yield settings


@contextmanager
def payment_provider(folder: Path, port: int, **environment: str) -> Iterator[Child]:
    """The sandbox provider, answering. Webhooks: OMS_GATEWAY_URL and OMS_WEBHOOK_SECRET."""
    arguments = ["sandbox.payment_provider", "--data-dir", str(folder), "--port", str(port)]
    with child(arguments, folder / "provider.out", **environment) as provider:
        answering(provider, port)
        yield provider


@contextmanager
def logistics_partners(folder: Path, port: int, **environment: str) -> Iterator[Child]:
    """The sandbox's warehouse and carrier, answering. Webhooks: OMS_GATEWAY_URL and OMS_WEBHOOK_SECRET."""
    arguments = ["sandbox.logistics", "--data-dir", str(folder), "--port", str(port)]
    with child(arguments, folder / "logistics.out", **environment) as partners:
        answering(partners, port)
        yield partners


def answering(service: Child, port: int) -> None:
    """Wait until a child answers at /healthz."""

    def answers() -> bool:
        assert service.exit_code is None, service.tail()
        try:
            return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    until(answers, f"the service at port {port} answers", 60)


@contextmanager
def oms_run(name: str, settings: Settings, folder: Path, slot: int = 0, **environment: str) -> Iterator[Child]:
    """`oms run NAME`, ready. `folder` is its data folder."""
    dead = health.read(folder, name, slot)
    with child(
        ["runtime", "run", name, "--slot", str(slot)],
        folder / f"{name}.out",
        OMS_DATA_DIR=str(folder),
        OMS_KAFKA_BOOTSTRAP=settings.kafka_bootstrap,
        **environment,
    ) as started:

        def ready() -> bool:
            assert started.exit_code is None, started.tail()
            report = health.read(folder, name, slot)
            return bool(report and report != dead and report["pid"] == started.pid and report["state"] == "ready")

        until(ready, f"{name} is ready")
        yield started
