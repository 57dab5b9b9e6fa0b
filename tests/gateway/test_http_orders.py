"""Commands over HTTP: what comes back, and what a repeat, a stale version or a changed catalogue leads to."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.gateway.conftest import BILL_TO, SHIP_TO, UNKNOWN, Shop, problem

pytestmark = pytest.mark.stack


def eur(amount: str) -> dict[str, str]:
    return {"amount": amount, "currency": "EUR"}


def until(ask: Any, wanted: Any, seconds: float = 10) -> Any:
    """Ask until the answer is as wanted."""
    deadline = time.monotonic() + seconds
    while not wanted(found := ask()):
        assert time.monotonic() < deadline, found
        time.sleep(0.05)
    return found


# Creating


def test_a_draft_is_created_with_the_catalogues_prices(shop: Shop) -> None:
    sku = shop.product(price="12.50")
    answer = shop.call("POST", "/v1/orders", shop.body(sku, 2))
    assert answer.status_code == 201, answer.text
    order = answer.json()
    assert answer.headers["location"] == f"/v1/orders/{order['id']}"
    assert answer.headers["etag"] == '"1"'
    assert (order["status"], order["version"], order["customer_id"]) == ("DRAFT", 1, shop.customer)
    assert order["items"][0]["unit_price"] == eur("12.50")
    assert order["subtotal"] == eur("25.00")
    parts = {name: int(order[name]["amount"].replace(".", "")) for name in ("subtotal", "discount", "tax", "shipping")}
    total = parts["subtotal"] - parts["discount"] + parts["tax"] + parts["shipping"]
    assert int(order["total"]["amount"].replace(".", "")) == total
    assert order["shipping_address"] == {**SHIP_TO, "state": None}
    assert order["billing_address"] == {**BILL_TO, "state": None}
    assert order["allowed_actions"] == ["modify", "submit", "cancel"]
    assert order["payments"] == []


def test_creating_with_submit_places_the_order(shop: Shop) -> None:
    order = shop.placed(shop.product())
    assert (order["status"], order["version"]) == ("PENDING_PAYMENT", 3)
    assert order["payments"][0]["amount"] == order["total"]
    assert "pm_card_visa" not in str(order)
    paid = until(lambda: shop.call("GET", f"/v1/orders/{order['id']}?min_version=4").json(), lambda o: "status" in o)
    assert paid["status"] == "PAYMENT_CONFIRMED"


def test_prefer_wait_waits_for_the_payment(shop: Shop) -> None:
    body = shop.body(shop.product(), payment_token="pm_card_visa", submit=True)
    answer = shop.call("POST", "/v1/orders", body, Prefer="wait=20")
    assert answer.status_code == 201, answer.text
    assert answer.headers["preference-applied"] == "wait=20"
    assert answer.json()["status"] == "PAYMENT_CONFIRMED"
    assert answer.headers["etag"] == f'"{answer.json()["version"]}"'


def test_prefer_wait_tells_of_a_cancellation_too(shop: Shop) -> None:
    body = shop.body(shop.product(), payment_token="pm_card_chargeDeclined", submit=True)
    order = shop.call("POST", "/v1/orders", body, Prefer="wait=20").json()
    assert (order["status"], order["cancellation"]["reason"]) == ("CANCELLED", "payment_declined")
    assert order["items"][0]["quantities"]["cancelled"] == 1
    assert order["allowed_actions"] == []


def test_prefer_respond_async_answers_before_the_outcome(shop: Shop) -> None:
    sku = shop.product()
    answer = shop.call("POST", "/v1/orders", shop.body(sku), Prefer="respond-async")
    assert answer.status_code == 202, answer.text
    assert answer.headers["preference-applied"] == "respond-async"
    link = answer.headers["location"]
    assert answer.json()["status_link"] == link
    found = until(lambda: shop.call("GET", link).json(), lambda status: status["status"] != "pending")
    assert (found["status"], found["version"]) == ("accepted", 1)
    order = shop.call("GET", f"{found['order']}?min_version=1").json()
    assert order["items"][0]["sku"] == sku
    problem(shop.call("GET", link, as_="somebody-else"), 404, "not-found")


def test_a_status_link_tells_of_a_refusal(shop: Shop) -> None:
    order = shop.draft(shop.product())
    path = f"/v1/orders/{order['id']}/shipping-method"
    answer = shop.call("PUT", path, {"shipping_method": "by-balloon"}, Prefer="respond-async")
    link = answer.headers["location"]
    found = until(lambda: shop.call("GET", link).json(), lambda status: status["status"] != "pending")
    assert found["status"] == "refused"
    assert found["problem"]["type"] == "/problems/unknown-shipping-method"


def test_an_outcome_that_takes_too_long_comes_later(shop: Shop) -> None:
    body, key = shop.body(shop.product()), uuid4().hex
    with shop.stack.frozen("order"):
        answer = shop.call("POST", "/v1/orders", body, key=key)
        assert answer.status_code == 202, answer.text
        assert answer.headers["retry-after"] == "1"
        link = answer.headers["location"]
        assert shop.call("GET", link).json()["status"] == "pending"
    found = until(lambda: shop.call("GET", link).json(), lambda status: status["status"] != "pending", 30)
    assert found["status"] == "accepted"
    again = shop.call("POST", "/v1/orders", body, key=key)
    assert (again.status_code, again.json()["id"]) == (201, answer.json()["order_id"])


def test_a_preview_shows_totals_and_shipping_options_and_leaves_nothing(shop: Shop) -> None:
    sku = shop.product()
    answer = shop.call("POST", "/v1/orders?dry_run=true", shop.body(sku, shipping_method=None))
    assert answer.status_code == 200, answer.text
    preview = answer.json()
    options = {option["shipping_method"]: option["price"] for option in preview["shipping_options"]}
    assert {"standard", "express"} <= options.keys()
    real = shop.draft(sku, shipping_method="express")
    assert real["shipping"] == options["express"]
    assert real["subtotal"] == preview["subtotal"]
    problem(shop.call("GET", f"/v1/orders/{preview['id']}"), 404, "not-found")


@pytest.mark.parametrize("missing", ["shipping_address", "billing_address", "shipping_method", "payment_token"])
def test_placing_an_incomplete_order_names_what_is_missing(shop: Shop, missing: str) -> None:
    changes: dict[str, Any] = {"payment_token": "pm_card_visa", "submit": True, missing: None}
    body = shop.body(shop.product(), **changes)
    problem(shop.call("POST", "/v1/orders", body), 422, "incomplete", missing)


def test_an_unknown_product_is_named_where_it_stands(shop: Shop) -> None:
    good, gone = shop.product(), shop.product(active=False)
    items = [{"sku": sku, "quantity": 1} for sku in ("NEVER-WAS", good, gone)]
    found = problem(shop.call("POST", "/v1/orders", shop.body(good, items=items)), 422, "unknown-product")
    assert [error["field"] for error in found["errors"]] == ["items[0].sku", "items[2].sku"]


def test_a_product_without_a_price_in_the_currency(shop: Shop) -> None:
    answer = shop.call("POST", "/v1/orders", shop.body(shop.product(), currency="USD"))
    problem(answer, 422, "no-price", "currency")


def test_a_country_that_we_do_not_ship_to(shop: Shop) -> None:
    body = shop.body(shop.product(), shipping_address={**SHIP_TO, "country": "AQ"})
    problem(shop.call("POST", "/v1/orders", body), 422, "country-not-served", "shipping_address.country")


def test_too_little_in_stock_names_the_skus(shop: Shop) -> None:
    plenty, scarce = shop.product(stock=100), shop.product(stock=3)
    items = [{"sku": plenty, "quantity": 4}, {"sku": scarce, "quantity": 2}, {"sku": scarce, "quantity": 2}]
    found = problem(shop.call("POST", "/v1/orders", shop.body(plenty, items=items)), 409, "out-of-stock")
    assert found["skus"] == [scarce]
    assert found["errors"][0]["field"] == "items[1].sku"


def test_a_stock_that_nobody_counted_refuses_nobody(shop: Shop) -> None:
    assert shop.draft(shop.product(stock=None), 5)["status"] == "DRAFT"


# Repeats


def test_the_same_key_gives_the_same_order_again(shop: Shop) -> None:
    body, key = shop.body(shop.product()), uuid4().hex
    first = shop.call("POST", "/v1/orders", body, key=key)
    again = shop.call("POST", "/v1/orders", body, key=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert again.headers["location"] == first.headers["location"]


def test_the_same_key_with_another_body_is_refused(shop: Shop) -> None:
    sku, key = shop.product(), uuid4().hex
    assert shop.call("POST", "/v1/orders", shop.body(sku, 1), key=key).status_code == 201
    answer = shop.call("POST", "/v1/orders", shop.body(sku, 2), key=key)
    problem(answer, 422, "idempotency-key-reused", "Idempotency-Key")


def test_a_key_belongs_to_caller_and_route(shop: Shop) -> None:
    body, key = shop.body(shop.product()), uuid4().hex
    mine = shop.call("POST", "/v1/orders", body, key=key).json()
    other = shop.call("POST", "/v1/orders", body, key=key, as_="somebody-else").json()
    assert mine["id"] != other["id"]
    add = {"sku": mine["items"][0]["sku"], "quantity": 1}
    assert shop.call("POST", f"/v1/orders/{mine['id']}/items", add, key=key).json()["version"] == 2


def test_requests_at_the_same_time_with_one_key_are_one(shop: Shop) -> None:
    sku, key = shop.product(), uuid4().hex
    bodies = [shop.body(sku, 1 if i % 2 else 2) for i in range(10)]
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda body: shop.call("POST", "/v1/orders", body, key=key), bodies))
    assert sorted(answer.status_code for answer in answers) == [201] * 5 + [422] * 5
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
    quantities = {answer.json()["items"][0]["quantity"] for answer in answers if answer.status_code == 201}
    assert len(quantities) == 1


def test_a_refusal_is_remembered_too(shop: Shop) -> None:
    sku, key = shop.product(stock=1), uuid4().hex
    body = shop.body(sku, 2)
    first = problem(shop.call("POST", "/v1/orders", body, key=key), 409, "out-of-stock")
    shop.call("POST", f"/v1/admin/products/{sku}/stock", {"delta": 10, "reason": "found some"}, as_="staff")
    until(lambda: available(shop, sku), lambda units: units == 11)
    again = problem(shop.call("POST", "/v1/orders", body, key=key), 409, "out-of-stock")
    assert again["detail"] == first["detail"]
    assert shop.call("POST", "/v1/orders", body, key=uuid4().hex).status_code == 201


def test_a_repeat_is_answered_as_before_though_stock_and_catalogue_have_changed(shop: Shop) -> None:
    sku, key = shop.product(stock=2), uuid4().hex
    body = shop.body(sku, 2, payment_token="pm_card_visa", submit=True)
    first = shop.call("POST", "/v1/orders", body, key=key)
    assert first.status_code == 201, first.text
    until(lambda: available(shop, sku), lambda units: units == 0)
    again = shop.call("POST", "/v1/orders", body, key=key)
    assert (again.status_code, again.json()) == (201, first.json())
    shop.product(sku=sku, stock=None, active=False)
    again = shop.call("POST", "/v1/orders", body, key=key)
    assert (again.status_code, again.json()) == (201, first.json())
    problem(shop.call("POST", "/v1/orders", body, key=uuid4().hex), 422, "unknown-product", "items[0].sku")


def test_a_stock_adjustment_is_done_once(shop: Shop) -> None:
    sku, key = shop.product(stock=None), uuid4().hex
    path, body = f"/v1/admin/products/{sku}/stock", {"delta": 5, "reason": "delivery"}
    first, again = (shop.call("POST", path, body, as_="staff", key=key) for _ in range(2))
    assert first.status_code == 200, first.text
    assert first.json() == again.json()
    assert again.json()["available"] == 5
    answer = shop.call("POST", path, {"delta": 6, "reason": "delivery"}, as_="staff", key=key)
    problem(answer, 422, "idempotency-key-reused", "Idempotency-Key")


def available(shop: Shop, sku: str) -> Any:
    return find(shop, sku)["available"]


def find(shop: Shop, sku: str) -> dict[str, Any]:
    """The product as the list has it."""
    path: str | None = "/v1/products?limit=500"
    while path:
        answer = shop.call("GET", path, as_="staff")
        for product in answer.json()["items"]:
            if product["sku"] == sku:
                return dict(product)
        path = answer.links["next"]["url"] if "next" in answer.links else None
    raise AssertionError(f"no product {sku}")


# Changing


def test_lines_are_added_changed_and_removed(shop: Shop) -> None:
    tea, mug = shop.product(price="4.00"), shop.product(price="9.00")
    path = f"/v1/orders/{shop.draft(tea)['id']}"
    order = shop.call("POST", f"{path}/items", {"sku": mug, "quantity": 2}).json()
    assert [(item["sku"], item["quantity"]) for item in order["items"]] == [(tea, 1), (mug, 2)]
    answer = shop.call("PATCH", f"{path}/items/L2", {"quantity": 3})
    assert (answer.status_code, answer.headers["etag"]) == (200, '"3"')
    assert answer.json()["subtotal"] == eur("31.00")
    order = shop.call("DELETE", f"{path}/items/L1").json()
    assert [item["line_id"] for item in order["items"]] == ["L2"]
    problem(shop.call("DELETE", f"{path}/items/L2"), 422, "last-line")
    problem(shop.call("PATCH", f"{path}/items/L9", {"quantity": 1}), 404, "unknown-line")
    problem(shop.call("POST", f"{path}/items", {"sku": "NEVER-WAS", "quantity": 1}), 422, "unknown-product", "sku")
    problem(shop.call("POST", f"{path}/items", {"sku": mug, "quantity": 999}), 409, "out-of-stock", "sku")
    problem(shop.call("PATCH", f"{path}/items/L2", {"quantity": 100_000}), 422, "quantity-out-of-range", "quantity")


def test_addresses_and_shipping_are_changed(shop: Shop) -> None:
    path = f"/v1/orders/{shop.draft(shop.product(), shipping_address=None, billing_address=None)['id']}"
    order = shop.call("PUT", f"{path}/shipping-address", {**SHIP_TO, "city": "Potsdam"}).json()
    assert order["shipping_address"]["city"] == "Potsdam"
    assert order["tax"]["amount"] != "0.00"
    assert shop.call("PUT", f"{path}/billing-address", BILL_TO).json()["billing_address"]["name"] == BILL_TO["name"]
    assert (
        shop.call("PUT", f"{path}/shipping-method", {"shipping_method": "express"}).json()["shipping_method"]
        == "express"
    )
    answer = shop.call("PUT", f"{path}/shipping-address", {**SHIP_TO, "country": "AQ"})
    problem(answer, 422, "country-not-served", "country")
    answer = shop.call("PUT", f"{path}/shipping-method", {"shipping_method": "by-balloon"})
    problem(answer, 422, "unknown-shipping-method", "shipping_method")


def test_a_preview_of_a_change_changes_nothing(shop: Shop) -> None:
    tea, mug = shop.product(price="4.00"), shop.product(price="9.00")
    path = f"/v1/orders/{shop.draft(tea)['id']}"
    preview = shop.call("POST", f"{path}/items?dry_run=true", {"sku": mug, "quantity": 1})
    assert preview.status_code == 200, preview.text
    assert preview.json()["subtotal"] == eur("13.00")
    assert shop.call("GET", f"{path}?min_version=1").json()["version"] == 1
    assert shop.call("POST", f"{path}/items", {"sku": mug, "quantity": 1}).json()["version"] == 2


def test_a_stale_version_is_refused(shop: Shop) -> None:
    path = f"/v1/orders/{shop.draft(shop.product())['id']}/items/L1"
    assert shop.call("PATCH", path, {"quantity": 2}, If_Match='"1"').status_code == 200
    found = problem(shop.call("PATCH", path, {"quantity": 3}, If_Match='"1"'), 412, "version-mismatch", "If-Match")
    assert found["version"] == 2
    assert shop.call("PATCH", path, {"quantity": 3}, If_Match='"2"').status_code == 200
    assert shop.call("PATCH", path, {"quantity": 4}, If_Match="*").status_code == 200


# Submitting


def submit(shop: Shop, order: dict[str, Any], **more: Any) -> httpx.Response:
    body = {"payment_token": "pm_card_visa", **more}
    return shop.call("POST", f"/v1/orders/{order['id']}/submit", body)


def test_a_draft_is_submitted_once(shop: Shop) -> None:
    order = shop.draft(shop.product())
    answer = submit(shop, order)
    assert (answer.status_code, answer.json()["status"]) == (200, "PENDING_PAYMENT")
    found = problem(submit(shop, order), 409, "cannot-submit")
    assert "submit" not in found["allowed_actions"]
    assert found["order_status"] != "DRAFT"


def test_a_draft_that_costs_something_is_not_submitted_without_a_card(shop: Shop) -> None:
    path = f"/v1/orders/{shop.draft(shop.product())['id']}/submit"
    problem(shop.call("POST", path, {}), 422, "incomplete", "payment_token")


def test_an_incomplete_draft_is_not_submitted(shop: Shop) -> None:
    order = shop.draft(shop.product(), shipping_method=None)
    problem(submit(shop, order), 422, "incomplete", "shipping_method")


def test_a_changed_price_must_be_agreed_to(shop: Shop) -> None:
    sku = shop.product(price="10.00")
    order = shop.draft(sku)
    shop.product(sku=sku, stock=None, price="12.00")
    found = problem(submit(shop, order), 409, "price-changed")
    assert found["before"] == order["total"]
    assert float(found["after"]["amount"]) > float(found["before"]["amount"])
    problem(submit(shop, order, accept_total=found["before"]), 409, "price-changed")
    wrong = {"amount": found["after"]["amount"], "currency": "USD"}
    problem(submit(shop, order, accept_total=wrong), 422, "wrong-currency", "accept_total.currency")
    answer = submit(shop, order, accept_total=found["after"])
    assert answer.status_code == 200, answer.text
    assert answer.json()["total"] == found["after"]


def test_a_product_that_went_off_sale_is_named(shop: Shop) -> None:
    tea, mug = shop.product(), shop.product()
    order = shop.draft(tea, items=[{"sku": tea, "quantity": 1}, {"sku": mug, "quantity": 1}])
    shop.product(sku=mug, stock=None, active=False)
    problem(submit(shop, order), 422, "unknown-product", "items[1].sku")
    assert shop.call("DELETE", f"/v1/orders/{order['id']}/items/L2").status_code == 200
    assert submit(shop, order).status_code == 200


def test_a_repeated_submission_gives_the_same_answer(shop: Shop) -> None:
    order, key = shop.draft(shop.product()), uuid4().hex
    path, body = f"/v1/orders/{order['id']}/submit", {"payment_token": "pm_card_visa"}
    first, again = (shop.call("POST", path, body, key=key) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 200), again.text
    assert first.json() == again.json()


# Cancelling


def test_a_customer_cancels(shop: Shop) -> None:
    order = shop.draft(shop.product())
    path = f"/v1/orders/{order['id']}/cancel"
    answer = shop.call("POST", path, {"reason": "changed_mind", "comment": "Found it in the attic."})
    assert answer.status_code == 200, answer.text
    cancelled = answer.json()
    assert cancelled["status"] == "CANCELLED"
    assert cancelled["cancellation"] == {"reason": "changed_mind", "comment": "Found it in the attic.", "skus": []}
    found = problem(shop.call("POST", path, {"reason": "changed_mind"}), 409, "cannot-cancel")
    assert found["allowed_actions"] == []


def test_a_customer_cannot_cancel_for_a_reason_of_ours(shop: Shop) -> None:
    path = f"/v1/orders/{shop.draft(shop.product())['id']}/cancel"
    problem(shop.call("POST", path, {"reason": "fraud"}), 422, "reason-not-allowed", "reason")


# Stock and catalogue


def test_stock_never_goes_below_zero(shop: Shop) -> None:
    sku = shop.product(stock=3)
    answer = shop.call("POST", f"/v1/admin/products/{sku}/stock", {"delta": -4, "reason": "x"}, as_="staff")
    problem(answer, 409, "stock-below-zero", "delta")


def test_stock_of_a_product_that_there_is_not(shop: Shop) -> None:
    answer = shop.call("POST", "/v1/admin/products/NEVER-WAS/stock", {"delta": 4, "reason": "x"}, as_="staff")
    problem(answer, 404, "not-found")


def test_a_correlation_id_goes_all_the_way(shop: Shop) -> None:
    mine = f"test-{uuid4().hex}"
    answer = shop.call("POST", "/v1/orders", shop.body(shop.product()), X_Correlation_ID=mine)
    assert answer.headers["x-correlation-id"] == mine
    path = f"/v1/orders/{answer.json()['id']}/events?min_version=1"
    assert [event["correlation_id"] for event in shop.call("GET", path).json()["items"]] == [mine]
    for bad in ("with space", "x" * 65, "4242424242424242", "a\tb"):
        answer = shop.call("GET", f"/v1/orders/{UNKNOWN}", X_Correlation_ID=bad)
        assert answer.headers["x-correlation-id"] != bad
