"""Order and provider, held against each other: agreement under any interleaving, and every kind of difference."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.kit import Incoming
from processors.reconciliation.processor import handler
from schemas import events as e
from schemas.base import Event, Message, Payload
from schemas.codec import decode, encode
from schemas.operations import ExceptionOpened, ExceptionResolved
from schemas.order import Edit, Totals
from schemas.payment import CapturePayment, ProviderReported, QueryPayment, Reconcile, RefundPayment
from schemas.policy import Policy
from schemas.timers import SetTimer, shard_of
from tests.support.examples import ORDER, POLICY, T0, at


def requested(attempt: str = "a1", amount: int = 1000, **changes: Any) -> e.OrderPaymentRequested:
    values = {"attempt": 1, "currency": "EUR", "payment_token": "pm", "due_at": at(900), "valid_until": at(600)}
    return e.OrderPaymentRequested(attempt_id=attempt, amount=amount, **{**values, **changes})


def confirmed(attempt: str = "a1", amount: int = 1000, **changes: Any) -> e.OrderPaymentConfirmed:
    return e.OrderPaymentConfirmed(attempt_id=attempt, amount=amount, provider_ref=f"ref-{attempt}", **changes)


def capture_requested(capture: str, amount: int, attempt: str = "a1") -> e.OrderPaymentCaptureRequested:
    return e.OrderPaymentCaptureRequested(attempt_id=attempt, capture_id=capture, amount=amount, currency="EUR")


def captured(capture: str, amount: int, attempt: str = "a1") -> e.OrderPaymentCaptured:
    return e.OrderPaymentCaptured(attempt_id=attempt, capture_id=capture, amount=amount, provider_ref=f"ref-{capture}")


def refund_asked(refund: str = "r1", amount: int = 400, **changes: Any) -> e.OrderRefundInitiated:
    return e.OrderRefundInitiated(
        refund_id=refund, attempt_id="a1", amount=amount, reason="return", currency="EUR", **changes
    )


def refunded(refund: str = "r1", amount: int = 400) -> e.OrderRefundCompleted:
    return e.OrderRefundCompleted(refund_id=refund, amount=amount, provider_ref=f"ref-{refund}")


def reported(kind: str, reference: str, amount: int = 1000, **changes: Any) -> ProviderReported:
    values = {
        "event_id": f"evt-{kind}-{reference}",
        "attempt_id": "a1",
        "currency": "EUR",
        "provider_ref": f"ref-{reference}",
        "occurred_at": T0,
    }
    return ProviderReported(kind=kind, reference=reference, amount=amount, **{**values, **changes})


class Memory:
    """State that keeps JSON, as the real one does."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return json.loads(self.entries[key]) if key in self.entries else default

    def set(self, key: str, value: Any, ttl: timedelta | None = None) -> None:
        self.entries[key] = json.dumps(value)

    def delete(self, key: str) -> None:
        self.entries.pop(key, None)


