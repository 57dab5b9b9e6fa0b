"""Which step comes next, once something new is known: the heart of the saga, in the order in which things happen."""

from __future__ import annotations

from processors.placement.model import Attempt, Need, PendingEdit, Placement, Use, total
from schemas.policy import FraudRules, Policy

NOTHING_TO_PAY = "nothing-to-pay"


def advance(placement: Placement, policy: Policy) -> Placement:
    match placement.phase:
        case "placing":
            return _place(placement, policy.fraud)
        case "paid":
            return _edit(_renew(placement), policy.fraud)
        case _:
            return placement


def _place(placement: Placement, rules: FraudRules) -> Placement:
    """Everybody has answered → refuse the order, have it reviewed, or charge for it."""
    if not placement.answered:
        return placement
    score = 0 if placement.cleared else total(placement.scores)
    if placement.short_skus or placement.refused_codes or score >= rules.reject_at:
        return placement.but(phase="refused")
    if placement.held or placement.review:
        return placement
    if score >= rules.review_at:
        return placement.but(review=placement.version)
    attempts = [a for a in placement.attempts if a.purpose == "order"]
    if not attempts or any(a.open or a.has_money for a in attempts):
        return placement  # never two charges for one order: the provider's last word on the one before is waited for
    return _charge(placement, attempts[-1])


def _renew(placement: Placement) -> Placement:
    for attempt in placement.attempts:
        if attempt.purpose == "renewal":
            placement = _charge(placement, attempt)
    return placement


def _edit(placement: Placement, rules: FraudRules) -> Placement:
    """A paid order's edit: stock, promotions and scoring are asked; then the difference is paid; then it is completed.
    Whatever is refused makes it fail, and so does a score that would have an order reviewed: an edit can't wait so
    long, and the order is fine without it."""
    edit = placement.edit
    if edit is not None and edit.step == "waiting":
        placement = _begin(placement, edit)
        edit = placement.edit
    if edit is not None and edit.step == "asking":
        placement = _after_answers(placement, edit, rules)
        edit = placement.edit
    if edit is not None and edit.step == "paying":
        placement = _after_payment(placement, edit)
    return placement


def _begin(placement: Placement, edit: PendingEdit) -> Placement:
    risen = {rise.line_id: rise for rise in edit.rises}
    needs = [_risen(need, risen.pop(need.line_id, None)) for need in placement.needs]
    new = [rise.model_copy(update={"wanted": 0}) for rise in risen.values()]
    uses = [Use(code=code, version=edit.version) for code in edit.codes]
    return placement.model_copy(
        update={
            "needs": (*needs, *new),
            "uses": (*placement.uses, *uses),
            "edit": edit.model_copy(update={"step": "asking", "rises": ()}),
        }
    )


def _risen(need: Need, rise: Need | None) -> Need:
    if rise is None:
        return need
    return need.model_copy(update={"asked": rise.asked, "version": rise.version, "fate": "asked"})


def _after_answers(placement: Placement, edit: PendingEdit, rules: FraudRules) -> Placement:
    asked: tuple[Need | Use, ...] = (*placement.needs, *placement.uses)
    unanswered = any(x.version == edit.version and x.fate == "asked" for x in asked)
    if unanswered or any(s.score is None for s in edit.scores):
        return placement
    if edit.short or placement.refused_codes or total(edit.scores) >= rules.review_at:
        return _at(placement, edit, "failing")
    attempt = placement.attempt(edit.attempt_id)
    if attempt is None:
        return _at(placement, edit, "completing")
    if placement.held:
        return placement
    return _at(_charge(placement, attempt), edit, "paying")


def _after_payment(placement: Placement, edit: PendingEdit) -> Placement:
    attempt = placement.attempt(edit.attempt_id)
    if attempt is not None and attempt.has_money:
        return _at(placement, edit, "completing")
    if attempt is not None and attempt.fate == "declined":
        return _at(placement, edit, "failing")
    return placement  # no answer, or never submitted: the edit's deadline ends it


def _at(placement: Placement, edit: PendingEdit, step: str) -> Placement:
    return placement.but(edit=edit.model_copy(update={"step": step}))


def _charge(placement: Placement, attempt: Attempt) -> Placement:
    if attempt.fate != "requested":
        return placement
    nothing_to_pay = {"fate": "captured", "taken": 0, "provider_ref": NOTHING_TO_PAY, "token": ""}
    charged = attempt.model_copy(update={"fate": "charging"} if attempt.amount else nothing_to_pay)
    return placement.but(attempts=tuple(charged if a is attempt else a for a in placement.attempts))
