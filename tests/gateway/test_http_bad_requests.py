"""Bad input gets a 4xx that names the field, as problem+json."""

from __future__ import annotations

from typing import Any

import pytest

from tests.gateway.conftest import BILL_TO, SHIP_TO, UNKNOWN, Shop, problem

pytestmark = pytest.mark.stack

ITEM = {"sku": "WHATEVER", "quantity": 1}
CARD = "4242 4242 4242 4242"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"items": []}, "items"),
        ({"items": None}, "items"),
        ({"items": [{"sku": "WHATEVER"}]}, "items[0].quantity"),
        ({"items": [ITEM, {**ITEM, "quantity": 0}]}, "items[1].quantity"),
        ({"items": [{**ITEM, "quantity": "1"}]}, "items[0].quantity"),
        ({"items": [{**ITEM, "quantity": True}]}, "items[0].quantity"),
        ({"items": [{**ITEM, "quantity": 10**30}]}, "items[0].quantity"),
        ({"items": [{**ITEM, "price": "0.01"}]}, "items[0].price"),
        ({"items": [{**ITEM, "sku": ""}]}, "items[0].sku"),
        ({"items": [{**ITEM, "sku": "no spaces"}]}, "items[0].sku"),
        ({"items": [ITEM] * 501}, "items"),
        ({"items": "WHATEVER"}, "items"),
        ({"currency": "EURO"}, "currency"),
        ({"currency": "eur"}, "currency"),
        ({"currency": 978}, "currency"),
        ({"shipping_address": {**SHIP_TO, "country": "XX"}}, "shipping_address.country"),
        ({"shipping_address": {**SHIP_TO, "country": "Germany"}}, "shipping_address.country"),
        ({"shipping_address": {**SHIP_TO, "recipient_name": "\u0007"}}, "shipping_address.recipient_name"),
        ({"shipping_address": {**SHIP_TO, "recipient_name": "\ud800"}}, "shipping_address.recipient_name"),
        ({"shipping_address": BILL_TO}, "shipping_address.recipient_name"),
        ({"billing_address": {**BILL_TO, "city": "x" * 201}}, "billing_address.city"),
        ({"billing_address": {**BILL_TO, "phone": "1"}}, "billing_address.phone"),
        ({"shipping_method": ""}, "shipping_method"),
        ({"payment_token": "no good token"}, "payment_token"),
        ({"promo_codes": ["A B"]}, "promo_codes[0]"),
        ({"submit": "yes"}, "submit"),
        ({"total": {"amount": "1.00", "currency": "EUR"}}, "total"),
    ],
)
def test_a_bad_order_names_its_field(shop: Shop, change: dict[str, Any], field: str) -> None:
    body = {**shop.body("WHATEVER"), **change}
    body = {name: value for name, value in body.items() if value is not None}
    problem(shop.call("POST", "/v1/orders", body), 422, "invalid-request", field)


def test_every_mistake_is_named_at_once(shop: Shop) -> None:
    found = problem(shop.call("POST", "/v1/orders", {"items": [{"sku": 1}], "currency": "?"}), 422, "invalid-request")
    assert {error["field"] for error in found["errors"]} == {"items[0].sku", "items[0].quantity", "currency"}


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe", b"[" * 100_000, b'{"items": ' + b"9" * 5000 + b"}"]
)
def test_a_body_that_is_no_json_object_is_the_callers_mistake(shop: Shop, raw: bytes) -> None:
    headers = {"Authorization": f"Bearer {shop.token('customer')}", "Content-Type": "application/json"}
    answer = shop.client.post("/v1/orders", content=raw, headers=headers)
    assert answer.status_code in (400, 422), answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_body_over_256_kib_is_too_large(shop: Shop) -> None:
    body = shop.body("WHATEVER", cart_id="x" * 300_000)
    problem(shop.call("POST", "/v1/orders", body), 413, "body-too-large")


def test_a_body_over_256_kib_is_too_large_also_without_a_declared_length(shop: Shop) -> None:
    headers = {"Authorization": f"Bearer {shop.token('customer')}", "Content-Type": "application/json"}
    answer = shop.client.post("/v1/orders", content=(b" " * 65536 for _ in range(5)), headers=headers)
    problem(answer, 413, "body-too-large")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"payment_token": "4242424242424242"}, "payment_token"),
        ({"payment_token": "pm_4242424242424242"}, "payment_token"),
        ({"cart_id": CARD}, "cart_id"),
        ({"shipping_address": {**SHIP_TO, "recipient_name": f"Ada {CARD}"}}, "shipping_address.recipient_name"),
        ({"promo_codes": ["OK", "3782-822463-10005"]}, "promo_codes[1]"),
        ({"cart_id": "４２４２４２４２４２４２４２４２"}, "cart_id"),
        ({"unknown": {"deep": [4242424242424242]}}, "unknown.deep[0]"),
    ],
)
def test_nothing_that_looks_like_a_card_number_is_taken(shop: Shop, change: dict[str, Any], field: str) -> None:
    answer = shop.call("POST", "/v1/orders", {**shop.body("WHATEVER"), **change})
    problem(answer, 422, "card-number", field)
    assert "4242" not in answer.text


