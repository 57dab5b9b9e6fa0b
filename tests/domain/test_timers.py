"""The timing wheel: every timer fires exactly once, never early, and no message does unbounded work."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.kit import Incoming, Outgoing
from processors.timers import wheel
from processors.timers.processor import EFFORT, MOST, handle
from schemas import commands as c
from schemas.base import Command, Message, Payload
from schemas.codec import decode, encode
from schemas.commands import ExpirePayment
from schemas.logistics import RedeliverShipment
from schemas.payment import QueryPayment, Reconcile
from schemas.timers import CancelTimer, ContinueTimers, SetTimer, Tick

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
LATE = timedelta(milliseconds=250)


class Store:
    """State as a broker would keep it: JSON text, with a count of what one message touches."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.touched = 0
        self.largest = 0

    def get(self, key: str, default: Any = None) -> Any:
        self.touched += 1
        return json.loads(self.entries[key]) if key in self.entries else default

    def set(self, key: str, value: Any, ttl: timedelta | None = None) -> None:
        self.touched += 1
        self.entries[key] = json.dumps(value)
        self.largest = max(self.largest, len(self.entries[key]))

    def delete(self, key: str) -> None:
        self.touched += 1
        self.entries.pop(key, None)


class Shard:
    """One shard on its own: feeds messages, and its own continuations back, and keeps what it fired."""

    def __init__(self) -> None:
        self.state = Store()
        self.fired: list[tuple[datetime, Outgoing]] = []
        self.messages = 0

    def send(self, data: Payload, at: datetime, order_id: str | None = "order-1") -> list[Outgoing]:
        self.messages += 1
        message: Message[Any] = Message(
            id=f"m{self.messages}", at=at, actor="system:test", correlation_id="c1", order_id=order_id, data=data
        )
        topic = "timer.ticks" if isinstance(data, Tick) else "timer.commands"
        self.state.touched = 0
        return list(handle(self.state, Incoming(topic, "7", message, at)))

    def set(self, timer_id: str, due_at: datetime, at: datetime = START, generation: str = "g1") -> None:
        assert self.send(timeout(timer_id, due_at, generation), at) == []

    def tick(self, at: datetime) -> list[Outgoing]:
        """A tick and all the continuations it leads to; what fired."""
        fired = []
        pending: list[Payload] = [Tick(source="t")]
        while pending:
            out = self.send(pending.pop(), at)
            assert len(out) <= MOST + 1
            for outgoing in out:
                if isinstance(outgoing.message.data, ContinueTimers):
                    assert (outgoing.topic, outgoing.key) == ("timer.commands", "7")
                    pending.append(outgoing.message.data)
                else:
                    fired.append(outgoing)
        self.fired += [(at, outgoing) for outgoing in fired]
        return fired


def timeout(timer_id: str, due_at: datetime, generation: str = "g1") -> SetTimer:
    return SetTimer(timer_id=timer_id, kind="payment_timeout", due_at=due_at, generation=generation)


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def test_payment_timeout_sends_the_order_an_expiry() -> None:
    shard = Shard()
    due = START + seconds(90)
    shard.set("order-1/payment", due, generation="attempt-1")
    assert shard.tick(due - timedelta(microseconds=1)) == []
    [fired] = shard.tick(due + LATE)
    assert (fired.topic, fired.key) == ("order.internal", "order-1")
    assert fired.message.data == ExpirePayment(attempt_id="attempt-1", due_at=due)
    assert fired.message.order_id == "order-1"
    assert fired.message.actor == "system:timers"
    assert fired.message.correlation_id == "c1"
    assert fired.message.causation_id == "m1"
    assert isinstance(fired.message, Command)
    assert fired.message.at == due + LATE
    assert decode(encode(fired.message)) == fired.message
    assert shard.tick(due + seconds(5)) == []
    assert shard.state.entries == {}


def test_payment_query_asks_the_worker() -> None:
    shard = Shard()
    args = {"attempt_id": "a1", "amount": "1290", "currency": "EUR", "asked": "3"}
    shard.send(SetTimer(timer_id="q", kind="payment_query", due_at=START, generation="a1/3", args=args), START)
    [fired] = shard.tick(START)
    assert (fired.topic, fired.key) == ("payment.commands", "order-1")
    assert fired.message.data == QueryPayment(attempt_id="a1", amount=1290, currency="EUR", asked=3)
    assert decode(encode(fired.message)) == fired.message


