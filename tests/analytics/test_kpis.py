"""The KPIs on a history small enough to be reckoned by hand, in the real engine."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
from decimal import Decimal
from importlib.resources import files
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from pyarrow import parquet

from analytics import cli, kpi_cli, kpis
from analytics.clickhouse import connect, connect_async
from analytics.migrate import migrate
from runtime.errors import UserError
from runtime.settings import Settings
from runtime.stack import free_port
from tests.support.examples import at
from tests.support.histories import History
from tests.support.view_tables import fill_histories

HOUR = 3600


def histories() -> list[History]:
    """Four paid (three in EUR, one in JPY), three cancelled, one pending, one draft; two days, three customers."""
    return [
        # Paid after 1, 2, 3 and 10 seconds.
        History("a", "1", "EUR", 1000).created(0).submitted(10).payment_requested(10).paid(11),
        History("b", "1", "EUR", 2000).created(1).submitted(20).payment_requested(20).paid(22),
        History("c", "2", "EUR", 2501).created(2).submitted(30).payment_requested(30).paid(33),
        History("d", "3", "JPY", 1500).created(24 * HOUR).submitted(24 * HOUR).payment_requested(24 * HOUR)
        .paid(24 * HOUR + 10),
        History("e", "2", "EUR", 700).created(5).submitted(40).payment_requested(40).cancelled(41, "payment_declined"),
        History("f", "2", "EUR", 700).created(6).submitted(50).cancelled(51, "out_of_stock"),
        # Paid and cancelled afterwards: it counts as both.
        History("g", "3", "EUR", 900).created(7).submitted(60).cancelled(24 * HOUR + 60, "out_of_stock"),
        History("h", "3", "EUR", 900).created(8).submitted(70).payment_requested(70),
        History("i", "3", "USD", 900).created(9),
    ]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def filled(settings: Settings) -> None:
    with connect(settings) as client:
        fill_histories(client, histories())


NOTHING_DELIVERED = {
    "processing_time": [{"orders": 0, "mean": None, "p50": None, "p95": None, "within_three_days": None}],
    "satisfaction": [{"delivered": 0, "answers": 0, "score": None, "answer_rate": None, "unhappy_rate": None}],
}

EXPECTED: dict[str, list[dict[str, Any]]] = {
    **NOTHING_DELIVERED,
    "completion": [
        {
            "submitted": 8,
            "paid": 4,
            "delivered": 0,
            "cancelled": 3,
            "under_way": 5,
            "paid_rate": 0.5,
            "delivered_rate": 0.0,
        }
    ],
    "orders_created": [{"orders": 9, "customers": 3}],
    "cancellations_by_reason": [
        {"reason": "out_of_stock", "orders": 2, "after_payment": 0, "share": pytest.approx(2 / 3)},
        {"reason": "payment_declined", "orders": 1, "after_payment": 0, "share": pytest.approx(1 / 3)},
    ],
    "average_order_value": [
        {
            "currency": "EUR",
            "orders": 3,
            "revenue": {"amount": "55.01", "currency": "EUR"},
            "average_order_value": {"amount": "18.34", "currency": "EUR"},  # 5501 / 3 = 1833.67
            "median_order_value": {"amount": "20.00", "currency": "EUR"},
        },
        {
            "currency": "JPY",
            "orders": 1,
            "revenue": {"amount": "1500", "currency": "JPY"},
            "average_order_value": {"amount": "1500", "currency": "JPY"},
            "median_order_value": {"amount": "1500", "currency": "JPY"},
        },
    ],
    # 1, 2, 3, 10: the middle of 2 and 3; 85 % of the way from 3 to 10.
    "saga_durations": [
        {"saga": "placement", "orders": 4, "mean": 4.0, "p50": pytest.approx(2.5), "p95": pytest.approx(8.95)}
    ],
    "active_orders": [
        {"status": "PENDING_PAYMENT", "orders": 1},
        {"status": "PAYMENT_CONFIRMED", "orders": 4},
    ],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_all_time(client: Client, name: str) -> None:
    assert kpis.run(client, name) == EXPECTED[name]


def test_a_replay_changes_nothing(client: Client) -> None:
    before = client.query("SELECT count() FROM oms.order_summaries").result_rows[0][0]
    fill_histories(client, histories())
    assert client.query("SELECT count() FROM oms.order_summaries").result_rows[0][0] > before
    for name in EXPECTED:
        assert kpis.run(client, name) == EXPECTED[name], name


def test_a_period_counts_what_happened_in_it(client: Client) -> None:
    day_two = {"from": at(24 * HOUR), "to": at(48 * HOUR)}
    assert kpis.run(client, "orders_created", day_two) == [{"orders": 1, "customers": 1}]
    assert kpis.run(client, "completion", day_two)[0]["submitted"] == 1
    assert kpis.run(client, "cancellations_by_reason", day_two) == [
        {"reason": "out_of_stock", "orders": 1, "after_payment": 0, "share": 1.0}
    ]
    assert [row["currency"] for row in kpis.run(client, "average_order_value", day_two)] == ["JPY"]
    # `from` is in the period, `to` is not.
    assert kpis.run(client, "orders_created", {"from": at(9), "to": at(24 * HOUR)}) == [{"orders": 1, "customers": 1}]


def test_a_period_without_orders(client: Client) -> None:
    nothing = {"to": at(-1)}
    assert kpis.run(client, "orders_created", nothing) == [{"orders": 0, "customers": 0}]
    assert kpis.run(client, "completion", nothing)[0]["paid_rate"] is None
    for name in ("cancellations_by_reason", "average_order_value", "active_orders", "saga_durations"):
        assert kpis.run(client, name, nothing) == []


def test_unknown_parameters_are_refused(client: Client) -> None:
    with pytest.raises(ValueError, match="until is no parameter"):
        kpis.run(client, "orders_created", {"until": at(0)})


def test_the_event_loop_gets_the_same(settings: Settings) -> None:
    async def all_of_them() -> dict[str, Any]:
        async with await connect_async(settings) as client:
            return {name: await kpis.run_async(client, name) for name in EXPECTED}

    assert asyncio.run(all_of_them()) == EXPECTED


def test_sidecars_and_queries_belong_together(client: Client) -> None:
    folder = files(kpis.__name__)
    names = {entry.name for entry in folder.iterdir() if entry.name.endswith((".sql", ".yaml"))}
    assert names == {f"{name}.{ending}" for name in kpis.ORDER for ending in ("sql", "yaml")}
    for name, kpi in kpis.load().items():
        answer = client.raw_query(kpi.sql, parameters=kpis.asked(kpi).parameters(), fmt="TabSeparatedWithNames")
        assert answer.decode().splitlines()[0].split("\t") == ["at", "everything", *kpi.columns], name
        for line in kpi.headline:
            used = {line.value, *re.findall(r"{(\w+)}", line.label + line.note)}
            assert used <= kpi.columns.keys(), name


def test_migrations_are_applied_once(client: Client) -> None:
    assert migrate(client) == []


# The command line.


def test_kpi_as_a_table(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    kpi_cli.kpi(settings)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    for words in (
        r"Orders created +9 +3 customers",
        r"Order completion rate +0\.0 % +✗ > 95 % +0 of 8, 5 under way",
        r"Order processing time +– +< 3 days",
        r"Cancellations +2 +out_of_stock 66\.7 %",
        r"Average order value +18\.34 EUR +3 paid",
        r"1,500 JPY +1 paid",
    ):
        assert re.search(words, printed), (words, printed)


def test_kpi_as_json(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    kpi_cli.kpi(settings, format="json", **{"from": "2026-03-02", "to": at(100 * HOUR).isoformat()})
    found = json.loads(capsys.readouterr().out)
    assert {name: found[name]["rows"] for name in EXPECTED} == EXPECTED
    assert all(one["meaning"] and one["grain"] and one["unit"] and one["question"] for one in found.values())


def test_kpi_as_csv(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    kpi_cli.kpi(settings, format="csv")
    found = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {"kpi": "average_order_value", "of": "JPY", "measure": "revenue", "value": "1500", "unit": "JPY"} in found
    assert {"kpi": "completion", "of": "", "measure": "paid_rate", "value": "0.5", "unit": "ratio"} in found


def test_one_kpi_as_a_table(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    kpi_cli.kpi(settings, "average_order_value", grain="day", tz="Europe/Berlin")
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert re.search(r"2026-03-02 +EUR +3 +55\.01 EUR +18\.34 EUR +20\.00 EUR", printed), printed
    assert "Currencies are never added" in printed


def test_one_kpi_as_files(settings: Settings, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    asked = {"grain": "day", "tz": "Europe/Berlin"}
    kpi_cli.kpi(settings, "average_order_value", "csv", **asked)
    assert capsysbinary.readouterr().out.decode().splitlines() == [
        "at,currency,orders,revenue,average_order_value,median_order_value",
        "2026-03-02T00:00:00+01:00,EUR,3,55.01,18.34,20.00",
        "2026-03-03T00:00:00+01:00,JPY,1,1500,1500,1500",
    ]
    kpi_cli.kpi(settings, "average_order_value", "parquet", **asked)
    table = parquet.read_table(io.BytesIO(capsysbinary.readouterr().out))
    assert table["revenue"].to_pylist() == [Decimal("55.01"), Decimal(1500)]
    assert [at.isoformat() for at in table["at"].to_pylist()] == [
        "2026-03-02T00:00:00+01:00",
        "2026-03-03T00:00:00+01:00",
    ]
    kpi_cli.kpi(settings, "completion", "csv", to="2000-01-01")
    assert capsysbinary.readouterr().out.decode().splitlines()[1] == "0,0,0,0,0,,"


@pytest.mark.parametrize(
    ("name", "format", "params", "sentence"),
    [
        ("happiness", "table", {}, "There is no KPI happiness"),
        (None, "parquet", {}, "say which KPI"),
        ("completion", "table", {"group_by": "sku"}, "--group-by must be one of currency"),
        ("refunds_by_reason", "table", {"group_by": "sku"}, "--group-by is not possible"),
    ],
)
def test_what_the_command_refuses(
    settings: Settings, name: str | None, format: kpi_cli.Format, params: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        kpi_cli.kpi(settings, name, format, **params)


QUERY = "SELECT status, count() AS orders FROM oms.orders FINAL GROUP BY status ORDER BY status;"


def test_sql(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    cli.sql(settings, QUERY, "json")
    assert json.loads(capsys.readouterr().out)[0] == {"status": "CANCELLED", "orders": 3}
    cli.sql(settings, QUERY.replace("oms.", ""), "json")  # an analyst is at home in oms
    assert json.loads(capsys.readouterr().out)[0] == {"status": "CANCELLED", "orders": 3}
    cli.sql(settings, "SELECT 1 WHERE 0", "json")
    assert json.loads(capsys.readouterr().out) == []
    cli.sql(settings, QUERY, "csv")
    assert capsys.readouterr().out.splitlines()[:2] == ['"status","orders"', '"CANCELLED",3']
    cli.sql(settings, QUERY, "table")
    assert re.search(r"CANCELLED +3", capsys.readouterr().out)


@pytest.mark.parametrize("format", ["table", "json", "csv"])
@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("DROP TABLE oms.orders", "readonly"),
        ("INSERT INTO oms.migrations (name) VALUES ('x')", "readonly"),
        ("SELECT * FROM personal.addresses", "Not enough privileges"),
        ("SELCT 1", "Syntax error"),
        ("SELECT 1 FORMAT TSV", "Leave FORMAT TSV away"),
    ],
)
def test_sql_only_reads(settings: Settings, query: str, sentence: str, format: cli.Format) -> None:
    with pytest.raises(UserError, match=sentence):
        cli.sql(settings, query, format)
    with connect(settings) as client:
        assert migrate(client) == []


def test_clickhouse_away(settings: Settings) -> None:
    away = settings.model_copy(update={"clickhouse_url": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(UserError, match=r"does not answer .* `oms up`"):
        kpi_cli.kpi(away)
