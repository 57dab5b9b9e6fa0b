"""The other side of the payment topics in the simulation: a provider that keeps its ledger in a dict, asked by the
rules of the payment worker (submit before valid_until, later only ask; a result whatever happens)."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from processors.kit import Outgoing
from schemas import payment as p
from schemas.base import Message, Payload


@dataclass
class Charge:
    amount: int
    status: str  # captured | declined | processing
    refunded: int = 0


@dataclass
class Bank:
    """`charges`: attempt id → what the provider did with it; each is made once, however often it is asked for."""

    charges: dict[str, Charge] = field(default_factory=dict)
    refunds: dict[str, int] = field(default_factory=dict)

    def handle(self, command: Message[Any], now: datetime) -> list[Outgoing]:
        match command.data:
            case p.ChargePayment() as ask:
                if ask.attempt_id not in self.charges and now < ask.valid_until:
                    self.charges[ask.attempt_id] = Charge(ask.amount, STATUS.get(ask.payment_token, "captured"))
                return [self._outgoing(command, self._found(ask, asked=0))]
            case p.QueryPayment() as query:
                return [self._outgoing(command, self._found(query, asked=query.asked))]
            case p.RefundPayment() as refund:
                return [self._outgoing(command, self._refund(refund))]
            case other:
                raise TypeError(f"{type(other).__name__} is no payment command")

    def _found(self, ask: p.ChargePayment | p.QueryPayment, asked: int) -> Payload:
        charge = self.charges.get(ask.attempt_id)
        if charge is None:
            return p.PaymentNotMade(attempt_id=ask.attempt_id)
        if charge.status == "captured":
            return p.PaymentCaptured(
                attempt_id=ask.attempt_id, amount=charge.amount, currency=ask.currency, provider_ref="ch"
            )
        if charge.status == "declined":
            return p.PaymentDeclined(attempt_id=ask.attempt_id, code="card_declined")
        return p.PaymentUnknown(
            attempt_id=ask.attempt_id, amount=ask.amount, currency=ask.currency, reason="no answer", asked=asked
        )

    def _refund(self, ask: p.RefundPayment) -> Payload:
        charge = self.charges[ask.attempt_id]
        if ask.refund_id not in self.refunds:
            assert charge.refunded + ask.amount <= charge.amount, "more is refunded than was captured"
            charge.refunded += ask.amount
            self.refunds[ask.refund_id] = ask.amount
        return p.PaymentRefunded(
            refund_id=ask.refund_id,
            attempt_id=ask.attempt_id,
            amount=ask.amount,
            currency=ask.currency,
            provider_ref="re",
        )

    @staticmethod
    def _outgoing(command: Message[Any], result: Payload) -> Outgoing:
        message: Message[Any] = Message(
            id=str(uuid5(NAMESPACE_URL, f"{type(result).__name__}:{command.id}")),
            at=command.at,
            actor="system:payment",
            correlation_id=command.correlation_id,
            causation_id=command.id,
            order_id=command.order_id,
            data=result,
        )
        return Outgoing("payment.results", command.order_id or "", message)


STATUS = {"pm_card_chargeDeclined": "declined", "pm_sandbox_timeout": "processing"}
