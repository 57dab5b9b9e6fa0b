"""Hours, days and weeks on the clocks of a time zone; and what can't be asked."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from clickhouse_connect.driver.client import Client

from analytics import kpis
from analytics.clickhouse import connect
from runtime.settings import Settings
from tests.support.examples import T0
from tests.support.histories import History
from tests.support.view_tables import fill_histories

CREATED = (
    "2026-03-28T22:59:59Z",  # Berlin: the last second of Saturday
    "2026-03-28T23:00:00Z",  # the first of Sunday, which has 23 hours
    "2026-03-29T21:59:59Z",  # the last
    "2026-03-29T22:00:00Z",  # Monday
    "2026-10-25T00:30:00Z",  # 2:30, and an hour later 2:30 again
    "2026-10-25T01:30:00Z",
)
ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "America/St_Johns", "Pacific/Chatham",
    "America/Santiago",  # its clocks change at midnight: some days begin at one
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def filled(settings: Settings) -> None:
    with connect(settings) as client:
        seconds = ((datetime.fromisoformat(text) - T0).total_seconds() for text in CREATED)
        fill_histories(client, [History(f"o{i}").created(s) for i, s in enumerate(seconds)])


def counts(client: Client, **params: Any) -> dict[str, int]:
    return {row["at"]: row["orders"] for row in kpis.run(client, "orders_created", params)}


def test_days(client: Client) -> None:
    assert counts(client, grain="day", tz="Europe/Berlin", to="2026-04-01") == {
        "2026-03-28T00:00:00+01:00": 1,
        "2026-03-29T00:00:00+01:00": 2,
        "2026-03-30T00:00:00+02:00": 1,
    }
    assert counts(client, grain="day", to="2026-04-01") == {
        "2026-03-28T00:00:00+00:00": 2,
        "2026-03-29T00:00:00+00:00": 2,
    }


def test_weeks_begin_on_mondays(client: Client) -> None:
    assert counts(client, grain="week", tz="Europe/Berlin", to="2026-04-01") == {
        "2026-03-23T00:00:00+01:00": 3,
        "2026-03-30T00:00:00+02:00": 1,
    }
    assert counts(client, grain="week", to="2026-04-01") == {"2026-03-23T00:00:00+00:00": 4}


def test_the_hour_that_comes_twice_is_two(client: Client) -> None:
    assert counts(client, grain="hour", tz="Europe/Berlin", **{"from": "2026-10-01"}) == {
        "2026-10-25T02:00:00+02:00": 1,
        "2026-10-25T02:00:00+01:00": 1,
    }


def test_a_date_is_one_of_the_time_zone(client: Client) -> None:
    sunday = {"from": "2026-03-29", "to": "2026-03-30"}
    assert kpis.run(client, "orders_created", {**sunday, "tz": "Europe/Berlin"})[0]["orders"] == 2
    assert kpis.run(client, "orders_created", {"from": "2026-03-29T00:00:00+01:00", "to": "2026-03-29T21:59:59Z"}) == [
        {"orders": 1, "customers": 1}
    ], "from is in it, to is not"


@pytest.mark.parametrize("zone", ZONES)
def test_periods_begin_where_python_says(client: Client, zone: str) -> None:
    dice = random.Random(zone)
    moments = [datetime(2015, 1, 1, tzinfo=UTC) + timedelta(minutes=dice.randrange(5_700_000)) for _ in range(2_000)]
    asked = """SELECT arrayMap(
        at -> toUnixTimestamp(period_start(fromUnixTimestamp64Micro(at, 'UTC'), {grain:String}, {tz:String})),
        {moments:Array(Int64)}
    )"""
    for grain in kpis.GRAINS:
        micros = [int(at.timestamp()) * 1_000_000 for at in moments]
        found = client.query(asked, parameters={"grain": grain, "tz": zone, "moments": micros}).result_rows[0][0]
        for at, start in zip(moments, found, strict=True):
            assert datetime.fromtimestamp(start, UTC) == beginning(at, grain, ZoneInfo(zone)), (at, grain)


def beginning(at: datetime, grain: str, zone: ZoneInfo) -> datetime:
    local = at.astimezone(zone)
    if grain == "hour":
        return at - timedelta(minutes=local.minute)
    day = local.date() - timedelta(days=local.weekday() if grain == "week" else 0)
    # A midnight that there isn't is the moment at which the clocks change.
    return datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC)


@pytest.mark.parametrize(
    ("params", "field", "possible"),
    [
        ({"grain": "month"}, "grain", "hour, day, week"),
        ({"group_by": "sku"}, "group_by", "currency, country, region"),
        ({"group_by": "everything"}, "group_by", "currency, country, region"),
        ({"group_by": "customer_id; DROP TABLE oms.orders"}, "group_by", "currency, country, region"),
        ({"tz": "Middle/Earth"}, "tz", "Europe/Berlin"),
        ({"tz": "localtime"}, "tz", "Europe/Berlin"),
        ({"from": "yesterday"}, "from", "2026-03-29"),
        ({"from": "2026-03-02", "to": "2026-03-02"}, "to", "after `from`"),
        ({"since": "2026-03-02"}, "since", "from, to, grain, group_by, tz"),
    ],
)
def test_what_can_not_be_asked(params: dict[str, str], field: str, possible: str) -> None:
    with pytest.raises(kpis.BadParameter) as refused:
        kpis.asked(kpis.load()["completion"], params)
    assert refused.value.field == field
    assert possible in refused.value.detail


def test_times_beyond_what_can_be_counted_are_its_ends() -> None:
    asked = kpis.asked(kpis.load()["completion"], {"from": "0001-01-01", "to": "9999-12-31", "tz": "Asia/Tokyo"})
    assert (asked.since, asked.until) == (kpis.EARLIEST, kpis.LATEST)
