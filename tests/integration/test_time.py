"""Deadlines on the real timing wheel: an order has seconds to be paid here, not minutes."""

from __future__ import annotations

import httpx

from schemas.operations import ExceptionOpened, ExceptionResolved
from tests.support.books import assert_balanced
from tests.support.stack import Stack


def exceptions(stack: Stack, order_id: str) -> list[str]:
    found = [r.message.data for r in stack.read("exceptions") if r.message and r.message.order_id == order_id]
    return [
        x.kind if isinstance(x, ExceptionOpened) else x.resolution
        for x in found
        if isinstance(x, ExceptionOpened | ExceptionResolved)
    ]


def settle(stack: Stack, order_id: str, status: str) -> None:
    """Tell the sandbox provider how a charge ended that it never answered."""
    (charge,) = [entry for entry in stack.ledger() if entry["reference"] == order_id]
    url = f"{stack.settings.payment_url}/sandbox/charges/{charge['key']}/settle"
    assert httpx.post(url, json={"status": status}, timeout=10).status_code == 200


def test_no_answer_from_the_provider(impatient_stack: Stack) -> None:
    """The order ends at its timeout, stock comes back, a person is told, the provider is asked on; money that turns
    out to have moved goes back by itself. kill -9 of the timers in between changes nothing."""
    stack = impatient_stack
    mug = stack.product(stock=10)
    captured, declined = (stack.place((mug, 2), token="pm_sandbox_timeout")["id"] for _ in range(2))
    dead = stack.kill("timers")
    for order_id in (captured, declined):
        ended = stack.settled(order_id)
        assert ended["cancellation"]["reason"] == "payment_timeout"
    stack.back("timers", dead)
    for order_id in (captured, declined):
        stack.until(lambda o=order_id: exceptions(stack, o) == ["payment_unknown"], "a person is told", 15)  # type: ignore[misc]
    settle(stack, captured, "captured")
    settle(stack, declined, "declined")
    stack.until(lambda: exceptions(stack, captured) == ["payment_unknown", "captured"], "the capture is found")
    stack.until(lambda: exceptions(stack, declined) == ["payment_unknown", "declined"], "the decline is found")

    def refunded() -> bool:
        return [r["status"] for r in stack.order(captured)["refunds"]] == ["completed"]

    stack.until(refunded, "the money is back")
    assert stack.order(captured)["status"] == "CANCELLED"
    assert stack.order(declined)["refunds"] == []
    assert_balanced(stack)


def test_an_order_that_nobody_pays_is_cancelled_at_its_time(impatient_stack: Stack) -> None:
    """The payment worker is frozen beyond the deadline: then it only asks, and nothing is charged."""
    stack = impatient_stack
    mug = stack.product(stock=10)
    with stack.frozen("payment"):
        order_id = stack.place((mug, 2))["id"]
        ended = stack.settled(order_id)
    assert ended["cancellation"]["reason"] == "payment_timeout"
    stack.until(
        lambda: any(r.message.order_id == order_id for r in stack.read("payment.results") if r.message is not None),
        "the worker has a result",
    )
    assert [entry for entry in stack.ledger() if entry["reference"] == order_id] == []
    assert_balanced(stack)
