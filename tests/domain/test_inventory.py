"""Stock of one SKU: conserved, never negative, the same whatever comes first, and the last unit is never sold twice."""

from __future__ import annotations

from collections import Counter
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from processors.inventory import processor, rules
from processors.inventory.processor import RESERVATION, handler
from processors.inventory.rules import Done, Refused, Reservation, Stock
from processors.kit import Incoming, Outgoing
from schemas import inventory as i
from schemas.base import Message, Payload
from schemas.replies import StockOutcome
from tests.support.examples import POLICY, T0
from tests.support.memory import Memory

SKU = {"sku": "MUG", "pool": "main"}
KEY = "MUG#main"
L1 = "L1"


def reserve(quantity: int, version: int = 1, line: str = L1, backorder: bool = False) -> i.ReserveStock:
    return i.ReserveStock(line_id=line, quantity=quantity, order_version=version, backorder=backorder, **SKU)


def release(version: int = 9, line: str = L1) -> i.ReleaseStock:
    return i.ReleaseStock(line_id=line, order_version=version, **SKU)


def commit(quantity: int | None, shipment: str = "s1", line: str = L1, extra: int = 0) -> i.CommitStock:
    return i.CommitStock(line_id=line, order_version=5, quantity=quantity, shipment_id=shipment, extra=extra, **SKU)


def lose(quantity: int, cause: str = "short-1", line: str = L1) -> i.LoseStock:
    return i.LoseStock(line_id=line, quantity=quantity, cause_id=cause, **SKU)


def restock(quantity: int, cause: str = "rma-1", sellable: bool = True, line: str = L1) -> i.RestockStock:
    return i.RestockStock(line_id=line, quantity=quantity, cause_id=cause, restock=sellable, **SKU)


class Shelf:
    """The real handler on state in memory; `ledger` sums up StockMoved by kind."""

    def __init__(self, on_hand: int = 0) -> None:
        self.state = Memory()
        self.handle = handler(POLICY)
        self.ledger: Counter[str] = Counter()
        self.sent: list[Outgoing] = []
        self.ids: set[str] = set()
        self._count = 0
        if on_hand:
            self.adjust(on_hand)

    def do(self, command: Payload, order: str = "o1", id: str | None = None, **envelope: Any) -> list[Outgoing]:
        self._count += 1
        message: Message[Any] = Message(
            id=id or f"m{self._count}",
            at=T0,
            actor="system:test",
            correlation_id=f"story of {order}",
            order_id=order,
            data=command,
            **envelope,
        )
        sent = list(self.handle(self.state, Incoming("inventory.commands", KEY, message, T0)))
        assert len({(o.topic, o.message.id) for o in sent}) == len(sent), "two messages under one id"
        self.sent += sent
        for out in sent:
            if isinstance(out.message.data, i.StockMoved):
                self.ledger[out.message.data.kind] += out.message.data.quantity
        return sent

    def answers(self, command: Payload, order: str = "o1", id: str | None = None) -> list[Any]:
        """What is told to the sagas, besides who it is told to."""
        return [o.message.data for o in self.do(command, order, id) if o.topic == "inventory.results"]

    def answer(self, command: Payload, order: str = "o1", id: str | None = None) -> Any:
        (answer,) = self.answers(command, order, id)
        return answer

    def adjust(self, delta: int, id: str | None = None, body_hash: str = "h") -> StockOutcome:
        adjustment = i.AdjustStock(delta=delta, reason="count", body_hash=body_hash, **SKU)
        sent = self.do(adjustment, "", id, reply_to="gateway-1")
        (outcome,) = [o.message.data for o in sent if isinstance(o.message.data, StockOutcome)]
        return outcome

    @property
    def stock(self) -> Stock:
        return Stock.model_validate(self.state.entries["stock"]["value"]) if "stock" in self.state.entries else Stock()

    @property
    def counts(self) -> tuple[int, int, int]:
        """(on hand, reserved, shipped)"""
        return self.stock.on_hand, self.stock.reserved, self.stock.shipped

    def line(self, order: str = "o1", line: str = L1) -> Reservation:
        found = RESERVATION.load(self.state, f"reservation:{order}:{line}")
        assert found is not None
        return found

    @property
    def lines(self) -> list[Reservation]:
        names = [name for name in self.state.entries if name.startswith("reservation:")]
        return [line for name in names if (line := RESERVATION.load(self.state, name)) is not None]

    def check(self) -> None:
        """Nothing negative, everything accounted for, and the counts are the sums of the lines."""
        stock, ledger = self.stock, self.ledger
        assert min(stock.on_hand, stock.reserved, stock.shipped, stock.waiting) >= 0
        assert sum(self.counts) == ledger["adjusted"] - ledger["lost"] - ledger["written_off"]
        assert stock.reserved == sum(line.held for line in self.lines)
        assert stock.shipped == sum(line.shipped - line.returned for line in self.lines)
        assert stock.waiting == sum(line.waiting for line in self.lines)
        assert all(line.held + line.waiting == line.due and line.held >= 0 <= line.waiting for line in self.lines)


