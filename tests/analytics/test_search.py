"""Searching orders on the real engine, whose tables hold older versions too: every page against plain Python."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from analytics.clickhouse import connect
from gateway.problems import Problem
from gateway.queries import Views, sql
from gateway.search import OrderSearch, search
from runtime.settings import Settings
from schemas import events as e
from schemas.order import Order, ShipmentLine, Totals
from tests.support.examples import T0, address, at
from tests.support.histories import History, one_line
from tests.support.view_tables import fill, fill_histories

PAGE = 31
CURRENCIES = ("EUR", "JPY")
COUNTRIES = ("DE", "FR", "GB")


def life(number: int, dice: random.Random) -> History:
    """An order whose total, status and time of change differ from version to version."""
    story = History(f"s{number}", f"c{number % 9}", dice.choice(CURRENCIES), dice.randint(1, 60) * 100)
    start = number // 2 * 10.0  # two of each time
    story.created(start, address(dice.choice(COUNTRIES)), promo_codes=("TEN",) if number % 5 == 0 else ())
    for step in range(dice.randint(0, 3)):
        lines = one_line(dice.choice(("MUG", "LAMP")), price=dice.randint(1, 60) * 100)
        totals = Totals(subtotal=lines[0].line_total, total=lines[0].line_total)
        story.happens(
            start + dice.randint(1, 900) + step * 1_000,
            e.OrderLineItemQuantityChanged(
                line_id="L1", sku=lines[0].sku, before=1, quantity=1, lines=lines, totals=totals
            ),
        )
    if dice.random() < 0.6:
        story.submitted(start + 5_000)
        story.happens(start + 5_001, e.OrderPaymentRequested(**payment(story)))
        if number % 3:
            story.happens(start + 5_002, e.OrderHeld(kind=("fraud", "staff")[number % 2], reason="a look"))
        if number % 5 == 0 and story.order.hold:
            story.happens(start + 5_003, e.OrderReleased(kind=story.order.hold.kind))
    if dice.random() < 0.3:
        story.cancelled(start + 6_000, "changed_mind")
    elif dice.random() < 0.3:
        parcel = (ShipmentLine(line_id="L1", sku=story.order.lines[0].sku, quantity=1),)
        story.happens(start + 6_000, e.OrderShipmentPlanned(shipment_id="S1", lines=parcel))
        sent = {"carrier": "c", "tracking_number": f"TN{number}", "tracking_url": "https://t.example"}
        story.happens(start + 6_001, e.OrderShipmentDispatched(shipment_id="S1", lines=parcel, **sent))
    return story


def payment(story: History) -> dict[str, Any]:
    due = {"due_at": at(9e5), "valid_until": at(9e5), "payment_token": "pm_card_visa"}
    return {"attempt_id": "a", "attempt": 1, "amount": story.total, "currency": story.currency, **due}


@pytest.fixture(scope="module")
def orders(settings: Settings) -> list[Order]:
    """What is there, at its newest versions."""
    dice = random.Random(5)
    stories = [life(number, dice) for number in range(200)]
    with connect(settings) as client:
        for table in ("order_summaries", "customer_orders", "shipments"):
            client.command(f"SYSTEM STOP MERGES oms.{table}")  # which would take the older versions away
        # Version by version: of the rows in one insert the engine keeps the newest only.
        for n in range(max(len(story.states) for story in stories)):
            fill(client, "order.states", (story.states[n] for story in stories if n < len(story.states)))
        rows = client.query("SELECT count(), uniq(order_id) FROM oms.order_summaries").result_rows
        assert rows[0][0] > rows[0][1] == 200
    return [story.order for story in stories]


@asynccontextmanager
async def views(settings: Settings) -> AsyncIterator[Views]:
    found = Views(settings)
    try:
        yield found
    finally:
        await found.close()


def every_page(settings: Settings, between: Callable[[], None] = lambda: None, **query: Any) -> list[str]:
    async def read() -> list[str]:
        ids: list[str] = []
        cursor = None
        async with views(settings) as asked:
            while True:
                found = await search(asked.rows, OrderSearch(**query, cursor=cursor, limit=PAGE), "/v1/orders")
                assert len(found.order_ids) <= PAGE
                assert len(found.order_ids) == PAGE or found.following is None, "only the last page is short"
                ids += found.order_ids
                if found.following is None:
                    return ids
                cursor = found.following
                between()

    return asyncio.run(read())


def total_of(settings: Settings, **query: Any) -> int | None:
    async def read() -> int | None:
        async with views(settings) as asked:
            return (await search(asked.rows, OrderSearch(**query, count=True), "/v1/orders")).total

    return asyncio.run(read())


def after(hours: float) -> str:
    return (T0 + timedelta(hours=hours)).isoformat()


FILTERS: dict[str, tuple[dict[str, Any], Callable[[Order], bool]]] = {
    "everything": ({}, lambda order: True),
    "status": ({"status": ["DRAFT", "CANCELLED"]}, lambda order: order.status in ("DRAFT", "CANCELLED")),
    "rare": ({"status": ["DELIVERED"]}, lambda order: order.status == "DELIVERED"),
    "sku": ({"sku": "LAMP"}, lambda order: any(line.sku == "LAMP" for line in order.lines)),
    "product": ({"product": "a MU"}, lambda order: any("mug" in line.name for line in order.lines)),
    "held for a review": ({"hold": "fraud"}, lambda order: order.hold is not None and order.hold.kind == "fraud"),
    "held by staff": ({"hold": "staff"}, lambda order: order.hold is not None and order.hold.kind == "staff"),
    "held": ({"hold": "any"}, lambda order: order.hold is not None),
    "a customer's that are held": (
        {"customer_id": "c4", "hold": "any"},
        lambda order: order.customer_id == "c4" and order.hold is not None,
    ),
    "country": ({"country": "FR"}, lambda order: order.shipping_address.country == "FR"),  # type: ignore[union-attr]
    "currency": ({"currency": "JPY"}, lambda order: order.currency == "JPY"),
    "amount": (
        {"currency": "EUR", "total_min": "20.00", "total_max": "40"},
        lambda order: order.currency == "EUR" and 2000 <= order.totals.total <= 4000,
    ),
    "yen have no cents": (
        {"currency": "JPY", "total_min": "3000"},
        lambda order: order.currency == "JPY" and order.totals.total >= 3000,
    ),
    "created": (
        {"created_from": after(0.05), "created_to": after(0.2)},
        lambda order: T0 + timedelta(hours=0.05) <= order.created_at < T0 + timedelta(hours=0.2),
    ),
    "updated": ({"updated_from": after(1.5)}, lambda order: order.updated_at >= T0 + timedelta(hours=1.5)),
    "submitted": (
        {"submitted_to": after(1.5)},
        lambda order: order.submitted_at is not None and order.submitted_at < T0 + timedelta(hours=1.5),
    ),
    "customer": ({"customer_id": "c3"}, lambda order: order.customer_id == "c3"),
    "promotion": ({"promo_code": "TEN"}, lambda order: order.promo_codes == ("TEN",)),
    "a customer's promotion": (
        {"customer_id": "c3", "promo_code": "TEN"},
        lambda order: order.customer_id == "c3" and order.promo_codes == ("TEN",),
    ),
    "a customer's sku": (
        {"customer_id": "c3", "sku": "LAMP"},
        lambda order: order.customer_id == "c3" and any(line.sku == "LAMP" for line in order.lines),
    ),
    "several": (
        {"customer_id": "c3", "status": ["DRAFT"], "currency": "EUR"},
        lambda order: (order.customer_id, order.status, order.currency) == ("c3", "DRAFT", "EUR"),
    ),
}
KEYS: dict[str, Callable[[Order], Any]] = {
    "created_at": lambda order: (order.created_at, order.order_id),
    "updated_at": lambda order: (order.updated_at, order.order_id),
    "total": lambda order: (order.totals.total, order.order_id),
}


@pytest.mark.parametrize("sort", ["-created_at", "created_at", "-updated_at", "updated_at", "-total", "total"])
@pytest.mark.parametrize("name", FILTERS)
def test_every_page_is_what_python_says(settings: Settings, orders: list[Order], name: str, sort: str) -> None:
    query, matches = FILTERS[name]
    if sort.endswith("total"):  # of one currency
        query = {"currency": "EUR", **query}
        orders = [order for order in orders if order.currency == query["currency"]]
    expected = sorted(filter(matches, orders), key=KEYS[sort.removeprefix("-")], reverse=sort.startswith("-"))
    assert every_page(settings, sort=sort, **query) == [order.order_id for order in expected]


@pytest.mark.parametrize("name", FILTERS)
def test_a_count_is_exact(settings: Settings, orders: list[Order], name: str) -> None:
    query, matches = FILTERS[name]
    assert total_of(settings, **query) == sum(map(matches, orders))


def test_every_filter_finds_some_and_leaves_some(orders: list[Order]) -> None:
    """Else a comparison of pages would say nothing; two are about all and about none."""
    for name, (_, matches) in FILTERS.items():
        found = sum(map(matches, orders))
        assert name in ("everything", "rare") or 0 < found < len(orders), name


def test_one_order_is_found_by_id_number_and_parcel(settings: Settings, orders: list[Order]) -> None:
    sent = next(order for order in orders if order.shipments)
    others = [order for order in orders if order.shipments][1:3]
    assert every_page(settings, number=sent.number) == [sent.order_id]
    assert every_page(settings, tracking_number=sent.shipments[0].tracking_number) == [sent.order_id]
    assert every_page(settings, tracking_number="nobody's") == []
    assert set(every_page(settings, id=[order.order_id for order in others])) == {order.order_id for order in others}
    tracking = sent.shipments[0].tracking_number
    assert every_page(settings, customer_id=sent.customer_id, tracking_number=tracking) == [sent.order_id]
    assert every_page(settings, customer_id=f"not {sent.customer_id}", tracking_number=tracking) == []
    assert every_page(settings, id=[others[0].order_id], tracking_number=tracking) == []


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ({"id": ["0b8e7a52-2f0e-4d5c-9d0b-0e5f5c1b7a10"]}, "by_order_id"),
        ({"number": "X"}, "by_number"),
        ({"sku": "X"}, "by_sku"),
        ({"promo_code": "X"}, "by_promo_code"),
        ({"tracking_number": "X"}, "by_tracking_number"),
    ],
)
def test_what_finds_few_orders_is_found_by_an_index(client: Client, query: dict[str, Any], index: str) -> None:
    parameters = OrderSearch(**query).parameters()
    plan = client.query(f"EXPLAIN indexes = 1 {sql('orders_count', frozenset(parameters))}", parameters).result_rows
    assert f"Name: {index}" in [line.strip() for (line,) in plan]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"total_min": "5"}, "currency"),
        ({"sort": "total"}, "currency"),
        ({"sort": "-total"}, "currency"),
        ({"currency": "EUR", "total_min": "1", "total_max": "0.50"}, "total_max"),
        ({"currency": "CLF", "total_min": "999999999999999"}, "total_min"),
        ({"created_from": after(1), "created_to": after(1)}, "created_to"),
        ({"submitted_from": after(2), "submitted_to": after(1)}, "submitted_to"),
        ({"updated_from": after(2), "updated_to": after(1)}, "updated_to"),
        ({"currency": "JPY", "total_max": "5.5"}, "total_max"),
        ({"id": ["0b8e7a52-2f0e-4d5c-9d0b-0e5f5c1b7a10", "x"]}, "id[1]"),
    ],
)
def test_what_makes_no_sense_names_its_parameter(query: dict[str, Any], field: str) -> None:
    with pytest.raises(Problem) as caught:
        OrderSearch(**query).parameters()
    assert [named for named, _ in caught.value.errors] == [field]


def test_orders_that_come_and_change_meanwhile_neither_shift_nor_repeat_the_others(
    settings: Settings, orders: list[Order], client: Client
) -> None:
    """By created_at nothing moves. (By what changes an order may be met twice or not at all: when it itself moved.)"""
    dice = random.Random(6)
    numbers = iter(range(1_000, 2_000))

    def something_happens() -> None:
        story = life(next(numbers), dice)  # younger than all
        fill_histories(client, [story])

    before = sorted(orders, key=KEYS["created_at"], reverse=True)
    assert every_page(settings, something_happens) == [order.order_id for order in before]