@pytest.mark.parametrize(
    ("kind", "generation", "args", "topic", "sends"),
    [
        ("abandoned_draft", "7", {}, "order.internal", c.AbandonDraft(version=7)),
        ("review_deadline", "g", {}, "order.internal", c.ExpireReview(due_at=START)),
        ("edit_timeout", "edit-1", {}, "order.internal", c.ExpireEdit(edit_id="edit-1")),
        ("authorization_renewal", "a1", {}, "order.internal", c.RenewAuthorization(attempt_id="a1")),
        ("begin_fulfilment", "g", {}, "order.internal", c.BeginFulfilment(due_at=START)),
        (
            "redelivery",
            "g",
            {"shipment_id": "s1", "attempt": "2"},
            "shipping.commands",
            RedeliverShipment(shipment_id="s1", attempt=2),
        ),
        (
            "stuck",
            "g",
            {"status": "SHIPPED", "version": "9"},
            "order.internal",
            c.ReportStuck(status="SHIPPED", version=9),
        ),
        ("return_expiry", "RMA-1", {}, "order.internal", c.ExpireReturn(rma="RMA-1")),
        ("reconcile", "3", {}, "reconciliation.commands", Reconcile(round=3)),
    ],
)
def test_what_each_kind_sends(kind: str, generation: str, args: dict[str, str], topic: str, sends: Payload) -> None:
    shard = Shard()
    shard.send(SetTimer(timer_id="t", kind=kind, due_at=START, generation=generation, args=args), START)
    [fired] = shard.tick(START)
    assert (fired.topic, fired.key, fired.message.data) == (topic, "order-1", sends)
    assert decode(encode(fired.message)) == fired.message


@pytest.mark.parametrize(
    ("command", "order_id", "says"),
    [
        (SetTimer(timer_id="x", kind="lunch", due_at=START, generation="g"), "o", "lunch"),
        (SetTimer(timer_id="x", kind="payment_query", due_at=START, generation="g"), "o", "attempt_id"),
        (
            SetTimer(
                timer_id="x",
                kind="payment_query",
                due_at=START,
                generation="g",
                args={"attempt_id": "a", "amount": "ten", "currency": "EUR", "asked": "1"},
            ),
            "o",
            "ten",
        ),
        (SetTimer(timer_id="x", kind="abandoned_draft", due_at=START, generation="g"), "o", "g"),
        (SetTimer(timer_id="x", kind="redelivery", due_at=START, generation="g"), "o", "shipment_id"),
        (SetTimer(timer_id="x", kind="stuck", due_at=START, generation="g", args={"status": "S"}), "o", "version"),
        (timeout("x", START), None, "order_id"),
    ],
)
def test_a_timer_that_could_not_fire_is_refused_when_it_is_set(
    command: SetTimer, order_id: str | None, says: str
) -> None:
    shard = Shard()
    with pytest.raises(ValueError, match=says):
        shard.send(command, START, order_id)
    assert shard.state.entries == {}


def test_setting_again_moves_and_cancelling_removes() -> None:
    shard = Shard()
    shard.set("a", START + seconds(10))
    shard.set("a", START + seconds(20), generation="g2")
    shard.set("b", START + seconds(10))
    shard.send(CancelTimer(timer_id="b"), START)
    shard.send(CancelTimer(timer_id="never set"), START)
    assert shard.tick(START + seconds(15)) == []
    [fired] = shard.tick(START + seconds(20))
    assert fired.message.data.attempt_id == "g2"
    assert shard.state.entries == {}


def test_moved_away_and_back_fires_once() -> None:
    shard = Shard()
    for due in (10, 20, 10, 20, 10):
        shard.set("a", START + seconds(due))
    assert len(shard.tick(START + seconds(30))) == 1
    assert shard.state.entries == {}


def test_due_in_the_past_fires_at_the_next_tick() -> None:
    shard = Shard()
    shard.tick(START)
    shard.set("a", START - timedelta(days=400))
    shard.set("b", datetime(1969, 1, 1, tzinfo=UTC))
    assert len(shard.tick(START + seconds(0.5))) == 2


def test_the_furthest_time_there_is_can_be_set() -> None:
    shard = Shard()
    shard.set("a", datetime.max.replace(tzinfo=UTC))
    assert shard.tick(START) == []
    assert len(shard.tick(datetime.max.replace(tzinfo=UTC))) == 0  # its slot begins after the end of time
    shard.send(CancelTimer(timer_id="a"), START)


def test_a_repeated_set_fires_with_the_same_id() -> None:
    ids = []
    for _ in range(2):
        shard = Shard()
        shard.set("a", START)
        [fired] = shard.tick(START)
        shard.set("a", START)
        [again] = shard.tick(START + seconds(1))
        ids += [fired.message.id, again.message.id]
    assert len(set(ids)) == 1


