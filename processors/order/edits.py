"""The fold of the events that change an order, in a draft and after it was placed."""

from __future__ import annotations

from typing import Any

from processors.order.attempts import settled, with_payment
from schemas import events as e
from schemas.order import AppliedPromotion, Order, Payment

Changes = (
    e.OrderLineItemAdded
    | e.OrderLineItemRemoved
    | e.OrderLineItemQuantityChanged
    | e.OrderShippingAddressChanged
    | e.OrderBillingAddressChanged
    | e.OrderShippingMethodChanged
    | e.OrderPromotionApplied
    | e.OrderPromotionRemoved
)
Facts = Changes | e.OrderEditRequested | e.OrderEditCompleted | e.OrderEditFailed


def changes(order: Order, fact: Facts) -> dict[str, Any]:
    """The fields of the order that the event changes."""
    match fact:
        case e.OrderBillingAddressChanged(address=address):
            return {"billing_address": address}
        case e.OrderEditRequested():
            return _requested(order, fact)
        case e.OrderEditCompleted():
            return _completed(order, fact)
        case e.OrderEditFailed(reason=reason):
            status = "declined" if reason == "payment_declined" else "superseded"
            attempt_id = order.edit.attempt_id if order.edit else None
            return {"edit": None, "payments": with_payment(order, attempt_id, {"status": status})}
        case _:
            priced = {"lines": fact.lines, "totals": fact.totals, **with_promotions(fact.promotions)}
            return {**priced, **_besides(order, fact)}


def with_promotions(promotions: tuple[AppliedPromotion, ...]) -> dict[str, Any]:
    return {"promotions": promotions, "promo_codes": tuple(p.terms.code for p in promotions)}


def _besides(order: Order, fact: Facts) -> dict[str, Any]:
    """What such a change changes besides lines, totals and promotions."""
    match fact:
        case e.OrderLineItemAdded(line_id=line_id):
            return {"last_line": _last_line(order, line_id)}
        case e.OrderShippingAddressChanged(address=address) as moved:
            return {
                "shipping_address": address,
                "estimated_delivery": moved.estimated_delivery or order.estimated_delivery,
                "incoterm": moved.incoterm,
            }
        case e.OrderShippingMethodChanged(shipping_method=method, estimated_delivery=eta):
            return {"shipping_method": method, "estimated_delivery": eta}
        case _:
            return {}


def _requested(order: Order, fact: e.OrderEditRequested) -> dict[str, Any]:
    """The id of a line that waits is used up: stock may be reserved under it already."""
    edit = fact.edit
    update: dict[str, Any] = {"edit": edit, "edits": order.edits + 1}
    if edit.kind == "add_item" and edit.line_id is not None:
        update["last_line"] = _last_line(order, edit.line_id)
    if edit.attempt_id is not None:
        attempt = Payment(attempt_id=edit.attempt_id, amount=fact.amount, status="requested", purpose="edit")
        update["payments"] = (*order.payments, attempt)
    return update


def _completed(order: Order, fact: e.OrderEditCompleted) -> dict[str, Any]:
    """An edit that never had to wait begins and ends here."""
    edits = order.edits + (1 if order.edit is None else 0)
    update: dict[str, Any] = {"edit": None, "edits": edits}
    if fact.attempt_id is not None:
        update["payments"] = with_payment(order, fact.attempt_id, settled(fact))
    return update


def _last_line(order: Order, line_id: str) -> int:
    return max(order.last_line, int(line_id.removeprefix("L")))
