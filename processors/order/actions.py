"""What can be done with an order. `decide` refuses by the table of statuses, and `allowed_actions` shows what would be
accepted now, so that a front-end never offers what would be refused."""

from __future__ import annotations

from schemas.order import Order, OrderStatus

S = OrderStatus

# action → the statuses it is possible from. A shipped order can't be cancelled: SHIPPED is not in the row.
POSSIBLE: dict[str, frozenset[str]] = {
    "modify": frozenset({S.DRAFT, S.PENDING_PAYMENT, S.PAYMENT_CONFIRMED}),
    "submit": frozenset({S.DRAFT}),
    "pay": frozenset({S.PENDING_PAYMENT}),
    "cancel": frozenset({S.DRAFT, S.PENDING_PAYMENT, S.PAYMENT_CONFIRMED, S.PROCESSING}),
    "return": frozenset({S.DELIVERED, S.REFUND_REQUESTED}),
    "survey": frozenset({S.DELIVERED, S.REFUND_REQUESTED, S.REFUNDED}),
    "hold": frozenset({S.PENDING_PAYMENT, S.PAYMENT_CONFIRMED}),
    "release": frozenset({S.PENDING_PAYMENT, S.PAYMENT_CONFIRMED}),
    "refund": frozenset({S.PAYMENT_CONFIRMED, S.PROCESSING, S.SHIPPED, S.DELIVERED, S.REFUND_REQUESTED}),
}
BY_STAFF = frozenset({"hold", "release", "refund"})
BY_CUSTOMER = frozenset({"survey"})


def allowed_actions(order: Order, staff: bool = False) -> tuple[str, ...]:
    """The actions that would be accepted now, in a stable order, as far as the order alone tells: what depends on
    policy or on the time (the modification window, the return window) is not looked at."""
    others = BY_CUSTOMER if staff else BY_STAFF
    return tuple(
        action
        for action, statuses in POSSIBLE.items()
        if order.status in statuses and action not in others and _ready(order, action, staff)
    )


def _ready(order: Order, action: str, staff: bool) -> bool:
    match action:
        case "modify":
            return order.edit is None and (staff or order.hold is None)
        case "pay":
            attempts = [p for p in order.payments if p.purpose == "order"]
            return order.hold is None and bool(attempts) and attempts[-1].status == "declined"
        case "cancel":
            return not any(line.shipped for line in order.lines)
        case "return":
            return _returnable(order) > 0
        case "survey":
            return order.survey is None
        case "hold":
            return order.hold is None
        case "release":
            return order.hold is not None
        case "refund":
            return order.captured > order.refunded
        case _:
            return True


def _returnable(order: Order) -> int:
    """Delivered units that have not come back and are in no open return."""
    coming = sum(item.quantity for r in order.returns if r.open and r.status != "inspected" for item in r.items)
    return sum(line.delivered - line.returned for line in order.lines) - coming
