"""Placing an order over HTTP, on the real broker, engine and payment provider."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

from tests.support.books import assert_balanced
from tests.support.stack import Stack, cart


def test_an_order_is_placed_and_paid(stack: Stack) -> None:
    mug = stack.product(stock=10)
    placed = stack.place((mug, 3))
    assert placed["status"] == "PENDING_PAYMENT"
    paid = stack.settled(placed["id"])
    assert paid["status"] == "PAYMENT_CONFIRMED"
    # 3 × 10.00 net + 19 % + standard shipping of one started kilogram
    assert paid["total"] == {"amount": "42.72", "currency": "EUR"}
    (charge,) = [entry for entry in stack.ledger() if entry["reference"] == placed["id"]]
    assert (charge["amount"], charge["currency"], charge["status"]) == (4272, "EUR", "captured")
    timeline = stack.call("GET", f"/v1/orders/{placed['id']}/events").json()["items"]
    assert [event["type"] for event in timeline] == [
        "OrderCreated",
        "OrderSubmitted",
        "OrderPaymentRequested",
        "OrderPaymentConfirmed",
    ]
    assert [event["version"] for event in timeline] == [1, 2, 3, 4]
    assert [event["actor"] for event in timeline] == ["customer:42"] * 3 + ["system:placement"]
    assert len({event["correlation_id"] for event in timeline}) == 1


def test_a_declined_payment_cancels_and_gives_the_stock_back(stack: Stack) -> None:
    mug = stack.product(stock=10)
    found = stack.settled(stack.place((mug, 3), token="pm_card_chargeDeclined")["id"])
    assert (found["status"], found["cancellation"]["reason"]) == ("CANCELLED", "payment_declined")
    stack.until(lambda: available(stack, mug) == 10, "the stock is back")


def test_a_flaky_provider_charges_once(stack: Stack) -> None:
    mug = stack.product(stock=10)
    found = stack.settled(stack.place((mug, 1), token="pm_sandbox_flaky")["id"])
    assert found["status"] == "PAYMENT_CONFIRMED"
    charges = [entry for entry in stack.ledger() if entry["reference"] == found["id"]]
    assert [entry["status"] for entry in charges] == ["captured"]


def test_short_on_the_second_line_gives_the_first_lines_units_back(stack: Stack) -> None:
    """Two orders for the only lamp at once, so that the courtesy check can't see it coming for both."""
    mug, lamp = stack.product(stock=10), stack.product(stock=1)
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(
                lambda n: stack.call(
                    "POST", "/v1/orders", cart((mug, 1), (lamp, 1)), customer=f"c{n}", key=uuid4().hex
                ),
                range(8),
            )
        )
    orders = [stack.settled(answer.json()["id"]) for answer in answers if answer.status_code == 201]
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert [order["status"] for order in orders].count("PAYMENT_CONFIRMED") == 1
    for order in orders:
        if order["status"] == "CANCELLED":
            assert order["cancellation"]["reason"] == "out_of_stock"
    stack.until(lambda: available(stack, mug) == 9, "the mugs of the losers are back")
    assert available(stack, lamp) == 0


def test_forty_concurrent_buyers_for_ten_units(stack: Stack) -> None:
    mug = stack.product(stock=10)
    with ThreadPoolExecutor(40) as pool:
        answers = list(
            pool.map(
                lambda n: stack.call("POST", "/v1/orders", cart((mug, 1)), customer=f"buyer-{n}", key=uuid4().hex),
                range(40),
            )
        )
    assert {answer.status_code for answer in answers} <= {201, 409}
    accepted = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    ends = [stack.settled(order_id) for order_id in accepted]
    assert [order["status"] for order in ends].count("PAYMENT_CONFIRMED") == 10
    assert {o["cancellation"]["reason"] for o in ends if o["status"] == "CANCELLED"} <= {"out_of_stock"}
    stack.until(lambda: available(stack, mug) == 0, "nothing is left")


def test_ten_concurrent_requests_with_one_idempotency_key_are_one_order(stack: Stack) -> None:
    mug = stack.product(stock=100)
    key = uuid4().hex
    with ThreadPoolExecutor(10) as pool:
        answers = list(
            pool.map(lambda _: stack.call("POST", "/v1/orders", cart((mug, 1)), customer="twin", key=key), range(10))
        )
    assert [answer.status_code for answer in answers] == [201] * 10, [answer.text for answer in answers]
    bodies = [answer.json() for answer in answers]
    assert all(body == bodies[0] for body in bodies)
    stack.settled(bodies[0]["id"])
    mine = stack.call("GET", "/v1/customers/twin/orders", customer="twin").json()["items"]
    assert [order["id"] for order in mine] == [bodies[0]["id"]]
    again = stack.call("POST", "/v1/orders", cart((mug, 2)), customer="twin", key=key)
    assert again.status_code == 422
    assert again.json()["type"].endswith("idempotency-key-reused")


def test_cancelling_a_paid_order_refunds_it(stack: Stack) -> None:
    mug = stack.product(stock=10)
    paid = stack.settled(stack.place((mug, 2))["id"])
    answer = stack.call("POST", f"/v1/orders/{paid['id']}/cancel", {"reason": "changed_mind"}, key=uuid4().hex)
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "CANCELLED"

    def refunded() -> bool:
        return [r["status"] for r in stack.order(paid["id"])["refunds"]] == ["completed"]

    stack.until(refunded, "the refund is completed")
    refunds = [e for e in stack.ledger() if e["kind"] == "refund" and e["reference"] == paid["id"]]
    assert [entry["amount"] for entry in refunds] == [3082]
    stack.until(lambda: available(stack, mug) == 10, "the stock is back")


def test_a_draft_is_changed_and_then_submitted(stack: Stack) -> None:
    mug, lamp = stack.product(stock=10), stack.product(stock=10, price="50.00")
    draft = stack.place((mug, 1), submit=False)
    path = f"/v1/orders/{draft['id']}"
    added = stack.call("POST", f"{path}/items", {"sku": lamp, "quantity": 1}, key=uuid4().hex)
    assert added.status_code == 201 or added.status_code == 200, added.text
    assert stack.call("PATCH", f"{path}/items/L1", {"quantity": 2}).status_code == 200
    removed = stack.call("DELETE", f"{path}/items/L2")
    assert removed.status_code == 200, removed.text
    assert [(x["sku"], x["quantity"]) for x in removed.json()["items"]] == [(mug, 2)]
    submitted = stack.call("POST", f"{path}/submit", {"payment_token": "pm_card_visa"}, key=uuid4().hex)
    assert submitted.status_code == 200, submitted.text
    assert stack.settled(draft["id"])["status"] == "PAYMENT_CONFIRMED"


def test_the_books_balance_after_all_of_this(stack: Stack) -> None:
    assert_balanced(stack)


def available(stack: Stack, sku: str) -> int:
    items = stack.call("GET", "/v1/products").json()["items"]
    return next(int(item["available"]) for item in items if item["sku"] == sku)
