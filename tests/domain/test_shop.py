"""The simulated shop's parts that need no shop: the catalogue, the plan, the arrivals, percentiles, the books."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from gateway.models import NewOrder, ProductBody
from gateway.routes.preferences import PreferencesBody
from gateway.routes.promotions import PromotionBody
from processors.order.drafting import address_problem
from processors.order.promotions import STACKING
from runtime.errors import UserError
from sandbox.books import Books, audit
from sandbox.catalogue import catalogue
from sandbox.mix import MixError, mixed, parse_share
from sandbox.people import (
    BIG,
    CODES,
    CONDITIONS,
    DRAFTS,
    MAX_GRAMS,
    MIX,
    NOT_RETURNABLE,
    PLACES,
    UNIT_REASONS,
    WHOLE_REASONS,
    Persona,
    Visit,
    arrivals,
    plan,
)
from sandbox.promotions import PROMOTIONS
from sandbox.shop import open_loop, order_body
from sandbox.shop_cli import chosen_mix, demo_rules, run_async
from sandbox.tally import Outcome, Tally, percentile, stages
from schemas.inventory import StockLevel, StockMoved
from schemas.money import to_minor
from schemas.order import (
    AppliedPromotion,
    Line,
    Order,
    Payment,
    PromotionTerms,
    Refund,
    Return,
    ReturnItem,
    Shipment,
    ShipmentLine,
    Totals,
)
from schemas.policy import load
from schemas.promotion import PromotionLevel
from tests.support.examples import address

POLICY = load()
BY_SKU = {product.sku: product for product in catalogue()}


# The catalogue


def test_the_catalogue_is_large_and_varied() -> None:
    assert len(BY_SKU) == len(catalogue()) >= 60
    assert len({product.category for product in catalogue()}) >= 6
    assert {product.tax_category for product in catalogue()} >= {"standard", "reduced"}
    assert 3 <= sum(product.scarce for product in catalogue()) <= 10


def test_every_product_has_a_positive_price_in_every_currency_and_is_one_the_gateway_takes() -> None:
    for product in catalogue():
        assert all(product.price(currency) > 0 for currency in ("EUR", "USD", "GBP", "JPY")), product
        ProductBody.model_validate(product.body())


# The plan


def test_the_same_seed_gives_the_same_plan_and_another_seed_another() -> None:
    assert list(plan(7, 200, catalogue())) == list(plan(7, 200, catalogue()))
    assert list(plan(7, 200, catalogue())) != list(plan(8, 200, catalogue()))


@pytest.mark.parametrize("count", [1, 10, 137, 1000])
def test_every_persona_has_its_share(count: int) -> None:
    found = Counter(visit.persona for visit in plan(1, count, catalogue()))
    assert found.total() == count
    for persona, share in MIX.items():
        assert abs(found[persona] - share * count) < 1, persona


def test_shares_add_up_to_one() -> None:
    assert math.isclose(sum(MIX.values()), 1.0)


def test_baskets_can_be_ordered() -> None:
    for visit in plan(3, 2000, catalogue()):
        skus = [sku for sku, _ in visit.basket]
        assert skus
        assert len(set(skus)) == len(skus)
        assert sum(BY_SKU[sku].weight_grams * quantity for sku, quantity in visit.basket) <= MAX_GRAMS
        assert any(BY_SKU[sku].scarce for sku in skus) is (visit.persona is Persona.WANTS_SCARCE)
        assert any(BY_SKU[sku].backorder for sku in skus) is (visit.persona is Persona.WAITS_FOR_STOCK)
        assert visit.shipping_method in POLICY.shipping
        NewOrder.model_validate(order_body(visit))


def test_a_draft_that_grew_can_still_be_shipped() -> None:
    limit = min(zone.max_weight_grams for method in POLICY.shipping.values() for zone in method.zones)
    for visit in plan(5, 3000, catalogue(), {Persona.BUILDS_DRAFT: 1.0}):
        assert visit.added is not None
        sku, quantity = visit.added
        grams = sum(BY_SKU[sku].weight_grams * count for sku, count in visit.basket)
        assert grams + BY_SKU[sku].weight_grams * (quantity + 1) <= limit


def test_we_ship_to_everyone() -> None:
    assert {place.country for place in PLACES} == {"DE", "FR", "US", "GB", "JP"}
    assert {place.country for place in PLACES} <= POLICY.countries.keys()
    for place in PLACES:
        assert address_problem(address(place.country, place.state, place.postal_code), POLICY) is None
        for method in POLICY.shipping.values():
            zone = method.zone(place.country)
            assert zone is not None
            assert place.currency in zone.base


def test_drafts_come_without_a_card_and_declined_cards_with_theirs() -> None:
    for visit in plan(1, 300, catalogue()):
        body = order_body(visit)
        draft = visit.persona in DRAFTS
        assert body["submit"] is not draft
        assert ("payment_token" in body) is not draft
        if visit.persona is Persona.DECLINED_CARD:
            assert body["payment_token"] == "pm_card_chargeDeclined"


def visits(persona: Persona, count: int = 300) -> list[Visit]:
    return list(plan(11, count, catalogue(), {persona: 1.0}))


def test_a_big_spender_s_order_is_above_what_policy_reviews() -> None:
    for visit in visits(Persona.BIG_SPENDER):
        currency = visit.customer.currency
        total = sum(BY_SKU[sku].price(currency) * quantity for sku, quantity in visit.basket)
        assert total >= to_minor(BIG[currency], currency) > POLICY.fraud.amounts[currency]


def test_nobody_else_spends_that_much() -> None:
    most = max(
        sum(BY_SKU[sku].price("EUR") * quantity for sku, quantity in visit.basket)
        for visit in plan(5, 3000, catalogue())
        if visit.persona is not Persona.BIG_SPENDER
    )
    assert most < POLICY.fraud.amounts["EUR"]


def test_what_comes_back_may_come_back() -> None:
    for visit in [*visits(Persona.RETURNS), *visits(Persona.EXCHANGES)]:
        returning = visit.returning
        assert returning is not None
        assert {BY_SKU[sku].category for sku, _ in visit.basket}.isdisjoint(NOT_RETURNABLE)
        assert returning.sku in dict(visit.basket)
        assert returning.reason in POLICY.returns.reasons
        assert returning.condition in POLICY.returns.conditions
        assert (returning.exchange_sku is not None) is (visit.persona is Persona.EXCHANGES)
        assert returning.exchange_sku != returning.sku


def test_the_plan_speaks_policy_s_words() -> None:
    """Categories that policy excludes from returns are those that nobody of ours returns; whole returns are the shop's
    fault, so that they lead to all the money."""
    excluded = {category for category, window in POLICY.returns.category_windows.items() if not window}
    assert excluded == NOT_RETURNABLE
    assert {reason for reason, _ in (*WHOLE_REASONS, *UNIT_REASONS)} <= POLICY.returns.reasons.keys()
    assert all(POLICY.returns.reasons[reason].fault == "shop" for reason, _ in WHOLE_REASONS)
    assert {condition for condition, _ in CONDITIONS} <= POLICY.returns.conditions.keys()
    assert {code for code, _ in CODES} == PROMOTIONS.keys()


def test_every_promotion_is_one_that_the_gateway_takes_and_pricing_knows() -> None:
    kinds = set()
    for body in PROMOTIONS.values():
        kinds.add(PromotionBody.model_validate(body).kind)
    assert kinds == set(STACKING)


def test_codes_fit_the_baskets_they_come_with() -> None:
    for visit in visits(Persona.USES_CODE):
        assert visit.code in PROMOTIONS
        assert sum(quantity for sku, quantity in visit.basket if BY_SKU[sku].category == "books") >= 3
        assert order_body(visit)["promo_codes"] == [visit.code]


def test_preferences_are_such_as_the_gateway_takes() -> None:
    said = [visit.preferences for visit in plan(3, 500, catalogue(), preferences=1.0)]
    for preferences in said:
        PreferencesBody.model_validate(preferences)
    assert {preferences["channel"] for preferences in said if preferences} == {"email", "sms", "push"}


def test_surveys_have_their_share() -> None:
    answering = sum(visit.score is not None for visit in plan(1, 4000, catalogue(), surveys=0.25))
    assert answering == pytest.approx(1000, rel=0.1)


# The mix


def test_what_is_not_named_shares_the_rest_in_the_default_s_proportions() -> None:
    mix = mixed({"returns": "0.5", "surveys": 0.9})
    assert mix.personas[Persona.RETURNS] == 0.5
    assert math.isclose(sum(mix.personas.values()), 1.0)
    assert mix.surveys == 0.9
    rest = 0.5 / (1 - MIX[Persona.RETURNS])
    assert mix.personas[Persona.CANCELS] == pytest.approx(MIX[Persona.CANCELS] * rest)
    assert mixed({}).personas == pytest.approx(dict(MIX))


def test_one_persona_may_be_all_there_is() -> None:
    mix = mixed({"flaky_card": 1})
    assert {visit.persona for visit in plan(1, 50, catalogue(), mix.personas)} == {Persona.FLAKY_CARD}


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"return": 0.1}, "there is no share called return"),
        ({"returns": "many"}, "returns: a share is a number from 0 to 1"),
        ({"returns": 1.1}, "returns: a share is a number from 0 to 1"),
        ({"returns": 0.6, "cancels": 0.6}, "add up to 1.2"),
        ({persona.slug: 0.01 for persona in Persona}, "not to 1"),
    ],
)
def test_wrong_shares_are_told(shares: dict[str, Any], said: str) -> None:
    with pytest.raises(MixError, match=said):
        mixed(shares)


def test_a_share_on_the_command_line() -> None:
    assert parse_share("returns = 0.1") == ("returns", "0.1")
    with pytest.raises(MixError, match="is not NAME=SHARE"):
        parse_share("returns")


def test_options_go_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mix.yaml"
    file.write_text("returns: 0.2\ncancels: 0.1\n")
    mix = chosen_mix(file, ["returns=0.3"])
    assert (mix.personas[Persona.RETURNS], mix.personas[Persona.CANCELS]) == (0.3, 0.1)
    file.write_text("- returns\n")
    with pytest.raises(UserError, match="is no list of shares"):
        chosen_mix(file, None)


def test_the_demo_s_rules_are_the_shipped_ones_but_for_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OMS_POLICY", raising=False)
    console = Console(file=StringIO(), width=500)
    shown = load(Path(demo_rules(console, tmp_path)["OMS_POLICY"]))
    assert (shown.fulfilment.split, shown.payment.max_attempts) == ("ship_available", 2)
    assert shown.model_copy(update={"fulfilment": POLICY.fulfilment, "payment": POLICY.payment}) == POLICY
    monkeypatch.setenv("OMS_POLICY", "mine.yaml")
    assert demo_rules(console, tmp_path) == {}


# Arrivals and percentiles


def test_even_arrivals() -> None:
    assert list(arrivals(4.0, 5)) == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_random_arrivals_have_the_rate_and_are_the_same_for_the_same_seed() -> None:
    found = list(arrivals(50.0, 5000, seed=1))
    assert found == list(arrivals(50.0, 5000, seed=1))
    assert found == sorted(found)
    assert found[-1] == pytest.approx(100.0, rel=0.05)
    gaps = [after - before for before, after in pairwise(found)]
    assert max(gaps) > 5 * min(gaps)


def test_a_rate_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        next(arrivals(0.0, 1))


def test_percentiles_are_nearest_ranks() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, percent) for percent in (0, 50, 95, 99, 100)] == [1.0, 50.0, 95.0, 99.0, 100.0]
    assert percentile([3.0, 1.0], 50) == 1.0
    assert percentile([3.0, 1.0], 51) == 3.0
    assert math.isnan(percentile([], 95))


def test_the_open_loop_does_not_wait_for_slow_customers() -> None:
    """Ten customers, 10 ms apart, each served for 200 ms: closed, that would take 2 s. The one who comes late because
    the loop was blocked is measured from when he was due."""
    visits = list(plan(1, 10, catalogue()))
    lateness: list[float] = []

    async def serve(visit: Any, due: float) -> None:
        if visit.number == 0:
            time.sleep(0.06)  # noqa: ASYNC251 (the generator is held up: customers 1 to 5 are due meanwhile)
        else:
            lateness.append(time.perf_counter() - due)
        await asyncio.sleep(0.2)

    began = time.perf_counter()
    run_async(open_loop(visits, arrivals(100.0, 10), serve))
    assert time.perf_counter() - began < 1.0
    assert max(lateness) > 0.03


# The tally


def document(**changes: Any) -> dict[str, Any]:
    """An order as the gateway shows it, as far as the tally looks."""
    empty: dict[str, Any] = {name: [] for name in ("holds", "shipments", "returns", "refunds", "promotions", "items")}
    plain = {"id": "order-1", "status": "PENDING_PAYMENT", "submitted_at": "2026-03-02T00:00:00Z", "cancellation": None}
    return {**empty, **plain, "modifiable_until": None, "delivered_at": None, **changes}


def parcel(status: str, attempts: int = 0) -> dict[str, Any]:
    return {"status": status, "shipped_at": "2026-03-02T00:00:00Z", "delivery_attempts": attempts}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, set()),
        ({"holds": [{}]}, {"held"}),
        ({"shipments": [parcel("shipped")]}, {"shipped"}),
        ({"shipments": [parcel("shipped"), parcel("delivered")]}, {"shipped", "split"}),
        ({"shipments": [parcel("lost"), parcel("delivered")]}, {"shipped", "lost"}),
        ({"shipments": [parcel("delivered", 1)]}, {"shipped", "delivery failed"}),
        ({"refunds": [{"status": "initiated"}]}, set()),
        ({"refunds": [{"status": "completed"}]}, {"money back"}),
        ({"status": "PROCESSING", "items": [{"quantities": {"cancelled": 1}}]}, {"partly cancelled"}),
        ({"status": "CANCELLED", "items": [{"quantities": {"cancelled": 1}}]}, set()),
    ],
)
def test_what_an_order_shows_of_its_life(changes: dict[str, Any], found: set[str]) -> None:
    assert stages(document(**changes)) == found | {"submitted"}


def test_an_order_is_counted_once_however_often_it_is_seen() -> None:
    tally = Tally()
    tally.notice(document(id="somebody else's"))
    tally.created(document())
    cancelled = document(status="CANCELLED", cancellation={"reason": "fraud"})
    for _ in range(3):
        tally.notice(cancelled)
    tally.end("order-1", Outcome.CANCELLED)
    tally.end("order-1", Outcome.CANCELLED)
    assert (tally.reached("submitted"), tally.reasons, tally.finished, tally.open) == (1, {"fraud": 1}, 1, 0)


# The books


AT = datetime(2026, 3, 2, tzinfo=UTC)


def order(number: int, status: str, *, paid: int | None = None, refunded: int = 0, **changes: Any) -> Order:
    """Two mugs for 24.00 EUR."""
    attempt = f"attempt-{number}"
    payments = () if paid is None else (Payment(attempt_id=attempt, amount=paid, status="captured", refunded=refunded),)
    refunds = (
        (Refund(refund_id=f"r{number}", attempt_id=attempt, amount=refunded, status="completed", reason="cancelled"),)
        if refunded
        else ()
    )
    values: dict[str, Any] = {
        "order_id": f"order-{number}", "number": str(number), "customer_id": "c", "status": status, "version": 4,
        "currency": "EUR", "created_at": AT, "updated_at": AT, "lines": (mugs(),), "totals": Totals(total=2400),
        "payments": payments, "refunds": refunds, **changes,
    }  # fmt: skip
    return Order(**values)


def mugs(**changes: Any) -> Line:
    values: dict[str, Any] = {
        "line_id": "L1", "product_id": "P", "sku": "MUG", "name": "A mug", "category": "home",
        "tax_category": "standard", "weight_grams": 400, "quantity": 2, "unit_price": 1000, "line_total": 2000,
        "tax": 380, **changes,
    }  # fmt: skip
    return Line(**values)


def sent(status: str = "delivered", quantity: int = 2) -> Shipment:
    held = ShipmentLine(line_id="L1", sku="MUG", quantity=quantity)
    return Shipment(shipment_id="s", status=status, lines=(held,), shipped_at=AT)


def came_back(status: str = "closed") -> Return:
    item = ReturnItem(line_id="L1", sku="MUG", quantity=1, reason="changed_mind", condition="as_new", refund=595)
    return Return(rma="RMA-1", status=status, items=(item,), requested_at=AT)


TERMS = PromotionTerms(code="SPRING10", kind="percentage", percent="10")
APPLIED = AppliedPromotion(terms=TERMS, amount=100)


def entry(number: int, amount: int, kind: str = "charge", status: str = "") -> dict[str, Any]:
    status = status or ("refunded" if kind == "refund" else "captured")
    return {"kind": kind, "attempt_id": f"attempt-{number}", "amount": amount, "currency": "EUR", "status": status}


def level(on_hand: int, reserved: int, shipped: int) -> dict[str, StockLevel]:
    counts = StockLevel(sku="MUG", pool="main", on_hand=on_hand, reserved=reserved, shipped=shipped, version=1)
    return {"MUG#main": counts}


def moved(kind: str, quantity: int) -> StockMoved:
    return StockMoved(kind=kind, sku="MUG", pool="main", quantity=quantity, on_hand=0, reserved=0, shipped=0, version=1)


# One of each: on its way to be packed, never paid, cancelled with a refund, a draft, delivered less one unit that was
# not there, and delivered with one unit back.
ORDERS = (
    order(1, "PROCESSING", paid=2400, promotions=(APPLIED,)),
    order(2, "CANCELLED"),
    order(3, "CANCELLED", paid=2400, refunded=2400, promotions=(APPLIED,)),
    order(4, "DRAFT", promotions=(APPLIED,)),
    order(5, "DELIVERED", paid=2400, refunded=1190, lines=(mugs(cancelled=1, shipped=1, delivered=1),),
          shipments=(sent(quantity=1),)),
    order(6, "DELIVERED", paid=2400, refunded=595, lines=(mugs(shipped=2, delivered=2, returned=1),),
          shipments=(sent(),), returns=(came_back(),)),
)  # fmt: skip
LEDGER = (
    entry(1, 2400), entry(2, 2400, status="declined"), entry(3, 2400), entry(3, 2400, "refund"),
    entry(5, 2400), entry(5, 1190, "refund"), entry(6, 2400), entry(6, 595, "refund"),
)  # fmt: skip
MOVES = (moved("adjusted", 12), moved("reserved", 9), moved("committed", 3), moved("lost", 1), moved("restocked", 1))
USED = {"SPRING10": PromotionLevel(terms=TERMS, limit=1, used=1)}
GOOD = Books(list(ORDERS), list(LEDGER), level(7, 2, 2), list(MOVES), USED)
# An order under way has not come to its end: who accepted it knows that.
ACCEPTED = {"order-2": True, "order-3": True, "order-4": False, "order-5": True, "order-6": True}


def failing(books: Books, accepted: dict[str, bool] = ACCEPTED) -> list[str]:
    return [check.name.split()[0].rstrip(":") for check in audit(books, accepted) if not check.holds]


def test_good_books_balance() -> None:
    assert [check.wrong for check in audit(GOOD, ACCEPTED)] == [[]] * 8


def test_imported_orders_moved_nothing_here() -> None:
    imported = order(
        7, "DELIVERED", paid=2400, lines=(mugs(shipped=2, delivered=2),), shipments=(sent(),), imported=True
    )
    assert failing(replace(GOOD, orders=[*ORDERS, imported])) == []


def test_authorized_money_is_taken_by_captures() -> None:
    """Half of the order is shipped and taken; the other half is reserved only."""
    part = Payment(attempt_id="attempt-7", amount=2400, status="authorized", captured=1200)
    half = order(7, "PROCESSING", payments=(part,), lines=(mugs(shipped=1),), shipments=(sent("shipped", 1),))
    ledger = [*LEDGER, entry(7, 2400, "authorization", "authorized"), entry(7, 1200, "capture")]
    moves = [*MOVES, moved("adjusted", 2), moved("committed", 1)]
    books = Books([*ORDERS, half], ledger, level(7, 3, 3), moves, USED)
    assert failing(books) == []
    assert failing(replace(books, ledger=ledger[:-1])) == ["Money"]


def test_an_edit_s_payment_counts_and_goodwill_is_not_missed() -> None:
    edit = Payment(attempt_id="attempt-8", amount=600, status="captured", refunded=100, purpose="edit")
    goodwill = Refund(
        refund_id="g", attempt_id="attempt-8", amount=100, status="completed", reason="goodwill", kept=True
    )
    first = ORDERS[0].model_copy(
        update={"payments": (*ORDERS[0].payments, edit), "refunds": (goodwill,), "totals": Totals(total=3000)}
    )
    ledger = [*LEDGER, entry(8, 600), entry(8, 100, "refund")]
    assert failing(replace(GOOD, orders=[first, *ORDERS[1:]], ledger=ledger)) == []


def swapped(number: int, **changes: Any) -> list[Order]:
    return [one.model_copy(update=changes) if one.order_id == f"order-{number}" else one for one in ORDERS]


def paid(number: int, **changes: Any) -> tuple[Payment, ...]:
    return tuple(payment.model_copy(update=changes) for payment in ORDERS[number - 1].payments)


@pytest.mark.parametrize(
    ("changes", "accepted", "wrong"),
    [
        ({}, {**ACCEPTED, "order-9": True}, ["Every"]),
        ({}, {**ACCEPTED, "order-1": True}, ["Every"]),
        ({}, {**ACCEPTED, "order-4": True}, ["Every"]),
        ({}, {**ACCEPTED, "order-5": False}, ["Every"]),
        ({"ledger": [*LEDGER, entry(1, 2400)]}, ACCEPTED, ["Money"]),
        ({"ledger": [*LEDGER, entry(2, 2400)]}, ACCEPTED, ["Money"]),
        ({"ledger": list(LEDGER[1:])}, ACCEPTED, ["Money"]),
        ({"ledger": list(LEDGER[:-1])}, ACCEPTED, ["Refunds"]),
        ({"ledger": [*LEDGER, entry(6, 595, "refund")]}, ACCEPTED, ["Refunds"]),
        ({"orders": swapped(3, refunds=()), "ledger": [*LEDGER[:3], *LEDGER[4:]]}, ACCEPTED, ["Refunds"]),
        ({"orders": swapped(3, payments=(*paid(3), Payment(attempt_id="a", amount=1, status="authorized")))},
         ACCEPTED, ["Refunds"]),
        ({"orders": swapped(1, totals=Totals(total=2500))}, ACCEPTED, ["What"]),
        ({"orders": swapped(5, lines=(mugs(shipped=1, delivered=1, quantity=1),))}, ACCEPTED, ["What"]),
        ({"orders": swapped(6, totals=Totals(total=1000))}, ACCEPTED, ["What"]),
        ({"levels": level(6, 2, 2)}, ACCEPTED, ["Stock"]),
        ({"levels": level(10, 2, -1)}, ACCEPTED, ["Stock"]),
        ({"levels": {}}, ACCEPTED, ["Stock", "Reserved"]),
        ({"levels": level(5, 4, 2)}, ACCEPTED, ["Reserved"]),
        ({"levels": level(8, 1, 2)}, ACCEPTED, ["Reserved"]),
        ({"orders": swapped(6, shipments=())}, ACCEPTED, ["Goods"]),
        ({"orders": swapped(6, returns=(came_back("approved"),))}, ACCEPTED, ["Goods"]),
        ({"orders": swapped(6, shipments=(sent("returned"),))}, ACCEPTED, ["Goods"]),
        ({"promotions": {}}, ACCEPTED, ["Promotions"]),
        ({"promotions": {"SPRING10": PromotionLevel(terms=TERMS, used=2)}}, ACCEPTED, ["Promotions"]),
        ({"orders": swapped(5, promotions=(APPLIED,)),
          "promotions": {"SPRING10": PromotionLevel(terms=TERMS, limit=1, used=2)}}, ACCEPTED, ["Promotions"]),
    ],
    ids=[
        "an order is missing", "an order has not ended", "an abandoned draft was to be placed",
        "a placed order was to be a draft", "charged twice", "charged for a declined order", "a charge that never was",
        "a refund not paid out", "refunded twice", "money kept for a cancelled order", "reserved for a cancelled order",
        "too little was taken for an edit", "a unit that never came was not given back", "more kept than it costs",
        "a unit is gone", "a negative count", "no level", "units reserved for nobody", "nothing reserved for an order",
        "a parcel that nobody knows", "back, and not inspected", "came back, and is not on the shelf",
        "no such promotion", "a use that nobody has", "used too often",
    ],
)  # fmt: skip
def test_books_that_do_not_balance_say_where(
    changes: dict[str, Any], accepted: dict[str, bool], wrong: list[str]
) -> None:
    assert failing(replace(GOOD, **changes), accepted) == wrong


def test_cancelled_units_that_left_all_the_same_are_a_person_s_concern() -> None:
    late = replace(GOOD, moves=[*MOVES, moved("committed", 1), moved("adjusted", 0)])
    assert failing(late) == ["Goods"]
    assert failing(replace(late, left_late=frozenset({"order-5"}))) == []
    assert failing(replace(late, moves=[*late.moves, moved("committed", 2)], left_late=frozenset({"order-5"}))) == [
        "Goods"
    ]


def test_what_is_back_ordered_may_wait() -> None:
    lines = (mugs(backorder=True),)
    waiting = replace(GOOD, orders=swapped(1, lines=lines), levels=level(8, 1, 2))
    assert failing(waiting) == []
    assert failing(replace(waiting, levels=level(6, 3, 2))) == ["Reserved"]


def test_repeat_customers_come_back() -> None:
    customers = [visit.customer.id for visit in plan(1, 400, catalogue())]
    assert 50 < len(set(customers)) <= 100
