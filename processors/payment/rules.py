"""What the payment worker says for what a provider said. Pure; the provider's outcomes are data."""

from __future__ import annotations

import uuid
from datetime import datetime

from processors.kit import Outgoing
from processors.payment.provider import (
    Captured,
    ChargeOutcome,
    Declined,
    NotFound,
    Refunded,
    RefundOutcome,
    RefundRefused,
    Unknown,
)
from schemas.base import Message, Payload
from schemas.payment import (
    ChargePayment,
    PaymentCaptured,
    PaymentDeclined,
    PaymentNotMade,
    PaymentRefunded,
    PaymentUnknown,
    QueryPayment,
    RefundFailed,
    RefundPayment,
)

ACTOR = "system:payment"
RESULTS = "payment.results"
_RESULT_IDS = uuid.UUID("4e8d1a53-46a5-5f8c-9a0c-9d1f60e1a3f7")


def may_submit(command: ChargePayment, now: datetime) -> bool:
    """Whether a charge may be sent at `now`. Later, it is only asked what became of it: the provider may have
    forgotten the idempotency key, and whoever waited has given up (rule 12)."""
    return now < command.valid_until


def of_charge(command: ChargePayment | QueryPayment, outcome: ChargeOutcome) -> Payload:
    """The result of a charge, or of the question after it. The amount is the provider's, even when another one was
    asked for: what differs must be seen."""
    match outcome:
        case Captured():
            return PaymentCaptured(
                attempt_id=command.attempt_id,
                amount=outcome.amount,
                currency=command.currency,
                provider_ref=outcome.provider_ref,
            )
        case Declined():
            return PaymentDeclined(attempt_id=command.attempt_id, code=outcome.code)
        case NotFound():
            return PaymentNotMade(attempt_id=command.attempt_id)
        case Unknown():
            return unknown(command, outcome.reason)


def unknown(command: ChargePayment | QueryPayment, reason: str) -> PaymentUnknown:
    return PaymentUnknown(
        attempt_id=command.attempt_id,
        amount=command.amount,
        currency=command.currency,
        reason=reason,
        asked=command.asked if isinstance(command, QueryPayment) else 0,
    )


def of_refund(command: RefundPayment, outcome: RefundOutcome) -> Payload | None:
    """The result of a refund; None when nobody knows, and it is to be sent again (it has an id of its own)."""
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
        id=str(uuid.uuid5(_RESULT_IDS, f"{command.id}/{type(result).__name__}")),
        at=at,
        actor=ACTOR,
        correlation_id=command.correlation_id,
        causation_id=command.id,
        order_id=order_id,
        data=result,
    )
    return Outgoing(RESULTS, order_id, message)
