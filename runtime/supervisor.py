"""`oms up`: the whole stack as children of one process (why our own: docs/decisions/0006-supervisor.md).

Starts what topology.yaml names, in the order of what each needs; restarts what dies; stops all, last started first.
Says one line an event that matters; everything else is in `DATA_DIR/logs`.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import psutil

from runtime import stack, topology
from runtime.errors import EXIT_CODE, UserError
from runtime.processes import Child, Kind
from runtime.stack import SERVICES, Report, Stack

Say = Callable[[str], None]

START_TIMEOUT = 180.0
HEALTHY_AFTER = 30.0
BACKOFF, MAX_BACKOFF = 0.2, 10.0
CRASH_LOOP, CRASH_LOOP_WINDOW = 5, 60.0
# Who goes when, and how long each may take: 19 s in all.
STOP_ORDER: tuple[tuple[float, tuple[str, ...]], ...] = (
    (4.0, ("gateway",)),
    (6.0, ("processor", "worker", "sink")),
    (3.0, ("payment-provider", "logistics-partners", "clickhouse", "clickhouse-replica")),
    (6.0, ("kafka",)),
)
TOPICS = "topics"
TIME_SCALE = "600"
"""Half an hour to change an order, or a day until the carrier comes again, would be long for a demonstration."""


class _Stop(Exception):
    """A signal asked for it."""


def up(data_dir: Path, port: int, say: Say) -> None:
    """Run the stack until SIGINT, SIGTERM or SIGHUP.

    Raises:
        UserError: it can't be started, and why.
    """
    data_dir = data_dir.absolute()
    with stack.locked(data_dir):
        described = topology.load(stack.stack_settings(data_dir).topology)
        with stack.reserved_ports(port, described.services_for("embedded")) as ports:
            env = _environment(data_dir, ports)
            children = plan(described, data_dir, ports)
            _fetch(children, say)
            url = f"http://127.0.0.1:{ports['gateway']}"
            me = psutil.Process()
            stack.write_stack(data_dir, Stack(me.pid, me.create_time(), url, ports, env))
            asyncio.run(Supervisor(data_dir, children, env, url, say).run())


def _environment(data_dir: Path, ports: dict[str, int]) -> dict[str, str]:
    """What every child gets besides what we inherited: the places of this stack, and what makes it a sandbox."""
    env = {"OMS_DATA_DIR": str(data_dir), "OMS_GATEWAY_PORT": str(ports["gateway"])}
    sandbox = {
        "OMS_GATEWAY_URL": f"http://127.0.0.1:{ports['gateway']}",
        "OMS_WEBHOOK_SECRET": stack.webhook_secret(data_dir),
        "OMS_TIME_SCALE": TIME_SCALE,
    }
    env |= {variable: value for variable, value in sandbox.items() if variable not in os.environ}
    for name, (variable, pattern, _) in SERVICES.items():
        if name in ports:
            env[variable] = pattern.format(port=ports[name])
    return env


def plan(described: topology.Topology, data_dir: Path, ports: dict[str, int]) -> list[Child]:
    """The children of a stack. Everything of ours needs the topics; ClickHouse and the provider start beside Kafka."""
    children = [Child(name, 0, "service", (), data_dir, ports[name]) for name in described.services if name in ports]
    services = {child.name for child in children}
    sections: tuple[tuple[Kind, dict[str, topology.Process]], ...] = (
        ("processor", dict(described.processors)),
        ("worker", dict(described.workers)),
        ("sink", dict(described.sinks)),
        ("gateway", dict(described.gateways)),
    )
    for kind, processes in sections:
        for name, process in processes.items():
            needs = {TOPICS, "kafka", *process.needs}
            for slot in range(process.instances["embedded"]):
                port = ports["gateway"] + slot if kind == "gateway" else None
                wanted = tuple(sorted(needs & {TOPICS, *services}))
                children.append(Child(name, slot, kind, wanted, data_dir, port))
    return children


def _fetch(children: list[Child], say: Say) -> None:
    """The broker's jars, before anything is started that would have to be stopped again."""
    if not any(child.name == "kafka" for child in children):
        return
    from runtime import embedded_kafka

    embedded_kafka.fetch(lambda name, done, total: say(f"fetched {name} ({done} of {total})"))


