"""Numbered migrations, each applied once: `migrations/NNNN_name.sql`, statements end with `;` at a line's end.

A migration that dies half-way is applied again from its first statement, so statements say IF NOT EXISTS. Never
change an applied one; add the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files

from clickhouse_connect.driver.client import Client

from runtime.settings import Settings

from .clickhouse import connect, opened

_BOOTSTRAP = "0000_migrations"


def migrate(client: Client) -> list[str]:
    """Apply what has not been applied; the names of it, in order. Calling it again (also at the same time) is harmless.

    Raises:
        clickhouse_connect.driver.exceptions.Error: the server is away or refuses a statement.
    """
    scripts = _scripts()
    for statement in _statements(scripts.pop(_BOOTSTRAP)):
        client.command(statement)
    applied = {name for (name,) in client.query(_read("queries", "applied_migrations.sql")).result_rows}
    fresh = [name for name in sorted(scripts) if name not in applied]
    for name in fresh:
        for statement in _statements(scripts[name]):
            client.command(statement)
        client.insert("migrations", [[name]], column_names=["name"], column_type_names=["String"], database="oms")
    return fresh


def migrate_settings(settings: Settings) -> list[str]:
    """`migrate` with a client of its own, for the command line.

    Raises:
        UserError: ClickHouse does not answer, or refuses a statement.
    """
    with opened(settings, connect) as client:
        return migrate(client)


def _scripts() -> dict[str, str]:
    folder = files(__package__) / "migrations"
    return {
        entry.name.removesuffix(".sql"): entry.read_text() for entry in folder.iterdir() if entry.name.endswith(".sql")
    }


def _read(folder: str, name: str) -> str:
    return (files(__package__) / folder / name).read_text()


def _statements(script: str) -> Iterator[str]:
    for statement in script.split(";\n"):
        if any(line.strip() and not line.lstrip().startswith("--") for line in statement.splitlines()):
            yield statement.strip()
