"""Stock of one SKU: conserved, never negative, and reservations that end once."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from processors.inventory.rules import (
    Fate,
    Moved,
    Refused,
    Repeated,
    Reservation,
    Stock,
    adjust,
    commit,
    release,
    reserve,
)


def reserved(quantity: int = 2, version: int = 2) -> Reservation:
    return Reservation(fate=Fate.RESERVED, quantity=quantity, order_version=version)


def test_a_reservation_takes_units_out_of_what_is_free() -> None:
    outcome = reserve(Stock(on_hand=5), None, 2, 2)
    assert isinstance(outcome, Moved)
    assert (outcome.stock.on_hand, outcome.stock.reserved) == (3, 2)


def test_the_last_unit_is_not_sold_twice() -> None:
    assert reserve(Stock(on_hand=0, reserved=1), None, 1, 2) == Refused(reason="insufficient")
    assert reserve(Stock(on_hand=1), None, 2, 2) == Refused(reason="insufficient")


def test_nothing_can_not_be_reserved() -> None:
    assert reserve(Stock(on_hand=5), None, 0, 2) == Refused(reason="insufficient")


def test_a_repeat_changes_nothing() -> None:
    assert reserve(Stock(on_hand=3, reserved=2), reserved(), 2, 2) == Repeated(quantity=2)
    gone = reserved().model_copy(update={"fate": Fate.RELEASED})
    assert release(Stock(on_hand=5), gone, 3) == Repeated(quantity=2)
    sent = reserved().model_copy(update={"fate": Fate.COMMITTED})
    assert commit(Stock(shipped=2), sent, 3) == Repeated(quantity=2)


def test_a_release_that_comes_first_refuses_the_reserve() -> None:
    tombstone = release(Stock(on_hand=5), None, 3)
    assert isinstance(tombstone, Moved)
    assert tombstone.stock.on_hand == 5
    assert reserve(Stock(on_hand=5), tombstone.reservation, 2, 2) == Refused(reason="released")


def test_committed_and_released_are_final() -> None:
    released = reserved().model_copy(update={"fate": Fate.RELEASED})
    committed = reserved().model_copy(update={"fate": Fate.COMMITTED})
    assert commit(Stock(on_hand=5), released, 9) == Refused(reason="released")
    assert release(Stock(shipped=2), committed, 9) == Refused(reason="settled")
    assert reserve(Stock(on_hand=5), committed, 2, 9) == Refused(reason="settled")


def test_an_older_command_than_already_seen_is_refused() -> None:
    assert release(Stock(on_hand=3, reserved=2), reserved(version=5), 4) == Refused(reason="stale")
    assert commit(Stock(on_hand=3, reserved=2), reserved(version=5), 4) == Refused(reason="stale")


def test_stock_is_never_adjusted_below_zero() -> None:
    assert adjust(Stock(on_hand=3), -4) == Refused(reason="insufficient")
    assert adjust(Stock(on_hand=3), -3) == Stock(on_hand=0, version=1)


class Shelf(RuleBasedStateMachine):
    """Random lives of one SKU's stock against the sum of all adjustments."""

    keys = Bundle("keys")

    def __init__(self) -> None:
        super().__init__()
        self.stock = Stock()
        self.adjusted = 0
        self.reservations: dict[int, Reservation] = {}

    @rule(target=keys, key=st.integers(0, 5))
    def name(self, key: int) -> int:
        return key

    @rule(delta=st.integers(-10, 10))
    def adjusts(self, delta: int) -> None:
        after = adjust(self.stock, delta)
        if not isinstance(after, Refused):
            self.stock, self.adjusted = after, self.adjusted + delta

    @rule(key=keys, quantity=st.integers(-1, 6), version=st.integers(1, 9))
    def reserves(self, key: int, quantity: int, version: int) -> None:
        self._take(key, reserve(self.stock, self.reservations.get(key), quantity, version))

    @rule(key=keys, version=st.integers(1, 9))
    def releases(self, key: int, version: int) -> None:
        self._take(key, release(self.stock, self.reservations.get(key), version))

    @rule(key=keys, version=st.integers(1, 9))
    def commits(self, key: int, version: int) -> None:
        self._take(key, commit(self.stock, self.reservations.get(key), version))

    def _take(self, key: int, outcome: Moved | Repeated | Refused) -> None:
        if isinstance(outcome, Moved):
            before = self.reservations.get(key)
            assert before is None or before.fate == Fate.RESERVED, "final is final"
            self.stock, self.reservations[key] = outcome.stock, outcome.reservation

    @invariant()
    def conserved(self) -> None:
        s = self.stock
        assert min(s.on_hand, s.reserved, s.shipped) >= 0
        assert s.on_hand + s.reserved + s.shipped == self.adjusted
        assert s.reserved == sum(r.quantity for r in self.reservations.values() if r.fate == Fate.RESERVED)
        assert s.shipped == sum(r.quantity for r in self.reservations.values() if r.fate == Fate.COMMITTED)


TestShelf = Shelf.TestCase
