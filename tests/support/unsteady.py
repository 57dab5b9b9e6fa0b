"""A worker for the supervisor's tests: does nothing; files in its data folder say what is wrong with it."""

from __future__ import annotations

import signal
import threading

from runtime import health
from runtime.errors import UserError
from runtime.settings import Settings


def run(settings: Settings, name: str) -> None:
    """Ready until SIGTERM; while `crash` is there it dies, while `refuse` is there it says that it can't start."""
    if (settings.data_dir / "refuse").exists():
        raise UserError("The worker needs a rest: give it one.")
    if (settings.data_dir / "crash").exists():
        raise RuntimeError("all this is too much")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    health.report(name, "ready", lag=7)
    while not stop.wait(0.05):
        pass
