"""The placement saga, pure: `evolve` says what a message means for the placement, `react` what is sent because of it.

    submitted           → ReserveStock for each line, RedeemPromotion for each code, ScoreOrder for each aspect
    all have answered   → stock short:          CancelOrder(out_of_stock)
                          promotion refused:    CancelOrder(promotion_unavailable)
                          score too high:       CancelOrder(fraud), or HoldOrder and nothing more until it is released
                          else:                 ChargePayment, or AuthorizePayment
    paid                → ConfirmPayment; declined → FailPayment, and the next attempt is charged when it is requested
    edit requested      → ScoreOrder where it costs more; once paid: ReserveStock and RedeemPromotion for what is new,
                          then ChargePayment for the difference, then CompleteEdit; whatever is refused: FailEdit
    cancelled, edit failed, units or a promotion less
                        → ReleaseStock (or ReserveStock of less), ReleasePromotion
    refund, capture, void requested
                        → RefundPayment, CapturePayment, VoidPayment; the answers go back to the order

    what is asked and given back  reservations.py      the next step         steps.py
    money                         payments.py          what a message means  evolve.py (told.py, answered.py)
    edits                         edits.py             what needs a person   exceptions.py

The saga joins topics that keep no order among each other, so that it is right under any interleaving; a repeated
message changes nothing and sends nothing new. After its end a placement stays as a tombstone of payment attempts and
what became of them: a late capture is handed to the order (which gives the money back), one that nobody asked for goes
to a person.
"""

from __future__ import annotations

from processors.placement import edits, exceptions, payments, reservations
from processors.placement.evolve import evolve
from processors.placement.model import Cause, Placement, Send, reasons, total
from processors.placement.timers import timers
from schemas import commands as c
from schemas.base import Event
from schemas.policy import Policy
from schemas.replies import CommandRejected

__all__ = ["Placement", "Send", "evolve", "react"]


def react(before: Placement | None, after: Placement | None, cause: Cause, policy: Policy) -> list[Send]:
    """What has to be sent because of the message: mostly what is in the placement now and was not before."""
    if after is None:
        return exceptions.nobody_asked(cause)
    if isinstance(cause, Event) and (cause.imported or after is before):
        return []  # history, a repeat, or nothing to us
    sends = [
        *reservations.stock(before, after),
        *reservations.promotions(before, after),
        *reservations.scores(after, cause),
        *_verdict(before, after),
        *payments.charges(before, after),
        *payments.transfers(after, cause),
        *edits.edit(before, after, cause),
        *timers(before, after),
        *exceptions.unanswered(before, after, policy.payment),
    ]
    if before is not None:
        sends += payments.results(before, after, cause, policy.payment)
        sends += exceptions.stock_not_given_back(before, after, cause)
    if isinstance(cause.data, CommandRejected):
        sends += exceptions.refused(cause.data)
    return sends


def _verdict(before: Placement | None, after: Placement) -> list[Send]:
    """All have answered, and it can't simply go on."""
    if after.phase == "refused" and (before is None or before.phase != "refused"):
        cancel = c.CancelOrder(reason=after.refusal, skus=after.short_skus)
        return [Send("order.internal", f"refuse:{after.version}", cancel)]
    if after.review and (before is None or before.review != after.review):
        hold = c.HoldOrder(kind="fraud", reason=reasons(after.scores), score=total(after.scores))
        return [Send("order.internal", f"review:{after.review}", hold)]
    return []
