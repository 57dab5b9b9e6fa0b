"""The fulfilment saga: what it sends for what it hears, also in odd orders and twice."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from processors.fulfilment.model import Fulfilment, Send, message_id, shipment_id
from processors.fulfilment.processor import handler
from processors.fulfilment.saga import step
from processors.kit import Incoming
from schemas import commands as c
from schemas import events as e
from schemas import inventory as i
from schemas import logistics as g
from schemas.base import Event, Message, Payload
from schemas.codec import decode
from schemas.operations import ExceptionOpened, ExceptionResolved
from schemas.order import Line, OrderStatus, ShipmentLine, Totals
from schemas.policy import Policy
from schemas.replies import CommandRejected, Rejection
from schemas.timers import CancelTimer, SetTimer
from tests.support.examples import ORDER, POLICY, T0, address, at

S1, S2 = shipment_id(ORDER, 1), shipment_id(ORDER, 2)
AVAILABLE = POLICY.model_copy(update={"fulfilment": POLICY.fulfilment.model_copy(update={"split": "ship_available"})})
SUBMITTED = e.OrderSubmitted(lines=(), totals=Totals())
CANCELLED = e.OrderCancelled(reason="customer_request")
PAID = e.OrderPaymentConfirmed(attempt_id="a", amount=1, provider_ref="ch", modifiable_until=at(1800))


def ordered(line_id: str, sku: str, quantity: int, **more: Any) -> Line:
    values: dict[str, Any] = {
        "line_id": line_id, "product_id": "p", "sku": sku, "name": sku.title(), "category": "c",
        "tax_category": "standard", "weight_grams": 100, "quantity": quantity, "unit_price": 500,
        "line_total": 500 * quantity, "tax": 19 * quantity,
    }  # fmt: skip
    return Line(**{**values, **more})


def units(**quantities: int) -> tuple[ShipmentLine, ...]:
    skus = {"L1": "MUG", "L2": "LAMP"}
    return tuple(ShipmentLine(line_id=x, sku=skus[x], quantity=n) for x, n in quantities.items())


def started(*lines: Line, incoterm: str | None = None) -> e.OrderProcessingStarted:
    return e.OrderProcessingStarted(
        lines=lines or (ordered("L1", "MUG", 3),),
        shipping_address=address(),
        shipping_method="standard",
        incoterm=incoterm,
        customer_id="42",
        currency="EUR",
    )


def planned(shipment: str = S1, **quantities: int) -> e.OrderShipmentPlanned:
    return e.OrderShipmentPlanned(shipment_id=shipment, lines=units(**(quantities or {"L1": 3})))


def dispatched(shipment: str = S1, redelivery: bool = False, **quantities: int) -> e.OrderShipmentDispatched:
    return e.OrderShipmentDispatched(
        shipment_id=shipment,
        lines=units(**(quantities or {"L1": 3})),
        carrier="Post",
        tracking_number="T",
        tracking_url="u",
        redelivery=redelivery,
    )


def warehouse(kind: str, shipment: str = S1, name: str = "", **short: int) -> g.WarehouseReported:
    return g.WarehouseReported(
        event_id=name or f"{kind} {shipment}", shipment_id=shipment, kind=kind, lines=units(**short), occurred_at=T0
    )


def carrier(kind: str, shipment: str = S1, name: str = "", seconds: float = 0, **more: Any) -> g.CarrierReported:
    return g.CarrierReported(
        event_id=name or f"{kind} {shipment}",
        reference=shipment,
        kind=kind,
        tracking_number="T",
        occurred_at=at(seconds),
        **more,
    )


BOOKED = g.ShipmentBooked(shipment_id=S1, carrier="Post", tracking_number="T", tracking_url="u")


def cancelled(shipment: str | None = None, reason: str = "changed_mind", **quantities: int) -> e.OrderItemsCancelled:
    return e.OrderItemsCancelled(lines=units(**quantities), reason=reason, shipment_id=shipment)


def reserved(version: int, missing: int = 0, line_id: str = "L1") -> i.StockReserved:
    return i.StockReserved(line_id=line_id, sku="MUG", quantity=3, order_version=version, backordered=missing)


def refused(type: str, command: str, name: str = "", **more: Any) -> CommandRejected:
    return CommandRejected(
        command_id=message_id(ORDER, name),
        command=command,
        rejection=Rejection(type=type, detail="no", extra={"shipment_id": S1}),
        **{"actor": "system:fulfilment", "status": "PROCESSING", **more},
    )


class Story:
    def __init__(self, policy: Policy = POLICY) -> None:
        self.policy = policy
        self.state: Fulfilment | None = None
        self.version = 3
        self.sent: list[Send] = []

    def hears(self, *payloads: Payload, imported: bool = False) -> Story:
        for payload in payloads:
            cause: Event[Any] | Message[Any]
            if payload.family == "order.events":
                self.version += 1
                cause = Event(
                    id=f"e{self.version}", order_id=ORDER, version=self.version, occurred_at=T0, actor="a",
                    correlation_id="c", causation_id="x", previous_hash="", data=payload, imported=imported,
                )  # fmt: skip
            else:
                cause = Message(id="m", at=T0, actor="a", correlation_id="c", order_id=ORDER, data=payload)
            self.state, self.sent = step(self.state, cause, self.policy)
            again, _ = step(self.state, cause, self.policy)
            assert again == self.state or isinstance(payload, CommandRejected), "a repeat changes nothing"
        return self

    def sends(self, *kinds: type[Payload]) -> Story:
        assert [type(s.payload) for s in self.sent] == list(kinds), self.sent
        return self

    def only(self) -> Any:
        assert len(self.sent) == 1, self.sent
        return self.sent[0].payload

    def first(self, kind: type[Payload]) -> Any:
        return next(s.payload for s in self.sent if isinstance(s.payload, kind))

    @property
    def now(self) -> Fulfilment:
        assert self.state is not None
        return self.state


def processing(*lines: Line, policy: Policy = POLICY) -> Story:
    return Story(policy).hears(PAID, started(*lines))


def packed() -> Story:
    return processing().hears(planned(), warehouse("picked"), warehouse("packed"))


def out() -> Story:
    return packed().hears(BOOKED, carrier("shipped"), dispatched())


def test_the_good_way() -> None:
    story = Story().hears(PAID).sends(SetTimer, SetTimer)
    begin, stuck = (s.payload for s in story.sent)
    assert isinstance(begin, SetTimer)
    assert isinstance(stuck, SetTimer)
    assert (begin.kind, begin.due_at) == ("begin_fulfilment", at(1800))
    assert (stuck.kind, stuck.args) == ("stuck", {"status": "PAYMENT_CONFIRMED", "version": "4"})
    story.hears(started()).sends(c.PlanShipment, SetTimer)
    assert story.first(c.PlanShipment).lines == units(L1=3)
    story.hears(planned()).sends(g.PickShipment)
    assert story.only().lines[0].name == "Mug"
    story.hears(warehouse("picked")).sends(c.UpdateShipment)
    story.hears(warehouse("packed")).sends(c.UpdateShipment, g.BookShipment)
    booking = story.first(g.BookShipment)
    assert (booking.weight_grams, booking.customer_id, booking.customs) == (300, "42", ())
    story.hears(BOOKED).sends()
    story.hears(carrier("shipped")).sends(c.ShipShipment)
    assert story.only().tracking_url == "u"
    story.hears(dispatched()).sends(i.CommitStock)
    assert (story.only().quantity, story.only().shipment_id) == (3, S1)
    story.hears(e.OrderShipped(shipments=(S1,))).sends(SetTimer)
    story.hears(carrier("in_transit")).sends(c.UpdateShipment)
    story.hears(carrier("delivered")).sends(c.DeliverShipment)
    story.hears(e.OrderShipmentDelivered(shipment_id=S1, lines=units(L1=3))).sends()
    story.hears(e.OrderDelivered(shipments=(S1,))).sends(CancelTimer)
    assert story.now == Fulfilment(order_id=ORDER, phase="ended", status="DELIVERED", version=story.version, count=1)


def test_what_is_reported_before_the_booking_is_known_waits_for_it() -> None:
    story = packed().hears(carrier("shipped")).sends()
    story.hears(carrier("delivered")).sends()
    story.hears(BOOKED).sends(c.ShipShipment, c.DeliverShipment)
    assert story.first(c.ShipShipment).carrier == "Post"
    many = packed()
    for n in range(30):
        many.hears(carrier("in_transit", name=str(n)))
    many.sends(c.UpdateShipment)
    assert len(many.now.parcels[0].waiting) == 20


def test_a_delivery_that_nobody_saw_start_tells_the_order_first_that_it_left() -> None:
    packed().hears(BOOKED, carrier("delivered")).sends(c.ShipShipment, c.DeliverShipment)


def test_repeated_reports_send_nothing() -> None:
    story = out()
    for kind in ("shipped", "in_transit", "failed_attempt"):
        story.hears(carrier(kind)).hears(carrier(kind)).sends()
    packed().hears(warehouse("packed", name="again")).sends()


def test_customs_data_when_it_leaves_the_country() -> None:
    line = ordered("L1", "MUG", 3, discount=200, hs_code="6912.00", origin="PT")
    story = Story().hears(PAID, started(line, incoterm="DDP"), planned(), warehouse("short", L1=1), warehouse("packed"))
    booking = story.first(g.BookShipment)
    assert booking.incoterm == "DDP"
    assert booking.customs == (
        g.CustomsItem(sku="MUG", name="Mug", quantity=2, value=867, hs_code="6912.00", origin="PT"),
    )


# Stock


def test_back_orders_are_asked_for_anew_and_waited_for() -> None:
    lines = (ordered("L1", "MUG", 3, backorder=True), ordered("L2", "LAMP", 1))
    story = processing(*lines).sends(i.ReserveStock, SetTimer)
    ask = story.first(i.ReserveStock)
    assert (ask.quantity, ask.order_version, ask.backorder) == (3, 5, True)
    story.hears(reserved(2, 3)).sends()
    story.hears(i.StockAllocated(line_id="L1", sku="MUG", quantity=1, waiting=0)).sends()
    story.hears(reserved(5, 2)).sends()
    story.hears(i.StockAllocated(line_id="L1", sku="MUG", quantity=1, waiting=1)).sends()
    story.hears(i.StockAllocated(line_id="L1", sku="MUG", quantity=1, waiting=0)).sends(c.PlanShipment)
    assert story.only().lines == units(L1=3, L2=1)


def test_what_is_there_goes_ahead() -> None:
    lines = (ordered("L1", "MUG", 3, backorder=True), ordered("L2", "LAMP", 1))
    story = processing(*lines, policy=AVAILABLE).hears(reserved(5, 2)).sends(c.PlanShipment)
    assert story.only().lines == units(L1=1, L2=1)
    allocated = i.StockAllocated(line_id="L1", sku="MUG", quantity=2, waiting=0)
    story.hears(allocated).sends()  # one plan at a time
    story.hears(planned(L1=1, L2=1)).sends(g.PickShipment, c.PlanShipment)
    assert story.first(c.PlanShipment).lines == units(L1=2)


def test_what_came_back_is_restocked_and_what_is_sent_again_is_reserved_again() -> None:
    lost = e.OrderShipmentLost(shipment_id=S1, lines=units(L1=3), reason="undeliverable", reship=True)
    story = out().hears(lost).sends(i.RestockStock, i.ReserveStock)
    assert (story.first(i.ReserveStock).quantity, story.first(i.ReserveStock).order_version) == (6, 7 + 1)
    story.hears(reserved(8)).sends(c.PlanShipment)
    assert story.only().shipment_id == S2
    gone = out().hears(lost.model_copy(update={"reason": "lost"})).sends(i.ReserveStock)
    short = i.StockRefused(line_id="L1", sku="MUG", quantity=6, available=1, reason="insufficient", order_version=8)
    gone.hears(short).sends(c.CancelOrder)
    assert gone.only().items == (c.ItemQuantity(line_id="L1", quantity=3),)
    assert gone.only().reason == "out_of_stock"


def test_a_loss_that_is_not_made_up_for_needs_no_stock() -> None:
    lost = e.OrderShipmentLost(shipment_id=S1, lines=units(L1=3), reason="lost", reship=False)
    story = out().hears(lost).sends()
    story.hears(cancelled(S1, "lost", L1=3)).sends()


# Short picks and cancelled units


def test_short_units_are_told_to_order_and_stock() -> None:
    story = processing().hears(planned()).hears(warehouse("short", L1=3)).sends(c.ShortItems, i.LoseStock)
    assert story.first(c.ShortItems).lines == units(L1=3)
    story.hears(warehouse("packed", name="odd")).sends()
    story.hears(cancelled(S1, "out_of_stock", L1=3)).sends()
    assert story.now.parcels == ()


def test_the_rest_of_a_short_parcel_goes_on_and_no_unit_is_planned_twice() -> None:
    story = processing().hears(planned(), warehouse("short", L1=1)).sends(c.ShortItems, i.LoseStock)
    story.hears(warehouse("packed")).sends(c.UpdateShipment, g.BookShipment)
    story.hears(cancelled(S1, "out_of_stock", L1=1)).sends()
    assert story.now.parcels[0].contents == units(L1=2)


def test_a_parcel_with_cancelled_units_is_called_back_and_the_rest_planned_when_it_is() -> None:
    story = processing().hears(planned()).hears(cancelled(L1=1)).sends(g.CancelPick)
    story.hears(warehouse("packed")).sends()
    story.hears(warehouse("cancelled")).sends(c.PlanShipment)
    assert story.only().lines == units(L1=2)


def test_a_parcel_that_was_called_back_too_late_counts_and_somebody_is_told() -> None:
    story = packed().hears(BOOKED).hears(cancelled(L1=1)).sends(g.CancelShipment, g.CancelPick)
    story.hears(carrier("shipped")).sends(c.ShipShipment)
    story.hears(dispatched(L1=2)).sends(ExceptionOpened, i.CommitStock)
    assert (story.first(i.CommitStock).quantity, story.first(i.CommitStock).extra) == (3, 1)
    assert story.first(ExceptionOpened).kind == "shipped_after_cancel"
    back = e.OrderShipmentLost(shipment_id=S1, lines=units(L1=2), reason="undeliverable", reship=False)
    story.hears(back).sends(i.RestockStock, ExceptionResolved)
    assert story.first(i.RestockStock).quantity == 3
    brought = packed().hears(BOOKED, cancelled(L1=1)).hears(carrier("returned")).sends(c.PlanShipment)
    assert brought.only().lines == units(L1=2)
    brought.hears(carrier("shipped")).sends()  # late
    brought.hears(carrier("delivered")).sends(c.DeliverShipment)


def test_nothing_of_a_called_back_parcel_is_found() -> None:
    story = processing().hears(planned(), cancelled(L1=1)).hears(warehouse("short", L1=3))
    story.sends(c.ShortItems, i.LoseStock, c.PlanShipment)
    processing().hears(planned(), warehouse("short", L1=3)).hears(cancelled(L1=1)).sends(c.PlanShipment)


def test_a_refused_plan_waits_for_the_event_that_says_why() -> None:
    story = processing().hears(refused("units-not-to-ship", "PlanShipment", f"plan:{S1}", version=6)).sends()
    assert story.now.parcels == ()
    story.hears(cancelled(L1=1)).sends(c.PlanShipment)
    assert (story.only().shipment_id, story.only().lines) == (S2, units(L1=2))


# Failed deliveries


def test_a_failed_delivery_is_tried_again_when_its_time_has_come() -> None:
    story = out().hears(carrier("failed_attempt", attempt=1, seconds=60)).sends(c.FailDelivery)
    story.hears(e.OrderDeliveryFailed(shipment_id=S1, attempt=1, reason="r")).sends(SetTimer)
    timer = story.only()
    assert (timer.kind, timer.due_at) == ("redelivery", T0 + POLICY.fulfilment.redeliver_after)
    assert timer.args == {"shipment_id": S1, "attempt": "2"}
    story.hears(carrier("in_transit", seconds=50)).sends()  # from before the failure
    story.hears(carrier("out_for_delivery", seconds=90_000)).sends(c.UpdateShipment)
    story.hears(dispatched(redelivery=True)).sends(CancelTimer)
    story.hears(carrier("failed_attempt", name="2", seconds=90_001)).sends(c.FailDelivery)
    assert story.only().attempt == 2
    final = e.OrderDeliveryFailed(shipment_id=S1, attempt=2, reason="r", final=True)
    story.hears(final).sends(g.CancelShipment)
    story.hears(carrier("returned")).sends(c.LoseShipment)
    assert story.only().reason == "undeliverable"


# Ends


@pytest.mark.parametrize(
    "end",
    [
        e.OrderEditFailed(edit_id="x", kind="add_item", reason="out_of_stock"),
        e.OrderReleased(kind="staff"),
    ],
)
def test_what_stood_in_the_way_of_the_begin_lets_it_be_tried_again(end: Payload) -> None:
    """The timer may have fired, and the command that ended the edit may carry a time before it was due."""
    story = Story().hears(PAID).hears(end).sends(SetTimer)
    assert (story.only().kind, story.only().due_at) == ("begin_fulfilment", at(1800))
    processing().hears(end).sends()


def test_a_cancelled_order_calls_everything_back() -> None:
    gone = e.OrderCancelled(reason="changed_mind")
    Story().hears(PAID).hears(gone).sends(CancelTimer)
    processing().hears(planned()).hears(gone).sends(g.CancelPick, CancelTimer)
    story = packed().hears(gone).sends(g.CancelShipment, g.CancelPick, CancelTimer)
    assert (story.now.phase, story.now.items, story.now.parcels) == ("ended", (), ())
    story.hears(BOOKED).sends()
    story.hears(warehouse("cancelled")).sends()
    story.hears(carrier("shipped")).sends(c.ShipShipment)
    story.hears(refused("shipment-of-ended-order", "ShipShipment")).sends(ExceptionOpened)
    assert story.only().kind == "shipped_after_cancel"
    for command in ("UpdateShipment", "PlanShipment", "LoseShipment", "ShortItems"):
        story.hears(refused("shipment-of-ended-order", command)).sends()


def test_other_refusals_go_to_a_person_and_those_of_others_are_not_ours() -> None:
    story = processing()
    story.hears(refused("shipment-contradiction", "DeliverShipment")).sends(ExceptionOpened)
    assert story.only().owner == "fulfilment"
    story.hears(refused("shipment-contradiction", "DeliverShipment", actor="system:placement")).sends()
    story.hears(refused("cannot-cancel", "CancelOrder", status="CANCELLED")).sends()
    story.hears(refused("cannot-cancel", "CancelOrder")).sends(ExceptionOpened)


def test_a_refused_booking_can_be_sent_again_as_it_was() -> None:
    story = packed().hears(g.BookingFailed(shipment_id=S1, code="too_heavy")).sends(ExceptionOpened)
    retry = story.sent[0].retry
    assert retry is not None
    assert isinstance(retry.payload, g.BookShipment)
    story.hears(BOOKED).sends(ExceptionResolved)
    packed().hears(BOOKED).hears(g.BookingFailed(shipment_id=S1, code="late")).sends()


def test_a_pick_that_the_warehouse_gives_up_goes_to_a_person() -> None:
    processing().hears(planned()).hears(warehouse("cancelled")).sends(ExceptionOpened)


def test_units_that_the_parcel_does_not_hold_are_a_contradiction() -> None:
    story = processing().hears(planned()).hears(warehouse("short", L2=2)).sends(ExceptionOpened)
    assert (story.only().kind, story.only().facts) == ("warehouse_contradiction", {"shipment_id": S1})
    assert story.only().detail == "The warehouse misses what is not in the parcel: 2 × LAMP."
    story.hears(warehouse("short", name="more than all", L1=5)).sends(c.ShortItems, i.LoseStock, ExceptionOpened)
    assert story.first(c.ShortItems).lines == units(L1=3)
    assert story.first(ExceptionOpened).detail.endswith(": 2 × MUG.")
    story.hears(warehouse("short", name="as before", L1=1)).sends(ExceptionOpened)


@pytest.mark.parametrize("kind", ["picked", "packed"])
def test_a_parcel_that_nobody_asked_for_goes_to_the_order_as_a_carriers_does(kind: str) -> None:
    for story in (Story(), Story().hears(PAID), processing(), packed().hears(CANCELLED)):
        story.hears(warehouse(kind, "nobody's")).sends(c.UpdateShipment)
        assert (story.only().shipment_id, story.only().status) == ("nobody's", kind)
    unknown = Rejection(type="unknown-shipment", status=404, detail="The order has no shipment nobody's.")
    processing().hears(
        CommandRejected(command_id="x", command="UpdateShipment", actor="system:fulfilment", rejection=unknown)
    ).sends(ExceptionOpened)


def test_a_parcel_that_nobody_asked_for_and_that_is_given_up_goes_to_a_person() -> None:
    for story in (Story(), processing(), packed().hears(CANCELLED)):
        story.hears(warehouse("cancelled", "nobody's", name="w1")).sends(ExceptionOpened)
        assert (story.only().kind, story.only().exception_id) == ("pick_cancelled", "pick:w1")


def test_a_late_word_about_a_parcel_that_has_ended_is_no_news() -> None:
    story = packed().hears(CANCELLED)
    for kind in ("picked", "packed", "cancelled"):
        story.hears(warehouse(kind, name=f"late {kind}")).sends()


def test_stuck_orders_are_raised_until_they_go_on() -> None:
    story = processing().hears(planned()).hears(e.OrderStuck(status="PROCESSING", since=T0)).sends(ExceptionOpened)
    story.hears(dispatched()).sends(i.CommitStock)
    story.hears(e.OrderShipped(shipments=(S1,))).sends(SetTimer, ExceptionResolved)


def test_an_order_is_watched_before_it_is_paid_and_nothing_is_kept_of_it_unless_it_is_stuck() -> None:
    story = Story().hears(SUBMITTED).sends(SetTimer)
    assert (story.only().args, story.only().due_at) == ({"status": "PENDING_PAYMENT", "version": "4"}, at(2 * 86_400))
    story.hears(e.OrderHeld(kind="staff", reason="a call")).sends()
    assert story.state is None
    story.hears(e.OrderStuck(status="PENDING_PAYMENT", since=T0)).sends(ExceptionOpened)
    assert story.only().facts == {"status": "PENDING_PAYMENT"}
    story.hears(PAID).sends(SetTimer, SetTimer, ExceptionResolved)
    assert story.first(ExceptionResolved).resolution == "the order is PAYMENT_CONFIRMED now"


def test_an_order_that_ends_unpaid_is_watched_no_longer() -> None:
    end = e.OrderCancelled(reason="payment_timeout")
    story = Story().hears(SUBMITTED, end).sends(CancelTimer)
    assert story.state is None
    stuck = e.OrderStuck(status="PENDING_PAYMENT", since=T0)
    Story().hears(SUBMITTED, stuck, end).sends(CancelTimer, ExceptionResolved)
    Story().hears(SUBMITTED, imported=True).sends()


def test_a_status_that_policy_does_not_name_costs_no_timer() -> None:
    patience = {OrderStatus.PROCESSING: timedelta(days=3)}
    deadlines = POLICY.deadlines.model_copy(update={"stuck_after": patience})
    story = Story(POLICY.model_copy(update={"deadlines": deadlines})).hears(SUBMITTED).sends()
    story.hears(PAID).sends(SetTimer)
    assert story.only().kind == "begin_fulfilment"
    Story(story.policy).hears(SUBMITTED, e.OrderCancelled(reason="payment_timeout")).sends()


def test_an_order_in_return_is_watched_too() -> None:
    story = out().hears(e.OrderShipped(shipments=(S1,)), e.OrderDelivered(shipments=(S1,)))
    story.hears(e.OrderRefundRequested(rma="RMA-1", amount=1)).sends(SetTimer)
    assert story.only().args["status"] == "REFUND_REQUESTED"
    story.hears(e.OrderRefundDenied(rma="RMA-1", reason="r")).sends(CancelTimer)
    story.hears(carrier("return_received", "RMA-1")).sends()


def test_it_is_watched_until_the_last_return_is_paid_back() -> None:
    story = out().hears(e.OrderShipped(shipments=(S1,)), e.OrderDelivered(shipments=(S1,)))
    story.hears(e.OrderRefundRequested(rma="RMA-1", amount=1), e.OrderRefundRequested(rma="RMA-2", amount=1))
    story.hears(e.OrderStuck(status="REFUND_REQUESTED", since=T0)).sends(ExceptionOpened)
    story.hears(e.OrderReturnExpired(rma="RMA-1")).sends()
    inspected = e.OrderReturnInspected(rma="RMA-2", items=(), amount=5)
    refund = e.OrderRefundInitiated(refund_id="r1", attempt_id="a", amount=5, reason="return", rma="RMA-2")
    story.hears(inspected, refund).sends()
    story.hears(e.OrderRefundCompleted(refund_id="r1", amount=5, provider_ref="re")).sends(
        CancelTimer, ExceptionResolved
    )


def test_imported_history_is_remembered_and_moves_nothing() -> None:
    story = Story()
    for fact in (PAID, started(), planned("theirs"), dispatched("theirs")):
        story.hears(fact, imported=True).sends()
    story.hears(e.OrderShipped(shipments=("theirs",)), imported=True).sends()
    story.hears(carrier("delivered", "theirs")).sends(c.DeliverShipment)
    lost = e.OrderShipmentLost(shipment_id="theirs", lines=units(L1=3), reason="lost", reship=True)
    story.hears(lost).sends(SetTimer)  # live, but the goods are somebody else's


def test_an_order_that_is_not_paid_is_nothing_to_the_saga() -> None:
    story = Story().hears(e.OrderCancelled(reason="abandoned")).sends()
    assert story.state is None
    story.hears(reserved(2)).sends()
    story.hears(carrier("delivered")).sends(c.DeliverShipment)
    story.hears(warehouse("short", L1=1)).sends(c.ShortItems)
    story.hears(refused("not-found", "DeliverShipment")).sends(ExceptionOpened)


def test_state_stays_small_however_much_is_reported() -> None:
    story = out()
    for n in range(2_000):
        story.hears(carrier("in_transit", name=f"n{n}", seconds=n))
    assert len(story.now.model_dump_json()) < 5_000


def test_messages_are_keyed_and_named() -> None:
    class Store(dict[str, Any]):
        def set(self, key: str, value: Any, ttl: timedelta | None = None) -> None:
            self[key] = value

        def delete(self, key: str) -> None:
            self.pop(key, None)

    store = Store()
    run = handler(POLICY)
    found = []
    facts: list[Payload] = [PAID, started(), planned(), warehouse("packed")]
    facts.append(g.BookingFailed(shipment_id=S1, code="no"))
    for version, fact in enumerate(facts, start=4):
        cause: Any = (
            Event(
                id=str(version), order_id=ORDER, version=version, occurred_at=T0, actor="a", correlation_id="c",
                causation_id="x", previous_hash="", data=fact,
            )
            if fact.family == "order.events"
            else Message(id=str(version), at=T0, actor="a", correlation_id="c", order_id=ORDER, data=fact)
        )  # fmt: skip
        found += list(run(store, Incoming("t", ORDER, cause, T0)))
    by_topic = {out.topic: out for out in found}
    assert set(by_topic) == {
        "timer.commands", "order.internal", "warehouse.commands", "shipping.commands", "exceptions",
    }  # fmt: skip
    assert by_topic["order.internal"].key == by_topic["shipping.commands"].key == ORDER
    assert by_topic["timer.commands"].key.isdigit()
    raised = by_topic["exceptions"].message.data
    assert (raised.retry_topic, raised.retry_key) == ("shipping.commands", ORDER)
    assert decode(raised.retry).id == by_topic["shipping.commands"].message.id
    assert len({out.message.id for out in found}) == len(found)