def test_a_card_number_in_a_comment_is_not_taken(shop: Shop) -> None:
    body = {"reason": "changed_mind", "comment": f"refund to {CARD} please"}
    problem(shop.call("POST", f"/v1/orders/{UNKNOWN}/cancel", body), 422, "card-number", "comment")


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "items", {"sku": "A"}, "quantity"),
        ("PATCH", "items/L1", {"quantity": 0}, "quantity"),
        ("PUT", "shipping-address", {**SHIP_TO, "country": "de"}, "country"),
        ("PUT", "billing-address", SHIP_TO, "name"),
        ("PUT", "shipping-method", {}, "shipping_method"),
        ("POST", "submit", {"payment_token": "no good token"}, "payment_token"),
        (
            "POST",
            "submit",
            {"payment_token": "t", "accept_total": {"amount": "1.001", "currency": "EUR"}},
            "accept_total",
        ),
        ("POST", "submit", {"payment_token": "t", "accept_total": {"amount": "-1", "currency": "EUR"}}, "accept_total"),
        ("POST", "cancel", {"reason": "boredom"}, "reason"),
        ("POST", "cancel", {"items": []}, "items"),
    ],
)
def test_a_bad_change_names_its_field(shop: Shop, method: str, path: str, body: Any, field: str) -> None:
    problem(shop.call(method, f"/v1/orders/{UNKNOWN}/{path}", body), 422, "invalid-request", field)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"prices": [{"amount": "1.00", "currency": "EUR"}] * 2}, "prices"),
        ({"prices": [{"amount": "1.005", "currency": "EUR"}]}, "prices[0]"),
        ({"prices": [{"amount": "1.5", "currency": "JPY"}]}, "prices[0]"),
        ({"prices": [{"amount": "-1", "currency": "EUR"}]}, "prices[0]"),
        ({"prices": [{"amount": 1, "currency": "EUR"}]}, "prices[0].amount"),
        ({"weight_grams": -1}, "weight_grams"),
        ({"name": ""}, "name"),
        ({"stock": 7}, "stock"),
    ],
)
def test_a_bad_product_names_its_field(shop: Shop, change: dict[str, Any], field: str) -> None:
    product = {"name": "x", "category": "home", "tax_category": "standard", "weight_grams": 1, "prices": []}
    problem(shop.call("PUT", "/v1/admin/products/X", {**product, **change}, as_="staff"), 422, "invalid-request", field)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=x", "limit"),
        ("limit=101", "limit"),
        ("status=LOST", "status[0]"),
        ("created_from=yesterday", "created_from"),
        ("created_from=2026-01-01T00:00:00", "created_from"),
        ("created_from=5", "created_from"),
        ("sort=price", "sort"),
        ("country=Germany", "country"),
        ("total_min=5", "currency"),
        ("sort=-total", "currency"),
        ("currency=EUR&total_min=2&total_max=1", "total_max"),
        ("created_from=2026-02-01T00:00:00Z&created_to=2026-01-01T00:00:00Z", "created_to"),
        ("currency=EUR&total_min=cheap", "total_min"),
        ("id=x", "id[0]"),
        ("stauts=DRAFT", "stauts"),
    ],
)
def test_a_bad_filter_names_its_parameter(shop: Shop, query: str, field: str) -> None:
    problem(shop.call("GET", f"/v1/orders?{query}"), 422, "invalid-request", field)


def test_a_parameter_that_a_route_does_not_know_is_not_ignored(shop: Shop) -> None:
    sku = shop.product()
    typo = shop.call("POST", "/v1/orders?dryrun=true", shop.body(sku))
    problem(typo, 422, "invalid-request", "dryrun")
    assert "dry_run" in typo.json()["detail"]
    problem(shop.call("POST", f"/v1/orders/{UNKNOWN}/submit?wait=5", {}), 422, "invalid-request", "wait")
    problem(shop.call("GET", f"/v1/orders/{UNKNOWN}?versoin=1"), 422, "invalid-request", "versoin")
    problem(shop.call("GET", "/v1/products?serach=x"), 422, "invalid-request", "serach")


@pytest.mark.parametrize("cursor", ["x", "!!", "W10", "eyJhIjoxfQ", "WyJhIiwxLDJd"])
def test_a_cursor_that_is_none_of_ours(shop: Shop, cursor: str) -> None:
    problem(shop.call("GET", f"/v1/orders?cursor={cursor}"), 422, "invalid-cursor", "cursor")


@pytest.mark.parametrize("etag", ["3", "abc", '"x"', 'W/"3"', '"-1"'])
def test_a_bad_precondition_names_its_header(shop: Shop, etag: str) -> None:
    answer = shop.call("DELETE", f"/v1/orders/{UNKNOWN}/items/L1", If_Match=etag)
    problem(answer, 400, "invalid-request", "If-Match")


def test_an_idempotency_key_that_is_too_long(shop: Shop) -> None:
    answer = shop.call("POST", "/v1/orders", shop.body("WHATEVER"), key="k" * 256)
    problem(answer, 422, "invalid-request", "Idempotency-Key")


def test_an_address_that_leads_nowhere(shop: Shop) -> None:
    problem(shop.call("GET", "/v1/nothing"), 404, "no-such-route")


def test_a_method_that_an_address_does_not_know(shop: Shop) -> None:
    answer = shop.call("DELETE", "/v1/orders")
    problem(answer, 405, "method-not-allowed")
    assert {method.strip() for method in answer.headers["allow"].split(",")} >= {"POST"}