# One command after the other


def test_a_reservation_takes_units_out_of_what_is_free() -> None:
    shelf = Shelf(5)
    sent = shelf.do(reserve(2))
    assert [o.topic for o in sent] == ["inventory.events", "inventory.levels", "inventory.results"]
    assert [o.key for o in sent] == [KEY, KEY, "o1"]
    assert sent[2].message.data == i.StockReserved(line_id=L1, sku="MUG", quantity=2, order_version=1)
    level = sent[1].message.data
    assert level == i.StockLevel(on_hand=3, reserved=2, shipped=0, version=2, **SKU)
    assert shelf.counts == (3, 2, 0)


def test_the_last_unit_is_not_sold_twice() -> None:
    shelf = Shelf(1)
    shelf.do(reserve(1))
    refused = shelf.answer(reserve(1), "o2")
    assert (refused.reason, refused.available, refused.quantity) == ("insufficient", 0, 1)
    assert shelf.answer(reserve(2), "o3").reason == "insufficient"
    assert shelf.counts == (0, 1, 0)


def test_a_newer_command_raises_and_lowers_what_a_line_wants() -> None:
    shelf = Shelf(5)
    shelf.do(reserve(2, version=1))
    assert shelf.answer(reserve(4, version=3)) == i.StockReserved(line_id=L1, sku="MUG", quantity=4, order_version=3)
    assert shelf.counts == (1, 4, 0)
    shelf.do(reserve(1, version=5))
    assert shelf.counts == (4, 1, 0)
    shelf.do(reserve(0, version=6))
    assert shelf.counts == (5, 0, 0)
    shelf.do(reserve(3, version=7))
    assert shelf.counts == (2, 3, 0)
    shelf.check()
    assert shelf.ledger == {"adjusted": 5, "reserved": 7, "released": 4}


def test_a_rise_that_can_not_be_had_leaves_the_line_as_it_was() -> None:
    shelf = Shelf(3)
    shelf.do(reserve(2, version=1))
    assert shelf.answer(reserve(4, version=3)).reason == "insufficient"
    assert shelf.counts == (1, 2, 0)
    assert shelf.answer(reserve(2, version=4)).quantity == 2


def test_an_older_command_than_already_accepted_is_refused() -> None:
    shelf = Shelf(5)
    shelf.do(reserve(2, version=5))
    assert shelf.answer(reserve(4, version=4)).reason == "stale"
    assert shelf.counts == (3, 2, 0)


def test_of_two_that_differ_under_one_version_the_larger_wins() -> None:
    for first, second in ((2, 4), (4, 2)):
        shelf = Shelf(5)
        shelf.do(reserve(first, version=3))
        shelf.do(reserve(second, version=3))
        assert shelf.counts == (1, 4, 0)


def test_less_than_nothing_is_refused() -> None:
    shelf = Shelf(5)
    assert shelf.answer(reserve(-1)).reason == "insufficient"
    shelf.do(reserve(3))
    for command in (commit(-1), lose(0), lose(-1), restock(0), restock(-1)):
        assert shelf.answer(command).reason == "insufficient"
    assert shelf.counts == (2, 3, 0)


def test_a_release_that_comes_first_refuses_the_reserve() -> None:
    shelf = Shelf(5)
    assert shelf.answer(release(3)).quantity == 0
    assert shelf.answer(reserve(2, version=2)).reason == "released"
    assert shelf.answer(reserve(2, version=4)).reason == "released", "for good"
    assert shelf.counts == (5, 0, 0)


