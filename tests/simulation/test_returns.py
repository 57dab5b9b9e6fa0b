"""Returns through every processor, in memory, under many interleavings. The test plays the carrier."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import uuid5

import pytest

from processors.returns.saga import exchange_order_id
from schemas import commands as c
from schemas import events as e
from schemas.base import Command, Message, Payload
from schemas.codec import decode
from schemas.inventory import CommitStock
from schemas.logistics import CarrierReported, MakeReturnLabel, ReturnLabelFailed, ReturnLabelMade
from schemas.notification import SendNotice
from schemas.operations import DeadLettered, ExceptionOpened
from schemas.order import Order, ShipmentLine
from schemas.policy import Policy
from tests.simulation.test_placing import SEEDS, exceptions, order, order_id, send, stock, stocked
from tests.simulation.world import World
from tests.support.examples import NAMES, POLICY, create, line, quote

STAFF = {"actor": "staff:clerk"}
BACK_WITHIN = POLICY.returns.send_back_within.total_seconds()


def reports(world: World, topic: str, n: int, payload: Payload, name: str = "1") -> None:
    """Something that the outside tells about an order."""
    message: Message[Any] = Message(
        id=str(uuid5(NAMES, f"{type(payload).__name__} {n} {name}")),
        at=world.now,
        actor="system:logistics",
        correlation_id="c",
        order_id=order_id(n),
        data=payload,
    )
    world.write(topic, order_id(n), message)


def internal(world: World, n: int, payload: Payload) -> None:
    """What the fulfilment saga would have sent."""
    command: Command[Any] = Command(
        id=str(uuid5(NAMES, f"{type(payload).__name__} {n}")),
        order_id=order_id(n),
        at=world.now,
        actor="system:fulfilment",
        correlation_id="c",
        data=payload,
    )
    world.write("order.internal", order_id(n), command)
    world.settle()


def delivered(seed: int, n: int = 1, rules: Policy | None = None) -> World:
    """Three mugs and a lamp, paid and delivered in one parcel: how they got there is another test's business."""
    world = stocked(seed, rules, MUG=10, LAMP=5)
    world.frozen.add("fulfilment")
    send(world, n, create(line("MUG", 3), line("LAMP", 1, 5000), submit=True))
    world.settle()
    world.now += POLICY.edits.modification_window
    internal(world, n, c.BeginFulfilment(due_at=world.now))
    parcel = tuple(ShipmentLine(line_id=x.line_id, sku=x.sku, quantity=x.quantity) for x in order(world, n).lines)
    internal(world, n, c.PlanShipment(shipment_id="s1", lines=parcel))
    internal(world, n, c.ShipShipment(shipment_id="s1", carrier="ups", tracking_number="1Z", tracking_url="u"))
    for x in parcel:
        out = CommitStock(line_id=x.line_id, sku=x.sku, pool="main", order_version=9, quantity=x.quantity,
                          shipment_id="s1")  # fmt: skip
        message: Message[Any] = Message(
            id=f"commit {n} {x.line_id}", at=world.now, actor="system:fulfilment", correlation_id="c",
            order_id=order_id(n), data=out,
        )  # fmt: skip
        world.write("inventory.commands", f"{x.sku}#main", message)
    internal(world, n, c.DeliverShipment(shipment_id="s1"))
    assert order(world, n).status == "DELIVERED"
    assert (stock(world, "MUG"), stock(world, "LAMP")) == ((7, 0, 3), (4, 0, 1))
    return world


def wish(line_id: str = "L1", quantity: int = 1, reason: str = "changed_mind", **more: Any) -> c.ReturnWish:
    return c.ReturnWish(line_id=line_id, quantity=quantity, reason=reason, **more)


def approved(world: World, *wishes: c.ReturnWish, n: int = 1) -> str:
    send(world, n, c.RequestReturn(items=wishes), name=f"request {len(order(world, n).returns)}")
    world.settle()
    rma = order(world, n).returns[-1].rma
    send(world, n, c.ApproveReturn(rma=rma), name=f"approve {rma}", **STAFF)
    world.settle()
    return rma


