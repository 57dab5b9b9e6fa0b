"""What is asked of stock, promotions and scoring: whatever is new in a placement. Whatever is gone from it is given
back, unless it was refused and so holds nothing."""

from __future__ import annotations

from typing import TypeVar

from processors.placement.model import POOL, Cause, Need, Placement, Send, Use
from schemas import events as e
from schemas.base import Event
from schemas.fraud import ScoreOrder
from schemas.inventory import ReleaseStock, ReserveStock
from schemas.promotion import RedeemPromotion, ReleasePromotion

Asked = TypeVar("Asked", Need, Use)


def stock(before: Placement | None, after: Placement) -> list[Send]:
    """A release is for good: the id of a line that is gone is never used again."""
    new, gone = _compared(before.needs if before else (), after.needs)
    return [*map(_reserve, new), *(_release(need, after.version) for need in gone)]


def promotions(before: Placement | None, after: Placement) -> list[Send]:
    new, gone = _compared(before.uses if before else (), after.uses)
    return [*(_redeem(use, after) for use in new), *(_give_back(use, after.version) for use in gone)]


def _compared(before: tuple[Asked, ...], after: tuple[Asked, ...]) -> tuple[list[Asked], list[Asked]]:
    """Those that are new or asked anew, and those that are gone."""
    if before is after:
        return [], []
    old = {_name(x): x for x in before}
    names = {_name(x) for x in after}
    new = [x for x in after if _name(x) not in old or old[_name(x)].version != x.version]
    return new, [x for x in before if _name(x) not in names and x.fate != "refused"]


def _name(asked: Need | Use) -> str:
    return asked.line_id if isinstance(asked, Need) else asked.code


def _reserve(need: Need) -> Send:
    ask = ReserveStock(
        line_id=need.line_id,
        sku=need.sku,
        pool=POOL,
        quantity=need.asked,
        order_version=need.version,
        backorder=need.backorder,
    )
    return Send("inventory.commands", f"reserve:{need.line_id}:{need.version}", ask, key=f"{need.sku}#{POOL}")


def _release(need: Need, version: int) -> Send:
    give_back = ReleaseStock(line_id=need.line_id, sku=need.sku, pool=POOL, order_version=version)
    return Send("inventory.commands", f"release:{need.line_id}:{version}", give_back, key=f"{need.sku}#{POOL}")


def _redeem(use: Use, placement: Placement) -> Send:
    ask = RedeemPromotion(code=use.code, customer_id=placement.customer_id, order_version=use.version)
    return Send("promotion.commands", f"redeem:{use.code}:{use.version}", ask, key=use.code)


def _give_back(use: Use, version: int) -> Send:
    give_back = ReleasePromotion(code=use.code, order_version=version)
    return Send("promotion.commands", f"give back:{use.code}:{version}", give_back, key=use.code)


def scores(after: Placement, cause: Cause) -> list[Send]:
    """Each aspect of the order is scored where everything about its subject comes together."""
    submitted = cause.data
    if not isinstance(submitted, e.OrderSubmitted) or not isinstance(cause, Event):
        return []
    shipping, billing = submitted.shipping_address, submitted.billing_address
    country = shipping.country if shipping else ""
    subjects = {
        "customer": f"customer:{submitted.customer_id}",
        "address": f"address:{shipping.fingerprint if shipping else None}",
    }
    return [
        Send(
            "fraud.commands",
            f"score:{asked.aspect}",
            ScoreOrder(
                aspect=asked.aspect,
                subject=subjects[asked.aspect],
                customer_id=after.customer_id,
                amount=submitted.totals.total,
                currency=after.currency,
                shipping_country=country,
                billing_country=billing.country if billing else country,
                submitted_at=cause.occurred_at,
            ),
            key=subjects[asked.aspect],
        )
        for asked in after.scores
    ]
