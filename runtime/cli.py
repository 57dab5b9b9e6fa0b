"""`oms`: everything that a person types. What is heavy is imported in the command that needs it."""

from __future__ import annotations

import errno
import importlib
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runtime.errors import EXIT_CODE, UserError, no_space

if TYPE_CHECKING:
    from runtime.settings import Settings
    from runtime.topology import Topology

app = typer.Typer(
    name="oms",
    add_completion=False,
    help="Order management on Kafka.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
pipeline = typer.Typer(help="topology.yaml: check it, apply it, draw it.", no_args_is_help=True)
app.add_typer(pipeline, name="topology")

DataDir = Annotated[
    Path, typer.Option("--data-dir", envvar="OMS_DATA_DIR", help="where the stack keeps everything", show_envvar=False)
]
HERE = Path(".oms")


class Format(StrEnum):
    table = "table"
    json = "json"
    csv = "csv"


class Export(StrEnum):
    table = "table"
    json = "json"
    csv = "csv"
    parquet = "parquet"


class Profile(StrEnum):
    embedded = "embedded"
    production = "production"


@app.command()
def up(
    data_dir: DataDir = HERE,
    port: Annotated[int, typer.Option(help="of the gateway; 0: any", min=0, max=65535)] = 8080,
    detach: Annotated[bool, typer.Option("--detach", help="return when it is ready")] = False,
) -> None:
    """Start the stack: Kafka, ClickHouse, every process, the gateway. Ctrl-C stops it; the data stays."""
    from runtime import supervisor

    (supervisor.up_detached if detach else supervisor.up)(data_dir, port, supervisor.say_with_time)


@app.command()
def down(data_dir: DataDir = HERE) -> None:
    """Stop the stack of this data folder."""
    from runtime import supervisor

    typer.echo("stopped" if supervisor.down(data_dir) else f"nothing runs with its data in {data_dir}")


@app.command()
def status(
    data_dir: DataDir = HERE, json: Annotated[bool, typer.Option("--json", help="for machines")] = False
) -> None:
    """Show each process: state, restarts, lag, memory. Exits 1 when something is not ready."""
    from runtime import status as found

    if not found.show(data_dir, as_json=json):
        raise typer.Exit(1)


@app.command()
def run(
    name: Annotated[str, typer.Argument(help="as topology.yaml calls it")],
    slot: Annotated[int, typer.Option(help="which of its instances", min=0, envvar="OMS_SLOT")] = 0,
) -> None:
    """Be one process of the topology, until SIGTERM."""
    from runtime.run import run as become

    try:
        become(name, slot)
    except UserError as error:
        print(error, file=sys.stderr)
        raise typer.Exit(EXIT_CODE) from error


@pipeline.command()
def check() -> None:
    """Say what is wrong with topology.yaml; no broker needed."""
    import warnings

    # Importing every implementation brings up deprecations inside of libraries, which are nobody's fault here.
    with warnings.catch_warnings(record=True):
        from runtime import topology_check

        faults = topology_check.check(_topology())
    if faults:
        for fault in faults:
            print(fault, file=sys.stderr)
        raise typer.Exit(1)
    typer.echo("topology.yaml is fine")


@pipeline.command()
def lock(accept: Annotated[bool, typer.Option("--accept", help="write it as topology.yaml is now")] = False) -> None:
    """Say what topology.yaml names otherwise than its lock: state and offsets are found by these names."""
    from runtime import topology_lock

    topology = _topology()
    if accept:
        typer.echo(f"wrote {topology_lock.accept(topology).name}")
    elif differences := topology_lock.differences(topology):
        raise UserError("\n".join(differences))
    else:
        typer.echo("topology.yaml is as its lock has it")


@pipeline.command()
def graph(write: Annotated[bool, typer.Option("--write", help="renew the drawings in the docs")] = False) -> None:
    """Print the pipeline as a Mermaid graph."""
    from runtime import topology_graph

    topology = _topology()
    if not write:
        typer.echo(topology_graph.render(topology))
        return
    for path in topology_graph.drawings(topology.path.parent):
        typer.echo(f"{path.name}: {'drawn anew' if topology_graph.write(path, topology) else 'is fresh'}")


@pipeline.command()
def apply(
    data_dir: DataDir = HERE,
    profile: Annotated[Profile, typer.Option(help="how many partitions")] = Profile.embedded,
) -> None:
    """Create the topics that are missing and adjust the others; nothing is ever deleted."""
    from runtime import topology_apply

    here = _settings(data_dir)
    done = topology_apply.apply(here, _topology(), profile.value)
    for line in done or ["nothing to do"]:
        typer.echo(line)


@app.command()
def token(
    customer: Annotated[str | None, typer.Option(help="the customer's id")] = None,
    admin: Annotated[str | None, typer.Option(help="the name of a member of staff")] = None,
    hours: Annotated[float, typer.Option(help="how long it is good", min=0.01)] = 24,
    data_dir: DataDir = HERE,
) -> None:
    """Print a development token."""
    from datetime import timedelta

    from gateway import auth

    try:
        typer.echo(auth.issue(_settings(data_dir), customer=customer, admin=admin, ttl=timedelta(hours=hours)))
    except ValueError as error:
        raise UserError(f"No token: {error}.") from error


@app.command()
def kpi(
    name: Annotated[str | None, typer.Argument(help="one KPI whole; without it the figures that matter of all")] = None,
    since: Annotated[str | None, typer.Option("--from", help="a date or a time")] = None,
    until: Annotated[str | None, typer.Option("--to", help="a date or a time, not included")] = None,
    grain: Annotated[str | None, typer.Option(help="hour, day or week")] = None,
    group_by: Annotated[str | None, typer.Option(help="country, currency, sku, …; what the KPI has")] = None,
    tz: Annotated[str | None, typer.Option(help="time zone of days and dates, as in Europe/Berlin; else UTC")] = None,
    format: Annotated[Export, typer.Option(help="how to print it")] = Export.table,
    data_dir: DataDir = HERE,
) -> None:
    """Print the KPIs."""
    from analytics import kpi_cli

    if name is None and (grain or group_by):
        raise UserError("--grain and --group-by are for one KPI: say which, as in `oms kpi completion --grain day`.")
    what = {"from": since, "to": until, "grain": grain, "group_by": group_by, "tz": tz}
    kpi_cli.kpi(_settings(data_dir), name, format.value, **what)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="ClickHouse SQL; it can only read")],
    param: Annotated[list[str] | None, typer.Option(help="NAME=VALUE of a {NAME:Type} in it; may be repeated")] = None,
    format: Annotated[Format, typer.Option(help="how to print it")] = Format.table,
    data_dir: DataDir = HERE,
) -> None:
    """Run a query for an analyst."""
    from analytics import cli

    given = [one.partition("=") for one in param or ()]
    if wrong := [name for name, equals, _ in given if not equals]:
        raise UserError(f"--param is NAME=VALUE, not {wrong[0]}.")
    parameters = {name: value for name, _, value in given}
    cli.sql(_settings(data_dir), query, format.value, parameters=parameters)


