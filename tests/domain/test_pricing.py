"""Totals, tax, duties, shipping and delivery dates: they add up, for any order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.order import pricing
from processors.order.drafting import address_problem, reprice
from processors.order.pricing import Priced
from schemas import commands as c
from schemas.address import Address
from schemas.money import Money, digits, to_minor, to_text
from schemas.order import Line, PromotionTerms
from schemas.policy import CountryRules, Policy
from schemas.replies import Rejection
from tests.domain.order_story import Story
from tests.support.examples import POLICY, T0, address, at, create, line, quote, terms

STATES = {"US": ("CA", "NY", "NV")}
CURRENCIES = ("EUR", "USD", "GBP", "JPY")


def one(price: int = 1000, quantity: int = 1, **changes: Any) -> tuple[Line, ...]:
    return (pricing.priced_line("L1", quote(price=price, **changes), quantity),)


def priced(
    lines: tuple[Line, ...],
    where: Address | None = None,
    method: str | None = None,
    *promotions: PromotionTerms,
    currency: str = "EUR",
    policy: Policy = POLICY,
    **options: Any,
) -> Priced:
    found = pricing.price(lines, currency, where, method, promotions, T0, policy, **options)
    assert isinstance(found, Priced), found
    return found


# For any order


@dataclass(frozen=True)
class Case:
    lines: tuple[Line, ...]
    currency: str
    address: Address | None
    method: str | None
    terms: tuple[PromotionTerms, ...]

    def priced(self, **options: Any) -> Priced:
        return priced(self.lines, self.address, self.method, *self.terms, currency=self.currency, **options)


@st.composite
def lines(draw: st.DrawFn) -> tuple[Line, ...]:
    count = draw(st.integers(1, 12))
    return tuple(
        pricing.priced_line(
            f"L{i}",
            quote(
                f"S{i % 8}",
                draw(st.integers(0, 10_000_000)),
                category=draw(st.sampled_from(["clothing", "home", "books", "groceries"])),
                tax_category=draw(st.sampled_from(["standard", "reduced", "zero"])),
                weight_grams=draw(st.integers(0, 30)),
            ),
            draw(st.one_of(st.integers(1, 4), st.integers(1, 80))),
        )
        for i in range(count)
    )


@st.composite
def promotions(draw: st.DrawFn, code: str) -> PromotionTerms:
    kind = draw(st.sampled_from(["percentage", "fixed", "free_shipping", "buy_x_get_y"]))
    return PromotionTerms(
        code=code,
        kind=kind,
        percent=str(draw(st.decimals(0, 100, places=2))) if kind == "percentage" else "0",
        amounts=dict.fromkeys(CURRENCIES, draw(st.integers(0, 10**8))) if kind == "fixed" else {},
        buy=draw(st.integers(0, 3)),
        get=draw(st.integers(1, 3)),
        minimum_subtotal=draw(st.sampled_from([{}, dict.fromkeys(CURRENCIES, 10**6)])),
        skus=draw(st.sampled_from([(), ("S1", "S2")])),
        categories=draw(st.sampled_from([(), ("books", "home")])),
    )


@st.composite
def cases(draw: st.DrawFn) -> Case:
    country = draw(st.sampled_from([None, *sorted(POLICY.countries)]))
    where = address(country, draw(st.sampled_from(STATES.get(country, (None,))))) if country else None
    codes = draw(st.permutations([f"P{i}" for i in range(draw(st.integers(0, 4)))]))
    return Case(
        lines=draw(lines()),
        currency=draw(st.sampled_from(CURRENCIES)),
        address=where,
        method=draw(st.sampled_from(["standard", "express", None])),
        terms=tuple(draw(promotions(code)) for code in codes),
    )


@given(cases())
def test_every_order_adds_up(case: Case) -> None:
    found = case.priced()
    totals = found.totals
    assert totals.subtotal - totals.discount + totals.tax + totals.shipping == totals.total
    assert totals.subtotal == sum(x.line_total for x in found.lines)
    assert totals.discount == sum(x.discount for x in found.lines)
    assert totals.tax == sum(x.tax for x in found.lines) + totals.shipping_tax
    assert totals.duty == sum(x.duty for x in found.lines)
    assert totals.total == sum(x.paid for x in found.lines) + totals.shipping + totals.shipping_tax
    for x in found.lines:
        assert 0 <= x.discount <= x.line_total
        assert 0 <= x.duty <= x.tax
    assert totals.shipping >= 0 <= totals.shipping_tax


@given(cases())
def test_promotions_take_off_what_they_say(case: Case) -> None:
    """Between the promotions, the lines and shipping nothing is lost, on the price tags, where tax is in them too."""
    found, without = (
        priced(case.lines, case.address, case.method, *wanted, currency=case.currency, policy=NO_DUTIES)
        for wanted in (case.terms, ())
    )

    def tags(of: Priced) -> int:
        if of.lines[0].tax_included:
            return of.totals.total
        return of.totals.subtotal - of.totals.discount + of.totals.shipping

    assert tags(without) - tags(found) == sum(p.amount for p in found.promotions)
    assert [p.terms for p in found.promotions] == list(case.terms)


@given(cases())
def test_the_price_depends_on_nothing_but_what_is_asked_for(case: Case) -> None:
    """Pricing what was priced changes nothing, nor does the order of the promo codes."""
    found = case.priced()
    again = priced(found.lines, case.address, case.method, *case.terms, currency=case.currency)
    assert again == found
    turned = priced(case.lines, case.address, case.method, *reversed(case.terms), currency=case.currency)
    assert (turned.lines, turned.totals) == (found.lines, found.totals)


@given(cases())
def test_an_exchange_ships_free(case: Case) -> None:
    totals = case.priced(free_shipping=True).totals
    assert (totals.shipping, totals.shipping_tax) == (0, 0)


# Tax


@pytest.mark.parametrize(
    ("country", "state", "category", "percent"),
    [
        ("DE", None, "standard", "19"),
        ("DE", None, "reduced", "7"),
        ("DE", "BE", "books-of-another-shop", "19"),
        ("DE", None, None, "19"),
        ("US", "CA", "standard", "7.25"),
        ("US", "CA", "reduced", "0"),
        ("US", "NV", "standard", "0"),
        ("FR", None, "reduced", "5.5"),
    ],
)
def test_the_most_specific_tax_rate_wins(country: str, state: str | None, category: str | None, percent: str) -> None:
    assert pricing.tax_percent(country, state, category, POLICY) == Decimal(percent)


@pytest.mark.parametrize(("net", "tax"), [(50, 4), (47, 3), (7, 0), (8, 1), (0, 0)])
def test_tax_is_rounded_half_up_once_a_line(net: int, tax: int) -> None:
    # 7 %: 3.5 → 4, 3.29 → 3, 0.49 → 0, 0.56 → 1
    assert priced(one(net, tax_category="reduced"), address("DE")).lines[0].tax == tax


@pytest.mark.parametrize(("gross", "tax"), [(1200, 200), (3, 1), (2, 0), (1000, 167), (999, 167), (0, 0)])
def test_tax_in_prices_that_include_it_is_rounded_half_up(gross: int, tax: int) -> None:
    # 20 % of the net price are a sixth of the gross one: 0.5 → 1, 0.33 → 0, 166.67 → 167, 166.5 → 167
    found = priced(one(gross), address("GB"), policy=NO_DUTIES).lines[0]
    assert (found.tax, found.line_total, found.paid, found.tax_included) == (tax, gross - tax, gross, True)


def test_a_discount_on_prices_that_include_the_tax() -> None:
    """12.00 with 2.00 of tax; half of it off: the customer pays 6.00, of which 1.00 is tax."""
    found = priced(one(1200), address("GB"), None, terms(percent="50"), policy=NO_DUTIES)
    assert found.totals.model_dump(exclude_defaults=True) == {
        "subtotal": 1000, "discount": 500, "tax": 100, "total": 600,
    }  # fmt: skip
    assert found.promotions[0].amount == 600


@pytest.mark.parametrize(
    ("where", "shipping", "tax"),
    [
        (address("DE"), 590, 112),  # 19 % of 5.90: 1.121
        (address("FR"), 940, 188),
        (address("GB"), 1075, 215),  # a sixth of the 12.90 on the tag
        (address("JP"), 2140, 0),
        (address("US", "CA"), 2140, 0),
        (None, 590, 0),
    ],
)
def test_shipping_is_taxed_where_policy_says_so(where: Address | None, shipping: int, tax: int) -> None:
    free = one(0, tax_category="zero")  # at the standard rate, whatever is in the parcel
    totals = priced(free, where, "standard").totals
    assert (totals.shipping, totals.shipping_tax, totals.tax) == (shipping, tax, tax)
    assert totals.total == shipping + tax


def test_there_is_no_tax_before_there_is_an_address() -> None:
    found = priced(one())
    assert (found.totals.total, found.estimated_delivery, found.incoterm) == (1000, None, None)


# Duties


def with_country(country: str, **rules: Any) -> Policy:
    changed = POLICY.countries[country].model_copy(update=rules)
    return POLICY.model_copy(update={"countries": {**POLICY.countries, country: changed}})


NO_DUTIES = with_country("GB", incoterm="DAP")


@pytest.mark.parametrize(
    ("where", "incoterm"),
    [
        (None, None),
        (address("DE"), None),
        (address("FR"), None),
        (address("GB"), "DDP"),
        (address("US", "CA"), "DAP"),
        (address("JP"), "DAP"),
    ],
)
def test_who_pays_duties(where: Address | None, incoterm: str | None) -> None:
    found = priced(one(10_000, category="clothing"), where)
    assert found.incoterm == incoterm
    assert (found.totals.duty > 0) is (incoterm == "DDP")


def test_duties_are_part_of_the_tax_and_taxed_themselves() -> None:
    """GB, clothing at 12.00 with the tax in it: 10.00 net, 12 % duty of that, and 20 % tax on the duty."""
    found = priced(one(1200, category="clothing"), address("GB")).lines[0]
    assert (found.line_total, found.duty, found.tax, found.paid) == (1000, 120, 200 + 120 + 24, 1344)
    assert priced(one(1200, category="toys"), address("GB")).totals.duty == 0


def test_duties_where_tax_comes_on_top() -> None:
    policy = with_country("US", incoterm="DDP", duty_percent=Decimal(10), category_duties={"books": Decimal(0)})
    found = priced(one(1000), address("US", "CA"), policy=policy).lines[0]
    assert (found.duty, found.tax) == (100, 100 + 80)  # 7.25 % of 11.00: 79.75
    assert priced(one(1000, category="books"), address("US", "CA"), policy=policy).totals.duty == 0


def test_duties_are_of_what_is_left_after_the_discount() -> None:
    found = priced(one(1200, category="clothing"), address("GB"), None, terms(percent="100"))
    assert (found.totals.duty, found.totals.total) == (0, 0)


# Shipping


@pytest.mark.parametrize(("grams", "price"), [(0, 490), (1, 590), (1000, 590), (1001, 690)])
def test_shipping_counts_started_kilograms(grams: int, price: int) -> None:
    assert pricing.shipping_price(one(weight_grams=grams), "EUR", "standard", POLICY) == price


def test_shipping_is_priced_by_zone() -> None:
    found = {
        country: pricing.shipping_price(one(weight_grams=1500), "EUR", "standard", POLICY, country)
        for country in (None, "DE", "AT", "GB", "US")
    }
    assert found == {None: 690, "DE": 690, "AT": 1090, "GB": 1490, "US": 2590}


def test_a_method_does_not_go_everywhere() -> None:
    express = POLICY.shipping["express"]
    europe = express.model_copy(update={"zones": express.zones[:2]})
    policy = POLICY.model_copy(update={"shipping": {"express": europe}})
    story = Story(policy)
    story.when(create(shipping_method="express", shipping_address=address("JP")))
    story.refused("shipping-not-available", 422, "shipping_method")
    story.given(create(shipping_method="express", shipping_address=address("FR")))


# Delivery


@pytest.mark.parametrize(
    ("day", "method", "where", "expected"),
    [
        ("2026-03-02", "standard", None, "2026-03-06"),
        ("2026-03-06", "express", address("DE"), "2026-03-09"),  # over a weekend
        ("2026-03-07", "express", address("DE"), "2026-03-09"),  # from a Saturday
        ("2026-04-02", "standard", address("DE"), "2026-04-10"),  # over Good Friday and Easter Monday
        ("2026-04-02", "express", address("US", "CA"), "2026-04-07"),  # where neither is a holiday
        ("2026-06-03", "express", address("DE", "BY"), "2026-06-05"),  # Corpus Christi, in some states of Germany …
        ("2026-06-03", "express", address("DE", "BE"), "2026-06-04"),  # … but not in Berlin
        ("2026-06-03", "express", address("DE", "Bavaria, somewhere"), "2026-06-04"),  # unknown: the whole country's
        ("2026-12-24", "express", address("GB"), "2026-12-31"),  # three days after Christmas, Boxing Day and weekend
        ("2026-05-01", "express", address("JP"), "2026-05-11"),  # Golden Week
    ],
)
def test_delivery_is_estimated_in_the_destinations_business_days(
    day: str, method: str, where: Address | None, expected: str
) -> None:
    when = T0.fromisoformat(f"{day}T10:00:00+00:00")
    assert pricing.estimated_delivery(when, method, POLICY, where) == expected


def test_delivery_on_the_same_day() -> None:
    standard = POLICY.shipping["standard"]
    today = standard.model_copy(update={"zones": (standard.zones[0].model_copy(update={"business_days": 0}),)})
    policy = POLICY.model_copy(update={"shipping": {"standard": today}})
    assert pricing.estimated_delivery(T0, "standard", policy) == "2026-03-02"


def test_where_no_holidays_are_known_weekends_are() -> None:
    standard = POLICY.shipping["standard"]
    pole = standard.model_copy(update={"zones": (standard.zones[0].model_copy(update={"countries": ("EH",)}),)})
    policy = POLICY.model_copy(update={"shipping": {"standard": pole}})
    thursday = T0 + timedelta(days=3)
    assert pricing.estimated_delivery(thursday, "standard", policy, address("EH")) == "2026-03-11"


# Addresses


@pytest.mark.parametrize(
    ("where", "type", "field"),
    [
        (address("BR"), "country-not-served", "country"),
        (address("DE", None, "1011"), "invalid-postal-code", "postal_code"),
        (address("DE", None, "101155"), "invalid-postal-code", "postal_code"),
        (address("DE", None, "١٠١١٥"), "invalid-postal-code", "postal_code"),  # digits, but not ours
        (address("DE").model_copy(update={"postal_code": None}), "invalid-postal-code", "postal_code"),
        (address("GB", None, "10115"), "invalid-postal-code", "postal_code"),
        (address("NL", None, "1012"), "invalid-postal-code", "postal_code"),
        (address("US"), "invalid-state", "state"),
        (address("US", "California"), "invalid-state", "state"),
        (address("US", "BY"), "invalid-state", "state"),
    ],
)
def test_addresses_that_can_not_be(where: Address, type: str, field: str) -> None:
    story = Story().when(create(shipping_address=where))
    story.refused(type, 422, f"shipping_address.{field}")
    if type != "country-not-served":  # who pays may live anywhere
        story.when(create(billing_address=where)).refused(type, 422, f"billing_address.{field}")


@pytest.mark.parametrize(
    "where",
    [
        address("AT"),
        address("NL"),
        address("NL", None, "1012AB"),
        address("GB", None, "sw1a 1aa"),
        address("GB", None, "M1 1AE"),
        address("JP"),
        address("US", "CA", "94607"),
        address("US", "PR", "00901-1234"),
        address("DE", "somewhere in Bavaria"),
    ],
)
def test_addresses_that_can_be(where: Address) -> None:
    assert address_problem(where, POLICY) is None
    Story().given(create(shipping_address=where, billing_address=where))


def test_a_bill_goes_to_any_country() -> None:
    Story().given(create(billing_address=address("BR")))


# Limits


def test_a_total_has_a_limit() -> None:
    limited = POLICY.model_copy(update={"limits": POLICY.limits.model_copy(update={"max_total": {"EUR": 2000}})})
    Story(limited).when(create(line("MUG", 2))).refused("total-too-high", 422, "items")
    Story(limited).given(create(line("MUG", 1)))


# Repricing


def test_repricing_takes_what_is_new_and_keeps_the_rest() -> None:
    story = Story().given(create(line("MUG", 2), promo_codes=("SPRING",), promotions=(terms(),)))
    order = story.now

    def totals(**changes: Any) -> int:
        found = reprice(order, at(1), POLICY, **changes)
        assert isinstance(found, Priced), found
        return found.totals.total

    assert totals() == order.totals.total == 1800 + 342 + 590 + 112
    assert totals(terms=()) == 2000 + 380 + 590 + 112
    assert totals(method="express") == 1800 + 342 + 1540 + 293
    assert totals(address=address("US", "NV")) == 1800 + 2140
    assert totals(lines=(*order.lines, *one(500))) == 2250 + 428 + 690 + 131


@pytest.mark.parametrize(
    ("changes", "type", "field"),
    [
        ({"lines": ()}, "no-lines", "items"),
        ({"address": address("DE", None, "x")}, "invalid-postal-code", "shipping_address.postal_code"),
        ({"method": "drone"}, "unknown-shipping-method", "shipping_method"),
        ({"terms": (terms(), terms("NEW", skus=("CUP",)))}, "promotion-no-match", "promo_codes[1]"),
        ({"terms": (terms(), terms())}, "promotion-twice", "promo_codes[1]"),
        ({"terms": (terms(), terms("ALONE", exclusive=True))}, "promotion-exclusive", "promo_codes[1]"),
    ],
)
def test_repricing_refuses(changes: dict[str, Any], type: str, field: str) -> None:
    story = Story().given(create(promo_codes=("SPRING",), promotions=(terms(),)))
    found = reprice(story.now, at(1), POLICY, **changes)
    assert isinstance(found, Rejection)
    assert (found.type, found.field) == (type, field)


def test_what_units_have_been_through_survives_repricing() -> None:
    story = Story().given(create(line("MUG", 3)))
    changed = tuple(x.model_copy(update={"cancelled": 1, "quantity": 2}) for x in story.now.lines)
    found = reprice(story.now, at(1), POLICY, lines=changed)
    assert isinstance(found, Priced)
    assert (found.lines[0].cancelled, found.lines[0].line_total) == (1, 2000)


# Creation


def test_a_draft_says_when_it_is_abandoned_and_a_placed_order_never_is() -> None:
    created = Story().given(create()).history[0].data
    assert created.abandon_at == T0 + POLICY.deadlines.draft_abandoned_after
    assert Story().given(create(submit=True)).history[0].data.abandon_at is None


def test_a_submitted_order_says_whose_it_is_and_where_it_goes() -> None:
    story = Story().given(create(submit=True, shipping_address=address("GB"), shipping_method="express"))
    submitted = story.history[1].data
    assert (submitted.customer_id, submitted.shipping_address, submitted.billing_address) == (
        "42", address("GB"), address("DE"),
    )  # fmt: skip
    assert story.now.incoterm == submitted.incoterm == "DDP"
    assert story.now.estimated_delivery == submitted.estimated_delivery == "2026-03-05"


def test_an_order_is_promised_by_its_own_countrys_calendar() -> None:
    """Over Easter, whose Friday and Monday are holidays in Germany and not in the United States."""
    express = POLICY.shipping["express"]
    next_day = tuple(zone.model_copy(update={"business_days": 1}) for zone in express.zones)
    policy = POLICY.model_copy(update={"shipping": {"express": express.model_copy(update={"zones": next_day})}})
    promised = [
        Story(policy)
        .given(create(shipping_address=where, shipping_method="express"), at=T0.replace(month=4, day=2))
        .now.estimated_delivery
        for where in (address("DE"), address("US", "CA"))
    ]
    assert promised == ["2026-04-07", "2026-04-03"]


@pytest.mark.parametrize(("capture", "authorize"), [("on_submission", False), ("on_shipment", True)])
def test_capture_on_shipment_only_reserves_the_money(capture: str, authorize: bool) -> None:
    payment = POLICY.payment.model_copy(update={"capture": capture})
    story = Story(POLICY.model_copy(update={"payment": payment})).given(create(submit=True))
    assert story.history[2].data.authorize is authorize
    free = create(line("MUG", 1, 0), submit=True, exchange_of="RMA-1")
    assert Story(story.policy).given(free).history[2].data.authorize is False, "there is nothing to reserve"


def test_customs_data_goes_from_the_catalogue_to_the_line() -> None:
    story = Story().given(create(line(hs_code="691200", origin="PT", backorder=True)))
    assert [(x.hs_code, x.origin, x.backorder) for x in story.now.lines] == [("691200", "PT", True)]


def test_an_exchange_is_shipped_for_nothing_and_stays_so() -> None:
    story = Story().given(create(exchange_of="RMA-1"))
    assert (story.now.exchange_of, story.now.totals.total) == ("RMA-1", 1190)
    story.given(c.SubmitOrder(payment_token="pm_card_visa", quotes=(quote(),)))
    assert story.now.totals.shipping == 0


# Policy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"customs": {"home": "BR"}}, "not among countries: BR"),
        ({"countries": {"DE": CountryRules(), "BR": CountryRules()}}, "not among countries"),
        ({"tax": [{"country": "DE", "percent": 19}]}, "no rate for all states and categories of AT"),
        ({"tax": [*POLICY.tax, {"country": "DE", "percent": 16}]}, "more than one rate for DE"),
        ({"countries": {**POLICY.countries, "US": CountryRules()}}, "US has rates by state"),
        ({"countries": {**POLICY.countries, "XX": CountryRules()}}, "not an ISO 3166-1"),
        ({"countries": {**POLICY.countries, "DE": {"postal_code": "("}}}, "no regular expression"),
        (
            {"shipping": {"x": {"name": "X", "zones": [POLICY.shipping["express"].zones[0]] * 2}}},
            "in more than one zone: DE",
        ),
        (
            {"shipping": {"x": {"name": "X", "zones": [{
                "countries": ["DE"], "base": {"EUR": 1}, "per_kg": {}, "max_weight_grams": 1, "business_days": 1,
            }]}}},
            "the same currencies",
        ),
    ],
)  # fmt: skip
def test_a_policy_that_contradicts_itself_does_not_start(changes: dict[str, Any], message: str) -> None:
    rules = {name: getattr(POLICY, name) for name in Policy.model_fields}
    with pytest.raises(ValueError, match=message):
        Policy.model_validate({**rules, **changes})


# Money


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
