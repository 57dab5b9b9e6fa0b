"""Inserts into the views' tables, as columns; and how far a table has come, which is an insert too."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.insert import InsertContext

PROGRESS = "oms.sink_progress"
_PROGRESS_COLUMNS = ("view", "topic", "topic_id", "partition", "offset")

Progress = tuple[str, str, str, int, int]
"""(view, topic, topic id, partition, the next offset to read)"""


class Tables:
    """What one thread writes with. An insert that fails may have been applied; all of them can be repeated."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._contexts: dict[str, InsertContext] = {}

    def insert(self, table: str, columns: Sequence[str], rows: Sequence[Any]) -> None:
        """Returns when the rows are in the table.

        Raises:
            clickhouse_connect.driver.exceptions.Error: ClickHouse is away, or a value does not fit its column.
        """
        context = self._contexts.get(table)
        if context is None:
            database, _, name = table.partition(".")
            context = self._client.create_insert_context(name, list(columns), database=database, column_oriented=True)
            self._contexts[table] = context
        context.data = list(zip(*rows, strict=True))
        self._client.insert(context=context)

    def insert_progress(self, rows: Iterable[Progress]) -> None:
        """Only ever after the rows that it speaks of; none: no insert."""
        if found := list(rows):
            self.insert(PROGRESS, _PROGRESS_COLUMNS, found)

    def close(self) -> None:
        self._client.close()
