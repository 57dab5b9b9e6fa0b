"""The history of another shop, as `oms import` takes it (docs/import.md): made up, the same each time. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

Document = dict[str, Any]

THEN = datetime(2019, 3, 2, 10, tzinfo=UTC)
HOME = {
    "name": "Ada Lovelace",
    "street_address": "Torstr. 1",
    "city": "Berlin",
    "postal_code": "10119",
    "country": "DE",
}
STATUSES = ("DELIVERED", "CANCELLED", "REFUNDED", "DELIVERED", "DRAFT", "DELIVERED")
"""What becomes of the n-th order: delivered, cancelled, refunded, reviewed, draft, refunded in part."""


def past(n: int, sku: str, customer: str) -> Document:
    """The n-th order of the old shop; 2 × 10.00 + 3.80 tax + 4.90 shipping."""
    began = THEN + timedelta(hours=n)

    def at(**later: float) -> str:
        return (began + timedelta(**later)).isoformat()

    order = {
        "id": f"old-{n}",
        "customer_id": customer,
        "currency": "EUR",
        "created_at": at(),
        "items": [{"sku": sku, "name": "A mug", "quantity": 2, "unit_price": "10.00", "tax": "3.80"}],
        "shipping": "4.90",
        "total": "28.70",
        "shipping_address": HOME,
        "billing_address": HOME,
        "shipping_method": "dhl",
    }
    paid = {"submitted_at": at(minutes=5), "payments": [{"at": at(minutes=6), "status": "captured", "reference": "ch"}]}
    sent = {"shipments": [{"shipped_at": at(days=1), "delivered_at": at(days=3), "carrier": "DHL"}]}
    kinds: tuple[Document, ...] = (
        {**paid, **sent},
        {**paid, "cancelled": {"at": at(hours=1), "reason": "changed_mind", "comment": "too late"}},
        {**paid, **sent, "refunds": [{"at": at(days=9), "amount": "28.70", "reason": "broken", "reference": "re"}]},
        {**paid, **sent, "review": {"at": at(days=9), "score": 1 + n % 5, "comment": "as ever"}},
        {},
        {**paid, **sent, "refunds": [{"at": at(days=9), "amount": "5.00"}]},
    )
    return {**order, **kinds[n % len(kinds)]}


def lines(documents: Iterable[Document]) -> str:
    return "".join(json.dumps(document) + "\n" for document in documents)