@app.command()
def migrate(data_dir: DataDir = HERE) -> None:
    """Bring ClickHouse's tables up to date."""
    from analytics.migrate import migrate_settings

    for name in migrate_settings(_settings(data_dir)) or ["nothing to do"]:
        typer.echo(name)


@app.command()
def fetch() -> None:
    """Download what the embedded stack needs (once): the Kafka broker, 45 MB."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from runtime import embedded_kafka

    with Progress(
        TextColumn("fetching the Kafka broker"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[jar]}"),
        console=Console(stderr=True),
        transient=True,
    ) as progress:
        task = progress.add_task("", total=None, jar="", visible=False)
        jars = embedded_kafka.fetch(
            lambda name, done, total: progress.update(task, completed=done, total=total, jar=name, visible=True)
        )
    typer.echo(f"the Kafka broker is here: {len(jars)} jars in {jars[0].parent}")


def _elsewhere(name: str, module: str, attribute: str, help: str) -> None:
    """A command that lives in another module, which is imported only when the command is used."""

    def command(context: typer.Context) -> None:
        found = getattr(importlib.import_module(module), attribute)
        other = found
        if not isinstance(found, typer.Typer):
            other = typer.Typer(pretty_exceptions_enable=False)
            other.command()(found)
        other(context.args, prog_name=f"oms {name}")

    app.command(
        name,
        help=help,
        add_help_option=False,
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False},
    )(command)


_elsewhere("dlq", "runtime.dlq_cli", "app", "Dead letters: list, retry, discard.")
_elsewhere("dashboard", "gateway.dashboard.cli", "command", "Print the dashboard's address, which signs in by itself.")
_elsewhere(
    "rebuild", "processors.sinks.rebuild_cli", "command", "Make views anew from the topics, beside the live ones."
)
_elsewhere("import", "runtime.import_cli", "command", "Bring in history from another system (FILE.jsonl).")
_elsewhere("demo", "sandbox.shop_cli", "demo", "Start the stack, drive 1,000 orders through it, show the KPIs, stop.")
_elsewhere("simulate", "sandbox.shop_cli", "simulate", "A simulated shop that orders from the running stack.")
_elsewhere("bench", "sandbox.bench", "bench", "Measure the running stack under an open-loop load.")


def _topology() -> Topology:
    from runtime import topology
    from runtime.settings import settings

    return topology.load(settings().topology)


def _settings(data_dir: Path) -> Settings:
    from runtime.stack import stack_settings

    return stack_settings(data_dir)


def main(args: list[str] | None = None) -> Any:
    """The entry point: what the user can mend is one sentence on stderr and exit code 1."""
    try:
        return app(args, prog_name="oms")
    except UserError as error:
        print(error, file=sys.stderr)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(no_space(error.filename or "no space left"), file=sys.stderr)
    return sys.exit(1)
