"""Asking the order processor and answering with what it said: what every route that changes an order does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import Query
from starlette.responses import Response

from gateway import ids
from gateway.call import Call, Parts, reply
from gateway.documents import order_json
from gateway.problems import Problem, not_found, rejected, unavailable
from processors.order import pricing
from schemas import commands as c
from schemas.base import Payload
from schemas.money import to_text
from schemas.order import CancellationReason, Order, OrderStatus
from schemas.replies import CommandOutcome, Rejection

ORDERS = "/v1/orders"
TOPIC = "order.commands"

DryRun = Annotated[bool, Query(description="only show what it would lead to")]

Addition = Callable[[Order], dict[str, Any]]
"""What an answer says beyond the order."""

_WAITS_FOR_PAYMENT = frozenset({OrderStatus.DRAFT, OrderStatus.PENDING_PAYMENT})


async def do(
    call: Call,
    order_id: str,
    command_id: str,
    data: Payload,
    *,
    dry_run: bool,
    created: bool = False,
    within: str = "",
    adding: Addition | None = None,
) -> Response:
    """Send the command, wait for its outcome, answer with it."""
    if call.respond_async and not dry_run:
        command = call.command(order_id, command_id, data)
        await call.parts.bus.tell(TOPIC, order_id, command, call.body_hash)
        return accepted(order_id, command_id, {"Preference-Applied": "respond-async"})
    outcome = await ask(call, order_id, command_id, data, dry_run)
    return await answer(
        call, order_id, command_id, outcome, dry_run=dry_run, created=created, within=within, adding=adding
    )


async def refuse(
    call: Call,
    order_id: str,
    command_id: str,
    rejection: Rejection,
    dry_run: bool,
    *,
    created: bool = False,
    within: str = "",
    adding: Addition | None = None,
) -> Response:
    """Refuse for what the catalogue says. With an idempotency key the order processor has the word: it may have
    accepted this very request before stock or catalogue changed, and then gives that outcome again."""
    if call.idempotency_key is None or dry_run:
        raise rejected(rejection, within)
    data = c.RefuseRequest(rejection=rejection)
    return await do(call, order_id, command_id, data, dry_run=False, created=created, within=within, adding=adding)


async def ask(call: Call, order_id: str, command_id: str, data: Payload, dry_run: bool) -> CommandOutcome | None:
    command = call.command(order_id, command_id, data, dry_run)
    patience = call.parts.settings.command_timeout
    outcome = await call.parts.bus.ask(TOPIC, order_id, command, call.body_hash, patience)
    if outcome is None:
        return None
    if not isinstance(outcome, CommandOutcome):
        raise TypeError(f"the reply to a command to an order is {type(outcome).__name__}")
    if outcome.order is not None and not dry_run:
        known = call.parts.recent.get(order_id)
        if known is None or known.version < outcome.order.version:  # the outcome of a repeat is an old one
            call.parts.recent[order_id] = outcome.order
    return outcome


async def answer(
    call: Call,
    order_id: str,
    command_id: str,
    outcome: CommandOutcome | None,
    *,
    dry_run: bool,
    created: bool = False,
    within: str = "",
    adding: Addition | None = None,
) -> Response:
    if outcome is None:
        return accepted(order_id, command_id)
    if outcome.rejection is not None:
        raise rejected(outcome.rejection, within)
    order = outcome.order
    if order is None:
        raise ValueError("an accepted command has no order")
    added = adding(order) if adding else {}
    if dry_run:
        await call.parts.addresses.prepare([order])
        preview = order_json(order, call.parts.addresses.open, call.caller.staff)
        return reply({**preview, **added, "shipping_options": _shipping_options(call, order)})
    headers = {}
    if call.wait is not None and _under_way(order):
        order = await _settled(call.parts, order, call.wait)
        headers["Preference-Applied"] = f"wait={call.wait:.0f}"
    if created:
        headers["Location"] = f"{ORDERS}/{order_id}"
    await call.parts.addresses.prepare([order])
    shown = order_json(order, call.parts.addresses.open, call.caller.staff)
    return reply({**shown, **added}, HTTPStatus.CREATED if created else HTTPStatus.OK, headers, order.version)


def accepted(order_id: str, command_id: str, headers: dict[str, str] | None = None) -> Response:
    """202: it will be done; look there."""
    link = f"{ORDERS}/{order_id}/commands/{command_id}"
    found = {"command_id": command_id, "order_id": order_id, "status": "pending", "status_link": link}
    return reply(found, HTTPStatus.ACCEPTED, {**(headers or {}), "Location": link, "Retry-After": "1"})


def _under_way(order: Order) -> bool:
    """Whether a payment or an edit is still to end."""
    return order.status in _WAITS_FOR_PAYMENT or order.edit is not None


async def _settled(parts: Parts, order: Order, patience: float) -> Order:
    """The order once it is paid or cancelled and its edit has ended, or as it is after so many seconds."""
    try:
        newer = await parts.views.wait(
            order.order_id, lambda found: found.version >= order.version and not _under_way(found), patience
        )
    except Problem:
        return order  # the order was placed: that reading is not possible now does not take it back
    return newer if newer is not None and newer.version > order.version else order


async def look(call: Call, order_id: str, *, newest: bool = False) -> Order:
    """The order (its owner, currency and lines), asked of the order processor itself: writing needs no view. Unless it
    must be the `newest`, one that a command has just led to will do. Problem 404 when there is none for this caller."""
    order = None if newest else call.parts.recent.get(order_id)
    if order is None:
        # Any preview shows the order, and leaves nothing behind.
        preview = replace(call, expected_version=None).command(
            order_id, ids.command_id("", "", "", None), c.CancelOrder(reason=CancellationReason.CUSTOMER_REQUEST), True
        )
        patience = call.parts.settings.command_timeout
        outcome = await call.parts.bus.ask(TOPIC, order_id, preview, None, patience)
        if not isinstance(outcome, CommandOutcome):
            raise unavailable("order-unavailable", "The order can't be looked at at the moment.")
        if outcome.order is None:
            raise not_found()
        order = outcome.order
    if not may_see(call, order):
        raise not_found()
    return order


def may_see(call: Call, order: Order) -> bool:
    return call.caller.staff or order.customer_id == call.caller.id


async def owner(call: Call, order_id: str) -> str:
    """Whose order it is. A customer's own id will do: other people's orders are refused later."""
    return (await look(call, order_id)).customer_id if call.caller.staff else call.caller.id


def _shipping_options(call: Call, order: Order) -> list[dict[str, Any]]:
    """The ways these lines can go, with price and estimated delivery if submitted now."""
    policy, lines, currency = call.parts.policy, order.lines, order.currency
    address, now = order.shipping_address, datetime.now(UTC)
    country = address.country if address else None
    return [
        {
            "shipping_method": method,
            "name": rule.name,
            "price": _money(pricing.shipping_price(lines, currency, method, policy, country), currency),
            "estimated_delivery": pricing.estimated_delivery(now, method, policy, address),
        }
        for method, rule in policy.shipping.items()
        if pricing.shipping_problem(lines, currency, method, policy, country) is None
    ]


def _money(minor: int, currency: str) -> dict[str, str]:
    return {"amount": to_text(minor, currency), "currency": currency}
