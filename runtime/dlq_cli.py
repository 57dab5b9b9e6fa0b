"""`oms dlq`: what could not be processed, and what becomes of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import orjson
import typer
from rich.console import Console
from rich.table import Table

from runtime import dead_letters, topology
from runtime.dead_letters import Letter
from runtime.errors import UserError
from runtime.settings import Settings
from runtime.stack import stack_settings

app = typer.Typer(help="Dead letters: list, retry, discard.", no_args_is_help=True)

_MARKERS = 0.3  # seconds in which a committed transaction has become visible in every partition

Target = Annotated[str | None, typer.Argument(help="a message key, or a letter's id")]
All = Annotated[bool, typer.Option("--all", help="every open letter")]
DataDir = Annotated[Path, typer.Option("--data-dir", envvar="OMS_DATA_DIR", help="of the stack", show_envvar=False)]
HERE = Path(".oms")
Processor = Annotated[str | None, typer.Option("--processor", help="only letters of this process")]


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object a line")] = False,
    processor: Processor = None,
    data_dir: DataDir = HERE,
) -> None:
    """The open letters, those of a key in the order in which they came."""
    letters = _open(stack_settings(data_dir), processor)
    if as_json:
        for letter in letters:
            typer.echo(orjson.dumps(_facts(letter)))
        return
    table = Table(title=f"{len(letters)} open", title_justify="left")
    for column in ("letter", "when", "processor", "topic/partition/offset", "key", "reason", "error"):
        table.add_column(column, overflow="fold")
    for letter in letters:
        facts = _facts(letter)
        place = f"{facts['topic']}/{facts['partition']}/{facts['offset']}"
        table.add_row(
            facts["letter"],
            facts["when"],
            facts["processor"],
            place,
            facts["key"],
            facts["reason"],
            facts["error"].partition("\n")[0][:200],
        )
    Console().print(table)


@app.command()
def retry(
    target: Target = None, everything: All = False, processor: Processor = None, data_dir: DataDir = HERE
) -> None:
    """Give letters back to their processors. Letters of one processor and key go together and in order, so naming
    one of them means all of these. Exit 1 when one fails again."""
    settings = stack_settings(data_dir)
    failed = 0
    for letters in _groups(_chosen(settings, target, everything, processor, whole_keys=True)):
        failed += not _retry(settings, letters)
    if failed:
        raise typer.Exit(1)


@app.command()
def discard(
    target: Target = None,
    everything: All = False,
    processor: Processor = None,
    comment: Annotated[str, typer.Option(help="why; it is kept")] = "",
    data_dir: DataDir = HERE,
) -> None:
    """Give letters up for good. What was parked behind one stays open until it is retried."""
    settings = stack_settings(data_dir)
    letters = _chosen(settings, target, everything, processor, whole_keys=False)
    dead_letters.discard(settings, letters, comment, parks=_parks(settings))
    typer.echo(f"{len(letters)} discarded")


def _retry(settings: Settings, letters: list[Letter]) -> bool:
    """Until none of them is open, or one fails by itself again."""
    first = letters[0]
    name = f"{first.data.processor} {first.key_text or first.data.letter_id}"
    processed = 0
    while letters:
        if not dead_letters.retry(settings, letters):
            typer.echo(f"{name}: {len(letters)} given back, but {first.data.processor} has not had them yet", err=True)
            return False
        time.sleep(_MARKERS)
        now = dead_letters.open_letters(settings)
        sent = {letter.data.letter_id for letter in letters}
        letters = [letter for letter in now if _group(letter) == _group(first) or letter.retried_from in sent]
        processed += len(sent) - sum(letter.retried_from in sent for letter in letters)
        for letter in letters:
            if letter.data.reason != "parked":
                typer.echo(f"{name}: {letter.data.reason} again: {letter.data.error}", err=True)
                return False
    typer.echo(f"{name}: {processed} processed")
    return True


def _open(settings: Settings, processor: str | None) -> list[Letter]:
    letters = dead_letters.open_letters(settings)
    return [letter for letter in letters if processor in (None, letter.data.processor)]


def _chosen(
    settings: Settings, target: str | None, everything: bool, processor: str | None, *, whole_keys: bool
) -> list[Letter]:
    if (target is None) is not everything:
        raise UserError("Say which: a key, a letter's id, or --all.")
    letters = _open(settings, processor)
    if everything:
        return letters
    found = [x for x in letters if x.data.letter_id == target or (x.data.key is not None and x.key_text == target)]
    if not found:
        raise UserError(f"There is no open letter, nor a key with one, called {target}.")
    if whole_keys:
        groups = {_group(letter) for letter in found}
        found = [letter for letter in letters if _group(letter) in groups]
    return found


def _groups(letters: list[Letter]) -> list[list[Letter]]:
    groups: dict[tuple[object, ...], list[Letter]] = {}
    for letter in letters:
        groups.setdefault(_group(letter), []).append(letter)
    return list(groups.values())


def _group(letter: Letter) -> tuple[object, ...]:
    """What goes together: the letters of a processor and key; one without a key is on its own."""
    data = letter.data
    return (data.processor, data.key) if data.key is not None else (data.processor, None, data.letter_id)


def _parks(settings: Settings) -> frozenset[str]:
    shape = topology.load(settings.topology)
    return frozenset(name for name in shape.processors if dead_letters.parks(shape, name))


def _facts(letter: Letter) -> dict[str, Any]:
    data = letter.data
    return {
        "letter": data.letter_id,
        "when": letter.at.isoformat(timespec="seconds"),
        "processor": data.processor,
        "topic": data.topic,
        "partition": data.partition,
        "offset": data.offset,
        "key": letter.key_text,
        "reason": data.reason,
        "error": data.error,
    }
