"""What needs a person. The ids hold those of attempts, refunds, captures and commands, so that no two orders share one;
what settles itself later is resolved under the same id."""

from __future__ import annotations

from processors.placement.model import ACTOR, Attempt, Cause, Placement, Send, Transfer
from schemas import inventory as i
from schemas import payment as p
from schemas.operations import ExceptionOpened, ExceptionResolved
from schemas.policy import PaymentRules
from schemas.replies import CommandRejected


def nobody_asked(cause: Cause) -> list[Send]:
    """Money of an attempt that this order never made. It is not given back by guess."""
    match cause.data:
        case p.PaymentCaptured() | p.PaymentAuthorized() | p.PaymentUnknown() | p.PaymentCaptureMade() as found:
            return [
                _raise(
                    f"unasked:{found.attempt_id}",
                    kind="payment_unmatched",
                    detail="The provider reports a payment attempt that the order never made.",
                    facts={"attempt_id": found.attempt_id, "amount": str(found.amount)},
                )
            ]
        case p.PaymentRefunded() as found:
            return [
                _raise(
                    f"unasked:{found.refund_id}",
                    kind="payment_unmatched",
                    detail="The provider reports a refund that the order never made.",
                    facts={"refund_id": found.refund_id, "amount": str(found.amount)},
                )
            ]
        case _:
            return []


def unanswered(before: Placement | None, after: Placement, rules: PaymentRules) -> list[Send]:
    """Attempts that nobody waits for (or asks about) any more without a word from the provider, until it comes."""
    if before is None or before.attempts is after.attempts:
        return []
    raised = {a.attempt_id for a in before.attempts if a.raised}
    return [
        _unknown(a, rules) if a.raised else _resolve(f"unknown:{a.attempt_id}", a.fate)
        for a in after.attempts
        if a.raised != (a.attempt_id in raised)
    ]


def _unknown(attempt: Attempt, rules: PaymentRules) -> Send:
    ask = p.QueryPayment(
        attempt_id=attempt.attempt_id, amount=attempt.amount, currency=attempt.currency, asked=rules.ask_times
    )  # as if it were the last question: it sets off no others
    return _raise(
        f"unknown:{attempt.attempt_id}",
        kind="payment_unknown",
        detail="Nobody waits any more for the provider to say whether it was paid. Money may have been taken.",
        facts={"attempt_id": attempt.attempt_id, "amount": str(attempt.amount), "currency": attempt.currency},
        retry=Send("payment.commands", f"query:{attempt.attempt_id}:by hand", ask),
    )


def contradiction(attempt: Attempt, now: str) -> Send:
    return _raise(
        f"contradiction:{attempt.attempt_id}:{now}",
        kind="payment_contradiction",
        detail=f"The provider said {attempt.fate} first and {now} later.",
        facts={"attempt_id": attempt.attempt_id, "amount": str(attempt.amount)},
    )


def transfer_contradiction(transfer: Transfer) -> Send:
    return _raise(
        f"contradiction:{transfer.transfer_id}:failed",
        kind="payment_contradiction",
        detail="The provider made a refund or capture first and refused it later.",
        facts={"transfer_id": transfer.transfer_id, "amount": str(transfer.amount)},
    )


def amount_differs(reference: str, asked: int, made: int, rules: PaymentRules) -> list[Send]:
    """The order goes on with what was really taken or given; why it is not what we asked for is for a person. Where the
    provider reports by itself, reconciliation raises it, and once is enough (decision 0014)."""
    if asked == made or rules.feed:
        return []
    return [
        _raise(
            f"amount:{reference}",
            kind="payment_amount_differs",
            detail=f"The provider was asked for {asked} and made it {made}.",
            facts={"reference": reference, "asked": str(asked), "made": str(made)},
        )
    ]


def transfer_differs(known: Transfer | None, made: int, rules: PaymentRules) -> list[Send]:
    return amount_differs(known.transfer_id, known.amount, made, rules) if known is not None else []


