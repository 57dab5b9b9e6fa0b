"""The port to a payment provider, and its implementation over HTTP (decision 0004).

Money is never guessed about. An outcome says what the provider said; `Unknown` says that nobody knows yet, and
`ProviderUnavailable` that this very request was certainly not processed. The attempt id is the provider's
idempotency key, so the same attempt may be submitted again and charges once.

Amounts are integer minor units. Payment tokens go to the provider and nowhere else: no log, no error message.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self, TypeVar
from urllib.parse import quote

import aiohttp
import orjson
import structlog
from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.messages.base import Event
from purgatory.domain.messages.events import ContextChanged
from purgatory.domain.model import HALF_OPENED, OpenedState
from pydantic import BaseModel, ValidationError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

log = structlog.get_logger(__name__)

T = TypeVar("T")


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
            return charge_outcome(*await self._send("POST", "/v1/charges", attempt_id, body))
        except _NoAnswer as silence:
            return await _ask_after(silence, self.find_charge(attempt_id))

    async def find_charge(self, attempt_id: str) -> ChargeOutcome:
        try:
            return found_charge(*await self._send("GET", f"/v1/charges/{quote(attempt_id, safe='')}"))
        except _NoAnswer as silence:
            return Unknown(silence.reason)

    async def refund(self, refund_id: str, attempt_id: str, amount: int, currency: str) -> RefundOutcome:
        body = {"attempt_id": attempt_id, "amount": amount, "currency": currency}
        try:
            return refund_outcome(*await self._send("POST", "/v1/refunds", refund_id, body))
        except _NoAnswer as silence:
            return await _ask_after(silence, self.find_refund(refund_id))

    async def find_refund(self, refund_id: str) -> RefundOutcome | NotFound:
        try:
            return found_refund(*await self._send("GET", f"/v1/refunds/{quote(refund_id, safe='')}"))
        except _NoAnswer as silence:
            return Unknown(silence.reason)

    async def _send(
        self, method: str, path: str, key: str | None = None, body: dict[str, object] | None = None
    ) -> tuple[int, bytes]:
        """Status and content of the answer. Raises _NoAnswer or ProviderUnavailable."""

        async def once() -> tuple[int, bytes]:
            return await self._breaker.call(lambda: self._exchange(method, path, key, body))

        # A copy: an AsyncRetrying keeps counts of its call, and calls run side by side.
        return await self._retrying.copy()(once)

    async def _exchange(
        self, method: str, path: str, key: str | None, body: dict[str, object] | None
    ) -> tuple[int, bytes]:
        if self._session is None:
            raise RuntimeError("HttpPaymentProvider is not open: use it in `async with`")
        headers = {"Content-Type": "application/json"}
        if key is not None:
            headers["Idempotency-Key"] = key
        data = None if body is None else orjson.dumps(body)
        try:
            # No redirects: a token goes to the configured address only. aiohttp repeats a lost GET, never a POST.
            async with self._session.request(
                method, path, data=data, headers=headers, allow_redirects=False
            ) as response:
                status, content = response.status, await response.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise _TurnedAway(type(error).__name__) from error
        except TimeoutError as error:
            raise _NoAnswer("timeout") from error
        except aiohttp.ClientError as error:
            raise _NoAnswer("connection_lost") from error
        if status in (429, 503):
            raise _TurnedAway(f"HTTP {status}")
        if status == 408 or status >= 500:
            raise _NoAnswer(f"http_{status}")
        return status, content


class _TurnedAway(ProviderUnavailable):
    """Not processed, and worth another try."""


class _NoAnswer(Exception):
    """Sent, and nothing usable came back."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Breaker:
    """purgatory's breaker, less three of its habits (decision 0004)."""

    def __init__(self, threshold: int, ttl: float) -> None:
        self._circuits = AsyncCircuitBreakerFactory(threshold, ttl)
        self._circuits.add_listener(self._log)
        self._probing = False

    async def call(self, request: Callable[[], Awaitable[T]]) -> T:
        """Make the request, or raise ProviderUnavailable while the circuit is open."""
        circuit = await self._circuits.get_breaker("payment-provider")
        if self._probing:  # purgatory lets everyone through a half-open circuit, into a provider that may hang
            raise ProviderUnavailable("circuit breaker half open")
        try:
            await circuit.__aenter__()
        except OpenedState as opened:
            # purgatory raises one instance again and again; its traceback would grow with every call.
            opened.__traceback__ = None
            raise ProviderUnavailable("circuit breaker open") from None
        probe = self._probing = circuit.context.state == HALF_OPENED
        try:
            answer = await request()
        except Exception as error:
            # Not BaseException: a cancelled call says nothing of the provider, purgatory counts it as a failure.
            await circuit.__aexit__(type(error), error, error.__traceback__)
            raise
        finally:
            if probe:
                self._probing = False
        await circuit.__aexit__(None, None, None)
        return answer

    @staticmethod
    def _log(name: str, kind: str, event: Event) -> None:
        if isinstance(event, ContextChanged):
            log.warning("circuit breaker", circuit=name, state=event.state)


