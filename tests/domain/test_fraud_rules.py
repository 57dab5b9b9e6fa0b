"""Scores by rules, by the numbers of the policy."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.fraud.processor import handler
from processors.fraud.rules import Velocity, score
from processors.kit import Incoming, Outgoing
from schemas.base import Message
from schemas.fraud import OrderScored, ScoreOrder
from schemas.policy import FraudRules
from tests.support.examples import POLICY, T0, at
from tests.support.memory import Memory

RULES = FraudRules(
    velocity_window=timedelta(minutes=10),
    customer_orders=3,
    customer_velocity_score=60,
    address_orders=2,
    address_velocity_score=40,
    amounts={"EUR": 10_000},
    amount_score=50,
    mismatch_score=20,
)


def order(seconds: float = 0, aspect: str = "customer", **changes: Any) -> ScoreOrder:
    values: dict[str, Any] = {
        "aspect": aspect,
        "subject": "customer:ada",
        "customer_id": "ada",
        "amount": 5000,
        "currency": "EUR",
        "shipping_country": "DE",
        "billing_country": "DE",
        "submitted_at": at(seconds),
    }
    return ScoreOrder(**{**values, **changes})


def scores(*orders: ScoreOrder) -> list[OrderScored]:
    """Of each order, one after the other."""
    velocity, found = Velocity(), []
    for each in orders:
        velocity, scored = score(velocity, each, RULES)
        found.append(scored)
    return found


def test_an_ordinary_order_scores_nothing() -> None:
    assert scores(order()) == [OrderScored(aspect="customer", score=0)]


@pytest.mark.parametrize(
    ("changes", "points", "reasons"),
    [
        ({"amount": 10_000}, 0, ()),
        ({"amount": 10_001}, 50, ("amount",)),
        ({"amount": 10_001, "currency": "JPY"}, 0, ()),
        ({"shipping_country": "FR"}, 20, ("mismatch",)),
        ({"shipping_country": "FR", "amount": 20_000}, 70, ("amount", "mismatch")),
    ],
)
def test_what_is_seen_on_the_order_itself(changes: dict[str, Any], points: int, reasons: tuple[str, ...]) -> None:
    assert scores(order(**changes)) == [OrderScored(aspect="customer", score=points, reasons=reasons)]


def test_only_the_customers_side_looks_at_the_order_itself() -> None:
    both = order(aspect="address", amount=20_000, shipping_country="FR")
    assert scores(both) == [OrderScored(aspect="address", score=0)]


def test_too_many_orders_in_the_window() -> None:
    found = scores(*(order(seconds) for seconds in (0, 1, 2, 3, 4)))
    assert [s.score for s in found] == [0, 0, 0, 60, 60]
    assert found[-1].reasons == ("customer_velocity",)
    by_address = scores(*(order(seconds, "address") for seconds in (0, 1, 2)))
    assert by_address[-1] == OrderScored(aspect="address", score=40, reasons=("address_velocity",))


def test_the_window_slides() -> None:
    found = scores(*(order(seconds) for seconds in (0, 1, 2, 600, 601, 602, 603)))
    assert [s.score for s in found] == [0, 0, 0, 0, 0, 0, 60], (
        "at 600 s the order of 0 s is out, at 603 s three others are in"
    )


def test_later_orders_that_came_first_do_not_count() -> None:
    found = scores(*(order(seconds) for seconds in (10, 11, 12, 5)))
    assert [s.score for s in found] == [0, 0, 0, 0]


def test_no_score_is_above_100() -> None:
    velocity = Velocity(times=(at(0), at(1), at(2)))
    _, scored = score(velocity, order(3, amount=20_000, shipping_country="FR"), RULES)
    assert (scored.score, scored.reasons) == (100, ("customer_velocity", "amount", "mismatch"))


def test_an_unknown_aspect_is_a_bug() -> None:
    with pytest.raises(ValueError, match="moon"):
        score(Velocity(), order(aspect="moon"), RULES)


@given(st.lists(st.integers(0, 3000), max_size=60))
def test_the_bounded_memory_finds_what_an_endless_one_would(seconds: list[int]) -> None:
    """For orders that come as they were submitted."""
    seconds.sort()
    velocity = Velocity()
    for n, second in enumerate(seconds):
        velocity, scored = score(velocity, order(second), RULES)
        assert len(velocity.times) <= RULES.customer_orders + 1
        in_window = [s for s in seconds[: n + 1] if second - 600 < s <= second]
        assert (scored.score == 60) == (len(in_window) > RULES.customer_orders)


class Desk:
    """The real handler on state in memory."""

    def __init__(self) -> None:
        self.state = Memory()
        self.handle = handler(POLICY.model_copy(update={"fraud": RULES}))

    def ask(self, data: ScoreOrder, id: str, order_id: str | None = "o1") -> Outgoing:
        message: Message[Any] = Message(
            id=id, at=T0, actor="system:placement", correlation_id="c", order_id=order_id, data=data
        )
        (sent,) = self.handle(self.state, Incoming("fraud.commands", data.subject, message, T0))
        return sent


def test_the_answer_goes_to_the_order() -> None:
    sent = Desk().ask(order(amount=20_000), "s1")
    assert (sent.topic, sent.key, sent.message.order_id) == ("fraud.results", "o1", "o1")
    assert sent.message.data == OrderScored(aspect="customer", score=50, reasons=("amount",))


def test_a_repeated_command_counts_once_and_is_answered_as_then() -> None:
    desk = Desk()
    first = desk.ask(order(0), "s0")
    for n in range(1, 3):
        desk.ask(order(n), f"s{n}")
    assert desk.ask(order(0), "s0") == first
    assert desk.ask(order(2), "s2").message.data.score == 0
    third = desk.ask(order(3), "s3")
    assert third.message.data.score == 60
    assert desk.ask(order(3), "s3") == third
    assert desk.state.ttls["scored:s0"] == POLICY.idempotency_kept


def test_a_score_belongs_to_an_order() -> None:
    with pytest.raises(ValueError, match="order"):
        Desk().ask(order(), "s1", order_id=None)
