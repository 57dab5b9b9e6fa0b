"""`oms run NAME`: become one process of the topology. Nothing of ours starts in any other way.

Under a supervisor (`OMS_PARENT_PID`) the process never outlives it, not even when the supervisor is killed with -9.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from runtime.errors import UserError, no_space

PARENT = "OMS_PARENT_PID"
_PR_SET_PDEATHSIG = 1


def run(name: str, slot: int = 0) -> None:
    """Run a process by its name in topology.yaml until SIGTERM or SIGINT. Blocks; the broker replaces this process.

    Raises:
        UserError: there is no such process, or it can't start until a person does something.
    """
    if parent := os.environ.get(PARENT):
        die_with(int(parent))
    os.environ["OMS_SLOT"] = str(slot)
    os.environ.setdefault("OMS_GATEWAY_INSTANCE", f"{name}-{slot}")

    import structlog

    from runtime import logs
    from runtime.settings import settings
    from runtime.topology import load

    logs.configure(name)
    topology = load(settings().topology)
    try:
        if name in topology.services:
            _serve(name)
        elif name in topology.processors:
            from runtime import streams

            streams.run(settings(), topology, name)
        else:
            # LookupError's message lists the names there are.
            target = getattr(topology.process(name), "run")  # noqa: B009
            _resolve(target)(settings(), name)
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise no_space(settings().data_dir) from error
        structlog.get_logger(__name__).critical("died", exc_info=True)
        sys.exit(1)


def die_with(parent: int) -> None:
    """From now on the kernel kills this process (SIGKILL) when `parent` is gone, also after an exec.

    Call it first, from the main thread. Where the kernel has no such service, a small process watches instead.
    """
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    else:
        watch_parent(parent)
    # It may have died before the kernel was asked.
    if os.getppid() != parent:
        os._exit(1)


def watch_parent(parent: int, interval: float = 0.5) -> None:
    """Fork a process that kills this one when `parent` is no longer its parent, and ends when this one has ended."""
    watched = os.getpid()
    if os.fork():
        return
    while os.getppid() == watched:
        if not _exists(parent):
            os.kill(watched, signal.SIGKILL)
        time.sleep(interval)
    os._exit(0)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _serve(name: str) -> None:
    """The embedded services: where the settings say that everyone looks for them."""
    from runtime.settings import settings

    here = settings()
    if name == "kafka":
        from runtime import embedded_kafka
        from runtime.stack import free_port

        embedded_kafka.exec_kafka(here.data_dir, _port(f"//{here.kafka_bootstrap}"), free_port())
    elif name in ("clickhouse", "clickhouse-replica"):
        from runtime import embedded_clickhouse

        folder, url = here.data_dir, here.clickhouse_url
        if name == "clickhouse-replica":
            folder, url = here.data_dir / name, here.clickhouse_replica_url or "OMS_CLICKHOUSE_REPLICA_URL"
        embedded_clickhouse.serve(folder, "127.0.0.1", _port(url), here.clickhouse_password.get_secret_value())
    elif name == "payment-provider":
        from sandbox import payment_provider

        payment_provider.serve(here, _host(here.payment_url), _port(here.payment_url))
    elif name == "logistics-partners":
        from sandbox import logistics

        logistics.serve(here, _host(here.logistics_url), _port(here.logistics_url))
    else:
        raise UserError(f"The service {name} has nothing embedded that could be started.")


def _host(url: str) -> str:
    """Where the provider listens: only in a container is that not this machine alone."""
    return urlsplit(url).hostname or "127.0.0.1"


def _port(url: str) -> int:
    port = urlsplit(url).port
    if port is None:
        raise UserError(f"{url} names no port.")
    return port


def _resolve(target: str) -> Callable[..., Any]:
    module, _, attribute = target.partition(":")
    found: Callable[..., Any] = getattr(importlib.import_module(module), attribute)
    return found
