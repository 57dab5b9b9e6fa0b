"""Returns and refunds: customers send back, staff decides, receives, inspects and refunds. And staff's holds, and the
survey. Every command is answered with the order as it is afterwards."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends
from starlette.responses import Response

from gateway.asking import DryRun, answer, ask, do, look, may_see, refuse
from gateway.call import AnyCall, Call, OrderId, StaffCall, reply
from gateway.catalogue import Wish
from gateway.documents import return_json
from gateway.models_returns import (
    DenyBody,
    HoldBody,
    InspectBody,
    RefundBody,
    ReleaseBody,
    ReturnBody,
    SurveyBody,
)
from gateway.problems import Problem, not_found, unavailable
from schemas import commands as c
from schemas.base import Payload
from schemas.order import Quote
from schemas.replies import Rejection

router = APIRouter(prefix="/v1", tags=["returns"])

NO_RETURN = "There is no such return."
_RMA = re.compile(r"RMA-[0-9A-Z]{5}-[0-9A-Z]{5}-[1-9][0-9]{0,8}")


async def rma_of_path(rma: str) -> str:
    """An RMA out of the path; what can't be one is not found."""
    if _RMA.fullmatch(rma) is None:
        raise not_found(NO_RETURN)
    return rma


Rma = Annotated[str, Depends(rma_of_path)]


@router.post("/orders/{order_id}/returns", status_code=HTTPStatus.CREATED)
async def request_return(call: AnyCall, order_id: OrderId, body: ReturnBody, dry_run: DryRun = False) -> Response:
    """Ask to send units of delivered lines back. `Location` is the new return, the last of the order's `returns`."""
    command_id = call.command_id(dry_run)
    quotes = await _exchange_quotes(call, order_id, body)
    if isinstance(quotes, Rejection):
        return await refuse(call, order_id, command_id, quotes, dry_run)
    data = c.RequestReturn(
        items=tuple(
            c.ReturnWish(
                line_id=item.line_id,
                quantity=item.quantity,
                reason=item.reason,
                exchange=quotes.get(item.exchange_sku) if item.exchange_sku else None,
            )
            for item in body.items
        ),
        comment=body.comment,
    )
    if call.respond_async and not dry_run:
        return await do(call, order_id, command_id, data, dry_run=False)
    outcome = await ask(call, order_id, command_id, data, dry_run)
    response = await answer(call, order_id, command_id, outcome, dry_run=dry_run)
    if not dry_run and outcome is not None and outcome.order is not None:
        response.status_code = HTTPStatus.CREATED
        response.headers["Location"] = f"/v1/orders/{order_id}/returns/{outcome.order.returns[-1].rma}"
    return response


@router.get("/orders/{order_id}/returns/{rma}")
async def get_return(call: AnyCall, order_id: OrderId, rma: Rma) -> Response:
    """One return of the order: its status, its items, and the label to send them with."""
    order = await call.parts.views.order(order_id)
    newest = call.parts.recent.get(order_id)
    if newest is not None and (order is None or order.version < newest.version):
        order = newest  # the view is a moment behind what this gateway was told
    if order is None or not may_see(call, order):
        raise not_found()
    found = order.return_(rma)
    if found is None:
        raise not_found(NO_RETURN)
    return reply(return_json(found, order.currency), version=order.version)


@router.post("/orders/{order_id}/survey")
async def answer_survey(call: AnyCall, order_id: OrderId, body: SurveyBody) -> Response:
    """Say how it was: once, after delivery."""
    data = c.AnswerSurvey(score=body.score, comment=body.comment)
    return await do(call, order_id, call.command_id(), data, dry_run=False)


@router.post("/admin/returns/{rma}/approve")
async def approve(call: StaffCall, rma: Rma) -> Response:
    """The goods may come back; a return label is made."""
    return await _of_return(call, rma, c.ApproveReturn(rma=rma))


@router.post("/admin/returns/{rma}/deny")
async def deny(call: StaffCall, rma: Rma, body: DenyBody) -> Response:
    return await _of_return(call, rma, c.DenyReturn(rma=rma, reason=body.reason))


@router.post("/admin/returns/{rma}/receive")
async def receive(call: StaffCall, rma: Rma) -> Response:
    """The goods are here (a carrier may say so too)."""
    return await _of_return(call, rma, c.ReceiveReturn(rma=rma))


@router.post("/admin/returns/{rma}/inspect")
async def inspect(call: StaffCall, rma: Rma, body: InspectBody, dry_run: DryRun = False) -> Response:
    """Say in which condition the goods are: what that is worth is given back."""
    items = tuple(c.Inspected(line_id=item.line_id, condition=item.condition) for item in body.items)
    return await _of_return(call, rma, c.InspectReturn(rma=rma, items=items, comment=body.comment), dry_run)


@router.post("/admin/orders/{order_id}/refunds")
async def refund(call: StaffCall, order_id: OrderId, body: RefundBody, dry_run: DryRun = False) -> Response:
    """Give back exactly what is named, without a return."""
    command_id = call.command_id(dry_run)
    if body.amount is not None:
        order = await look(call, order_id)
        if body.amount.currency != order.currency:
            raise Problem(
                "wrong-currency",
                HTTPStatus.UNPROCESSABLE_ENTITY,
                f"The order is in {order.currency}.",
                field="amount.currency",
            )
    data = c.RefundOrder(
        reason=body.reason,
        items=tuple(c.ItemQuantity(line_id=item.line_id, quantity=item.quantity) for item in body.items),
        shipping=body.shipping,
        amount=None if body.amount is None else body.amount.minor,
        comment=body.comment,
    )
    return await do(call, order_id, command_id, data, dry_run=dry_run)


@router.post("/admin/orders/{order_id}/hold")
async def hold(call: StaffCall, order_id: OrderId, body: HoldBody) -> Response:
    """Nothing goes on until somebody releases or cancels the order."""
    data = c.HoldOrder(kind="staff", reason=body.reason)
    return await do(call, order_id, call.command_id(), data, dry_run=False)


@router.post("/admin/orders/{order_id}/release")
async def release(call: StaffCall, order_id: OrderId, body: ReleaseBody | None = None) -> Response:
    data = c.ReleaseOrder(comment=None if body is None else body.comment)
    return await do(call, order_id, call.command_id(), data, dry_run=False)


async def _of_return(call: Call, rma: str, data: Payload, dry_run: bool = False) -> Response:
    """A command to the order that the return belongs to: its number is the middle of the RMA."""
    number = rma.removeprefix("RMA-").rpartition("-")[0]
    order_id = await call.parts.views.order_id(number)
    if order_id is None:
        raise not_found(NO_RETURN)
    return await do(call, order_id, call.command_id(dry_run), data, dry_run=dry_run)


async def _exchange_quotes(call: Call, order_id: str, body: ReturnBody) -> dict[str, Quote] | Rejection:
    """Today's quotes of the SKUs that are wanted instead. Whether there is stock shows when the goods are back."""
    wishes = [
        Wish(item.exchange_sku, item.quantity, f"items[{i}].exchange_sku")
        for i, item in enumerate(body.items)
        if item.exchange_sku is not None
    ]
    if not wishes:
        return {}
    if not call.parts.catalogue.loaded:
        raise unavailable("catalogue-loading", "The catalogue is still being loaded.")
    order = await look(call, order_id)
    quotes = call.parts.catalogue.quotes(wishes, order.currency)
    return quotes if isinstance(quotes, Rejection) else {quote.sku: quote for quote in quotes}
