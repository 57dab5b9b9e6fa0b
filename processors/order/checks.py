"""What every rule asks first: whose order it is, which version, what its status allows, and is there such a line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from processors.order.actions import POSSIBLE, allowed_actions
from schemas.base import Payload
from schemas.order import Line, Order
from schemas.replies import Rejection

Decision = Sequence[Payload] | Rejection


def may_touch(actor: str, order: Order) -> bool:
    """Customers reach their own orders only; to others an order does not exist."""
    kind, _, name = actor.partition(":")
    return kind != "customer" or name == order.customer_id


def already_there(order: Order) -> Rejection:
    return Rejection(type="order-exists", detail=f"Order {order.order_id} exists already.")


def version_mismatch(order: Order, expected: int) -> Rejection:
    return Rejection(
        type="version-mismatch",
        status=412,
        field="If-Match",
        detail=f"The order is at version {order.version}, not at {expected}.",
        extra={"version": str(order.version)},
    )


def impossible(order: Order, action: str, actor: str) -> Rejection | None:
    """409 cannot-ACTION, or None when the status allows the action."""
    if order.status in POSSIBLE[action]:
        return None
    return not_now(order, actor, f"cannot-{action}", f"To {action} is not possible while an order is {order.status}")


def not_now(
    order: Order,
    actor: str,
    type: str,
    why: str,
    *,
    field: str | None = None,
    over: str | None = None,
    extra: Mapping[str, str] | None = None,
) -> Rejection:
    """409: why not, the order's status, and what the actor can do with it instead. `over` is an action that would be
    among that as far as the order alone tells, but for which time or policy leaves no room any more."""
    staff = not actor.startswith("customer:")
    possible = ", ".join(action for action in allowed_actions(order, staff) if action != over) or "nothing"
    return Rejection(
        type=type,
        field=field,
        detail=f"{why}; possible now: {possible}.",
        extra={**(extra or {}), "status": order.status, "allowed_actions": possible},
    )


def edit_pending(order: Order, actor: str) -> Rejection | None:
    """One change at a time: the rejection while an edit waits for stock or money."""
    if order.edit is None:
        return None
    why = f"A change of this order ({order.edit.kind}) is under way; only after it can there be another one"
    return not_now(order, actor, "edit-pending", why, extra={"edit_id": order.edit.edit_id})


def order_held(order: Order, actor: str) -> Rejection | None:
    """The rejection while the order is held."""
    if order.hold is None:
        return None
    return not_now(order, actor, "order-held", "The order is held for a review; it goes on once it is released")


def find_line(order: Order, line_id: str) -> Line | Rejection:
    for line in order.lines:
        if line.line_id == line_id:
            return line
    return Rejection(type="unknown-line", status=404, field="line_id", detail=f"The order has no line {line_id}.")
