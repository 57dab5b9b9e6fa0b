"""Totals, tax and shipping: they add up, for any order."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.order import pricing
from schemas.money import Money, digits, to_minor, to_text
from schemas.order import Line
from tests.support.examples import POLICY, T0, address, quote

lines = st.lists(
    st.builds(
        lambda i, price, quantity, category, grams: pricing.priced_line(
            f"L{i}", quote(f"S{i}", price, tax_category=category, weight_grams=grams), quantity
        ),
        st.integers(1, 99),
        st.integers(0, 10_000_000),
        st.integers(1, 999),
        st.sampled_from(["standard", "reduced", "zero"]),
        st.integers(0, 30),
    ),
    min_size=1,
    max_size=20,
)


@given(lines, st.sampled_from(["DE", "FR", "US", "JP"]), st.sampled_from(["standard", "express", None]))
def test_totals_add_up(found: list[Line], country: str, method: str | None) -> None:
    priced, totals = pricing.priced(found, "EUR", address(country), method, POLICY)
    assert totals.subtotal - totals.discount + totals.tax + totals.shipping == totals.total
    assert totals.tax == sum(line.tax for line in priced)
    assert totals.subtotal == sum(line.quantity * line.unit_price for line in priced)
    assert all(line.tax >= 0 for line in priced)


@pytest.mark.parametrize(
    ("country", "state", "category", "percent"),
    [
        ("DE", None, "standard", "19"),
        ("DE", None, "reduced", "7"),
        ("DE", "BE", "books-of-another-shop", "19"),
        ("US", "CA", "standard", "7.25"),
        ("US", "CA", "reduced", "0"),
        ("US", "NV", "standard", "0"),
        ("FR", None, "reduced", "5.5"),
    ],
)
def test_the_most_specific_tax_rate_wins(country: str, state: str | None, category: str, percent: str) -> None:
    assert pricing.tax_percent(country, state, category, POLICY) == Decimal(percent)


@pytest.mark.parametrize(("net", "tax"), [(50, 4), (47, 3), (7, 0), (8, 1), (0, 0)])
def test_tax_is_rounded_half_up_once_a_line(net: int, tax: int) -> None:
    # 7 %: 3.5 → 4, 3.29 → 3, 0.49 → 0, 0.56 → 1
    line = pricing.priced_line("L1", quote(price=net, tax_category="reduced"), 1)
    priced, _ = pricing.priced([line], "EUR", address("DE"), None, POLICY)
    assert priced[0].tax == tax


@pytest.mark.parametrize(("grams", "price"), [(0, 490), (1, 590), (1000, 590), (1001, 690)])
def test_shipping_counts_started_kilograms(grams: int, price: int) -> None:
    line = pricing.priced_line("L1", quote(weight_grams=grams), 1)
    assert pricing.shipping_price([line], "EUR", "standard", POLICY) == price


def test_delivery_is_estimated_in_business_days() -> None:
    assert pricing.estimated_delivery(T0, "standard", POLICY) == "2026-03-06"
    friday = T0.replace(day=6)
    assert pricing.estimated_delivery(friday, "express", POLICY) == "2026-03-09"


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [("129.90", "EUR", 12990), ("1", "EUR", 100), ("130", "JPY", 130), ("1.234", "KWD", 1234), ("-5.00", "USD", -500)],
)
def test_money_in_the_currencys_own_digits(amount: str, currency: str, minor: int) -> None:
    assert to_minor(amount, currency) == minor
    assert to_minor(to_text(minor, currency), currency) == minor


def test_money_that_can_not_be() -> None:
    with pytest.raises(ValueError, match="more digits than JPY"):
        to_minor("1.5", "JPY")
    with pytest.raises(ValueError, match="not an ISO 4217"):
        digits("EURO")
    with pytest.raises(ValueError, match="not an ISO 4217"):
        digits("eur")
    with pytest.raises(ValueError, match="NaN"):
        to_minor("NaN", "EUR")


@given(st.integers(-(10**12), 10**12), st.sampled_from(["EUR", "JPY", "KWD", "USD", "CLF"]))
def test_money_goes_out_and_comes_back(minor: int, currency: str) -> None:
    assert Money.of(minor, currency).minor == minor
