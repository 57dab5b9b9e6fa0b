"""From paid to delivered through every processor, in memory, under many interleavings, with a warehouse and a carrier
that are not always good."""

from __future__ import annotations

from typing import Any

import pytest

from processors.fulfilment.model import Fulfilment
from processors.fulfilment.saga import step
from schemas import commands as c
from schemas import logistics as g
from schemas.base import Event, Message
from schemas.codec import decode
from schemas.operations import DeadLettered, ExceptionOpened
from schemas.order import Order, OrderStatus
from tests.simulation.logistics import Logistics
from tests.simulation.test_placing import adjust, exceptions, order, order_id, send, stock
from tests.simulation.world import Consumer, World
from tests.support.examples import POLICY, create, line

SEEDS = range(6)
WINDOW = POLICY.edits.modification_window.total_seconds()
DAY = 86_400.0


class Stuttering(World):
    """Fulfilment hears things again, old ones too."""

    def _deliver(self, consumer: Consumer, topic: str, partition: int) -> None:
        super()._deliver(consumer, topic, partition)
        if consumer.name == "fulfilment" and self.random.random() < 0.3:
            next_one = consumer.positions[topic, partition]
            consumer.positions[topic, partition] = self.random.randrange(next_one)
            super()._deliver(consumer, topic, partition)
            consumer.positions[topic, partition] = next_one


def world_of(
    seed: int,
    outside: Logistics | None = None,
    stocked: bool = True,
    kind: type[World] = World,
    capture: str = "on_submission",
    **fulfilment: Any,
) -> World:
    """With 50 units of MUG, LAMP and BOOK, and the shipped policy, but for these rules of `fulfilment`."""
    rules = POLICY.model_copy(
        update={
            "fulfilment": POLICY.fulfilment.model_copy(update=fulfilment),
            "payment": POLICY.payment.model_copy(update={"capture": capture}),
        }
    )
    world = kind(seed, logistics=outside or Logistics(seed), rules=rules)
    for sku in ("MUG", "LAMP", "BOOK") if stocked else ():
        adjust(world, sku, 50)
    world.settle()
    return world


def go_on(world: World, days: int = 12) -> None:
    """The time to modify passes, then days, with their redeliveries."""
    world.pass_time(WINDOW + 1)
    for _ in range(days):
        world.pass_time(DAY + 1)


def events(world: World, n: int) -> list[str]:
    return [type(data).__name__ for data in world.messages("order.events", order_id(n))]


def assert_quiet(world: World) -> None:
    assert [x for x in world.messages("dead.letters") if isinstance(x, DeadLettered)] == []


def assert_stock(world: World, sku: str, orders: list[Order], stocked: int = 50) -> None:
    """Nothing is reserved; what left and did not come back is with customers or lost; the rest is on the shelf."""
    on_hand, reserved, shipped = stock(world, sku)
    assert reserved == 0
    assert on_hand + shipped + world.logistics.written_off[sku] == stocked
    gone = sum(
        x.quantity
        for found in orders
        for parcel in found.shipments
        if parcel.status in ("delivered", "lost")
        for x in parcel.lines
        if x.sku == sku
    )
    assert shipped == gone


@pytest.mark.parametrize("seed", SEEDS)
def test_a_paid_order_is_delivered(seed: int) -> None:
    world = world_of(seed)
    send(world, 1, create(line("MUG", 3), line("LAMP", 1, 5000), submit=True))
    world.settle()
    world.pass_time(WINDOW - 1)
    assert order(world, 1).status == "PAYMENT_CONFIRMED"
    world.pass_time(2)
    found = order(world, 1)
    assert found.status == "DELIVERED"
    (parcel,) = found.shipments
    assert (parcel.carrier, parcel.tracking_url is not None, parcel.estimated_delivery) == ("Post", True, "2026-03-09")
    assert events(world, 1)[4:] == [
        "OrderProcessingStarted", "OrderShipmentPlanned", "OrderShipmentUpdated", "OrderShipmentUpdated",
        "OrderShipmentDispatched", "OrderShipped", "OrderShipmentUpdated", "OrderShipmentUpdated",
        "OrderShipmentDelivered", "OrderDelivered",
    ]  # fmt: skip
    assert (stock(world, "MUG"), stock(world, "LAMP")) == ((47, 0, 3), (49, 0, 1))
    assert exceptions(world, 1) == ([], [])
    assert_quiet(world)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_failed_delivery_is_tried_again_the_next_day(seed: int) -> None:
    outside = Logistics(seed, nobody=0, fates={order_id(1): ["fail"]})
    world = world_of(seed, outside)
    send(world, 1, create(line("MUG", 1), submit=True))
    world.settle()
    world.pass_time(WINDOW + 1)
    assert order(world, 1).status == "PROCESSING"
    world.pass_time(DAY - 1)
    assert order(world, 1).status == "PROCESSING"
    world.pass_time(2)
    assert order(world, 1).status == "DELIVERED"
    assert events(world, 1).count("OrderShipped") == 2