def test_a_release_gives_back_what_was_not_shipped() -> None:
    shelf = Shelf(5)
    shelf.do(reserve(4))
    shelf.do(commit(3))
    assert shelf.answer(release()).quantity == 1
    assert shelf.counts == (2, 0, 3)
    assert shelf.answer(release()).quantity == 1, "the same answer again"
    assert shelf.counts == (2, 0, 3)


def test_each_shipment_counts_once() -> None:
    shelf = Shelf(5)
    shelf.do(reserve(4))
    first = shelf.answer(commit(3, "s1"))
    assert first == i.StockCommitted(line_id=L1, sku="MUG", quantity=3, order_version=5, shipment_id="s1")
    assert shelf.answer(commit(3, "s1")) == first
    assert shelf.counts == (1, 1, 3)
    shelf.do(commit(None, "s2"))
    assert shelf.counts == (1, 0, 4)
    shelf.do(commit(None, "s3"))
    assert shelf.counts == (1, 0, 4)


def test_a_parcel_sent_again_is_reserved_on_top_of_what_was_shipped() -> None:
    shelf = Shelf(5)
    shelf.do(reserve(2))
    shelf.do(commit(2, "s1"))
    shelf.do(reserve(4, version=8))
    assert shelf.counts == (1, 2, 2)
    shelf.do(commit(2, "s2"))
    assert shelf.counts == (1, 0, 4)


def test_lost_units_are_written_off_and_the_line_waits_for_others_as_long_as_it_wants_them() -> None:
    shelf = Shelf(6)
    shelf.do(reserve(5))
    answer, other = shelf.answers(lose(2))
    assert answer == i.StockLost(line_id=L1, sku="MUG", quantity=2, cause_id="short-1")
    assert other == i.StockAllocated(line_id=L1, sku="MUG", quantity=1, waiting=1)
    assert (shelf.counts, shelf.line().waiting) == ((0, 4, 0), 1)
    shelf.do(lose(2))
    assert (shelf.counts, shelf.line().waiting) == ((0, 4, 0), 1)
    shelf.do(reserve(3, version=7))  # the order has cancelled them
    assert (shelf.counts, shelf.line().waiting) == ((1, 3, 0), 0)
    shelf.check()
    assert shelf.ledger["lost"] == 2


@pytest.mark.parametrize("cancelled_first", [True, False])
def test_what_left_though_it_was_cancelled_is_not_taken_from_what_the_line_wants(cancelled_first: bool) -> None:
    shelf = Shelf(5)
    shelf.do(reserve(3))
    said = [reserve(2, version=7), commit(3, extra=1)]  # one of three was cancelled, and the parcel left with it
    for command in said if cancelled_first else reversed(said):
        shelf.do(command)
    assert shelf.counts == (2, 0, 3)
    shelf.do(restock(3, "s1"))
    shelf.do(reserve(4, version=9))  # it came back; the two are sent again
    assert shelf.counts == (3, 2, 0)
    shelf.check()


def test_returned_units_are_for_sale_again_or_written_off() -> None:
    shelf = Shelf(5)
    shelf.do(reserve(4))
    shelf.do(commit(4))
    back = shelf.answer(restock(2, "r1"))
    assert back == i.StockRestocked(line_id=L1, sku="MUG", quantity=2, cause_id="r1", restock=True)
    assert shelf.counts == (3, 0, 2)
    shelf.do(restock(1, "r2", sellable=False))
    assert shelf.counts == (3, 0, 1)
    shelf.do(restock(2, "r1"))
    shelf.do(restock(1, "r2", sellable=False))
    assert shelf.counts == (3, 0, 1)
    shelf.check()
    assert (shelf.ledger["restocked"], shelf.ledger["written_off"]) == (2, 1)


def test_what_was_never_reserved_is_unknown() -> None:
    shelf = Shelf(5)
    for command in (commit(1), commit(None), lose(1), restock(1)):
        assert shelf.answer(command).reason == "unknown"
    assert shelf.answer(restock(1, "rma-7")).cause_id == "rma-7"
    assert shelf.counts == (5, 0, 0)