@dataclass
class Desk:
    """The processor for one order, and the timers that it set; what it sends is read back from its bytes."""

    policy: Policy = POLICY
    order_id: str = ORDER
    now: datetime = T0
    state: Memory = field(default_factory=Memory)
    timers: dict[str, SetTimer] = field(default_factory=dict)
    timers_set: int = 0
    sent: list[Message[Any]] = field(default_factory=list)
    commands: list[Payload] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    opened: dict[str, ExceptionOpened] = field(default_factory=dict)
    resolved: list[str] = field(default_factory=list)
    version: int = 0

    def hears(self, *payloads: Payload, imported: bool = False) -> Desk:
        for payload in payloads:
            self._handle(self._message(payload, imported))
        return self

    def passes(self, seconds: float) -> Desk:
        """Time passes, and the timers that become due fire."""
        until = self.now + timedelta(seconds=seconds)
        while due := [timer for timer in self.timers.values() if timer.due_at <= until]:
            first = min(due, key=lambda timer: timer.due_at)
            del self.timers[first.timer_id]
            self.now = max(self.now, first.due_at)
            self.hears(Reconcile(round=int(first.generation)))
        self.now = until
        return self

    @property
    def open(self) -> list[str]:
        return sorted(opened.kind for name, opened in self.opened.items() if name not in self.resolved)

    def _message(self, payload: Payload, imported: bool) -> Event[Any] | Message[Any]:
        if payload.family != "order.events":
            return Message(id=f"m{len(self.sent)}", at=self.now, actor="system:test", correlation_id="c", data=payload)
        self.version += 1
        return Event(
            id=f"e{self.version}",
            order_id=self.order_id,
            version=self.version,
            occurred_at=self.now,
            actor="customer:42",
            correlation_id="c",
            causation_id="x",
            previous_hash="",
            imported=imported,
            data=payload,
        )

    def _handle(self, message: Event[Any] | Message[Any]) -> None:
        topic = "reconciliation.commands" if isinstance(message.data, Reconcile) else message.data.family
        for output in handler(self.policy)(self.state, Incoming(topic, self.order_id, message, self.now)):
            sent = decode(encode(output.message))
            assert isinstance(sent, Message)
            assert sent.id not in self.ids
            assert sent.order_id == self.order_id
            self.ids.add(sent.id)
            match sent.data:
                case SetTimer() as timer:
                    assert output.key == shard_of(self.order_id)
                    assert (output.topic, timer.kind) == ("timer.commands", "reconcile")
                    self.timers[timer.timer_id] = timer
                    self.timers_set += 1
                case ExceptionOpened() as opened:
                    assert output.topic == "exceptions"
                    assert opened.exception_id not in self.opened
                    self.opened[opened.exception_id] = opened
                case ExceptionResolved(exception_id=name):
                    assert name in self.opened
                    assert name not in self.resolved
                    self.resolved.append(name)
                case command:
                    assert (output.topic, output.key) == ("payment.commands", self.order_id)
                    self.commands.append(command)


def quiet(desk: Desk) -> None:
    """Nothing raised, ever, and nothing waits."""
    desk.passes(120)
    assert (desk.opened, desk.commands, desk.timers) == ({}, [], {})


# Both sides agree


def test_most_orders_cost_one_timer_at_most_and_nothing_else() -> None:
    desk = Desk().hears(requested(), reported("captured", "a1"), confirmed())
    assert desk.timers_set == 1
    quiet(desk)
    assert desk.timers_set == 1


def test_an_order_that_was_never_paid_is_nothing_to_look_at() -> None:
    desk = Desk().hears(requested(), reported("declined", "a1"), e.OrderCancelled(reason="payment_declined"))
    assert desk.timers_set == 0
    quiet(desk)


def test_what_has_nothing_to_do_with_money_leaves_no_trace() -> None:
    desk = Desk().hears(e.OrderHeld(kind="staff", reason="x"), e.OrderPaymentFailed(attempt_id="a1", code="no"))
    assert desk.state.entries == {}


def test_a_free_order_is_paid_without_a_report() -> None:
    quiet(Desk().hears(requested(amount=0), confirmed(amount=0)))


def test_imported_history_is_nobodys_business() -> None:
    desk = Desk().hears(requested(), confirmed(), refund_asked(), refunded(), imported=True)
    assert desk.state.entries == {}
    quiet(desk)


