"""What promotions take off: pure arithmetic on the terms that the gateway copied into the command.

All amounts here are in terms of catalogue prices: of what the customer sees, tax included or not. Promotions are
counted in a fixed order, whatever order they were asked for in: buy_x_get_y, then percentage, then fixed, each of what
those before it left, then free_shipping; within a kind by code.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from decimal import ROUND_HALF_UP, Decimal

from schemas.base import Instant, Model
from schemas.money import to_text
from schemas.order import AppliedPromotion, Line, PromotionTerms
from schemas.replies import Rejection

STACKING = ("buy_x_get_y", "percentage", "fixed", "free_shipping")


class Discounts(Model):
    """What the promotions take off together: of each line (in the lines' order), of shipping, and each of them alone
    (in the order they were given in)."""

    lines: tuple[int, ...]
    shipping: int
    promotions: tuple[AppliedPromotion, ...]


def evaluate(lines: Sequence[Line], currency: str, shipping: int, terms: Sequence[PromotionTerms]) -> Discounts:
    """A promotion that does not fit (too low a subtotal, no line that it is for, an exclusive one beside others) takes
    0 off. `shipping`: its price, and more than that is never taken off it, nor of a line more than its price."""
    left = [line.unit_price * line.quantity for line in lines]
    amounts = dict.fromkeys((t.code for t in terms), 0)
    shipping_left = shipping
    fitting = [t for t in terms if not _misfit(t, lines, currency) and not _clash(t, terms)]
    for promotion in sorted(fitting, key=lambda t: (STACKING.index(t.kind), t.code)):
        if promotion.kind == "free_shipping":
            amounts[promotion.code], shipping_left = shipping_left, 0
            continue
        off = _off(promotion, lines, left, currency)
        left = [rest - part for rest, part in zip(left, off, strict=True)]
        amounts[promotion.code] = sum(off)
    return Discounts(
        lines=tuple(line.unit_price * line.quantity - rest for line, rest in zip(lines, left, strict=True)),
        shipping=shipping - shipping_left,
        promotions=tuple(AppliedPromotion(terms=t, amount=amounts[t.code]) for t in terms),
    )


def problem(
    lines: Sequence[Line], currency: str, terms: Sequence[PromotionTerms], new: Collection[str], at: Instant
) -> Rejection | None:
    """Why the codes in `new` can't be had on these lines at this time, or None. `terms` are all of the order's; the
    field is `promo_codes[i]`, counted in them. The types: promotion-twice, promotion-inactive, promotion-not-started,
    promotion-expired, promotion-exclusive, promotion-minimum, promotion-no-match; all 409."""
    codes = [t.code for t in terms]
    for i, promotion in enumerate(terms):
        why: tuple[str, str] | None = None
        if promotion.code in codes[:i]:
            why = "promotion-twice", "the order has it already"
        elif promotion.code in new:
            why = _out_of_time(promotion, at) or _clash(promotion, terms) or _misfit(promotion, lines, currency)
        if why:
            return Rejection(
                type=why[0],
                field=f"promo_codes[{i}]",
                detail=f"Promotion {promotion.code} can't be had: {why[1]}.",
                extra={"code": promotion.code},
            )
    return None


def in_force(promotion: PromotionTerms, at: Instant) -> bool:
    """Whether it can be had at this time: active, begun, and not over."""
    return _out_of_time(promotion, at) is None


def spread(amount: int, weights: Sequence[int]) -> list[int]:
    """`amount` in proportion to `weights`, to the cent: by largest remainder, where they are equal to the first. No
    part is above its weight while `amount` is not above their sum."""
    total = sum(weights)
    if total == 0:
        return [0] * len(weights)
    parts = [amount * weight // total for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda i: -(amount * weights[i] % total))
    for i in by_remainder[: amount - sum(parts)]:
        parts[i] += 1
    return parts


def _fits(promotion: PromotionTerms, line: Line) -> bool:
    """SKUs and categories are one list: a line that either names is meant."""
    if not promotion.skus and not promotion.categories:
        return True
    return line.sku in promotion.skus or line.category in promotion.categories


def _off(promotion: PromotionTerms, lines: Sequence[Line], left: Sequence[int], currency: str) -> list[int]:
    """What it takes off each line, of what is left of its price."""
    weights = [rest if _fits(promotion, line) else 0 for line, rest in zip(lines, left, strict=True)]
    if promotion.kind == "buy_x_get_y":
        return [min(free, rest) for free, rest in zip(_free_units(promotion, lines), weights, strict=True)]
    if promotion.kind == "percentage":
        share = Decimal(sum(weights)) * Decimal(promotion.percent) / 100
        return spread(int(share.quantize(Decimal(1), ROUND_HALF_UP)), weights)
    return spread(min(promotion.amounts[currency], sum(weights)), weights)


def _free_units(promotion: PromotionTerms, lines: Sequence[Line]) -> list[int]:
    """The price of each line's free units. The units that fit stand in a row, the dearest first (of equal ones those
    of the first line); of each full group of buy + get in it the last `get` are free."""
    size = promotion.buy + promotion.get
    fitting = [i for i, line in enumerate(lines) if _fits(promotion, line)]
    full = sum(lines[i].quantity for i in fitting) // size * size

    def free_before(position: int) -> int:
        groups, rest = divmod(min(position, full), size)
        return groups * promotion.get + max(0, rest - promotion.buy)

    found = [0] * len(lines)
    position = 0
    for i in sorted(fitting, key=lambda i: -lines[i].unit_price):
        after = position + lines[i].quantity
        found[i] = lines[i].unit_price * (free_before(after) - free_before(position))
        position = after
    return found


def _out_of_time(promotion: PromotionTerms, at: Instant) -> tuple[str, str] | None:
    if not promotion.active:
        return "promotion-inactive", "it is switched off"
    if promotion.valid_from is not None and at < promotion.valid_from:
        return "promotion-not-started", f"it begins at {promotion.valid_from.isoformat()}"
    if promotion.valid_until is not None and at >= promotion.valid_until:
        return "promotion-expired", f"it ended at {promotion.valid_until.isoformat()}"
    return None


def _clash(promotion: PromotionTerms, terms: Sequence[PromotionTerms]) -> tuple[str, str] | None:
    for other in terms:
        if other.code != promotion.code and (promotion.exclusive or other.exclusive):
            return "promotion-exclusive", f"it can't be combined with {other.code}"
    return None


def _misfit(promotion: PromotionTerms, lines: Sequence[Line], currency: str) -> tuple[str, str] | None:
    """Minimums and fixed amounts are named by currency: in one that they don't name, the promotion does not exist."""
    if promotion.kind not in STACKING:
        return "promotion-no-match", f"its kind {promotion.kind!r} is not known here"
    minimums = promotion.minimum_subtotal
    if (minimums and currency not in minimums) or (promotion.kind == "fixed" and currency not in promotion.amounts):
        return "promotion-no-match", f"it is not for orders in {currency}"
    subtotal = sum(line.unit_price * line.quantity for line in lines)
    minimum = minimums.get(currency, 0)
    if subtotal < minimum:
        return "promotion-minimum", f"it needs a subtotal of {to_text(minimum, currency)} {currency}"
    units = sum(line.quantity for line in lines if _fits(promotion, line))
    if units == 0:
        return "promotion-no-match", "it is for other products"
    if promotion.kind == "buy_x_get_y" and (promotion.get < 1 or units < promotion.buy + promotion.get):
        return "promotion-no-match", f"it needs {promotion.buy + promotion.get} units of its products"
    return None
