"""The language of payment: what the saga asks the worker, and what the worker found out. A result whatever happens."""

from __future__ import annotations

from schemas.base import Family, Instant, Message, Minor, Payload

Family("payment.commands", Message)
Family("payment.results", Message)


class ChargePayment(Payload, family="payment.commands"):
    """Capture `amount`. After `valid_until` the worker only asks and never submits."""

    attempt_id: str
    amount: Minor
    currency: str
    payment_token: str
    valid_until: Instant


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
