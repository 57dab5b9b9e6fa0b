"""The payment worker: payment.commands → the provider → payment.results. A result whatever happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import structlog

from processors.kit import Outgoing
from processors.payment import rules
from processors.payment.provider import HttpPaymentProvider, PaymentProvider, ProviderUnavailable
from runtime import workers
from runtime.settings import Settings
from schemas.base import Envelope, Message, Payload
from schemas.payment import ChargePayment, QueryPayment, RefundPayment

log = structlog.get_logger(__name__)

REFUND_ATTEMPTS = 180
"""With the runtime's backoff about 25 minutes; then a person must look."""


def run(settings: Settings, name: str) -> None:
    """Run until SIGTERM or SIGINT. Blocks; raises as `runtime.workers.run`."""
    workers.run(settings, name, _calls)


@asynccontextmanager
async def _calls(settings: Settings) -> AsyncIterator[workers.Handle]:
    async with HttpPaymentProvider(settings.payment_url, settings.payment_request_timeout) as provider:
        yield PaymentWorker(provider).handle


class PaymentWorker:
    def __init__(self, provider: PaymentProvider) -> None:
        self._provider = provider

    async def handle(self, message: Envelope, attempt: int) -> Sequence[Outgoing]:
        """One command to the provider; its result.

        Raises:
            workers.TryLater: the provider did not take it, and there is still time.
            ValueError: no command to a payment worker.
        """
        if not isinstance(message, Message) or message.order_id is None:
            raise ValueError(f"a {type(message.data).__name__} without an order_id is no payment command")
        match message.data:
            case ChargePayment() as command:
                result = await self._charge(command, message.order_id)
            case QueryPayment() as command:
                result = await self._ask(command)
            case RefundPayment() as command:
                result = await self._refund(command, attempt)
            case other:
                raise ValueError(f"a payment worker knows no {type(other).__name__}")
        return [rules.answer(message, message.order_id, result, datetime.now(UTC))]

    async def _charge(self, command: ChargePayment, order_id: str) -> Payload:
        if not rules.may_submit(command, datetime.now(UTC)):
            return await self._ask(command)
        try:
            outcome = await self._provider.charge(
                command.attempt_id, order_id, command.amount, command.currency, command.payment_token
            )
        except ProviderUnavailable as unavailable:
            raise workers.TryLater(str(unavailable)) from unavailable
        except Exception as error:
            # Money may have moved: better asked about by the saga than left in a dead letter.
            log.exception("charge", attempt_id=command.attempt_id)
            return rules.unknown(command, f"internal: {type(error).__name__}")
        return rules.of_charge(command, outcome)

    async def _ask(self, command: ChargePayment | QueryPayment) -> Payload:
        try:
            outcome = await self._provider.find_charge(command.attempt_id)
        except ProviderUnavailable as unavailable:
            return rules.unknown(command, f"unavailable: {unavailable}")
        except Exception as error:
            log.exception("find_charge", attempt_id=command.attempt_id)
            return rules.unknown(command, f"internal: {type(error).__name__}")
        return rules.of_charge(command, outcome)

    async def _refund(self, command: RefundPayment, attempt: int) -> Payload:
        try:
            outcome = await self._provider.refund(
                command.refund_id, command.attempt_id, command.amount, command.currency
            )
            result, reason = rules.of_refund(command, outcome), "no answer"
        except ProviderUnavailable as unavailable:
            result, reason = None, str(unavailable)
        except Exception as error:
            log.exception("refund", refund_id=command.refund_id)
            result, reason = None, f"internal: {type(error).__name__}"
        if result is not None:
            return result
        if attempt + 1 < REFUND_ATTEMPTS:
            raise workers.TryLater(reason)
        return rules.refund_failed(command, "no_answer")
