"""Whole lives of orders through every processor, in memory, under many interleavings."""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import uuid5

import pytest

from processors.order.evolve import evolve
from schemas import commands as c
from schemas import events as e
from schemas import inventory as i
from schemas.base import Event, Message, Payload
from schemas.operations import DeadLettered, ExceptionOpened, ExceptionResolved
from schemas.order import Order
from schemas.policy import Policy
from schemas.replies import CommandOutcome, Rejection, StockOutcome
from tests.simulation.world import World
from tests.support.examples import NAMES, POLICY, command, create, line

SEEDS = range(8)


def order_id(n: int) -> str:
    return str(uuid5(NAMES, f"order {n}"))


def stocked(seed: int, rules: Policy | None = None, **stock: int) -> World:
    world = World(seed, rules=rules)
    for sku, units in stock.items():
        adjust(world, sku, units)
    world.settle()
    return world


def adjust(world: World, sku: str, delta: int, name: str = "1") -> None:
    message: Message[Any] = Message(
        id=str(uuid5(NAMES, f"adjust {sku} {name}")),
        at=world.now,
        actor="staff:clerk",
        correlation_id="c",
        reply_to="gateway-test",
        data=i.AdjustStock(sku=sku, pool="main", delta=delta, reason="delivery", body_hash=str(delta)),
    )
    world.write("inventory.commands", f"{sku}#main", message)


def send(world: World, n: int, payload: Payload, **envelope: Any) -> None:
    world.write("order.commands", order_id(n), command(payload, order_id=order_id(n), at=world.now, **envelope))


def order(world: World, n: int) -> Order:
    """The fold of the order's events; and that they are numbered, chained and what order.states says."""
    folded: Order | None = None
    previous = ""
    for record in world.records("order.events"):
        if record.key != order_id(n).encode():
            continue
        assert isinstance(record.message, Event)
        assert record.message.previous_hash == previous
        assert record.value is not None
        previous = hashlib.sha256(record.value).hexdigest()
        folded = evolve(folded, record.message).model_copy(update={"last_hash": previous})
    assert folded is not None
    assert world.messages("order.states", order_id(n))[-1].order == folded
    return folded


def stock(world: World, sku: str) -> tuple[int, int, int]:
    level = world.messages("inventory.levels", f"{sku}#main")[-1]
    return level.on_hand, level.reserved, level.shipped


