"""Commands to orders: place, modify, submit, cancel. Each becomes one message on `order.commands`, and its answer is
the outcome that the order processor gave."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from gateway import ids
from gateway.call import AnyCall, Call, OrderId, Parts, reply
from gateway.catalogue import Wish
from gateway.commands import Outcome
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
from gateway.problems import Problem, document, not_found, rejected
from processors.order import pricing
from schemas import commands as c
from schemas.base import Payload
from schemas.order import Line, Order, OrderStatus, Quote
from schemas.replies import CommandOutcome, Rejection

router = APIRouter(prefix="/v1/orders", tags=["orders"])

TOPIC = "order.commands"
REQUOTES = 3
"""How often a submission is sent again because the order changed under its hands."""
VIEW_PATIENCE = 2.0

DryRun = Annotated[bool, Query(description="only show what it would lead to")]
Line_ = str

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
    order = await _seen(call, order_id)
    currency = order.currency if order else await _currency(call, order_id)
    quotes = _quotes_in_stock(call.parts, [Wish(body.sku, body.quantity, "items[0].sku")], currency)
    if isinstance(quotes, Rejection):
        return await _refuse(call, order_id, command_id, quotes, dry_run, within="items")
    data = c.AddItem(line=c.NewLine(quote=quotes[0], quantity=body.quantity))
    return await _do(call, order_id, command_id, data, dry_run=dry_run, within="items")


@router.patch("/{order_id}/items/{line_id}")
async def change_quantity(
    call: AnyCall, order_id: OrderId, line_id: Line_, body: QuantityBody, dry_run: DryRun = False
) -> Response:
    data = c.ChangeQuantity(line_id=line_id, quantity=body.quantity)
    return await _do(call, order_id, call.command_id(dry_run), data, dry_run=dry_run, within="items")


@router.delete("/{order_id}/items/{line_id}")
async def remove_item(call: AnyCall, order_id: OrderId, line_id: Line_, dry_run: DryRun = False) -> Response:
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
    order = await _seen(call, order_id)
    for attempt in range(1, REQUOTES + 2):
        data = _submission(call.parts, order, body)
        if isinstance(data, Rejection):
            return await _refuse(call, order_id, command_id, data, dry_run)
        outcome = await _ask(call, order_id, command_id, data, dry_run)
        if outcome is None or outcome.rejection is None or outcome.rejection.type != "quotes-missing":
            return await _answer(call, order_id, command_id, outcome, dry_run=dry_run)
        # The lines that we priced were not (all of) the order's: take them from the answer.
        order, command_id = outcome.order, ids.requote_id(first, attempt)
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
    if order is not None and not _may_see(call, order):
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
    quotes = parts.catalogue.quotes(wishes, currency)
    if isinstance(quotes, Rejection):
        return quotes
    return parts.catalogue.shortage(wishes) or quotes


def _submission(parts: Parts, order: Order | None, body: SubmitBody) -> c.SubmitOrder | Rejection:
    """The command with today's quotes of the order's lines; with none while the order is not known, or not a draft
    (the order processor then says what is the matter)."""
    quotes: list[Quote] = []
    if order is not None and order.status == OrderStatus.DRAFT:
        wishes = [Wish(line.sku, line.quantity, f"items[{i}].sku") for i, line in enumerate(order.lines)]
        priced = parts.catalogue.quotes(wishes, order.currency)
        if isinstance(priced, Rejection):
            return priced
        quotes = list({quote.sku: quote for quote in priced}.values())
        if body.accept_total is not None and body.accept_total.currency != order.currency:
            return Rejection(
                type="wrong-currency",
                status=HTTPStatus.UNPROCESSABLE_ENTITY,
                field="accept_total.currency",
                detail=f"The order is in {order.currency}.",
            )
    accepted = None if body.accept_total is None else body.accept_total.minor
    return c.SubmitOrder(payment_token=body.payment_token, quotes=tuple(quotes), accepted_total=accepted)


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
