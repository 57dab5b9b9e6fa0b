"""What an order costs: pure arithmetic on integer minor units.

subtotal − discount + tax + shipping = total. Tax is rounded half up once a line, and the order's tax is the sum of
its lines', so that a part of an order can be given back to the cent. Catalogue prices are net.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

from schemas.address import Address
from schemas.order import Line, Quote, Totals
from schemas.policy import Policy, TaxRate
from schemas.replies import Rejection


def priced_line(line_id: str, quote: Quote, quantity: int) -> Line:
    """A line at the quote's price; tax comes when the address is known (`priced`)."""
    return Line(line_id=line_id, quantity=quantity, line_total=quote.unit_price * quantity, **quote.model_dump())


def priced(
    lines: Iterable[Line], currency: str, address: Address | None, method: str | None, policy: Policy
) -> tuple[tuple[Line, ...], Totals]:
    """Lines with their tax, and the order's totals. Before the address is known there is no tax, before the
    shipping method is chosen no shipping."""
    taxed = tuple(_taxed(line, address, policy) for line in lines)
    subtotal = sum(line.line_total for line in taxed)
    discount = sum(line.discount for line in taxed)
    tax = sum(line.tax for line in taxed)
    shipping = shipping_price(taxed, currency, method, policy) if method else 0
    total = subtotal - discount + tax + shipping
    return taxed, Totals(subtotal=subtotal, discount=discount, tax=tax, shipping=shipping, total=total)


def _taxed(line: Line, address: Address | None, policy: Policy) -> Line:
    if address is None:
        return line.model_copy(update={"tax": 0})
    percent = tax_percent(address.country, address.state, line.tax_category, policy)
    tax = (Decimal(line.line_total - line.discount) * percent / 100).quantize(Decimal(1), ROUND_HALF_UP)
    return line.model_copy(update={"tax": int(tax)})


def tax_percent(country: str, state: str | None, category: str, policy: Policy) -> Decimal:
    """The most specific rate: one for the state beats one for the country, one for the category beats one for all."""

    def fits(rate: TaxRate) -> bool:
        return rate.country == country and rate.state in (None, state) and rate.category in (None, category)

    def specificity(rate: TaxRate) -> tuple[bool, bool]:
        return rate.state is not None, rate.category is not None

    return max((rate for rate in policy.tax if fits(rate)), key=specificity).percent


def weight(lines: Iterable[Line]) -> int:
    """Grams."""
    return sum(line.weight_grams * line.quantity for line in lines)


def shipping_price(lines: Iterable[Line], currency: str, method: str, policy: Policy) -> int:
    """base + per_kg × every started kilogram. The method and its price in this currency exist (`shipping_problem`)."""
    rule = policy.shipping[method]
    kilograms = -(-weight(lines) // 1000)
    return rule.base[currency] + rule.per_kg[currency] * kilograms


def shipping_problem(lines: Iterable[Line], currency: str, method: str, policy: Policy) -> Rejection | None:
    """Why these lines can't go by this method, or None."""
    rule = policy.shipping.get(method)
    if rule is None:
        known = ", ".join(sorted(policy.shipping))
        return Rejection(
            type="unknown-shipping-method",
            status=422,
            field="shipping_method",
            detail=f"There is no shipping method {method!r}; there are {known}.",
        )
    if currency not in rule.base:
        return Rejection(
            type="no-shipping-price",
            status=422,
            field="currency",
            detail=f"Shipping by {method} has no price in {currency}; it has one in {', '.join(sorted(rule.base))}.",
        )
    if (grams := weight(lines)) > rule.max_weight_grams:
        return Rejection(
            type="too-heavy",
            status=422,
            field="shipping_method",
            detail=f"{grams} g are too heavy for {method}, which takes {rule.max_weight_grams} g.",
        )
    return None


def estimated_delivery(submitted_at: datetime, method: str, policy: Policy) -> str:
    """ISO date: the method's number of business days (Monday to Friday) after the day of submission."""
    day: date = submitted_at.date()
    left = policy.shipping[method].business_days
    while left > 0:
        day += timedelta(days=1)
        if day.weekday() < 5:
            left -= 1
    return day.isoformat()
