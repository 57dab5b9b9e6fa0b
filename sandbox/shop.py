"""A simulated shop: customers with plans (`sandbox.people`) who use the HTTP interface as any client would.

Closed loop: so many customers at once, each next one when one has finished. Open loop: customers come when they
come; latency counts from the moment they were due, not from when we got round to them (no coordinated omission).

A customer is there until the order is paid or cancelled. What becomes of it then (`sandbox.lives`) goes on beside, and
keeps nobody else out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import Any

import aiohttp

from sandbox.client import Client, Refused
from sandbox.lives import PAID, Lives
from sandbox.people import DRAFTS, Customer, Persona, Visit
from sandbox.staff import Partners, PartnersSilent, Staff
from sandbox.tally import Outcome, Tally
from sandbox.travels import Travels

PATIENCE = 60.0
"""Seconds after which we no longer wait for an order to be paid or cancelled."""
ORDINARY = frozenset({Persona.BUYS_AT_ONCE, Persona.WANTS_SCARCE})
"""Whose time from creation to payment is of interest."""


class Shop:
    """Customers' side of the HTTP interface. `token_for` gives the bearer token of a customer id."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        token_for: Callable[[str], str],
        run: str,
        staff_token: str = "",
        partners_url: str = "",
        whole_lives: bool = True,
    ) -> None:
        """`run` makes this run's idempotency keys its own. `partners_url`: of the sandbox's warehouse and carrier.
        `whole_lives`: orders are followed to their end, which needs both; else until they are paid or cancelled."""
        self.tally = Tally()
        self._client = Client(session, base_url, token_for, run, self.tally, staff_token)
        staff = Staff(self._client, session, base_url.rstrip("/"), staff_token, self.tally)
        travels = Travels(self._client, self.tally.notice)
        self._lives = Lives(self._client, staff, Partners(session, partners_url), travels, self.tally)
        self._whole_lives = whole_lives
        self._living: set[asyncio.Task[None]] = set()

    async def visit(self, visit: Visit, due: float) -> None:
        """The whole errand; `due` is when it should have begun (perf_counter). Ends up in the tally, never raises for
        what the shop answers."""
        placed: list[dict[str, Any]] = []
        outcome = await self._outcome(self._shopping(visit, due, placed))
        self.tally.visits += 1
        self.tally.last_end = time.perf_counter()
        if not placed:
            self.tally.outcomes[outcome or Outcome.REFUSED] += 1
        elif outcome is not None:
            self.tally.end(placed[0]["id"], outcome)
        elif self._whole_lives:
            life = asyncio.create_task(self._live(visit, placed[-1]))
            self._living.add(life)
            life.add_done_callback(self._living.discard)
        else:
            order = placed[-1]
            self.tally.end(order["id"], Outcome.CANCELLED if order["status"] == "CANCELLED" else Outcome.PAID)

    async def finish(self) -> None:
        """Returns when every order has come to its end."""
        while self._living:
            await asyncio.gather(*self._living)

    async def _live(self, visit: Visit, order: dict[str, Any]) -> None:
        # What rules may refuse from here on is seen to in `lives`.
        outcome = await self._outcome(self._lives.live(visit, order), refused=Outcome.FAILED)
        self.tally.end(order["id"], outcome or Outcome.UNFINISHED)

    async def _outcome(self, work: Awaitable[Outcome | None], refused: Outcome = Outcome.REFUSED) -> Outcome | None:
        """That of the work, also when it failed (`refused`: by a rule); None: it goes on."""
        try:
            found = await work
        except Refused as error:
            self.tally.refusals[error.type] += 1
            by_a_rule = error.by_a_rule and refused is Outcome.REFUSED
            return refused if by_a_rule else self._failed(str(error))
        except TimeoutError as error:
            self.tally.failures.append(str(error) or "no answer in time")
            return Outcome.UNFINISHED
        except (aiohttp.ClientError, PartnersSilent) as error:
            return self._failed(f"{type(error).__name__}: {error}")
        return found

    async def _shopping(self, visit: Visit, due: float, placed: list[dict[str, Any]]) -> Outcome | None:
        """Until the order (appended to `placed`, as it was and as it has become) is paid or cancelled."""
        if visit.preferences is not None:
            path = f"/v1/customers/{visit.customer.id}/preferences"
            await self._client.call("PUT", path, visit.customer.id, f"{visit.number}-preferences", visit.preferences)
            self.tally.done["preferences said"] += 1
            due = time.perf_counter()
        order = await self._created(visit, due)
        placed.append(order)
        if visit.persona is Persona.ABANDONS_DRAFT:
            return Outcome.DRAFT
        if visit.persona is Persona.BUILDS_DRAFT:
            order = await self._build_and_submit(visit, order)
        if self._whole_lives:
            await self._lives.arrange(visit, order)
        if visit.persona is Persona.CANCELS and visit.patience < 1.0:
            order = await self._cancel(visit, order)
        if visit.persona is Persona.EDITS and not visit.patience:
            order = await self._lives.as_far_as_it_goes(order, self._lives.edit(visit, order))
        order = await self._lives.settle(visit, order)
        placed.append(order)
        if order["status"] == "CANCELLED":
            return Outcome.CANCELLED
        if visit.persona in ORDINARY and order["status"] in PAID:
            self.tally.paid.append(time.perf_counter() - due)
        return None

    async def _created(self, visit: Visit, due: float) -> dict[str, Any]:
        """The order; without what is sold out, and without a code that is used up or does not fit."""
        try:
            return await self.create(visit, due)
        except Refused as refused:
            less = _settle_for_less(visit, refused)
            if less is None:
                raise
            self.tally.refusals[refused.type] += 1
            return await self.create(less, time.perf_counter(), "create-again")

    async def create(self, visit: Visit, due: float, step: str = "create") -> dict[str, Any]:
        """POST /v1/orders. Refused when it is."""
        order = await self._client.call(
            "POST", "/v1/orders", visit.customer.id, f"{visit.number}-{step}", order_body(visit)
        )
        self.tally.create.append(time.perf_counter() - due)
        self.tally.created(order)
        return order

    async def _cancel(self, visit: Visit, order: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(visit.patience)
        try:
            return await self._lives.cancel(visit, order)
        except Refused as refused:
            if refused.type != "cannot-cancel":
                raise
            # It was cancelled already, for another reason.
            self.tally.refusals[refused.type] += 1
            return order

    async def _build_and_submit(self, visit: Visit, order: dict[str, Any]) -> dict[str, Any]:
        """One line more, twice of it, then another goes (or it goes again), and the order is placed."""
        path, who = f"/v1/orders/{order['id']}", visit.customer.id
        sku, quantity = visit.added or visit.basket[0]
        order = await self._client.call(
            "POST", f"{path}/items", who, f"{visit.number}-add", {"sku": sku, "quantity": quantity}
        )
        first, last = order["items"][0]["line_id"], order["items"][-1]["line_id"]
        more = {"quantity": quantity + 1}
        await self._client.call("PATCH", f"{path}/items/{last}", who, f"{visit.number}-change", more)
        await self._client.call("DELETE", f"{path}/items/{first}", who, f"{visit.number}-remove")
        card = {"payment_token": visit.payment_token}
        return await self._client.call("POST", f"{path}/submit", who, f"{visit.number}-submit", card)

    async def follow(self, customer: Customer, order: dict[str, Any]) -> dict[str, Any]:
        """Read the order until it is paid or cancelled. TimeoutError."""
        return await self._client.follow(
            customer.id, order, lambda found: found["status"] in PAID or found["status"] == "CANCELLED", PATIENCE
        )

    async def read(self, customer: Customer, order_id: str) -> dict[str, Any] | None:
        """GET /v1/orders/{id}; None when the view hasn't got it yet, or nobody answers."""
        return await self._client.read(customer.id, order_id)

    def warm(self, customers: Iterable[Customer]) -> None:
        """Have their tokens ready, so that making them takes no time from what is measured."""
        for customer in customers:
            self._client.warm(customer.id)

    def _failed(self, text: str) -> Outcome:
        self.tally.failures.append(text)
        return Outcome.FAILED


def _settle_for_less(visit: Visit, refused: Refused) -> Visit | None:
    """The same errand without what was refused; None when nothing is left, or that isn't why."""
    if refused.type == "out-of-stock":
        left = tuple((sku, quantity) for sku, quantity in visit.basket if sku not in refused.skus)
        return replace(visit, basket=left) if left and left != visit.basket else None
    if visit.code is not None and refused.type.startswith("promotion-"):
        return replace(visit, code=None)
    return None


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
    draft = visit.persona in DRAFTS
    body = {
        "items": [{"sku": sku, "quantity": quantity} for sku, quantity in visit.basket],
        "currency": visit.customer.currency,
        "shipping_address": {"recipient_name": visit.customer.name, **address},
        "billing_address": {"name": visit.customer.name, **address},
        "shipping_method": visit.shipping_method,
        "promo_codes": [visit.code] if visit.code else [],
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
