"""The returns saga: what it sends for what it hears, also twice and in odd orders."""

from __future__ import annotations

from itertools import permutations
from typing import Any
from uuid import UUID

import pytest

from processors.returns.saga import ACTOR, Returns, Send, evolve, exchange_order_id, react
from schemas import commands as c
from schemas import events as e
from schemas import inventory as i
from schemas.base import Event, Message, Payload
from schemas.logistics import CarrierReported, MakeReturnLabel, ReturnLabelFailed, ReturnLabelMade, ShipmentBooked
from schemas.operations import ExceptionOpened, ExceptionResolved
from schemas.order import ExchangeTerms, ReturnItem
from schemas.replies import CommandRejected, Rejection
from schemas.timers import CancelTimer, SetTimer
from tests.support.examples import ORDER, T0, address, at, quote

RMA = "RMA-AAAAA-BBBBB-1"
MUGS = ReturnItem(line_id="L1", sku="MUG", quantity=2, reason="changed_mind")
APPROVED = e.OrderReturnApproved(
    rma=RMA, expires_at=at(3600), items=(MUGS,), shipping_address=address(), customer_id="42"
)
LABELLED = e.OrderReturnLabelCreated(rma=RMA, carrier="ups", tracking_number="1Z", label_url="https://l.example/1Z")
MADE = ReturnLabelMade(rma=RMA, carrier="ups", tracking_number="1Z", label_url="https://l.example/1Z")
FAILED = ReturnLabelFailed(rma=RMA, code="no_service")
RECEIVED = e.OrderReturnReceived(rma=RMA)
EXPIRED = e.OrderReturnExpired(rma=RMA)
TERMS = ExchangeTerms(
    customer_id="42",
    currency="EUR",
    shipping_address=address(),
    billing_address=address("FR"),
    shipping_method="express",
    payment_token="pm_card_visa",
)


def arrived(reference: str = RMA, kind: str = "return_received") -> CarrierReported:
    return CarrierReported(event_id="x", reference=reference, kind=kind, tracking_number="1Z", occurred_at=T0)


def looked_at(*items: ReturnItem, amount: int = 100, exchange: ExchangeTerms | None = None) -> e.OrderReturnInspected:
    return e.OrderReturnInspected(rma=RMA, items=items, amount=amount, exchange=exchange)


def rejected(command: str, type: str = "return-not-open", actor: str = ACTOR, **extra: str) -> CommandRejected:
    return CommandRejected(
        command_id="c1", command=command, rejection=Rejection(type=type, detail="no", extra=extra), actor=actor
    )


class Story:
    def __init__(self) -> None:
        self.returns: Returns | None = None
        self.version = 0
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
            after = evolve(self.returns, cause)
            self.sent = react(self.returns, after, cause)
            self.returns = after
        return self

    def sends(self, *kinds: type[Payload]) -> Story:
        assert [type(s.payload) for s in self.sent] == list(kinds), self.sent
        return self

    def only(self) -> Any:
        assert len(self.sent) == 1, self.sent
        return self.sent[0].payload


def test_an_approved_return_gets_a_label_and_a_deadline() -> None:
    story = Story().hears(APPROVED).sends(MakeReturnLabel, SetTimer)
    label, timer = (s.payload for s in story.sent)
    assert label == MakeReturnLabel(rma=RMA, address=address(), customer_id="42")
    assert isinstance(timer, SetTimer)
    assert (timer.kind, timer.due_at, timer.generation) == ("return_expiry", at(3600), RMA)
    assert ORDER in timer.timer_id
    assert [s.topic for s in story.sent] == ["shipping.commands", "timer.commands"]
    story.hears(MADE).sends(c.LabelReturn)
    assert story.only().label_url == "https://l.example/1Z"
    story.hears(LABELLED).sends()
    story.hears(arrived()).sends(c.ReceiveReturn)
    assert story.only().rma == RMA
    story.hears(RECEIVED).sends(CancelTimer)
    assert story.only().timer_id == timer.timer_id
    assert story.returns == Returns()


