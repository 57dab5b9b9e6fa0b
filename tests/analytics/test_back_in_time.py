"""All orders as of a time, and what changed between two, in SQL on the real engine: for every moment of a recorded
history they say what an independent fold of the events says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from itertools import combinations
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from analytics import cli
from analytics.clickhouse import connect, connect_analyst
from analytics.migrate import migrate
from gateway import past, queries, times
from processors.sinks import audit_rows, order_rows, rows
from runtime.settings import Settings
from runtime.stack import free_port
from schemas import events as e
from schemas.base import Event
from schemas.codec import encode
from schemas.order import Order, OrderStatus, Totals
from tests.support.examples import at
from tests.support.histories import History, one_line
from tests.support.processes import clickhouse

DAY = 86_400


def histories() -> list[History]:
    """A draft that is edited, two paid (one cancelled afterwards), one submitted and cancelled at once, one in yen."""
    dearer = Totals(subtotal=3000, total=3000)
    edited = e.OrderLineItemQuantityChanged(
        line_id="L1", sku="MUG", before=1, quantity=3, lines=one_line(quantity=3), totals=dearer
    )
    return [
        History("a", "1").created(0).happens(5, edited),
        History("b", "1").created(1).submitted(10).payment_requested(10).paid(12),
        History("c", "2").created(2).submitted(20).payment_requested(20).paid(21).cancelled(DAY, "changed_mind"),
        History("d", "2").created(3).submitted(3).cancelled(4, "out_of_stock"),
        History("e", "3", "JPY", 1500).created(DAY).submitted(DAY).payment_requested(DAY).paid(DAY + 10),
    ]


def moments() -> list[datetime]:
    """The time of every event, a moment before it, and one before and after everything."""
    times = {event.occurred_at for history in histories() for event in history.events}
    return sorted({at(-1), at(2 * DAY), *times, *(time - timedelta(microseconds=1) for time in times)})


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    port, folder = free_port(), tmp_path_factory.mktemp("past")
    with clickhouse(folder, port):
        here = Settings(data_dir=folder, clickhouse_url=f"http://127.0.0.1:{port}")
        with connect(here) as client:
            migrate(client)
            fill(client, histories())
            fill(client, histories())  # a replay changes nothing
        yield here


@pytest.fixture
def client(settings: Settings) -> Iterator[Client]:
    with connect(settings) as client:
        yield client


def fill(client: Client, found: list[History]) -> None:
    """Insert what the sink would, each state of an order in an insert of its own."""
    now = int(datetime.now(UTC).timestamp() * 1000)  # at 0 it would be past its TTL
    events = [event for history in found for event in history.events]
    states = [state for history in found for state in history.states]
    inserts: list[tuple[str, list[Any]]] = [
        ("order_events", [row for event in events for row in rows.order_events_rows(event, encode(event), now)]),
        ("audit", [row for event in events for row in audit_rows.audit_of_order(event, now)]),
        *(("orders", rows.orders_rows(state, now)) for state in states),
        *(("order_summaries", order_rows.summary_rows(state, now)) for state in states),
    ]
    for table, made in inserts:
        client.insert(table, made, column_names=list(made[0]._fields), database="oms")


def then(history: History, when: datetime) -> Order | None:
    """An independent fold."""
    return past.as_of(past.fold(history.events), when)


def stood(order: Order | None) -> tuple[str, int, int | None]:
    return (order.status, order.version, order.totals.total) if order else ("", 0, None)


def between(history: History, since: datetime, until: datetime) -> list[Event[Any]]:
    return [event for event in history.events if since < event.occurred_at <= until]


def asked(client: Client, query: str, **times: datetime) -> list[dict[str, Any]]:
    """The rows of an analyst's query."""
    texts = {name: time.strftime("%Y-%m-%d %H:%M:%S.%f") for name, time in times.items()}
    text = (files("analytics") / "queries" / f"{query}.sql").read_text()
    return list(client.query(text, parameters=texts).named_results())


