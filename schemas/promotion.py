"""The language of promotions. Keyed by promo code; results go to the placement saga, keyed by order."""

from __future__ import annotations

from schemas.base import Family, Message, Payload
from schemas.order import PromotionTerms

Family("promotion.commands", Message)
Family("promotion.events", Message)
Family("promotion.results", Message)
Family("promotion.levels", Message)


class PutPromotion(Payload, family="promotion.commands"):
    """Staff defines a promotion, or changes it. Limits: uses in all, and of each customer; None: no limit."""

    terms: PromotionTerms
    limit: int | None = None
    limit_per_customer: int | None = None
    body_hash: str | None = None


class RedeemPromotion(Payload, family="promotion.commands"):
    """An order uses the code; each order counts once. `order_version` is that of the order that caused this."""

    code: str
    customer_id: str
    order_version: int


class ReleasePromotion(Payload, family="promotion.commands"):
    """The use is given back. Comes it first, it leaves a tombstone that refuses the redemption."""

    code: str
    order_version: int


class PromotionLevel(Payload, family="promotion.levels"):
    """A promotion as it is now. `used` counts the uses that orders hold."""

    terms: PromotionTerms
    limit: int | None = None
    limit_per_customer: int | None = None
    used: int = 0


class PromotionChanged(Payload, family="promotion.events"):
    """The ledger of a code. kind: put | redeemed | released; `used` is what is used afterwards. Of one that was put:
    what it is now, and what it was if there was one."""

    kind: str
    code: str
    customer_id: str | None = None
    used: int
    limit: int | None = None
    before: PromotionLevel | None = None
    after: PromotionLevel | None = None


class PromotionRedeemed(Payload, family="promotion.results"):
    code: str
    order_version: int


class PromotionRefused(Payload, family="promotion.results"):
    """reason: unknown | inactive | used_up | customer_limit | released (a release came first) | stale."""

    code: str
    reason: str
    order_version: int


class PromotionReleased(Payload, family="promotion.results"):
    code: str
    order_version: int