ORDER_SAYS: list[Payload] = [
    requested(authorize=True, amount=1500),
    confirmed(amount=1500, authorized=True),
    capture_requested("c1", 600),
    captured("c1", 600),
    capture_requested("c2", 500),
    captured("c2", 500),
    refund_asked("r1", 250),
    refunded("r1", 250),
    e.OrderPaymentVoidRequested(attempt_id="a1"),
    e.OrderPaymentVoided(attempt_id="a1"),
    requested("a2", 700),
    refund_asked("r2", 700, captured_late="ref-a2").model_copy(update={"attempt_id": "a2"}),
    refunded("r2", 700),
]
PROVIDER_SAYS: list[Payload] = [
    reported("authorized", "a1", 1500),
    reported("capture", "c1", 600),
    reported("capture", "c2", 500),
    reported("refunded", "r1", 250),
    reported("voided", "a1", 400),
    reported("captured", "a2", 700, attempt_id="a2"),
    reported("refunded", "r2", 700, attempt_id="a2"),
]


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_whole_life_agrees_under_any_interleaving(data: st.DataObject) -> None:
    """The order keeps its order; the feed none, and it repeats. Nothing stays away longer than 19 seconds."""
    order = list(ORDER_SAYS)
    feed = data.draw(st.permutations(PROVIDER_SAYS))
    feed = feed + data.draw(st.lists(st.sampled_from(PROVIDER_SAYS), max_size=5))
    desk = Desk()
    while order or feed:
        pick_order = order and (not feed or data.draw(st.booleans()))
        desk.hears((order if pick_order else feed).pop(0))
        desk.passes(data.draw(st.floats(0, 19 / (len(ORDER_SAYS) + len(PROVIDER_SAYS) + 5))))
    quiet(desk)
    assert desk.timers_set <= 2


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_whatever_comes_however_late_all_is_resolved_once_both_sides_have_spoken(data: st.DataObject) -> None:
    order, feed = list(ORDER_SAYS), list(data.draw(st.permutations(PROVIDER_SAYS)))
    desk = Desk()
    while order or feed:
        pick_order = order and (not feed or data.draw(st.booleans()))
        desk.hears((order if pick_order else feed).pop(0))
        desk.passes(data.draw(st.sampled_from([0, 0, 5, 30, 100])))
    desk.passes(200)
    assert desk.open == []
    assert desk.timers == {}
    assert {opened.kind for opened in desk.opened.values()} <= {
        "payment_without_order",
        "order_without_payment",
        "refund_unknown",
    }


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_one_report_left_out_is_found_within_a_minute_and_only_that(data: st.DataObject) -> None:
    missing = data.draw(st.sampled_from(range(len(PROVIDER_SAYS))))
    feed = [said for n, said in enumerate(PROVIDER_SAYS) if n != missing]
    desk = Desk().hears(*_mixed(data, ORDER_SAYS, feed))
    desk.passes(60)
    lost = PROVIDER_SAYS[missing]
    assert isinstance(lost, ProviderReported)
    expected = {
        "authorized": [],  # given free, and what was captured of it is told apart
        "captured": ["order_without_payment"],
        "capture": ["order_without_payment"],
        "refunded": ["refund_unknown"],
        "voided": [],
    }[lost.kind]
    assert desk.open == expected
    assert [opened.facts["reference"] for opened in desk.opened.values()] == [lost.reference] * len(expected)


def _mixed(data: st.DataObject, order: Sequence[Payload], feed: Sequence[Payload]) -> Iterable[Payload]:
    left, right = list(order), list(data.draw(st.permutations(feed)))
    while left or right:
        yield (left if left and (not right or data.draw(st.booleans())) else right).pop(0)


# Differences


def test_money_for_an_order_that_does_not_exist_is_raised_within_a_minute() -> None:
    desk = Desk(order_id="no order at all").hears(reported("captured", "a9", attempt_id=None))
    desk.passes(39)
    assert desk.opened == {}
    desk.passes(2)
    assert desk.open == ["payment_without_order"]
    (opened,) = desk.opened.values()
    assert opened.owner == "payments"
    assert opened.facts == {
        "movement": "payment",
        "reference": "a9",
        "attempt_id": "a9",
        "provider_ref": "ref-a9",
        "reported": "1000",
        "reported_currency": "EUR",
    }
    assert opened.retry is None
    assert desk.commands == []  # nobody knows what to ask for
    assert desk.timers == {}


def test_an_attempt_that_the_order_never_asked_for_is_raised_beside_one_that_agrees() -> None:
    desk = Desk().hears(requested(), confirmed(), reported("captured", "a1"), reported("captured", "a9")).passes(60)
    assert desk.open == ["payment_without_order"]


def test_a_capture_that_the_order_waits_for_is_asked_about_and_heals() -> None:
    desk = Desk().hears(requested(), reported("captured", "a1")).passes(19)
    assert desk.commands == []
    desk.passes(2)
    assert desk.commands == [QueryPayment(attempt_id="a1", amount=1000, currency="EUR", asked=1)]
    quiet_after = desk.hears(confirmed()).passes(120)
    assert (quiet_after.opened, quiet_after.timers) == ({}, {})


def test_what_does_not_heal_is_raised_with_the_question_to_repeat_and_resolved_when_the_order_hears() -> None:
    desk = Desk().hears(requested(), reported("captured", "a1")).passes(60)
    assert desk.open == ["payment_without_order"]
    assert len(desk.commands) == 1
    (opened,) = desk.opened.values()
    assert (opened.retry_topic, opened.retry_key) == ("payment.commands", ORDER)
    assert decode(opened.retry).data == QueryPayment(attempt_id="a1", amount=1000, currency="EUR", asked=1)
    desk.hears(confirmed())
    assert desk.open == []


