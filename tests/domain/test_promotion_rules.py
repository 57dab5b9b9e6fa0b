"""Uses of a promotion: never past a limit, each order once, the same whatever comes first."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.kit import Incoming, Outgoing
from processors.promotion.processor import handler
from schemas import promotion as p
from schemas.base import Message, Payload
from schemas.order import PromotionTerms
from schemas.replies import PromotionOutcome
from tests.support.examples import POLICY, T0
from tests.support.memory import Memory

CODE = "SPRING10"


def put(limit: int | None = None, per_customer: int | None = None, **terms: Any) -> p.PutPromotion:
    values = {"code": CODE, "kind": "percentage", "percent": "10", **terms}
    return p.PutPromotion(
        terms=PromotionTerms(**values), limit=limit, limit_per_customer=per_customer, body_hash=f"{limit} {terms}"
    )


def redeem(version: int = 2, customer: str = "ada") -> p.RedeemPromotion:
    return p.RedeemPromotion(code=CODE, customer_id=customer, order_version=version)


def release(version: int = 9) -> p.ReleasePromotion:
    return p.ReleasePromotion(code=CODE, order_version=version)


class Till:
    """The real handler on state in memory."""

    def __init__(self, command: p.PutPromotion | None = None) -> None:
        self.state = Memory()
        self.handle = handler(POLICY)
        self._count = 0
        if command is not None:
            self.put(command)

    def do(self, command: Payload, order: str = "o1", id: str | None = None, **envelope: Any) -> list[Outgoing]:
        self._count += 1
        message: Message[Any] = Message(
            id=id or f"m{self._count}",
            at=T0,
            actor="system:placement",
            correlation_id="c",
            order_id=order or None,
            data=command,
            **envelope,
        )
        sent = list(self.handle(self.state, Incoming("promotion.commands", CODE, message, T0)))
        assert len({(o.topic, o.message.id) for o in sent}) == len(sent)
        assert all(o.key == CODE for o in sent if o.topic in ("promotion.events", "promotion.levels"))
        return sent

    def answer(self, command: Payload, order: str = "o1", id: str | None = None) -> Any:
        (found,) = [o for o in self.do(command, order, id) if o.topic == "promotion.results"]
        assert found.key == order
        return found.message.data

    def put(self, command: p.PutPromotion, id: str | None = None) -> PromotionOutcome:
        sent = self.do(command, "", id, reply_to="gateway-1")
        (outcome,) = [o for o in sent if o.topic == "order.replies"]
        assert outcome.key == "gateway-1"
        assert isinstance(outcome.message.data, PromotionOutcome)
        return outcome.message.data

    @property
    def used(self) -> int:
        used: int = self.state.entries["promotion"]["value"]["used"]
        return used

    @property
    def holders(self) -> list[str]:
        uses = [(name, entry["value"]) for name, entry in self.state.entries.items() if name.startswith("use:")]
        return [name.removeprefix("use:") for name, use in uses if use["held"]]


REDEEMED = p.PromotionRedeemed(code=CODE, order_version=2)


def refused(reason: str, version: int = 2) -> p.PromotionRefused:
    return p.PromotionRefused(code=CODE, reason=reason, order_version=version)


# Uses


def test_an_order_uses_it_and_gives_it_back() -> None:
    till = Till(put(limit=5))
    sent = till.do(redeem())
    assert [o.topic for o in sent] == ["promotion.events", "promotion.levels", "promotion.results"]
    assert sent[0].message.data == p.PromotionChanged(kind="redeemed", code=CODE, customer_id="ada", used=1, limit=5)
    assert (sent[1].message.data.used, sent[1].message.data.limit) == (1, 5)
    assert sent[2].message.data == REDEEMED
    sent = till.do(release())
    assert sent[0].message.data == p.PromotionChanged(kind="released", code=CODE, customer_id="ada", used=0, limit=5)
    assert sent[2].message.data == p.PromotionReleased(code=CODE, order_version=9)
    assert till.used == 0


def test_each_order_counts_once() -> None:
    till = Till(put(limit=2))
    assert till.answer(redeem()) == REDEEMED
    assert till.answer(redeem()) == REDEEMED
    assert till.used == 1
    till.do(release())
    assert till.answer(release()) == p.PromotionReleased(code=CODE, order_version=9)
    assert till.used == 0


def test_what_is_not_there_or_switched_off_is_refused() -> None:
    till = Till()
    assert till.answer(redeem()) == refused("unknown")
    till.put(put(active=False))
    assert till.answer(redeem()) == refused("inactive")
    till.put(put())
    assert till.answer(redeem()) == REDEEMED
    till.put(put(active=False))
    assert till.answer(redeem(version=4)).order_version == 4, "who has it keeps it"


def test_the_last_use_is_given_once() -> None:
    till = Till(put(limit=2))
    assert [type(till.answer(redeem(), f"o{n}")).__name__ for n in range(3)] == [
        "PromotionRedeemed",
        "PromotionRedeemed",
        "PromotionRefused",
    ]
    assert till.answer(redeem(), "o2") == refused("used_up")
    till.do(release(), "o0")
    assert till.answer(redeem(), "o2") == REDEEMED


def test_a_customer_has_a_limit_of_their_own() -> None:
    till = Till(put(per_customer=1))
    assert till.answer(redeem(), "o1") == REDEEMED
    assert till.answer(redeem(), "o2") == refused("customer_limit")
    assert till.answer(redeem(customer="bob"), "o3") == REDEEMED
    till.do(release(), "o1")
    assert till.answer(redeem(), "o2") == REDEEMED


def test_a_release_that_comes_first_refuses_the_redemption() -> None:
    till = Till(put())
    assert till.answer(release(3)) == p.PromotionReleased(code=CODE, order_version=3)
    assert till.answer(redeem(2)) == refused("released")
    assert till.answer(redeem(3)) == refused("released", 3)
    assert till.used == 0


def test_a_code_that_was_removed_may_be_used_again_by_a_newer_version() -> None:
    till = Till(put(limit=1))
    till.do(redeem(2))
    till.do(release(5))
    assert till.answer(redeem(7)) == p.PromotionRedeemed(code=CODE, order_version=7)
    assert till.answer(release(5)) == refused("stale", 5)
    assert till.answer(redeem(2)) == refused("stale")
    assert till.used == 1


def test_a_lower_limit_takes_nothing_away() -> None:
    till = Till(put(limit=3))
    for n in range(3):
        till.do(redeem(), f"o{n}")
    outcome = till.put(put(limit=1))
    assert outcome.level is not None
    assert (outcome.level.used, outcome.level.limit) == (3, 1)
    assert till.answer(redeem(), "o9") == refused("used_up")
    for n in range(2):
        till.do(release(), f"o{n}")
    assert till.answer(redeem(), "o9") == refused("used_up")
    till.do(release(), "o2")
    assert till.answer(redeem(), "o9") == REDEEMED


# Definitions


def test_each_change_is_a_version_and_told() -> None:
    till = Till()
    sent = till.do(put(limit=4, version=17), "")
    assert [o.topic for o in sent] == ["promotion.events", "promotion.levels"], "nobody waits for a reply"
    level = sent[1].message.data
    assert sent[0].message.data == p.PromotionChanged(kind="put", code=CODE, used=0, limit=4, after=level)
    assert level.terms.version == 1
    again = till.do(put(percent="20"), "")
    assert (again[0].message.data.before, again[0].message.data.after) == (level, again[1].message.data)
    outcome = till.put(put(percent="20"))
    assert outcome.level is not None
    assert (outcome.level.terms.version, outcome.level.terms.percent, outcome.level.limit) == (3, "20", None)


def test_a_repeated_change_gets_the_first_answer() -> None:
    till = Till()
    first = till.put(put(limit=4), "p1")
    till.put(put(limit=5), "p2")
    assert till.put(put(limit=4), "p1") == first
    other = till.put(put(limit=6), "p1")
    assert other.rejection is not None
    assert (other.accepted, other.rejection.type) == (False, "idempotency-key-reused")
    assert till.state.entries["promotion"]["value"]["limit"] == 5
    assert till.state.ttls["put:p1"] == POLICY.idempotency_kept


def test_terms_under_another_key_are_a_bug() -> None:
    with pytest.raises(ValueError, match="OTHER"):
        Till().do(put(code="OTHER"), "")


# Whatever comes first


@pytest.mark.parametrize(
    ("said", "holds"),
    [
        ([redeem(2), release(5)], False),
        ([redeem(2), release(5), redeem(7)], True),
        ([redeem(2), release(5), redeem(7), release(9)], False),
        ([redeem(2), redeem(4), release(4)], False),
    ],
)
def test_the_newest_version_decides_whatever_comes_first(said: list[Payload], holds: bool) -> None:
    for order in permutations(said):
        till = Till(put(limit=1))
        for command in order:
            till.do(command)
        assert till.holders == (["o1"] if holds else []), order
        assert till.used == holds


COMMANDS = st.one_of(
    st.builds(lambda o, v: (redeem(v, customer="abc"[o % 3]), f"o{o}"), st.integers(0, 7), st.integers(1, 6)),
    st.builds(lambda o, v: (release(v), f"o{o}"), st.integers(0, 7), st.integers(1, 6)),
)


@given(
    limit=st.none() | st.integers(1, 4),
    per_customer=st.none() | st.integers(1, 2),
    commands=st.lists(COMMANDS, max_size=60),
    repeats=st.data(),
)
def test_no_interleaving_gives_a_use_too_many(
    limit: int | None, per_customer: int | None, commands: list[tuple[Payload, str]], repeats: st.DataObject
) -> None:
    till = Till(put(limit=limit, per_customer=per_customer))
    told: dict[str, tuple[int, bool]] = {}  # what the saga of each order was told last, and under which version
    commands += repeats.draw(st.lists(st.sampled_from(commands), max_size=10)) if commands else []
    for command, order in commands:
        answer = till.answer(command, order)
        if isinstance(answer, p.PromotionRefused):
            assert answer.reason in ("used_up", "customer_limit", "released", "stale")
        else:
            assert answer.order_version >= told.get(order, (0, False))[0] or not isinstance(command, p.RedeemPromotion)
            told[order] = (answer.order_version, isinstance(answer, p.PromotionRedeemed))
        holders = till.holders
        assert till.used == len(holders)
        assert set(holders) == {order for order, (_, has) in told.items() if has}, "what was said is what is"
        assert limit is None or till.used <= limit
        for customer in "abc":
            theirs = [order for order in holders if "abc"[int(order[1:]) % 3] == customer]
            assert till.state.entries.get(f"customer:{customer}", 0) == len(theirs)
            assert per_customer is None or len(theirs) <= per_customer


def test_a_use_that_is_free_can_be_had() -> None:
    till = Till(put(limit=3))
    for n in range(50):
        assert till.answer(redeem(), f"o{n}") == REDEEMED
        if n >= 2:
            till.do(release(), f"o{n - 2}")