class Supervisor:
    """Keeps the children of one stack."""

    def __init__(self, data_dir: Path, children: list[Child], env: dict[str, str], url: str, say: Say) -> None:
        self.data_dir = data_dir
        self.children = children
        self.env = env
        self.url = url
        self.say = say
        self.state = "starting"
        self.reason: str | None = None
        self._began = time.monotonic()
        self._stop = asyncio.Event()
        self._up = {need: asyncio.Event() for need in (TOPICS, *(child.id for child in children))}
        self._published: Report | None = None

    async def run(self) -> None:
        """Until a signal. UserError when the stack doesn't become ready; all children are gone in any case."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)
        self.say(f"data in {self.data_dir}, logs in {self.data_dir / 'logs'}")
        failure: UserError | None = None
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._until_stopped())
                group.create_task(self._announce())
                group.create_task(self._apply_topology())
                for child in self.children:
                    group.create_task(self._keep(child))
        except* _Stop:
            pass
        except* UserError as errors:
            first = errors.exceptions[0]
            failure = first if isinstance(first, UserError) else None
        finally:
            await self._stop_all(str(failure) if failure else None)
        if failure is not None:
            raise failure

    def _on_signal(self) -> None:
        if self._stop.is_set():  # asked twice: no more patience
            for child in self.children:
                child.signal(signal.SIGKILL)
        self._stop.set()

    async def _until_stopped(self) -> None:
        await self._stop.wait()
        raise _Stop

    async def _announce(self) -> None:
        try:
            async with asyncio.timeout(START_TIMEOUT):
                for event in self._up.values():
                    await event.wait()
        except TimeoutError as error:
            missing = ", ".join(child.title for child in self.children if not self._up[child.id].is_set())
            raise UserError(
                f"Not ready within {START_TIMEOUT:.0f} s: {missing or 'the topics'}; see {self.data_dir / 'logs'}."
            ) from error
        self.say(f"ready in {time.monotonic() - self._began:.1f} s: {self.url} (documentation: {self.url}/docs)")
        self.state = "ready"
        self._publish()

    async def _apply_topology(self) -> None:
        """Make the topics, by the command that an operator would use."""
        if "kafka" in self._needed():
            await self._ready("kafka").wait()
        began = time.monotonic()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "runtime", "topology", "apply"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env={**os.environ, **self.env},
        )
        try:
            output, _ = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            await process.wait()
            raise
        text = output.decode(errors="replace").strip()
        (self.data_dir / "logs").mkdir(parents=True, exist_ok=True)
        (self.data_dir / "logs" / "topology-apply.log").write_text(text + "\n")
        if process.returncode != 0:
            raise UserError(f"The topics could not be made: {text.splitlines()[-1] if text else 'no reason given'}")
        self.say(f"topics applied in {time.monotonic() - began:.1f} s")
        self._up[TOPICS].set()

    def _needed(self) -> set[str]:
        return {child.name for child in self.children}

    def _ready(self, need: str) -> asyncio.Event:
        return self._up[TOPICS if need == TOPICS else f"{need}-0"]

    async def _keep(self, child: Child) -> None:
        """Start it when what it needs is there, and again whenever it dies (not before what it needs is back)."""
        while True:
            for need in child.needs:
                await self._ready(need).wait()
            began = time.monotonic()
            await child.start(self.env)
            self._publish()
            while not await child.exited(0.1 if child.state == "starting" else 1.0):
                await self._observe(child, began)
            await self._bury(child)

    async def _observe(self, child: Child, began: float) -> None:
        before, child.state = child.state, await child.look()
        up_for = time.monotonic() - began
        if child.state == "ready" and not child.announced:
            child.announced = True
            self.say(f"{'restarted' if child.restarts else 'started'} {child.title} in {up_for:.1f} s")
            self._up[child.id].set()
        elif child.state != before and child.state in ("degraded", "failed"):
            self.say(f"{child.title} is {child.state}; see {child.log}")
        elif child.state == "ready" and before in ("degraded", "failed"):
            self.say(f"{child.title} is well again")
        if child.deaths and child.state == "ready" and up_for > HEALTHY_AFTER:
            child.deaths.clear()
            if child.crash_loop:
                child.crash_loop = False
                self.say(f"{child.title} no longer keeps dying")
        self._publish()

    async def _bury(self, child: Child) -> None:
        """Say that it died, and wait until it may start again."""
        now = time.monotonic()
        child.state = "restarting"
        self._up[child.id].clear()
        child.restarts += 1
        child.deaths.append(now)
        recent = sum(1 for death in child.deaths if now - death < CRASH_LOOP_WINDOW)
        wait = min(MAX_BACKOFF, BACKOFF * 2 ** (len(child.deaths) - 1))
        died = f"{child.title} died (exit {child.exit_code})"
        if self.state == "starting" and (child.exit_code == EXIT_CODE or recent >= CRASH_LOOP):
            raise UserError(f"{died}: {child.last_words() or f'see {child.log}'}")
        if recent >= CRASH_LOOP and not child.crash_loop:
            child.crash_loop = True
            self.say(
                f"CRASH LOOP: {child.title} died {recent} times in {CRASH_LOOP_WINDOW:.0f} s; "
                f"last words: {child.last_words() or 'none'}; see {child.log}"
            )
        elif not child.crash_loop:
            self.say(f"{died}, restarting in {wait:.1f} s")
        self._publish()
        await asyncio.sleep(wait)

    async def _stop_all(self, reason: str | None) -> None:
        began = time.monotonic()
        self.reason = reason
        self.state = "stopping"
        self._publish()
        self.say("stopping")
        for seconds, who in STOP_ORDER:
            await asyncio.gather(
                *(child.stop(seconds) for child in self.children if child.kind in who or child.name in who)
            )
        self.state = "stopped"
        self._publish()
        self.say(f"stopped in {time.monotonic() - began:.1f} s")

    def _publish(self) -> None:
        """Write `run/supervisor.json` when something in it has changed."""
        facts = {child.id: child.facts() for child in self.children}
        state = self.state
        if state == "ready" and any(fact["state"] != "ready" for fact in facts.values()):
            state = "degraded"
        loops = [child.id for child in self.children if child.crash_loop]
        if self._published is not None:
            same = (self._published.state, self._published.children, self._published.crash_loops)
            if same == (state, facts, loops):
                return
        self._published = Report(os.getpid(), state, time.time(), facts, loops, self.reason)
        try:
            stack.write_report(self.data_dir, self._published)
        except OSError as error:  # a full disk must not end the stack: /readyz and status are late, that is all
            self.say(f"the state can't be written to {self.data_dir}: {error.strerror}")


def up_detached(data_dir: Path, port: int, say: Say) -> None:
    """Start the stack in the background; returns when it is ready.

    Raises:
        UserError: it did not become ready, and why.
    """
    data_dir = data_dir.absolute()
    logs = data_dir / "logs"
    try:
        logs.mkdir(parents=True, exist_ok=True)
        said, complaints = _Tail(logs / "supervisor.log"), _Tail(logs / "supervisor.err.log")
    except OSError as error:
        raise stack.unusable(data_dir, error) from error
    with said.path.open("ab") as stdout, complaints.path.open("ab") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "runtime", "up", "--data-dir", str(data_dir), "--port", str(port)],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    ended = ready = False
    while not ended and not ready:
        time.sleep(0.1)
        # In this order: what it said before it was ready or ended is then in the log.
        ended = process.poll() is not None
        found, report = stack.read_stack(data_dir), stack.read_report(data_dir)
        if found and report and found.pid == report.pid == process.pid:
            ready = report.state == "ready"
        for line in said.fresh():
            print(line, flush=True)
    if ended:
        raise UserError((complaints.fresh() or [f"The stack did not start; see {said.path}."])[-1])


class _Tail:
    """What is added to a file from now on."""

    def __init__(self, path: Path) -> None:
        path.touch()
        self.path = path
        self._seen = path.stat().st_size

    def fresh(self) -> list[str]:
        """The whole lines since the last call."""
        with self.path.open("rb") as file:
            file.seek(self._seen)
            added = file.read()
        whole = added[: added.rfind(b"\n") + 1]
        self._seen += len(whole)
        return whole.decode(errors="replace").splitlines()


def down(data_dir: Path, timeout: float = 30.0) -> bool:
    """Stop the stack of this data folder and wait; False when none runs.

    Raises:
        UserError: it doesn't end.
    """
    found = stack.read_stack(data_dir)
    process = found.process() if found else None
    if process is None:
        return False
    process.terminate()
    try:
        process.wait(timeout)
    except psutil.TimeoutExpired as error:
        raise UserError(
            f"The stack (process {process.pid}) did not stop within {timeout:.0f} s; `kill -9 {process.pid}` ends it "
            "and everything that it started."
        ) from error
    return True


def say_with_time(text: str) -> None:
    """One line on stdout."""
    print(f"{datetime.now().astimezone():%H:%M:%S}  {text}", flush=True)


__all__ = ["Supervisor", "down", "plan", "say_with_time", "up", "up_detached"]
