"""Promotions over HTTP, on the running stack: staff defines them, orders use them, and a limit holds."""

from __future__ import annotations

import time
from typing import Any
from uuid import uuid4

from tests.gateway.conftest import Shop, problem

PATH = "/v1/admin/promotions"


def code() -> str:
    return f"T{uuid4().hex[:10].upper()}"


def put(shop: Shop, name: str, key: str | None = None, **body: Any) -> Any:
    return shop.call("PUT", f"{PATH}/{name}", {"kind": "percentage", "percent": 10, **body}, as_="staff", key=key)


def used(shop: Shop, name: str, expected: int) -> dict[str, Any]:
    """The promotion, once so many uses are counted."""
    deadline = time.monotonic() + 20
    while True:
        found: dict[str, Any] = shop.call("GET", f"{PATH}/{name}", as_="staff").json()
        if found["used"] == expected:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def test_a_promotion_is_defined_changed_and_shown(shop: Shop) -> None:
    name = code()
    problem(shop.call("GET", f"{PATH}/{name}", as_="staff"), 404, "not-found")
    first = put(shop, name, limit=5)
    assert first.status_code == 201, first.text
    assert (first.json()["version"], first.json()["percent"], first.json()["used"]) == (1, "10", 0)
    second = put(shop, name, percent=12.5, valid_until="2099-01-01T00:00:00Z")
    assert second.status_code == 200
    assert second.json()["version"] == 2
    assert shop.call("GET", f"{PATH}/{name}", as_="staff").json() == second.json()
    assert shop.call("GET", f"{PATH}/{name.lower()}", as_="staff").json()["code"] == name


def test_a_repeat_gets_the_first_answer(shop: Shop) -> None:
    name, key = code(), uuid4().hex
    first = put(shop, name, key=key, limit=5)
    put(shop, name, limit=7)
    again = put(shop, name, key=key, limit=5)
    assert (again.status_code, again.json()) == (first.status_code, first.json())
    problem(put(shop, name, key=key, limit=9), 422, "idempotency-key-reused", "Idempotency-Key")
    assert shop.call("GET", f"{PATH}/{name}", as_="staff").json()["limit"] == 7


def test_promotions_are_listed_by_code_in_pages(shop: Shop) -> None:
    names = sorted(f"ZZ{code()}" for _ in range(3))
    for name in names:
        assert put(shop, name).status_code == 201
    seen: list[str] = []
    path: str | None = f"{PATH}?limit=2"
    while path is not None:
        answer = shop.call("GET", path, as_="staff")
        page = answer.json()
        seen += [item["code"] for item in page["items"]]
        path = f"{PATH}?limit=2&cursor={page['next']}" if page["next"] else None
        assert (path is None) == ("link" not in answer.headers)
    assert seen == sorted(set(seen))
    assert set(names) <= set(seen)
    problem(shop.call("GET", f"{PATH}?cursor=x", as_="staff"), 422, "invalid-cursor")


def test_an_order_uses_a_code_and_gives_it_back(shop: Shop) -> None:
    name, sku = code(), shop.product(price="100.00")
    put(shop, name, limit=1)
    order = shop.placed(sku, promo_codes=[name.lower()])
    assert order["promo_codes"] == [name]
    assert order["discount"] == {"amount": "10.00", "currency": "EUR"}
    used(shop, name, 1)
    refused = shop.call("POST", "/v1/orders", shop.body(sku, promo_codes=[name]))
    problem(refused, 409, "promotion-used-up", "promo_codes[0]")
    draft = shop.draft(sku)
    refused = shop.call("POST", f"/v1/orders/{draft['id']}/promo-codes", {"code": name})
    problem(refused, 409, "promotion-used-up", "code")
    cancelled = shop.call("POST", f"/v1/orders/{order['id']}/cancel", {"reason": "customer_request"})
    assert cancelled.status_code == 200, cancelled.text
    used(shop, name, 0)


def test_a_draft_that_costs_nothing_is_submitted_without_a_card(shop: Shop) -> None:
    goods, shipping = code(), code()
    assert put(shop, goods, percent=100).status_code == 201
    assert shop.call("PUT", f"{PATH}/{shipping}", {"kind": "free_shipping"}, as_="staff").status_code == 201
    draft = shop.draft(shop.product(), promo_codes=[goods, shipping])
    assert draft["total"] == {"amount": "0.00", "currency": "EUR"}
    path = f"/v1/orders/{draft['id']}"
    answer = shop.call("POST", f"{path}/submit", {}, Prefer="wait=20")
    assert (answer.status_code, answer.json()["status"]) == (200, "PAYMENT_CONFIRMED"), answer.text
    refused = shop.call("DELETE", f"{path}/promo-codes/{goods}")
    assert "place a new order" in problem(refused, 409, "no-payment-token")["detail"]


def test_the_last_use_goes_to_one_of_many(shop: Shop) -> None:
    name, sku = code(), shop.product(price="100.00")
    put(shop, name, limit=1)
    drafts = [shop.draft(sku, promo_codes=[name]) for _ in range(4)]
    orders = []
    for draft in drafts:
        body = {"payment_token": "pm_card_visa"}
        answer = shop.call("POST", f"/v1/orders/{draft['id']}/submit", body, Prefer="wait=20")
        assert answer.status_code == 200, answer.text
        orders.append(answer.json())
    won = [order for order in orders if order["status"] != "CANCELLED"]
    assert len(won) == 1
    reasons = {order["cancellation"]["reason"] for order in orders if order["status"] == "CANCELLED"}
    assert reasons == {"promotion_unavailable"}
    used(shop, name, 1)
