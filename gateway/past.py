"""An order as it was: its events folded as the order processor folds them, and what each of them changed. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from gateway import times
from gateway.documents import event_of_row
from processors.order.evolve import evolve
from schemas.base import Event
from schemas.order import Order

# Fields of an order's document that say nothing of their own: the event has its version and its time, and what is
# allowed follows from the rest.
_DERIVED = frozenset({"version", "updated_at", "allowed_actions"})
# Lists whose entries have a name: they are compared entry by entry.
_NAMED_BY = {
    "items": "line_id",
    "payments": "attempt_id",
    "refunds": "refund_id",
    "shipments": "shipment_id",
    "returns": "rma",
}


def event(order_id: str, row: dict[str, Any]) -> Event[Any]:
    """The event that a row of `order_events.sql` holds. KeyError when this version of ours does not know its type."""
    return Event(
        id=row["id"],
        order_id=order_id,
        version=int(row["version"]),
        occurred_at=times.of(row["occurred_us"]),
        actor=row["actor"],
        correlation_id=row["correlation_id"],
        causation_id=row["causation_id"],
        previous_hash="",  # of no use to a fold
        data=event_of_row(row),
    )


def fold(events: Sequence[Event[Any]]) -> list[Order]:
    """The order after each of its events, oldest first."""
    orders: list[Order] = []
    for event in events:
        orders.append(evolve(orders[-1] if orders else None, event))
    return orders


def as_of(orders: Sequence[Order], when: datetime) -> Order | None:
    """Of the states of one order (oldest first) the newest that there was at this time."""
    return next((order for order in reversed(orders) if order.updated_at <= when), None)


def changes(before: dict[str, Any] | None, after: dict[str, Any]) -> list[dict[str, Any]]:
    """What differs between two documents of an order (None: there was none), as [{field, before, after}]: each field
    that is another one, and of lines, payments, refunds, parcels and returns each field of each entry
    (items[L1].quantity), or the entry itself when it is new or gone (items[L2]). Done one after the other, the changes
    of all events make the newest document."""
    found = []
    for field, now in after.items():
        if field in _DERIVED:
            continue
        then = (before or {}).get(field)
        if field in _NAMED_BY:
            found += list(_in_list(field, then or [], now))
        elif then != now and (then or now not in (None, [])):
            found.append({"field": field, "before": then, "after": now})
    return found


def _in_list(field: str, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    name = _NAMED_BY[field]
    then = {entry[name]: entry for entry in before}
    now = {entry[name]: entry for entry in after}
    for key in (*then, *(key for key in now if key not in then)):
        old, new = then.get(key), now.get(key)
        if old is None or new is None:
            yield {"field": f"{field}[{key}]", "before": old, "after": new}
            continue
        for part, value in new.items():
            if old[part] != value:
                yield {"field": f"{field}[{key}].{part}", "before": old[part], "after": value}
