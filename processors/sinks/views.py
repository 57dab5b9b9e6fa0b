"""What the sink fills: each view's table, and which messages become its rows, how."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from schemas.base import Envelope, Event, Message
from schemas.order import OrderState

from . import audit_rows, order_rows, rows, stock_rows

Make = Callable[[Envelope, bytes, int, rows.Open], list[Any]]
"""(message, its raw value, the broker's milliseconds, opener of envelopes) → rows. ValueError: poison."""


@dataclass(frozen=True, slots=True)
class View:
    name: str
    table: str
    """With its database."""
    row: type[Any]
    """Its fields are the columns."""
    identity: tuple[str, ...]
    """Rows that are the same in these columns replace each other, the highest version wins."""
    sources: Mapping[str, Make]
    """By topic."""
    relaxed: bool = False
    """Nobody waits for it: its rows are written once a second, in larger inserts."""

    @property
    def columns(self) -> tuple[str, ...]:
        fields: tuple[str, ...] = self.row._fields
        return fields

    @property
    def personal(self) -> bool:
        """Whether it holds personal data in clear."""
        return self.table.startswith("personal.")

    @property
    def replaced(self) -> bool:
        """Whether a row is replaced by one of a higher version; else rows that replace each other are the same."""
        return "version" in self.columns and "version" not in self.identity


def _of_event(make: Callable[[Event[Any], int], list[Any]]) -> Make:
    return lambda message, _, at, __: make(_event(message), at)


def _of_state(make: Callable[[Message[OrderState], int], list[Any]]) -> Make:
    return lambda message, _, at, __: make(_state(message), at)


def _of_message(make: Callable[[Message[Any], int], list[Any]]) -> Make:
    return lambda message, _, at, __: make(_message(message), at)


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


_SUMMARIES = _of_state(order_rows.summary_rows)

VIEWS = {
    view.name: view
    for view in (
        View(
            "order_events",
            "oms.order_events",
            rows.OrderEventRow,
            ("order_id", "version"),
            {"order.events": lambda message, raw, at, _: rows.order_events_rows(_event(message), raw, at)},
        ),
        View("orders", "oms.orders", rows.OrderRow, ("order_id",), {"order.states": _of_state(rows.orders_rows)}),
        View(
            "order_summaries",
            "oms.order_summaries",
            order_rows.SummaryRow,
            ("order_id",),
            {"order.states": _SUMMARIES},
        ),
        View(
            "customer_orders",
            "oms.customer_orders",
            order_rows.SummaryRow,
            ("order_id",),
            {"order.states": _SUMMARIES},
        ),
        View(
            "personal",
            "personal.addresses",
            rows.AddressRow,
            ("order_id", "kind"),
            {"order.states": lambda message, _, at, opener: rows.personal_rows(_state(message), at, opener)},
        ),
        View(
            "order_lines",
            "oms.order_lines",
            order_rows.LineRow,
            ("order_id", "line_id"),
            {"order.states": _of_state(order_rows.line_rows)},
            relaxed=True,
        ),
        View(
            "payments",
            "oms.payments",
            order_rows.PaymentRow,
            ("order_id", "attempt_id"),
            {"order.states": _of_state(order_rows.payment_rows)},
            relaxed=True,
        ),
        View(
            "refunds",
            "oms.refunds",
            order_rows.RefundRow,
            ("order_id", "refund_id"),
            {"order.states": _of_state(order_rows.refund_rows)},
            relaxed=True,
        ),
        View(
            "shipments",
            "oms.shipments",
            order_rows.ShipmentRow,
            ("order_id", "shipment_id"),
            {"order.states": _of_state(order_rows.shipment_rows)},
            relaxed=True,
        ),
        View(
            "returns",
            "oms.returns",
            order_rows.ReturnRow,
            ("order_id", "rma", "line_id"),
            {"order.states": _of_state(order_rows.return_rows)},
            relaxed=True,
        ),
        View(
            "stock",
            "oms.stock",
            stock_rows.StockRow,
            ("sku", "pool"),
            {"inventory.levels": _of_message(stock_rows.stock_rows)},
            relaxed=True,
        ),
        View(
            "stock_ledger",
            "oms.stock_ledger",
            stock_rows.LedgerRow,
            ("sku", "pool", "version"),
            {"inventory.events": _of_message(stock_rows.ledger_rows)},
            relaxed=True,
        ),
        View(
            "audit",
            "oms.audit",
            audit_rows.AuditRow,
            ("id",),
            {
                "order.events": _of_event(audit_rows.audit_of_order),
                "inventory.events": _of_message(audit_rows.audit_of_stock),
                "promotion.events": _of_message(audit_rows.audit_of_promotion),
                "catalog.events": _of_message(audit_rows.audit_of_product),
                "customer.events": _of_message(audit_rows.audit_of_preferences),
                "exceptions": _of_message(audit_rows.audit_of_exception),
            },
            relaxed=True,
        ),
        View(
            "exceptions",
            "oms.exceptions",
            rows.ExceptionRow,
            ("exception_id", "message_id"),
            {"exceptions": _of_message(rows.exceptions_rows)},
            relaxed=True,
        ),
        View(
            "notifications",
            "oms.notifications",
            rows.NotificationRow,
            ("order_id", "event_id", "channel"),
            {"notification.events": _of_message(rows.notifications_rows)},
            relaxed=True,
        ),
    )
}


class Making:
    """A topic's messages → rows in some views, all of them made of it. What two views have in common is made once."""

    def __init__(self, views: Iterable[View], topic: str, rows: Mapping[str, list[Any]]) -> None:
        """`rows`: by view; they are added to."""
        shared: dict[Make, list[list[Any]]] = {}
        for view in views:
            shared.setdefault(view.sources[topic], []).append(rows[view.name])
        self._makes = list(shared.items())

    def add(self, message: Envelope, raw: bytes, appended_at: int, opener: rows.Open) -> None:
        """The message's rows, of all views or, when it raises, of none."""
        made = [(make(message, raw, appended_at, opener), lists) for make, lists in self._makes]
        for found, lists in made:
            for rows_of_view in lists:
                rows_of_view += found


def newest(view: View, found: list[Any]) -> list[Any]:
    """Of rows that replace each other the one that stays, so that it alone travels."""
    if not view.replaced:
        return found
    identity = attrgetter(*view.identity)
    kept: dict[Any, Any] = {}
    for row in found:
        key = identity(row)
        before = kept.get(key)
        if before is None or row.version >= before.version:
            kept[key] = row
    return list(kept.values())
