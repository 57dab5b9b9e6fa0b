"""The views' tables, filled with what the sink would make of messages, without the sink."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from clickhouse_connect.driver.client import Client

from processors.sinks.views import VIEWS
from schemas.base import Envelope
from schemas.codec import encode
from tests.support.histories import History


def fill(client: Client, topic: str, messages: Iterable[Envelope]) -> None:
    """Insert what these messages of the topic become, in every view that reads it."""
    now = int(time.time() * 1000)  # rows appended in 1970 would be past their TTL
    found = [(message, encode(message)) for message in messages]
    for view in VIEWS.values():
        make = view.sources.get(topic)
        if make is None:
            continue
        rows: list[Any] = [row for message, raw in found for row in make(message, raw, now, lambda _: None)]
        if rows:
            database, table = view.table.split(".")
            # Older versions stay beside newer ones, as if they had come one by one.
            apart = {"optimize_on_insert": 0}
            client.insert(table, rows, column_names=view.columns, database=database, settings=apart)


def fill_histories(client: Client, histories: Iterable[History]) -> None:
    histories = list(histories)
    fill(client, "order.events", (event for history in histories for event in history.events))
    fill(client, "order.states", (state for history in histories for state in history.states))
