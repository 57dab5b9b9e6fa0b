"""A child of the supervisor: started, watched, stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson

from runtime import health
from runtime.run import PARENT

Kind = Literal["service", "processor", "worker", "sink", "gateway"]
State = Literal["waiting", "starting", "ready", "degraded", "failed", "restarting", "stopped"]

_ROTATE_BYTES = 10_000_000
# Of the services: a path that answers 200 once they are ready. The broker is asked in its own protocol.
_PATHS = {
    "clickhouse": "/ping",
    "clickhouse-replica": "/ping",
    "payment-provider": "/healthz",
    "logistics-partners": "/healthz",
}


@dataclass
class Child:
    """One instance of a process of topology.yaml and what became of it so far."""

    name: str
    slot: int
    kind: Kind
    needs: tuple[str, ...]
    """What has to be ready before it starts: names of processes, and `topics`."""
    data_dir: Path
    port: int | None = None

    state: State = "waiting"
    started_at: float = 0.0
    """Seconds since 1970; of the process that runs now."""
    restarts: int = 0
    exit_code: int | None = None
    """Of the process before, as a shell has it: 128 + the signal's number."""
    deaths: deque[float] = field(default_factory=deque)
    """When it died lately (monotonic seconds)."""
    crash_loop: bool = False
    announced: bool = False
    """Whether the process that runs now has been ready."""
    process: asyncio.subprocess.Process | None = None
    _exit: asyncio.Task[int] | None = None

    @property
    def id(self) -> str:
        return f"{self.name}-{self.slot}"

    @property
    def title(self) -> str:
        """For people: the slot only where there are several."""
        return self.name if self.slot == 0 else self.id

    @property
    def log(self) -> Path:
        return self.data_dir / "logs" / f"{self.id}.log"

    def facts(self) -> dict[str, Any]:
        """As `run/supervisor.json` has it."""
        return {
            "name": self.name,
            "slot": self.slot,
            "kind": self.kind,
            "state": "crash loop" if self.crash_loop and self.state != "ready" else self.state,
            "pid": self.process.pid if self.process is not None and self.running else None,
            "port": self.port,
            "started_at": self.started_at,
            "restarts": self.restarts,
            "exit_code": self.exit_code,
        }

    @property
    def running(self) -> bool:
        return self._exit is not None and not self._exit.done()

    async def start(self, env: dict[str, str]) -> None:
        """Start the process, in a session of its own: a Ctrl-C is the supervisor's to hear."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _ROTATE_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        health.path(self.data_dir, self.name, self.slot).unlink(missing_ok=True)
        self.state, self.announced = "starting", False
        self.started_at = time.time()
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "runtime", "run", self.name, "--slot", str(self.slot)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, **env, PARENT: str(os.getpid())},
                start_new_session=True,
            )
        self._exit = asyncio.create_task(self.process.wait())

    async def exited(self, seconds: float) -> bool:
        """Wait for its end, `seconds` at most."""
        if self._exit is None:
            return True
        done, _ = await asyncio.wait({self._exit}, timeout=seconds)
        if done:
            code = self._exit.result()
            self.exit_code = code if code >= 0 else 128 - code
        return bool(done)

    async def look(self) -> State:
        """How it says that it is, or, of a service, whether it answers."""
        if self.kind != "service":
            report = health.read(self.data_dir, self.name, self.slot)
            if self.process is None or report is None or report["pid"] != self.process.pid:
                return "starting"
            found: State = report["state"]
            return found
        if self.state == "ready":
            return "ready"
        return "ready" if await asyncio.to_thread(self._answers) else "starting"

    def _answers(self) -> bool:
        if self.name == "kafka":
            from runtime.embedded_kafka import EmbeddedKafkaError, wait_until_answers

            try:
                wait_until_answers(f"127.0.0.1:{self.port}", timeout=0.5)
            except EmbeddedKafkaError:
                return False
            return True
        url = f"http://127.0.0.1:{self.port}{_PATHS[self.name]}"
        try:
            with urllib.request.urlopen(url, timeout=1) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    async def stop(self, seconds: float) -> None:
        """SIGTERM, and after `seconds` SIGKILL."""
        if self.running:
            self.signal(signal.SIGTERM)
            if not await self.exited(seconds):
                self.signal(signal.SIGKILL)
                await self.exited(seconds)
        self.state = "stopped"

    def signal(self, number: signal.Signals) -> None:
        if self.process is not None and self.running:
            self.process.send_signal(number)

    def last_words(self) -> str:
        """The last line of its log that says something, for a person."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(0, self.log.stat().st_size - 20_000))
                lines = log.read().decode(errors="replace").splitlines()
        except FileNotFoundError:
            return ""
        line = next((line.strip() for line in reversed(lines) if line.strip()), "")
        try:
            entry = orjson.loads(line)
        except orjson.JSONDecodeError:
            return line
        if not isinstance(entry, dict):
            return line
        cause = str(entry.get("exception", "")).strip().splitlines()
        return ": ".join(text for text in (str(entry.get("event", "")), cause[-1] if cause else "") if text)