def test_an_idle_shard_does_next_to_nothing_however_long_it_was_idle() -> None:
    shard = Shard()
    shard.tick(START)
    assert shard.state.touched == 1
    shard.set("a", START + timedelta(days=3650))
    shard.tick(START + timedelta(days=7))
    assert shard.state.touched <= 8
    assert len(shard.tick(START + timedelta(days=3651))) == 1
    assert shard.state.touched <= 40  # the index twice, down and up again; one bucket, one timer


def test_a_hundred_thousand_in_one_second_drain_in_bounded_messages() -> None:
    shard = Shard()
    count = 100_000
    template = timeout("", START)
    for n in range(count):
        due = START + timedelta(microseconds=n * 10)
        command = template.model_copy(update={"timer_id": f"order-{n:06}/payment", "due_at": due})
        slot = wheel.slot_of(due)
        timer = wheel.Timer(slot=slot, command=command, message_id="m", order_id=f"order-{n:06}", correlation_id="c")
        wheel.put(shard.state, timer)
    assert shard.state.largest < 4_000
    before = shard.messages
    fired = shard.tick(START + seconds(1.25))
    assert len({outgoing.message.id for outgoing in fired}) == count == len(fired)
    assert shard.messages - before <= count / MOST + 10
    assert shard.state.entries == {}


def test_a_hundred_thousand_cancelled_ones_are_skipped_in_bounded_messages() -> None:
    shard = Shard()
    count = 20_000
    for n in range(count):
        shard.set(f"t{n}", START + seconds(n % 40))
        shard.send(CancelTimer(timer_id=f"t{n}"), START)
    pending: list[Payload] = [Tick(source="t")]
    messages = 0
    while pending:
        out = shard.send(pending.pop(), START + seconds(60))
        messages += 1
        assert shard.state.touched < 3 * EFFORT
        pending += [outgoing.message.data for outgoing in out]
    assert 1 < messages < 20
    assert shard.state.entries == {}


instants = st.integers(0, 40_000).map(lambda milliseconds: START + timedelta(milliseconds=milliseconds))
steps = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from("abcdefgh"), instants),
        st.tuples(st.just("cancel"), st.sampled_from("abcdefgh"), instants),
        st.tuples(st.just("tick"), st.just(""), instants),
        st.tuples(st.just("crowd"), st.sampled_from("xyz"), instants),
    ),
    max_size=60,
)


@given(steps)
@settings(max_examples=150, deadline=None)
def test_fires_like_a_plain_dictionary_of_timers_would(found: list[tuple[str, str, datetime]]) -> None:
    """Against the naive model, with ticks in order of time: the same timers, exactly once, never early, and at the
    latest with the first tick that comes a slot after they were due."""
    shard = Shard()
    model: dict[str, tuple[datetime, str]] = {}
    now = START
    for number, (step, name, at) in enumerate(found):
        match step:
            case "set" | "crowd":
                for timer_id in [name] if step == "set" else [f"{name}{n}" for n in range(150)]:
                    shard.set(timer_id, at, now, generation=f"{timer_id}:{number}")
                    model[timer_id] = (at, f"{timer_id}:{number}")
            case "cancel":
                shard.send(CancelTimer(timer_id=name), now)
                model.pop(name, None)
            case "tick":
                now = max(now, at)
                fired = Counter(outgoing.message.data.attempt_id for outgoing in shard.tick(now))
                assert not fired or max(fired.values()) == 1
                may = {generation for due, generation in model.values() if due <= now}
                must = {generation for due, generation in model.values() if due + LATE <= now}
                assert must <= set(fired) <= may
                model = {k: v for k, v in model.items() if v[1] not in fired}
    shard.tick(START + seconds(60))
    left = Counter(outgoing.message.data.attempt_id for at, outgoing in shard.fired if at == START + seconds(60))
    assert left == Counter(generation for _, generation in model.values())
    assert shard.state.entries == {}


@given(st.datetimes(datetime(1960, 1, 1), datetime(2400, 1, 1)))  # noqa: DTZ001  (hypothesis wants it naive)
def test_a_slot_never_begins_before_its_timer_is_due(naive: datetime) -> None:
    due = naive.replace(tzinfo=UTC)
    begins = datetime(1970, 1, 1, tzinfo=UTC) + wheel.slot_of(due) * wheel.SLOT
    assert begins >= due
    assert begins - due < wheel.SLOT or wheel.slot_of(due) == 0
