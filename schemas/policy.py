"""The shop's rules as typed configuration. Defaults are in `policy.yaml`; every number a rule uses is named here."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import pycountry
import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from schemas.money import CurrencyCode
from schemas.order import OrderStatus

Percent = Annotated[Decimal, Field(ge=0, le=100)]
Duration = Annotated[timedelta, Field(gt=timedelta(0))]


def _country(code: str) -> str:
    if len(code) != 2 or code != code.upper() or pycountry.countries.get(alpha_2=code) is None:
        raise ValueError(f"{code!r} is not an ISO 3166-1 alpha-2 country code")
    return code


CountryCode = Annotated[str, AfterValidator(_country)]
MinorUnits = Annotated[int, Field(ge=0)]


@cache
def states(country: str) -> frozenset[str]:
    """The codes of a country's states (ISO 3166-2) as addresses have them, without the country in front."""
    return frozenset(s.code.partition("-")[2] for s in pycountry.subdivisions if s.country_code == country)


class Rules(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(Rules):
    """Bounds of one order."""

    max_lines: int = Field(default=100, ge=1, le=500)
    max_quantity: int = Field(default=999, ge=1)
    max_total: dict[CurrencyCode, MinorUnits] = Field(default={}, description="minor units; none: no limit")


class PaymentRules(Rules):
    timeout: Duration = Field(default=timedelta(minutes=15), description="unpaid orders are cancelled after this")
    submit_within: Duration = Field(
        default=timedelta(minutes=10),
        description="a charge is submitted at most this long after it was asked for; later the provider is only asked",
    )
    ask_first_after: Duration = Field(default=timedelta(seconds=5), description="no answer: ask again after this, …")
    ask_at_most_every: Duration = Field(default=timedelta(hours=1), description="… doubling up to this …")
    ask_times: int = Field(default=200, ge=1, description="… this often, then only a person can settle it")
    max_attempts: int = Field(default=1, ge=1, le=20, description="declined so often, the order is cancelled")
    capture: Literal["on_submission", "on_shipment"] = "on_submission"
    renew_before: Duration = Field(
        default=timedelta(days=1),
        description="an authorization is renewed so long before it expires, at half its time at the earliest",
    )
    feed: bool = Field(
        default=False,
        description="the provider reports what it did (POST /v1/payments/events): what it does not report is missed",
    )

    @model_validator(mode="after")
    def _inside(self) -> PaymentRules:
        if self.submit_within > self.timeout:
            raise ValueError("submit_within must not be longer than timeout")
        return self


class TaxRate(Rules):
    """The most specific rate wins: state before country, category before none. `percent` of the net price."""

    country: CountryCode
    state: str | None = None
    category: str | None = None
    percent: Percent

    @model_validator(mode="after")
    def _can_match(self) -> TaxRate:
        if self.state is not None and self.state not in states(self.country):
            raise ValueError(f"{self.country} has no state {self.state!r} (ISO 3166-2, as in CA of US-CA)")
        return self


class Zone(Rules):
    """Countries that a shipping method reaches alike: price = base + per_kg × every started kilogram, in minor units
    of the order's currency; it contains the tax where the country's prices do."""

    countries: tuple[CountryCode, ...] = Field(min_length=1)
    base: dict[CurrencyCode, MinorUnits]
    per_kg: dict[CurrencyCode, MinorUnits]
    max_weight_grams: int = Field(gt=0)
    business_days: int = Field(ge=0, description="from submission to delivery")

    @model_validator(mode="after")
    def _priced(self) -> Zone:
        if self.base.keys() != self.per_kg.keys():
            raise ValueError("base and per_kg must name the same currencies")
        return self


class ShippingMethod(Rules):
    """A way to ship. It goes to the countries of its zones only."""

    name: str
    zones: tuple[Zone, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_once(self) -> ShippingMethod:
        countries = [country for zone in self.zones for country in zone.countries]
        if twice := {country for country in countries if countries.count(country) > 1}:
            raise ValueError(f"in more than one zone: {', '.join(sorted(twice))}")
        return self

    def zone(self, country: str) -> Zone | None:
        return next((zone for zone in self.zones if country in zone.countries), None)


class CountryRules(Rules):
    """A country that is served: what its addresses must look like, and how prices, tax and customs work there.

    Duties are for goods from outside its customs union. DAP: the customer pays them on arrival, nothing is charged.
    DDP: the shop charges them (`duty_percent`, of the net price), and the country's tax is on the duty too."""

    postal_code: str | None = Field(default=None, description="regular expression of the whole; none: it may be absent")
    state: Literal["required", "optional"] = Field(default="optional", description="required: ISO 3166-2, without DE-")
    prices_include_tax: bool = False
    shipping_taxed: bool = Field(default=False, description="at the rate for all categories")
    incoterm: Literal["DAP", "DDP"] = "DAP"
    duty_percent: Percent = Decimal(0)
    category_duties: dict[str, Percent] = Field(default={}, description="category → its own duty_percent")

    @field_validator("postal_code")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"no regular expression: {error}") from error
        return value


class Customs(Rules):
    """Where goods leave from. Between the countries of one union there are no customs."""

    home: CountryCode
    union: frozenset[CountryCode] = frozenset()

    def crossed(self, country: str) -> bool:
        """Whether goods from home to this country go through customs."""
        return country != self.home and not {country, self.home} <= self.union


class EditRules(Rules):
    """Changes of placed orders."""

    modification_window: Duration = Field(
        default=timedelta(minutes=30), description="from payment to the begin of fulfilment"
    )
    timeout: Duration = Field(default=timedelta(minutes=10), description="an edit that waits longer fails")


class FraudRules(Rules):
    """Scores are 0 to 100 an aspect and are added up. Below `review_at` the order goes on, from `reject_at` on it is
    cancelled, between them it is held for a review. An edit that costs more is scored as an order of its own, and
    fails from `review_at` on."""

    enabled: bool = True
    review_at: int = Field(default=50, ge=1)
    reject_at: int = Field(default=100, ge=1)
    review_within: Duration = timedelta(hours=24)
    unreviewed: Literal["cancel", "release"] = "cancel"
    velocity_window: Duration = timedelta(hours=1)
    customer_orders: int = Field(default=50, ge=1, description="of a customer in the window; more scores …")
    customer_velocity_score: int = Field(default=60, ge=0, le=100)
    address_orders: int = Field(default=50, ge=1, description="to an address in the window; more scores …")
    address_velocity_score: int = Field(default=60, ge=0, le=100)
    amounts: dict[CurrencyCode, MinorUnits] = Field(default={}, description="minor units; a total above it scores …")
    amount_score: int = Field(default=50, ge=0, le=100)
    mismatch_score: int = Field(default=20, ge=0, le=100, description="shipped to another country than billed")

    @model_validator(mode="after")
    def _ordered(self) -> FraudRules:
        if self.review_at > self.reject_at:
            raise ValueError("review_at must not be above reject_at")
        return self


class FulfilmentRules(Rules):
    split: Literal["ship_complete", "ship_available"] = Field(
        default="ship_complete", description="what is there waits for what is back-ordered, or goes ahead"
    )
    delivery_attempts: int = Field(default=3, ge=1, le=10)
    redeliver_after: Duration = timedelta(days=1)
    undeliverable: Literal["reship", "cancel"] = "cancel"
    lost: Literal["reship", "cancel"] = "reship"
    max_reships: int = Field(default=1, ge=0, le=10, description="then it is cancelled with a refund")


class Condition(Rules):
    """What a returned unit in this condition leads to."""

    refund_percent: Percent
    restock: bool


class ReturnReason(Rules):
    """fault: whose it is; for the shop's own there is no restocking fee, and the shipping is given back too."""

    fault: Literal["shop", "customer"]


class ReturnRules(Rules):
    window: Duration = Field(default=timedelta(days=30), description="from delivery to the request")
    category_windows: dict[str, Annotated[timedelta, Field(ge=timedelta(0))]] = Field(
        default={}, description="category → its own window; PT0S: none"
    )
    send_back_within: Duration = timedelta(days=14)
    auto_approve: bool = Field(default=False, description="without staff, when the rules allow the return")
    reasons: dict[str, ReturnReason] = {}
    conditions: dict[str, Condition] = Field(
        default={"as_new": Condition(refund_percent=Decimal(100), restock=True)},
        min_length=1,
        description="the first is what goes without saying",
    )
    restocking_fee_percent: Percent = Decimal(0)
    category_fees: dict[str, Percent] = Field(default={}, description="category → its own restocking fee")


class RefundRules(Rules):
    """What staff gives back without a return."""

    reasons: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        default=("goodwill", "damaged", "late", "missing", "price", "other"), description="none: whatever staff says"
    )


