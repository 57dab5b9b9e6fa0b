"""Who may do what: 401 without a token, 403 for what only staff may, 404 for other people's orders."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from tests.gateway.conftest import BILL_TO, SHIP_TO, UNKNOWN, Shop, problem

pytestmark = pytest.mark.stack

ROUTES = [
    ("GET", "/v1/orders"),
    ("POST", "/v1/orders"),
    ("GET", f"/v1/orders/{UNKNOWN}"),
    ("GET", f"/v1/orders/{UNKNOWN}/events"),
    ("POST", f"/v1/orders/{UNKNOWN}/submit"),
    ("GET", "/v1/customers/somebody/orders"),
    ("GET", "/v1/products"),
    ("PUT", "/v1/admin/products/X"),
    ("GET", "/v1/kpis"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_nothing_without_a_token(shop: Shop, method: str, path: str) -> None:
    answer = shop.call(method, path, {} if method in ("POST", "PUT") else None, as_=None)
    problem(answer, 401, "unauthorized", "Authorization")
    assert answer.headers["www-authenticate"].startswith("Bearer")


def unsigned(claims: dict[str, Any]) -> str:
    parts = ({"alg": "none", "typ": "JWT"}, claims)
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts) + "."


@pytest.mark.parametrize("scheme", ["Bearer", "Basic"])
@pytest.mark.parametrize("token", ["x", "a.b.c", unsigned({"sub": "ada", "aud": "oms", "exp": 4102444800})])
def test_nothing_with_a_token_that_is_not_ours(shop: Shop, scheme: str, token: str) -> None:
    answer = shop.call("GET", "/v1/orders", as_=None, Authorization=f"{scheme} {token}")
    problem(answer, 401, "unauthorized")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        (
            "PUT",
            "/v1/admin/products/X",
            {"name": "x", "category": "c", "tax_category": "s", "weight_grams": 1, "prices": []},
        ),
        ("POST", "/v1/admin/products/X/stock", {"delta": 1, "reason": "x"}),
        ("GET", "/v1/kpis", None),
        ("GET", "/v1/kpis/completion", None),
        ("GET", "/v1/orders?customer_id=somebody-else", None),
    ],
)
def test_what_only_staff_may(shop: Shop, method: str, path: str, body: Any) -> None:
    problem(shop.call(method, path, body), 403, "forbidden")


def test_a_customer_cannot_order_for_somebody_else(shop: Shop) -> None:
    answer = shop.call("POST", "/v1/orders", shop.body("X", customer_id="somebody-else"))
    problem(answer, 403, "forbidden", "customer_id")


def test_staff_must_say_for_whom(shop: Shop) -> None:
    problem(shop.call("POST", "/v1/orders", shop.body("X"), as_="staff"), 422, "invalid-request", "customer_id")


def test_staff_act_for_a_customer_who_then_owns_the_order(shop: Shop) -> None:
    sku = shop.product()
    answer = shop.call("POST", "/v1/orders", shop.body(sku, customer_id=shop.customer), as_="staff")
    assert answer.status_code == 201, answer.text
    order = answer.json()
    assert order["customer_id"] == shop.customer
    path = f"/v1/orders/{order['id']}"
    assert shop.call("PUT", f"{path}/billing-address", {**BILL_TO, "name": "Charles"}, as_="staff").status_code == 200
    seen = shop.call("GET", f"{path}?min_version=2")
    assert seen.status_code == 200, seen.text
    assert seen.json()["billing_address"]["name"] == "Charles"
    events = shop.call("GET", f"{path}/events?min_version=2").json()["items"]
    assert [event["actor"] for event in events] == [f"staff:{shop.staff}"] * 2


def test_other_peoples_orders_do_not_exist(shop: Shop) -> None:
    sku = shop.product()
    order = shop.draft(sku)
    path = f"/v1/orders/{order['id']}"
    assert shop.call("GET", f"{path}?min_version=1").status_code == 200
    other = "somebody-else"
    for answer in (
        shop.call("GET", path, as_=other),
        shop.call("GET", f"{path}?min_version=1", as_=other),
        shop.call("GET", f"{path}/events", as_=other),
        shop.call("POST", f"{path}/items", {"sku": sku, "quantity": 1}, as_=other),
        shop.call("PATCH", f"{path}/items/L1", {"quantity": 2}, as_=other),
        shop.call("DELETE", f"{path}/items/L1", as_=other),
        shop.call("PUT", f"{path}/shipping-address", SHIP_TO, as_=other),
        shop.call("PUT", f"{path}/shipping-method", {"shipping_method": "express"}, as_=other),
        shop.call("POST", f"{path}/submit", {"payment_token": "pm_card_visa"}, as_=other),
        shop.call("POST", f"{path}/cancel", {"reason": "changed_mind"}, as_=other),
        shop.call("GET", f"/v1/customers/{shop.customer}/orders", as_=other),
    ):
        found = problem(answer, 404, "not-found")
        assert shop.customer not in json.dumps(found)
    assert shop.call("GET", path).json()["version"] == 1


@pytest.mark.parametrize("order_id", [UNKNOWN, "1", "..%2Fadmin", "ORDER", UNKNOWN.replace("-", "")])
def test_an_order_that_there_is_not(shop: Shop, order_id: str) -> None:
    for answer in (
        shop.call("GET", f"/v1/orders/{order_id}"),
        shop.call("POST", f"/v1/orders/{order_id}/cancel", {"reason": "changed_mind"}),
        shop.call("POST", f"/v1/orders/{order_id}/items", {"sku": "X", "quantity": 1}),
    ):
        assert answer.status_code == 404, answer.text
        assert answer.headers["content-type"] == "application/problem+json"
