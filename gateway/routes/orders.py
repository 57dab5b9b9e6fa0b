"""Commands to orders: place, modify, submit, cancel. Each becomes one message on `order.commands`, and its answer is
the outcome that the order processor gave."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from gateway import ids
from gateway.asking import DryRun, answer, ask, do, look, may_see, owner, refuse
from gateway.call import AnyCall, Call, OrderId, Parts, reply
from gateway.catalogue import Wish
from gateway.models import (
    AddItemBody,
    BillingAddressBody,
    CancelBody,
    NewOrder,
    PayBody,
    PromoCode,
    PromoCodeBody,
    QuantityBody,
    ShippingAddressBody,
    ShippingMethodBody,
    SubmitBody,
)
from gateway.problems import Problem, document, not_found, rejected, unavailable
from schemas import commands as c
from schemas.order import Order, Quote
from schemas.replies import CommandOutcome, Rejection

router = APIRouter(prefix="/v1/orders", tags=["orders"])

REQUOTES = 3
"""How often a submission is sent again because the order changed under its hands."""

Reason = Annotated[str | None, Query(max_length=500, description="why, for the audit trail")]


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
        return await refuse(call, order_id, command_id, quotes, dry_run, created=True)
    if used_up := _first_used_up(parts, body.promo_codes):
        return await refuse(call, order_id, command_id, used_up, dry_run, created=True)
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
        promotions=parts.promotions.terms(body.promo_codes),
        payment_token=body.payment_token,
        cart_id=body.cart_id,
        submit=body.submit,
    )
    return await do(call, order_id, command_id, data, dry_run=dry_run, created=True)


@router.post("/{order_id}/items")
async def add_item(call: AnyCall, order_id: OrderId, body: AddItemBody, dry_run: DryRun = False) -> Response:
    """Add a product. In a placed order this is an edit: it happens when its stock and money are there (`edit` of the
    order shows it until then; `Prefer: wait=N` waits for its end)."""
    command_id = call.command_id(dry_run)
    order = await look(call, order_id)
    quotes = _quotes_in_stock(call.parts, [Wish(body.sku, body.quantity, "items[0].sku")], order.currency)
    if isinstance(quotes, Rejection):
        return await refuse(call, order_id, command_id, quotes, dry_run, within="items")
    data = c.AddItem(line=c.NewLine(quote=quotes[0], quantity=body.quantity), reason=body.reason)
    return await do(call, order_id, command_id, data, dry_run=dry_run, within="items")


@router.patch("/{order_id}/items/{line_id}")
async def change_quantity(
    call: AnyCall, order_id: OrderId, line_id: str, body: QuantityBody, dry_run: DryRun = False
) -> Response:
    data = c.ChangeQuantity(line_id=line_id, quantity=body.quantity, reason=body.reason)
    return await do(call, order_id, call.command_id(dry_run), data, dry_run=dry_run, within="items")


@router.delete("/{order_id}/items/{line_id}")
async def remove_item(
    call: AnyCall, order_id: OrderId, line_id: str, reason: Reason = None, dry_run: DryRun = False
) -> Response:
    data = c.RemoveItem(line_id=line_id, reason=reason)
    return await do(call, order_id, call.command_id(dry_run), data, dry_run=dry_run)


@router.put("/{order_id}/shipping-address")
async def change_shipping_address(
    call: AnyCall, order_id: OrderId, body: ShippingAddressBody, reason: Reason = None, dry_run: DryRun = False
) -> Response:
    address = await call.parts.addresses.seal(await owner(call, order_id), body)
    data = c.ChangeShippingAddress(address=address, reason=reason)
    return await do(call, order_id, call.command_id(dry_run), data, dry_run=dry_run, within="shipping_address")


@router.put("/{order_id}/billing-address")
async def change_billing_address(
    call: AnyCall, order_id: OrderId, body: BillingAddressBody, reason: Reason = None, dry_run: DryRun = False
) -> Response:
    address = await call.parts.addresses.seal(await owner(call, order_id), body)
    data = c.ChangeBillingAddress(address=address, reason=reason)
    return await do(call, order_id, call.command_id(dry_run), data, dry_run=dry_run, within="billing_address")


@router.put("/{order_id}/shipping-method")
async def change_shipping_method(
    call: AnyCall, order_id: OrderId, body: ShippingMethodBody, dry_run: DryRun = False
) -> Response:
    data = c.ChangeShippingMethod(shipping_method=body.shipping_method, reason=body.reason)
    return await do(call, order_id, call.command_id(dry_run), data, dry_run=dry_run)


@router.post("/{order_id}/promo-codes")
async def apply_promotion(call: AnyCall, order_id: OrderId, body: PromoCodeBody, dry_run: DryRun = False) -> Response:
    command_id = call.command_id(dry_run)
    found = call.parts.promotions.terms([body.code])
    refusal = _used_up(call.parts, body.code, "code") if found else _unknown_code(body.code)
    if refusal:
        return await refuse(call, order_id, command_id, refusal, dry_run)
    data = c.ApplyPromotion(terms=found[0], reason=body.reason)
    return await do(call, order_id, command_id, data, dry_run=dry_run)


@router.delete("/{order_id}/promo-codes/{code}")
async def remove_promotion(
    call: AnyCall,
    order_id: OrderId,
    code: Annotated[PromoCode, Path()],
    reason: Reason = None,
    dry_run: DryRun = False,
) -> Response:
    data = c.RemovePromotion(code=code, reason=reason)
    return await do(call, order_id, call.command_id(dry_run), data, dry_run=dry_run)


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
            return await refuse(call, order_id, command_id, data, dry_run)
        outcome = await ask(call, order_id, command_id, data, dry_run)
        if outcome is None or outcome.rejection is None or outcome.rejection.type != "quotes-missing":
            return await answer(call, order_id, command_id, outcome, dry_run=dry_run)
        # The lines that we priced were not (all of) the order's: take them from the answer.
        order, sure, command_id = outcome.order, True, ids.requote_id(first, attempt)
    raise Problem("order-changing", HTTPStatus.CONFLICT, "The order changes faster than it can be priced.")


@router.post("/{order_id}/pay")
async def pay(call: AnyCall, order_id: OrderId, body: PayBody) -> Response:
    """Try to pay again, after an attempt was declined and while policy allows another."""
    data = c.PayOrder(payment_token=body.payment_token)
    return await do(call, order_id, call.command_id(), data, dry_run=False)


@router.post("/{order_id}/cancel")
async def cancel(call: AnyCall, order_id: OrderId, body: CancelBody, dry_run: DryRun = False) -> Response:
    """Cancel the order, or, with `items`, some of its units."""
    items = tuple(c.ItemQuantity(line_id=item.line_id, quantity=item.quantity) for item in body.items or ())
    data = c.CancelOrder(reason=body.reason, comment=body.comment, items=items)
    return await do(call, order_id, call.command_id(dry_run), data, dry_run=dry_run)


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


def _first_used_up(parts: Parts, codes: Sequence[str]) -> Rejection | None:
    used_up = (_used_up(parts, code, f"promo_codes[{i}]") for i, code in enumerate(codes))
    return next(filter(None, used_up), None)


def _used_up(parts: Parts, code: str, field: str) -> Rejection | None:
    """409 for a code that is known to be used up. A courtesy, like that for stock: the redemption decides."""
    if not parts.promotions.used_up(code):
        return None
    return Rejection(
        type="promotion-used-up",
        status=HTTPStatus.CONFLICT,
        field=field,
        detail=f"The promotion {code} has been used as often as it may be.",
    )


def _unknown_code(code: str) -> Rejection:
    return Rejection(
        type="unknown-promo-code",
        status=HTTPStatus.UNPROCESSABLE_ENTITY,
        field="code",
        detail=f"There is no promotion {code!r}.",
    )


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
        promotions=parts.promotions.terms([applied.terms.code for applied in order.promotions] if order else []),
        accepted_total=None if accept is None else accept.minor,
    )


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