def labelled(world: World, rma: str, n: int = 1) -> None:
    (asked,) = [x for x in world.messages("shipping.commands", order_id(n)) if isinstance(x, MakeReturnLabel)]
    assert (asked.rma, asked.customer_id) == (rma, "42")
    made = ReturnLabelMade(rma=rma, carrier="ups", tracking_number="1Z-R", label_url="https://labels.example/1")
    reports(world, "shipping.results", n, made)
    world.settle()


def arrives(world: World, rma: str, n: int = 1) -> None:
    back = CarrierReported(
        event_id=f"back {rma}", reference=rma, kind="return_received", tracking_number="1Z-R", occurred_at=world.now
    )
    reports(world, "carrier.events", n, back)


def balanced(world: World, n: int = 1) -> Order:
    """The order, after a look at whether the provider has given back what the order says, and nothing was dropped."""
    found = order(world, n)
    given = sum(world.bank.charges[p.attempt_id].refunded for p in found.payments)
    assert given == found.refunded <= found.captured
    assert [x for x in world.messages("dead.letters") if isinstance(x, DeadLettered)] == []
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_goods_come_back_and_money_goes_back(seed: int) -> None:
    world = delivered(seed)
    rma = approved(world, wish("L1", 2), wish("L2"))
    labelled(world, rma)
    assert order(world, 1).returns[0].label_url == "https://labels.example/1"
    arrives(world, rma)
    world.settle()
    assert order(world, 1).returns[0].status == "received"
    unusable = c.Inspected(line_id="L2", condition="unusable")
    send(world, 1, c.InspectReturn(rma=rma, items=(unusable,)), **STAFF)
    world.settle()
    found = balanced(world)
    assert (found.status, found.returns[0].status) == ("DELIVERED", "closed")
    assert found.refunded == (4 * found.lines[0].paid + 3) // 6
    assert (stock(world, "MUG"), stock(world, "LAMP")) == ((9, 0, 1), (4, 0, 0)), "the lamp is written off"
    assert exceptions(world, 1) == ([], [])
    world.pass_time(BACK_WITHIN + 1)
    assert order(world, 1).version == found.version, "its deadline is over with it"


@pytest.mark.parametrize("seed", SEEDS)
def test_the_news_of_the_label_may_come_at_any_time_after_the_goods(seed: int) -> None:
    world = delivered(seed)
    rma = approved(world, wish("L1", 3, "defective"), wish("L2", 1, "defective"))
    arrives(world, rma)
    world.settle()
    send(world, 1, c.InspectReturn(rma=rma), **STAFF)
    for _ in range(world.random.randrange(30)):
        world.step()
    labelled(world, rma)
    found = balanced(world)
    assert (found.status, found.returns[0].status) == ("REFUNDED", "closed")
    assert (found.returns[0].carrier, found.returns[0].tracking_number) == ("ups", "1Z-R")
    kinds = [x.kind for x in world.messages("notification.commands") if isinstance(x, SendNotice)]
    assert "return_received" in kinds
    assert "return_label" not in kinds
    assert exceptions(world, 1) == ([], [])


@pytest.mark.parametrize("seed", SEEDS)
def test_an_order_that_comes_back_whole_is_refunded_whole(seed: int) -> None:
    world = delivered(seed)
    first = approved(world, wish("L1", 3, "defective"))
    arrives(world, first)
    world.settle()
    send(world, 1, c.InspectReturn(rma=first), name="one", **STAFF)
    second = approved(world, wish("L2", 1, "wrong_item"))
    arrives(world, second)
    world.settle()
    send(world, 1, c.InspectReturn(rma=second), name="two", **STAFF)
    world.settle()
    found = balanced(world)
    assert found.status == "REFUNDED"
    assert found.refunded == found.captured
    assert (stock(world, "MUG"), stock(world, "LAMP")) == ((10, 0, 0), (5, 0, 0))


@pytest.mark.parametrize("seed", SEEDS)
def test_carrier_and_staff_report_the_same_goods(seed: int) -> None:
    world = delivered(seed)
    rma = approved(world, wish())
    arrives(world, rma)
    for _ in range(world.random.randrange(6)):
        world.step()
    send(world, 1, c.ReceiveReturn(rma=rma), **STAFF)
    world.settle()
    happened = [x for x in world.messages("order.events", order_id(1)) if isinstance(x, e.OrderReturnReceived)]
    assert len(happened) == 1
    assert exceptions(world, 1) == ([], [])


