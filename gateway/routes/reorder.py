"""The same again: a new order made of a past one, at today's prices and with what there is today."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.responses import Response

from gateway import ids
from gateway.asking import DryRun, do, look, refuse
from gateway.call import AnyCall, Call, OrderId
from gateway.catalogue import quote
from gateway.models import Body, Name
from gateway.problems import unavailable
from schemas import commands as c
from schemas.address import Address
from schemas.catalog import Product
from schemas.money import CurrencyCode
from schemas.order import Line, Order, Quote
from schemas.replies import Rejection

router = APIRouter(prefix="/v1/orders", tags=["orders"])


class ReorderBody(Body):
    payment_token: Name | None = None
    submit: bool = False
    shipping_method: Name | None = None
    currency: CurrencyCode | None = None


@dataclass(frozen=True)
class Verdict:
    """What is to be said today of a line of a past order: its quote, or why it can't be had again (not_for_sale,
    no_price, out_of_stock, too_few) and how many of it there are, where that is known."""

    line: Line
    quote: Quote | None = None
    reason: str | None = None
    available: int | None = None


@router.post("/{order_id}/reorder", status_code=HTTPStatus.CREATED)
async def reorder(
    call: AnyCall, order_id: OrderId, body: ReorderBody | None = None, dry_run: DryRun = False
) -> Response:
    """Order the same again: a draft, or with `submit` an order. Quantities, addresses, currency and shipping method are
    the past order's, unless told; prices are today's; promotion codes are not taken over. A line of which there are
    not enough is left out whole, and named in `unavailable` with how many there are; when no line is left: 409
    `nothing-to-reorder`. A repeat with the same Idempotency-Key gives the same order and names the same lines in
    `unavailable`; reason and number are as of the repeat (`was_unavailable`: it could be had by now)."""
    wanted = body or ReorderBody()
    if not call.parts.catalogue.loaded:
        raise unavailable("catalogue-loading", "The catalogue is still being loaded.")
    old = await look(call, order_id, newest=True)
    currency = wanted.currency or old.currency
    catalogue = call.parts.catalogue
    verdicts = judge(old.lines, currency, catalogue.product, catalogue.available)
    command_id = call.command_id(dry_run)
    new_id = ids.order_id_of(command_id)

    def named(new: Order) -> dict[str, Any]:
        return {"unavailable": left_out(verdicts, new)}

    lines = tuple(c.NewLine(quote=v.quote, quantity=v.line.quantity) for v in verdicts if v.quote is not None)
    if not lines:
        return await refuse(call, new_id, command_id, _nothing(verdicts), dry_run, created=True, adding=named)
    await call.parts.addresses.prepare([old])
    data = c.CreateOrder(
        customer_id=old.customer_id,
        currency=currency,
        lines=lines,
        shipping_address=_readable(call, old.shipping_address),
        billing_address=_readable(call, old.billing_address),
        shipping_method=wanted.shipping_method or old.shipping_method,
        payment_token=wanted.payment_token,
        submit=wanted.submit,
    )
    return await do(call, new_id, command_id, data, dry_run=dry_run, created=True, adding=named)


def judge(
    lines: Sequence[Line],
    currency: str,
    product: Callable[[str], Product | None],
    available: Callable[[str], int | None],
) -> list[Verdict]:
    """Which of these lines can be had today. Lines of one SKU share what there is of it, first come, first served."""
    taken: Counter[str] = Counter()
    verdicts = []
    for line in lines:
        found = product(line.sku)
        counted = available(line.sku)  # None: nobody ever counted it, so it can be had
        left = None if counted is None else max(0, counted - taken[line.sku])
        if found is None or not found.active:
            verdict = Verdict(line, reason="not_for_sale")
        elif currency not in found.prices:
            verdict = Verdict(line, reason="no_price", available=left)
        elif left is not None and left < line.quantity and not found.backorder:
            verdict = Verdict(line, reason="too_few" if left else "out_of_stock", available=left)
        else:
            taken[line.sku] += line.quantity
            verdict = Verdict(line, quote=quote(found, currency))
        verdicts.append(verdict)
    return verdicts


def left_out(verdicts: Sequence[Verdict], new: Order) -> list[dict[str, Any]]:
    """The lines that are not in the new order. They are told by comparing, because the outcome of a repeat is the first
    one's, whatever the catalogue says by now."""
    there = Counter((line.sku, line.quantity) for line in new.lines)
    missing = []
    for verdict in verdicts:
        line = (verdict.line.sku, verdict.line.quantity)
        if there[line]:
            there[line] -= 1
        else:
            missing.append(_named(verdict))
    return missing


def _named(verdict: Verdict) -> dict[str, Any]:
    return {
        "sku": verdict.line.sku,
        "name": verdict.line.name,
        "reason": verdict.reason or "was_unavailable",
        "requested": verdict.line.quantity,
        "available": verdict.available,
    }


def _nothing(verdicts: Sequence[Verdict]) -> Rejection:
    told = ", ".join(f"{v.line.sku} ({v.reason})" for v in verdicts)
    return Rejection(
        type="nothing-to-reorder",
        status=HTTPStatus.CONFLICT,
        detail=f"Nothing of this order can be had today: {told}.",
        extra={"unavailable": orjson.dumps([_named(v) for v in verdicts]).decode()},
    )


def _readable(call: Call, address: Address | None) -> Address | None:
    """The address, unless nobody can read it any more (the customer was forgotten): nothing could be sent there."""
    opened = call.parts.addresses.open(address, "name")
    return address if opened is not None and opened["name"] is not None else None