def transfer_done(known: Transfer | None) -> list[Send]:
    """Somebody tried again, and now it went."""
    return [_resolve(f"transfer:{known.transfer_id}", "done")] if known is not None and known.fate == "failed" else []


def refund_failed(failed: p.RefundFailed, again: Send) -> Send:
    return _raise(
        f"transfer:{failed.refund_id}",
        kind="refund_failed",
        detail=f"The provider did not refund: {failed.code}.",
        facts={"refund_id": failed.refund_id, "attempt_id": failed.attempt_id, "amount": str(failed.amount)},
        retry=again,
    )


def capture_failed(failed: p.PaymentCaptureFailed, again: Send) -> Send:
    return _raise(
        f"transfer:{failed.capture_id}",
        kind="capture_failed",
        detail=f"What was shipped is not paid: the provider did not capture ({failed.code}).",
        facts={"capture_id": failed.capture_id, "attempt_id": failed.attempt_id, "amount": str(failed.amount)},
        retry=again,
    )


def void_failed(failed: p.PaymentVoidFailed, again: Send) -> Send:
    return _raise(
        f"transfer:{failed.attempt_id}",
        kind="void_failed",
        detail=f"The provider did not void: {failed.code}. The money stays reserved until the authorization expires.",
        facts={"attempt_id": failed.attempt_id},
        retry=again,
    )


def not_renewed(attempt: Attempt, now: str) -> Send:
    return _raise(
        f"renewal:{attempt.attempt_id}",
        kind="authorization_not_renewed",
        detail=f"An authorization expires soon, and a new one was {now.replace('_', ' ')}.",
        facts={"attempt_id": attempt.attempt_id, "amount": str(attempt.amount)},
    )


def stock_not_given_back(before: Placement, after: Placement, cause: Cause) -> list[Send]:
    """Stock refuses a paid order to hold what it is to hold; asking for more is an edit, which just fails."""
    refused = cause.data
    if not isinstance(refused, i.StockRefused) or after.phase != "paid" or after.edit is not before.edit:
        return []
    need, was = after.need(refused.line_id), before.need(refused.line_id)
    if need is None or was is None or need.fate == was.fate:
        return []
    return [
        _raise(
            f"stock:{after.order_id}:{need.line_id}:{need.version}",
            kind="stock_refused",
            owner="stock",
            detail=f"Stock refused to hold {need.asked} of {need.sku} for a placed order: {refused.reason}.",
            facts={"line_id": need.line_id, "sku": need.sku, "quantity": str(need.asked), "reason": refused.reason},
        )
    ]


# Refusals of our own commands

_SENT_BEFORE_ACTORS = {"CancelOrder", "ConfirmPayment", "FailPayment", "CompleteRefund"}

# What the order has come to in the meantime is what we wanted, or makes our wish void.
_HARMLESS = {
    ("CancelOrder", "cannot-cancel"),
    ("HoldOrder", "cannot-hold"),
    ("HoldOrder", "already-held"),
}


def refused(rejected: CommandRejected) -> list[Send]:
    """Refusals that carry no actor are from before they did."""
    ours = rejected.actor == ACTOR or (not rejected.actor and rejected.command in _SENT_BEFORE_ACTORS)
    if not ours or (rejected.command, rejected.rejection.type) in _HARMLESS:
        return []
    return [
        _raise(
            f"refused:{rejected.command_id}",
            kind="saga_command_refused",
            detail=f"{rejected.command} was refused: {rejected.rejection.detail}",
            facts={"command_id": rejected.command_id, "type": rejected.rejection.type},
        )
    ]


def _raise(
    name: str, *, kind: str, detail: str, facts: dict[str, str], owner: str = "payments", retry: Send | None = None
) -> Send:
    opened = ExceptionOpened(exception_id=name, kind=kind, owner=owner, detail=detail, facts=facts)
    return Send("exceptions", f"raise:{name}", opened, retry=retry)


def _resolve(name: str, resolution: str) -> Send:
    return Send("exceptions", f"resolve:{name}", ExceptionResolved(exception_id=name, resolution=resolution))
