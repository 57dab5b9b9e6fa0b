"""Calls to somebody else's HTTP service: what was certainly not processed is repeated, a service that is down is left
alone for a while (circuit breaker), and an answer that didn't come is told apart from a refusal (decision 0004)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
import orjson
import structlog
from purgatory import AsyncCircuitBreakerFactory
from purgatory.domain.messages.base import Event
from purgatory.domain.messages.events import ContextChanged
from purgatory.domain.model import HALF_OPENED, OpenedState
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Unavailable(Exception):
    """The request was certainly not processed: nobody was there, or it was turned away at the door."""


class TurnedAway(Unavailable):
    """Not processed, and worth another try."""


class NoAnswer(Exception):
    """Sent, and nothing usable came back: it may have been processed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Client:
    """A client of one service. Open it with `async with`.

    Args:
        name: the service's, for the log.
        base_url: where its paths begin.
        timeout: seconds for one request, its answer included.
        connect_timeout: seconds to get a connection, the wait for a free one of the pool included.
        attempts: how often a request that was not processed is sent before Unavailable.
        backoff, backoff_max: seconds; the n-th wait is random, at most backoff x 2^n and backoff_max.
        breaker_threshold: so many failures in a row (all calls together) open the circuit breaker.
        breaker_ttl: seconds for which it then lets nothing through.
        max_connections: size of the pool.
    """

    def __init__(
        self,
        name: str,
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
            retry=retry_if_exception_type(TurnedAway),
            reraise=True,
        )
        self._breaker = Breaker(name, breaker_threshold, breaker_ttl)
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

    async def send(
        self, method: str, path: str, key: str | None = None, body: Mapping[str, object] | None = None
    ) -> tuple[int, bytes]:
        """Status and content of the answer, which is not 408, 429 or 5xx. `key`: the Idempotency-Key.

        Raises:
            Unavailable: it was not processed.
            NoAnswer: it may have been.
        """

        async def once() -> tuple[int, bytes]:
            return await self._breaker.call(lambda: self._exchange(method, path, key, body))

        # A copy: an AsyncRetrying keeps counts of its call, and calls run side by side.
        return await self._retrying.copy()(once)

    async def _exchange(
        self, method: str, path: str, key: str | None, body: Mapping[str, object] | None
    ) -> tuple[int, bytes]:
        if self._session is None:
            raise RuntimeError("the client is not open: use it in `async with`")
        headers = {"Content-Type": "application/json"}
        if key is not None:
            headers["Idempotency-Key"] = key
        data = None if body is None else orjson.dumps(body)
        try:
            # No redirects: addresses go to the configured place only. aiohttp repeats a lost GET, never a POST.
            async with self._session.request(
                method, path, data=data, headers=headers, allow_redirects=False
            ) as response:
                status, content = response.status, await response.read()
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise TurnedAway(type(error).__name__) from error
        except TimeoutError as error:
            raise NoAnswer("timeout") from error
        except aiohttp.ClientError as error:
            raise NoAnswer("connection_lost") from error
        if status in (429, 503):
            raise TurnedAway(f"HTTP {status}")
        if status == 408 or status >= 500:
            raise NoAnswer(f"http_{status}")
        return status, content


class Breaker:
    """purgatory's breaker, less three of its habits (decision 0004)."""

    def __init__(self, name: str, threshold: int, ttl: float) -> None:
        self._name = name
        self._circuits = AsyncCircuitBreakerFactory(threshold, ttl)
        self._circuits.add_listener(self._log)
        self._probing = False

    async def call(self, request: Callable[[], Awaitable[T]]) -> T:
        """Make the request, or raise Unavailable while the circuit is open."""
        circuit = await self._circuits.get_breaker(self._name)
        if self._probing:  # purgatory lets everyone through a half-open circuit, into a service that may hang
            raise Unavailable("circuit breaker half open")
        try:
            await circuit.__aenter__()
        except OpenedState as opened:
            # purgatory raises one instance again and again; its traceback would grow with every call.
            opened.__traceback__ = None
            raise Unavailable("circuit breaker open") from None
        probe = self._probing = circuit.context.state == HALF_OPENED
        try:
            answer = await request()
        except Exception as error:
            # Not BaseException: a cancelled call says nothing of the service, purgatory counts it as a failure.
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