def test_a_repeat_sends_the_same_again() -> None:
    story = Story()
    for payload in (APPROVED, MADE, arrived(), looked_at(MUGS)):
        first = story.hears(payload).sent
        assert [s.name for s in first] == [s.name for s in story.hears(payload).sent]
    assert len({s.name for s in first}) == len(first)


def test_a_refused_label_is_raised_with_what_to_send_again() -> None:
    story = Story().hears(APPROVED, FAILED).sends(ExceptionOpened)
    opened = story.only()
    assert (opened.kind, opened.owner, opened.facts) == (
        "return_label_failed", "returns", {"rma": RMA, "code": "no_service"},
    )  # fmt: skip
    again = story.sent[0].retry
    assert again is not None
    assert (again.topic, again.payload) == (
        "shipping.commands", MakeReturnLabel(rma=RMA, address=address(), customer_id="42"),
    )  # fmt: skip
    story.hears(FAILED).sends(ExceptionOpened)
    assert story.only().exception_id == opened.exception_id


@pytest.mark.parametrize("end", [LABELLED, RECEIVED, EXPIRED])
def test_the_exception_is_resolved_when_the_label_is_no_longer_missed(end: Payload) -> None:
    opened = (story := Story().hears(APPROVED, FAILED)).only().exception_id
    resolved = [s.payload for s in story.hears(end).sent if isinstance(s.payload, ExceptionResolved)]
    assert [x.exception_id for x in resolved] == [opened]
    assert not [s for s in story.hears(end).sent if isinstance(s.payload, ExceptionResolved)]


def test_a_label_that_fails_when_nobody_waits_for_it_is_nothing() -> None:
    Story().hears(APPROVED, LABELLED, FAILED).sends()
    Story().hears(FAILED).sends()


def test_no_exception_no_resolution() -> None:
    Story().hears(APPROVED, LABELLED).sends()


def test_two_returns_do_not_mix() -> None:
    other = APPROVED.model_copy(update={"rma": "RMA-2"})
    story = Story().hears(APPROVED, other, ReturnLabelFailed(rma="RMA-2", code="x"), LABELLED).sends()
    assert story.returns is not None
    assert [(x.rma, x.failed) for x in story.returns.labels] == [("RMA-2", True)]


def test_inspected_goods_are_restocked_or_written_off() -> None:
    fine = MUGS.model_copy(update={"condition": "as_new", "refund": 100, "restock": True})
    broken = MUGS.model_copy(
        update={"line_id": "L2", "sku": "LAMP", "quantity": 1, "condition": "unusable", "refund": 0, "restock": False}
    )
    story = Story().hears(looked_at(fine, broken)).sends(i.RestockStock, i.RestockStock)
    assert [s.payload for s in story.sent] == [
        i.RestockStock(line_id="L1", sku="MUG", pool="main", quantity=2, cause_id=f"{RMA}:L1", restock=True),
        i.RestockStock(line_id="L2", sku="LAMP", pool="main", quantity=1, cause_id=f"{RMA}:L2", restock=False),
    ]


def test_an_exchange_becomes_an_order() -> None:
    swapped = MUGS.model_copy(update={"exchange": quote("LAMP", 700), "refund": 100, "restock": True})
    worthless = swapped.model_copy(update={"line_id": "L2", "refund": 0})
    plain = MUGS.model_copy(update={"line_id": "L3", "refund": 100, "restock": True})
    story = Story().hears(looked_at(swapped, worthless, plain, exchange=TERMS))
    story.sends(i.RestockStock, i.RestockStock, i.RestockStock, c.CreateOrder)
    send = story.sent[-1]
    create = send.payload
    assert isinstance(create, c.CreateOrder)
    assert create == c.CreateOrder(
        customer_id="42",
        currency="EUR",
        lines=(c.NewLine(quote=quote("LAMP", 700), quantity=2),),
        shipping_address=address(),
        billing_address=address("FR"),
        shipping_method="express",
        payment_token="pm_card_visa",
        submit=True,
        exchange_of=ORDER,
    )
    assert send.order_id == exchange_order_id(RMA, "L1") != exchange_order_id(RMA, "L2")
    assert str(UUID(send.order_id)) == send.order_id


