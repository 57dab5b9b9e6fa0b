"""Changes of placed orders through every processor, in memory, under many interleavings: each happens whole or not at
all, and afterwards all books agree."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas import commands as c
from schemas import events as e
from schemas.base import Payload
from schemas.order import Order
from tests.simulation.shop import STAFF, books_agree, events, promotion, used
from tests.simulation.test_payments import shop
from tests.simulation.test_placing import SEEDS, order, send, stock
from tests.simulation.world import World
from tests.support.examples import POLICY, address, create, line, terms

TIMEOUT = POLICY.edits.timeout.total_seconds()


def paid(seed: int, *codes: str) -> World:
    """Three mugs and a lamp, paid."""
    world = shop(seed)
    for code in codes:
        promotion(world, terms(code))
    found = tuple(terms(code) for code in codes)
    send(world, 1, create(line("MUG", 3), line("LAMP", 1, 5000), submit=True, promo_codes=codes, promotions=found))
    world.settle()
    assert order(world, 1).status == "PAYMENT_CONFIRMED"
    return world


def edited(world: World, payload: Payload) -> Order:
    send(world, 1, payload, name=str(world.now) + str(len(world.records("order.commands"))))
    world.settle()
    return order(world, 1)


def failure(world: World) -> tuple[str, tuple[str, ...]]:
    (failed,) = events(world, order(world, 1), e.OrderEditFailed)
    return failed.reason, failed.skus


@pytest.mark.parametrize("seed", SEEDS)
def test_more_units_are_reserved_and_the_difference_is_charged(seed: int) -> None:
    world = paid(seed)
    before = order(world, 1)
    after = edited(world, c.ChangeQuantity(line_id="L1", quantity=6))
    assert [(p.purpose, p.status, p.amount) for p in after.payments] == [
        ("order", "captured", before.totals.total),
        ("edit", "captured", after.totals.total - before.totals.total),
    ]
    assert stock(world, "MUG") == (4, 6, 0)
    books_agree(world, [after])


@pytest.mark.parametrize("seed", SEEDS)
def test_an_item_is_added_and_another_removed(seed: int) -> None:
    world = paid(seed)
    send(world, 1, c.AddItem(line=line("MUG", 2)))
    world.settle()
    after = edited(world, c.RemoveItem(line_id="L2"))
    assert [(x.line_id, x.sku, x.quantity) for x in after.lines] == [("L1", "MUG", 3), ("L3", "MUG", 2)]
    assert (stock(world, "MUG"), stock(world, "LAMP")) == ((5, 5, 0), (5, 0, 0))
    assert [r.reason for r in after.refunds] == ["edit"]
    books_agree(world, [after])


@pytest.mark.parametrize("seed", SEEDS)
def test_fewer_units_are_given_back_with_their_money(seed: int) -> None:
    world = paid(seed)
    after = edited(world, c.ChangeQuantity(line_id="L1", quantity=1))
    assert stock(world, "MUG") == (9, 1, 0)
    assert len(after.refunds) == 1
    books_agree(world, [after])


@pytest.mark.parametrize("seed", SEEDS)
def test_without_enough_stock_it_stays_as_it_was(seed: int) -> None:
    world = paid(seed)
    before = order(world, 1)
    after = edited(world, c.ChangeQuantity(line_id="L1", quantity=11))
    assert failure(world) == ("out_of_stock", ("MUG",))
    assert (after.lines, after.totals) == (before.lines, before.totals)
    assert stock(world, "MUG") == (7, 3, 0)
    assert len(world.bank.charges) == 1
    books_agree(world, [after])


@pytest.mark.parametrize("seed", SEEDS)
def test_when_the_difference_is_declined_it_stays_as_it_was(seed: int) -> None:
    world = paid(seed)
    before = order(world, 1)
    world.bank.mood = "declined"
    after = edited(world, c.AddItem(line=line("MUG", 2)))
    assert failure(world) == ("payment_declined", ())
    assert (after.lines, after.totals) == (before.lines, before.totals)
    assert stock(world, "MUG") == (7, 3, 0)
    books_agree(world, [after])
    world.bank.mood = None
    send(world, 1, c.AddItem(line=line("MUG", 2)), name="again")
    world.settle()
    assert stock(world, "MUG") == (5, 5, 0)
    books_agree(world, [order(world, 1)])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_promotion_is_redeemed_and_its_money_given_back(seed: int) -> None:
    world = paid(seed)
    promotion(world, terms("SPRING"), limit=1)
    before = order(world, 1)
    after = edited(world, c.ApplyPromotion(terms=terms("SPRING")))
    assert after.totals.total < before.totals.total
    assert used(world, "SPRING") == 1
    books_agree(world, [after], ("SPRING",))
    after = edited(world, c.RemovePromotion(code="SPRING"))
    assert after.totals == before.totals
    assert used(world, "SPRING") == 0
    books_agree(world, [after], ("SPRING",))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_used_up_promotion_leaves_it_as_it_was(seed: int) -> None:
    world = paid(seed)
    before = order(world, 1)
    promotion(world, terms("GONE"), limit=0)
    after = edited(world, c.ApplyPromotion(terms=terms("GONE")))
    assert failure(world) == ("promotion_unavailable", ())
    assert after.totals == before.totals
    books_agree(world, [after], ("GONE",))


@pytest.mark.parametrize("seed", SEEDS)
def test_another_address_costs_more_then_less(seed: int) -> None:
    world = paid(seed)
    before = order(world, 1)
    dearer = edited(world, c.ChangeShippingAddress(address=address("FR")))
    assert dearer.totals.total > before.totals.total
    assert [p.purpose for p in dearer.payments] == ["order", "edit"]
    cheaper = edited(world, c.ChangeShippingAddress(address=address("DE", postal_code="20095")))
    assert cheaper.totals == before.totals
    books_agree(world, [cheaper])


@pytest.mark.parametrize("seed", SEEDS)
def test_an_edit_right_after_submission_waits_for_the_payment(seed: int) -> None:
    world = shop(seed)
    send(world, 1, create(line("MUG", 3), submit=True))
    send(world, 1, c.ChangeQuantity(line_id="L1", quantity=5))
    world.settle()
    found = order(world, 1)
    assert [(p.purpose, p.status) for p in found.payments] == [("order", "captured"), ("edit", "captured")]
    assert stock(world, "MUG") == (5, 5, 0)
    books_agree(world, [found])


def test_an_edit_that_nobody_pays_in_time_fails() -> None:
    world = paid(1)
    world.frozen.add("payment")
    send(world, 1, c.ChangeQuantity(line_id="L1", quantity=5))
    world.settle()
    assert stock(world, "MUG") == (5, 5, 0)
    world.pass_time(TIMEOUT + 1)
    assert failure(world) == ("timeout", ())
    assert stock(world, "MUG") == (7, 3, 0)
    world.frozen.clear()
    world.settle()
    assert len(world.bank.charges) == 1, "after valid_until the provider is asked, not charged"
    books_agree(world, [order(world, 1)])


@pytest.mark.parametrize("end", ["captured", "declined"])
def test_the_providers_late_word_on_an_edit_that_is_over(end: str) -> None:
    world = paid(1)
    world.bank.mood = "processing"
    send(world, 1, c.ChangeQuantity(line_id="L1", quantity=5))
    world.settle()
    world.pass_time(TIMEOUT + 1)
    assert failure(world) == ("timeout", ())
    (late,) = [charge for charge in world.bank.charges.values() if charge.status == "processing"]
    late.status = end
    for _ in range(20):
        world.pass_time(60)
    found = order(world, 1)
    assert late.refunded == (late.amount if end == "captured" else 0)
    assert found.status in ("PAYMENT_CONFIRMED", "PROCESSING")
    books_agree(world, [found])


def test_fulfilment_waits_for_the_edit() -> None:
    world = paid(1)
    world.pass_time(POLICY.edits.modification_window.total_seconds() - 1)
    world.frozen.add("payment")
    send(world, 1, c.ChangeQuantity(line_id="L1", quantity=5))
    world.settle()
    world.pass_time(2)
    assert order(world, 1).status == "PAYMENT_CONFIRMED"
    world.frozen.clear()
    world.settle()
    found = order(world, 1)
    assert found.status == "PROCESSING"
    assert found.lines[0].quantity == 5


@pytest.mark.parametrize("seed", range(24))
def test_cancelling_at_any_moment_of_an_edit_leaves_nothing_behind(seed: int) -> None:
    world = paid(seed, "SPRING")
    promotion(world, terms("LATE", exclusive=False))
    changes = [
        c.ChangeQuantity(line_id="L1", quantity=6),
        c.AddItem(line=line("MUG", 2)),
        c.ApplyPromotion(terms=terms("LATE")),
        c.ChangeShippingMethod(shipping_method="express"),
    ]
    send(world, 1, world.random.choice(changes))
    for _ in range(world.random.randrange(40)):
        world.step()
    send(world, 1, c.CancelOrder(reason="changed_mind"))
    world.settle()
    found = order(world, 1)
    assert found.status == "CANCELLED"
    assert (stock(world, "MUG"), stock(world, "LAMP")) == ((10, 0, 0), (5, 0, 0))
    assert (used(world, "SPRING"), used(world, "LATE")) == (0, 0)
    books_agree(world, [found], ("SPRING", "LATE"))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_last_units_go_to_one_edit_or_the_other(seed: int) -> None:
    world = shop(seed)
    for n in range(4):
        send(world, n, create(line("MUG", 2), submit=True))
    world.settle()
    for n in range(4):
        send(world, n, c.ChangeQuantity(line_id="L1", quantity=4))
    world.settle()
    found = [order(world, n) for n in range(4)]
    assert sorted(x.lines[0].quantity for x in found) == [2, 2, 2, 4]
    assert stock(world, "MUG") == (0, 10, 0)
    books_agree(world, found)


@pytest.mark.parametrize("capture", ["on_submission", "on_shipment"])
@pytest.mark.parametrize("seed", range(24))
def test_whatever_customers_and_staff_do_at_once_all_books_agree(seed: int, capture: str, tmp_path: Path) -> None:
    """Six orders under random changes, holds and cancellations, with a provider that sometimes declines, and sometimes
    says only later what became of it."""
    world = shop(seed, tmp_path, payment={"capture": capture, "max_attempts": 3})
    codes = ("SPRING", "LATE")
    for code in codes:
        promotion(world, terms(code), limit=3)
    for n in range(6):
        some = tuple(terms(code) for code in codes if world.random.random() < 0.3)
        new = [line("MUG", world.random.randint(1, 2)), line("LAMP", 1, 5000)]
        names = tuple(x.code for x in some)
        send(world, n, create(*new, submit=True, promo_codes=names, promotions=some))
    for act in range(60):
        n = world.random.randrange(6)
        world.bank.mood = world.random.choice([None, None, None, "declined", "processing"])
        payload, actor = _act(world)
        send(world, n, payload, name=str(act), **actor)
        for _ in range(world.random.randrange(12)):
            world.step()
    world.settle()
    world.bank.mood = None
    for n in range(6):
        if order(world, n).hold is not None:
            send(world, n, c.ReleaseOrder(), name="at last", **STAFF)
    for _ in range(5):
        world.pass_time(200)
    for charge in world.bank.charges.values():
        charge.settle(world.random.choice(["made", "declined"]))
    for _ in range(5):
        world.pass_time(150)
    books_agree(world, [order(world, n) for n in range(6)], codes)


def _act(world: World) -> tuple[Payload, dict[str, str]]:
    dice = world.random
    customers: list[Payload] = [
        c.ChangeQuantity(line_id="L1", quantity=dice.randint(1, 4)),
        c.ChangeQuantity(line_id=dice.choice(["L1", "L2", "L3"]), quantity=dice.randint(1, 3)),
        c.AddItem(line=line(dice.choice(["MUG", "LAMP"]), 1)),
        c.RemoveItem(line_id=dice.choice(["L1", "L2", "L3", "L4"])),
        c.ApplyPromotion(terms=terms(dice.choice(["SPRING", "LATE"]))),
        c.RemovePromotion(code=dice.choice(["SPRING", "LATE"])),
        c.ChangeShippingMethod(shipping_method=dice.choice(["standard", "express"])),
        c.ChangeShippingAddress(address=address(dice.choice(["DE", "FR"]))),
        c.CancelOrder(reason="changed_mind", items=(c.ItemQuantity(line_id=dice.choice(["L1", "L2"]), quantity=1),)),
    ]
    customers.append(c.PayOrder(payment_token="pm_card_visa"))
    staff: list[Payload] = [c.HoldOrder(kind="staff", reason="a call"), c.ReleaseOrder(), c.ReleaseOrder()]
    whim = dice.random()
    if whim < 0.03:
        return c.CancelOrder(reason="changed_mind"), {}
    return (dice.choice(staff), STAFF) if whim < 0.2 else (dice.choice(customers), {})