@pytest.mark.parametrize(
    ("asked", "said", "again", "booked"),
    [
        (
            [requested(authorize=True), confirmed(authorized=True), capture_requested("c1", 400)],
            [reported("authorized", "a1"), reported("capture", "c1", 400)],
            CapturePayment(attempt_id="a1", capture_id="c1", amount=400, currency="EUR"),
            captured("c1", 400),
        ),
        (
            [requested(), confirmed(), refund_asked()],
            [reported("captured", "a1"), reported("refunded", "r1", 400)],
            RefundPayment(refund_id="r1", attempt_id="a1", amount=400, currency="EUR"),
            refunded(),
        ),
    ],
)
def test_a_capture_or_refund_whose_result_got_lost_is_sent_again(
    asked: list[Payload], said: list[Payload], again: Payload, booked: Payload
) -> None:
    desk = Desk().hears(*asked, *said).passes(25)
    assert desk.commands == [again]
    desk.hears(booked).passes(120)
    assert desk.opened == {}


def test_an_order_that_counts_money_nobody_took_is_raised_and_resolved_when_the_report_comes() -> None:
    desk = Desk().hears(requested(), confirmed()).passes(41)
    assert desk.open == ["order_without_payment"]
    assert desk.commands == []
    desk.hears(reported("captured", "a1"))
    assert desk.open == []
    assert desk.passes(120).timers == {}


def test_a_declined_payment_that_the_order_counts_is_raised() -> None:
    assert Desk().hears(requested(), reported("declined", "a1"), confirmed()).passes(60).open == [
        "order_without_payment"
    ]


def test_a_provider_that_does_not_report_is_not_missed() -> None:
    silent = POLICY.model_copy(update={"payment": POLICY.payment.model_copy(update={"feed": False})})
    desk = Desk(silent).hears(requested(), confirmed(), refund_asked(), refunded())
    assert desk.timers_set == 0
    quiet(desk)
    # What it does report is looked at all the same.
    assert Desk(silent).hears(reported("captured", "a9")).passes(60).open == ["payment_without_order"]


def test_two_captures_of_one_attempt_are_raised_at_once() -> None:
    desk = Desk().hears(requested(), confirmed(), reported("captured", "a1"))
    desk.hears(reported("captured", "a1", event_id="another delivery"))
    assert desk.opened == {}
    desk.hears(reported("captured", "a1", event_id="e2", provider_ref="ref-second"))
    assert desk.open == ["captured_twice"]
    (opened,) = desk.opened.values()
    assert opened.facts["provider_ref"] == "ref-a1, ref-second"
    desk.hears(reported("captured", "a1", event_id="e3", provider_ref="ref-third")).passes(60)
    assert desk.open == ["captured_twice"]


@given(st.data())
def test_more_captured_than_was_authorized_is_raised_in_any_order(data: st.DataObject) -> None:
    events = [
        requested(authorize=True),
        confirmed(authorized=True),
        capture_requested("c1", 600),
        captured("c1", 600),
        capture_requested("c2", 600),
        captured("c2", 600),
    ]
    feed = [reported("authorized", "a1"), reported("capture", "c1", 600), reported("capture", "c2", 600)]
    desk = Desk().hears(*_mixed(data, events, feed + feed)).passes(60)
    assert desk.open == ["captured_twice"]


def test_a_second_refund_under_one_id_is_raised() -> None:
    desk = Desk().hears(requested(), confirmed(), reported("captured", "a1"), refund_asked(), refunded())
    desk.hears(reported("refunded", "r1", 400), reported("refunded", "r1", 400, provider_ref="ref-other"))
    assert desk.open == ["refund_unknown"]


def test_a_refund_that_the_order_does_not_know_is_raised_and_resolved() -> None:
    desk = Desk().hears(requested(), confirmed(), reported("captured", "a1"), reported("refunded", "r7", 100))
    assert desk.passes(60).open == ["refund_unknown"]
    desk.hears(refund_asked("r7", 100), refunded("r7", 100))
    assert desk.open == []


