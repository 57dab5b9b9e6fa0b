"""The shop's rules as typed configuration. Defaults are in `policy.yaml`; every number a rule uses is named here."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schemas.money import CurrencyCode

Percent = Annotated[Decimal, Field(ge=0, le=100)]
Duration = Annotated[timedelta, Field(gt=timedelta(0))]


class Rules(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(Rules):
    """Bounds of one order."""

    max_lines: int = Field(default=100, ge=1, le=500)
    max_quantity: int = Field(default=999, ge=1)
    max_total: dict[CurrencyCode, int] = Field(default={}, description="minor units; none: no limit")


class PaymentRules(Rules):
    timeout: Duration = Field(default=timedelta(minutes=15), description="unpaid orders are cancelled after this")
    submit_within: Duration = Field(
        default=timedelta(minutes=10),
        description="a charge is submitted at most this long after it was asked for; later the provider is only asked",
    )
    ask_first_after: Duration = Field(default=timedelta(seconds=5), description="no answer: ask again after this, …")
    ask_at_most_every: Duration = Field(default=timedelta(hours=1), description="… doubling up to this …")
    ask_times: int = Field(default=200, ge=1, description="… this often, then only a person can settle it")

    @model_validator(mode="after")
    def _inside(self) -> PaymentRules:
        if self.submit_within > self.timeout:
            raise ValueError("submit_within must not be longer than timeout")
        return self


class TaxRate(Rules):
    """The most specific rate wins: state before country, category before none. `percent` of the net price."""

    country: str
    state: str | None = None
    category: str | None = None
    percent: Percent


class ShippingMethod(Rules):
    """price = base + per_kg × every started kilogram, in minor units of the order's currency."""

    name: str
    base: dict[CurrencyCode, int]
    per_kg: dict[CurrencyCode, int]
    max_weight_grams: int = Field(gt=0)
    business_days: int = Field(ge=0, description="from submission to delivery")


class Policy(Rules):
    limits: Limits = Limits()
    payment: PaymentRules = PaymentRules()
    tax: tuple[TaxRate, ...]
    shipping: dict[str, ShippingMethod]
    idempotency_kept: Duration = timedelta(days=8)

    @property
    def countries(self) -> frozenset[str]:
        """Where we ship: the countries with a tax rule."""
        return frozenset(rate.country for rate in self.tax)


class PolicyError(ValueError):
    """The policy file is wrong; the text names the place."""


def load(path: Path | None = None) -> Policy:
    """The policy of a file, or the shipped defaults. PolicyError names what is wrong and where."""
    path = path or _shipped()
    try:
        return Policy.model_validate(yaml.safe_load(path.read_text()))
    except (yaml.YAMLError, OSError) as error:
        raise PolicyError(f"{path}: {error}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise PolicyError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def _shipped() -> Path:
    here = Path(__file__).parent
    checkout, wheel = here.parent / "policy.yaml", here / "policy.yaml"
    return checkout if checkout.exists() else wheel
