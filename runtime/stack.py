"""What is known of the embedded stack of a data folder: whose it is, which ports it got, how its processes are.

`DATA_DIR/lock` is held (flock) by the stack that runs; `run/stack.json` is written once at start, `run/supervisor.json`
at every change.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import secrets
import shutil
import socket
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson
import psutil

from runtime.errors import UserError, no_space
from runtime.settings import Settings

GATEWAY_PORT = 8080
# The service, the setting that says where it is, and what that setting is made of.
SERVICES = {
    "kafka": ("OMS_KAFKA_BOOTSTRAP", "127.0.0.1:{port}", 9092),
    "clickhouse": ("OMS_CLICKHOUSE_URL", "http://127.0.0.1:{port}", 8123),
    "clickhouse-replica": ("OMS_CLICKHOUSE_REPLICA_URL", "http://127.0.0.1:{port}", 8124),
    "payment-provider": ("OMS_PAYMENT_URL", "http://127.0.0.1:{port}", 8090),
    "logistics-partners": ("OMS_LOGISTICS_URL", "http://127.0.0.1:{port}", 8091),
}
# Below the range from which Linux and macOS give ports to outgoing connections, which could take one before we do.
_OTHER_PORTS = range(20_000, 32_000)
_FREE_BYTES = 500_000_000


@dataclass(frozen=True)
class Stack:
    """A stack as `run/stack.json` has it."""

    pid: int
    """The supervisor's."""
    create_time: float
    """When that process started (seconds since 1970, psutil's), so that a reused pid is not taken for it."""
    url: str
    """The gateway's."""
    ports: dict[str, int]
    """Of each service that the stack runs itself, and of the gateway."""
    env: dict[str, str]
    """What every process gets besides the inherited environment."""

    def process(self) -> psutil.Process | None:
        """The supervisor, or None when it doesn't run."""
        try:
            found = psutil.Process(self.pid)
            alive = abs(found.create_time() - self.create_time) < 1 and found.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return found if alive else None


@dataclass
class Report:
    """The stack's processes as `run/supervisor.json` has them."""

    pid: int
    """The supervisor's."""
    state: str
    """starting, ready, degraded (a process is not ready), stopping, stopped"""
    at: float
    children: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By NAME-SLOT: name, slot, kind, state, pid, started_at, restarts, exit_code."""
    crash_loops: list[str] = field(default_factory=list)
    """NAME-SLOT of each process that keeps dying."""
    reason: str | None = None
    """Why the stack stopped by itself: a sentence."""


def read_stack(data_dir: Path) -> Stack | None:
    """The stack that runs here, or the last that did, or None."""
    found = _read(data_dir / "run" / "stack.json")
    return None if found is None else Stack(**found)


def write_stack(data_dir: Path, stack: Stack) -> None:
    """For this user's eyes only: the environment holds the webhook secret."""
    _write(data_dir / "run" / "stack.json", asdict(stack), mode=0o600)


def read_report(data_dir: Path) -> Report | None:
    found = _read(data_dir / "run" / "supervisor.json")
    return None if found is None else Report(**found)


def write_report(data_dir: Path, report: Report) -> None:
    _write(data_dir / "run" / "supervisor.json", asdict(report))


def stack_settings(data_dir: Path) -> Settings:
    """The settings of the stack in this data folder; what the environment says goes first."""
    stack = read_stack(data_dir)
    known = {} if stack is None else stack.env
    values: dict[str, Any] = {
        name.removeprefix("OMS_").lower(): value for name, value in known.items() if name not in os.environ
    }
    return Settings(**{**values, "data_dir": data_dir})


def unusable(data_dir: Path, error: OSError) -> UserError:
    if error.errno == errno.ENOSPC:
        return no_space(data_dir)
    return UserError(
        f"The data folder {data_dir} can't be written to ({error.strerror}): choose another with --data-dir."
    )


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Hold the data folder; the kernel gives it free when this process dies, however it dies.

    Raises:
        UserError: another stack holds it, or it can't be written to.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        file = (data_dir / "lock").open("a")
    except OSError as error:
        raise unusable(data_dir, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"The data folder {data_dir} is in use by another stack: stop it with "
                f"`oms down --data-dir {data_dir}`, or choose another folder with --data-dir."
            ) from error
        if (free := shutil.disk_usage(data_dir).free) < _FREE_BYTES:
            raise UserError(
                f"Only {free // 1_000_000} MB are free in {data_dir} and the stack needs {_FREE_BYTES // 1_000_000}: "
                "free some space, or choose another folder with --data-dir."
            )
        yield


def webhook_secret(data_dir: Path) -> str:
    """What the sandboxes of this data folder sign their webhooks with; made at the first start.

    Raises:
        UserError: the data folder can't be written to.
    """
    path = data_dir / "webhook.secret"
    try:
        if not path.exists():
            fresh = path.with_suffix(".tmp")
            fresh.unlink(missing_ok=True)
            with open(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
            fresh.replace(path)
        return path.read_text().strip()
    except OSError as error:
        raise unusable(data_dir, error) from error


@contextmanager
def reserved_ports(gateway_port: int, services: Collection[str]) -> Iterator[dict[str, int]]:
    """A port for the gateway and for each of the services that the environment doesn't place elsewhere.

    The gateway gets the port asked for (0: any). A service whose usual port is taken gets another. They stay ours
    until the block ends, also against other stacks that are starting at this moment.

    Raises:
        UserError: the gateway's port is taken.
    """
    claims: list[int] = []
    try:
        ports = {}
        gateway = _any_port(claims) if gateway_port == 0 else gateway_port
        if gateway_port and not _claim(gateway_port, claims):
            raise UserError(f"Port {gateway_port} is taken by another program: choose another one with --port.")
        for name, (variable, _, usual) in SERVICES.items():
            if name in services and variable not in os.environ:
                ports[name] = usual if _claim(usual, claims) else _any_port(claims)
        yield {**ports, "gateway": gateway}
    finally:
        for claim in claims:
            os.close(claim)


def free_port() -> int:
    """One that nobody listens on now."""
    while not _is_free(port := random.choice(_OTHER_PORTS)):  # noqa: S311
        pass
    return port


def _any_port(claims: list[int]) -> int:
    while not _claim(port := random.choice(_OTHER_PORTS), claims):  # noqa: S311
        pass
    return port


def _claim(port: int, claims: list[int]) -> bool:
    """Whether the port is free and no other stack of this user has it in mind; if so a lock on it is held."""
    from runtime.jars import cache_dir

    folder = cache_dir() / "ports"
    folder.mkdir(parents=True, exist_ok=True)
    claim = os.open(folder / str(port), os.O_CREAT | os.O_RDWR)
    try:
        fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(claim)
        return False
    if not _is_free(port):
        os.close(claim)
        return False
    claims.append(claim)
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do: without it a port in TIME_WAIT would look taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return found


def _write(path: Path, value: dict[str, Any], mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".tmp")
    fresh.unlink(missing_ok=True)  # a leftover would keep its own mode
    with open(os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode), "wb") as file:
        file.write(orjson.dumps(value, option=orjson.OPT_INDENT_2))
    fresh.replace(path)