@pytest.mark.parametrize("seed", SEEDS)
def test_what_nobody_takes_comes_back_and_is_paid_back(seed: int) -> None:
    outside = Logistics(seed, nobody=1, fates={order_id(1): ["fail"]})
    world = world_of(seed, outside)
    send(world, 1, create(line("MUG", 2), submit=True))
    world.settle()
    go_on(world, 4)
    found = order(world, 1)
    assert found.cancellation is not None
    assert (found.status, found.cancellation.reason) == ("CANCELLED", "undeliverable")
    assert found.captured == found.refunded == found.totals.total
    assert stock(world, "MUG") == (50, 0, 0)
    assert exceptions(world, 1) == ([], [])


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_lost_is_sent_again_and_lost_again_is_paid_back(seed: int) -> None:
    outside = Logistics(seed, fates={order_id(1): ["lose"], order_id(2): ["lose", "lose"]})
    world = world_of(seed, outside)
    for n in (1, 2):
        send(world, n, create(line("MUG", 2), submit=True))
    world.settle()
    go_on(world, 2)
    again, over = order(world, 1), order(world, 2)
    assert (again.status, [s.status for s in again.shipments]) == ("DELIVERED", ["lost", "delivered"])
    assert over.cancellation is not None
    assert over.cancellation.reason == "lost"
    assert over.refunded == over.totals.total
    assert stock(world, "MUG") == (42, 0, 8)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_can_not_be_sent_again_for_want_of_stock_is_cancelled(seed: int) -> None:
    world = world_of(seed, Logistics(seed, fates={order_id(1): ["lose"]}), stocked=False)
    adjust(world, "MUG", 3)
    world.settle()
    send(world, 1, create(line("MUG", 2), submit=True))
    world.settle()
    go_on(world, 2)
    found = order(world, 1)
    assert found.cancellation is not None
    assert found.cancellation.reason == "out_of_stock"
    assert found.captured == found.refunded
    assert stock(world, "MUG") == (1, 0, 2)
    assert exceptions(world, 1) == ([], [])


@pytest.mark.parametrize("seed", SEEDS)
def test_a_short_pick_is_paid_back_and_written_off(seed: int) -> None:
    outside = Logistics(seed, fates={order_id(1): ["short"]})
    world = world_of(seed, outside)
    send(world, 1, create(line("MUG", 4), line("BOOK", 3, 700), submit=True))
    world.settle()
    go_on(world, 1)
    found = order(world, 1)
    gone = outside.written_off
    assert sum(gone.values()) == sum(x.cancelled for x in found.lines) > 0
    assert found.status == "DELIVERED"
    assert found.refunded > 0
    for sku in ("MUG", "BOOK"):
        assert_stock(world, sku, [found])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("split", ["ship_complete", "ship_available"])
def test_back_orders_wait_or_the_rest_goes_ahead(seed: int, split: str) -> None:
    world = world_of(seed, stocked=False, split=split)
    for sku, units in (("MUG", 2), ("LAMP", 5)):
        adjust(world, sku, units)
    world.settle()
    send(world, 1, create(line("MUG", 3, backorder=True), line("LAMP", 1, 5000, backorder=True), submit=True))
    world.settle()
    world.pass_time(WINDOW + 1)
    found = order(world, 1)
    expected = [("delivered", 3)] if split == "ship_available" else []
    assert [(s.status, sum(x.quantity for x in s.lines)) for s in found.shipments] == expected
    assert found.status == "PROCESSING"
    adjust(world, "MUG", 10, name="delivery")
    world.settle()
    found = order(world, 1)
    assert found.status == "DELIVERED"
    assert [sum(x.quantity for x in s.lines) for s in found.shipments] == ([3, 1] if split == "ship_available" else [4])
    assert (stock(world, "MUG"), stock(world, "LAMP")) == ((9, 0, 3), (4, 0, 1))


