"""Is the table that a rebuild has made the live one again? By hashes of rows, in ClickHouse; only rows whose hashes
differ are looked at here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import orjson
from clickhouse_connect.driver.client import Client

from .views import View

_BUCKETS = 65_536
_AT_ONCE = 1_000
"""Buckets that are asked for in one query."""
_SAMPLE = 200
"""Buckets of which whole rows are looked at."""

Key = tuple[str, ...]
"""What a row is about: the values of its view's identity as JSON."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A row that is not the same in both tables, or is in one only. appended_at: milliseconds, of the younger one."""

    key: Key
    in_live: bool
    in_new: bool
    appended_at: int


class Comparison:
    """Of a view's live table and its new one. `excepted`: columns that are left out."""

    def __init__(self, client: Client, view: View, new: str, excepted: Sequence[str] = ()) -> None:
        self._client = client
        self._database, _, self._live = view.table.partition(".")
        self._new = new.partition(".")[2]
        self._parameters = {"identity": list(view.identity), "except": list(excepted), "buckets": _BUCKETS}

    def suspects(self) -> tuple[int, list[int]]:
        """(rows in the new table, buckets in which the two tables differ)"""
        live, new = self._buckets(self._live), self._buckets(self._new)
        differ = [bucket for bucket in live.keys() | new.keys() if live.get(bucket) != new.get(bucket)]
        return sum(rows for rows, _ in new.values()), sorted(differ)

    def differences(self, buckets: Sequence[int], before: float) -> list[Difference]:
        """The rows in these buckets that are not the same; once some from before that time (ms) are found, it looks
        no further."""
        found: list[Difference] = []
        for start in range(0, len(buckets), _AT_ONCE):
            if any(one.appended_at < before for one in found):
                break
            some = buckets[start : start + _AT_ONCE]
            live, new = self._rows(self._live, some), self._rows(self._new, some)
            for key in live.keys() | new.keys():
                here, there = live.get(key), new.get(key)
                if here is None or there is None or here.hash != there.hash:
                    younger = max(row.appended_at for row in (here, there) if row is not None)
                    found.append(Difference(key, here is not None, there is not None, younger))
        return found

    def columns(self, buckets: Sequence[int], before: float) -> tuple[set[str], set[str]]:
        """(columns in which rows differ; of these, the ones that are empty in the live table wherever they differ, as
        a migration adds them). A sample of the buckets is looked at, of these the rows from before that time (ms)."""
        some = buckets[:_SAMPLE]
        live, new = self._rows(self._live, some, whole=True), self._rows(self._new, some, whole=True)
        known = [key for key in live.keys() & new.keys() if max(live[key].appended_at, new[key].appended_at) < before]
        pairs = [(live[key].cells, new[key].cells) for key in known]
        differ = {name for here, there in pairs for name in here.keys() & there.keys() if here[name] != there[name]}
        filled = {
            name for here, there in pairs for name in differ if here[name] != there[name] and not _is_empty(here[name])
        }
        return differ, differ - filled

    def _buckets(self, table: str) -> dict[int, tuple[int, int]]:
        return {bucket: (rows, digest) for bucket, rows, digest in self._query("fingerprints.sql", table)}

    def _rows(self, table: str, buckets: Sequence[int], whole: bool = False) -> dict[Key, _Row]:
        rows = self._query("rows_of_buckets.sql", table, wanted=list(buckets), whole=whole)
        return {tuple(key): _Row(appended_at, digest, dict(cells)) for key, appended_at, digest, cells in rows}

    def _query(self, name: str, table: str, **more: Any) -> Sequence[Sequence[Any]]:
        parameters = {"database": self._database, "table": table, **self._parameters, **more}
        text = (files(__package__) / "queries" / name).read_text()
        return self._client.query(text, parameters=parameters).result_rows


@dataclass(frozen=True, slots=True)
class _Row:
    appended_at: int
    hash: int
    cells: Mapping[str, str]


def _is_empty(text: str) -> bool:
    """Whether a cell's JSON is what a column holds that nobody has filled."""
    value = orjson.loads(text)
    return not value or (isinstance(value, str) and value.startswith("1970-01-01"))