def test_what_is_not_ours_is_left_alone() -> None:
    story = Story().hears(APPROVED)
    for payload in (
        arrived("shipment-1", "delivered"),
        ShipmentBooked(shipment_id="s", carrier="c", tracking_number="t", tracking_url="u"),
        i.StockReserved(line_id="L1", sku="MUG", quantity=1, order_version=1),
        i.StockRefused(line_id="L1", sku="MUG", quantity=1, available=0, reason="insufficient", order_version=1),
        i.StockRefused(
            line_id="L1", sku="MUG", quantity=1, available=0, reason="unknown", order_version=0, cause_id="parcel"
        ),
        rejected("CancelOrder", "cannot-cancel", actor="system:placement"),
        e.OrderRefundDenied(rma=RMA, reason="no"),
        e.OrderSurveyAnswered(score=5),
    ):
        assert story.hears(payload).sent == []


def test_units_that_inventory_does_not_take_back_are_raised() -> None:
    refused = i.StockRefused(
        line_id="L1", sku="MUG", quantity=2, available=0, reason="unknown", order_version=0, cause_id=f"{RMA}:L1"
    )
    story = Story().hears(refused).sends(ExceptionOpened)
    assert (story.only().kind, story.only().facts["cause_id"]) == ("restock_refused", f"{RMA}:L1")


@pytest.mark.parametrize(
    ("rejection", "kind"),
    [
        (rejected("LabelReturn", return_status="expired"), None),
        (rejected("LabelReturn", return_status="denied"), None),
        (rejected("ReceiveReturn", return_status="received"), None),
        (rejected("ReceiveReturn", return_status="inspected"), None),
        (rejected("ReceiveReturn", return_status="closed"), None),
        (rejected("ReceiveReturn", return_status="expired"), "return_unexpected"),
        (rejected("ReceiveReturn", return_status="denied"), "return_unexpected"),
        (rejected("ReceiveReturn", return_status="requested"), "return_unexpected"),
        (rejected("ReceiveReturn", "unknown-return"), "return_unexpected"),
        (rejected("CreateOrder", "country-not-served"), "exchange_refused"),
        (rejected("LabelReturn", "not-found"), "saga_command_refused"),
        (rejected("ReceiveReturn", return_status="expired", actor="staff:clerk"), None),
    ],
)
def test_a_refusal_of_our_own_is_looked_at(rejection: CommandRejected, kind: str | None) -> None:
    sent = Story().hears(rejection).sent
    assert [s.payload.kind for s in sent if isinstance(s.payload, ExceptionOpened)] == ([kind] if kind else [])


def test_history_from_elsewhere_moves_nothing() -> None:
    story = Story()
    swapped = MUGS.model_copy(update={"exchange": quote("LAMP"), "refund": 100, "restock": True})
    for payload in (APPROVED, LABELLED, RECEIVED, looked_at(swapped, exchange=TERMS)):
        story.hears(payload, imported=True).sends()
    assert story.returns == Returns()


def test_any_interleaving_ends_the_same() -> None:
    """[order]'s events keep their order; the carrier's and the shipping results come whenever they come."""
    events = [APPROVED, LABELLED, RECEIVED, looked_at(MUGS.model_copy(update={"restock": True}))]
    ends = set()
    for order in permutations([*events, MADE, arrived()]):
        if [x for x in order if x in events] != events:
            continue
        story, names = Story(), set()
        for payload in order:
            names |= {s.name for s in story.hears(payload).sent}
        ends.add((frozenset(names), story.returns))
    assert len(ends) == 1
