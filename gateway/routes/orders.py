"""Commands to orders: place, modify, submit, cancel. Each becomes one message on `order.commands`, and its answer is
the outcome that the order processor gave."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from gateway import ids
from gateway.call import AnyCall, Call, OrderId, Parts, reply
from gateway.catalogue import Wish
from gateway.documents import order_json
from gateway.models import (
    BillingAddressBody,
    CancelBody,
    ItemBody,
    NewOrder,
    QuantityBody,
    ShippingAddressBody,
    ShippingMethodBody,
    SubmitBody,
)
from gateway.problems import Problem, document, not_found, rejected, unavailable
from processors.order import pricing
from schemas import commands as c
from schemas.base import Payload
from schemas.money import to_text
from schemas.order import CancellationReason, Order, OrderStatus, Quote
from schemas.replies import CommandOutcome, Rejection

router = APIRouter(prefix="/v1/orders", tags=["orders"])

TOPIC = "order.commands"
REQUOTES = 3
"""How often a submission is sent again because the order changed under its hands."""

DryRun = Annotated[bool, Query(description="only show what it would lead to")]

_WAITS_FOR_PAYMENT = frozenset({OrderStatus.DRAFT, OrderStatus.PENDING_PAYMENT})


@router.post("", status_code=HTTPStatus.CREATED)
async def create(call: AnyCall, body: NewOrder, dry_run: DryRun = False) -> Response:
    """Place an order (`submit`), or make a draft."""
    customer_id = _customer(call, body.customer_id)
    parts = call.parts
    command_id = call.command_id(dry_run)
    order_id = ids.order_id_of(command_id)
    wishes = [Wish(item.sku, item.quantity, f"items[{i}].sku") for i, item in enumerate(body.items)]
    quotes = _quotes_in_stock(parts, wishes, body.currency)
    if isinstance(quotes, Rejection):
        return await _refuse(call, order_id, command_id, quotes, dry_run)
    seal = parts.addresses.seal
    data = c.CreateOrder(
        customer_id=customer_id,
        currency=body.currency,
        lines=tuple(
            c.NewLine(quote=quote, quantity=item.quantity) for quote, item in zip(quotes, body.items, strict=True)
        ),
        shipping_address=body.shipping_address and await seal(customer_id, body.shipping_address),
        billing_address=body.billing_address and await seal(customer_id, body.billing_address),
        shipping_method=body.shipping_method,
        promo_codes=tuple(body.promo_codes),
        payment_token=body.payment_token,
        cart_id=body.cart_id,
        submit=body.submit,
    )
    return await _do(call, order_id, command_id, data, dry_run=dry_run, created=True)


@router.post("/{order_id}/items")
async def add_item(call: AnyCall, order_id: OrderId, body: ItemBody, dry_run: DryRun = False) -> Response:
    command_id = call.command_id(dry_run)
    order = await _look(call, order_id)
    quotes = _quotes_in_stock(call.parts, [Wish(body.sku, body.quantity, "items[0].sku")], order.currency)
    if isinstance(quotes, Rejection):
        return await _refuse(call, order_id, command_id, quotes, dry_run, within="items")
    data = c.AddItem(line=c.NewLine(quote=quotes[0], quantity=body.quantity))
    return await _do(call, order_id, command_id, data, dry_run=dry_run, within="items")


@router.patch("/{order_id}/items/{line_id}")
async def change_quantity(
    call: AnyCall, order_id: OrderId, line_id: str, body: QuantityBody, dry_run: DryRun = False
) -> Response:
    data = c.ChangeQuantity(line_id=line_id, quantity=body.quantity)
    return await _do(call, order_id, call.command_id(dry_run), data, dry_run=dry_run, within="items")


@router.delete("/{order_id}/items/{line_id}")
async def remove_item(call: AnyCall, order_id: OrderId, line_id: str, dry_run: DryRun = False) -> Response:
    return await _do(call, order_id, call.command_id(dry_run), c.RemoveItem(line_id=line_id), dry_run=dry_run)


@router.put("/{order_id}/shipping-address")
async def change_shipping_address(
    call: AnyCall, order_id: OrderId, body: ShippingAddressBody, dry_run: DryRun = False
) -> Response:
    address = await call.parts.addresses.seal(await _owner(call, order_id), body)
    data = c.ChangeShippingAddress(address=address)
    return await _do(call, order_id, call.command_id(dry_run), data, dry_run=dry_run, within="shipping_address")


@router.put("/{order_id}/billing-address")
async def change_billing_address(
    call: AnyCall, order_id: OrderId, body: BillingAddressBody, dry_run: DryRun = False
) -> Response:
    address = await call.parts.addresses.seal(await _owner(call, order_id), body)
    data = c.ChangeBillingAddress(address=address)
    return await _do(call, order_id, call.command_id(dry_run), data, dry_run=dry_run, within="billing_address")


@router.put("/{order_id}/shipping-method")
async def change_shipping_method(
    call: AnyCall, order_id: OrderId, body: ShippingMethodBody, dry_run: DryRun = False
) -> Response:
    data = c.ChangeShippingMethod(shipping_method=body.shipping_method)
    return await _do(call, order_id, call.command_id(dry_run), data, dry_run=dry_run)


@router.post("/{order_id}/submit")
async def submit(call: AnyCall, order_id: OrderId, body: SubmitBody, dry_run: DryRun = False) -> Response:
    """Place a draft at today's prices. Where they change the total, `accept_total` must name the new one."""
    first = command_id = call.command_id(dry_run)
    order = call.parts.recent.get(order_id)
    if order is not None and not may_see(call, order):
        raise not_found()
    sure = False
    for attempt in range(1, REQUOTES + 2):
        data = _submission(call.parts, order, sure, body)
        if isinstance(data, Rejection):
            return await _refuse(call, order_id, command_id, data, dry_run)
        outcome = await _ask(call, order_id, command_id, data, dry_run)
        if outcome is None or outcome.rejection is None or outcome.rejection.type != "quotes-missing":
            return await _answer(call, order_id, command_id, outcome, dry_run=dry_run)
        # The lines that we priced were not (all of) the order's: take them from the answer.
        order, sure, command_id = outcome.order, True, ids.requote_id(first, attempt)
    raise Problem("order-changing", HTTPStatus.CONFLICT, "The order changes faster than it can be priced.")


