"""Messages → rows of the audit log: who did what to what, when, why, and what it was before and after. Pure.

Before and after are JSON. What an event does not say of the time before is not made up: the timeline of one order
(`GET /v1/orders/{id}/events`) folds it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from schemas import events as e
from schemas.base import Event, Message, Payload
from schemas.catalog import ProductChanged
from schemas.inventory import StockMoved
from schemas.notification import PreferencesChanged
from schemas.operations import ExceptionOpened, ExceptionResolved, ExceptionRetried
from schemas.promotion import PromotionChanged

from .rows import micros, version

BY_ORDERS = frozenset({"reserved", "released", "committed"})
"""Movements of stock that orders cause; the orders' own events tell of them."""
_BULKY = frozenset({"lines", "totals", "promotions", "payment_token", "reason", "comment", "order"})


class AuditRow(NamedTuple):
    id: str
    at: int
    subject: str
    subject_id: str
    version: int
    actor: str
    what: str
    why: str
    before: str
    after: str
    correlation_id: str
    causation_id: str
    appended_at: int


def audit_of_order(event: Event[Any], appended_at: int) -> list[AuditRow]:
    """One row an event."""
    before, after = _change(event.data)
    return [
        AuditRow(
            event.id,
            micros(event.occurred_at),
            "order",
            event.order_id,
            version(event),
            event.actor,
            type(event.data).__name__,
            _why(event.data),
            _json(before),
            _json(after),
            event.correlation_id,
            event.causation_id,
            appended_at,
        )
    ]


def audit_of_stock(message: Message[Any], appended_at: int) -> list[AuditRow]:
    """One row for a movement that no order caused: counted, lost, come back, written off."""
    moved = message.data
    if not isinstance(moved, StockMoved):
        raise ValueError(f"a {type(moved).__name__} is no movement of stock")
    if moved.kind in BY_ORDERS:
        return []
    counts = {"on_hand": moved.on_hand, "reserved": moved.reserved, "shipped": moved.shipped}
    before = {**counts, "on_hand": moved.on_hand - moved.quantity} if moved.kind == "adjusted" else None
    after = {**counts, "quantity": moved.quantity, "line_id": moved.line_id}
    subject = ("stock", f"{moved.sku}#{moved.pool}", moved.version)
    return [_of_message(message, subject, moved.kind, moved.reason or "", before, after, appended_at)]


def audit_of_promotion(message: Message[Any], appended_at: int) -> list[AuditRow]:
    """One row when staff defined or changed a promotion."""
    changed = message.data
    if not isinstance(changed, PromotionChanged):
        raise ValueError(f"a {type(changed).__name__} is no change of a promotion")
    if changed.kind != "put":
        return []
    before = changed.before.model_dump(mode="json") if changed.before else None
    # Those from before it was told say no more.
    after = changed.after.model_dump(mode="json") if changed.after else {"limit": changed.limit, "used": changed.used}
    return [_of_message(message, ("promotion", changed.code, 0), changed.kind, "", before, after, appended_at)]


def audit_of_product(message: Message[Any], appended_at: int) -> list[AuditRow]:
    """One row: staff put it on sale, or changed it."""
    changed = message.data
    if not isinstance(changed, ProductChanged):
        raise ValueError(f"a {type(changed).__name__} is no change of a product")
    before = changed.before.model_dump() if changed.before else None
    subject = ("product", changed.after.sku, 0)
    return [_of_message(message, subject, "put", "", before, changed.after.model_dump(), appended_at)]


def audit_of_preferences(message: Message[Any], appended_at: int) -> list[AuditRow]:
    """One row: a customer is to be told otherwise; no address of theirs is in it."""
    changed = message.data
    if not isinstance(changed, PreferencesChanged):
        raise ValueError(f"a {type(changed).__name__} is no change of preferences")
    before = changed.before.model_dump() if changed.before else None
    after = {**changed.after.model_dump(), "new_contacts": changed.new_contacts}
    subject = ("customer", changed.customer_id, 0)
    return [_of_message(message, subject, "preferences", "", before, after, appended_at)]


def audit_of_exception(message: Message[Any], appended_at: int) -> list[AuditRow]:
    """One row when it was sent again or resolved; that it came up is nobody's doing."""
    match message.data:
        case ExceptionOpened():
            return []
        case ExceptionRetried(exception_id=exception_id):
            what, why = "retried", ""
        case ExceptionResolved(exception_id=exception_id, resolution=resolution):
            what, why = "resolved", resolution
        case other:
            raise ValueError(f"a {type(other).__name__} is no message about an exception")
    after = {"order_id": message.order_id}
    return [_of_message(message, ("exception", exception_id, 0), what, why, None, after, appended_at)]


def _of_message(
    message: Message[Any],
    subject: tuple[str, str, int],
    what: str,
    why: str,
    before: dict[str, Any] | None,
    after: dict[str, Any],
    appended_at: int,
) -> AuditRow:
    return AuditRow(
        message.id,
        micros(message.at),
        *subject,
        message.actor,
        what,
        why,
        _json(before),
        _json(after),
        message.correlation_id,
        message.causation_id or "",
        appended_at,
    )


def _change(data: Payload) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """(before, after) as the event itself says it."""
    match data:
        case e.OrderLineItemQuantityChanged():
            at = {"line_id": data.line_id, "sku": data.sku}
            return {**at, "quantity": data.before}, {**at, "quantity": data.quantity}
        case e.OrderShippingAddressChanged() | e.OrderBillingAddressChanged():
            return data.before.model_dump() if data.before else None, data.address.model_dump()
        case e.OrderShippingMethodChanged():
            return {"shipping_method": data.before}, {"shipping_method": data.shipping_method}
        case e.OrderLineItemRemoved():
            return {"line_id": data.line_id, "sku": data.sku, "quantity": data.quantity}, {}
        case e.OrderPromotionRemoved():
            return {"code": data.code}, {}
        case e.OrderEditCompleted():
            return data.before.model_dump(), data.after.model_dump()
        case _:
            return None, data.model_dump(mode="json", exclude=set(_BULKY), exclude_none=True)


def _why(data: Payload) -> str:
    said = vars(data)  # a model takes its time to say that it has no such attribute
    return ": ".join(text for name in ("reason", "comment") if (text := said.get(name)))


def _json(value: dict[str, Any] | None) -> str:
    return "" if value is None else orjson.dumps(value).decode()
