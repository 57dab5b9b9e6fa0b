"""What promotions take off, when they can be had, and that it adds up to the cent."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.order import pricing, promotions
from processors.order.drafting import reprice
from schemas import commands as c
from schemas.order import Line, PromotionTerms
from tests.domain.order_story import Story
from tests.support.examples import POLICY, T0, at, create, line, quote, terms

MUGS_AND_LAMP = (line("MUG", 3, 1000), line("LAMP", 1, 5000, category="lighting"))


def lines(*wanted: c.NewLine) -> tuple[Line, ...]:
    return tuple(pricing.priced_line(f"L{i}", new.quote, new.quantity) for i, new in enumerate(wanted, start=1))


def off(*wanted: PromotionTerms, on: tuple[c.NewLine, ...] = MUGS_AND_LAMP, shipping: int = 590) -> list[int]:
    """What the promotions take off each line, and last off shipping."""
    found = promotions.evaluate(lines(*on), "EUR", shipping, wanted)
    assert sum(p.amount for p in found.promotions) == sum(found.lines) + found.shipping
    return [*found.lines, found.shipping]


@pytest.mark.parametrize(
    ("promotion", "expected"),
    [
        (terms(), [300, 500, 0]),
        (terms(percent="100"), [3000, 5000, 0]),
        (terms(percent="12.5", categories=("lighting",)), [0, 625, 0]),
        (terms(percent="50", skus=("MUG",), categories=("lighting",)), [1500, 2500, 0]),
        (terms(kind="fixed", amounts={"EUR": 1000}), [375, 625, 0]),
        (terms(kind="fixed", amounts={"EUR": 4000}, skus=("MUG",)), [3000, 0, 0]),
        (terms(kind="free_shipping"), [0, 0, 590]),
        (terms(kind="free_shipping", minimum_subtotal={"EUR": 8000}), [0, 0, 590]),
        # the units in a row: lamp, mug, mug, mug; of each two the second is free
        (terms(kind="buy_x_get_y", buy=1, get=1), [2000, 0, 0]),
        (terms(kind="buy_x_get_y", buy=1, get=1, skus=("MUG",)), [1000, 0, 0]),
        (terms(kind="buy_x_get_y", buy=2, get=1), [1000, 0, 0]),
        (terms(kind="buy_x_get_y", buy=1, get=3), [3000, 0, 0]),
        (terms(kind="buy_x_get_y", buy=0, get=2), [3000, 5000, 0]),
    ],
)
def test_each_kind(promotion: PromotionTerms, expected: list[int]) -> None:
    assert off(promotion) == expected


def test_an_amount_that_does_not_divide_goes_to_the_largest_remainders() -> None:
    three = tuple(line(f"S{i}", 1, 1000) for i in range(3))
    assert off(terms(kind="fixed", amounts={"EUR": 100}), on=three) == [34, 33, 33, 0]
    assert promotions.spread(100, [1, 1, 4]) == [17, 17, 66]  # 16.67, 16.67, 66.67: two left
    assert promotions.spread(5, [0, 3, 3]) == [0, 3, 2]
    assert promotions.spread(0, [0, 0]) == [0, 0]


@given(st.data())
def test_a_spread_adds_up_and_is_never_above_a_weight(data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(0, 10**9), min_size=1, max_size=50))
    amount = data.draw(st.integers(0, sum(weights)))
    parts = promotions.spread(amount, weights)
    assert sum(parts) == amount
    assert all(0 <= part <= weight for part, weight in zip(parts, weights, strict=True))
    if total := sum(weights):
        assert all(abs(part * total - amount * weight) < total for part, weight in zip(parts, weights, strict=True))


def test_percent_is_rounded_half_up_once() -> None:
    assert off(terms(percent="10"), on=(line("A", 1, 5),)) == [1, 0]  # 0.5
    assert off(terms(percent="10"), on=(line("A", 1, 4),)) == [0, 0]  # 0.4
    assert off(terms(percent="10"), on=(line("A", 1, 5), line("B", 1, 5))) == [1, 0, 0]  # 1.0 of both together


def test_the_order_of_stacking_is_fixed() -> None:
    """Two for one first, then 10 % of the rest, then 5.00 of what that left, and shipping: whoever came first."""
    wanted = (
        terms("A", "fixed", amounts={"EUR": 500}, skus=("MUG",)),
        terms("B", "free_shipping"),
        terms("C", skus=("MUG",)),
        terms("D", "buy_x_get_y", buy=1, get=1, skus=("MUG",)),
    )
    for order in permutations(wanted):
        found = promotions.evaluate(lines(*MUGS_AND_LAMP), "EUR", 590, order)
        assert [p.terms.code for p in found.promotions] == [t.code for t in order], "told in the order asked for"
        assert {p.terms.code: p.amount for p in found.promotions} == {"A": 500, "B": 590, "C": 200, "D": 1000}


# When they can be had

SPRING = terms(valid_from=T0, valid_until=at(60))


@pytest.mark.parametrize(
    ("wanted", "when", "type", "index"),
    [
        ((SPRING,), at(-1), "promotion-not-started", 0),
        ((SPRING,), at(60), "promotion-expired", 0),
        ((terms(active=False),), T0, "promotion-inactive", 0),
        ((terms(minimum_subtotal={"EUR": 8001}),), T0, "promotion-minimum", 0),
        ((terms(minimum_subtotal={"USD": 1}),), T0, "promotion-no-match", 0),
        ((terms("A"), terms("B", "fixed", amounts={"USD": 1})), T0, "promotion-no-match", 1),
        ((terms(skus=("CUP",), categories=("garden",)),), T0, "promotion-no-match", 0),
        ((terms(kind="free_shipping", skus=("CUP",)),), T0, "promotion-no-match", 0),
        ((terms(kind="buy_x_get_y", buy=4, get=1),), T0, "promotion-no-match", 0),
        ((terms(kind="lottery"),), T0, "promotion-no-match", 0),
        ((terms("A"), terms("B", exclusive=True)), T0, "promotion-exclusive", 0),
        ((terms("A"), terms("A")), T0, "promotion-twice", 1),
    ],
)
def test_what_can_not_be_had(wanted: tuple[PromotionTerms, ...], when: object, type: str, index: int) -> None:
    codes = tuple(t.code for t in wanted)
    story = Story().when(create(*MUGS_AND_LAMP, promo_codes=codes, promotions=wanted), at=when)
    story.refused(type, 409, f"promo_codes[{index}]")


def test_a_code_without_terms_is_unknown() -> None:
    story = Story().when(create(promo_codes=("SPRING", "SUMMER"), promotions=(terms(),)))
    story.refused("unknown-promo-code", 422, "promo_codes[1]")


def test_the_window_is_open_from_its_first_to_before_its_last_moment() -> None:
    for when in (T0, at(59.999999)):
        Story().given(create(promo_codes=("SPRING",), promotions=(SPRING,)), at=when)


def test_terms_that_nobody_asked_for_take_nothing_off() -> None:
    story = Story().given(create(promotions=(terms(),)))
    assert story.now.promotions == ()
    assert story.now.totals.discount == 0


def test_an_order_tells_its_promotions() -> None:
    free = terms("POST", "free_shipping")
    story = Story().given(create(line("MUG", 2), promo_codes=("POST", "SPRING"), promotions=(terms(), free)))
    # 20.00 − 2.00, 19 % of 18.00, no shipping
    assert story.now.totals.model_dump(exclude_defaults=True) == {
        "subtotal": 2000, "discount": 200, "tax": 342, "total": 2142,
    }  # fmt: skip
    assert [(p.terms.code, p.amount) for p in story.now.promotions] == [("POST", 590), ("SPRING", 200)]
    assert story.now.promo_codes == ("POST", "SPRING")


# In drafts, and when they are submitted


def test_a_promotion_that_no_longer_fits_takes_nothing_off_and_comes_back() -> None:
    minimum = terms(minimum_subtotal={"EUR": 3000})
    story = Story().given(create(line("MUG", 3), promo_codes=("SPRING",), promotions=(minimum,)))
    less = pricing_of(story, quantity=2)
    assert (less.totals.discount, [p.amount for p in less.promotions]) == (0, [0])
    more = pricing_of(story, quantity=4)
    assert (more.totals.discount, [p.amount for p in more.promotions]) == (400, [400])


def pricing_of(story: Story, quantity: int) -> pricing.Priced:
    changed = tuple(x.model_copy(update={"quantity": quantity}) for x in story.now.lines)
    priced = reprice(story.now, at(10**9), POLICY, lines=changed)
    assert isinstance(priced, pricing.Priced)
    return priced


def submit(*promotions: PromotionTerms, **changes: object) -> c.SubmitOrder:
    values = {"payment_token": "pm_card_visa", "quotes": (quote(),), "promotions": promotions}
    return c.SubmitOrder(**{**values, **changes})


def draft(*wanted: PromotionTerms, quantity: int = 2) -> Story:
    codes = tuple(t.code for t in wanted)
    return Story().given(create(line("MUG", quantity), promo_codes=codes, promotions=wanted))


def test_submitting_takes_the_terms_of_today() -> None:
    story = draft(terms()).when(submit(terms(percent="5"))).refused("price-changed", 409, "accept_total")
    assert story.refusal is not None
    before, after = story.refusal.extra["before"], story.refusal.extra["after"]
    assert (int(before), int(after)) == (1800 + 342 + 590 + 112, 1900 + 361 + 590 + 112)
    story.when(submit(terms(percent="5"), accepted_total=int(after))).then("OrderSubmitted", "OrderPaymentRequested")
    assert story.now.totals.discount == 100
    assert [p.terms.percent for p in story.now.promotions] == ["5"]


@pytest.mark.parametrize("over", [terms(valid_until=T0), terms(active=False), terms(minimum_subtotal={"EUR": 9999})])
def test_what_is_over_by_submission_falls_away_with_consent(over: PromotionTerms) -> None:
    story = draft(terms()).when(submit(over)).refused("price-changed", 409, "accept_total")
    assert story.refusal is not None
    story.given(submit(over, accepted_total=int(story.refusal.extra["after"])))
    assert (story.now.promotions, story.now.promo_codes, story.now.totals.discount) == ((), (), 0)


def test_promotions_that_became_exclusive_take_nothing_off_together() -> None:
    story = draft(terms("A"), terms("B", percent="5"))
    story.when(submit(terms("A", exclusive=True), terms("B", percent="5"))).refused(
        "price-changed", 409, "accept_total"
    )


def test_terms_that_the_gateway_forgot_are_asked_for() -> None:
    story = draft(terms()).when(submit())
    assert story.refusal is not None
    assert (story.refusal.type, story.refusal.extra["promo_codes"]) == ("quotes-missing", "SPRING")


def test_who_pays_nothing_needs_no_card() -> None:
    everything = (terms("ALL", percent="100"), terms("POST", "free_shipping"))
    story = draft(*everything).when(submit(*everything, payment_token=None))
    story.then("OrderSubmitted", "OrderPaymentRequested")
    assert story.now.status == "PENDING_PAYMENT"
    assert (story.now.totals.total, story.now.payments[0].amount) == (0, 0)
    story.given(
        c.ConfirmPayment(attempt_id=story.attempt, amount=0, provider_ref="nothing-to-pay"), actor="system:placement"
    )
    assert (story.now.status, story.now.captured) == ("PAYMENT_CONFIRMED", 0)


def test_of_a_promotion_that_takes_nothing_no_use_is_taken() -> None:
    """Shipping costs an exchange nothing, so a free-shipping code takes nothing off: it is not redeemed."""
    story = Story().given(
        create(submit=True, exchange_of="RMA-1", promo_codes=("P",), promotions=(terms("P", "free_shipping"),))
    )
    assert story.now.promotions == ()