def test_a_parcel_that_left_without_stock_shows_that_the_books_had_too_little() -> None:
    shelf = Shelf(1)
    shelf.do(reserve(1), "o1")
    shelf.do(release(), "o1")
    shelf.do(reserve(1), "o2")
    sent = shelf.do(commit(1), "o1")  # cancelled, and shipped all the same
    kinds = [(o.message.data.kind, o.message.data.reason) for o in sent if isinstance(o.message.data, i.StockMoved)]
    assert kinds == [("adjusted", "shipped_unreserved"), ("committed", None)]
    assert shelf.counts == (0, 1, 1)
    shelf.do(lose(1), "o2")  # and the warehouse finds nothing for the other one
    assert shelf.counts == (0, 0, 1)
    shelf.check()


def test_a_loss_takes_nothing_that_is_promised_to_others() -> None:
    shelf = Shelf(1)
    shelf.do(reserve(1), "o1")
    shelf.do(release(), "o1")
    shelf.do(reserve(1), "o2")
    assert shelf.answer(lose(1), "o1").quantity == 0
    assert shelf.counts == (0, 1, 0)


def test_stock_is_never_adjusted_below_zero() -> None:
    shelf = Shelf(3)
    refused = shelf.adjust(-4)
    assert refused.rejection is not None
    assert (refused.accepted, refused.rejection.type, refused.rejection.field) == (False, "stock-below-zero", "delta")
    accepted = shelf.adjust(-3)
    assert accepted.accepted
    assert accepted.level == i.StockLevel(on_hand=0, reserved=0, shipped=0, version=2, **SKU)


def test_a_repeated_adjustment_gets_the_first_answer() -> None:
    shelf = Shelf()
    first = shelf.adjust(3, "a1")
    shelf.adjust(4, "a2")
    assert shelf.adjust(3, "a1") == first
    assert shelf.counts == (7, 0, 0)
    other = shelf.adjust(9, "a1", body_hash="another")
    assert other.rejection is not None
    assert other.rejection.type == "idempotency-key-reused"


# Back-orders


def waiting(on_hand: int, *orders: tuple[str, int]) -> Shelf:
    shelf = Shelf(on_hand)
    for order, quantity in orders:
        shelf.do(reserve(quantity, backorder=True), order)
    return shelf


def allocations(sent: list[Outgoing]) -> list[tuple[str, int, int]]:
    return [
        (o.key, o.message.data.quantity, o.message.data.waiting)
        for o in sent
        if isinstance(o.message.data, i.StockAllocated)
    ]


def delivery(shelf: Shelf, units: int) -> list[tuple[str, int, int]]:
    before = len(shelf.sent)
    shelf.adjust(units)
    shelf.check()
    return allocations(shelf.sent[before:])


def test_a_back_order_takes_what_is_there_and_waits_for_the_rest() -> None:
    shelf = Shelf(2)
    answer = shelf.answer(reserve(5, backorder=True))
    assert (answer.quantity, answer.backordered) == (5, 3)
    assert shelf.counts == (0, 2, 0)
    assert shelf.answer(reserve(5, backorder=True)) == answer, "the same answer again"
    assert delivery(shelf, 2) == [("o1", 2, 1)]
    assert delivery(shelf, 2) == [("o1", 1, 0)]
    assert shelf.counts == (1, 5, 0)


def test_those_who_wait_are_served_in_their_order() -> None:
    shelf = waiting(0, ("o1", 2), ("o2", 3), ("o3", 1))
    assert delivery(shelf, 3) == [("o1", 2, 0), ("o2", 1, 2)]
    assert delivery(shelf, 9) == [("o2", 2, 0), ("o3", 1, 0)]
    assert shelf.counts == (6, 6, 0)


def test_an_allocation_is_told_in_the_story_of_the_order_that_waited() -> None:
    shelf = waiting(0, ("o1", 1), ("o2", 1))
    shelf.adjust(2, "delivery")
    told = [o for o in shelf.sent if isinstance(o.message.data, i.StockAllocated)]
    assert [(o.message.correlation_id, o.message.order_id) for o in told] == [
        ("story of o1", "o1"),
        ("story of o2", "o2"),
    ]
    moved = [o.message for o in shelf.sent if isinstance(o.message.data, i.StockMoved)]
    assert [(m.data.kind, m.order_id, m.data.version) for m in moved[1:]] == [
        ("reserved", "o1", 2),
        ("reserved", "o2", 3),
    ]
    levels = [o.message.data for o in shelf.sent if isinstance(o.message.data, i.StockLevel)]
    assert levels[-1].version == 3