@router.post("/{order_id}/cancel")
async def cancel(call: AnyCall, order_id: OrderId, body: CancelBody, dry_run: DryRun = False) -> Response:
    data = c.CancelOrder(reason=body.reason, comment=body.comment)
    return await _do(call, order_id, call.command_id(dry_run), data, dry_run=dry_run)


@router.get("/{order_id}/commands/{command_id}")
async def command_status(call: AnyCall, order_id: OrderId, command_id: str) -> Response:
    """What came of a command that was answered 202: pending, accepted or refused. (Repeating the request with its
    Idempotency-Key gives its own answer.)"""
    found: dict[str, Any] = {"command_id": command_id, "order_id": order_id}
    outcome = call.parts.bus.late(command_id)
    order = outcome.order if isinstance(outcome, CommandOutcome) else None
    if order is None:
        order = await call.parts.views.order(order_id)
    if order is not None and not may_see(call, order):
        raise not_found()
    if isinstance(outcome, CommandOutcome) and outcome.rejection is not None:
        problem = document(rejected(outcome.rejection), call.correlation_id)
        return reply({**found, "status": "refused", "problem": problem})
    version = outcome.version if isinstance(outcome, CommandOutcome) else 0
    version = version or await call.parts.views.version_after(order_id, command_id)
    if version:
        return reply({**found, "status": "accepted", "version": version, "order": f"/v1/orders/{order_id}"})
    return reply({**found, "status": "pending"}, headers={"Retry-After": "1"})


# Pricing


def _quotes_in_stock(parts: Parts, wishes: Sequence[Wish], currency: str) -> list[Quote] | Rejection:
    if not parts.catalogue.loaded:
        raise unavailable("catalogue-loading", "The catalogue is still being loaded.")
    quotes = parts.catalogue.quotes(wishes, currency)
    if isinstance(quotes, Rejection):
        return quotes
    return parts.catalogue.shortage(wishes) or quotes


def _submission(parts: Parts, order: Order | None, sure: bool, body: SubmitBody) -> c.SubmitOrder | Rejection:
    """The command with today's quotes of the order's lines. Unless we are `sure` that these are its lines, what can't
    be quoted is left out: where it matters, the order processor says so."""
    quotes: dict[str, Quote] = {}
    currency, lines = (order.currency, order.lines) if order else ("", ())
    for i, line in enumerate(lines):
        priced = parts.catalogue.quotes([Wish(line.sku, line.quantity, f"items[{i}].sku")], currency)
        if not isinstance(priced, Rejection):
            quotes[line.sku] = priced[0]
        elif sure:
            return priced
    accept = body.accept_total
    if order is not None and accept is not None and accept.currency != order.currency:
        return Rejection(
            type="wrong-currency",
            status=HTTPStatus.UNPROCESSABLE_ENTITY,
            field="accept_total.currency",
            detail=f"The order is in {order.currency}.",
        )
    return c.SubmitOrder(
        payment_token=body.payment_token,
        quotes=tuple(quotes.values()),
        accepted_total=None if accept is None else accept.minor,
    )


