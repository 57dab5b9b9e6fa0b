"""`oms dashboard`: the address that signs in by itself."""

from __future__ import annotations

import os
import webbrowser
from datetime import timedelta
from html import escape
from pathlib import Path
from typing import Annotated

import typer

from gateway.auth import issue
from gateway.dashboard.session import PATH
from runtime.errors import UserError
from runtime.settings import Settings
from runtime.stack import read_stack, stack_settings


def command(
    admin: Annotated[str, typer.Option(help="the name of a member of staff")] = "staff",
    hours: Annotated[float, typer.Option(help="how long it is good", min=0.01)] = 12,
    open: Annotated[bool, typer.Option("--open", help="in the browser, too")] = False,
    data_dir: Annotated[
        Path, typer.Option("--data-dir", envvar="OMS_DATA_DIR", help="of the running stack", show_envvar=False)
    ] = Path(".oms"),
) -> None:
    """Print the address of the dashboard, which signs in by itself: who has it is staff."""
    stack = read_stack(data_dir)
    if stack is None or stack.process() is None:
        raise UserError(f"No stack is running in {data_dir}: start one with `oms up --data-dir {data_dir}`.")
    found = address(stack_settings(data_dir), stack.url, admin, timedelta(hours=hours))
    typer.echo(found)
    if open:
        webbrowser.open(_signpost(data_dir / "run" / "dashboard.html", found).absolute().as_uri())


def address(settings: Settings, url: str, admin: str, ttl: timedelta) -> str:
    """The token stands behind the #, which no browser sends and no server logs. UserError where tokens come from an
    identity provider."""
    try:
        token = issue(settings, admin=admin, ttl=ttl)
    except ValueError as error:
        raise UserError(f"No token: {error}.") from error
    return f"{url}{PATH}/sign-in#token={token}"


def _signpost(path: Path, address: str) -> Path:
    """A page for this user's eyes only that leads to the address: a browser's command line is for everybody's."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f'<!doctype html><meta http-equiv="refresh" content="0; url={escape(address)}">\n')
    return path