@pytest.mark.parametrize("gone", ["o1", "o2", "o3"])
def test_who_waits_no_more_is_passed_over(gone: str) -> None:
    shelf = waiting(0, ("o1", 1), ("o2", 1), ("o3", 1))
    shelf.do(release(), gone)
    assert [order for order, _, _ in delivery(shelf, 5)] == [o for o in ("o1", "o2", "o3") if o != gone]
    assert shelf.counts == (3, 2, 0)
    assert not [name for name in shelf.state.entries if name.startswith("place:")]


@pytest.mark.parametrize("frees", [release(), reserve(0, version=3), restock(1)], ids=["release", "lower", "restock"])
def test_whatever_becomes_free_goes_to_those_who_wait(frees: Payload) -> None:
    shelf = Shelf(2)
    shelf.do(reserve(2))
    shelf.do(commit(1))
    shelf.do(reserve(1, backorder=True), "o2")
    assert allocations(shelf.do(frees)) == [("o2", 1, 0)]
    shelf.check()


def test_a_line_that_wants_fewer_first_stops_to_wait() -> None:
    shelf = waiting(2, ("o1", 5))
    answer = shelf.answer(reserve(3, version=2, backorder=True))
    assert (answer.quantity, answer.backordered) == (3, 1)
    assert shelf.counts == (0, 2, 0)
    shelf.do(reserve(2, version=3))
    assert delivery(shelf, 5) == []


def test_a_line_that_wants_more_keeps_its_place() -> None:
    shelf = waiting(0, ("o1", 1), ("o2", 1))
    shelf.do(reserve(2, version=2, backorder=True), "o1")
    assert delivery(shelf, 3) == [("o1", 2, 0), ("o2", 1, 0)]


def test_a_delivery_for_many_is_shared_out_in_steps_and_nobody_jumps_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "ALLOCATIONS", 3)
    shelf = waiting(0, *((f"o{n}", 1) for n in range(8)))
    assert [order for order, _, _ in delivery(shelf, 9)] == ["o0", "o1", "o2"]
    sent = shelf.do(reserve(2), "late")  # 6 are free, 5 of them are waited for
    refused = next(o.message.data for o in sent if isinstance(o.message.data, i.StockRefused))
    assert (refused.reason, refused.available) == ("insufficient", 1)
    assert [order for order, _, _ in allocations(sent)] == ["o3", "o4", "o5"]
    assert [order for order, _, _ in allocations(shelf.do(commit(1), "o0"))] == ["o6", "o7"]
    shelf.check()
    assert shelf.counts == (1, 7, 1)


# Whatever comes first


def end(shelf: Shelf) -> tuple[Any, ...]:
    line = shelf.line()
    return (*shelf.counts, line.held, line.waiting, line.shipped, line.returned)


ALL = [
    reserve(5, version=3),
    reserve(4, version=6),
    commit(2, "s1"),
    lose(1),
    restock(1, "r1"),
    restock(1, "r2", sellable=False),
]


@pytest.mark.parametrize(("commands", "held"), [(ALL, 2), ([*ALL[1:], release(9)], 0)], ids=["alive", "released"])
def test_every_order_of_arrival_ends_the_same(commands: list[Payload], held: int) -> None:
    """All 720 orders of what can be said of a line after its first reservation."""
    ends = set()
    for order in permutations(commands):
        shelf = Shelf(6)
        for command in (reserve(3, version=2), *order):
            shelf.do(command)
            shelf.check()
        ends.add(end(shelf))
    # Of six units one is lost, and one of the two that left was written off when both came back.
    assert ends == {(4 - held, held, 0, held, 0, 2, 2)}


