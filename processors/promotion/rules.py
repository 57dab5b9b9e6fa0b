"""A promotion and who uses it: pure rules.

Each order holds a promotion or does not; the newest version of the order that said something about it decides, so
that redeem and release may come in any order. A use is given as long as there is one left: in all, and for the
customer. When it may be used in time is priced by [order], which knows when the order was placed.
"""

from __future__ import annotations

from schemas.base import Model
from schemas.order import PromotionTerms


class Promotion(Model):
    """`used`: how many orders hold it. `limit`: in all; None: no limit."""

    terms: PromotionTerms
    limit: int | None = None
    limit_per_customer: int | None = None
    used: int = 0


class Use(Model):
    """What an order has of it. `order_version` is that of the newest command accepted; not `held` after a release,
    which is a tombstone when it came first (`customer_id`: None)."""

    customer_id: str | None
    order_version: int
    held: bool


class Done(Model):
    """`change`: what it adds to the uses; 0 for a repeat."""

    use: Use
    change: int = 0


class Refused(Model):
    reason: str


def put(
    before: Promotion | None, terms: PromotionTerms, limit: int | None, limit_per_customer: int | None
) -> Promotion:
    """Defined or changed, with the next version. What is used stays used, also above a lower limit."""
    version = 1 if before is None else before.terms.version + 1
    return Promotion(
        terms=terms.model_copy(update={"version": version}),
        limit=limit,
        limit_per_customer=limit_per_customer,
        used=0 if before is None else before.used,
    )


def redeem(
    promotion: Promotion | None, found: Use | None, used_by_customer: int, customer_id: str, order_version: int
) -> Done | Refused:
    """The order uses it. A refusal leaves everything as it was."""
    if found is not None and found.held:
        if order_version < found.order_version:
            return Refused(reason="stale")
        return Done(use=found.model_copy(update={"order_version": order_version}))
    if found is not None and order_version <= found.order_version:
        return Refused(reason="released")
    if promotion is None:
        return Refused(reason="unknown")
    if not promotion.terms.active:
        return Refused(reason="inactive")
    if promotion.limit is not None and promotion.used >= promotion.limit:
        return Refused(reason="used_up")
    if promotion.limit_per_customer is not None and used_by_customer >= promotion.limit_per_customer:
        return Refused(reason="customer_limit")
    return Done(use=Use(customer_id=customer_id, order_version=order_version, held=True), change=1)


def release(found: Use | None, order_version: int) -> Done | Refused:
    """The order uses it no more; under one version with a redemption the release wins. Comes it first, it stays as a
    tombstone."""
    if found is None:
        return Done(use=Use(customer_id=None, order_version=order_version, held=False))
    if not found.held:
        return Done(use=found.model_copy(update={"order_version": max(order_version, found.order_version)}))
    if order_version < found.order_version:
        return Refused(reason="stale")
    return Done(use=found.model_copy(update={"order_version": order_version, "held": False}), change=-1)
