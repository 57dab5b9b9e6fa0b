"""An order that was delivered, made by hand: prices that don't divide, so that rounding shows."""

from __future__ import annotations

from typing import Any

from schemas.order import Line, Order, Payment, Totals
from tests.domain.order_story import Story
from tests.support.examples import ORDER, POLICY, T0, address

ATTEMPT = "attempt-1"
NUMBER = "AAAAA-BBBBB"
RMA = f"RMA-{NUMBER}-1"


def delivered_line(line_id: str = "L1", quantity: int = 3, paid: int = 1000, **changes: Any) -> Line:
    """A line of `quantity` units for which `paid` was paid, tax included; all of it arrived."""
    tax = paid * 19 // 119
    values: dict[str, Any] = {
        "line_id": line_id,
        "product_id": "P",
        "sku": f"SKU-{line_id}",
        "name": "Mug",
        "category": "home",
        "tax_category": "standard",
        "weight_grams": 400,
        "quantity": quantity,
        "unit_price": paid // quantity,
        "line_total": paid - tax,
        "tax": tax,
        "shipped": quantity,
        "delivered": quantity,
    }
    return Line(**{**values, **changes})


def delivered(*lines: Line, shipping: int = 490, shipping_tax: int = 93, **changes: Any) -> Order:
    """Paid in one payment, unless `payments` says otherwise. Delivered at T0, at version 0."""
    lines = lines or (delivered_line(),)
    totals = Totals(
        subtotal=sum(line.line_total for line in lines),
        discount=sum(line.discount for line in lines),
        tax=sum(line.tax for line in lines) + shipping_tax,
        shipping=shipping,
        shipping_tax=shipping_tax,
        total=sum(line.paid for line in lines) + shipping + shipping_tax,
    )
    values: dict[str, Any] = {
        "order_id": ORDER,
        "number": NUMBER,
        "customer_id": "42",
        "status": "DELIVERED",
        "version": 0,
        "currency": "EUR",
        "created_at": T0,
        "updated_at": T0,
        "lines": lines,
        "totals": totals,
        "shipping_address": address(),
        "billing_address": address("FR"),
        "shipping_method": "standard",
        "payment_token": "pm_card_visa",
        "payments": (Payment(attempt_id=ATTEMPT, amount=totals.total, status="captured"),),
        "delivered_at": T0,
    }
    return Order(**{**values, **changes})


def story(order: Order | None = None, policy: Any = POLICY) -> Story:
    """A story that goes on from a delivered order."""
    told = Story(policy)
    told.order = order or delivered()
    return told
