"""What stock, promotions, scoring and payment answer, and what that means for the placement."""

from __future__ import annotations

from typing import Any

from processors.placement.model import Need, Placement, Score, Transfer
from schemas import fraud as f
from schemas import inventory as i
from schemas import payment as p
from schemas import promotion as promo
from schemas.policy import Policy


def answered(placement: Placement, data: Any, policy: Policy) -> Placement:
    match data:
        case i.StockReserved(line_id=line_id, order_version=version):
            return _stock_answered(placement, line_id, version, reserved=True)
        case i.StockRefused(reason="stale"):
            return placement  # fulfilment has asked for more since, and was heard first: that is what holds now
        case i.StockRefused(line_id=line_id, order_version=version):
            return _stock_answered(placement, line_id, version, reserved=False)
        case promo.PromotionRedeemed(code=code, order_version=version):
            return _promotion_answered(placement, code, version, "redeemed")
        case promo.PromotionRefused(code=code, order_version=version):
            return _promotion_answered(placement, code, version, "refused")
        case f.OrderScored() as scored:
            return _scored(placement, scored)
        case p.PaymentCaptured() as made:
            return _paid(placement, made, "captured")
        case p.PaymentAuthorized() as made:
            return _paid(placement, made, "authorized")
        case p.PaymentDeclined(attempt_id=attempt_id):
            return _not_paid(placement, attempt_id, "declined")
        case p.PaymentNotMade(attempt_id=attempt_id):
            return _not_paid(placement, attempt_id, "not_made")
        case p.PaymentUnknown() as unknown:
            return _unanswered(placement, unknown, policy)
        case p.PaymentVoided(attempt_id=attempt_id):
            attempt = placement.attempt(attempt_id)
            if attempt is None or attempt.fate in ("captured", "voided"):
                return placement
            return _transferred(placement.settled(attempt_id, fate="voided"), attempt_id, 0, "done")
        case p.PaymentVoidFailed(attempt_id=attempt_id):
            return _transferred(placement, attempt_id, 0, "failed")
        case p.PaymentRefunded(refund_id=transfer_id) | p.PaymentCaptureMade(capture_id=transfer_id):
            return _transferred(placement, transfer_id, data.amount, "done")
        case p.RefundFailed(refund_id=transfer_id) | p.PaymentCaptureFailed(capture_id=transfer_id):
            return _transferred(placement, transfer_id, data.amount, "failed")
        case _:
            return placement


def _stock_answered(placement: Placement, line_id: str, version: int, reserved: bool) -> Placement:
    """Only the open question is answered, that is the newest. When an edit is refused more, the line still has what it
    had before."""
    need = placement.need(line_id)
    if need is None or need.version != version or need.fate != "asked":
        return placement
    edit = placement.edit
    if reserved:
        return _with_need(placement, need, fate="reserved")
    if edit is None or edit.version != version:
        return _with_need(placement, need, fate="refused")
    placement = placement.but(edit=edit.model_copy(update={"short": (*edit.short, need.sku)}))
    if need.wanted == 0:
        return _with_need(placement, need, fate="refused")
    return _with_need(placement, need, fate="reserved", asked=need.wanted)


def _promotion_answered(placement: Placement, code: str, version: int, fate: str) -> Placement:
    if not any(u.code == code and u.version == version and u.fate == "asked" for u in placement.uses):
        return placement
    uses = tuple(u.model_copy(update={"fate": fate}) if u.code == code else u for u in placement.uses)
    return placement.but(uses=uses)


def _scored(placement: Placement, scored: f.OrderScored) -> Placement:
    """Of the order as it was submitted, or of the edit that waits."""
    edit = placement.edit
    if _open(placement.scores, scored):
        return placement.but(scores=_with_score(placement.scores, scored))
    if edit is not None and _open(edit.scores, scored):
        return placement.but(edit=edit.model_copy(update={"scores": _with_score(edit.scores, scored)}))
    return placement


def _open(asked: tuple[Score, ...], scored: f.OrderScored) -> bool:
    return any(_answers(scored, s) for s in asked)


def _answers(scored: f.OrderScored, asked: Score) -> bool:
    return (asked.aspect, asked.version, asked.score) == (scored.aspect, scored.order_version, None)


def _with_score(asked: tuple[Score, ...], scored: f.OrderScored) -> tuple[Score, ...]:
    said = {"score": scored.score, "reasons": scored.reasons}
    return tuple(s.model_copy(update=said) if _answers(scored, s) else s for s in asked)


def _paid(placement: Placement, made: p.PaymentCaptured | p.PaymentAuthorized, fate: str) -> Placement:
    """True whatever was said before; but an authorization that was given free is not there any more."""
    attempt = placement.attempt(made.attempt_id)
    if attempt is None or attempt.has_money or (fate == "authorized" and attempt.fate == "voided"):
        return placement
    words = {"taken": made.amount, "provider_ref": made.provider_ref, "expires_at": getattr(made, "expires_at", None)}
    return placement.settled(made.attempt_id, fate=fate, **words)


def _not_paid(placement: Placement, attempt_id: str, fate: str) -> Placement:
    attempt = placement.attempt(attempt_id)
    return placement if attempt is None or attempt.settled else placement.settled(attempt_id, fate=fate)


def _unanswered(placement: Placement, unknown: p.PaymentUnknown, policy: Policy) -> Placement:
    """It is raised when nobody waits for the answer any more, or nobody asks any more."""
    attempt = placement.attempt(unknown.attempt_id)
    if attempt is None or attempt.settled:
        return placement
    raised = attempt.raised or placement.phase == "ended" or unknown.asked >= policy.payment.ask_times
    if attempt.fate == "unknown" and attempt.raised == raised:
        return placement
    return placement.with_attempt(unknown.attempt_id, fate="unknown", raised=raised)


def _transferred(placement: Placement, transfer_id: str, amount: int, fate: str) -> Placement:
    """Done is done; a failure may still be followed by a success, when somebody tries again."""
    known = placement.transfer(transfer_id)
    if known is None:
        new = Transfer(transfer_id=transfer_id, amount=amount, fate=fate)
        return placement.but(transfers=(*placement.transfers, new))
    if known.fate in ("done", fate):
        return placement
    transfers = tuple(t.model_copy(update={"fate": fate}) if t is known else t for t in placement.transfers)
    return placement.but(transfers=transfers)


def _with_need(placement: Placement, need: Need, **changes: Any) -> Placement:
    return placement.but(needs=tuple(n.model_copy(update=changes) if n is need else n for n in placement.needs))
