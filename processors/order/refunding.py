"""Giving money back: how much of what, over which payments, never more than was taken.

The money of a line belongs to its units in order: cancelled units come first, those that came back next, and those
whose price staff gave back while they stayed are counted from the end. What belongs to some of them is a difference of
two rounded sums (`share`), so that the parts of a line add up to the cent, however it is taken apart. What was given
back is counted in units, not in money, for an edit may have changed their price since.
"""

from __future__ import annotations

from collections.abc import Sequence

from processors.order.checks import Decision
from processors.order.names import refund_id
from schemas import commands as c
from schemas import events as e
from schemas.money import to_text
from schemas.order import Line, Order, Refund, RefundItem
from schemas.policy import Policy
from schemas.replies import Rejection


def share(amount: int, units_before: int, units_after: int, quantity: int) -> int:
    """The part of an amount (minor units) that belongs to the units (`units_before`, `units_after`] of `quantity`.
    Half up, cumulative: the parts of all units add up to the amount."""
    return _up_to(amount, units_after, quantity) - _up_to(amount, units_before, quantity)


def _up_to(amount: int, units: int, quantity: int) -> int:
    return (2 * amount * units + quantity) // (2 * quantity)


def line_due(order: Order, line: Line, quantity: int) -> RefundItem:
    """What the next `quantity` units of a line are worth, tax included: those after its cancelled and returned ones.
    Those that staff gave the price of back come last, and are worth nothing any more."""
    done, end = _unpaid(order, line)
    amount = share(line.paid, done, min(done + quantity, end), line.quantity)
    return RefundItem(line_id=line.line_id, quantity=quantity, amount=amount)


def price_risen(order: Order, line: Line) -> int:
    """How much more (less: below 0) the units that staff gave back the price of cost now than when it was given back
    (minor units): an edit asks for nothing more for them."""
    _, end = _unpaid(order, line)
    then = sum(item.amount for item in _kept(order, line))
    return share(line.paid, end, line.quantity, line.quantity) - then


def given_back(order: Order, line: Line) -> int:
    """The price of the units of a line that the customer has the money of (minor units)."""
    done, end = _unpaid(order, line)
    return line.paid - share(line.paid, done, end, line.quantity)


def shipping_left(order: Order) -> int:
    """What of shipping and its tax was not given back yet (minor units)."""
    paid = order.totals.shipping + order.totals.shipping_tax
    return paid - sum(r.shipping for r in order.refunds if r.counts)


def left(order: Order) -> int:
    """What of the money taken was not given back yet (minor units)."""
    return sum(max(0, payment.taken - payment.refunded) for payment in order.payments)


def refunds_of(
    order: Order,
    amount: int,
    reason: str,
    *,
    rma: str | None = None,
    items: Sequence[RefundItem] = (),
    shipping: int = 0,
    comment: str | None = None,
    kept: bool = False,
) -> list[e.OrderRefundInitiated]:
    """The refunds that give `amount` back: one for each payment that has money left, oldest first, together never more
    than is left; none for 0. `items` and `shipping` say what it is for: what they name is dealt out in this order, so
    that the parts over all the refunds add up to them (an item's units count in its first part). Call it once in a
    decision: the refunds' ids count those that the order has."""
    refunds = []
    purpose = [*items, RefundItem(line_id="", quantity=0, amount=shipping)]
    for payment in order.payments:
        give = min(amount, payment.taken - payment.refunded)
        if give <= 0:
            continue
        now, purpose = _cut(purpose, give)
        refunds.append(
            e.OrderRefundInitiated(
                refund_id=refund_id(
                    payment.attempt_id, 1 + sum(r.attempt_id == payment.attempt_id for r in order.refunds)
                ),
                attempt_id=payment.attempt_id,
                amount=give,
                currency=order.currency,
                reason=reason,
                rma=rma,
                items=tuple(item for item in now if item.line_id),
                shipping=sum(item.amount for item in now if not item.line_id),
                comment=comment,
                kept=kept,
            )
        )
        amount -= give
    return refunds


def refund_everything(order: Order, reason: str) -> list[e.OrderRefundInitiated]:
    """All that is left of every payment."""
    return refunds_of(order, left(order), reason)