WATCHED = (
    OrderStatus.PENDING_PAYMENT,
    OrderStatus.PAYMENT_CONFIRMED,
    OrderStatus.PROCESSING,
    OrderStatus.SHIPPED,
    OrderStatus.REFUND_REQUESTED,
)
"""In these an order waits for somebody. A draft is abandoned after a while, and the others are where orders end."""


def _watched(status: OrderStatus) -> OrderStatus:
    if status not in WATCHED:
        raise ValueError(f"nobody watches orders in {status}, only in {', '.join(WATCHED)}")
    return status


class DeadlineRules(Rules):
    draft_abandoned_after: Duration = timedelta(days=7)
    stuck_after: dict[Annotated[OrderStatus, AfterValidator(_watched)], Duration] = Field(
        default={}, description="status → an exception is raised after so long"
    )


class Policy(Rules):
    limits: Limits = Limits()
    payment: PaymentRules = PaymentRules()
    edits: EditRules = EditRules()
    fraud: FraudRules = FraudRules()
    fulfilment: FulfilmentRules = FulfilmentRules()
    returns: ReturnRules = ReturnRules()
    refunds: RefundRules = RefundRules()
    deadlines: DeadlineRules = DeadlineRules()
    customs: Customs
    countries: dict[CountryCode, CountryRules] = Field(description="where we ship")
    tax: tuple[TaxRate, ...]
    shipping: dict[str, ShippingMethod] = Field(min_length=1)
    idempotency_kept: Duration = timedelta(days=8)

    @model_validator(mode="after")
    def _complete(self) -> Policy:
        """Every country that is named is served, and every one that is served has a tax rate that always fits and a
        way to ship there."""
        always = {rate.country for rate in self.tax if rate.state is None and rate.category is None}
        zones = {country for method in self.shipping.values() for zone in method.zones for country in zone.countries}
        known = frozenset(self.countries)
        if strangers := ({rate.country for rate in self.tax} | zones | {self.customs.home}) - known:
            raise ValueError(f"not among countries: {', '.join(sorted(strangers))}")
        if untaxed := known - always:
            raise ValueError(f"tax: no rate for all states and categories of {', '.join(sorted(untaxed))}")
        if unreached := known - zones:
            raise ValueError(f"shipping: no zone has {', '.join(sorted(unreached))}")
        seen = set()
        for rate in self.tax:
            if (place := (rate.country, rate.state, rate.category)) in seen:
                raise ValueError(f"tax: more than one rate for {' '.join(filter(None, place))}")
            seen.add(place)
            if rate.state is not None and self.countries[rate.country].state != "required":
                raise ValueError(f"tax: {rate.country} has rates by state, so its addresses must require one")
        return self

    def scaled(self, factor: float) -> Policy:
        """The same rules where what takes a shop hours takes a demonstration seconds: the waits that nobody but a clock
        ends are divided by `factor`, and nobody waits longer for another delivery than twice for the first packing."""
        if factor == 1:
            return self
        window = self.edits.modification_window / factor
        edits = self.edits.model_copy(update={"modification_window": window})
        again = {"redeliver_after": min(self.fulfilment.redeliver_after / factor, 2 * window)}
        return self.model_copy(update={"edits": edits, "fulfilment": self.fulfilment.model_copy(update=again)})


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
        place = ".".join(map(str, first["loc"]))  # rules that span sections name theirs in the text
        raise PolicyError(": ".join(filter(None, (str(path), place, first["msg"])))) from error


def _shipped() -> Path:
    here = Path(__file__).parent
    checkout, wheel = here.parent / "policy.yaml", here / "policy.yaml"
    return checkout if checkout.exists() else wheel
