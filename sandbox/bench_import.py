"""`oms bench --mode import`: how fast `oms import` brings in history, with all that read it having caught up."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from runtime.errors import UserError
from runtime.status import collect
from sandbox.load import GENERATOR, ended_children, processes
from sandbox.old_shop import lines, past

ORDERS = 10_000
WARM_UP = 5_000
CUSTOMERS = 1_700
SKU = "old-mug"
_IMPORTED = re.compile(r"([\d,]+) orders imported")
_PATIENCE = 300.0


@dataclass(frozen=True, slots=True)
class Imported:
    """seconds: of the command; caught_up: from then until nobody was behind; cpu: seconds by process, over both."""

    orders: int
    seconds: float
    caught_up: float
    cpu: dict[str, float]

    @property
    def per_second(self) -> float:
        return self.orders / self.seconds


def measure(console: Console, folder: Path, orders: int = ORDERS) -> Imported:
    """One import into the stack that runs on the folder, after a small one that warms it up.

    Raises:
        UserError: not every order came in.
    """
    console.print(f"{WARM_UP:,} orders to warm up …")
    _bring(folder, "warm-up", WARM_UP)
    _wait_until_nobody_is_behind(folder)
    console.print(f"{orders:,} orders …")
    before = processes(folder)
    began = time.monotonic()
    own_cpu = _bring(folder, "old-shop", orders)
    ended = time.monotonic()
    _wait_until_nobody_is_behind(folder)
    caught_up = time.monotonic() - ended
    after = processes(folder)
    cpu = {name: usage.cpu - before[name].cpu for name, usage in after.items() if name != GENERATOR}
    return Imported(orders, ended - began, caught_up, {"oms import": own_cpu, **cpu})


def tables(found: Imported) -> list[Table]:
    rate = Table("orders", "seconds", "orders/s", "then caught up", title="oms import", title_justify="left")
    rate.add_row(
        f"{found.orders:,}", f"{found.seconds:.1f}", f"{found.per_second:.0f}", f"after {found.caught_up:.1f} s"
    )
    cost = Table("process", "CPU ms an order", title="What it costs, the idle stack included", title_justify="left")
    for name, seconds in sorted(found.cpu.items(), key=lambda item: -item[1]):
        cost.add_row(name, f"{seconds / found.orders * 1000:.2f}")
    cost.add_section()
    cost.add_row("all", f"{sum(found.cpu.values()) / found.orders * 1000:.2f}")
    return [rate, cost]


def _bring(folder: Path, source: str, orders: int) -> float:
    """CPU seconds of the command."""
    file = folder / f"{source}.jsonl"
    file.write_text(lines(past(n, SKU, f"{source}-{n % CUSTOMERS}") for n in range(orders)))
    command = [sys.executable, "-m", "runtime", "import", str(file), "--data-dir", str(folder), "--source", source]
    before = ended_children()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = _IMPORTED.match(done.stdout)
    if done.returncode or said is None or int(said[1].replace(",", "")) != orders:
        last = [*done.stdout.splitlines(), *done.stderr.splitlines()][-1:] or ["no message"]
        raise UserError(f"The import failed: {last[0]}")
    return ended_children() - before


def _wait_until_nobody_is_behind(folder: Path) -> None:
    until = time.monotonic() + _PATIENCE
    time.sleep(1.2)  # each says once a second how far behind it is
    while any(process["lag"] for process in collect(folder)["processes"]):
        if time.monotonic() > until:
            raise UserError(f"After {_PATIENCE:g} s somebody is still behind what was imported.")
        time.sleep(0.2)
