"""What requests look like. Strict and closed: an unknown field, or a number in quotes, is a mistake to tell about."""

from __future__ import annotations

import re
from typing import Annotated, Any

import pycountry
from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
)

from schemas.money import CurrencyCode, Money
from schemas.order import CancellationReason

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def _printable(text: str) -> str:
    if _CONTROL.search(text):
        raise ValueError("must not contain control characters")
    return text


def _time(value: Any) -> Any:
    # Else a number would be a time too: seconds since 1970.
    if not isinstance(value, str) or value[4:5] != "-":
        raise ValueError("must be a time such as 2026-03-01T00:00:00Z")
    return value


Time = Annotated[AwareDatetime, Field(strict=False), BeforeValidator(_time)]


def _amount(money: Money) -> Money:
    if money.minor < 0:  # ValueError when it has more digits than its currency
        raise ValueError("must not be negative")
    return money


def _country(code: str) -> str:
    if len(code) != 2 or code != code.upper() or pycountry.countries.get(alpha_2=code) is None:
        raise ValueError("must be an ISO 3166-1 alpha-2 country code")
    return code


def text(longest: int, pattern: str | None = None) -> StringConstraints:
    return StringConstraints(min_length=1, max_length=longest, strip_whitespace=True, pattern=pattern)


Words = Annotated[str, text(200), AfterValidator(_printable)]
Name = Annotated[str, text(64, r"^[A-Za-z0-9][A-Za-z0-9_.:-]*$")]
Sku = Annotated[str, text(64, r"^[A-Za-z0-9][A-Za-z0-9_.:+-]*$"), Field(examples=["TEA-EARL-GREY"])]
CustomerId = Annotated[str, text(128), AfterValidator(_printable)]
Country = Annotated[str, AfterValidator(_country), Field(examples=["DE"])]
PromoCode = Annotated[Name, AfterValidator(str.upper), Field(examples=["SPRING10"])]
Amount = Annotated[Money, AfterValidator(_amount)]
# Policy has the shop's own bounds; this one keeps arithmetic inside 64 bits.
Quantity = Annotated[int, Field(ge=1, le=1_000_000)]


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class PlaceBody(Body):
    street_address: Words
    city: Words
    state: Annotated[str, text(64), AfterValidator(_printable)] | None = None
    postal_code: Annotated[str, text(16), AfterValidator(_printable)] | None = None
    country: Country


class ShippingAddressBody(PlaceBody):
    recipient_name: Words


class BillingAddressBody(PlaceBody):
    name: Words


class ItemBody(Body):
    sku: Sku
    quantity: Quantity


Why = Annotated[
    Annotated[str, text(500), AfterValidator(_printable)] | None, Field(description="why, for the audit trail")
]


class AddItemBody(ItemBody):
    reason: Why = None


class NewOrder(Body):
    items: Annotated[list[ItemBody], Field(min_length=1, max_length=500)]
    currency: CurrencyCode
    shipping_address: ShippingAddressBody | None = None
    billing_address: BillingAddressBody | None = None
    shipping_method: Name | None = None
    promo_codes: Annotated[list[PromoCode], Field(max_length=20)] = []
    payment_token: Name | None = None
    submit: bool = False
    cart_id: Annotated[str, text(64), AfterValidator(_printable)] | None = None
    customer_id: Annotated[CustomerId | None, Field(description="staff only: for whom")] = None


class QuantityBody(Body):
    quantity: Quantity
    reason: Why = None


class ShippingMethodBody(Body):
    shipping_method: Name
    reason: Why = None


class PromoCodeBody(Body):
    code: PromoCode
    reason: Why = None


class PayBody(Body):
    payment_token: Name


class SubmitBody(Body):
    payment_token: Annotated[Name | None, Field(description="not needed where the total is 0")] = None
    accept_total: Annotated[Amount | None, Field(description="agree to this total where prices have changed")] = None


class LineQuantityBody(Body):
    line_id: Annotated[str, text(16)]
    quantity: Quantity


class CancelBody(Body):
    reason: Annotated[CancellationReason, Field(strict=False)] = CancellationReason.CUSTOMER_REQUEST
    comment: Annotated[str, text(500)] | None = None
    items: Annotated[
        Annotated[list[LineQuantityBody], Field(min_length=1, max_length=500)] | None,
        Field(description="only these units; default: the whole order"),
    ] = None


class ProductBody(Body):
    product_id: Annotated[Sku | None, Field(description="default: as it was, or the SKU")] = None
    name: Words
    category: Name
    tax_category: Name
    weight_grams: Annotated[int, Field(ge=0, le=10_000_000)]
    prices: Annotated[
        list[Amount],
        Field(max_length=200, description="for one unit; with tax for countries whose prices include it, else before"),
    ]
    active: bool = True
    hs_code: Annotated[str, text(12, r"^\d{6,12}$"), Field(description="customs tariff number")] | None = None
    origin: Annotated[Country | None, Field(description="country of origin")] = None
    backorder: Annotated[bool, Field(description="may be sold when there is too little in stock")] = False

    @field_validator("prices")
    @classmethod
    def _one_price_a_currency(cls, prices: list[Money]) -> list[Money]:
        if len({price.currency for price in prices}) != len(prices):
            raise ValueError("must have one price a currency")
        return prices


class StockBody(Body):
    delta: Annotated[int, Field(ge=-1_000_000_000, le=1_000_000_000, description="units; negative takes away")]
    reason: Words
