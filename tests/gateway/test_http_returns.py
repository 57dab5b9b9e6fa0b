"""Returns, refunds, holds and the survey over HTTP, on orders that were really delivered by the stack."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.gateway.conftest import UNKNOWN, Shop, problem

pytestmark = pytest.mark.stack

DELIVERY = 90.0
"""Seconds: 15 by default, more where many orders share the machine."""


class Ahead(Shop):
    """A shop that has placed the orders which tests want delivered, by their quantity, so that all travel at once."""

    on_their_way: dict[int, list[str]]


@pytest.fixture(scope="module")
def shop(lively_stack: Any) -> Iterator[Ahead]:
    """Where a paid order is delivered a few seconds later."""
    with httpx.Client(base_url=lively_stack.url, timeout=40) as client:
        shop = Ahead(lively_stack, client)
        shop.on_their_way = {n: [shop.placed(shop.product(), n)["id"] for _ in range(2)] for n in (1, 2)}
        shop.on_their_way[3] = [shop.placed(shop.product(), 3)["id"]]
        yield shop


def until(shop: Shop, order_id: str, wanted: Callable[[dict[str, Any]], bool], seconds: float = 30) -> dict[str, Any]:
    """The order once it is as wanted, as staff sees it."""
    deadline = time.monotonic() + seconds
    while True:
        answer = shop.call("GET", f"/v1/orders/{order_id}", as_="staff")
        if answer.status_code == 200 and wanted(answer.json()):
            found: dict[str, Any] = answer.json()
            return found
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)


def paid(shop: Shop, quantity: int = 1, **product: Any) -> dict[str, Any]:
    order = shop.placed(shop.product(**product), quantity)
    return until(shop, order["id"], lambda o: o["status"] != "PENDING_PAYMENT")


def delivered(shop: Ahead, quantity: int = 1) -> dict[str, Any]:
    return until(shop, shop.on_their_way[quantity].pop(), lambda o: o["status"] == "DELIVERED", DELIVERY)


def wish(quantity: int = 1, reason: str = "changed_mind", line_id: str = "L1", **more: Any) -> dict[str, Any]:
    return {"items": [{"line_id": line_id, "quantity": quantity, "reason": reason, **more}]}


def minor(money: dict[str, str]) -> int:
    assert money["currency"] == "EUR"
    return int(money["amount"].replace(".", ""))


def asked(shop: Shop, order: dict[str, Any], **body: Any) -> str:
    """The RMA of a new return."""
    answer = shop.call("POST", f"/v1/orders/{order['id']}/returns", {**wish(), **body})
    assert answer.status_code == 201, answer.text
    rma: str = answer.json()["returns"][-1]["rma"]
    assert answer.headers["location"] == f"/v1/orders/{order['id']}/returns/{rma}"
    return rma


def staff(shop: Shop, rma: str, step: str, body: Any = None) -> httpx.Response:
    return shop.call("POST", f"/v1/admin/returns/{rma}/{step}", body, as_="staff")


def counted(shop: Shop, sku: str) -> int:
    """What is free to sell, after one more was found."""
    one = {"delta": 1, "reason": "found"}
    answer = shop.call("POST", f"/v1/admin/products/{sku}/stock", one, as_="staff")
    assert answer.status_code == 200, answer.text
    return int(answer.json()["available"])


def test_a_return_is_asked_for_approved_labelled_received_inspected_and_refunded(shop: Ahead) -> None:
    order = delivered(shop, 3)
    path = f"/v1/orders/{order['id']}/returns"
    key = uuid4().hex
    first = shop.call("POST", path, {**wish(2), "comment": "too blue"}, key=key)
    assert first.status_code == 201, first.text
    assert shop.call("POST", path, {**wish(2), "comment": "too blue"}, key=key).json() == first.json()
    assert first.json()["status"] == "REFUND_REQUESTED"
    rma = first.json()["returns"][0]["rma"]
    assert rma == f"RMA-{order['number']}-1"

    seen = shop.call("GET", f"{path}/{rma}").json()
    assert (seen["status"], seen["comment"], seen["items"][0]["refund"]) == ("requested", "too blue", None)
    problem(staff(shop, rma, "inspect", {}), 409, "return-not-open")
    problem(shop.call("POST", f"/v1/admin/returns/{rma}/approve"), 403, "forbidden")

    assert staff(shop, rma, "approve").json()["returns"][0]["status"] == "approved"
    refused = problem(staff(shop, rma, "approve"), 409, "return-not-open")
    assert refused["return_status"] == "approved"
    problem(staff(shop, rma, "deny", {"reason": "no"}), 409, "return-not-open")
    labelled = until(shop, order["id"], lambda o: any(r["label_url"] for r in o["returns"]))
    assert labelled["returns"][0]["tracking_number"]

    answer = staff(shop, rma, "receive")
    if answer.status_code == 409:  # the sandbox's carrier was faster
        assert answer.json()["return_status"] == "received"
    problem(staff(shop, rma, "inspect", {"items": [{"line_id": "L1", "condition": "licked"}]}), 422,
            "unknown-condition", "items[0].condition")  # fmt: skip
    found = staff(shop, rma, "inspect", {"items": [{"line_id": "L1", "condition": "as_new"}]}).json()
    assert found["returns"][0]["items"][0]["restock"] is True
    assert found["items"][0]["quantities"]["returned"] == 2
    line = order["items"][0]
    worth = minor(line["line_total"]) - minor(line["discount"]) + minor(line["tax"])
    refund = minor(found["refunds"][0]["amount"])
    assert refund == (4 * worth + 3) // 6  # two thirds, half up
    assert minor(found["refunds"][0]["items"][0]["amount"]) == refund

    closed = until(shop, order["id"], lambda o: o["status"] == "DELIVERED")
    assert closed["returns"][0]["status"] == "closed"
    assert closed["refunds"][0]["status"] == "completed"
    deadline, added = time.monotonic() + 20, 1
    while counted(shop, line["sku"]) - added != 100 - 3 + 2:
        assert time.monotonic() < deadline, "the returned units are not back in stock"
        added += 1
        time.sleep(0.2)


def test_everything_back_for_the_shops_fault_is_refunded(shop: Ahead) -> None:
    order = delivered(shop, 2)
    rma = asked(shop, order, **wish(2, "defective"))
    for step in ("approve", "receive"):
        answer = staff(shop, rma, step)
        assert answer.status_code == 200 or answer.json()["return_status"] == "received", answer.text
    found = staff(shop, rma, "inspect", {}).json()
    assert found["refunds"][0]["amount"] == order["total"]
    assert found["refunds"][0]["shipping"]["amount"] != "0.00"
    over = until(shop, order["id"], lambda o: o["status"] == "REFUNDED")
    assert "return" not in over["allowed_actions"]
    problem(shop.call("POST", f"/v1/orders/{order['id']}/returns", wish()), 409, "cannot-return")


def test_what_is_wrong_with_a_request_is_named(shop: Ahead) -> None:
    order = delivered(shop, 2)
    path = f"/v1/orders/{order['id']}/returns"
    problem(shop.call("POST", path, wish(reason="bored")), 422, "unknown-reason", "items[0].reason")
    problem(shop.call("POST", path, wish(3)), 422, "quantity-out-of-range", "items[0].quantity")
    problem(shop.call("POST", path, wish(line_id="L9")), 422, "unknown-line", "items[0].line_id")
    problem(shop.call("POST", path, wish(0)), 422, "invalid-request", "items[0].quantity")
    problem(shop.call("POST", path, {"items": []}), 422, "invalid-request", "items")
    problem(shop.call("POST", path, {**wish(), "why": 1}), 422, "invalid-request", "why")
    problem(shop.call("POST", path, wish(exchange_sku="NO-SUCH")), 422, "unknown-product", "items[0].exchange_sku")
    problem(shop.call("POST", path, wish(), as_="somebody-else"), 404, "not-found")
    problem(shop.call("GET", f"{path}/RMA-{order['number']}-9"), 404, "not-found")
    rma = asked(shop, order)
    problem(shop.call("GET", f"{path}/{rma}", as_="somebody-else"), 404, "not-found")
    problem(shop.call("POST", path, wish(2)), 422, "quantity-out-of-range", "items[0].quantity")
    assert staff(shop, rma, "deny", {"reason": "worn"}).json()["status"] == "DELIVERED"
    assert shop.call("GET", f"{path}/{rma}").json()["denied"] == "worn"


def test_an_exchange_becomes_an_order_of_its_own(shop: Ahead) -> None:
    order = delivered(shop, 1)
    other = shop.product(price="12.00")
    rma = asked(shop, order, **wish(exchange_sku=other))
    for step in ("approve", "receive"):
        answer = staff(shop, rma, step)
        assert answer.status_code == 200 or answer.json()["return_status"] == "received", answer.text
    assert staff(shop, rma, "inspect", {}).status_code == 200

    def exchanged() -> list[dict[str, Any]]:
        orders = shop.call("GET", f"/v1/customers/{shop.customer}/orders", as_="staff").json()["items"]
        return [o for o in orders if o["exchange_of"] == order["id"]]

    deadline = time.monotonic() + 30
    while not exchanged():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    (new,) = exchanged()
    assert (new["items"][0]["sku"], new["items"][0]["quantity"]) == (other, 1)
    assert new["shipping_address"] == order["shipping_address"]
    until(shop, new["id"], lambda o: o["status"] != "PENDING_PAYMENT")


def test_before_delivery_there_is_nothing_to_return_or_to_rate(shop: Shop) -> None:
    order = paid(shop)
    refused = problem(shop.call("POST", f"/v1/orders/{order['id']}/returns", wish()), 409, "cannot-return")
    assert refused["order_status"] != "DELIVERED"
    problem(shop.call("POST", f"/v1/orders/{order['id']}/survey", {"score": 5}), 409, "cannot-survey")


@pytest.mark.parametrize("rma", ["nonsense", "RMA-ZZZZZ-ZZZZZ-1", "RMA-ZZZZZ-ZZZZZ-01", "RMA-zzzzz-zzzzz-1"])
def test_an_unknown_rma_is_not_found(shop: Shop, rma: str) -> None:
    problem(staff(shop, rma, "approve"), 404, "not-found")
    problem(shop.call("GET", f"/v1/orders/{UNKNOWN}/returns/{rma}"), 404, "not-found")


def test_staff_refunds_without_a_return(shop: Shop) -> None:
    order = paid(shop, 3)
    path = f"/v1/admin/orders/{order['id']}/refunds"
    problem(shop.call("POST", path, {"reason": "goodwill"}), 403, "forbidden")
    problem(shop.call("POST", path, {"reason": "goodwill"}, as_="staff"), 422, "nothing-to-refund", "amount")
    scratch = {"reason": "a scratch!", "shipping": True}
    unknown = problem(shop.call("POST", path, scratch, as_="staff"), 422, "unknown-reason", "reason")
    assert "goodwill, damaged, late" in unknown["detail"]
    dollars = {"reason": "goodwill", "amount": {"amount": "1.00", "currency": "USD"}}
    problem(shop.call("POST", path, dollars, as_="staff"), 422, "wrong-currency", "amount.currency")
    key = uuid4().hex
    body = {"reason": "damaged", "items": [{"line_id": "L1", "quantity": 1}], "shipping": True, "comment": "A scratch."}
    first = shop.call("POST", path, body, as_="staff", key=key)
    assert first.status_code == 200, first.text
    again = shop.call("POST", path, body, as_="staff", key=key)
    assert again.json() == first.json()
    given = minor(first.json()["refunds"][0]["amount"])
    left = minor(order["total"]) - given
    too_much = {"reason": "goodwill", "amount": {"amount": f"{(left + 1) / 100:.2f}", "currency": "EUR"}}
    found = problem(shop.call("POST", path, too_much, as_="staff"), 422, "refund-too-high", "amount")
    assert found["left"] == f"{left / 100:.2f} EUR"
    until(shop, order["id"], lambda o: [r["status"] for r in o["refunds"]] == ["completed"])


def test_staff_holds_and_releases(shop: Shop) -> None:
    order = shop.placed(shop.product())  # at once: a few seconds after payment fulfilment begins
    path = f"/v1/admin/orders/{order['id']}"
    problem(shop.call("POST", f"{path}/hold", {"reason": "call them"}), 403, "forbidden")
    problem(shop.call("POST", f"{path}/hold", {}, as_="staff"), 422, "invalid-request", "reason")
    held = shop.call("POST", f"{path}/hold", {"reason": "call them"}, as_="staff")
    assert held.status_code == 200, held.text
    assert [(h["kind"], h["reason"]) for h in held.json()["holds"]] == [("staff", "call them")]
    released = shop.call("POST", f"{path}/release", {"comment": "fine"}, as_="staff")
    assert released.status_code == 200, released.text
    assert released.json()["holds"] == []


def test_the_survey_is_answered_once(shop: Ahead) -> None:
    order = delivered(shop)
    path = f"/v1/orders/{order['id']}/survey"
    problem(shop.call("POST", path, {"score": 6}), 422, "invalid-request", "score")
    problem(shop.call("POST", path, {"score": 5}, as_="staff"), 403, "forbidden")
    problem(shop.call("POST", path, {"score": 5}, as_="somebody-else"), 404, "not-found")
    answer = shop.call("POST", path, {"score": 4, "comment": "nice"})
    assert answer.json()["survey"] == {"score": 4, "comment": "nice"}
    problem(shop.call("POST", path, {"score": 1}), 409, "survey-answered")
