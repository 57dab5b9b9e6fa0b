"""Fills the views with as many orders as wanted, for measurements: a few thousand lives told by the real rules
(`sandbox.past`), copied inside ClickHouse with other ids, customers and weeks, spread over two years until now.

    python -m runtime.embedded_clickhouse --data-dir /tmp/archive --port 8199 &
    python -m sandbox.archive --clickhouse-url http://127.0.0.1:8199 --orders 1000000

The views get the rows of a fifth of the orders twice, as they were before and as they are, and in the order in which a
sink would have written them: many orders in the large parts of long ago, few in the small ones of today. The stock
ledger is made of the orders' lines. Stock as it is now, messages to customers, exceptions and addresses in clear are
not filled.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

from clickhouse_connect.driver.client import Client

from analytics.clickhouse import connect
from analytics.migrate import migrate
from analytics.statements import statement
from processors.sinks.views import VIEWS, View
from runtime.settings import Settings
from sandbox.past import Life, lives

LIVES = 3_000
"""So many are told one by one; the rest are copies of them."""
WEEKS = 104
WHALE = 5_000
"""Orders of the one customer who has far more than everybody else; at most a twentieth of all."""
STALE = 5
"""Of every so manieth order an older version is written too."""

_MARK = "\x01"
_ID = r"[0-9a-f]{8}(?=-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})"
_DAY = r'\d{4}-\d\d-\d\d(?=[T"])'

SETTINGS = {"optimize_on_insert": 0}
"""Of the client that fills: two versions of a row in one insert stay two, as if they had come in two."""

FILLED = [
    view
    for view in VIEWS.values()
    if view.name != "personal" and view.sources.keys() & {"order.events", "order.states"}
]


def fill(
    client: Client,
    orders: int,
    until: datetime,
    *,
    seed: int = 7,
    merged: bool = True,
    say: Callable[[str], None] = print,
) -> None:
    """Fill the views (which exist and are empty) with `orders` orders, the last of them created shortly before
    `until`. Without `merged` nothing is merged, now or later, until somebody says SYSTEM START MERGES: the most that
    FINAL can have to do."""
    began = time.monotonic()
    week = until - timedelta(days=7)
    _run(client, "prepare")
    told = list(lives(min(orders, LIVES), seed, week))
    _insert_templates(client, told, until)
    say(f"{len(told):,} lives told in {time.monotonic() - began:.0f} s")
    _run(
        client,
        "copies",
        orders=orders,
        lives=len(told),
        weeks=WEEKS,
        whale=min(WHALE, orders // 20),
        last_week=0,
    )
    edges = _edges(until)
    for number, (start, end) in enumerate(pairwise(edges), start=1):
        for view in FILLED:
            _run(
                client,
                view.name,
                **{"from": _text(start), "to": _text(end)},
                first_days=(start - until).days - 60,
                last_days=(end - until).days + 7,
            )
        say(f"{number} of {len(edges) - 1} periods are in after {time.monotonic() - began:.0f} s")
    for part in range(8):  # so that it needs an eighth of the memory
        _run(client, "stock_ledger", part=part)
    client.command("DROP DATABASE archive")
    if merged:
        client.command("SYSTEM START MERGES")
        while not _settled(client):
            time.sleep(1)
        say(f"merged after {time.monotonic() - began:.0f} s")


def _settled(client: Client) -> bool:
    """No merge has been under way for two seconds."""
    for _ in range(4):
        if client.query(_script("merging")).result_rows[0][0]:
            return False
        time.sleep(0.5)
    return True


def _edges(until: datetime) -> list[datetime]:
    """The periods whose rows come in one insert each: the longer ago, the longer, as merges leave them."""
    ago = [*range(WEEKS * 7 + 14, 28, -56), 28, 14, 7, 4, 2, 1]
    return [*(until - timedelta(days=days) for days in ago), until + timedelta(days=365)]


def _insert_templates(client: Client, told: Sequence[Life], until: datetime) -> None:
    rows: dict[str, list[Any]] = {view.name: [] for view in FILLED}
    plan = []
    for ordinal, life in enumerate(told):
        blank = _blank(life)
        for view in FILLED:
            rows[view.name] += (map(blank, row) for row in _rows(view, life, stale=ordinal % STALE == 0))
        weeks = -(-(life.order.updated_at - until) // timedelta(days=7))
        plan.append((ordinal, blank(life.order.order_id), life.finished, max(0, weeks)))
    for view in FILLED:
        _insert(client, view.name, view.columns, rows[view.name])
    _insert(client, "lives", ("ordinal", "life", "finished", "weeks"), plan)


def _rows(view: View, life: Life, stale: bool) -> Iterator[Any]:
    """What the sink would write of this life: of the states the last one, and one before if `stale`."""
    if make := view.sources.get("order.events"):
        for event, raw in life.events:
            yield from make(event, raw, _millis(event.occurred_at), _never)
    if make := view.sources.get("order.states"):
        for state in [*life.states[-2:-1] * stale, life.states[-1]]:
            yield from make(state, b"", _millis(state.at), _never)


def _blank(life: Life) -> Callable[[Any], Any]:
    """Makes a value of this life's rows a template (see sql/archive/prepare.sql)."""
    order = life.order
    pattern = re.compile(f"({_ID})|({re.escape(order.number)})|({re.escape(order.customer_id)})|({_DAY})")

    def mark(found: re.Match[str]) -> str:
        match found.lastindex:
            case 1:
                return f"{_MARK}F"
            case 2:
                return f"{_MARK}N"
            case 3:
                return f"{_MARK}C"
            case _:
                return f"{_MARK}D{(date.fromisoformat(found.group()) - date(1970, 1, 1)).days:05d}"

    def blank(value: Any) -> Any:
        if isinstance(value, list):
            return [blank(one) for one in value]
        return pattern.sub(mark, value) if isinstance(value, str) else value

    return blank


def _insert(client: Client, table: str, columns: Sequence[str], rows: Sequence[Any]) -> None:
    context = client.create_insert_context(table, list(columns), database="archive", column_oriented=True)
    context.data = list(zip(*rows, strict=True))
    client.insert(context=context)


def _run(client: Client, name: str, **parameters: Any) -> None:
    for text in _script(name).rstrip().removesuffix(";").split(";\n"):
        client.command(text, parameters=parameters)


def _script(name: str) -> str:
    return statement("sandbox", "sql/archive", name)


def _never(_: Any) -> None:
    """No address is opened."""


def _millis(at: datetime) -> int:
    return round(at.timestamp() * 1000)


def _text(at: datetime) -> str:
    return at.strftime("%Y-%m-%d %H:%M:%S.%f")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sandbox.archive")
    parser.add_argument("--clickhouse-url", required=True)
    parser.add_argument("--orders", type=int, required=True)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--unmerged", action="store_true", help="leave every part as it was inserted")
    arguments = parser.parse_args()
    settings = Settings(clickhouse_url=arguments.clickhouse_url)
    client = connect(settings, send_receive_timeout=900, settings=SETTINGS)
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    try:
        migrate(client)
        fill(client, arguments.orders, today, seed=arguments.seed, merged=not arguments.unmerged)
    finally:
        client.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
