"""What `oms bench --mode reads` asks is answered, and shown."""

from __future__ import annotations

import asyncio

import pytest
from rich.console import Console

from analytics import kpis
from analytics.clickhouse import connect
from sandbox import bench_reads as reads
from sandbox.client import session
from sandbox.shop_cli import ensure_catalogue
from tests.gateway.conftest import Shop
from tests.gateway.test_http_reads import listed, seen
from tests.support.processes import until

pytestmark = pytest.mark.stack


def test_every_question_is_answered_and_has_a_line(shop: Shop) -> None:
    sku = shop.product()
    orders = [shop.draft(sku) for _ in range(3)]
    for order in orders:
        seen(shop, order)
    listed(shop, *orders)
    archive = reads.Archive(
        orders=[(order["id"], order["number"], shop.customer) for order in orders],
        parcels=["TRK-1"],
        skus=[sku],
        cursors=[{}],
    )
    size = asyncio.run(asked(shop, archive))
    assert not [failure for question in size.questions for failure in question.failures]
    assert all(measured["count"] >= 1 for question in size.questions for measured in question.times.values())
    console = Console(width=200, record=True)
    console.print(reads.table([size]))
    shown = console.export_text()
    assert all(question.name in shown for question in size.questions)


def test_orders_come_in_while_it_asks_again(shop: Shop) -> None:
    async def shelves_are_full() -> None:
        async with session() as http:
            await ensure_catalogue(http, shop.stack.url, shop.stack.settings)

    asyncio.run(shelves_are_full())
    with connect(shop.stack.settings) as clickhouse:

        def there() -> int:
            return int(clickhouse.query("SELECT uniqExact(order_id) FROM oms.orders").result_rows[0][0])

        with reads.written(shop.stack.data_dir, shop.stack.url, clickhouse):
            before = there()
            until(lambda: there() > before + 20, "20 more orders have come in")


async def asked(shop: Shop, archive: reads.Archive) -> reads.Size:
    size = reads.Size(3, 0.0)
    async with session() as http:
        reader = reads.Reader(http, shop.stack.url, shop.stack.settings, seconds=0.05)
        of_kpis = [question for name in kpis.load() for question in reads.kpi_questions(name)]
        for question in (*reads.QUESTIONS, *of_kpis):
            into = reads.Measured(question.name, question.target)
            size.questions.append(into)
            for at_once in (1,) if question in of_kpis else (1, reads.AT_ONCE):
                await reader.measure(question, archive, at_once, into, f"{at_once}")
    return size
