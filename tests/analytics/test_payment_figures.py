"""What is counted of payments when an order has several: asked afresh after a hold, captured late, renewed."""

from __future__ import annotations

from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from analytics import kpis
from analytics.clickhouse import connect
from gateway import times
from gateway.queries import sql
from runtime.settings import Settings
from schemas import events as e
from tests.support.examples import T0, at
from tests.support.histories import History
from tests.support.kpi_fold import Fold, by_key
from tests.support.view_tables import fill_histories

HOUR = 3_600


def histories() -> list[History]:
    held = e.OrderHeld(kind="fraud", reason="velocity")
    late = e.OrderRefundInitiated(
        refund_id="r", attempt_id="a-1", amount=1000, reason="paid_in_vain", captured_late="ch_1"
    )
    renewal: dict[str, Any] = {"attempt_id": "b-2", "amount": 1000, "purpose": "renewal"}
    asked = e.OrderPaymentRequested(
        **renewal, attempt=1, currency="EUR", payment_token="t", due_at=at(9000), valid_until=at(9000)
    )
    return [
        # Released from a hold and asked afresh; the first attempt is captured all the same, and given back.
        History("a").created(0).submitted(10).payment_requested(10).happens(20, held)
        .happens(100, e.OrderReleased(kind="fraud")).payment_requested(100, 2).paid(103, 2).happens(160, late),
        # Its authorization is renewed after an hour.
        History("b").created(5).submitted(10).payment_requested(10).paid(12).happens(HOUR, asked)
        .happens(HOUR + 5, e.OrderPaymentConfirmed(**renewal, provider_ref="ch_2", authorized=True)),
    ]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def filled(settings: Settings) -> None:
    with connect(settings) as client:
        fill_histories(client, histories())


def test_asking_afresh_is_no_retry(client: Client) -> None:
    (row,) = kpis.run(client, "payment_retries")
    assert (row["orders"], row["attempts"], row["paid_at_once"], row["retried"]) == (2, 2, 2, 0)


def test_an_attempt_is_accepted_when_the_provider_says_so(client: Client) -> None:
    (row,) = kpis.run(client, "payment_acceptance")
    # 2 (b), 3 (a, the second), 5 (the renewal) and 150 seconds (a, the first)
    assert (row["attempts"], row["accepted"]) == (4, 4)
    assert (row["p50"], row["p95"]) == (4.0, pytest.approx(128.25))
    (late,) = kpis.run(client, "payment_acceptance", {"from": at(150), "to": at(170)})
    assert (late["attempts"], late["p50"]) == (1, 150.0)


@pytest.mark.parametrize("name", ["payment_retries", "payment_acceptance"])
def test_the_fold_comes_to_the_same(client: Client, name: str) -> None:
    fold = Fold([history.order for history in histories()], [], at(2 * HOUR))
    assert by_key(name, kpis.run(client, name)) == by_key(name, fold.rows(name))


def test_an_order_is_paid_in_one_minute_only(client: Client) -> None:
    period = {"from_us": times.micros(T0), "to_us": times.micros(at(2 * HOUR))}
    found = client.query(sql("orders_a_minute"), parameters=period)
    assert len(found.result_rows) == 120, "quiet minutes, too"
    minutes = {(row[0] - T0.timestamp()) / 60: row[1:] for row in found.result_rows if any(row[1:])}
    assert minutes == {0: (2, 1, 0), 1: (0, 1, 0)}
