"""Every KPI on a small history, reckoned by hand, in the real engine."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client
from prometheus_client import CollectorRegistry, generate_latest

from analytics import kpis
from analytics.clickhouse import connect
from gateway.business_metrics import BusinessMetrics, parameters
from gateway.queries import sql
from runtime.settings import Settings
from schemas.base import Message
from schemas.order import AppliedPromotion
from tests.support.examples import T0, address, at, counted, terms
from tests.support.histories import History
from tests.support.view_tables import fill, fill_histories

HOUR, DAY = 3_600, 86_400
NOW = at(10 * DAY)
LONG_AGO = (datetime.fromisoformat("2024-07-01T12:00:00Z") - T0).total_seconds()


def histories() -> list[History]:
    spring, post = (AppliedPromotion(terms=terms(code), amount=100) for code in ("SPRING", "POST"))
    past = LONG_AGO
    return [
        # Everything as it should be.
        History("a", "1", "EUR", 1000).created(0, address()).submitted(60, "2026-03-04", (spring, post), off=100)
        .payment_requested(60).paid(70).processing(100).shipped(HOUR).delivered(2 * DAY).answered(3 * DAY, 5),
        # In dollars, to California: declined once, late, and sent back.
        History("b", "2", "USD", 2000).created(0, address("US", "CA")).submitted(HOUR, "2026-03-05", (spring,))
        .payment_requested(HOUR).declined(HOUR + 20).payment_requested(HOUR + 60, 2).paid(HOUR + 100, 2)
        .processing(HOUR + 1000).shipped(DAY).delivered(4 * DAY + HOUR).answered(5 * DAY, 2)
        .return_requested(5 * DAY, "defective").return_inspected(6 * DAY, 2000)
        .refund_initiated(6 * DAY, 2000, "return").refund_completed(6 * DAY + 10),
        # Never submitted; submitted too late, and cancelled; may still be submitted.
        History("c", "3", "JPY", 1500).created(0),
        History("d", "1", "EUR", 700).created(0).submitted(30 * HOUR).payment_requested(30 * HOUR).paid(30 * HOUR + 10)
        .cancelled(31 * HOUR, "out_of_stock"),
        History("e", "1", "EUR", 500).created(10 * DAY - HOUR),
        # Does not move any more.
        History("f", "2", "EUR", 900).created(DAY, address()).submitted(DAY + 10).payment_requested(DAY + 10)
        .paid(DAY + 13).processing(DAY + 100).stuck(9 * DAY),
        # Twice in the same status: a return that was denied, and one that was worth nothing.
        History("g", "3", "EUR", 1200).created(DAY, address()).submitted(DAY + 10, "2026-03-05")
        .payment_requested(DAY + 10).paid(DAY + 20).processing(DAY + HOUR).shipped(2 * DAY).delivered(2 * DAY + HOUR)
        .return_requested(3 * DAY, "changed_mind").return_denied(3 * DAY + HOUR)
        .return_requested(4 * DAY, "changed_mind").return_inspected(4 * DAY + 3 * HOUR, 0),
        # From another system: it counts when it happened, and not when it was brought in.
        History("h", "9", "EUR", 3000).created(past).submitted(past + 10).payment_requested(past + 10).paid(past + 20)
        .processing(past + HOUR).shipped(past + DAY).delivered(past + 2 * DAY)
        .refund_initiated(past + 3 * DAY, 500, "goodwill").refund_completed(past + 3 * DAY + HOUR).imported(0),
    ]  # fmt: skip


def moved(sku: str, version: int, seconds: float, quantity: int, on_hand: int) -> Message[Any]:
    data = counted(sku, version, quantity, on_hand)
    return Message(id=f"{sku}/{version}", at=at(seconds), actor="staff:bo", correlation_id="c", data=data)


MOVEMENTS = [
    moved("MUG", 1, 0, 2, 2), moved("MUG", 2, 10, -1, 1), moved("MUG", 3, 20, -1, 0), moved("MUG", 4, HOUR + 20, 5, 5),
    moved("LAMP", 1, 0, 1, 1), moved("LAMP", 2, 100, -1, 0), moved("LAMP", 3, 200, 0, 0),
    moved("PEN", 1, 0, 0, 0),  # never had any
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def filled(settings: Settings) -> None:
    with connect(settings) as client:
        fill_histories(client, histories())
        fill(client, "inventory.events", MOVEMENTS)


def eur(amount: str) -> dict[str, str]:
    return {"amount": amount, "currency": "EUR"}


def usd(amount: str) -> dict[str, str]:
    return {"amount": amount, "currency": "USD"}


EXPECTED: dict[str, list[tuple[Any, ...]]] = {
    # submitted: all but c and e; delivered: a, b, g, h
    "completion": [(6, 6, 4, 1, 1, 1.0, 4 / 6)],
    # a 172,740, b 345,600 (four days), g 89,990, h 172,790
    "processing_time": [(4, 195_280.0, 172_765.0, 319_678.5, 0.75)],
    "satisfaction": [(4, 2, 3.5, 0.5, 0.5)],
    # c and d of the seven that are no longer undecided
    "cart_abandonment": [(8, 5, 2, 7, 1, 2 / 7)],
    "return_rate": [(4, 2, 3, 4, 2, 0.5, 0.5)],
    "orders_created": [(8, 4)],
    "average_order_value": [
        ("EUR", 5, eur("68.00"), eur("13.60"), eur("10.00")),
        ("USD", 1, usd("20.00"), usd("20.00"), usd("20.00")),
    ],
    "revenue": [
        ("EUR", 5, eur("68.00"), eur("5.00"), eur("63.00")),
        ("USD", 1, usd("20.00"), usd("20.00"), usd("0.00")),
    ],
    "units_per_order": [(6, 6, 1.0, 1.0)],
    "cancellations_by_reason": [("out_of_stock", 1, 1, 1.0)],
    "returns_by_reason": [("changed_mind", 2, 2, 0, 2 / 3), ("defective", 1, 1, 0, 1 / 3)],
    "refunds_by_reason": [
        ("EUR", "goodwill", 1, eur("5.00"), 3600.0),
        ("USD", "return", 1, usd("20.00"), 10.0),
    ],
    # 3, 10 (four times), 20, 40 seconds
    "payment_acceptance": [(7, 6, 1, 6 / 7, 10.0, 34.0)],
    "payment_retries": [(6, 7, 5, 1, 1, 0, 5 / 6, 1.0, 7 / 6)],
    # h was promised nothing
    "on_time_delivery": [(3, 2, 1, 2 / 3, 1.0)],
    # an hour of MUG, and LAMP until now
    "stock_outs": [(2, 2, 433_750.0, 863_900.0)],
    "stuck_orders": [("PROCESSING", 1, 777_500.0)],
    # not the drafts
    "active_orders": [("PROCESSING", 1)],
    "funnel": [
        ("created", 8, 1.0, 1.0),
        ("submitted", 6, 0.75, 0.75),
        ("paid", 6, 0.75, 1.0),
        ("processing", 5, 0.625, 5 / 6),
        ("shipped", 4, 0.5, 0.8),
        ("delivered", 4, 0.5, 1.0),
    ],
    "time_in_status": [
        ("DRAFT", 6, 18_615.0, 35.0, 81_900.0),
        ("PENDING_PAYMENT", 6, 143 / 6, 10.0, 77.5),
        ("PAYMENT_CONFIRMED", 6, 11_767 / 6, 2_240.0, 3_587.5),
        ("PROCESSING", 4, 62_725.0, 82_300.0, 82_800.0),
        ("SHIPPED", 4, 130_500.0, 127_800.0, 248_760.0),
        # a, g and h are in it
        ("DELIVERED", 1, 82_800.0, 82_800.0, 82_800.0),
        # b 86,410; g one hour and three; h an hour
        ("REFUND_REQUESTED", 3, 104_410 / 3, 14_400.0, 79_209.0),
    ],
    "saga_durations": [
        ("placement", 6, 143 / 6, 10.0, 77.5),
        ("shipping", 4, 64_747.5, 84_540.0, 86_380.0),
        ("delivery", 4, 195_247.5, 172_755.0, 319_592.0),
        ("return", 2, 48_605.0, 48_605.0, 82_629.5),
    ],
    "discounts": [
        ("EUR", 5, 1, 0.2, eur("69.00"), eur("1.00"), 1 / 69),
        ("USD", 1, 1, 1.0, usd("20.00"), usd("0.00"), 0.0),
    ],
    "promotion_use": [
        ("POST", "EUR", 1, 1, eur("10.00"), eur("1.00")),
        ("SPRING", "EUR", 1, 1, eur("10.00"), eur("1.00")),
        ("SPRING", "USD", 1, 1, usd("20.00"), usd("0.00")),
    ],
    "product_sales": [
        ("EUR", 5, 5, 1, 1, eur("68.00")),
        ("USD", 1, 1, 0, 1, usd("20.00")),
    ],
}  # fmt: skip


def expected(name: str) -> list[dict[str, Any]]:
    columns = kpis.load()[name].columns
    return [
        {c: pytest.approx(v) if isinstance(v, float) else v for c, v in zip(columns, row, strict=True)}
        for row in EXPECTED[name]
    ]


@pytest.mark.parametrize("name", kpis.ORDER)
def test_all_time(client: Client, name: str) -> None:
    assert kpis.run(client, name, {"now": NOW}) == expected(name)


def test_a_replay_changes_nothing(client: Client) -> None:
    """Old rows after new ones, and the new ones again."""
    fill(client, "order.states", (state for history in histories() for state in reversed(history.states)))
    fill(client, "inventory.events", MOVEMENTS[::-1])
    for name in kpis.ORDER:
        assert kpis.run(client, name, {"now": NOW}) == expected(name), name


def test_where_there_is_nothing_there_is_no_number(client: Client) -> None:
    for name, kpi in kpis.load().items():
        rows = kpis.run(client, name, {"to": "2000-01-01", "now": NOW})
        if kpi.keys:
            assert rows == [], name
        else:
            assert rows == [{c: 0 if unit == "count" else None for c, unit in kpi.columns.items()}], name
    assert kpis.run(client, "completion", {"to": "2000-01-01", "grain": "day"}) == []
    # Delivered, and nobody has answered.
    (row,) = kpis.run(client, "satisfaction", {"to": "2025-01-01"})
    assert (row["delivered"], row["answers"], row["score"], row["unhappy_rate"]) == (1, 0, None, None)


def test_an_imported_refund_counts_when_it_was_made(client: Client) -> None:
    rows = kpis.run(client, "refunds_by_reason", {"grain": "day", "from": "2024-01-01", "to": "2025-01-01"})
    assert [(row["at"], row["refunded"]) for row in rows] == [("2024-07-04T00:00:00+00:00", eur("5.00"))]


def test_the_promised_day_is_one_of_the_time_zone(client: Client) -> None:
    """10:00 in London is midnight in Kiritimati: a day late."""
    (row,) = kpis.run(client, "on_time_delivery", {"tz": "Pacific/Kiritimati"})
    assert (row["on_time"], row["late"], row["mean_days_late"]) == (1, 2, 1.5)


def test_groups(client: Client) -> None:
    rows = kpis.run(client, "orders_created", {"group_by": "region"})
    assert [(row["region"], row["orders"]) for row in rows] == [("", 4), ("DE", 3), ("US-CA", 1)]
    rows = kpis.run(client, "payment_acceptance", {"group_by": "code"})
    assert [(row["code"], row["attempts"], row["acceptance_rate"]) for row in rows] == [
        ("", 6, 1.0),
        ("card_declined", 1, 0.0),
    ]
    rows = kpis.run(client, "stock_outs", {"group_by": "sku", "now": NOW})
    assert [(row["sku"], row["longest"]) for row in rows] == [("LAMP", 863_900.0), ("MUG", 3600.0)]
    # A share is one of the group.
    rows = kpis.run(client, "returns_by_reason", {"group_by": "currency"})
    assert [(row["currency"], row["reason"], row["share"]) for row in rows] == [
        ("EUR", "changed_mind", 1.0),
        ("USD", "defective", 1.0),
    ]


def test_business_metrics(client: Client) -> None:
    found = client.query(sql("business_metrics"), parameters=parameters())
    metrics, registry = BusinessMetrics(), CollectorRegistry()
    metrics.take([dict(zip(found.column_names, row, strict=True)) for row in found.result_rows])
    registry.register(metrics)
    lines = generate_latest(registry).decode().splitlines()
    for line in (
        "orders_created_total 8.0",
        "orders_completed_total 4.0",
        'orders_cancelled_total{reason="out_of_stock"} 1.0',
        'active_orders{status="PENDING_PAYMENT"} 0.0',
        'active_orders{status="PROCESSING"} 1.0',
        'order_processing_duration_bucket{le="86400"} 0.0',
        'order_processing_duration_bucket{le="172800"} 3.0',
        'order_processing_duration_bucket{le="345600"} 4.0',
        "order_processing_duration_count 4.0",
        "order_processing_duration_sum 781120.0",
        'order_value_bucket{currency="EUR",le="10"} 3.0',
        'order_value_bucket{currency="EUR",le="20"} 4.0',
        'order_value_bucket{currency="EUR",le="+Inf"} 5.0',
        'order_value_sum{currency="EUR"} 68.0',
        'order_value_count{currency="USD"} 1.0',
    ):
        assert line in lines, (line, lines)
    assert not [line for line in lines if 'currency="JPY"' in line], "a draft has no value yet"
    active = dict(re.findall(r'active_orders\{status="(\w+)"\} (\d+)', "\n".join(lines)))
    kpi = {row["status"]: row["orders"] for row in kpis.run(client, "active_orders")}
    assert {status: int(orders) for status, orders in active.items() if orders != "0"} == kpi
