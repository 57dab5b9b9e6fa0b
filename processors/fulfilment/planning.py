"""Which parcel is next. One at a time: the next is planned when the order has said yes or no to the last. Pure."""

from __future__ import annotations

from processors.fulfilment.model import Fulfilment, Item, Parcel, Send, Step, shipment_id
from schemas.commands import PlanShipment
from schemas.order import ShipmentLine
from schemas.policy import FulfilmentRules


def plan(state: Fulfilment, rules: FulfilmentRules) -> Step:
    """ship_complete: everything that is to be shipped in one parcel, once all of it is there. ship_available: whatever
    is there, and the rest when it comes."""
    undecided = any(parcel.status in ("asked", "called_back") for parcel in state.parcels)
    if state.phase != "processing" or state.imported or undecided or state.version < state.wait_for:
        return state, []
    open_items = [item for item in state.items if item.to_ship > 0]
    unknown = any(item.pending for item in open_items)  # stock will answer in a moment
    if unknown or (rules.split == "ship_complete" and any(item.missing for item in open_items)):
        return state, []
    ready = {item.line_id: _ready(state, item) for item in open_items}
    lines = tuple(
        ShipmentLine(line_id=item.line_id, sku=item.sku, quantity=ready[item.line_id])
        for item in open_items
        if ready[item.line_id] > 0
    )
    if not lines:
        return state, []
    parcel = Parcel(shipment_id=shipment_id(state.order_id, state.count + 1), lines=lines)
    planned = state.model_copy(update={"parcels": (*state.parcels, parcel), "count": state.count + 1})
    ask = PlanShipment(shipment_id=parcel.shipment_id, lines=lines)
    return planned, [Send("order.internal", plan_name(parcel.shipment_id), ask)]


def plan_name(shipment_id: str) -> str:
    return f"plan:{shipment_id}"


def free(state: Fulfilment, item: Item) -> int:
    """Units to ship that are in no parcel."""
    held = sum(
        x.quantity for p in state.parcels if p.status in ("asked", "planned", "packed") for x in p.lines
        if x.line_id == item.line_id
    )  # fmt: skip
    return item.to_ship - held


def _ready(state: Fulfilment, item: Item) -> int:
    return free(state, item) - item.missing
