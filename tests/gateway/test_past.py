"""Time travel, pure: the state as of each event is the fold up to it, and the changes of the events make the order."""

from __future__ import annotations

import copy
import re
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from gateway import past
from gateway.documents import order_json
from processors.sinks.rows import order_events_rows
from schemas import commands as c
from schemas.address import Address
from schemas.base import Event
from schemas.codec import encode
from tests.domain.order_lives import OVER, paid, placed, processing, ship
from tests.domain.order_story import Story
from tests.support.examples import address, at, line
from tests.support.histories import History


def cancelled() -> list[Event[Any]]:
    story = placed(line("MUG", 3), line("LAMP", 1, 5000))
    return story.given(c.CancelOrder(reason="changed_mind"), at=at(60)).history


def drafted() -> list[Event[Any]]:
    """A draft under many hands: a line more, a line less, another quantity, another address."""
    story = Story()
    story.given(placed_as_draft(), at=at(0))
    story.given(c.AddItem(line=line("PEN", 2, 150)), at=at(10))
    story.given(c.ChangeQuantity(line_id="L1", quantity=5), at=at(20))
    story.given(c.RemoveItem(line_id="L2"), at=at(30))
    return story.given(c.ChangeShippingAddress(address=address("AT")), at=at(40)).history


def placed_as_draft() -> c.CreateOrder:
    lines = (line("MUG", 3), line("LAMP", 1, 5000))
    return c.CreateOrder(customer_id="42", currency="EUR", lines=lines, shipping_address=address())


def returned() -> list[Event[Any]]:
    """Paid, sent in two parcels, delivered, one unit sent back and its money given back."""
    later = OVER + timedelta(days=1)
    story = processing(paid(line("MUG", 3), line("LAMP", 1, 5000)))
    ship(story, "S1", L1=3)
    ship(story, "S2", L2=1)
    for parcel in ("S1", "S2"):
        story.given(c.DeliverShipment(shipment_id=parcel), at=later, actor="system:fulfilment")
    story.given(c.RequestReturn(items=(c.ReturnWish(line_id="L1", quantity=2, reason="changed_mind"),)), at=later)
    rma = story.now.returns[0].rma
    for step in (c.ApproveReturn(rma=rma), c.ReceiveReturn(rma=rma)):
        story.given(step, at=later, actor="staff:bo")
    looked = c.InspectReturn(rma=rma, items=(c.Inspected(line_id="L1", condition="as_new"),))
    story.given(looked, at=later + timedelta(hours=1), actor="staff:bo")
    done = c.CompleteRefund(refund_id=story.now.refunds[0].refund_id, provider_ref="re_1")
    return story.given(done, at=later + timedelta(hours=2), actor="system:placement").history


def recorded() -> list[Event[Any]]:
    return History("recorded").created(0, address()).submitted(10).payment_requested(10).paid(12).events


LIVES = pytest.mark.parametrize("life", [recorded, cancelled, drafted, returned])


def rows(events: list[Event[Any]]) -> list[dict[str, Any]]:
    """The events as `order_events.sql` gives them."""
    found = []
    for event in events:
        (row,) = order_events_rows(event, encode(event), 0)
        found.append({**row._asdict(), "occurred_us": row.occurred_at})
    return found


def opened(address: Address | None, name: str) -> dict[str, Any] | None:
    return None if address is None else {name: "Ada", "country": address.country}


@LIVES
def test_events_come_out_of_the_view_as_they_went_in(life: Any) -> None:
    events = life()
    back = [past.event(events[0].order_id, row) for row in rows(events)]
    assert back == [event.model_copy(update={"previous_hash": ""}) for event in events]


@LIVES
def test_the_state_as_of_each_event_is_the_fold_up_to_it(life: Any) -> None:
    events = life()
    orders = past.fold([past.event(events[0].order_id, row) for row in rows(events)])
    assert [order.version for order in orders] == list(range(1, len(events) + 1))
    for n, event in enumerate(events, start=1):
        assert orders[n - 1] == past.fold(events[:n])[-1]
        newest = max(e.version for e in events if e.occurred_at <= event.occurred_at)
        assert past.as_of(orders, event.occurred_at) == orders[newest - 1]
        before = [e.version for e in events if e.occurred_at < event.occurred_at]
        found = past.as_of(orders, event.occurred_at - timedelta(microseconds=1))
        assert found == (orders[before[-1] - 1] if before else None)


def test_the_recorded_states_are_the_folds() -> None:
    history = History("h").created(0).submitted(10).payment_requested(10).cancelled(11, "payment_declined")
    assert past.fold(history.events) == [state.data.order for state in history.states]


def done(document: dict[str, Any], change: dict[str, Any]) -> None:
    """Do a change to a document of an order."""
    field, key, part = re.fullmatch(r"(\w+)(?:\[(.+?)\](?:\.(\w+))?)?", change["field"]).groups()  # type: ignore[union-attr]
    if key is None:
        assert document.get(field) == change["before"]
        document[field] = change["after"]
        return
    names = {"items": "line_id", "payments": "attempt_id", "refunds": "refund_id", "shipments": "shipment_id"}
    entries = document.setdefault(field, [])
    entry = next((entry for entry in entries if entry[names.get(field, "rma")] == key), None)
    if part is not None:
        assert entry is not None
        assert entry[part] == change["before"]
        entry[part] = change["after"]
    else:
        assert entry == change["before"]
        if entry is not None:
            entries.remove(entry)
        if change["after"] is not None:
            entries.append(copy.deepcopy(change["after"]))


@LIVES
def test_the_changes_of_all_events_make_the_order(life: Any) -> None:
    document: dict[str, Any] = {}
    before = None
    for order in past.fold(life()):
        after = order_json(order, opened)
        for change in past.changes(before, after):
            done(document, change)
        before = after
        assert document == {
            name: value
            for name, value in after.items()
            if name in document
            or (value not in (None, []) and name not in {"version", "updated_at", "allowed_actions"})
        }


def test_changes_name_what_changed_and_nothing_else() -> None:
    shown = [order_json(order, opened) for order in past.fold(drafted())]
    steps = [past.changes(before, after) for before, after in pairwise(shown)]
    told = [{change["field"]: (change["before"], change["after"]) for change in changes} for changes in steps]
    added, more, removed, moved = told
    assert added["items[L3]"][0] is None
    assert added["items[L3]"][1]["sku"] == "PEN"
    assert more["items[L1].quantity"] == (3, 5)
    assert more["items[L1].line_total"] == (
        {"amount": "30.00", "currency": "EUR"},
        {"amount": "50.00", "currency": "EUR"},
    )
    assert removed["items[L2]"][1] is None
    assert moved["shipping_address"] == (
        {"recipient_name": "Ada", "country": "DE"},
        {"recipient_name": "Ada", "country": "AT"},
    )
    assert not [field for field in moved if field in ("version", "updated_at", "allowed_actions", "customer_id")]
    assert past.changes(shown[0], shown[0]) == []
