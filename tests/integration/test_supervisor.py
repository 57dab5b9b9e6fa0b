"""`oms up`, `status` and `down` with real children. Most tests start only one small worker, beside the session's Kafka
(as an outside cluster); one starts a broker and an engine of its own, because those replace or share their process."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import psutil
import pytest
import yaml

from runtime import stack as stacks
from runtime.topology import default_path
from tests.support.stack import Stack

PATIENCE = 90.0
WORKER = {
    "run": "tests.support.unsteady:run",
    "inputs": ["payment.commands"],
    "guarantee": "at-least-once",
    "instances": {"embedded": 1, "production": 1},
}


class Supervised:
    """`oms` with a data folder and a topology that has only the unsteady worker and the `services` given."""

    def __init__(self, data_dir: Path, *services: str, **environment: str) -> None:
        self.data_dir = data_dir
        described: dict[str, Any] = yaml.safe_load(default_path().read_text())
        for section in ("processors", "sinks", "gateways"):
            described[section] = {}
        described["workers"] = {"unsteady": {**WORKER, "needs": list(services)}}
        described["services"] = {name: described["services"][name] for name in services}
        data_dir.mkdir(parents=True, exist_ok=True)
        (data_dir / "topology.yaml").write_text(yaml.safe_dump(described))
        self.env = {**os.environ, **environment, "OMS_TOPOLOGY": str(data_dir / "topology.yaml")}
        self.pids: list[int] = []

    def oms(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "runtime", *arguments, "--data-dir", str(self.data_dir)],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            env=self.env,
        )

    def up(self) -> str:
        """Start it in the background; gives what it said."""
        done = self.oms("up", "--detach", "--port", "0")
        assert done.returncode == 0, done.stdout + done.stderr
        self.pids = [child["pid"] for child in self.report().children.values()]
        return done.stdout

    def report(self) -> stacks.Report:
        found = stacks.read_report(self.data_dir)
        assert found is not None
        return found

    def worker(self) -> dict[str, Any]:
        return self.report().children["unsteady-0"]

    def said(self) -> str:
        return (self.data_dir / "logs" / "supervisor.log").read_text()

    def end(self) -> None:
        found = stacks.read_stack(self.data_dir)
        process = found.process() if found else None
        if process is not None:
            process.kill()  # its children go with it


def until(look: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


def alive(pids: list[int]) -> list[int]:
    found = []
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
        except psutil.NoSuchProcess:
            pass
    return found


@pytest.fixture
def supervised(stack: Stack, tmp_path: Path) -> Iterator[Supervised]:
    """Not started yet."""
    here = Supervised(tmp_path / "data", OMS_KAFKA_BOOTSTRAP=stack.settings.kafka_bootstrap)
    try:
        yield here
    finally:
        here.end()


def test_up_status_down(supervised: Supervised) -> None:
    said = supervised.up()
    assert "topics applied in" in said
    assert "started unsteady in" in said
    assert said.splitlines()[-1].split("  ")[1].startswith("ready in")

    shown = supervised.oms("status", "--json")
    assert shown.returncode == 0
    found = orjson.loads(shown.stdout)
    worker, supervisor = found["processes"]
    assert (found["state"], worker["name"], worker["state"], worker["restarts"]) == ("ready", "unsteady", "ready", 0)
    assert worker["lag"] == 7
    assert worker["memory"] > 10_000_000
    assert found["memory"] == worker["memory"] + supervisor["memory"]
    table = supervised.oms("status")
    assert table.returncode == 0
    assert "unsteady" in table.stdout

    assert supervised.oms("down").stdout == "stopped\n"
    assert alive([*supervised.pids, supervisor["pid"]]) == []
    assert supervised.report().state == "stopped"
    assert supervised.oms("status").returncode == 1
    assert supervised.oms("down").stdout.startswith("nothing runs")


def test_a_killed_child_is_restarted(supervised: Supervised) -> None:
    supervised.up()
    before = supervised.worker()
    os.kill(before["pid"], signal.SIGKILL)
    until(lambda: supervised.worker()["pid"] not in (None, before["pid"]), "another worker")
    until(lambda: supervised.report().state == "ready", "ready again")
    after = supervised.worker()
    assert (after["restarts"], after["exit_code"]) == (1, 137)
    assert "unsteady died (exit 137), restarting in 0.2 s" in supervised.said()
    assert "restarted unsteady in" in supervised.said()


def test_a_crash_loop_is_reported(supervised: Supervised) -> None:
    supervised.up()
    (supervised.data_dir / "crash").touch()
    os.kill(supervised.worker()["pid"], signal.SIGKILL)
    until(lambda: supervised.report().crash_loops == ["unsteady-0"], "the crash loop is reported")
    assert supervised.report().state == "degraded"
    assert "CRASH LOOP: unsteady died 5 times in 60 s; last words: died: RuntimeError: all this" in supervised.said()
    assert supervised.oms("status").returncode == 1
    (supervised.data_dir / "crash").unlink()
    until(lambda: supervised.worker()["state"] == "ready", "the worker is back")


def test_what_a_child_needs_from_a_person_is_said(supervised: Supervised) -> None:
    (supervised.data_dir / "refuse").touch()
    done = supervised.oms("up", "--port", "0")
    assert done.returncode == 1
    assert done.stderr == "unsteady died (exit 78): The worker needs a rest: give it one.\n"
    detached = supervised.oms("up", "--detach", "--port", "0")
    assert (detached.returncode, detached.stderr) == (1, done.stderr)
    assert supervised.report().state == "stopped"


def test_a_data_folder_has_one_stack(supervised: Supervised) -> None:
    supervised.up()
    for arguments in (["up"], ["up", "--detach"]):
        done = supervised.oms(*arguments, "--port", "0")
        assert done.returncode == 1
        (sentence,) = done.stderr.splitlines()
        assert sentence.startswith(f"The data folder {supervised.data_dir} is in use by another stack: stop it with")
    assert supervised.oms("status").returncode == 0


def test_a_taken_port_is_said(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        done = Supervised(tmp_path).oms("up", "--port", str(port))
    assert done.returncode == 1
    assert done.stderr == f"Port {port} is taken by another program: choose another one with --port.\n"


@pytest.mark.parametrize(("number", "delay"), [(signal.SIGINT, 0.0), (signal.SIGTERM, 0.3), (signal.SIGHUP, 1.0)])
def test_a_signal_during_the_start_stops_cleanly(supervised: Supervised, number: signal.Signals, delay: float) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "runtime", "up", "--port", "0", "--data-dir", str(supervised.data_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=supervised.env,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        assert "data in" in process.stdout.readline()
        time.sleep(delay)
        process.send_signal(number)
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 0
    *_, stopping, stopped = output.splitlines()
    assert stopping.endswith("  stopping"), output
    assert "  stopped in " in stopped, output


def test_no_orphans_and_a_clean_stop(tmp_path: Path) -> None:
    here = Supervised(tmp_path, "kafka", "clickhouse", "payment-provider")
    try:
        here.up()
        assert len(here.pids) == 4
        assert len({fact["port"] for fact in here.report().children.values() if fact["port"]}) == 3
        before = here.pids
        os.kill(here.report().pid, signal.SIGKILL)
        until(lambda: not alive(before), "no child outlives its supervisor", seconds=5)
        assert here.oms("status").returncode == 1

        here.up()  # the folder is free again, and what is in it is well
        began = time.monotonic()
        assert here.oms("down").stdout == "stopped\n"
        assert time.monotonic() - began < 20
        assert alive(here.pids) == []
        codes = {name: fact["exit_code"] for name, fact in here.report().children.items()}
        assert codes["unsteady-0"] == codes["clickhouse-0"] == codes["payment-provider-0"] == 0
        assert codes["kafka-0"] in (0, 143)  # a JVM that ended well after SIGTERM says 143
    finally:
        here.end()


def test_a_child_ends_with_its_parent_where_the_kernel_has_no_such_service(tmp_path: Path) -> None:
    """What `oms run` does elsewhere than on Linux, also after an exec."""
    child = (
        "import os, sys; from runtime.run import watch_parent; watch_parent(int(sys.argv[1]), 0.05);"
        "os.execvp('sleep', ['sleep', '60'])"
    )
    parent = (
        "import os, subprocess, sys, time;"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}, str(os.getpid())]);"
        "print(child.pid, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        until(lambda: psutil.Process(pid).name() == "sleep", "the child is another program now", seconds=20)
    finally:
        process.kill()
        process.wait()
    until(lambda: not alive([pid]), "the child is gone", seconds=10)
