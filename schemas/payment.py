"""The language of payment: what the saga asks the worker, and what the worker found out. A result whatever happens."""

from __future__ import annotations

from schemas.base import Family, Instant, Message, Minor, Payload

Family("payment.commands", Message)
Family("payment.results", Message)
Family("payment.feed", Message)
Family("reconciliation.commands", Message)


class ChargePayment(Payload, family="payment.commands"):
    """Capture `amount`. After `valid_until` the worker only asks and never submits."""

    attempt_id: str
    amount: Minor
    currency: str
    payment_token: str
    valid_until: Instant


class AuthorizePayment(Payload, family="payment.commands"):
    """Reserve `amount` without taking it. After `valid_until` the worker only asks and never submits."""

    attempt_id: str
    amount: Minor
    currency: str
    payment_token: str
    valid_until: Instant


class CapturePayment(Payload, family="payment.commands"):
    """Take a part of what an attempt authorized. `capture_id` is the provider's idempotency key."""

    attempt_id: str
    capture_id: str
    amount: Minor
    currency: str


class VoidPayment(Payload, family="payment.commands"):
    """Give free what is left of an authorization."""

    attempt_id: str


class QueryPayment(Payload, family="payment.commands"):
    """Ask the provider what became of an attempt that gave no answer; `asked` counts from 1."""

    attempt_id: str
    amount: Minor
    currency: str
    asked: int


class RefundPayment(Payload, family="payment.commands"):
    refund_id: str
    attempt_id: str
    amount: Minor
    currency: str


class PaymentCaptured(Payload, family="payment.results"):
    attempt_id: str
    amount: Minor
    currency: str
    provider_ref: str


class PaymentAuthorized(Payload, family="payment.results"):
    attempt_id: str
    amount: Minor
    currency: str
    provider_ref: str
    expires_at: Instant


class PaymentCaptureMade(Payload, family="payment.results"):
    """A part of an authorization was taken."""

    attempt_id: str
    capture_id: str
    amount: Minor
    currency: str
    provider_ref: str


class PaymentCaptureFailed(Payload, family="payment.results"):
    """The provider refused to capture (expired, voided, too much) or gave no answer for too long."""

    attempt_id: str
    capture_id: str
    amount: Minor
    code: str


class PaymentVoided(Payload, family="payment.results"):
    """Nothing more can be taken of the authorization."""

    attempt_id: str


class PaymentVoidFailed(Payload, family="payment.results"):
    """The provider refused to void, or gave no answer for too long; unless somebody looks, it ends when it expires."""

    attempt_id: str
    code: str


class PaymentDeclined(Payload, family="payment.results"):
    attempt_id: str
    code: str


class PaymentUnknown(Payload, family="payment.results"):
    """Nobody knows yet whether the money moved. `asked`: how many queries there have been."""

    attempt_id: str
    amount: Minor
    currency: str
    reason: str
    asked: int


class PaymentNotMade(Payload, family="payment.results"):
    """The provider never heard of the attempt and will not be asked to charge it any more."""

    attempt_id: str


class PaymentRefunded(Payload, family="payment.results"):
    refund_id: str
    attempt_id: str
    amount: Minor
    currency: str
    provider_ref: str


class RefundFailed(Payload, family="payment.results"):
    """The provider refused the refund or gave no answer for too long: a person must look (exceptions)."""

    refund_id: str
    attempt_id: str
    amount: Minor
    code: str


class ProviderReported(Payload, family="payment.feed"):
    """What the provider tells by itself (its signed webhook, keyed by the order it was told): kind is captured |
    authorized | capture (of an authorization) | voided | declined | refunded. `reference` is the attempt, capture or
    refund id that we gave it."""

    event_id: str
    kind: str
    reference: str
    attempt_id: str | None = None
    amount: Minor
    currency: str
    provider_ref: str
    occurred_at: Instant


class Reconcile(Payload, family="reconciliation.commands"):
    """Compare the order's books with the provider's now. `round` counts the looks at what differs."""

    round: int
