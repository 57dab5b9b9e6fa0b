"""Orders, events, products and stock as users see them. Amounts become {"amount": "129.90", "currency": "EUR"}."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, get_args

from pydantic import BaseModel

from gateway import times
from gateway.catalogue import Catalogue
from processors.order.actions import allowed_actions
from schemas import events as e
from schemas.address import Address
from schemas.base import Minor, Payload
from schemas.catalog import Product
from schemas.inventory import StockLevel
from schemas.money import to_text
from schemas.order import Edit, Hold, Line, Order, OrderStatus, Payment, Refund, Return, Shipment

OpenAddress = Callable[[Address | None, str], dict[str, Any] | None]
"""(address, the name of the field that holds the person's name) → the address in clear."""

# How a field of an event is known to be an amount.
_MINOR = get_args(Minor)[1].description
_HIDDEN = frozenset({"payment_token", "order"})  # the whole order has a place of its own


def order_json(order: Order, open_address: OpenAddress, staff: bool = False) -> dict[str, Any]:
    """An order, as replies and views have it, for its owner; what `staff` sees of it and can do with it is more."""

    def money(minor: int) -> dict[str, str]:
        return {"amount": to_text(minor, order.currency), "currency": order.currency}

    cancelled = order.status == OrderStatus.CANCELLED
    totals, cancellation = order.totals, order.cancellation
    return {
        "id": order.order_id,
        "number": order.number,
        "customer_id": order.customer_id,
        "status": order.status,
        "version": order.version,
        "currency": order.currency,
        "created_at": instant(order.created_at),
        "submitted_at": _instant(order.submitted_at),
        "updated_at": instant(order.updated_at),
        "items": [_line_json(line, money, cancelled) for line in order.lines],
        "subtotal": money(totals.subtotal),
        "discount": money(totals.discount),
        "tax": money(totals.tax),
        "shipping": money(totals.shipping),
        "total": money(totals.total),
        "shipping_address": open_address(order.shipping_address, "recipient_name"),
        "billing_address": open_address(order.billing_address, "name"),
        "shipping_method": order.shipping_method,
        "estimated_delivery": order.estimated_delivery,
        "incoterm": order.incoterm,
        "promo_codes": [applied.terms.code for applied in order.promotions] or list(order.promo_codes),
        "promotions": [
            {"code": applied.terms.code, "kind": applied.terms.kind, "amount": money(applied.amount)}
            for applied in order.promotions
        ],
        "payment_due_at": _instant(order.payment_due_at),
        "modifiable_until": _instant(order.modifiable_until),
        "edit": order.edit and _edit_json(order.edit, money),
        "payments": [_payment_json(payment, money) for payment in order.payments],
        "refunds": [_refund_json(refund, money) for refund in order.refunds],
        "shipments": [_shipment_json(shipment) for shipment in order.shipments],
        "returns": [return_json(returned, order.currency) for returned in order.returns],
        "holds": [_hold_json(order.hold, staff)] if order.hold else [],
        "delivered_at": _instant(order.delivered_at),
        "exchange_of": order.exchange_of,
        "survey": order.survey and {"score": order.survey.score, "comment": order.survey.comment},
        "imported": order.imported,
        "cancellation": None
        if cancellation is None
        else {"reason": cancellation.reason, "comment": cancellation.comment, "skus": cancellation.skus},
        "allowed_actions": allowed_actions(order, staff),
    }


MoneyJson = Callable[[int], dict[str, str]]


def _line_json(line: Line, money: MoneyJson, cancelled: bool) -> dict[str, Any]:
    return {
        "line_id": line.line_id,
        "product_id": line.product_id,
        "sku": line.sku,
        "name": line.name,
        "quantity": line.quantity,
        "unit_price": money(line.unit_price),
        "tax_included": line.tax_included,
        "discount": money(line.discount),
        "tax": money(line.tax),
        "line_total": money(line.line_total),
        "quantities": {
            "ordered": line.quantity,
            "cancelled": line.quantity - line.delivered if cancelled else line.cancelled,
            "shipped": line.shipped,
            "delivered": line.delivered,
            "returned": line.returned,
        },
    }


def _payment_json(payment: Payment, money: MoneyJson) -> dict[str, Any]:
    return {
        "attempt_id": payment.attempt_id,
        "amount": money(payment.amount),
        "purpose": payment.purpose,
        "status": payment.status,
        "provider_ref": payment.provider_ref,
        "code": payment.code,
        "captured": money(payment.taken),
        "refunded": money(payment.refunded),
        "expires_at": _instant(payment.expires_at),
    }


def _refund_json(refund: Refund, money: MoneyJson) -> dict[str, Any]:
    return {
        "refund_id": refund.refund_id,
        "attempt_id": refund.attempt_id,
        "amount": money(refund.amount),
        "status": refund.status,
        "reason": refund.reason,
        "rma": refund.rma,
        "items": [{**item.model_dump(), "amount": money(item.amount)} for item in refund.items],
        "shipping": money(refund.shipping),
        "provider_ref": refund.provider_ref,
    }


def _shipment_json(shipment: Shipment) -> dict[str, Any]:
    return {
        "shipment_id": shipment.shipment_id,
        "status": shipment.status,
        "items": [line.model_dump() for line in shipment.lines],
        "carrier": shipment.carrier,
        "tracking_number": shipment.tracking_number,
        "tracking_url": shipment.tracking_url,
        "estimated_delivery": shipment.estimated_delivery,
        "delivery_attempts": shipment.attempts,
        "shipped_at": _instant(shipment.shipped_at),
        "delivered_at": _instant(shipment.delivered_at),
    }


def _hold_json(hold: Hold, staff: bool) -> dict[str, Any]:
    """Why it is held is the shop's business: it would teach how to pass the fraud scoring."""
    shown = {"kind": hold.kind, "since": instant(hold.since)}
    if not staff:
        return shown
    return {**shown, "reason": hold.reason, "score": hold.score, "due_at": _instant(hold.due_at)}


def _edit_json(edit: Edit, money: MoneyJson) -> dict[str, Any]:
    return {
        "edit_id": edit.edit_id,
        "kind": edit.kind,
        "requested_by": edit.actor,
        "requested_at": instant(edit.requested_at),
        "reason": edit.reason,
        "line_id": edit.line_id,
        "sku": edit.sku,
        "quantity": edit.quantity,
        "code": edit.code,
        "total": money(edit.totals.total),
        "due": money(edit.due),
    }


def return_json(returned: Return, currency: str) -> dict[str, Any]:
    """A return (RMA). What is given back for an item is null until it was inspected."""
    items = [
        {
            "line_id": item.line_id,
            "sku": item.sku,
            "quantity": item.quantity,
            "reason": item.reason,
            "exchange_sku": item.exchange.sku if item.exchange else None,
            "condition": item.condition,
            "refund": None if item.refund is None else {"amount": to_text(item.refund, currency), "currency": currency},
            "restock": item.restock,
        }
        for item in returned.items
    ]
    return {
        "rma": returned.rma,
        "status": returned.status,
        "items": items,
        "requested_at": instant(returned.requested_at),
        "comment": returned.comment,
        "expires_at": _instant(returned.expires_at),
        "carrier": returned.carrier,
        "tracking_number": returned.tracking_number,
        "label_url": returned.label_url,
        "denied": returned.denied,
    }


def event_of_row(row: dict[str, Any]) -> Payload:
    """What the event says. KeyError when this version of ours does not know its type."""
    return e.EVENTS.payloads[row["type"]].model_validate_json(row["data"])


def event_json(
    row: dict[str, Any], data: Payload, currency: str, open_address: OpenAddress, staff: bool = False
) -> dict[str, Any]:
    """An event of the timeline; `row` is one of `order_events.sql`, `data` what it says, all of it to `staff` only."""
    shown = _present(data, currency, open_address)
    if not staff:
        shown = {name: value for name, value in shown.items() if name not in _for_staff(data)}
    return {
        "id": row["id"],
        "type": row["type"],
        "version": int(row["version"]),
        "occurred_at": instant(times.of(row["occurred_us"])),
        "actor": row["actor"],
        "correlation_id": row["correlation_id"],
        "causation_id": row["causation_id"],
        "data": shown,
    }


def _for_staff(data: Payload) -> frozenset[str]:
    """As in `_hold_json`."""
    match data:
        case e.OrderHeld():
            return frozenset({"reason", "score", "due_at"})
        case e.OrderEditFailed(reason="fraud"):
            return frozenset({"detail"})
        case _:
            return frozenset()


def addresses_in(value: Any) -> Iterator[Address]:
    """Every address in an event, so that their keys can be fetched before."""
    if isinstance(value, Address):
        yield value
    elif isinstance(value, BaseModel):
        for name in type(value).model_fields:
            yield from addresses_in(getattr(value, name))


def _present(model: BaseModel, currency: str, open_address: OpenAddress) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if name in _HIDDEN:
            continue
        if field.description == _MINOR and value is not None:
            shown[name] = {"amount": to_text(value, currency), "currency": currency}
        elif isinstance(value, Address):
            billing = "billing" in f"{type(model).__name__}.{name}".lower()
            shown[name] = open_address(value, "name" if billing else "recipient_name")
        elif isinstance(value, BaseModel):
            shown[name] = _present(value, currency, open_address)
        elif isinstance(value, tuple):
            shown[name] = [_present(v, currency, open_address) if isinstance(v, BaseModel) else v for v in value]
        elif isinstance(value, datetime):
            shown[name] = instant(value)
        else:
            shown[name] = value
    return shown


def product_json(product: Product, catalogue: Catalogue) -> dict[str, Any]:
    """A product; `available` is null when nobody ever counted it."""
    return {
        "sku": product.sku,
        "product_id": product.product_id,
        "name": product.name,
        "category": product.category,
        "tax_category": product.tax_category,
        "weight_grams": product.weight_grams,
        "prices": [
            {"amount": to_text(minor, currency), "currency": currency} for currency, minor in product.prices.items()
        ],
        "active": product.active,
        "hs_code": product.hs_code,
        "origin": product.origin,
        "backorder": product.backorder,
        "available": catalogue.available(product.sku),
    }


def stock_json(level: StockLevel) -> dict[str, Any]:
    """Units of one SKU in one pool."""
    return {
        "sku": level.sku,
        "pool": level.pool,
        "available": level.available,
        "reserved": level.reserved,
        "shipped": level.shipped,
        "version": level.version,
    }


def instant(at: datetime) -> str:
    """RFC 3339, UTC, with Z."""
    return at.isoformat().replace("+00:00", "Z")


def _instant(at: datetime | None) -> str | None:
    return None if at is None else instant(at)
