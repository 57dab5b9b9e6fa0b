"""The tables of a rebuild: the live one, the new one beside it, the old one afterwards.

What has been done lies in ClickHouse alone, so that a rebuild that was killed goes on anywhere. The new table carries a
mark (its comment), which stays with it through the swap:

    live        live__new     then
    no mark     none          not begun
    no mark     no mark       a table that a migration made: it is taken
    no mark     mark          being filled, or filled
    mark        no mark       swapped: live__new is the old one
    mark        none          the old one has its name, or is gone
"""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Literal

from clickhouse_connect.driver.client import Client

from .views import View

State = Literal["none", "filling", "swapped"]

_MARK = "rebuild"


class Beside:
    """The tables of one view."""

    def __init__(self, client: Client, view: View) -> None:
        self._client = client
        self.view = view
        self.live = view.table
        self.new, self.old = f"{view.table}__new", f"{view.table}__old"
        self.progress = f"{view.name}__new"
        """The name under which the new table's progress is kept, beside the views' own."""
        self._database, _, self._name = view.table.partition(".")

    def state(self) -> State:
        tables = self._tables()
        if tables.get(self._name) == _MARK:
            return "swapped"
        return "filling" if tables.get(f"{self._name}__new") == _MARK else "none"

    def has_old(self) -> bool:
        return f"{self._name}__old" in self._tables()

    def drop_if_outdated(self) -> None:
        """The new table lacks a column that a migration has given the live one since: it can't be filled."""
        if f"{self._name}__new" not in self._tables():
            return
        parameters = {"database": self._database, "table": f"{self._name}__new", "columns": list(self.view.columns)}
        ((known,),) = self._client.query(_sql("columns.sql"), parameters).result_rows
        if known < len(self.view.columns):
            self._run("drop.sql", table=f"{self._name}__new")

    def begin(self) -> None:
        """A new table, or the one that a migration made."""
        self._run("forget_progress.sql", view=self.progress)
        self._command(_new_tables()[self.new])
        self._run("mark.sql", table=f"{self._name}__new")

    def empty(self) -> None:
        """The new table, before the swap, is to be filled once more."""
        self._run("empty.sql", table=f"{self._name}__new")
        self._run("forget_progress.sql", view=self.progress)

    def swap(self) -> None:
        self._run("swap.sql", live=self._name, new=f"{self._name}__new")

    def end(self) -> None:
        """After the swap: the old table gets its name, or, where it is a personal one, is dropped."""
        if f"{self._name}__new" in self._tables():
            self.drop_old()
            if self.view.personal:
                self._run("drop.sql", table=f"{self._name}__new")
            else:
                self._run("rename.sql", table=f"{self._name}__new", name=f"{self._name}__old")
        self._run("unmark.sql", table=self._name)
        self._run("forget_progress.sql", view=self.progress)

    def drop_old(self) -> None:
        self._run("drop.sql", table=f"{self._name}__old")

    def _tables(self) -> dict[str, str]:
        names = [self._name, f"{self._name}__new", f"{self._name}__old"]
        parameters = {"database": self._database, "names": names}
        rows = self._client.query(_sql("tables.sql"), parameters).result_rows
        return {str(name): str(comment) for name, comment in rows}

    def _run(self, statement: str, /, **parameters: str) -> None:
        known = {} if "view" in parameters else {"database": self._database}
        self._command(_sql(statement), {**known, **parameters})

    def _command(self, text: str, parameters: dict[str, str] | None = None) -> None:
        self._client.command(text, parameters=parameters)


@cache
def _new_tables() -> dict[str, str]:
    """The new table's name → the statement that makes it."""
    statements = re.finditer(r"^CREATE TABLE IF NOT EXISTS (\S+) AS [^;]+(?=;$)", _sql("new_tables.sql"), re.MULTILINE)
    return {statement[1]: statement[0] for statement in statements}


def _sql(name: str) -> str:
    return (files(__package__) / "queries" / name).read_text()