def refund_order(order: Order, refund: c.RefundOrder, policy: Policy) -> Decision:
    """Staff gives back what it names, for a reason that policy knows: units (which stay with the customer), shipping,
    and an amount on top."""
    known = policy.refunds.reasons
    if known is not None and refund.reason not in known:
        detail = f"There is no reason {refund.reason!r}; there are: {', '.join(known)}."
        return _bad("reason", "unknown-reason", detail)
    items: list[RefundItem] = []
    asked: dict[str, int] = {}
    for i, wish in enumerate(refund.items):
        line = order.line(wish.line_id)
        if line is None:
            return _bad(f"items[{i}].line_id", "unknown-line", f"The order has no line {wish.line_id}.")
        done, end = _unpaid(order, line)
        end -= asked.get(line.line_id, 0)
        free = end - done
        if not 1 <= wish.quantity <= free:
            detail = f"Of line {line.line_id} {free} units can be refunded, not {wish.quantity}."
            return _bad(f"items[{i}].quantity", "quantity-out-of-range", detail)
        worth = share(line.paid, end - wish.quantity, end, line.quantity)
        items.append(RefundItem(line_id=line.line_id, quantity=wish.quantity, amount=worth))
        asked[line.line_id] = asked.get(line.line_id, 0) + wish.quantity
    shipping = max(0, shipping_left(order)) if refund.shipping else 0
    amount = sum(item.amount for item in items) + shipping + (refund.amount or 0)
    if amount <= 0:
        return _bad("amount", "nothing-to-refund", "Name units, shipping or an amount of which something is left.")
    if amount > left(order):
        rest = f"{to_text(left(order), order.currency)} {order.currency}"
        detail = f"{to_text(amount, order.currency)} {order.currency} is more than what is left to refund: {rest}."
        return _bad("amount", "refund-too-high", detail, left=rest)
    return refunds_of(order, amount, refund.reason, items=items, shipping=shipping, comment=refund.comment, kept=True)


def complete_refund(order: Order, complete: c.CompleteRefund) -> Decision:
    """Also of a refund that failed before: it was tried again."""
    refund = _find(order, complete.refund_id)
    if isinstance(refund, Rejection):
        return refund
    if refund.status == "completed":
        return []
    return [
        e.OrderRefundCompleted(refund_id=complete.refund_id, amount=refund.amount, provider_ref=complete.provider_ref)
    ]


def fail_refund(order: Order, fail: c.FailRefund) -> Decision:
    refund = _find(order, fail.refund_id)
    if isinstance(refund, Rejection):
        return refund
    if refund.status != "initiated":
        return []
    return [e.OrderRefundFailed(refund_id=fail.refund_id, amount=refund.amount, code=fail.code)]


def abandon_refund(order: Order, abandon: c.AbandonRefund) -> Decision:
    """Only of one that failed: what is under way may still be paid, and would be given twice. One that is over needs no
    giving up; that an abandoned one was paid elsewhere may be told later."""
    refund = _find(order, abandon.refund_id)
    if isinstance(refund, Rejection):
        return refund
    if refund.over and (refund.status == "paid_elsewhere" or not abandon.paid_elsewhere):
        return []
    if refund.status not in ("failed", "abandoned"):
        return Rejection(
            type="refund-not-failed",
            detail=f"Only a refund that failed can be given up; this one is {refund.status.replace('_', ' ')}.",
            extra={"refund_status": refund.status},
        )
    paid = refund.amount if abandon.paid_elsewhere else 0
    if paid > left(order):
        rest = f"{to_text(left(order), order.currency)} {order.currency}"
        detail = f"{to_text(paid, order.currency)} {order.currency} is more than what was not given back yet: {rest}."
        return Rejection(type="refund-too-high", detail=detail, extra={"left": rest})
    return [
        e.OrderRefundAbandoned(
            refund_id=refund.refund_id,
            amount=refund.amount,
            paid_elsewhere=abandon.paid_elsewhere,
            comment=abandon.comment,
        )
    ]


def _find(order: Order, wanted: str) -> Refund | Rejection:
    found = next((r for r in order.refunds if r.refund_id == wanted), None)
    return found or Rejection(type="unknown-refund", detail=f"The order has no refund {wanted}.")


def _unpaid(order: Order, line: Line) -> tuple[int, int]:
    """(a, b): the units of a line that nothing was given back for are those from a (exclusive) to b."""
    done = line.cancelled + line.returned
    return done, max(done, line.quantity - sum(item.quantity for item in _kept(order, line)))


def _kept(order: Order, line: Line) -> list[RefundItem]:
    """What staff gave back for units of a line that stayed."""
    refunds = [r for r in order.refunds if r.kept and r.counts]
    return [item for r in refunds for item in r.items if item.line_id == line.line_id]


def _cut(items: Sequence[RefundItem], amount: int) -> tuple[list[RefundItem], list[RefundItem]]:
    """(what of the items an amount pays for, what is left of them)."""
    now, later = [], []
    for item in items:
        paid = min(item.amount, amount)
        amount -= paid
        if paid or not item.amount:
            now.append(item.model_copy(update={"amount": paid}))
        if paid < item.amount:
            quantity = 0 if paid else item.quantity
            later.append(item.model_copy(update={"amount": item.amount - paid, "quantity": quantity}))
    return now, later


def _bad(field: str, type: str, detail: str, **extra: str) -> Rejection:
    return Rejection(type=type, status=422, field=field, detail=detail, extra=extra)
