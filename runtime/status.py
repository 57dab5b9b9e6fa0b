"""`oms status`: each process as the supervisor sees it, as it sees itself, and as the system does."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import orjson
import psutil
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from runtime import health, stack
from runtime.errors import UserError

_STYLES = {"ready": "green", "starting": "yellow", "waiting": "yellow", "degraded": "yellow"}


def collect(data_dir: Path) -> dict[str, Any]:
    """{"state", "url", "pid", "uptime", "crash_loops", "processes": [{"name", "slot", "kind", "state", "pid", "uptime",
    "restarts", "lag", "memory"}], "memory"}; seconds and bytes, None for what isn't known.

    Raises:
        UserError: no stack runs with this data folder.
    """
    found = stack.read_stack(data_dir)
    supervisor = found.process() if found else None
    report = stack.read_report(data_dir)
    if found is None or supervisor is None or report is None or report.pid != found.pid:
        raise UserError(f"Nothing runs with its data in {data_dir}: `oms up` starts the stack.")
    processes = [_process(data_dir, child) for child in report.children.values()]
    processes.append(
        {
            **dict.fromkeys(("slot", "lag", "port"), None),
            "name": "supervisor",
            "kind": "supervisor",
            "state": "ready",
            "pid": found.pid,
            "uptime": time.time() - found.create_time,
            "restarts": 0,
            "memory": _memory(found.pid),
        }
    )
    return {
        "state": report.state,
        "url": found.url,
        "pid": found.pid,
        "uptime": time.time() - found.create_time,
        "crash_loops": report.crash_loops,
        "processes": processes,
        "memory": sum(process["memory"] or 0 for process in processes),
    }


def _process(data_dir: Path, child: dict[str, Any]) -> dict[str, Any]:
    said = health.read(data_dir, child["name"], child["slot"])
    current = said is not None and said["pid"] == child["pid"]
    return {
        **{key: child[key] for key in ("name", "slot", "kind", "state", "pid", "port", "restarts")},
        "uptime": time.time() - child["started_at"] if child["pid"] else None,
        "lag": said["facts"].get("lag") if said is not None and current else None,
        "memory": _memory(child["pid"]),
    }


def _memory(pid: int | None) -> int | None:
    """Resident bytes."""
    if pid is None:
        return None
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return None


def show(data_dir: Path, *, as_json: bool) -> bool:
    """Print it; True when everything is ready."""
    found = collect(data_dir)
    if as_json:
        print(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        _print(found)
    return bool(found["state"] == "ready")


def _print(found: dict[str, Any]) -> None:
    table = Table(box=box.SIMPLE_HEAD, show_footer=True, padding=(0, 1, 0, 0))
    table.add_column("process", no_wrap=True, footer=f"{len(found['processes'])} processes")
    table.add_column("slot", justify="right")
    table.add_column("state", footer=Text(found["state"], style=_STYLES.get(found["state"], "red")))
    for name in ("pid", "port", "up", "restarts", "lag"):
        table.add_column(name, justify="right")
    table.add_column("memory", justify="right", footer=_megabytes(found["memory"]))
    for process in found["processes"]:
        table.add_row(
            process["name"],
            _text(process["slot"]),
            Text(process["state"], style=_STYLES.get(process["state"], "red")),
            _text(process["pid"]),
            _text(process["port"]),
            _duration(process["uptime"]),
            str(process["restarts"]),
            _text(process["lag"]),
            _megabytes(process["memory"]),
        )
    console = Console()
    console.print(table)
    console.print(f"gateway: {found['url']}", highlight=False)
    if found["crash_loops"]:
        console.print(f"keeps dying: {', '.join(found['crash_loops'])}", style="red", highlight=False)


def _text(value: object) -> str:
    return "–" if value is None else str(value)


def _megabytes(size: int | None) -> str:
    return "–" if size is None else f"{size / 1_000_000:.0f} MB"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days}d {hours}h"
    return f"{hours}h {minutes}m" if hours else f"{minutes}m {rest}s" if minutes else f"{rest}s"
