"""What is asked of stock, promotions and scoring: whatever is new in a placement. Whatever is gone from it is given
back, unless it was refused and so holds nothing."""

from __future__ import annotations

from typing import TypeVar

from processors.placement.model import POOL, Cause, Need, Placement, Score, Send, Use
from schemas import events as e
from schemas.base import Event, Instant
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
    """Each aspect of the order, or of an edit that costs more, is scored where everything about its subject comes
    together."""
    if not isinstance(cause, Event):
        return []
    match cause.data:
        case e.OrderSubmitted(totals=totals) as placed:
            return [_score(x, after, totals.total, placed, cause.occurred_at) for x in after.scores]
        case e.OrderEditRequested(edit=edit) as changed if after.edit is not None:
            return [_score(x, after, edit.totals.total, changed, cause.occurred_at) for x in after.edit.scores]
        case _:
            return []


def _score(
    asked: Score, after: Placement, amount: int, goes: e.OrderSubmitted | e.OrderEditRequested, at: Instant
) -> Send:
    shipping, billing = goes.shipping_address, goes.billing_address
    country = shipping.country if shipping else ""
    fingerprint = shipping.fingerprint if shipping else None
    subject = f"customer:{after.customer_id}" if asked.aspect == "customer" else f"address:{fingerprint}"
    ask = ScoreOrder(
        aspect=asked.aspect,
        subject=subject,
        customer_id=after.customer_id,
        amount=amount,
        currency=after.currency,
        shipping_country=country,
        billing_country=billing.country if billing else country,
        submitted_at=at,
        order_version=asked.version,
    )
    return Send("fraud.commands", f"score:{asked.aspect}:{asked.version}", ask, key=subject)
