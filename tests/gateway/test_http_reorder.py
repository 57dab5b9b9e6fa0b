"""The same again, over HTTP."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.gateway.conftest import UNKNOWN, Shop, problem

pytestmark = pytest.mark.stack


def again(shop: Shop, order: dict[str, Any], body: Any = None, query: str = "", **how: Any) -> httpx.Response:
    return shop.call("POST", f"/v1/orders/{order['id']}/reorder{query}", body, **how)


def off_sale(shop: Shop, sku: str) -> None:
    shop.product(stock=None, sku=sku, active=False)


def two_lines(shop: Shop, first: str, second: str, **changes: Any) -> dict[str, Any]:
    items = [{"sku": first, "quantity": 2}, {"sku": second, "quantity": 3}]
    return shop.draft(first, items=items, **changes)


def test_a_draft_of_the_same_at_todays_prices(shop: Shop) -> None:
    sku, other = shop.product(price="10.00"), shop.product(price="4.00")
    old = two_lines(shop, sku, other)
    shop.product(stock=None, sku=sku, price="12.50")
    answer = again(shop, old, {})
    assert answer.status_code == 201, answer.text
    new = answer.json()
    assert answer.headers["location"] == f"/v1/orders/{new['id']}"
    assert new["id"] != old["id"]
    assert (new["status"], new["customer_id"], new["unavailable"]) == ("DRAFT", shop.customer, [])
    assert [(line["sku"], line["quantity"]) for line in new["items"]] == [(sku, 2), (other, 3)]
    assert new["items"][0]["unit_price"]["amount"] == "12.50"
    for field in ("shipping_address", "billing_address", "shipping_method", "currency"):
        assert new[field] == old[field]


def test_without_a_body_it_is_a_draft(shop: Shop) -> None:
    answer = again(shop, shop.draft(shop.product()))
    assert (answer.status_code, answer.json()["status"]) == (201, "DRAFT")


def test_submitted_at_once_and_paid(shop: Shop) -> None:
    old = shop.placed(shop.product())
    answer = again(shop, old, {"submit": True, "payment_token": "pm_card_visa"}, Prefer="wait=20")
    assert answer.status_code == 201, answer.text
    assert answer.json()["status"] == "PAYMENT_CONFIRMED"
    assert again(shop, old, {"submit": True, "payment_token": "pm_card_visa"}).json()["id"] != answer.json()["id"]


def test_a_cancelled_order_too_and_by_another_method(shop: Shop) -> None:
    old = shop.draft(shop.product(), 4)
    assert shop.call("POST", f"/v1/orders/{old['id']}/cancel", {}).status_code == 200
    new = again(shop, old, {"shipping_method": "express"}).json()
    assert (new["items"][0]["quantity"], new["shipping_method"]) == (4, "express")


def test_what_is_gone_is_left_out_and_named(shop: Shop) -> None:
    here, gone, short = shop.product(), shop.product(), shop.product(stock=3)
    items = [{"sku": here, "quantity": 1}, {"sku": gone, "quantity": 1}, {"sku": short, "quantity": 3}]
    old = shop.draft(here, items=items)
    off_sale(shop, gone)
    taken = shop.call("POST", f"/v1/admin/products/{short}/stock", {"delta": -2, "reason": "t"}, as_="staff")
    assert taken.status_code == 200, taken.text
    new = again(shop, old, {}).json()
    assert [line["sku"] for line in new["items"]] == [here]
    assert new["unavailable"] == [
        {"sku": gone, "name": f"Thing {gone}", "reason": "not_for_sale", "requested": 1, "available": None},
        {"sku": short, "name": f"Thing {short}", "reason": "too_few", "requested": 3, "available": 1},
    ]


def test_nothing_left(shop: Shop) -> None:
    sku = shop.product()
    old = shop.draft(sku)
    off_sale(shop, sku)
    for answer in (again(shop, old, {}), again(shop, old, {}, key="k"), again(shop, old, {}, "?dry_run=true")):
        found = problem(answer, 409, "nothing-to-reorder")
        assert [(line["sku"], line["reason"]) for line in found["unavailable"]] == [(sku, "not_for_sale")]
        assert sku in found["detail"]
    old = shop.draft(shop.product())
    found = problem(again(shop, old, {"currency": "JPY"}), 409, "nothing-to-reorder")
    assert found["unavailable"][0]["reason"] == "no_price"


def test_a_preview_leaves_nothing_behind(shop: Shop) -> None:
    sku, gone = shop.product(), shop.product()
    old = two_lines(shop, sku, gone)
    off_sale(shop, gone)
    preview = again(shop, old, {}, "?dry_run=true")
    assert preview.status_code == 200, preview.text
    shown = preview.json()
    assert [line["sku"] for line in shown["items"]] == [sku]
    assert [line["sku"] for line in shown["unavailable"]] == [gone]
    assert shown["shipping_options"]
    assert shop.call("POST", f"/v1/orders/{shown['id']}/cancel", {}).status_code == 404


def test_a_repeat_gets_the_same_order_and_the_same_lines_left_out(shop: Shop) -> None:
    sku, gone = shop.product(stock=4), shop.product()
    old = two_lines(shop, sku, gone)
    off_sale(shop, gone)
    key = uuid4().hex
    first = again(shop, old, {}, key=key)
    assert first.status_code == 201, first.text
    repeat = again(shop, old, {}, key=key)
    assert (repeat.status_code, repeat.json()) == (201, first.json())
    assert repeat.headers["location"] == first.headers["location"]
    # By now everything has turned round.
    off_sale(shop, sku)
    shop.product(stock=None, sku=gone)
    late = again(shop, old, {}, key=key)
    assert late.status_code == 201, late.text
    assert {**late.json(), "unavailable": []} == {**first.json(), "unavailable": []}
    assert [(line["sku"], line["reason"]) for line in late.json()["unavailable"]] == [(gone, "was_unavailable")]
    off_sale(shop, gone)
    assert again(shop, old, {}, key=key).json()["id"] == first.json()["id"]
    problem(again(shop, old, {"submit": True}, key=key), 422, "idempotency-key-reused", "Idempotency-Key")


def test_whose_order_it_is(shop: Shop) -> None:
    old = shop.draft(shop.product())
    problem(again(shop, old, {}, as_="somebody-else"), 404, "not-found")
    problem(again(shop, old, {}, as_=None), 401, "unauthorized")
    problem(again(shop, {"id": UNKNOWN}, {}), 404, "not-found")
    problem(again(shop, {"id": "x"}, {}), 404, "not-found")
    by_staff = again(shop, old, {}, as_="staff")
    assert by_staff.status_code == 201, by_staff.text
    assert by_staff.json()["customer_id"] == shop.customer
    assert shop.call("GET", f"/v1/orders/{by_staff.json()['id']}?min_version=1").status_code == 200


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"payment_token": "no good token"}, "payment_token"),
        ({"submit": "yes"}, "submit"),
        ({"shipping_method": ""}, "shipping_method"),
        ({"currency": "eur"}, "currency"),
        ({"items": []}, "items"),
        ([], "body"),
    ],
)
def test_a_bad_body_names_its_field(shop: Shop, body: Any, field: str) -> None:
    problem(again(shop, {"id": UNKNOWN}, body), 422, "invalid-request", field)


def test_the_rules_of_creation_hold(shop: Shop) -> None:
    old = shop.draft(shop.product())
    problem(again(shop, old, {"shipping_method": "balloon"}), 422, "unknown-shipping-method", "shipping_method")
    problem(again(shop, old, {"submit": True}), 422, "incomplete", "payment_token")
    bare = shop.draft(shop.product(), shipping_address=None, billing_address=None, shipping_method=None)
    assert again(shop, bare, {}).json()["shipping_address"] is None
    body = {"submit": True, "payment_token": "pm_card_visa"}
    problem(again(shop, bare, body), 422, "incomplete", "shipping_address")