def of_gateway(client: Client, statement: str, **parameters: Any) -> list[dict[str, Any]]:
    raw = client.raw_query(queries.sql(statement), parameters=parameters, fmt="JSONEachRow")
    return [json.loads(line) for line in raw.splitlines()]


def test_all_orders_as_of_any_time_are_the_folds_up_to_it(client: Client) -> None:
    for when in moments():
        found = asked(client, "orders_as_of", as_of=when)
        there = [h for h in histories() if then(h, when)]
        there.sort(key=lambda h: h.events[0].occurred_at, reverse=True)
        assert [row["order_id"] for row in found] == [h.order_id for h in there], when
        assert [(row["status"], row["version"], row["total"]) for row in found] == [stood(then(h, when)) for h in there]
        first = there[0] if there else None
        if first:
            named = (first.order.number, first.customer, first.currency)
            assert (found[0]["number"], found[0]["customer_id"], found[0]["currency"]) == named


def test_the_gateway_asks_the_same_in_pages(client: Client) -> None:
    for when in moments():
        for statuses in ([], ["CANCELLED"], ["DRAFT", "PAYMENT_CONFIRMED"]):
            found: list[dict[str, Any]] = []
            position: tuple[int, str] = (times.EVER, "")
            while True:
                page = of_gateway(
                    client,
                    "orders_as_of",
                    as_of_us=times.micros(when),
                    statuses=statuses,
                    before_us=position[0],
                    before_id=position[1],
                    limit=2,
                )
                found += [row for row in page if row["matches"]]
                if len(page) < 2:
                    break
                position = (int(page[-1]["created_us"]), page[-1]["order_id"])
            expected = {h.order_id: stood(order) for h in histories() if (order := then(h, when))}
            expected = {id: state for id, state in expected.items() if not statuses or state[0] in statuses}
            told = {r["order_id"]: (r["status_then"], int(r["version_then"]), int(r["total_then"])) for r in found}
            assert len(told) == len(found)
            assert told == expected, (when, statuses)


def test_what_changed_between_any_two_times_is_what_the_folds_differ_in(client: Client) -> None:
    for since, until in combinations(moments()[::2], 2):
        expected = {
            h.order_id: (
                *stood(then(h, since)),
                *stood(then(h, until)),
                [type(event.data).__name__ for event in between(h, since, until)],
            )
            for h in histories()
            if between(h, since, until)
        }
        found = asked(client, "changes_between", **{"from": since, "to": until})
        assert [row["changed_at"] for row in found] == sorted((row["changed_at"] for row in found), reverse=True)
        fields = ("status_before", "version_before", "total_before", "status_after", "version_after", "total_after")
        told = {row["order_id"]: (*(row[field] for field in fields), list(row["events"])) for row in found}
        assert told == expected, (since, until)
        page = of_gateway(
            client,
            "changes_between",
            from_us=times.micros(since),
            to_us=times.micros(until),
            before_us=times.EVER,
            before_id="",
            limit=100,
        )
        assert [row["order_id"] for row in page] == [row["order_id"] for row in found]
        for row in page:
            numbers = {f: None if row[f] is None else int(row[f]) for f in fields if not f.startswith("status")}
            assert (*(numbers.get(f, row[f]) for f in fields), row["types"]) == expected[row["order_id"]]


def test_an_analyst_asks_with_parameters(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    query = (files("analytics") / "queries" / "orders_as_of.sql").read_text()
    cli.sql(settings, query, "json", parameters={"as_of": "2026-03-02 10:00:04"})
    found = json.loads(capsys.readouterr().out)
    assert {row["number"]: row["status"] for row in found} == {
        "A": OrderStatus.DRAFT,
        "B": OrderStatus.DRAFT,
        "C": OrderStatus.DRAFT,
        "D": OrderStatus.CANCELLED,
    }
    cli.sql(settings, query, "table", parameters={"as_of": "2026-03-02 10:00:04"})
    assert "CANCELLED" in capsys.readouterr().out
    with connect_analyst(settings) as analyst:
        assert len(asked(analyst, "changes_between", **{"from": at(4), "to": at(5)})) == 1
