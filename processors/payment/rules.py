"""What the payment worker says for what a provider said. Pure; the provider's outcomes are data."""

from __future__ import annotations

from datetime import datetime

from uuid_utils import UUID, uuid5

from processors.kit import Outgoing
from processors.payment.provider import (
    AuthorizationOutcome,
    Authorized,
    Captured,
    CaptureMade,
    CaptureOutcome,
    CaptureRefused,
    ChargeOutcome,
    Declined,
    NotFound,
    Refunded,
    RefundOutcome,
    RefundRefused,
    Unknown,
    Voided,
    VoidOutcome,
    VoidRefused,
)
from schemas.base import Message, Payload
from schemas.payment import (
    AuthorizePayment,
    CapturePayment,
    ChargePayment,
    PaymentAuthorized,
    PaymentCaptured,
    PaymentCaptureFailed,
    PaymentCaptureMade,
    PaymentDeclined,
    PaymentNotMade,
    PaymentRefunded,
    PaymentUnknown,
    PaymentVoided,
    PaymentVoidFailed,
    QueryPayment,
    RefundFailed,
    RefundPayment,
    VoidPayment,
)

ACTOR = "system:payment"
RESULTS = "payment.results"
NO_ANSWER = "no_answer"
"""The code of what was given up: asked at last, the provider did not say that it was done."""
_RESULT_IDS = UUID("4e8d1a53-46a5-5f8c-9a0c-9d1f60e1a3f7")

Attempt = ChargePayment | AuthorizePayment | QueryPayment


def may_submit(command: ChargePayment | AuthorizePayment, now: datetime) -> bool:
    """Whether an attempt may be sent at `now`. Later, it is only asked what became of it: the provider may have
    forgotten the idempotency key, and whoever waited has given up (rule 12)."""
    return now < command.valid_until


def of_attempt(command: Attempt, outcome: ChargeOutcome | AuthorizationOutcome) -> Payload:
    """The result of a charge or an authorization, or of the question after it. The amount is the provider's, even when
    another one was asked for: what differs must be seen."""
    match outcome:
        case Captured():
            return PaymentCaptured(
                attempt_id=command.attempt_id,
                amount=outcome.amount,
                currency=command.currency,
                provider_ref=outcome.provider_ref,
            )
        case Authorized():
            return PaymentAuthorized(
                attempt_id=command.attempt_id,
                amount=outcome.amount,
                currency=command.currency,
                provider_ref=outcome.provider_ref,
                expires_at=outcome.expires_at,
            )
        case Declined():
            return PaymentDeclined(attempt_id=command.attempt_id, code=outcome.code)
        case NotFound():
            return PaymentNotMade(attempt_id=command.attempt_id)
        case Unknown():
            return unknown(command, outcome.reason)


def unknown(command: Attempt, reason: str) -> PaymentUnknown:
    return PaymentUnknown(
        attempt_id=command.attempt_id,
        amount=command.amount,
        currency=command.currency,
        reason=reason,
        asked=command.asked if isinstance(command, QueryPayment) else 0,
    )


# The others have an id of their own, or change nothing when repeated: while nobody knows (None), they are sent again.


def of_capture(command: CapturePayment, outcome: CaptureOutcome) -> Payload | None:
    match outcome:
        case CaptureMade():
            return PaymentCaptureMade(
                attempt_id=command.attempt_id,
                capture_id=command.capture_id,
                amount=outcome.amount,
                currency=command.currency,
                provider_ref=outcome.provider_ref,
            )
        case CaptureRefused():
            return capture_failed(command, outcome.code)
        case Unknown():
            return None


def capture_failed(command: CapturePayment, code: str) -> PaymentCaptureFailed:
    return PaymentCaptureFailed(
        attempt_id=command.attempt_id, capture_id=command.capture_id, amount=command.amount, code=code
    )


def of_void(command: VoidPayment, outcome: VoidOutcome) -> Payload | None:
    match outcome:
        case Voided():
            return PaymentVoided(attempt_id=command.attempt_id)
        case VoidRefused():
            return void_failed(command, outcome.code)
        case Unknown():
            return None


def void_failed(command: VoidPayment, code: str) -> PaymentVoidFailed:
    return PaymentVoidFailed(attempt_id=command.attempt_id, code=code)


def of_refund(command: RefundPayment, outcome: RefundOutcome) -> Payload | None:
    match outcome:
        case Refunded():
            return PaymentRefunded(
                refund_id=command.refund_id,
                attempt_id=command.attempt_id,
                amount=command.amount,
                currency=command.currency,
                provider_ref=outcome.provider_ref,
            )
        case RefundRefused():
            return refund_failed(command, outcome.code)
        case Unknown():
            return None


def refund_failed(command: RefundPayment, code: str) -> RefundFailed:
    return RefundFailed(refund_id=command.refund_id, attempt_id=command.attempt_id, amount=command.amount, code=code)


def answer(command: Message[Payload], order_id: str, result: Payload, at: datetime) -> Outgoing:
    """The result on its way to the saga. Its id derives from the command's, so that a repeat is the same result."""
    message: Message[Payload] = Message(
        id=str(uuid5(_RESULT_IDS, f"{command.id}/{type(result).__name__}")),
        at=at,
        actor=ACTOR,
        correlation_id=command.correlation_id,
        causation_id=command.id,
        order_id=order_id,
        data=result,
    )
    return Outgoing(RESULTS, order_id, message)
