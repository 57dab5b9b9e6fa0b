"""How suspicious an order is, from one side: pure rules by the numbers of `policy.fraud`.

A customer who orders often in a short time, orders for much money, or has the goods sent to another country than
that of the bill; an address that much is sent to. What a score leads to is the placement saga's and the policy's
business.
"""

from __future__ import annotations

from bisect import insort

from schemas.base import Instant, Model
from schemas.fraud import OrderScored, ScoreOrder
from schemas.policy import FraudRules

HIGHEST = 100


class Velocity(Model):
    """When the subject's latest orders were submitted, oldest first: no more of them than it takes to see that there
    are too many."""

    times: tuple[Instant, ...] = ()


def score(before: Velocity, order: ScoreOrder, rules: FraudRules) -> tuple[Velocity, OrderScored]:
    """The order's score on this side, and the subject's orders with this one among them. ValueError for an aspect that
    nobody knows."""
    if order.aspect not in ("customer", "address"):
        raise ValueError(f"there is no aspect {order.aspect!r}")
    found: list[tuple[str, int]] = []
    by_customer = order.aspect == "customer"
    often = rules.customer_orders if by_customer else rules.address_orders
    velocity = _with(before, order.submitted_at, often, rules)
    if _in_window(velocity, order.submitted_at, rules) > often:
        found.append(
            ("customer_velocity", rules.customer_velocity_score)
            if by_customer
            else ("address_velocity", rules.address_velocity_score)
        )
    # An order has one amount and two countries: only one side looks at them, or they would count twice.
    if by_customer and (limit := rules.amounts.get(order.currency)) is not None and order.amount > limit:
        found.append(("amount", rules.amount_score))
    if by_customer and order.shipping_country != order.billing_country:
        found.append(("mismatch", rules.mismatch_score))
    total = min(HIGHEST, sum(points for _, points in found))
    reasons = tuple(reason for reason, _ in found)
    return velocity, OrderScored(aspect=order.aspect, score=total, reasons=reasons, order_version=order.order_version)


def _with(before: Velocity, at: Instant, often: int, rules: FraudRules) -> Velocity:
    times = list(before.times)
    insort(times, at)
    newest = times[-1]
    times = [time for time in times if time > newest - rules.velocity_window]
    return Velocity(times=tuple(times[-(often + 1) :]))


def _in_window(velocity: Velocity, at: Instant, rules: FraudRules) -> int:
    """Orders in the window that ends with this one. Sagas don't keep the order of submissions, so that there may be
    later ones already, which don't count for it."""
    return sum(at - rules.velocity_window < time <= at for time in velocity.times)
