"""The payment worker: payment.commands → the provider → payment.results. A result whatever happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TypeVar

import structlog

from processors.kit import Outgoing
from processors.payment import rules
from processors.payment.client import HttpPaymentProvider
from processors.payment.provider import (
    AuthorizationOutcome,
    ChargeOutcome,
    NotFound,
    PaymentProvider,
    ProviderUnavailable,
)
from runtime import workers
from runtime.settings import Settings
from schemas.base import Envelope, Message, Payload
from schemas.payment import (
    AuthorizePayment,
    CapturePayment,
    ChargePayment,
    QueryPayment,
    RefundPayment,
    VoidPayment,
)

log = structlog.get_logger(__name__)

C = TypeVar("C", CapturePayment, VoidPayment, RefundPayment)
O = TypeVar("O")  # noqa: E741

SUBMISSIONS = 180
"""How often a capture, a void or a refund is sent. With the runtime's backoff about 25 minutes; then a person must
look."""


def run(settings: Settings, name: str) -> None:
    """Run until SIGTERM or SIGINT. Blocks; raises as `runtime.workers.run`."""
    workers.run(settings, name, _calls)


@asynccontextmanager
async def _calls(settings: Settings) -> AsyncIterator[workers.Handle]:
    async with HttpPaymentProvider(settings.payment_url, settings.payment_request_timeout) as provider:
        yield PaymentWorker(provider).handle


class PaymentWorker:
    """`submissions`: how often a capture, a void or a refund is sent before it is given up."""

    def __init__(self, provider: PaymentProvider, submissions: int = SUBMISSIONS) -> None:
        self._provider = provider
        self._submissions = submissions

    async def handle(self, message: Envelope, attempt: int) -> Sequence[Outgoing]:
        """One command to the provider; its result.

        Raises:
            workers.TryLater: the provider did not take it, and there is still time.
            ValueError: no command to a payment worker.
        """
        if not isinstance(message, Message) or message.order_id is None:
            raise ValueError(f"a {type(message.data).__name__} without an order_id is no payment command")
        result = await self._result(message.data, message.order_id, attempt)
        return [rules.answer(message, message.order_id, result, datetime.now(UTC))]

    async def _result(self, command: Payload, order_id: str, attempt: int) -> Payload:
        provider = self._provider
        match command:
            case ChargePayment() | AuthorizePayment():
                return await self._pay(command, order_id)
            case QueryPayment():
                return await self._ask(command)
            case CapturePayment():
                return await self._settle(
                    command,
                    attempt,
                    lambda: provider.capture(command.capture_id, command.attempt_id, command.amount, command.currency),
                    lambda: provider.find_capture(command.capture_id),
                    rules.of_capture,
                    rules.capture_failed,
                )
            case VoidPayment():
                return await self._settle(
                    command,
                    attempt,
                    lambda: provider.void(command.attempt_id),
                    lambda: provider.find_void(command.attempt_id),
                    rules.of_void,
                    rules.void_failed,
                )
            case RefundPayment():
                return await self._settle(
                    command,
                    attempt,
                    lambda: provider.refund(command.refund_id, command.attempt_id, command.amount, command.currency),
                    lambda: provider.find_refund(command.refund_id),
                    rules.of_refund,
                    rules.refund_failed,
                )
            case other:
                raise ValueError(f"a payment worker knows no {type(other).__name__}")

    async def _pay(self, command: ChargePayment | AuthorizePayment, order_id: str) -> Payload:
        if not rules.may_submit(command, datetime.now(UTC)):
            return await self._ask(command)
        submit = self._provider.charge if isinstance(command, ChargePayment) else self._provider.authorize
        try:
            outcome = await submit(
                command.attempt_id, order_id, command.amount, command.currency, command.payment_token
            )
        except ProviderUnavailable as unavailable:
            raise workers.TryLater(str(unavailable)) from unavailable
        except Exception as error:
            # Money may have moved: better asked about by the saga than left in a dead letter.
            log.exception("payment", attempt_id=command.attempt_id)
            return rules.unknown(command, f"internal: {type(error).__name__}")
        return rules.of_attempt(command, outcome)

    async def _ask(self, command: ChargePayment | AuthorizePayment | QueryPayment) -> Payload:
        try:
            outcome = await self._find(command)
        except ProviderUnavailable as unavailable:
            return rules.unknown(command, f"unavailable: {unavailable}")
        except Exception as error:
            log.exception("find a payment", attempt_id=command.attempt_id)
            return rules.unknown(command, f"internal: {type(error).__name__}")
        return rules.of_attempt(command, outcome)

    async def _find(
        self, command: ChargePayment | AuthorizePayment | QueryPayment
    ) -> ChargeOutcome | AuthorizationOutcome:
        """A question does not say whether the attempt was a charge or an authorization: it is asked for both."""
        if isinstance(command, AuthorizePayment):
            return await self._provider.find_authorization(command.attempt_id)
        outcome = await self._provider.find_charge(command.attempt_id)
        if isinstance(outcome, NotFound) and isinstance(command, QueryPayment):
            return await self._provider.find_authorization(command.attempt_id)
        return outcome

    async def _settle(
        self,
        command: C,
        attempt: int,
        submit: Callable[[], Awaitable[O]],
        find: Callable[[], Awaitable[O | NotFound]],
        result_of: Callable[[C, O], Payload | None],
        failed: Callable[[C, str], Payload],
    ) -> Payload:
        """Send it until the provider says what came of it. At the end of our patience it is asked once more, because
        the answers may be what got lost, and then given up."""
        try:
            result, reason = result_of(command, await submit()), "no answer"
        except ProviderUnavailable as unavailable:
            result, reason = None, str(unavailable)
        except Exception as error:
            log.exception(type(command).__name__, attempt_id=command.attempt_id)
            result, reason = None, f"internal: {type(error).__name__}"
        if result is not None:
            return result
        if attempt + 1 < self._submissions:
            raise workers.TryLater(reason)
        try:
            found = await find()
        except Exception as error:
            log.exception(f"give up {type(command).__name__}", attempt_id=command.attempt_id, error=str(error))
            return failed(command, rules.NO_ANSWER)
        result = None if isinstance(found, NotFound) else result_of(command, found)
        return result or failed(command, rules.NO_ANSWER)
