"""Things that many tests need: a quote, an address, a command, with everything that doesn't matter filled in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid5

from schemas import commands as c
from schemas.address import Address, Sealed
from schemas.base import Command, Event, Payload
from schemas.inventory import StockMoved
from schemas.order import PromotionTerms, Quote
from schemas.policy import Policy, load

POLICY: Policy = load()
T0 = datetime(2026, 3, 2, 10, 0, tzinfo=UTC)  # a Monday
NAMES = UUID("00000000-0000-0000-0000-00000000feed")
ORDER = str(uuid5(NAMES, "order"))


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


def quote(sku: str = "MUG", price: int = 1000, **changes: Any) -> Quote:
    values = {
        "product_id": f"P-{sku}",
        "sku": sku,
        "name": f"A {sku.lower()}",
        "category": "home",
        "tax_category": "standard",
        "weight_grams": 400,
        "unit_price": price,
    }
    return Quote(**{**values, **changes})


def counted(sku: str, version: int, quantity: int, on_hand: int) -> StockMoved:
    """Somebody counted: so many more are there than the books had, and so many in all."""
    return StockMoved(
        kind="adjusted",
        sku=sku,
        pool="main",
        quantity=quantity,
        on_hand=on_hand,
        reserved=0,
        shipped=0,
        version=version,
    )


def line(sku: str = "MUG", quantity: int = 1, price: int = 1000, **changes: Any) -> c.NewLine:
    return c.NewLine(quote=quote(sku, price, **changes), quantity=quantity)


POSTAL_CODES = {"AT": "1010", "GB": "BS6 5BZ", "JP": "604-8005", "NL": "1012 AB"}


def address(country: str = "DE", state: str | None = None, postal_code: str | None = None) -> Address:
    sealed = Sealed(key_id="k1", nonce="bm9uY2U=", ciphertext="c2VjcmV0")
    postal_code = postal_code or POSTAL_CODES.get(country, "10115")
    return Address(sealed=sealed, state=state, postal_code=postal_code, country=country)


def terms(code: str = "SPRING", kind: str = "percentage", **changes: Any) -> PromotionTerms:
    """A promotion: 10 % off everything, unless changed."""
    values = {"percent": "10"} if kind == "percentage" else {}
    return PromotionTerms(code=code, kind=kind, **{**values, **changes})


def create(*lines: c.NewLine, **changes: Any) -> c.CreateOrder:
    values = {
        "customer_id": "42",
        "currency": "EUR",
        "lines": lines or (line(),),
        "shipping_address": address(),
        "billing_address": address(),
        "shipping_method": "standard",
        "payment_token": "pm_card_visa",
    }
    return c.CreateOrder(**{**values, **changes})


def command(payload: Payload, *, order_id: str = ORDER, name: str = "1", **changes: Any) -> Command[Any]:
    values = {
        "id": str(uuid5(NAMES, f"{order_id}:{type(payload).__name__}:{name}")),
        "order_id": order_id,
        "at": T0,
        "actor": "customer:42",
        "correlation_id": "0190b8a0-0000-7000-8000-000000000001",
        "reply_to": "gateway-test",
    }
    return Command(**{**values, **changes}, data=payload)


def imported(version: int, payload: Payload, imported: bool = True) -> Event[Any]:
    """An event of ORDER's history from another system, or one of what came afterwards."""
    return Event(
        id=f"e{version}",
        order_id=ORDER,
        version=version,
        occurred_at=T0,
        actor="staff:import",
        correlation_id="c",
        causation_id="c",
        previous_hash="",
        data=payload,
        imported=imported,
    )
