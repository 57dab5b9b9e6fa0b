"""The other side of the payment topics in the simulation: a provider that keeps its ledger in dicts, asked by the
rules of the payment worker (submit before valid_until, later only ask; a result whatever happens), and telling by its
own feed what it did."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from processors.kit import Outgoing
from schemas import payment as p
from schemas.base import Message, Payload

AUTHORIZED_FOR = timedelta(days=7)


@dataclass
class Charge:
    """A charge, or (`expires_at`) an authorization of which parts are captured."""

    amount: int
    status: str  # captured | authorized | voided | declined | processing
    refunded: int = 0
    captured: int = 0
    expires_at: datetime | None = None

    @property
    def taken(self) -> int:
        return self.amount if self.status == "captured" else self.captured

    @property
    def left(self) -> int:
        """What is still reserved."""
        return self.amount - self.captured if self.status == "authorized" else 0

    def settle(self, end: str) -> None:
        """A charge that was under way is made or declined."""
        if self.status == "processing":
            made = "captured" if self.expires_at is None else "authorized"
            self.status = made if end == "made" else end


@dataclass
class Bank:
    """`charges`: attempt id → what the provider did with it; each is made once, however often it is asked for.
    `refuses`: the commands (by class name) that it refuses from now on; `mood`: how it answers every new charge or
    authorization, whatever its token."""

    charges: dict[str, Charge] = field(default_factory=dict)
    captures: dict[str, int] = field(default_factory=dict)
    refunds: dict[str, int] = field(default_factory=dict)
    refuses: set[str] = field(default_factory=set)
    mood: str | None = None
    _told: set[tuple[str, str]] = field(default_factory=set)

    def handle(self, command: Message[Any], now: datetime) -> list[Outgoing]:
        """The result, and what is new on the provider's feed."""
        refuses = type(command.data).__name__ in self.refuses
        match command.data:
            case p.ChargePayment() | p.AuthorizePayment() as ask:
                if ask.attempt_id not in self.charges and now < ask.valid_until:
                    self.charges[ask.attempt_id] = _charge(ask, self.mood, now)
                result = self._found(ask, asked=0)
            case p.QueryPayment() as query:
                result = self._found(query, asked=query.asked)
            case p.CapturePayment() as capture if refuses:
                result = p.PaymentCaptureFailed(**capture.model_dump(exclude={"currency"}), code="refused")
            case p.CapturePayment() as capture:
                result = self._capture(capture, now)
            case p.VoidPayment(attempt_id=attempt_id) if refuses:
                result = p.PaymentVoidFailed(attempt_id=attempt_id, code="refused")
            case p.VoidPayment(attempt_id=attempt_id):
                self.charges[attempt_id].status = "voided"
                result = p.PaymentVoided(attempt_id=attempt_id)
            case p.RefundPayment() as refund if refuses:
                result = p.RefundFailed(**refund.model_dump(exclude={"currency"}), code="refused")
            case p.RefundPayment() as refund:
                result = self._refund(refund)
            case other:
                raise TypeError(f"{type(other).__name__} is no payment command")
        return [_outgoing("payment.results", command, result, now), *self._feed(command, result, now)]

    def _found(self, ask: p.ChargePayment | p.AuthorizePayment | p.QueryPayment, asked: int) -> Payload:
        charge = self.charges.get(ask.attempt_id)
        if charge is None:
            return p.PaymentNotMade(attempt_id=ask.attempt_id)
        made = {"attempt_id": ask.attempt_id, "amount": charge.amount, "currency": ask.currency}
        if charge.status == "captured":
            return p.PaymentCaptured(**made, provider_ref=f"ch_{ask.attempt_id}")
        if charge.status == "authorized" and charge.expires_at is not None:
            return p.PaymentAuthorized(**made, provider_ref=f"au_{ask.attempt_id}", expires_at=charge.expires_at)
        if charge.status in ("declined", "voided"):
            return p.PaymentDeclined(attempt_id=ask.attempt_id, code=f"card_{charge.status}")
        return p.PaymentUnknown(**{**made, "amount": ask.amount}, reason="no answer", asked=asked)

    def _capture(self, ask: p.CapturePayment, now: datetime) -> Payload:
        charge = self.charges[ask.attempt_id]
        if ask.capture_id not in self.captures:
            if charge.status != "authorized" or charge.expires_at is None or now >= charge.expires_at:
                return p.PaymentCaptureFailed(**ask.model_dump(exclude={"currency"}), code=charge.status)
            assert charge.captured + ask.amount <= charge.amount, "more is captured than was authorized"
            charge.captured += ask.amount
            self.captures[ask.capture_id] = ask.amount
        return p.PaymentCaptureMade(**ask.model_dump(), provider_ref=f"ca_{ask.capture_id}")

    def _refund(self, ask: p.RefundPayment) -> Payload:
        charge = self.charges[ask.attempt_id]
        if ask.refund_id not in self.refunds:
            assert charge.refunded + ask.amount <= charge.taken, "more is refunded than was captured"
            charge.refunded += ask.amount
            self.refunds[ask.refund_id] = ask.amount
        return p.PaymentRefunded(**ask.model_dump(), provider_ref=f"re_{ask.refund_id}")

    def _feed(self, command: Message[Any], result: Payload, now: datetime) -> list[Outgoing]:
        match result:
            case p.PaymentCaptured(attempt_id=reference):
                kind = "captured"
            case p.PaymentAuthorized(attempt_id=reference):
                kind = "authorized"
            case p.PaymentCaptureMade(capture_id=reference):
                kind = "capture"
            case p.PaymentRefunded(refund_id=reference):
                kind = "refunded"
            case p.PaymentVoided(attempt_id=reference):
                kind = "voided"
            case _:
                return []
        if (kind, reference) in self._told:
            return []
        self._told.add((kind, reference))
        attempt_id = command.data.attempt_id
        report = p.ProviderReported(
            event_id=f"{kind}:{reference}",
            kind=kind,
            reference=reference,
            attempt_id=attempt_id,
            amount=getattr(result, "amount", 0),
            currency=getattr(result, "currency", "EUR"),
            provider_ref=getattr(result, "provider_ref", f"au_{attempt_id}"),
            occurred_at=now,
        )
        return [_outgoing("payment.feed", command, report, now)]


def _charge(ask: p.ChargePayment | p.AuthorizePayment, mood: str | None, now: datetime) -> Charge:
    authorize = isinstance(ask, p.AuthorizePayment)
    status = mood or STATUS.get(ask.payment_token, "authorized" if authorize else "captured")
    return Charge(ask.amount, status, expires_at=now + AUTHORIZED_FOR if authorize else None)


def _outgoing(topic: str, command: Message[Any], payload: Payload, now: datetime) -> Outgoing:
    message: Message[Any] = Message(
        id=str(uuid5(NAMESPACE_URL, f"{type(payload).__name__}:{command.id}")),
        at=now,
        actor="system:payment",
        correlation_id=command.correlation_id,
        causation_id=command.id,
        order_id=command.order_id,
        data=payload,
    )
    return Outgoing(topic, command.order_id or "", message)


STATUS = {"pm_card_chargeDeclined": "declined", "pm_sandbox_timeout": "processing"}
