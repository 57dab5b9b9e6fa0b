"""A simulated shop: customers with plans (`sandbox.people`) who use the HTTP interface as any client would.

Closed loop: so many customers at once, each next one when one has finished. Open loop: customers come when they
come; latency counts from the moment they were due, not from when we got round to them (no coordinated omission).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import aiohttp
import orjson

from sandbox.people import Customer, Persona, Visit

ATTEMPTS = 6
PATIENCE = 60.0
"""Seconds after which we no longer wait for an order to be paid or cancelled."""
PAID = frozenset({"PAYMENT_CONFIRMED", "PROCESSING", "SHIPPED", "DELIVERED"})


class Outcome(StrEnum):
    PAID = "paid"
    CANCELLED = "cancelled"
    DRAFT = "left as a draft"
    REFUSED = "refused"  # by a rule: there never was an order, or it stayed a draft
    UNFINISHED = "unfinished"  # accepted, and still neither paid nor cancelled when we lost patience
    FAILED = "failed"  # an answer that no rule explains


class Refused(Exception):
    """An answer that is not 2xx, as problem+json."""

    def __init__(self, status: int, problem: Mapping[str, Any], what: str) -> None:
        self.status = status
        self.type = str(problem.get("type", "")).rsplit("/", 1)[-1] or str(status)
        self.skus = frozenset(problem.get("skus") or ())
        """What is sold out."""
        super().__init__(f"{what}: {status} {problem.get('detail') or problem.get('title') or problem}")


@dataclass
class Tally:
    """What has happened so far. Latencies in seconds: `create` of the first POST, `read` of GET by id, `paid` from
    creation to PAYMENT_CONFIRMED seen through GET, of orders that are submitted at once with an ordinary card."""

    started: float = field(default_factory=time.perf_counter)
    last_end: float = field(default_factory=time.perf_counter)
    visits: int = 0
    orders: dict[str, Outcome | None] = field(default_factory=dict)
    """Every order accepted, by id, and its end (None: still open)."""
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    retries: int = 0
    failures: list[str] = field(default_factory=list)
    create: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    paid: list[float] = field(default_factory=list)

    finished: int = 0
    """How many of the orders have an end."""

    @property
    def open(self) -> int:
        return len(self.orders) - self.finished

    def seconds(self) -> float:
        return time.perf_counter() - self.started

    @property
    def ended_after(self) -> float:
        """Seconds from the start to the last visit's end."""
        return self.last_end - self.started


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank: the smallest value that `percent` % of all are not above. nan when there are none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


