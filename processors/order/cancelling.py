"""The end of an order before it was fulfilled, whole or of some of its units."""

from __future__ import annotations

from processors.order import fulfilling, refunding
from processors.order.checks import Decision, edit_pending, impossible, not_now
from schemas import commands as c
from schemas import events as e
from schemas.base import Payload
from schemas.order import CancellationReason, Order, OrderStatus, ShipmentLine
from schemas.replies import Rejection

BY_PEOPLE = {CancellationReason.CUSTOMER_REQUEST, CancellationReason.CHANGED_MIND}
# Where units can be cancelled one by one. Before, the lines are changed instead: nothing was paid for them.
BY_UNIT = frozenset({OrderStatus.PAYMENT_CONFIRMED, OrderStatus.PROCESSING})


def cancel_order(order: Order, cancel: c.CancelOrder, actor: str) -> Decision:
    if problem := _reason_problem(cancel.reason, actor) or impossible(order, "cancel", actor):
        return problem
    if cancel.items:
        return _cancel_items(order, cancel, actor)
    if _something_shipped(order):
        why = "Something of the order was shipped already; what was not can still be cancelled by naming it (items)"
        return not_now(order, actor, "cannot-cancel", why)
    return end(order, cancel.reason, cancel.comment, cancel.skus)


def end(order: Order, reason: str, comment: str | None = None, skus: tuple[str, ...] = ()) -> list[Payload]:
    """The whole order is cancelled: what was captured is refunded, what was only reserved is given free."""
    return [
        e.OrderCancelled(reason=reason, comment=comment, skus=skus),
        *refunding.refund_everything(order, "cancelled"),
        *fulfilling.voids(order),
    ]


def abandon_draft(order: Order, abandon: c.AbandonDraft) -> Decision:
    if order.status != OrderStatus.DRAFT or order.version != abandon.version:
        return []
    return end(order, CancellationReason.ABANDONED)


def _cancel_items(order: Order, cancel: c.CancelOrder, actor: str) -> Decision:
    """Units that have not left. With all that the order still has it is cancelled whole, shipping and all."""
    wanted = _wanted(order, cancel)
    if isinstance(wanted, Rejection):
        return wanted
    rest = {line.line_id: line.to_ship for line in order.lines if line.to_ship > 0}
    if wanted == rest and not _something_shipped(order):
        return end(order, cancel.reason, cancel.comment, cancel.skus)
    if order.status not in BY_UNIT:
        why = f"Single units of an order that is {order.status} are not cancelled but taken out by changing its lines"
        return not_now(order, actor, "cannot-cancel", why, field="items")
    if pending := edit_pending(order, actor):
        return pending
    lines = [
        ShipmentLine(line_id=line.line_id, sku=line.sku, quantity=wanted[line.line_id])
        for line in order.lines
        if line.line_id in wanted
    ]
    return fulfilling.cancel_units(order, lines, cancel.reason, comment=cancel.comment)


def _wanted(order: Order, cancel: c.CancelOrder) -> dict[str, int] | Rejection:
    """line id → units. A line may be named more than once."""
    wanted: dict[str, int] = {}
    for i, item in enumerate(cancel.items):
        line = order.line(item.line_id)
        if line is None:
            return Rejection(
                type="unknown-line",
                status=422,
                field=f"items[{i}].line_id",
                detail=f"The order has no line {item.line_id}.",
            )
        wanted[line.line_id] = wanted.get(line.line_id, 0) + item.quantity
        if item.quantity < 1 or wanted[line.line_id] > line.to_ship:
            return Rejection(
                type="quantity-out-of-range",
                status=422,
                field=f"items[{i}].quantity",
                detail=f"Of line {line.line_id} {line.to_ship} units can be cancelled, not {wanted[line.line_id]}.",
            )
    return wanted


def _reason_problem(reason: str, actor: str) -> Rejection | None:
    if actor.startswith("customer:") and reason not in BY_PEOPLE:
        return Rejection(
            type="reason-not-allowed",
            status=422,
            field="reason",
            detail=f"A customer's reason is one of {', '.join(sorted(BY_PEOPLE))}.",
        )
    if reason not in set(CancellationReason):
        return Rejection(
            type="unknown-reason",
            status=422,
            field="reason",
            detail=f"There is no reason {reason!r}; there are {', '.join(CancellationReason)}.",
        )
    return None


def _something_shipped(order: Order) -> bool:
    return any(line.shipped for line in order.lines)
