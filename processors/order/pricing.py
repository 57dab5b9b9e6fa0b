"""What an order costs: pure arithmetic on integer minor units. `price` is the one way to it.

subtotal − discount + tax + shipping = total, and line_total − discount + tax is what is paid for a line. Tax is rounded
half up once a line and once for shipping, and the order's tax is the sum of these, so that a part of an order can be
given back to the cent. Where a country's prices include the tax, it is taken out of them (rounded half up as well), and
what the customer sees and pays is the catalogue's price. docs/decisions/0011-pricing.md says why.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import cache

import holidays

from processors.order import promotions
from schemas.address import Address
from schemas.base import Instant, Model
from schemas.order import AppliedPromotion, Line, PromotionTerms, Quote, Totals
from schemas.policy import CountryRules, Policy, TaxRate, Zone
from schemas.replies import Rejection

ABROAD_UNKNOWN = CountryRules()
"""Before there is an address: net prices, no tax, no customs."""


class Priced(Model):
    """An order's lines and totals, what each promotion takes off (in the order they were given in), the day it should
    arrive (ISO date, when the shipping method is known), and DAP or DDP when it crosses a customs border."""

    lines: tuple[Line, ...]
    totals: Totals
    promotions: tuple[AppliedPromotion, ...] = ()
    estimated_delivery: str | None = None
    incoterm: str | None = None


def priced_line(line_id: str, quote: Quote, quantity: int) -> Line:
    """A line at the quote's price, without tax and discount (`price` knows them)."""
    return Line(line_id=line_id, quantity=quantity, line_total=quote.unit_price * quantity, **quote.model_dump())


def price(
    lines: Sequence[Line],
    currency: str,
    address: Address | None,
    method: str | None,
    terms: Sequence[PromotionTerms],
    at: Instant,
    policy: Policy,
    *,
    new: Collection[str] = (),
    free_shipping: bool = False,
) -> Priced | Rejection:
    """Lines (of which only the quantities and what their quotes said matter) priced for this address and method.

    Before the address is known there is no tax, and shipping is that of the home zone; before the method is known there
    is no shipping. `terms` are all promotions of the order; the codes in `new` are asked for now and refused where they
    don't fit (409), the others then take 0 off. `free_shipping`: it costs nothing anyway (an exchange).

    Rejections: no-lines, too-many-lines, quantity-out-of-range, country-not-served, those of `shipping_problem`, those
    of `promotions.problem`, total-too-high."""
    country = address.country if address else None
    refused = (
        _lines_problem(lines, policy)
        or country_problem(country, policy)
        or (method and shipping_problem(lines, currency, method, policy, country))
        or promotions.problem(lines, currency, terms, new, at)
    )
    if refused:
        return refused
    postage = 0 if free_shipping or not method else shipping_price(lines, currency, method, policy, country)
    discounts = promotions.evaluate(lines, currency, postage, terms)
    taxed = tuple(_taxed(line, off, address, policy) for line, off in zip(lines, discounts.lines, strict=True))
    shipping, shipping_tax = _taxed_shipping(postage - discounts.shipping, address, policy)
    subtotal = sum(line.line_total for line in taxed)
    discount = sum(line.discount for line in taxed)
    tax = sum(line.tax for line in taxed) + shipping_tax
    totals = Totals(
        subtotal=subtotal,
        discount=discount,
        tax=tax,
        shipping=shipping,
        total=subtotal - discount + tax + shipping,
        shipping_tax=shipping_tax,
        duty=sum(line.duty for line in taxed),
    )
    limit = policy.limits.max_total.get(currency)
    if limit is not None and totals.total > limit:
        return Rejection(
            type="total-too-high", status=422, field="items", detail="The total is above what one order may have."
        )
    return Priced(
        lines=taxed,
        totals=totals,
        promotions=discounts.promotions,
        estimated_delivery=estimated_delivery(at, method, policy, address) if method else None,
        incoterm=policy.countries[country].incoterm if country and policy.customs.crossed(country) else None,
    )


# Tax and duties


def _taxed(line: Line, off: int, address: Address | None, policy: Policy) -> Line:
    """The line with `off` (in terms of its catalogue price) taken off it, its tax and its duty."""
    rules = policy.countries[address.country] if address else ABROAD_UNKNOWN
    percent = _percent(address, line.tax_category, policy)
    before = line.unit_price * line.quantity
    after = before - off
    if rules.prices_include_tax:
        contained = _contained(after, percent)
        line_total, net = before - _contained(before, percent), after - contained
    else:
        contained, line_total, net = 0, before, after
    duty = 0
    if address and policy.customs.crossed(address.country) and rules.incoterm == "DDP":
        duty = _half_up(net * rules.category_duties.get(line.category, rules.duty_percent) / 100)
    on_top = duty if rules.prices_include_tax else net + duty
    return line.model_copy(
        update={
            "line_total": line_total,
            "discount": line_total - net,
            "tax": contained + _half_up(on_top * percent / 100) + duty,
            "duty": duty,
            "tax_included": rules.prices_include_tax,
        }
    )


def _taxed_shipping(postage: int, address: Address | None, policy: Policy) -> tuple[int, int]:
    """Shipping without tax, and its tax."""
    if address is None or not policy.countries[address.country].shipping_taxed:
        return postage, 0
    percent = _percent(address, None, policy)
    if policy.countries[address.country].prices_include_tax:
        tax = _contained(postage, percent)
        return postage - tax, tax
    return postage, _half_up(postage * percent / 100)