class Shop:
    """Customers' side of the HTTP interface. `token_for` gives the bearer token of a customer id."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        token_for: Callable[[str], str],
        run: str,
        patience: float = PATIENCE,
    ) -> None:
        """`run` makes this run's idempotency keys its own."""
        self._session = session
        self._base = base_url.rstrip("/")
        self._token_for = token_for
        self._run = run
        self._patience = patience
        self._tokens: dict[str, str] = {}
        self.tally = Tally()

    async def visit(self, visit: Visit, due: float) -> None:
        """The whole errand; `due` is when it should have begun (perf_counter). Ends up in the tally, never raises
        for what the shop answers."""
        order: dict[str, Any] = {}
        try:
            try:
                order = await self.create(visit, due)
            except Refused as refused:
                if refused.type != "out-of-stock":
                    raise
                visit, due = self._settle_for_less(visit, refused), time.perf_counter()
                order = await self.create(visit, due, "create again")
            outcome = await self._after_create(visit, order, due)
        except Refused as refused:
            self.tally.refusals[refused.type] += 1
            outcome = Outcome.REFUSED
            if refused.status not in (409, 422):
                outcome = self._failed(str(refused))
        except (aiohttp.ClientError, TimeoutError) as error:
            outcome = self._failed(f"{type(error).__name__}: {error}")
        self.tally.visits += 1
        self.tally.last_end = time.perf_counter()
        self.tally.outcomes[outcome] += 1
        if order:
            self.tally.orders[order["id"]] = outcome
            self.tally.finished += 1

    async def create(self, visit: Visit, due: float, step: str = "create") -> dict[str, Any]:
        """POST /v1/orders. Refused when it is."""
        order = await self._call("POST", "/v1/orders", visit, step, order_body(visit))
        self.tally.create.append(time.perf_counter() - due)
        self.tally.orders[order["id"]] = None
        return order

    def _settle_for_less(self, visit: Visit, refused: Refused) -> Visit:
        """The same basket without what is sold out; raises `refused` when nothing is left."""
        left = tuple((sku, quantity) for sku, quantity in visit.basket if sku not in refused.skus)
        if not left or left == visit.basket:
            raise refused
        self.tally.refusals[refused.type] += 1
        return replace(visit, basket=left)

    async def _after_create(self, visit: Visit, order: dict[str, Any], due: float) -> Outcome:
        match visit.persona:
            case Persona.ABANDONS_DRAFT:
                return Outcome.DRAFT
            case Persona.BUILDS_DRAFT:
                order = await self._build_and_submit(visit, order)
            case Persona.CANCELS:
                await asyncio.sleep(visit.patience)
                order = await self._cancel(visit, order)
            case _:
                pass
        outcome = await self.follow(visit.customer, order)
        if outcome is Outcome.PAID and visit.persona in (Persona.BUYS_AT_ONCE, Persona.WANTS_SCARCE):
            self.tally.paid.append(time.perf_counter() - due)
        return outcome

    async def _cancel(self, visit: Visit, order: dict[str, Any]) -> dict[str, Any]:
        body = {"reason": "changed_mind", "comment": "Found it in the attic."}
        try:
            return await self._call("POST", f"/v1/orders/{order['id']}/cancel", visit, "cancel", body)
        except Refused as refused:
            if refused.type != "cannot-cancel":
                raise
            # It was cancelled already, for another reason.
            self.tally.refusals[refused.type] += 1
            return order

    async def _build_and_submit(self, visit: Visit, order: dict[str, Any]) -> dict[str, Any]:
        """One line more, twice of it, then another goes (or it goes again), and the order is placed."""
        path = f"/v1/orders/{order['id']}"
        sku, quantity = visit.added or visit.basket[0]
        order = await self._call("POST", f"{path}/items", visit, "add", {"sku": sku, "quantity": quantity})
        first, last = order["items"][0]["line_id"], order["items"][-1]["line_id"]
        await self._call("PATCH", f"{path}/items/{last}", visit, "change", {"quantity": quantity + 1})
        await self._call("DELETE", f"{path}/items/{first}", visit, "remove")
        return await self._call("POST", f"{path}/submit", visit, "submit", {"payment_token": visit.payment_token})

    async def follow(self, customer: Customer, order: dict[str, Any]) -> Outcome:
        """Read the order until it is paid or cancelled: each GET waits for the version after the one we know."""
        until = time.perf_counter() + self._patience
        while True:
            if order["status"] in PAID:
                return Outcome.PAID
            if order["status"] == "CANCELLED":
                self.tally.reasons[order["cancellation"]["reason"]] += 1
                return Outcome.CANCELLED
            if time.perf_counter() > until:
                self.tally.failures.append(f"order {order['id']} is still {order['status']}")
                return Outcome.UNFINISHED
            newer = await self.read(customer, order["id"], min_version=order["version"] + 1)
            if newer is None or newer["version"] <= order["version"]:
                await asyncio.sleep(0.05)
            else:
                order = newer

    async def read(self, customer: Customer, order_id: str, min_version: int | None = None) -> dict[str, Any] | None:
        """GET /v1/orders/{id}; None when the view hasn't got it (or that version) yet, or nobody
        answers. Timed, unless it waits."""
        began = time.perf_counter()
        query = {} if min_version is None else {"min_version": str(min_version)}
        url = f"{self._base}/v1/orders/{order_id}"
        try:
            async with self._session.get(url, params=query, headers=self._authorization(customer)) as answer:
                body = await answer.read()
        except aiohttp.ClientConnectionError:
            self.tally.retries += 1
            return None
        if answer.status == 200:
            if min_version is None:
                self.tally.read.append(time.perf_counter() - began)
            found: dict[str, Any] = orjson.loads(body)
            return found
        if answer.status in (404, 429, 503, 504):
            return None
        raise Refused(answer.status, _problem(body), f"GET {order_id}")

    async def _call(
        self, method: str, path: str, visit: Visit, step: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The order as the answer has it. No answer, or "later": again with the same idempotency key, so that it
        happens once."""
        headers = {"Content-Type": "application/json", **self._authorization(visit.customer)}
        if method == "POST":
            headers["Idempotency-Key"] = f"{self._run}-{visit.number}-{step}"
        data = None if body is None else orjson.dumps(body)
        pause = 0.1
        for attempt in range(1, ATTEMPTS + 1):
            try:
                async with self._session.request(method, self._base + path, data=data, headers=headers) as answer:
                    raw = await answer.read()
                    if answer.status == 202:
                        return await self._accepted(visit.customer, answer.headers["Location"])
                    if answer.status < 300:
                        order: dict[str, Any] = orjson.loads(raw)
                        return order
                    if answer.status not in (429, 502, 503, 504) or attempt == ATTEMPTS:
                        raise Refused(answer.status, _problem(raw), f"{method} {path}")
                    pause = float(answer.headers.get("Retry-After", pause * 2))
            except aiohttp.ClientConnectionError:
                if attempt == ATTEMPTS:
                    raise
                pause *= 2
            self.tally.retries += 1
            await asyncio.sleep(min(pause, 5.0))
        raise AssertionError("unreachable")

    async def _accepted(self, customer: Customer, location: str) -> dict[str, Any]:
        """202: the command is taken and its outcome comes later; ask where the answer says until it is there."""
        until = time.perf_counter() + self._patience
        order_id = location.split("?")[0].split("/v1/orders/")[-1].split("/")[0]
        while time.perf_counter() < until:
            if (order := await self.read(customer, order_id)) is not None:
                return order
            await asyncio.sleep(0.1)
        raise TimeoutError(f"accepted, but never seen: order {order_id}")

    def warm(self, customers: Iterable[Customer]) -> None:
        """Have their tokens ready, so that making them takes no time from what is measured."""
        for customer in customers:
            self._authorization(customer)

    def _authorization(self, customer: Customer) -> dict[str, str]:
        token = self._tokens.get(customer.id)
        if token is None:
            token = self._tokens[customer.id] = self._token_for(customer.id)
        return {"Authorization": f"Bearer {token}"}

    def _failed(self, text: str) -> Outcome:
        self.tally.failures.append(text)
        return Outcome.FAILED


def order_body(visit: Visit) -> dict[str, Any]:
    """What POST /v1/orders gets."""
    place = visit.customer.place
    address = {
        "street_address": visit.customer.street_address,
        "city": place.city,
        "state": place.state,
        "postal_code": place.postal_code,
        "country": place.country,
    }
    draft = visit.persona in (Persona.BUILDS_DRAFT, Persona.ABANDONS_DRAFT)
    body = {
        "items": [{"sku": sku, "quantity": quantity} for sku, quantity in visit.basket],
        "currency": visit.customer.currency,
        "shipping_address": {"recipient_name": visit.customer.name, **address},
        "billing_address": {"name": visit.customer.name, **address},
        "shipping_method": visit.shipping_method,
        "submit": not draft,
    }
    return body if draft else {**body, "payment_token": visit.payment_token}


async def closed_loop(shop: Shop, visits: Iterable[Visit], concurrency: int) -> None:
    """`concurrency` customers at a time, until all have been."""
    waiting = iter(visits)

    async def one_after_the_other() -> None:
        for visit in waiting:
            await shop.visit(visit, time.perf_counter())

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(one_after_the_other())


async def open_loop(visits: Iterable[Visit], arrivals: Iterable[float], serve: Callable[[Visit, float], Any]) -> None:
    """Each visit begins when it is due, however many are still there; `serve(visit, due)` is a coroutine function.
    Returns when all have finished."""
    started = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for visit, after in zip(visits, arrivals, strict=False):
            due = started + after
            # Even when we are late: others must get their turn, or the open loop would close.
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task(serve(visit, due))


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