@pytest.mark.parametrize("seed", SEEDS)
def test_what_never_comes_expires(seed: int) -> None:
    world = delivered(seed)
    rma = approved(world, wish())
    world.pass_time(BACK_WITHIN - 1)
    assert order(world, 1).status == "REFUND_REQUESTED"
    world.pass_time(2)
    found = balanced(world)
    assert (found.status, found.returns[0].status) == ("DELIVERED", "expired")
    arrives(world, rma)
    world.settle()
    assert exceptions(world, 1) == (["return_unexpected"], [])
    assert order(world, 1).version == found.version


@pytest.mark.parametrize("seed", SEEDS)
def test_an_exchange_is_ordered_paid_and_reserved(seed: int) -> None:
    world = delivered(seed)
    rma = approved(world, wish("L1", 2, exchange=quote("LAMP", 5000)))
    send(world, 1, c.ReceiveReturn(rma=rma), **STAFF)
    send(world, 1, c.InspectReturn(rma=rma), **STAFF)
    world.settle()
    balanced(world)
    found = world.messages("order.states", exchange_order_id(rma, "L1"))[-1].order
    assert (found.status, found.exchange_of, found.customer_id) == ("PAYMENT_CONFIRMED", order_id(1), "42")
    assert [(x.sku, x.quantity, x.unit_price) for x in found.lines] == [("LAMP", 2, 5000)]
    assert found.shipping_address == order(world, 1).shipping_address
    assert world.bank.charges[found.payments[0].attempt_id].amount == found.totals.total
    assert (stock(world, "MUG"), stock(world, "LAMP")) == ((9, 0, 1), (2, 2, 1))


@pytest.mark.parametrize("seed", SEEDS)
def test_an_exchange_without_stock_is_a_cancelled_order_and_the_refund_stays(seed: int) -> None:
    world = delivered(seed)
    rma = approved(world, wish("L1", 3, exchange=quote("SOLD-OUT", 100)))
    send(world, 1, c.ReceiveReturn(rma=rma), **STAFF)
    send(world, 1, c.InspectReturn(rma=rma), **STAFF)
    world.settle()
    found = world.messages("order.states", exchange_order_id(rma, "L1"))[-1].order
    assert found.cancellation.reason == "out_of_stock"
    assert balanced(world).refunded == order(world, 1).lines[0].paid


@pytest.mark.parametrize("seed", SEEDS)
def test_a_label_that_fails_is_raised_retried_and_resolved(seed: int) -> None:
    world = delivered(seed)
    rma = approved(world, wish())
    reports(world, "shipping.results", 1, ReturnLabelFailed(rma=rma, code="no_service"))
    world.settle()
    (opened,) = [x for x in world.messages("exceptions", order_id(1)) if isinstance(x, ExceptionOpened)]
    assert (opened.kind, opened.retry_topic, opened.retry_key) == (
        "return_label_failed", "shipping.commands", order_id(1),
    )  # fmt: skip
    assert opened.retry is not None
    again = decode(opened.retry)
    assert isinstance(again, Message)
    asked = [x for x in world.messages("shipping.commands", order_id(1)) if isinstance(x, MakeReturnLabel)]
    assert again.data == asked[0]
    assert again.order_id == order_id(1)
    labelled(world, rma)
    assert exceptions(world, 1) == (["return_label_failed"], ["the label was made"])


def test_a_return_approved_by_policy_needs_nobody() -> None:
    rules = POLICY.returns.model_copy(update={"auto_approve": True, "send_back_within": timedelta(days=1)})
    world = delivered(1, rules=POLICY.model_copy(update={"returns": rules}))
    send(world, 1, c.RequestReturn(items=(wish(),)))
    world.settle()
    labelled(world, order(world, 1).returns[0].rma)
    world.pass_time(86401)
    assert order(world, 1).returns[0].status == "expired"
