"""An order's whole way through a real stack, by the sandbox's warehouse and carrier."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from uuid import uuid4

import httpx
import pytest

from runtime.stack import read_report
from tests.support.stack import Stack

pytestmark = pytest.mark.stack

WITHIN = 15.0
"""Seconds from paid to delivered, with the shipped policy and the stack's time scale."""


def somebody() -> str:
    """A customer of one order: many orders of one customer are fraud."""
    return f"c-{uuid4().hex[:12]}"


def test_a_paid_order_is_delivered_within_15_seconds(lively_stack: Stack) -> None:
    stack = lively_stack
    order = stack.place((stack.product(stock=5), 2), customer=somebody())
    stack.settled(order["id"])
    paid = time.monotonic()
    stack.until(lambda: stack.order(order["id"])["status"] == "DELIVERED", "it is delivered")
    took = time.monotonic() - paid
    (shipment,) = stack.order(order["id"])["shipments"]
    assert shipment["status"] == "delivered"
    page = httpx.get(shipment["tracking_url"], timeout=10)
    assert page.status_code == 200
    assert shipment["tracking_number"] in page.text
    assert took < WITHIN


def test_partners_and_worker_that_are_killed_deliver_each_order_once(lively_stack: Stack) -> None:
    stack = lively_stack
    sku = stack.product(stock=10)
    orders = [stack.place((sku, 1), customer=somebody())["id"] for _ in range(5)]
    stack.until(lambda: any(stack.order(one).get("status") == "SHIPPED" for one in orders), "a parcel is under way")
    report = read_report(stack.data_dir)
    assert report is not None
    os.kill(report.children["logistics-partners-0"]["pid"], signal.SIGKILL)
    stack.back("logistics", stack.kill("logistics"))
    stack.until(lambda: all(stack.order(one).get("status") == "DELIVERED" for one in orders), "all are delivered")
    happened = Counter(
        (record.message.order_id, type(record.message.data).__name__)
        for record in stack.read("order.events")
        if record.message is not None
    )
    for name in ("OrderShipmentDispatched", "OrderShipmentDelivered", "OrderDelivered"):
        assert [happened[one, name] for one in orders] == [1] * 5
