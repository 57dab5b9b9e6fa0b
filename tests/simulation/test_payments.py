"""Money, reviews and holds through every processor, in memory, under many interleavings."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from processors.order.names import payment_attempt_id
from schemas import commands as c
from schemas import events as e
from schemas.base import Command, Payload
from schemas.order import Order, ShipmentLine
from tests.simulation import bank
from tests.simulation.bank import Charge
from tests.simulation.shop import STAFF, books_agree, events, open_exceptions, policy, promotion, retry, used
from tests.simulation.test_placing import SEEDS, adjust, exceptions, order, order_id, send, stock
from tests.simulation.world import World
from tests.support.examples import POLICY, address, create, line, terms

DAY = timedelta(days=1).total_seconds()


def shop(seed: int, folder: Path | None = None, **changes: dict[str, Any]) -> World:
    """Ten mugs and five lamps, under a policy with these changes."""
    world = World(seed, policy(folder, **changes) if folder else None)
    adjust(world, "MUG", 10)
    adjust(world, "LAMP", 5)
    world.settle()
    return world


@pytest.mark.parametrize("seed", SEEDS)
def test_after_a_decline_the_customer_pays_again_and_the_stock_was_kept(seed: int, tmp_path: Path) -> None:
    world = shop(seed, tmp_path, payment={"max_attempts": 2})
    send(world, 1, create(line("MUG", 3), submit=True, payment_token="pm_card_chargeDeclined"))
    world.settle()
    assert order(world, 1).status == "PENDING_PAYMENT"
    assert stock(world, "MUG") == (7, 3, 0)
    send(world, 1, c.PayOrder(payment_token="pm_card_visa"))
    world.settle()
    found = order(world, 1)
    assert found.status == "PAYMENT_CONFIRMED"
    assert [p.status for p in found.payments] == ["declined", "captured"]
    books_agree(world, [found])


@pytest.mark.parametrize("seed", SEEDS)
def test_another_amount_than_was_asked_for_is_one_exception(seed: int) -> None:
    world = shop(seed)
    attempt_id = payment_attempt_id(order_id(1), 1)
    world.bank.charges[attempt_id] = Charge(1_000_000, "captured")
    send(world, 1, create(line("MUG", 1), submit=True))
    world.pass_time(120)
    assert order(world, 1).captured == 1_000_000
    assert exceptions(world, 1) == (["amount_differs"], [])


def test_the_last_attempt_cancels_and_a_customer_who_stays_away_runs_out_of_time(tmp_path: Path) -> None:
    world = shop(1, tmp_path, payment={"max_attempts": 2})
    for n in (1, 2):
        send(world, n, create(line("MUG", 1), submit=True, payment_token="pm_card_chargeDeclined"))
    world.settle()
    send(world, 1, c.PayOrder(payment_token="pm_card_chargeDeclined"))
    world.settle()
    world.pass_time(POLICY.payment.timeout.total_seconds() + 1)
    assert [order(world, n).cancellation.reason for n in (1, 2)] == [  # type: ignore[union-attr]
        "payment_declined",
        "payment_timeout",
    ]
    books_agree(world, [order(world, 1), order(world, 2)])


@pytest.mark.parametrize("seed", SEEDS)
def test_an_order_that_costs_nothing_is_placed_without_the_provider(seed: int) -> None:
    world = shop(seed)
    free = (terms("GIFT", percent="100"), terms("POST", kind="free_shipping"))
    for promotion_terms in free:
        promotion(world, promotion_terms)
    send(world, 1, create(line("MUG", 1), submit=True, promo_codes=("GIFT", "POST"), promotions=free))
    world.settle()
    found = order(world, 1)
    assert (found.status, found.totals.total) == ("PAYMENT_CONFIRMED", 0)
    assert world.bank.charges == {}
    assert (used(world, "GIFT"), used(world, "POST")) == (1, 1)
    books_agree(world, [found], ("GIFT", "POST"))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_last_use_of_a_promotion_goes_to_one_order(seed: int) -> None:
    world = shop(seed)
    promotion(world, terms("ONCE"), limit=1)
    for n in range(4):
        send(world, n, create(line("MUG", 1), submit=True, promo_codes=("ONCE",), promotions=(terms("ONCE"),)))
    world.settle()
    found = [order(world, n) for n in range(4)]
    assert sorted(x.status for x in found) == ["CANCELLED"] * 3 + ["PAYMENT_CONFIRMED"]
    assert {x.cancellation.reason for x in found if x.cancellation} == {"promotion_unavailable"}
    books_agree(world, found, ("ONCE",))


# Fraud

ABROAD = {"shipping_address": address("FR"), "billing_address": address("DE")}


def suspicious(world: World, n: int = 1) -> None:
    """For much money, and sent elsewhere than billed: 50 + 20."""
    send(world, n, create(line("LAMP", 2, 300000), submit=True, **ABROAD))
    world.settle()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_suspicious_order_is_held_and_charged_when_staff_releases_it(seed: int) -> None:
    world = shop(seed)
    suspicious(world)
    held = order(world, 1)
    assert held.hold is not None
    assert (held.hold.kind, held.hold.score) == ("fraud", 70)
    assert world.bank.charges == {}
    world.pass_time(POLICY.payment.timeout.total_seconds() + 1)
    assert order(world, 1).status == "PENDING_PAYMENT", "a held order has its own deadline"
    send(world, 1, c.ReleaseOrder(), **STAFF)
    world.settle()
    found = order(world, 1)
    assert found.status == "PAYMENT_CONFIRMED"
    assert len(world.bank.charges) == 1
    books_agree(world, [found])


def test_nobody_reviews_it() -> None:
    world = shop(1)
    suspicious(world)
    world.pass_time(POLICY.fraud.review_within.total_seconds() + 1)
    found = order(world, 1)
    assert found.cancellation is not None
    assert found.cancellation.reason == "fraud"
    assert world.bank.charges == {}
    books_agree(world, [found])


def test_a_score_that_is_too_high_cancels(tmp_path: Path) -> None:
    world = shop(1, tmp_path, fraud={"reject_at": 70})
    suspicious(world)
    found = order(world, 1)
    assert found.cancellation is not None
    assert found.cancellation.reason == "fraud"
    books_agree(world, [found])


@pytest.mark.parametrize("seed", SEEDS)
def test_an_edit_that_would_have_been_suspicious_fails_and_staff_can_make_it(seed: int) -> None:
    """50 points for much money, which a placed order would be held for."""
    world = shop(seed)
    send(world, 1, create(line("LAMP", 1, 300000), submit=True))
    world.settle()
    before = order(world, 1)
    assert before.status == "PAYMENT_CONFIRMED"
    send(world, 1, c.ChangeQuantity(line_id="L1", quantity=2), name="by the customer")
    world.settle()
    assert order(world, 1).totals == before.totals
    (failed,) = events(world, before, e.OrderEditFailed)
    assert (failed.reason, failed.detail) == ("fraud", "amount")
    assert stock(world, "LAMP") == (4, 1, 0)
    send(world, 1, c.ChangeQuantity(line_id="L1", quantity=2), name="by staff", **STAFF)
    world.settle()
    found = order(world, 1)
    assert found.lines[0].quantity == 2
    assert found.captured == found.totals.total
    books_agree(world, [found])


@pytest.mark.parametrize("seed", range(24))
def test_holding_and_releasing_at_any_moment_charges_once(seed: int) -> None:
    world = shop(seed)
    for n in range(5):
        send(world, n, create(line("MUG", 1), submit=True))
        for name, payload in enumerate((c.HoldOrder(kind="staff", reason="a call"), c.ReleaseOrder())):
            for _ in range(world.random.randrange(25)):
                world.step()
            send(world, n, payload, name=str(name), **STAFF)
    world.settle()
    for n in range(5):
        if order(world, n).hold is not None:  # the release came before the hold
            send(world, n, c.ReleaseOrder(), name="again", **STAFF)
    world.settle()
    found = [order(world, n) for n in range(5)]
    assert {x.status for x in found} == {"PAYMENT_CONFIRMED"}
    assert sum(charge.status == "captured" for charge in world.bank.charges.values()) == 5
    books_agree(world, found)


# Refunds


def test_a_refused_refund_waits_for_somebody_to_try_again() -> None:
    world = shop(1)
    send(world, 1, create(line("MUG", 1), submit=True))
    world.settle()
    world.bank.refuses.add("RefundPayment")
    send(world, 1, c.CancelOrder(reason="changed_mind"))
    world.settle()
    assert [r.status for r in order(world, 1).refunds] == ["failed"]
    retry(world, "refund_failed")
    assert [x.kind for x in open_exceptions(world).values()] == ["refund_failed"], "refused again"
    world.bank.refuses.clear()
    retry(world, "refund_failed")
    assert [r.status for r in order(world, 1).refunds] == ["completed"]
    books_agree(world, [order(world, 1)])


# Capture on shipment

ON_SHIPMENT = {"capture": "on_shipment"}


def internal(world: World, n: int, payload: Payload, name: str = "") -> None:
    """What the fulfilment saga would have sent."""
    message: Command[Any] = Command(
        id=f"{type(payload).__name__} {n} {name}",
        order_id=order_id(n),
        at=world.now,
        actor="system:fulfilment",
        correlation_id="c",
        data=payload,
    )
    world.write("order.internal", order_id(n), message)
    world.settle()


def authorized(seed: int, folder: Path) -> World:
    world = shop(seed, folder, payment=ON_SHIPMENT)
    world.frozen.add("fulfilment")
    send(world, 1, create(line("MUG", 3), line("LAMP", 1, 5000), submit=True))
    world.settle()
    found = order(world, 1)
    assert (found.status, [p.status for p in found.payments]) == ("PAYMENT_CONFIRMED", ["authorized"])
    return world


def parcel(world: World, n: int, name: str, **units: int) -> None:
    lines = tuple(
        ShipmentLine(line_id=x.line_id, sku=x.sku, quantity=units[x.sku])
        for x in order(world, n).lines
        if x.sku in units
    )
    internal(world, n, c.PlanShipment(shipment_id=name, lines=lines), name)
    sent = c.ShipShipment(shipment_id=name, carrier="ups", tracking_number="1Z", tracking_url="u")
    internal(world, n, sent, name)


def the_payment(found: Order) -> tuple[str, int, int | None]:
    (payment,) = found.payments
    return payment.status, payment.amount, payment.captured


@pytest.mark.parametrize("seed", SEEDS)
def test_each_parcel_captures_its_share_and_together_they_are_the_total(seed: int, tmp_path: Path) -> None:
    world = authorized(seed, tmp_path)
    world.now += POLICY.edits.modification_window
    internal(world, 1, c.BeginFulfilment(due_at=world.now))
    parcel(world, 1, "s1", MUG=2)
    first = order(world, 1)
    assert 0 < first.captured < first.totals.total
    parcel(world, 1, "s2", MUG=1, LAMP=1)
    found = order(world, 1)
    assert the_payment(found) == ("captured", found.totals.total, found.totals.total)
    assert len(world.bank.captures) == 2
    assert sum(world.bank.captures.values()) == found.totals.total
    assert open_exceptions(world) == {}


def test_a_failed_capture_waits_for_somebody_to_try_again(tmp_path: Path) -> None:
    world = authorized(1, tmp_path)
    world.now += POLICY.edits.modification_window
    internal(world, 1, c.BeginFulfilment(due_at=world.now))
    world.bank.refuses.add("CapturePayment")
    parcel(world, 1, "s1", MUG=3, LAMP=1)
    assert [x.kind for x in open_exceptions(world).values()] == ["capture_failed"]
    assert len(events(world, order(world, 1), e.OrderPaymentCaptureFailed)) == 1
    world.bank.refuses.clear()
    retry(world, "capture_failed")
    found = order(world, 1)
    assert found.captured == found.totals.total
    assert open_exceptions(world) == {}


@pytest.mark.parametrize("seed", SEEDS)
def test_cancelling_an_authorized_order_gives_the_money_free(seed: int, tmp_path: Path) -> None:
    world = authorized(seed, tmp_path)
    send(world, 1, c.CancelOrder(reason="changed_mind"))
    world.settle()
    found = order(world, 1)
    assert (found.status, [p.status for p in found.payments]) == ("CANCELLED", ["voided"])
    assert [charge.status for charge in world.bank.charges.values()] == ["voided"]
    books_agree(world, [found])


def test_a_refused_void_waits_for_somebody_to_try_again(tmp_path: Path) -> None:
    world = authorized(1, tmp_path)
    world.bank.refuses.add("VoidPayment")
    send(world, 1, c.CancelOrder(reason="changed_mind"))
    world.settle()
    assert [x.kind for x in open_exceptions(world).values()] == ["void_failed"]
    world.bank.refuses.clear()
    retry(world, "void_failed")
    assert [p.status for p in order(world, 1).payments] == ["voided"]
    books_agree(world, [order(world, 1)])


def test_an_authorization_is_renewed_before_it_expires_again_and_again(tmp_path: Path) -> None:
    world = authorized(1, tmp_path)
    for _ in range(13):
        world.pass_time(DAY)
    found = order(world, 1)
    assert [p.status for p in found.payments] == ["voided", "voided", "authorized"]
    assert [p.purpose for p in found.payments] == ["order", "renewal", "renewal"]
    assert {charge.amount for charge in world.bank.charges.values()} == {found.totals.total}
    world.now += timedelta(seconds=1)
    internal(world, 1, c.BeginFulfilment(due_at=world.now))
    parcel(world, 1, "s1", MUG=3, LAMP=1)
    assert order(world, 1).captured == found.totals.total
    assert open_exceptions(world) == {}


def test_short_authorizations_are_renewed_a_few_times_a_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank, "AUTHORIZED_FOR", timedelta(hours=12))
    world = authorized(1, tmp_path)
    for _ in range(24):
        world.pass_time(3600)
    statuses = [p.status for p in order(world, 1).payments]
    assert 3 <= len(statuses) <= 5, "every six hours"
    assert statuses == ["voided"] * (len(statuses) - 1) + ["authorized"]
    assert open_exceptions(world) == {}


def test_a_renewal_that_is_declined_is_raised_and_the_old_authorization_stays(tmp_path: Path) -> None:
    world = authorized(1, tmp_path)
    world.bank.mood = "declined"
    for _ in range(6):
        world.pass_time(DAY)
    assert [p.status for p in order(world, 1).payments] == ["authorized", "declined"]
    assert [x.kind for x in open_exceptions(world).values()] == ["authorization_not_renewed"]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_larger_edit_of_an_authorized_order_is_captured_too(seed: int, tmp_path: Path) -> None:
    world = authorized(seed, tmp_path)
    before = order(world, 1).totals.total
    send(world, 1, c.ChangeQuantity(line_id="L1", quantity=5))
    world.settle()
    edited = order(world, 1)
    assert edited.totals.total > before
    assert [p.status for p in edited.payments] == ["authorized", "authorized"]
    world.now += POLICY.edits.modification_window
    internal(world, 1, c.BeginFulfilment(due_at=world.now))
    parcel(world, 1, "s1", MUG=5, LAMP=1)
    assert order(world, 1).captured == edited.totals.total
    assert stock(world, "MUG")[1] == 5, "committed by fulfilment, which does not run here"
    assert open_exceptions(world) == {}


# Drafts


def test_a_draft_is_abandoned_when_nobody_comes_back() -> None:
    world = shop(1)
    week = POLICY.deadlines.draft_abandoned_after.total_seconds()
    send(world, 1, create(line("MUG", 1)))
    world.settle()
    world.pass_time(week - 10)
    send(world, 1, c.ChangeQuantity(line_id="L1", quantity=2))
    world.pass_time(week - 10)
    assert order(world, 1).status == "DRAFT"
    world.pass_time(20)
    found = order(world, 1)
    assert found.cancellation is not None
    assert found.cancellation.reason == "abandoned"
    assert exceptions(world, 1) == ([], [])
