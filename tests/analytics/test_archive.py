"""The archive that reading is measured with holds what the sink would have written."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from analytics.clickhouse import connect
from processors.sinks.order_rows import line_rows, summary_rows
from processors.sinks.rows import micros
from runtime.settings import Settings
from sandbox.archive import FILLED, SETTINGS, fill
from schemas.base import Message
from schemas.order import Order, OrderState

ORDERS = 200
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture(scope="module")
def archive(settings: Settings) -> Settings:
    with connect(settings, settings=SETTINGS) as client:
        fill(client, ORDERS, TODAY, merged=False, say=lambda _: None)
    return settings


@pytest.fixture
def filled(archive: Settings, client: Client) -> Client:
    return client


def test_every_document_is_an_order_of_its_own(filled: Client) -> None:
    orders = documents(filled)
    rows = filled.query("SELECT order_id, number, customer_id, version FROM oms.orders FINAL").result_rows
    assert sorted(rows) == sorted((o.order_id, o.number, o.customer_id, o.version) for o in orders)
    assert len(orders) == len({o.order_id for o in orders}) == len({o.number for o in orders}) == ORDERS
    assert {"DELIVERED", "CANCELLED"} < {o.status for o in orders}
    assert sum(o.customer_id == "customer-whale" for o in orders) == ORDERS // 20


def test_lives_are_spread_over_two_years_and_none_is_in_the_future(filled: Client) -> None:
    orders = documents(filled)
    assert max(o.updated_at for o in orders) <= TODAY
    assert max(o.created_at for o in orders) > datetime.fromtimestamp(TODAY.timestamp() - 14 * 86400, UTC)
    assert len({o.created_at.date() for o in orders}) > 80
    assert (TODAY - min(o.created_at for o in orders)).days in range(650, 731)


def test_summaries_and_lines_are_those_of_the_documents(filled: Client) -> None:
    states = [state(order) for order in documents(filled)]
    wanted = [row._asdict() for one in states for row in summary_rows(one, 0)]
    assert by(read(filled, "order_summaries"), "order_id") == by(wanted, "order_id")
    wanted = [row._asdict() for one in states for row in line_rows(one, 0) if not row.is_deleted]
    assert by(read(filled, "order_lines"), "order_id", "line_id") == by(wanted, "order_id", "line_id")


def test_timelines_have_every_version_once(filled: Client) -> None:
    found = filled.query(
        "SELECT order_id, max(version), count(), uniqExact(version), uniqExact(id) "
        "FROM oms.order_events GROUP BY order_id"
    ).result_rows
    assert {row[0]: row[1] for row in found} == {o.order_id: o.version for o in documents(filled)}
    assert all(newest == count == versions == ids for _, newest, count, versions, ids in found)


def test_some_orders_are_there_as_they_were_too(filled: Client) -> None:
    older = filled.query("SELECT count() FROM oms.order_summaries").result_rows[0][0] - ORDERS
    assert ORDERS // 10 < older <= ORDERS // 5


def test_nothing_of_the_templates_is_left(filled: Client) -> None:
    for view in FILLED:
        rows = read(filled, view.table.removeprefix("oms."))
        assert rows
        assert not [row for row in rows if "\x01" in str(row) or "\\x01" in str(row)], view.name


def test_rows_from_before_the_stays_were_written_get_the_same(filled: Client) -> None:
    filled.command("CREATE TABLE oms.earlier AS oms.order_summaries")
    filled.command(
        "INSERT INTO oms.earlier (order_id, version, created_at, statuses, entered, appended_at) "
        "SELECT order_id, version, created_at, statuses, entered, appended_at FROM oms.order_summaries"
    )
    found = [read(filled, table) for table in ("earlier", "order_summaries")]
    filled.command("DROP TABLE oms.earlier")
    names = ("left_statuses", "left_at", "stayed")
    stays = [{row["order_id"]: [row[name] for name in names] for row in rows} for rows in found]
    assert stays[0] == stays[1]
    assert any(len(statuses) > 4 for statuses, _, _ in stays[0].values())


def test_the_stock_ledger_adds_up_and_some_products_run_out(filled: Client) -> None:
    books: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(read(filled, "stock_ledger"), key=lambda row: (row["sku"], row["version"])):
        books.setdefault(row["sku"], []).append(row)
    for moved in books.values():
        assert [row["version"] for row in moved] == list(range(1, len(moved) + 1))
        assert [row["at"] for row in moved] == sorted(row["at"] for row in moved)
        assert min(row["on_hand"] for row in moved) >= 0
        came = sum(row["quantity"] for row in moved if row["kind"] == "adjusted")
        assert {key: moved[-1][key] for key in ("reserved", "on_hand")} == {
            "reserved": 0,
            "on_hand": came - moved[-1]["shipped"],
        }
    ran_out = {sku for sku, moved in books.items() if any(row["on_hand"] == 0 for row in moved)}
    assert 0 < len(ran_out) < len(books)


def documents(client: Client) -> list[Order]:
    found = client.query("SELECT document FROM oms.orders FINAL").result_rows
    return [Order.model_validate_json(document) for (document,) in found]


def state(order: Order) -> Message[OrderState]:
    return Message(
        id="", at=order.updated_at, actor="", correlation_id="", order_id=order.order_id, data=OrderState(order=order)
    )


def read(client: Client, table: str) -> list[dict[str, Any]]:
    """The table's rows as they are now, as the row functions have them: times in microseconds."""
    found = client.query("SELECT * FROM oms.{table:Identifier} FINAL", parameters={"table": table})
    return [{name: plain(value) for name, value in row.items()} for row in found.named_results()]


def plain(value: Any) -> Any:
    if isinstance(value, list):
        return [plain(one) for one in value]
    return micros(value.replace(tzinfo=UTC)) if isinstance(value, datetime) else value


def by(rows: Iterable[dict[str, Any]], *key: str) -> dict[tuple[Any, ...], dict[str, Any]]:
    """By these columns; without when it arrived, which a document does not say."""
    return {
        tuple(row[name] for name in key): {name: value for name, value in row.items() if name != "appended_at"}
        for row in rows
    }
