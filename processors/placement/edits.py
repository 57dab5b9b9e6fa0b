"""An edit of a placed order: completed when everything for it is there, else failed. These commands only ask; [order]
decides, and its event is what gives back (`evolve`)."""

from __future__ import annotations

from processors.placement import payments
from processors.placement.model import Cause, PendingEdit, Placement, Send, reasons
from schemas import commands as c
from schemas import events as e
from schemas.payment import PaymentDeclined


def edit(before: Placement | None, after: Placement, cause: Cause) -> list[Send]:
    now, then = after.edit, before.edit if before else None
    if now is None or then is None or now.edit_id != then.edit_id:
        return [*_paid_for_nothing(then, after, cause), *_asked(now, after, cause)]
    return [] if now.step == then.step else _asked(now, after, cause)


def _asked(edit: PendingEdit | None, after: Placement, cause: Cause) -> list[Send]:
    if edit is not None and edit.step == "completing":
        attempt = after.attempt(edit.attempt_id)
        paid = {} if attempt is None else payments.words(attempt)
        complete = c.CompleteEdit(edit_id=edit.edit_id, **paid)
        return [Send("order.internal", f"complete:{edit.edit_id}", complete)]
    if edit is not None and edit.step == "failing":
        return [Send("order.internal", f"fail:{edit.edit_id}", _failure(edit, after, cause))]
    return []


def _failure(edit: PendingEdit, after: Placement, cause: Cause) -> c.FailEdit:
    if edit.short:
        skus = tuple(sorted(set(edit.short)))
        return c.FailEdit(edit_id=edit.edit_id, reason="out_of_stock", detail=", ".join(skus), skus=skus)
    if after.refused_codes:
        detail = ", ".join(after.refused_codes)
        return c.FailEdit(edit_id=edit.edit_id, reason="promotion_unavailable", detail=detail)
    attempt = after.attempt(edit.attempt_id)
    if attempt is not None and attempt.fate == "requested":  # it was not charged, because of the score
        return c.FailEdit(edit_id=edit.edit_id, reason="fraud", detail=reasons(edit.scores))
    code = cause.data.code if isinstance(cause.data, PaymentDeclined) else None
    return c.FailEdit(edit_id=edit.edit_id, reason="payment_declined", detail=code)


def _paid_for_nothing(over: PendingEdit | None, after: Placement, cause: Cause) -> list[Send]:
    """The edit ended while its payment was made: [order] hears of the money and gives it back."""
    if over is None or isinstance(cause.data, e.OrderEditCompleted):
        return []
    attempt = after.attempt(over.attempt_id)
    if attempt is None or not attempt.has_money:
        return []
    return [payments.confirm(attempt)]
