"""Money: integer minor units inside, `{"amount": "129.90", "currency": "EUR"}` outside.

How many digits a currency has comes from ISO 4217: pycountry says which codes exist, stockholm how many digits
they have.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Annotated

import pycountry
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from stockholm.currency import get_currency


@cache
def digits(currency: str) -> int:
    """How many decimal digits the currency has (JPY 0, EUR 2, KWD 3). ValueError when there is no such currency."""
    if pycountry.currencies.get(alpha_3=currency) is None or currency != currency.upper():
        raise ValueError(f"{currency!r} is not an ISO 4217 currency code")
    return int(get_currency(currency).decimal_digits)


def to_minor(amount: str, currency: str) -> int:
    """'129.90', 'EUR' → 12990. ValueError when it is no number or has more digits than the currency."""
    try:
        value = Decimal(amount).scaleb(digits(currency))
    except InvalidOperation as error:
        raise ValueError(f"{amount!r} is not an amount") from error
    if not value.is_finite() or value != value.to_integral_value():
        raise ValueError(f"{amount!r} has more digits than {currency} has ({digits(currency)})")
    return int(value)


def to_text(minor: int, currency: str) -> str:
    """12990, 'EUR' → '129.90'."""
    places = digits(currency)
    return f"{Decimal(minor).scaleb(-places):.{places}f}"


def _known(currency: str) -> str:
    digits(currency)
    return currency


CurrencyCode = Annotated[str, Field(examples=["EUR"]), AfterValidator(_known)]


class Money(BaseModel):
    """An amount as users see it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    amount: Annotated[str, Field(pattern=r"^-?\d{1,15}(\.\d{1,4})?$", examples=["129.90"])]
    currency: CurrencyCode

    @classmethod
    def of(cls, minor: int, currency: str) -> Money:
        return cls(amount=to_text(minor, currency), currency=currency)

    @property
    def minor(self) -> int:
        return to_minor(self.amount, self.currency)
