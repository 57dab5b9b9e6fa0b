"""What can be done with an order in each status. `decide` refuses by this table, and `allowed_actions` shows it, so
that a front-end never offers what would be refused."""

from __future__ import annotations

from schemas.order import Order, OrderStatus

S = OrderStatus

# action → the statuses it is possible from. A shipped order can't be cancelled: SHIPPED is not in the row.
POSSIBLE: dict[str, frozenset[str]] = {
    "modify": frozenset({S.DRAFT}),
    "submit": frozenset({S.DRAFT}),
    "cancel": frozenset({S.DRAFT, S.PENDING_PAYMENT, S.PAYMENT_CONFIRMED, S.PROCESSING}),
}


def allowed_actions(order: Order) -> tuple[str, ...]:
    """The actions that the order's status allows, in a stable order."""
    return tuple(action for action, statuses in POSSIBLE.items() if order.status in statuses)
