"""A shop to send requests to, with products of its own for each test, so that tests share one running stack."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

STREET = {"street_address": "Unter den Linden 1", "city": "Berlin", "postal_code": "10117", "country": "DE"}
SHIP_TO = {"recipient_name": "Ada Lovelace", **STREET}
BILL_TO = {"name": "Ada Lovelace", **STREET}
UNKNOWN = "00000000-0000-4000-8000-000000000000"


class Shop:
    """The gateway as customers and staff see it. `customer` is one that nobody else uses."""

    def __init__(self, stack: Any, client: httpx.Client) -> None:
        self.stack = stack
        self.client = client
        self.customer = f"c-{uuid4().hex[:12]}"
        self.staff = "test-staff"

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        as_: str | None = "customer",
        key: str | None = None,
        **more: str,
    ) -> httpx.Response:
        """`as_`: "customer", "staff", another customer's id, or None for nobody. `more`: headers, `_` for `-`."""
        headers = {name.replace("_", "-"): value for name, value in more.items()}
        if as_ is not None:
            headers["Authorization"] = f"Bearer {self.token(as_)}"
        if key is not None:
            headers["Idempotency-Key"] = key
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        return self.client.request(method, path, content=content, headers=headers)

    def token(self, as_: str) -> str:
        if as_ == "staff":
            return str(self.stack.token(admin=self.staff))
        return str(self.stack.token(customer=self.customer if as_ == "customer" else as_))

    def product(self, stock: int | None = 100, price: str = "10.00", sku: str | None = None, **changes: Any) -> str:
        """A product on sale; `stock` None: nobody ever counted it. Its SKU."""
        sku = sku or f"T-{uuid4().hex[:10]}"
        product = {
            "name": f"Thing {sku}",
            "category": "home",
            "tax_category": "standard",
            "weight_grams": 300,
            "prices": [{"amount": price, "currency": "EUR"}],
            **changes,
        }
        answer = self.call("PUT", f"/v1/admin/products/{sku}", product, as_="staff")
        assert answer.status_code in (200, 201), answer.text
        if stock:
            answer = self.call(
                "POST", f"/v1/admin/products/{sku}/stock", {"delta": stock, "reason": "test"}, as_="staff"
            )
            assert answer.status_code == 200, answer.text
        return sku

    def body(self, sku: str, quantity: int = 1, **changes: Any) -> dict[str, Any]:
        """What POST /v1/orders takes; None takes a field away."""
        whole = {
            "items": [{"sku": sku, "quantity": quantity}],
            "currency": "EUR",
            "shipping_address": SHIP_TO,
            "billing_address": BILL_TO,
            "shipping_method": "standard",
            **changes,
        }
        return {name: value for name, value in whole.items() if value is not None}

    def draft(self, sku: str, quantity: int = 1, **changes: Any) -> dict[str, Any]:
        answer = self.call("POST", "/v1/orders", self.body(sku, quantity, **changes))
        assert answer.status_code == 201, answer.text
        order: dict[str, Any] = answer.json()
        return order

    def placed(self, sku: str, quantity: int = 1, token: str = "pm_card_visa", **changes: Any) -> dict[str, Any]:
        return self.draft(sku, quantity, payment_token=token, submit=True, **changes)


@pytest.fixture
def shop(stack: Any) -> Iterator[Shop]:
    with httpx.Client(base_url=stack.url, timeout=40) as client:
        yield Shop(stack, client)


def problem(answer: httpx.Response, status: int, type: str, field: str | None = None) -> dict[str, Any]:
    """The problem document, after checking that it is one, of this type, and names this field."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert found["type"] == f"/problems/{type}"
    assert found["status"] == status
    assert found["title"]
    assert found["detail"]
    assert found["correlation_id"] == answer.headers["x-correlation-id"]
    if field is not None:
        assert field in [error["field"] for error in found["errors"]], found
    return found