@pytest.mark.parametrize(
    "said",
    [reported("captured", "a1", 999), reported("captured", "a1", currency="USD"), reported("captured", "a1", 100_000)],
)
@pytest.mark.parametrize("feed_first", [True, False])
def test_amounts_and_currencies_that_differ_are_raised_at_once(said: Payload, feed_first: bool) -> None:
    pair: list[Payload] = [said, requested()] if feed_first else [requested(), said]
    desk = Desk().hears(*pair)
    assert desk.open == ["amount_differs"]
    # The order takes the provider's word, and what differs still needs a person.
    assert desk.hears(confirmed(amount=said.amount)).passes(60).open == ["amount_differs"]  # type: ignore[attr-defined]


def test_the_payment_of_an_edit_is_one_that_the_order_asked_for() -> None:
    edit = Edit(
        edit_id="x", kind="add_item", actor="customer:42", requested_at=T0, lines=(), totals=Totals(), attempt_id="a2"
    )
    asked = e.OrderEditRequested(edit=edit, amount=300, currency="EUR", valid_until=at(600), due_at=at(600))
    done = e.OrderEditCompleted(
        edit_id="x",
        kind="add_item",
        requested_by="customer:42",
        before=Totals(),
        after=Totals(),
        attempt_id="a2",
        amount=300,
    )
    quiet(Desk().hears(asked, reported("captured", "a2", 300, attempt_id="a2"), done))
    assert Desk().hears(asked, done).passes(60).open == ["order_without_payment"]


def test_an_authorization_that_came_too_late_is_given_free_and_no_difference() -> None:
    late = [requested(authorize=True), e.OrderCancelled(reason="payment_timeout"), reported("authorized", "a1")]
    desk = Desk().hears(*late).passes(10)
    quiet(desk.hears(e.OrderPaymentVoidRequested(attempt_id="a1")))
    # Not given free, it is asked about and raised.
    desk = Desk().hears(*late).passes(60)
    assert (desk.open, len(desk.commands)) == (["payment_without_order"], 1)


def test_money_taken_of_an_authorization_that_was_given_free_is_raised() -> None:
    desk = Desk().hears(requested(authorize=True), e.OrderPaymentVoidRequested(attempt_id="a1"))
    assert desk.hears(reported("captured", "a1")).passes(60).open == ["payment_without_order"]


def test_an_authorization_that_is_captured_later_under_the_same_reference_is_one_payment() -> None:
    desk = Desk().hears(requested(), reported("authorized", "a1"), reported("captured", "a1"), confirmed())
    quiet(desk)


# Time


def test_a_movement_is_given_its_full_time_however_old_the_timer_is() -> None:
    desk = Desk().hears(requested(), reported("captured", "a1")).passes(19)
    desk.hears(confirmed(), refund_asked(), reported("refunded", "r1", 400)).passes(39)
    assert desk.opened == {}
    desk.hears(refunded())
    desk.passes(120)
    assert (desk.opened, desk.timers) == ({}, {})


def test_a_fire_that_is_early_doubled_or_stale_does_nothing() -> None:
    desk = Desk().hears(requested(), confirmed(), Reconcile(round=0), Reconcile(round=9))
    assert (desk.timers_set, desk.opened) == (1, {})
    desk.passes(21)
    desk.hears(Reconcile(round=1), Reconcile(round=1))
    assert desk.opened == {}
    desk.passes(20)
    assert desk.open == ["order_without_payment"]
    desk.hears(Reconcile(round=2))
    assert len(desk.opened) == 1


def test_a_timer_that_never_fired_is_set_again() -> None:
    desk = Desk().hears(requested(), confirmed())
    desk.timers.clear()
    desk.now += timedelta(minutes=1)
    desk.hears(reported("captured", "a9"))
    desk.passes(60)
    assert desk.open == ["order_without_payment", "payment_without_order"]


def test_a_flood_of_money_without_an_order_stays_small_and_nothing_of_it_is_lost() -> None:
    desk = Desk(order_id="nobody")
    for n in range(300):
        desk.hears(reported("captured", f"flood-{n}", attempt_id=None))
    assert len(desk.opened) == 200
    assert len(desk.state.entries["watch"]) < 10_000
    desk.passes(60)
    assert len(desk.opened) == 300
    assert len(desk.state.entries["watch"]) < 200


def test_a_settled_order_keeps_little() -> None:
    desk = Desk().hears(requested(), reported("captured", "a1"), confirmed()).passes(60)
    assert set(desk.state.entries) == {"payment:a1", "watch"}
    assert sum(map(len, desk.state.entries.values())) < 600
