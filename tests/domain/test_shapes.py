"""State written by an earlier release is read by this one. `recorded_states.json` only ever grows: when a shape gets a
new number, its old value stays under NAME@NUMBER."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from processors.fraud.processor import VELOCITY
from processors.inventory.processor import RESERVATION, STOCK
from processors.inventory.queue import ENDS, PLACE
from processors.notification.processor import KNOWN
from processors.order.processor import ORDER
from processors.placement.processor import PLACEMENT
from processors.promotion.processor import PROMOTION, USE
from processors.reconciliation.processor import MOVEMENT, WATCH
from processors.shapes import Shape
from schemas import events as e
from schemas.base import Model
from tests.support.histories import History

RECORDED: dict[str, Any] = json.loads(Path(__file__).with_name("recorded_states.json").read_text())
SHAPES: dict[str, Shape[Any]] = {
    "order": ORDER,
    "placement": PLACEMENT,
    "stock": STOCK,
    "reservation": RESERVATION,
    "queue": ENDS,
    "place": PLACE,
    "promotion": PROMOTION,
    "use": USE,
    "velocity": VELOCITY,
    "movement": MOVEMENT,
    "watch": WATCH,
    "known": KNOWN,
}


class Memory:
    def __init__(self) -> None:
        self.entries: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return self.entries.get(key, default)

    def set(self, key: str, value: Any, ttl: object = None) -> None:
        self.entries[key] = json.loads(json.dumps(value))

    def delete(self, key: str) -> None:
        del self.entries[key]


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_state_is_read_and_comes_out_the_same(name: str) -> None:
    shape, memory = SHAPES[name.partition("@")[0]], Memory()
    memory.entries["k"] = RECORDED[name]
    value = shape.load(memory, "k")
    assert value is not None
    shape.save(memory, "k", value)
    assert memory.entries["k"]["value"] == RECORDED[name]["value"] or shape.number > RECORDED[name]["shape"]
    assert shape.load(memory, "k") == value


def test_every_shape_has_a_recorded_state_of_its_number() -> None:
    newest = {name: recorded["shape"] for name, recorded in RECORDED.items() if "@" not in name}
    assert newest == {name: shape.number for name, shape in SHAPES.items()}
    older = {name for name in RECORDED if "@" in name}
    assert older == {f"{name}@{number}" for name, shape in SHAPES.items() for number in range(1, shape.number)}


class Box(Model):
    width: int
    depth: int


def test_an_older_shape_is_cast_up_step_by_step() -> None:
    shape = Shape(Box, 3, {1: lambda v: {"width": v["side"], "depth": v["side"]}, 2: lambda v: {**v, "depth": 9}})
    assert shape.read({"shape": 1, "value": {"side": 4}}) == Box(width=4, depth=9)


def test_a_shape_from_the_future_is_refused() -> None:
    with pytest.raises(ValueError, match="has shape 2"):
        Shape(Box).read({"shape": 2, "value": {}})


def test_what_an_order_without_a_history_gets_is_part_of_what_its_events_say() -> None:
    """Not all of it: state of shape 2 had kept only some of the times."""
    paid = History("paid").created(0).submitted(1).payment_requested(1).paid(3)
    delivered = History("delivered").created(0).submitted(1).payment_requested(1).paid(3)
    delivered.happens(9, e.OrderDelivered(shipments=()))
    lost = History("lost").created(0).cancelled(2, "abandoned")
    for order in (state.data.order for story in (paid, delivered, lost) for state in story.states):
        value = order.model_dump(mode="json")
        for name in ("history", "removed", "promised_delivery"):
            del value[name]
        cast = ORDER.read({"shape": 2, "value": value})
        assert set(cast.history) <= set(order.history)
        assert [stay.since for stay in cast.history] == sorted(stay.since for stay in cast.history)
        assert cast.history[-1] == order.history[-1]