async def _ask_after(silence: _NoAnswer, question: Awaitable[T | NotFound]) -> T | Unknown:
    """What the provider knows of a submission that it did not answer."""
    try:
        found = await question
    except ProviderUnavailable:
        return Unknown(silence.reason)
    # Not seen is not "will not be seen": the submission may still be on its way.
    return Unknown(f"{silence.reason}, not seen yet") if isinstance(found, NotFound) else found


class _Charge(BaseModel):
    id: str
    status: Literal["captured", "declined", "processing"]
    amount: int
    decline_code: str | None = None


class _Refund(BaseModel):
    id: str
    status: Literal["refunded"]


class _Error(BaseModel):
    code: str


class _ErrorAnswer(BaseModel):
    error: _Error


# The provider's answers as outcomes, pure. They raise _NoAnswer for an unreadable 200, and ProviderUnavailable for
# what the provider does not say: a proxy's 404, refused credentials. A decline needs the provider's own code.


def charge_outcome(status: int, content: bytes) -> ChargeOutcome:
    """The answer to `POST /v1/charges`."""
    if status == 200:
        return _charge(content)
    code = _code(content)
    if status == 409:  # the id was used for another charge, and what became of that one is not this one's outcome
        return Unknown(code or "http_409")
    if status in (400, 422) and code is not None:
        return Declined(code)
    raise ProviderUnavailable(f"HTTP {status}")


def found_charge(status: int, content: bytes) -> ChargeOutcome:
    """The answer to `GET /v1/charges/{attempt_id}`."""
    if status == 200:
        return _charge(content)
    if status == 404 and _code(content) == "charge_not_found":
        return NotFound()
    raise ProviderUnavailable(f"HTTP {status}")


def refund_outcome(status: int, content: bytes) -> RefundOutcome:
    """The answer to `POST /v1/refunds`."""
    if status == 200:
        return _refund(content)
    code = _code(content)
    if status == 409 and code in (None, "idempotency_key_reuse"):
        return Unknown(code or "http_409")
    if code is not None and (status in (400, 409, 422) or code == "charge_not_found"):
        return RefundRefused(code)
    raise ProviderUnavailable(f"HTTP {status}")


def found_refund(status: int, content: bytes) -> RefundOutcome | NotFound:
    """The answer to `GET /v1/refunds/{refund_id}`."""
    if status == 200:
        return _refund(content)
    if status == 404 and _code(content) == "refund_not_found":
        return NotFound()
    raise ProviderUnavailable(f"HTTP {status}")


def _charge(content: bytes) -> ChargeOutcome:
    try:
        charge = _Charge.model_validate_json(content)
    except ValidationError:
        raise _NoAnswer("unreadable_answer") from None
    if charge.status == "captured":
        return Captured(charge.id, charge.amount)
    if charge.status == "declined":
        return Declined(charge.decline_code or "declined")
    return Unknown("processing")


def _refund(content: bytes) -> Refunded:
    try:
        return Refunded(_Refund.model_validate_json(content).id)
    except ValidationError:
        raise _NoAnswer("unreadable_answer") from None


def _code(content: bytes) -> str | None:
    try:
        return _ErrorAnswer.model_validate_json(content).error.code
    except ValidationError:
        return None
