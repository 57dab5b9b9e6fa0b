"""A KPI's rows as CSV and Parquet, made block by block as they come."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Protocol

from .asked import Asked
from .reading import Row
from .sidecars import Kpi

MEDIA_TYPES = {"csv": "text/csv", "parquet": "application/vnd.apache.parquet"}
"""By format."""


class Export(Protocol):
    def block(self, rows: Sequence[Row]) -> bytes:
        """What these rows add to the file."""
        ...

    def end(self) -> bytes:
        """What is left to be said when all rows were."""
        ...


def export(format: str, kpi: Kpi, what: Asked) -> Export:
    """A new file of one of `MEDIA_TYPES`."""
    if format == "csv":
        return Csv(kpi, what)
    from .parquet import Parquet  # pyarrow takes 40 MB, and few ask for it

    return Parquet(kpi, what)


class Csv:
    """A line of names, then one line per row; empty where there is no figure. An amount of money is in units of the
    row's `currency` (129.90)."""

    def __init__(self, kpi: Kpi, what: Asked) -> None:
        self._names = names(kpi, what)
        self._money = money(kpi)
        self._head = True

    def block(self, rows: Sequence[Row]) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        if self._head:
            writer.writerow(self._names)
            self._head = False
        for row in rows:
            writer.writerow(row[name]["amount"] if name in self._money else row[name] for name in self._names)
        return text.getvalue().encode()

    def end(self) -> bytes:
        return self.block(()) if self._head else b""


def names(kpi: Kpi, what: Asked) -> list[str]:
    """The columns of the rows."""
    return [*(["at"] if what.grain else []), *([what.group_by] if what.group_by else []), *kpi.columns]


def money(kpi: Kpi) -> frozenset[str]:
    return frozenset(name for name, unit in kpi.columns.items() if unit == "money")