def _shipping_options(call: Call, order: Order) -> list[dict[str, Any]]:
    """The ways these lines can go, with price and estimated delivery if submitted now."""
    policy, lines, currency = call.parts.policy, order.lines, order.currency
    now = datetime.now(UTC)
    return [
        {
            "shipping_method": method,
            "name": rule.name,
            "price": _money(pricing.shipping_price(lines, currency, method, policy), currency),
            "estimated_delivery": pricing.estimated_delivery(now, method, policy),
        }
        for method, rule in policy.shipping.items()
        if pricing.shipping_problem(lines, currency, method, policy) is None
    ]


# Asking and answering


async def _do(
    call: Call,
    order_id: str,
    command_id: str,
    data: Payload,
    *,
    dry_run: bool,
    created: bool = False,
    within: str = "",
) -> Response:
    """Send the command, wait for its outcome, answer with it."""
    if call.respond_async and not dry_run:
        command = call.command(order_id, command_id, data)
        await call.parts.bus.tell(TOPIC, order_id, command, call.body_hash)
        return _accepted(order_id, command_id, {"Preference-Applied": "respond-async"})
    outcome = await _ask(call, order_id, command_id, data, dry_run)
    return await _answer(call, order_id, command_id, outcome, dry_run=dry_run, created=created, within=within)


async def _refuse(
    call: Call, order_id: str, command_id: str, rejection: Rejection, dry_run: bool, within: str = ""
) -> Response:
    """Refuse for what the catalogue says. With an idempotency key the order processor has the word: it may have
    accepted this very request before stock or catalogue changed, and then gives that outcome again."""
    if call.idempotency_key is None or dry_run:
        raise rejected(rejection, within)
    data = c.RefuseRequest(rejection=rejection)
    return await _do(call, order_id, command_id, data, dry_run=False, created=call.path == router.prefix, within=within)


async def _ask(call: Call, order_id: str, command_id: str, data: Payload, dry_run: bool) -> CommandOutcome | None:
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


async def _answer(
    call: Call,
    order_id: str,
    command_id: str,
    outcome: CommandOutcome | None,
    *,
    dry_run: bool,
    created: bool = False,
    within: str = "",
) -> Response:
    if outcome is None:
        return _accepted(order_id, command_id)
    if outcome.rejection is not None:
        raise rejected(outcome.rejection, within)
    order = outcome.order
    if order is None:
        raise ValueError("an accepted command has no order")
    if dry_run:
        await call.parts.addresses.prepare([order])
        preview = order_json(order, call.parts.addresses.open)
        return reply({**preview, "shipping_options": _shipping_options(call, order)})
    headers = {}
    if call.wait is not None and order.status in _WAITS_FOR_PAYMENT:
        order = await _paid(call.parts, order, call.wait)
        headers["Preference-Applied"] = f"wait={call.wait:.0f}"
    if created:
        headers["Location"] = f"{router.prefix}/{order_id}"
    await call.parts.addresses.prepare([order])
    shown = order_json(order, call.parts.addresses.open)
    return reply(shown, HTTPStatus.CREATED if created else HTTPStatus.OK, headers, order.version)


def _accepted(order_id: str, command_id: str, headers: dict[str, str] | None = None) -> Response:
    """202: it will be done; look there."""
    link = f"{router.prefix}/{order_id}/commands/{command_id}"
    found = {"command_id": command_id, "order_id": order_id, "status": "pending", "status_link": link}
    return reply(found, HTTPStatus.ACCEPTED, {**(headers or {}), "Location": link, "Retry-After": "1"})


async def _paid(parts: Parts, order: Order, patience: float) -> Order:
    """The order once it is paid or cancelled, or as it is after so many seconds."""
    try:
        newer = await parts.views.wait(order.order_id, lambda found: found.status not in _WAITS_FOR_PAYMENT, patience)
    except Problem:
        return order  # the order was placed: that reading is not possible now does not take it back
    return newer if newer is not None and newer.version > order.version else order


async def _look(call: Call, order_id: str) -> Order:
    """The order (its owner, currency and lines), asked of the order processor itself: writing needs no view. Problem
    404 when there is none for this caller."""
    order = call.parts.recent.get(order_id)
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


async def _owner(call: Call, order_id: str) -> str:
    """Whose order it is. A customer's own id will do: other people's orders are refused later."""
    return (await _look(call, order_id)).customer_id if call.caller.staff else call.caller.id


def _customer(call: Call, customer_id: str | None) -> str:
    """For whom an order is created."""
    if not call.caller.staff:
        if customer_id not in (None, call.caller.id):
            raise Problem(
                "forbidden", HTTPStatus.FORBIDDEN, "Only staff may act for somebody else.", field="customer_id"
            )
        return call.caller.id
    if customer_id is None:
        raise Problem(
            "invalid-request", HTTPStatus.UNPROCESSABLE_ENTITY, "Staff must say for whom.", field="customer_id"
        )
    return customer_id


def _money(minor: int, currency: str) -> dict[str, str]:
    return {"amount": to_text(minor, currency), "currency": currency}
