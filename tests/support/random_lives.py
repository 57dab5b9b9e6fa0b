"""Histories by chance: the random lives of tests/simulation/test_lives.py, walked without hypothesis, as messages."""

from __future__ import annotations

import random
from typing import Any

from schemas.base import Envelope
from schemas.order import Order
from tests.simulation.lives import Life
from tests.simulation.logistics import Logistics
from tests.simulation.test_lives import ACTS, ANY, NEW, STEPS, Lives, drawn, policy

RULES: dict[str, Any] = {
    "payment": {"capture": ["on_submission", "on_shipment"], "max_attempts": [1, 3]},
    "fulfilment": {"split": ["ship_complete", "ship_available"], "lost": ["cancel", "reship"]},
    "returns": {"auto_approve": [True, False], "restocking_fee_percent": [0, 15]},
}


def walked(seed: int, orders: int = 12, acts: int = 150) -> Life:
    """A life in which so much has happened, at rest."""
    dice = random.Random(seed)
    rules = {name: drawn(choices, dice) for name, choices in RULES.items()}
    outside = Logistics(seed, short=0.2, fail=0.2, lose=0.1, back=0.1, repeats=0.2, disorder=0.2)
    people = Lives()
    people.life, people.stopped, people.wanted = Life(seed, policy(**rules), outside, units=60), {}, ANY
    for _ in range(orders):
        people.creates(**drawn(NEW, dice))
    for _ in range(acts):
        there = {order.status for order in people.life.orders}
        able = {name: often for name, (often, wants, _) in ACTS.items() if not wants or wants & there}
        (name,) = dice.choices(list(able), list(able.values()))
        _, people.wanted, choices = ACTS[name]
        people.stopped = {other: left - 1 for other, left in people.stopped.items() if left}
        people.life.world.frozen = set(people.stopped)
        getattr(people, name)(**drawn(choices, dice))
        people.life.go(dice.choice(STEPS), dice.randrange(2**24))
    people.rests()
    people.life.books.read()
    return people.life


def orders(life: Life) -> list[Order]:
    """As the fold of their events has them."""
    return list(life.books.orders.values())


def messages(life: Life, topic: str) -> list[Envelope]:
    return [record.message for record in life.world.records(topic) if record.message is not None]