@pytest.mark.parametrize("kind", [World, Stuttering])
@pytest.mark.parametrize("seed", range(12))
def test_cancelling_somewhere_on_the_way(seed: int, kind: type[World]) -> None:
    """Whole orders and single units, at any moment. Nothing is with a customer who has the money back, but for parcels
    that somebody is told of; and no order is left lying."""
    world = world_of(seed, Logistics(seed, short=0.2, repeats=0.2, disorder=0.2), kind=kind)
    for n in range(12):
        send(world, n, create(line("MUG", 2), submit=True))
    world.settle()
    world.frozen.add("logistics")
    world.pass_time(WINDOW + 1)
    world.frozen.clear()
    one = (c.ItemQuantity(line_id="L1", quantity=1),)
    for n in range(12):
        for _ in range(world.random.randrange(40)):
            world.step()
        cancel = c.CancelOrder(reason="changed_mind", items=one if world.random.random() < 0.5 else ())
        send(world, n, cancel, name="cancel")
    world.settle()
    go_on(world, 3)
    assert_quiet(world)
    orders = [order(world, n) for n in range(12)]
    for n, found in enumerate(orders):
        after_all = "shipped_after_cancel" in exceptions(world, n)[0]
        left = world.logistics.arrived(order_id(n))["L1"]
        if found.status == "CANCELLED":
            assert found.refunded == found.captured
            assert left == 0 or after_all
        else:
            assert found.status == "DELIVERED"
            assert found.lines[0].delivered == 2 - found.lines[0].cancelled
            assert left == found.lines[0].delivered or after_all
        assert set(exceptions(world, n)[0]) <= {"shipped_after_cancel"}


