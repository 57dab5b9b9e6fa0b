"""What the sink fills: each view's table, and the topic whose messages become its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from schemas.base import Envelope, Event, Message
from schemas.order import OrderState

from . import rows


@dataclass(frozen=True, slots=True)
class View:
    name: str
    database: str
    table: str
    topic: str
    columns: tuple[str, ...]
    identity: Callable[[Any], Any]
    """Rows of the same identity replace each other, the highest version wins."""
    make: Callable[[Envelope, bytes, int, rows.Open], list[Any]]
    """(message, its raw value, the broker's milliseconds, opener of envelopes) → rows. ValueError: poison."""


def _event(message: Envelope) -> Event[Any]:
    if not isinstance(message, Event):
        raise ValueError(f"a {type(message.data).__name__} is no event of an order")
    return message


def _state(message: Envelope) -> Message[OrderState]:
    if not isinstance(message.data, OrderState) or not isinstance(message, Message):
        raise ValueError(f"a {type(message.data).__name__} is no state of an order")
    return message


def _message(message: Envelope) -> Message[Any]:
    if not isinstance(message, Message):
        raise ValueError(f"a {type(message.data).__name__} is no message of this topic")
    return message


VIEWS = {
    view.name: view
    for view in (
        View(
            "order_events",
            "oms",
            "order_events",
            "order.events",
            rows.OrderEventRow._fields,
            lambda row: (row.order_id, row.version),
            lambda message, raw, at, _: rows.order_events_rows(_event(message), raw, at),
        ),
        View(
            "orders",
            "oms",
            "orders",
            "order.states",
            rows.OrderRow._fields,
            lambda row: row.order_id,
            lambda message, _, at, __: rows.orders_rows(_state(message), at),
        ),
        View(
            "customer_orders",
            "oms",
            "customer_orders",
            "order.states",
            rows.OrderHead._fields,
            lambda row: row.order_id,
            lambda message, _, at, __: rows.customer_orders_rows(_state(message), at),
        ),
        View(
            "personal",
            "personal",
            "addresses",
            "order.states",
            rows.AddressRow._fields,
            lambda row: (row.order_id, row.kind),
            lambda message, _, at, opener: rows.personal_rows(_state(message), at, opener),
        ),
        View(
            "exceptions",
            "oms",
            "exceptions",
            "exceptions",
            rows.ExceptionRow._fields,
            lambda row: (row.exception_id, row.message_id),
            lambda message, _, at, __: rows.exceptions_rows(_message(message), at),
        ),
        View(
            "notifications",
            "oms",
            "notifications",
            "notification.events",
            rows.NotificationRow._fields,
            lambda row: (row.order_id, row.event_id, row.channel),
            lambda message, _, at, __: rows.notifications_rows(_message(message), at),
        ),
    )
}


def newest(view: View, found: list[Any]) -> list[Any]:
    """Of rows that replace each other the one that stays, so that it alone travels."""
    kept: dict[Any, Any] = {}
    for row in found:
        identity = view.identity(row)
        before = kept.get(identity)
        if before is None or row.version >= before.version:
            kept[identity] = row
    return list(kept.values())
