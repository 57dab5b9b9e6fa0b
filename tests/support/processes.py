"""One process for tests of one part alone: started with its output in a file, awaited, and stopped by its own pid."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.support.parts import ROOT, free_port

__all__ = ["free_port", "spawn", "stop", "wait_for"]


def spawn(module: str, *arguments: str, log: Path) -> subprocess.Popen[bytes]:
    """`python -m MODULE ARGUMENTS`, its output appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
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