@pytest.mark.parametrize("kind", [World, Stuttering])
@pytest.mark.parametrize("seed", range(10))
def test_everything_goes_wrong_sometimes(seed: int, kind: type[World]) -> None:
    rules: dict[str, Any] = {
        "split": ["ship_complete", "ship_available"][seed % 2],
        "capture": ["on_submission", "on_shipment"][seed // 2 % 2],
        "undeliverable": ["cancel", "reship"][seed // 4 % 2],
        "max_reships": 2,
    }
    outside = Logistics(seed, short=0.15, fail=0.2, lose=0.1, back=0.1, repeats=0.3, disorder=0.3)
    world = world_of(seed, outside, kind=kind, **rules)
    for n in range(20):
        send(world, n, create(line("MUG", 1 + n % 3), line("LAMP", 1, 5000), line("BOOK", 2, 333), submit=True))
    world.settle()
    go_on(world)
    assert_quiet(world)
    orders = [order(world, n) for n in range(20)]
    for n, found in enumerate(orders):
        assert found.status in ("DELIVERED", "CANCELLED"), (n, found.status, events(world, n))
        assert exceptions(world, n) == ([], [])
        arrived = outside.arrived(order_id(n))
        assert {x.line_id: x.delivered for x in found.lines} == {x.line_id: arrived[x.line_id] for x in found.lines}
        assert all(x.quantity == x.cancelled + x.delivered for x in found.lines) or found.status == "CANCELLED"
        charged = [charge for attempt, charge in world.bank.charges.items() if attempt in _attempts(found)]
        assert sum(charge.taken - charge.refunded for charge in charged) == found.captured - found.refunded
        if found.status == "CANCELLED":
            assert found.captured == found.refunded
            assert not arrived
    for sku in ("MUG", "LAMP", "BOOK"):
        assert_stock(world, sku, orders)


def _attempts(found: Order) -> set[str]:
    return {payment.attempt_id for payment in found.payments}


def test_a_booking_that_the_carrier_refuses_is_tried_again_by_a_person() -> None:
    outside = Logistics(1, refuses={order_id(1)})
    world = world_of(1, outside)
    send(world, 1, create(line("MUG", 1), submit=True))
    world.settle()
    world.pass_time(WINDOW + 1)
    (opened,) = [x for x in world.messages("exceptions", order_id(1)) if isinstance(x, ExceptionOpened)]
    assert (opened.kind, opened.owner, opened.retry_topic) == ("booking_failed", "fulfilment", "shipping.commands")
    assert opened.retry is not None
    assert isinstance(decode(opened.retry).data, g.BookShipment)
    outside.refuses.clear()
    world.write("shipping.commands", opened.retry_key, opened.retry)
    world.settle()
    assert order(world, 1).status == "DELIVERED"
    assert exceptions(world, 1) == (["booking_failed"], ["the carrier has taken it"])


def test_an_order_that_does_not_move_is_reported_until_it_does() -> None:
    world = world_of(1)
    send(world, 1, create(line("MUG", 1), submit=True))
    world.settle()
    world.frozen.add("logistics")
    world.pass_time(WINDOW + 1)
    patience = POLICY.deadlines.stuck_after[OrderStatus.PROCESSING].total_seconds()
    world.pass_time(patience - 1)
    assert exceptions(world, 1) == ([], [])
    world.pass_time(2)
    assert exceptions(world, 1) == (["order_stuck"], [])
    world.frozen.clear()
    world.settle()
    assert order(world, 1).status == "DELIVERED"
    assert exceptions(world, 1) == (["order_stuck"], ["the order is SHIPPED now"])


def test_an_unpaid_order_that_staff_forgot_to_release_is_reported() -> None:
    """With its hold it has no deadline, and keeps its stock."""
    world = world_of(1)
    world.frozen.add("placement")
    send(world, 1, create(line("MUG", 1), submit=True))
    send(world, 1, c.HoldOrder(kind="staff", reason="a call"), actor="staff:eve")
    world.settle()
    world.frozen.clear()
    world.settle()
    world.pass_time(POLICY.deadlines.stuck_after[OrderStatus.PENDING_PAYMENT].total_seconds() - 1)
    assert exceptions(world, 1) == ([], [])
    assert (order(world, 1).status, stock(world, "MUG")[1]) == ("PENDING_PAYMENT", 1)
    world.pass_time(2)
    assert exceptions(world, 1) == (["order_stuck"], [])
    send(world, 1, c.ReleaseOrder(), actor="staff:eve")
    world.settle()
    assert order(world, 1).status == "PAYMENT_CONFIRMED"
    assert exceptions(world, 1) == (["order_stuck"], ["the order is PAYMENT_CONFIRMED now"])


def test_money_is_captured_when_parcels_leave() -> None:
    world = world_of(1, stocked=False, split="ship_available", capture="on_shipment")
    adjust(world, "MUG", 2)
    world.settle()
    send(world, 1, create(line("MUG", 3, 333, backorder=True), submit=True))
    world.settle()
    (charge,) = world.bank.charges.values()
    assert (charge.status, charge.captured) == ("authorized", 0)
    world.pass_time(WINDOW + 1)
    found = order(world, 1)
    assert 0 < charge.captured == found.captured < found.totals.total
    adjust(world, "MUG", 1, name="delivery")
    world.settle()
    found = order(world, 1)
    assert found.status == "DELIVERED"
    assert charge.captured == found.captured == found.totals.total


def test_reports_about_what_nobody_knows_go_to_a_person() -> None:
    world = world_of(1)
    send(world, 1, create(line("MUG", 1), submit=True))
    world.settle()
    found = g.CarrierReported(
        event_id="x", reference="nobody's", kind="delivered", tracking_number="T", occurred_at=world.now
    )
    message: Message[Any] = Message(
        id="x", at=world.now, actor="system:gateway", correlation_id="c", order_id=order_id(1), data=found
    )
    world.write("carrier.events", order_id(1), message)
    world.settle()
    assert exceptions(world, 1) == (["saga_command_refused"], [])


def test_imported_history_moves_nothing() -> None:
    """What the saga hears of an imported order leads to no command, whatever it is."""
    world = world_of(1)
    send(world, 1, create(line("MUG", 1), submit=True))
    world.settle()
    go_on(world, 1)
    state: Fulfilment | None = None
    for record in world.records("order.events"):
        assert isinstance(record.message, Event)
        state, sends = step(state, record.message.model_copy(update={"imported": True}), POLICY)
        assert sends == []
    assert state is not None
    assert (state.phase, state.imported) == ("ended", True)
