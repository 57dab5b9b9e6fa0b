"""The port to a payment provider, and its implementation over HTTP (decision 0004).

Money is never guessed about. An outcome says what the provider said; `Unknown` says that nobody knows yet, and
`ProviderUnavailable` that this very request was certainly not processed. The attempt id is the provider's
idempotency key, so the same attempt may be submitted again and charges once.

Amounts are integer minor units. Payment tokens go to the provider and nowhere else: no log, no error message.
"""

from collections.abc import Awaitable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self
from urllib.parse import quote

import aiohttp
import orjson
import structlog
from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.messages.base import Event
from purgatory.domain.messages.events import ContextChanged
from purgatory.domain.model import OpenedState
from pydantic import BaseModel, ValidationError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Captured:
    """Charged. `amount` is what the provider says it took, in minor units: compare it with what was asked."""

    provider_ref: str
    amount: int


@dataclass(frozen=True, slots=True)
class Declined:
    """Not charged, and never will be under this attempt. `code` is the provider's."""

    code: str


@dataclass(frozen=True, slots=True)
class NotFound:
    """The provider has never seen this id. Only ever the answer to a question, never to a submission."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have happened. Ask again later; after `valid_until`, only ask."""

    reason: str


@dataclass(frozen=True, slots=True)
class Refunded:
    provider_ref: str


@dataclass(frozen=True, slots=True)
class RefundRefused:
    """Nothing was given back. `code` is the provider's."""

    code: str


ChargeOutcome = Captured | Declined | NotFound | Unknown
RefundOutcome = Refunded | RefundRefused | Unknown


class ProviderUnavailable(Exception):
    """The request was certainly not processed: nobody was there, or it was turned away at the door.

    It speaks of this call alone. An earlier call with the same id may well have been processed.
    """


class PaymentProvider(Protocol):
    """What OMS asks of a payment provider. Amounts are in minor units, a currency is its ISO 4217 code.

    Every method may raise ProviderUnavailable. A submission repeated with the same id and the same values is safe
    for as long as the provider remembers idempotency keys.
    """

    async def charge(self, attempt_id: str, order_id: str, amount: int, currency: str, token: str) -> ChargeOutcome:
        """Charge and capture at once. Never answers NotFound."""
        ...

    async def find_charge(self, attempt_id: str) -> ChargeOutcome:
        """How the attempt ended. Unknown also when the provider has not finished it."""
        ...

    async def refund(self, refund_id: str, attempt_id: str, amount: int, currency: str) -> RefundOutcome:
        """Give back all or a part of what the attempt captured."""
        ...

    async def find_refund(self, refund_id: str) -> RefundOutcome | NotFound:
        """Whether the refund was made."""
        ...


class HttpPaymentProvider:
    """The port over HTTP, as the sandbox provider speaks it. Open it with `async with`.

    Args:
        base_url: where `/v1/charges` is.
        timeout: seconds for one request, its answer included.
        connect_timeout: seconds to get a connection, the wait for a free one of the pool included.
        attempts: how often a request that was not processed is sent before ProviderUnavailable.
        backoff, backoff_max: seconds; the n-th wait is random, at most backoff x 2^n and backoff_max.
        breaker_threshold: so many failures in a row (all calls together) open the circuit breaker.
        breaker_ttl: seconds for which it then lets nothing through.
        max_connections: size of the pool.
    """

    def __init__(
        self,
        base_url: str,
        timeout: float = 5.0,
        *,
        connect_timeout: float = 2.0,
        attempts: int = 4,
        backoff: float = 0.1,
        backoff_max: float = 2.0,
        breaker_threshold: int = 5,
        breaker_ttl: float = 10.0,
        max_connections: int = 100,
    ) -> None:
        self._base_url = base_url
        self._timeout = aiohttp.ClientTimeout(total=timeout, connect=connect_timeout)
        self._max_connections = max_connections
        self._retrying = AsyncRetrying(
            stop=stop_after_attempt(attempts),
            wait=wait_random_exponential(multiplier=backoff, max=backoff_max),
            retry=retry_if_exception_type(_TurnedAway),
            reraise=True,
        )
        self._breaker = _Breaker(breaker_threshold, breaker_ttl)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        await self._breaker.open()
        self._session = aiohttp.ClientSession(
            self._base_url,
            timeout=self._timeout,
            connector=aiohttp.TCPConnector(limit=self._max_connections),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def charge(self, attempt_id: str, order_id: str, amount: int, currency: str, token: str) -> ChargeOutcome:
        body = {
            "amount": amount,
            "currency": currency,
            "payment_token": token,
            "reference": order_id,
            "capture": True,
        }
        try:
            status, content = await self._send("POST", "/v1/charges", attempt_id, body)
        except _NoAnswer as silence:
            return await _ask_after(silence, self.find_charge(attempt_id))
        return charge_outcome(status, content)

    async def find_charge(self, attempt_id: str) -> ChargeOutcome:
        try:
            status, content = await self._send("GET", f"/v1/charges/{quote(attempt_id, safe='')}")
        except _NoAnswer as silence:
            return Unknown(silence.reason)
        return found_charge(status, content)

    async def refund(self, refund_id: str, attempt_id: str, amount: int, currency: str) -> RefundOutcome:
        body = {"attempt_id": attempt_id, "amount": amount, "currency": currency}
        try:
            status, content = await self._send("POST", "/v1/refunds", refund_id, body)
        except _NoAnswer as silence:
            return await _ask_after(silence, self.find_refund(refund_id))
        return refund_outcome(status, content)

    async def find_refund(self, refund_id: str) -> RefundOutcome | NotFound:
        try:
            status, content = await self._send("GET", f"/v1/refunds/{quote(refund_id, safe='')}")
        except _NoAnswer as silence:
            return Unknown(silence.reason)
        return found_refund(status, content)

    async def _send(
        self, method: str, path: str, key: str | None = None, body: dict[str, object] | None = None
    ) -> tuple[int, bytes]:
        # A copy: an AsyncRetrying keeps what it counts, and calls run side by side.
        return await self._retrying.copy()(self._send_once, method, path, key, body)

    async def _send_once(
        self, method: str, path: str, key: str | None, body: dict[str, object] | None
    ) -> tuple[int, bytes]:
        """One request through the breaker. Raises _NoAnswer or ProviderUnavailable."""
        if self._session is None:
            raise RuntimeError("HttpPaymentProvider is not open: use it in `async with`")
        headers = {"Content-Type": "application/json"}
        if key is not None:
            headers["Idempotency-Key"] = key
        data = None if body is None else orjson.dumps(body)
        async with self._breaker:
            try:
                # aiohttp itself repeats no POST; a redirect must not carry a token elsewhere.
                async with self._session.request(
                    method, path, data=data, headers=headers, allow_redirects=False
                ) as response:
                    status, content = response.status, await response.read()
            except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
                raise _TurnedAway(type(error).__name__) from error
            except (aiohttp.ClientError, TimeoutError) as error:
                raise _NoAnswer(_words(error)) from error
            if status in _TURNED_AWAY:
                raise _TurnedAway(f"HTTP {status}")
            if status >= 500 or status == 408:
                raise _NoAnswer(f"http_{status}")
        if status in _MISCONFIGURED:
            raise ProviderUnavailable(f"HTTP {status}: check the provider's address and credentials")
        return status, content
