"""The HTTP interface as any client would use it: bearer tokens, idempotency keys, another try when nobody answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import aiohttp
import orjson

from sandbox.catalogue import ATTEMPTS, LATER
from sandbox.tally import Tally


class Refused(Exception):
    """An answer that is not 2xx, as problem+json."""

    def __init__(self, status: int, problem: Mapping[str, Any], what: str) -> None:
        self.status = status
        self.type = str(problem.get("type", "")).rsplit("/", 1)[-1] or str(status)
        self.skus = frozenset(problem.get("skus") or ())
        """What is sold out."""
        super().__init__(f"{what}: {status} {problem.get('detail') or problem.get('title') or problem}")

    @property
    def by_a_rule(self) -> bool:
        return self.status in (409, 422)


class Client:
    """`token_for` gives the bearer token of a customer id, `staff` is that of a member of staff. `run` makes this run's
    idempotency keys its own."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        token_for: Callable[[str], str],
        run: str,
        tally: Tally,
        staff: str = "",
        patience: float = 60.0,
    ) -> None:
        self._session = session
        self._base = base_url.rstrip("/")
        self._token_for = token_for
        self._run = run
        self._tally = tally
        self._staff = staff
        self._patience = patience
        self._tokens: dict[str, str] = {}

    def warm(self, customer_id: str) -> None:
        """Have the token ready, so that making it takes no time from what is measured."""
        self._authorization(customer_id)

    async def call(
        self, method: str, path: str, who: str | None, key: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """What the answer holds. `who`: a customer id, None: staff. No answer, or "later": again with the same
        idempotency key, so that it happens once. Refused; aiohttp.ClientError; TimeoutError."""
        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": f"{self._run}-{key}",
            **self._authorization(who),
        }
        data = None if body is None else orjson.dumps(body)
        pause = 0.1
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with self._session.request(method, self._base + path, data=data, headers=headers) as answer:
                    raw = await answer.read()
                    if answer.status == 202:
                        return await self._accepted(who, answer.headers["Location"])
                    if answer.status < 300:
                        found: dict[str, Any] = orjson.loads(raw)
                        return found
                    if answer.status not in LATER or attempt == ATTEMPTS:
                        raise Refused(answer.status, _problem(raw), f"{method} {path}")
                    pause = float(answer.headers.get("Retry-After", pause * 2))
            except aiohttp.ClientConnectionError:
                if attempt == ATTEMPTS:
                    raise
                pause *= 2
            self._tally.retries += 1
            await asyncio.sleep(min(pause, 5.0))
        raise AssertionError("unreachable")

    async def get(
        self, path: str, who: str | None, query: Mapping[str, str] | Sequence[tuple[str, str]] | None = None
    ) -> dict[str, Any] | None:
        """What the answer holds; None when it is not there (yet), or nobody answers. Refused."""
        try:
            async with self._session.get(self._base + path, params=query, headers=self._authorization(who)) as answer:
                raw = await answer.read()
        except (aiohttp.ClientConnectionError, TimeoutError):
            self._tally.retries += 1
            return None
        if answer.status == 200:
            found: dict[str, Any] = orjson.loads(raw)
            return found
        if answer.status in (404, *LATER):
            return None
        raise Refused(answer.status, _problem(raw), f"GET {path}")

    async def read(self, who: str | None, order_id: str, min_version: int | None = None) -> dict[str, Any] | None:
        """GET /v1/orders/{id}; None when the view hasn't got it (or that version) yet, or nobody answers. Timed,
        unless it waits."""
        began = time.perf_counter()
        query = None if min_version is None else {"min_version": str(min_version)}
        order = await self.get(f"/v1/orders/{order_id}", who, query)
        if order is not None:
            if min_version is None:
                self._tally.read.append(time.perf_counter() - began)
            self._tally.notice(order)
        return order

    async def follow(
        self, who: str | None, order: dict[str, Any], until: Callable[[dict[str, Any]], bool], patience: float
    ) -> dict[str, Any]:
        """The order once it is as wanted: each GET waits for the version after the one we know. TimeoutError."""
        deadline = time.perf_counter() + patience
        while not until(order):
            if time.perf_counter() > deadline:
                raise TimeoutError(f"order {order['id']} is still {order['status']} after {patience:.0f} s")
            newer = await self.read(who, order["id"], min_version=order["version"] + 1)
            if newer is None or newer["version"] <= order["version"]:
                await asyncio.sleep(0.05)
            else:
                order = newer
        return order

    async def _accepted(self, who: str | None, location: str) -> dict[str, Any]:
        """202: the command is taken and its outcome comes later; ask where the answer says until it is there."""
        until = time.perf_counter() + self._patience
        order_id = location.split("/v1/orders/")[-1].split("/")[0]
        while time.perf_counter() < until:
            told = await self.get(location, who)
            if told is not None and told["status"] == "refused":
                raise Refused(told["problem"]["status"], told["problem"], location)
            if told is not None and told["status"] == "accepted":
                order = await self.read(who, order_id, min_version=told["version"])
                if order is not None:
                    return order
            await asyncio.sleep(0.2)
        raise TimeoutError(f"accepted, but never seen: order {order_id}")

    def _authorization(self, who: str | None) -> dict[str, str]:
        if who is None:
            return {"Authorization": f"Bearer {self._staff}"}
        token = self._tokens.get(who)
        if token is None:
            token = self._tokens[who] = self._token_for(who)
        return {"Authorization": f"Bearer {token}"}


def session(limit: int = 0) -> aiohttp.ClientSession:
    """A client for many requests at once; `limit`: connections (0: any number)."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=limit, force_close=False, keepalive_timeout=30),
        timeout=aiohttp.ClientTimeout(total=60, connect=10),
    )


def _problem(body: bytes) -> Mapping[str, Any]:
    try:
        problem = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {"detail": body[:300].decode(errors="replace")}
    return problem if isinstance(problem, dict) else {"detail": str(problem)[:300]}