@st.composite
def lives(draw: st.DrawFn) -> tuple[int, list[Payload]]:
    """(units on hand, what is said of a line after its first reservation): parcels and losses within what it once
    wanted, no more returns than parcels, and enough for all of it."""
    wants = draw(st.lists(st.integers(0, 6), min_size=1, max_size=4))
    said: list[Payload] = [reserve(quantity, version=n + 2) for n, quantity in enumerate(wants)]
    left, lost = max(wants), 0
    for n, quantity in enumerate(draw(st.lists(st.integers(1, 3), max_size=3))):
        if quantity <= left:
            left -= quantity
            shipped = draw(st.booleans())
            lost += 0 if shipped else quantity
            said.append(commit(quantity, f"s{n}") if shipped else lose(quantity, f"c{n}"))
            if shipped and draw(st.booleans()):
                said.append(restock(draw(st.integers(1, quantity)), f"r{n}", draw(st.booleans())))
    if draw(st.booleans()):
        said.append(release(version=99))
    said += draw(st.lists(st.sampled_from(said), max_size=3))  # repeats
    return max(wants) + lost + draw(st.integers(0, 3)), said


@given(lives(), st.data())
def test_any_order_of_arrival_ends_the_same(life: tuple[int, list[Payload]], data: st.DataObject) -> None:
    on_hand, said = life
    ends = []
    for order in (said, data.draw(st.permutations(said))):
        shelf = Shelf(on_hand)
        shelf.do(reserve(0, version=1))
        for command in order:
            shelf.do(command)
            shelf.check()
        ends.append(end(shelf))
    assert ends[0] == ends[1]


class Lives(RuleBasedStateMachine):
    """Random lives of many lines on scarce stock, also of such as contradict each other: nothing is ever negative, all
    is accounted for, and no unit is promised twice."""

    orders = st.sampled_from([f"o{n}" for n in range(6)])
    some = st.integers(1, 4)
    names = st.sampled_from("abc")

    def __init__(self) -> None:
        super().__init__()
        self.shelf = Shelf()

    @rule(delta=st.integers(-6, 10))
    def adjusts(self, delta: int) -> None:
        self.shelf.adjust(delta)

    @rule(order=orders, quantity=st.integers(-1, 6), version=st.integers(1, 9), backorder=st.booleans())
    def reserves(self, order: str, quantity: int, version: int, backorder: bool) -> None:
        self.shelf.do(reserve(quantity, version, backorder=backorder), order)

    @rule(order=orders)
    def releases(self, order: str) -> None:
        self.shelf.do(release(), order)

    @rule(order=orders, quantity=st.none() | some, shipment=names, extra=st.integers(0, 2))
    def commits(self, order: str, quantity: int | None, shipment: str, extra: int) -> None:
        self.shelf.do(commit(quantity, shipment, extra=extra), order)

    @rule(order=orders, quantity=some, cause=names)
    def loses(self, order: str, quantity: int, cause: str) -> None:
        self.shelf.do(lose(quantity, cause), order)

    @rule(order=orders, quantity=some, cause=names, sellable=st.booleans())
    def restocks(self, order: str, quantity: int, cause: str, sellable: bool) -> None:
        self.shelf.do(restock(quantity, cause, sellable), order)

    @precondition(lambda self: self.shelf.stock.waiting)
    @rule()
    def receives_what_is_waited_for(self) -> None:
        self.shelf.adjust(self.shelf.stock.waiting)
        assert self.shelf.stock.waiting == 0

    @invariant()
    def balanced(self) -> None:
        self.shelf.check()
        stock = self.shelf.stock
        assert not (stock.on_hand and stock.waiting), "free, while somebody waits"
        queued = [name for name in self.shelf.state.entries if name.startswith("place:")]
        assert len(queued) == sum(line.waiting > 0 for line in self.shelf.lines)


TestLives = Lives.TestCase


# State of earlier releases


@pytest.mark.parametrize(
    ("fate", "now"),
    [
        ("RESERVED", Reservation(order_version=3, wanted=2, held=2)),
        ("COMMITTED", Reservation(order_version=3, wanted=2, shipped=2)),
        ("RELEASED", Reservation(order_version=3, wanted=2, released=2)),
    ],
)
def test_a_reservation_of_the_first_release_means_the_same(fate: str, now: Reservation) -> None:
    old = RESERVATION.read({"shape": 1, "value": {"fate": fate, "quantity": 2, "order_version": 3}})
    assert old == now
    stock = Stock(on_hand=1, reserved=now.held, shipped=now.shipped)
    again = rules.commit(stock, old, None)
    assert isinstance(again, Done)
    assert again.stock.shipped == (0 if fate == "RELEASED" else 2), "a parcel of then is not counted twice"
    assert isinstance(rules.reserve(stock, old, 3, 4), Refused if fate == "RELEASED" else Done)