def exceptions(world: World, n: int) -> tuple[list[str], list[str]]:
    found = world.messages("exceptions", order_id(n))
    return (
        [x.kind for x in found if isinstance(x, ExceptionOpened)],
        [x.resolution for x in found if isinstance(x, ExceptionResolved)],
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_an_order_is_placed_and_paid(seed: int) -> None:
    world = stocked(seed, MUG=10, LAMP=5)
    send(world, 1, create(line("MUG", 3), line("LAMP", 1, 5000), submit=True))
    world.settle()
    paid = order(world, 1)
    assert paid.status == "PAYMENT_CONFIRMED"
    assert paid.version == 4
    assert [(charge.status, charge.amount) for charge in world.bank.charges.values()] == [
        ("captured", paid.totals.total)
    ]
    assert (stock(world, "MUG"), stock(world, "LAMP")) == ((7, 3, 0), (4, 1, 0))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_declined_payment_gives_the_stock_back(seed: int) -> None:
    world = stocked(seed, MUG=10)
    send(world, 1, create(line("MUG", 3), submit=True, payment_token="pm_card_chargeDeclined"))
    world.settle()
    found = order(world, 1)
    assert found.status == "CANCELLED"
    assert found.cancellation is not None
    assert found.cancellation.reason == "payment_declined"
    assert stock(world, "MUG") == (10, 0, 0)


@pytest.mark.parametrize("seed", SEEDS)
def test_short_on_the_second_line_gives_the_first_back(seed: int) -> None:
    world = stocked(seed, MUG=10, LAMP=1)
    send(world, 1, create(line("MUG", 3), line("LAMP", 2), submit=True))
    world.settle()
    found = order(world, 1)
    assert found.cancellation is not None
    assert (found.cancellation.reason, found.cancellation.skus) == ("out_of_stock", ("LAMP",))
    assert (stock(world, "MUG"), stock(world, "LAMP")) == ((10, 0, 0), (1, 0, 0))
    assert world.bank.charges == {}


@pytest.mark.parametrize("seed", SEEDS)
def test_forty_buyers_for_ten_units(seed: int) -> None:
    world = stocked(seed, MUG=10)
    for n in range(40):
        send(world, n, create(line("MUG", 1), submit=True))
    world.settle()
    assert sorted(order(world, n).status for n in range(40)) == ["CANCELLED"] * 30 + ["PAYMENT_CONFIRMED"] * 10
    assert stock(world, "MUG") == (0, 10, 0)
    assert len(world.bank.charges) == 10


@pytest.mark.parametrize("seed", SEEDS)
def test_cancelling_at_any_moment_leaves_nothing_behind(seed: int) -> None:
    """The cancellation comes somewhere in the middle of the placement; where, the seed decides."""
    world = stocked(seed, MUG=20)
    for n in range(20):
        send(world, n, create(line("MUG", 1), submit=True))
        for _ in range(world.random.randrange(25)):
            world.step()
        send(world, n, c.CancelOrder(reason="changed_mind"))
    world.settle()
    for n in range(20):
        found = order(world, n)
        assert found.status == "CANCELLED"
        assert found.captured == found.refunded
        assert all(refund.status == "completed" for refund in found.refunds)
    assert stock(world, "MUG") == (20, 0, 0)
    assert all(charge.refunded == charge.amount for charge in world.bank.charges.values())


def test_an_unpaid_order_is_cancelled_when_its_time_is_over() -> None:
    world = stocked(1, MUG=10)
    world.frozen.add("payment")
    send(world, 1, create(line("MUG", 3), submit=True))
    world.settle()
    world.pass_time(POLICY.payment.timeout.total_seconds() - 1)
    assert order(world, 1).status == "PENDING_PAYMENT"
    world.pass_time(1.5)
    found = order(world, 1)
    assert found.cancellation is not None
    assert found.cancellation.reason == "payment_timeout"
    assert stock(world, "MUG") == (10, 0, 0)
    world.frozen.clear()
    world.settle()
    assert world.bank.charges == {}, "after valid_until the provider is asked, not charged"


@pytest.mark.parametrize(("end", "resolution"), [("captured", "captured"), ("declined", "declined")])
def test_no_answer(end: str, resolution: str) -> None:
    world = stocked(1, MUG=10)
    send(world, 1, create(line("MUG", 3), submit=True, payment_token="pm_sandbox_timeout"))
    world.settle()
    for _ in range(12):
        world.pass_time(100)
    found = order(world, 1)
    assert found.cancellation is not None
    assert found.cancellation.reason == "payment_timeout"
    assert stock(world, "MUG") == (10, 0, 0)
    assert exceptions(world, 1) == (["payment_unknown"], [])
    (charge,) = world.bank.charges.values()
    charge.status = end
    for _ in range(30):
        world.pass_time(400)
    assert exceptions(world, 1) == (["payment_unknown"], [resolution])
    found = order(world, 1)
    assert found.status == "CANCELLED"
    assert charge.refunded == (charge.amount if end == "captured" else 0)
    assert found.captured == found.refunded == charge.refunded


def test_a_draft_lives_through_its_changes_and_is_submitted() -> None:
    world = stocked(1, MUG=10, LAMP=5)
    send(world, 1, create(line("MUG", 1)))
    send(world, 1, c.AddItem(line=line("LAMP", 1, 5000)))
    send(world, 1, c.ChangeQuantity(line_id="L1", quantity=4))
    send(world, 1, c.RemoveItem(line_id="L2"))
    world.settle()
    assert stock(world, "MUG") == (10, 0, 0), "a draft reserves nothing"
    send(world, 1, c.SubmitOrder(payment_token="pm_card_visa", quotes=(line("MUG").quote,)))
    world.settle()
    assert order(world, 1).status == "PAYMENT_CONFIRMED"
    assert stock(world, "MUG") == (6, 4, 0)


def test_duplicates_get_the_first_outcome_again_and_another_body_is_refused() -> None:
    world = stocked(1, MUG=10)
    for _ in range(3):
        send(world, 1, create(line("MUG", 1), submit=True), body_hash="one", reply_to="gateway-a")
    send(world, 1, create(line("MUG", 9), submit=True), body_hash="two", reply_to="gateway-b")
    world.settle()
    first, *others = world.messages("order.replies", "gateway-a")
    assert len(others) == 2
    assert all(other == first for other in others)
    (reused,) = world.messages("order.replies", "gateway-b")
    assert isinstance(reused, CommandOutcome)
    assert reused.rejection is not None
    assert (reused.rejection.type, reused.rejection.status) == ("idempotency-key-reused", 422)
    assert len(world.bank.charges) == 1
    assert stock(world, "MUG") == (9, 1, 0)


def test_a_repeat_of_an_accepted_order_gets_that_outcome_though_the_catalogue_speaks_against_it_now() -> None:
    world = stocked(1, MUG=1)
    accepted = command(create(line("MUG", 1), submit=True), order_id=order_id(1), body_hash="b", reply_to="gateway-a")
    refusal = c.RefuseRequest(rejection=Rejection(type="out-of-stock", detail="gone"))
    world.write("order.commands", order_id(1), accepted)
    world.write("order.commands", order_id(1), accepted.model_copy(update={"data": refusal}))
    world.settle()
    first, again = world.messages("order.replies", "gateway-a")
    assert first == again
    assert first.accepted


def test_a_dry_run_leaves_no_trace() -> None:
    world = stocked(1, MUG=10)
    send(world, 1, create(line("MUG", 1), submit=True), dry_run=True, reply_to="gateway-a")
    world.settle()
    (outcome,) = world.messages("order.replies", "gateway-a")
    assert outcome.accepted
    assert outcome.order.totals.total > 0
    assert world.messages("order.events") == []
    send(world, 1, create(line("MUG", 1), submit=True), reply_to="gateway-a")
    world.settle()
    assert order(world, 1).status == "PAYMENT_CONFIRMED"


def test_stock_is_adjusted_once_and_never_below_zero() -> None:
    world = stocked(1, MUG=10)
    adjust(world, "MUG", 10)
    adjust(world, "MUG", -11, name="2")
    world.settle()
    outcomes = [x for x in world.messages("order.replies", "gateway-test") if isinstance(x, StockOutcome)]
    assert [x.accepted for x in outcomes] == [True, True, False]
    assert stock(world, "MUG") == (10, 0, 0)


def test_a_poison_message_parks_its_order_and_stops_nobody() -> None:
    world = stocked(1, MUG=10)
    world.write("order.commands", order_id(1), b"\x00\x00\x00\x00\x07poison")
    send(world, 1, create(line("MUG", 1), submit=True))
    send(world, 2, create(line("MUG", 1), submit=True))
    world.settle()
    assert order(world, 2).status == "PAYMENT_CONFIRMED"
    letters = world.messages("dead.letters", order_id(1))
    assert [x.reason for x in letters] == ["undecodable", "parked"]
    assert letters[0].value == b"\x00\x00\x00\x00\x07poison"
    assert all(isinstance(x, DeadLettered) and x.processor == "order" for x in letters)


@pytest.mark.parametrize("topic", ["order.commands", "order.internal", "inventory.commands", "order.events",
                                   "order.rejections", "inventory.results", "payment.results", "timer.commands",
                                   "timer.ticks", "promotion.results", "fraud.results"])  # fmt: skip
@pytest.mark.parametrize(("key", "value"), [("k", b"junk"), ("k", None), (None, b"junk"), (b"\xff", b"\x00")])
def test_poison_on_each_topic_is_dead_lettered_whole(topic: str, key: Any, value: bytes | None) -> None:
    world = stocked(1, MUG=10)
    world.write(topic, key, value)
    world.settle()
    letters = world.messages("dead.letters")
    readers = [name for name, spec in world.topology.processors.items() if topic in spec.inputs]
    assert sorted(letter.processor for letter in letters) == sorted(readers)
    for letter in letters:
        assert (letter.topic, letter.value) == (topic, value)
        assert letter.key == (key.encode() if isinstance(key, str) else key)
    send(world, 1, create(line("MUG", 1), submit=True))
    world.settle()
    assert order(world, 1).status == "PAYMENT_CONFIRMED"


def test_a_message_of_the_wrong_family_is_poison_too() -> None:
    world = stocked(1)
    wrong = command(create())
    world.write("inventory.commands", "MUG#main", wrong)
    world.settle()
    (letter,) = world.messages("dead.letters")
    assert (letter.reason, letter.processor) == ("failed", "inventory")


def test_every_event_says_who_and_because_of_what() -> None:
    world = stocked(1, MUG=10)
    send(world, 1, create(line("MUG", 1), submit=True))
    world.settle()
    events = [r.message for r in world.records("order.events")]
    assert [x.actor for x in events if x] == ["customer:42"] * 3 + ["system:placement"]
    assert {x.correlation_id for x in events if x} == {command(create()).correlation_id}
    assert isinstance(events[-1].data, e.OrderPaymentConfirmed)  # type: ignore[union-attr]