def _contained(gross: int, percent: Decimal) -> int:
    """The tax in a price that includes it."""
    return _half_up(gross * percent / (100 + percent))


def _half_up(amount: Decimal) -> int:
    """To whole minor units. (Amounts are never negative.)"""
    return int(amount.quantize(Decimal(1), ROUND_HALF_UP))


def _percent(address: Address | None, category: str | None, policy: Policy) -> Decimal:
    return tax_percent(address.country, address.state, category, policy) if address else Decimal(0)


def tax_percent(country: str, state: str | None, category: str | None, policy: Policy) -> Decimal:
    """The most specific rate: one for the state beats one for the country, one for the category beats one for all."""

    def fits(rate: TaxRate) -> bool:
        return rate.country == country and rate.state in (None, state) and rate.category in (None, category)

    def specificity(rate: TaxRate) -> tuple[bool, bool]:
        return rate.state is not None, rate.category is not None

    return max((rate for rate in policy.tax if fits(rate)), key=specificity).percent


# Shipping


def weight(lines: Iterable[Line]) -> int:
    """Grams."""
    return sum(line.weight_grams * line.quantity for line in lines)


def shipping_price(
    lines: Iterable[Line], currency: str, method: str, policy: Policy, country: str | None = None
) -> int:
    """base + per_kg × every started kilogram, of the country's zone (None: home), as the customer sees it: with tax
    where the country's prices include it. The method, its zone and its price in this currency exist
    (`shipping_problem`)."""
    zone = _zone(method, country, policy)
    if zone is None:
        raise ValueError(f"{method} does not go to {country}")
    kilograms = -(-weight(lines) // 1000)
    return zone.base[currency] + zone.per_kg[currency] * kilograms


def shipping_problem(
    lines: Iterable[Line], currency: str, method: str, policy: Policy, country: str | None = None
) -> Rejection | None:
    """Why these lines can't go to the country (None: home) by this method, or None: unknown-shipping-method,
    shipping-not-available, too-heavy (422 at shipping_method), no-shipping-price (422 at currency)."""
    rule = policy.shipping.get(method)
    if rule is None:
        known = ", ".join(sorted(policy.shipping))
        return _no_shipping("unknown-shipping-method", f"There is no shipping method {method!r}; there are {known}.")
    zone = _zone(method, country, policy)
    if zone is None:
        return _no_shipping("shipping-not-available", f"{rule.name} does not go to {country or policy.customs.home}.")
    if currency not in zone.base:
        known = ", ".join(sorted(zone.base))
        return Rejection(
            type="no-shipping-price",
            status=422,
            field="currency",
            detail=f"Shipping by {method} has no price in {currency}; it has one in {known}.",
        )
    if (grams := weight(lines)) > zone.max_weight_grams:
        return _no_shipping(
            "too-heavy", f"{grams} g are too heavy for {method}, which takes {zone.max_weight_grams} g."
        )
    return None


def _no_shipping(type: str, detail: str) -> Rejection:
    return Rejection(type=type, status=422, field="shipping_method", detail=detail)


def _zone(method: str, country: str | None, policy: Policy) -> Zone | None:
    return policy.shipping[method].zone(country or policy.customs.home)


def estimated_delivery(at: datetime, method: str, policy: Policy, address: Address | None = None) -> str:
    """ISO date: the method's number of business days after the day of submission (UTC). Weekends and public holidays
    are the destination's, those of its state too where the state's code is known; without an address home's."""
    country, state = (address.country, address.state) if address else (policy.customs.home, None)
    zone = _zone(method, country, policy)
    if zone is None:
        raise ValueError(f"{method} does not go to {country}")
    known = _CALENDARS.get(country, ())
    calendar = _calendar(country if country in _CALENDARS else None, state if state in known else None)
    day = at.date()
    return (calendar.get_nth_working_day(day, zone.business_days) if zone.business_days else day).isoformat()


_CALENDARS = holidays.list_supported_countries()  # country → its states that have holidays of their own


@cache
def _calendar(country: str | None, state: str | None) -> holidays.HolidayBase:
    """Made once: it works the years out as they are asked for. None: Saturdays and Sundays only."""
    return holidays.country_holidays(country, subdiv=state) if country else holidays.HolidayBase()


def _lines_problem(lines: Sequence[Line], policy: Policy) -> Rejection | None:
    if not lines:
        return Rejection(type="no-lines", status=422, field="items", detail="An order has at least one line.")
    if len(lines) > policy.limits.max_lines:
        return Rejection(
            type="too-many-lines",
            status=422,
            field="items",
            detail=f"An order has at most {policy.limits.max_lines} lines, not {len(lines)}.",
        )
    for i, line in enumerate(lines):
        if not 1 <= line.quantity <= policy.limits.max_quantity:
            return Rejection(
                type="quantity-out-of-range",
                status=422,
                field=f"items[{i}].quantity",
                detail=f"A line has a quantity from 1 to {policy.limits.max_quantity}, not {line.quantity}.",
            )
    return None


def country_problem(country: str | None, policy: Policy) -> Rejection | None:
    if country is None or country in policy.countries:
        return None
    return Rejection(
        type="country-not-served",
        status=422,
        field="shipping_address.country",
        detail=f"We do not ship to {country}; we ship to {', '.join(sorted(policy.countries))}.",
    )
