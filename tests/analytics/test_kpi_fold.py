"""Every KPI equals a fold of the topics in plain Python, on histories by chance, also when rows come twice or late."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from clickhouse_connect.driver.client import Client

from analytics import kpis
from processors.sinks.views import VIEWS
from schemas.base import Envelope, Message
from tests.support.examples import at, counted
from tests.support.kpi_fold import KPIS, Fold, by_key
from tests.support.random_lives import messages, orders, walked
from tests.support.view_tables import fill

TOPICS = ("order.events", "order.states", "inventory.events", "inventory.levels")


def asked(kpi: kpis.Kpi) -> Iterator[dict[str, Any]]:
    yield {}
    yield from ({"grain": grain, "tz": "America/St_Johns"} for grain in kpis.GRAINS)
    yield from ({"group_by": dimension} for dimension in kpi.dimensions)
    yield from ({"grain": "week", "tz": "Asia/Tokyo", "group_by": dimension} for dimension in kpi.dimensions[:1])


@pytest.mark.parametrize("seed", range(3))
def test_every_kpi_is_a_fold_of_the_topics(client: Client, seed: int) -> None:
    for view in VIEWS.values():
        client.command(f"TRUNCATE TABLE {view.table}")
    life, dice = walked(seed), random.Random(seed)
    told = {topic: messages(life, topic) for topic in TOPICS}
    told["inventory.events"] += [*scarce("A", dice), *scarce("B", dice)]
    for topic, found in told.items():
        fill(client, topic, found)
    moves: Sequence[Any] = told["inventory.events"]
    fold = Fold(orders(life), moves, life.world.now)
    told_of = [name for name in KPIS if any(any(row.values()) for row in fold.rows(name))]
    assert len(told_of) >= len(KPIS) - 2, f"too little has happened: only {told_of}"
    check(client, fold)
    for topic, found in told.items():
        fill(client, topic, some_again(found, dice))
    check(client, fold)


def scarce(sku: str, dice: random.Random) -> Iterator[Message[Any]]:
    """Movements of a product that there is never much of: in the lives there is always enough."""
    before = 0
    for version in range(1, 60):
        on_hand = dice.choice((0, 0, 1, 2, 30))
        quantity, before = on_hand - before, on_hand
        moved = counted(sku, version, quantity, on_hand)
        yield Message(id=f"{sku}{version}", at=at(version * 7_000), actor="a", correlation_id="c", data=moved)


def some_again(found: list[Envelope], dice: random.Random) -> list[Envelope]:
    """Old ones after newer ones, as a sink that starts over, or comes late, writes them."""
    return dice.sample(found, len(found) // 2)


def check(client: Client, fold: Fold) -> None:
    assert KPIS.keys() == kpis.load().keys()
    for name, kpi in kpis.load().items():
        for params in asked(kpi):
            there = by_key(name, kpis.run(client, name, {**params, "now": fold.now}))
            assert there == by_key(name, fold.rows(name, params)), (name, params)
