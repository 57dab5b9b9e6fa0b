"""Reading orders: one, its timeline, lists. Everything comes from the views."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from gateway import past
from gateway.asking import may_see
from gateway.call import AnyCall, Call, OrderId, reply
from gateway.documents import addresses_in, event_json, order_json
from gateway.problems import Problem, not_found
from gateway.routes.history import AsOf, AtVersion, behind, order_then, timeline
from gateway.search import OrderSearch, search
from schemas.order import Order

router = APIRouter(prefix="/v1", tags=["orders"])

Version = Annotated[int | None, Query(ge=1, le=2**53, description="wait until the view has this version")]


@router.get("/orders/{order_id}")
async def get_order(
    call: AnyCall,
    request: Request,
    order_id: OrderId,
    min_version: Version = None,
    version: AtVersion = None,
    as_of: AsOf = None,
) -> Response:
    """The order as it is now, or as it was at a `version` or a time (`as_of`); its version is the ETag."""
    order = await _order(call, order_id, min_version)
    if version is not None or as_of is not None:
        order = await order_then(call, order, version, as_of)
    if f'"{order.version}"' in request.headers.get("if-none-match", ""):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": f'"{order.version}"'})
    await call.parts.addresses.prepare([order])
    return reply(order_json(order, call.parts.addresses.open, call.caller.staff), version=order.version)


@router.get("/orders/{order_id}/events")
async def get_events(call: AnyCall, order_id: OrderId, min_version: Version = None) -> Response:
    """What happened to the order, oldest first, and what each event changed of what users see of it."""
    order = await _order(call, order_id, min_version)
    rows = await timeline(call, order_id, min_version or 1)
    events = [past.event(order_id, row) for row in rows]
    addresses = call.parts.addresses
    await addresses.prepare_addresses(address for event in events for address in addresses_in(event.data))
    staff = call.caller.staff
    shown = [order_json(then, addresses.open, staff) for then in past.fold(events)]
    items = [
        {**event_json(row, event.data, order.currency, addresses.open, staff), "changes": past.changes(before, after)}
        for row, event, before, after in zip(rows, events, [None, *shown], shown, strict=False)
    ]
    return reply({"items": items, "next": None}, version=order.version)


@router.get("/orders")
async def list_orders(call: AnyCall, query: Annotated[OrderSearch, Query()]) -> Response:
    """Orders as asked for: a customer's own, or, for staff, everybody's."""
    if not call.caller.staff:
        if query.customer_id not in (None, call.caller.id):
            raise Problem("forbidden", HTTPStatus.FORBIDDEN, "These are not your orders.", field="customer_id")
        query = query.model_copy(update={"customer_id": call.caller.id})
    return await _page(call, "/v1/orders", query)


@router.get("/customers/{customer_id}/orders")
async def list_orders_of_customer(call: AnyCall, customer_id: str, query: Annotated[OrderSearch, Query()]) -> Response:
    """A customer's order history, with the same filters."""
    if not call.caller.staff and customer_id != call.caller.id:
        raise not_found("There is no such customer.")
    if query.customer_id not in (None, customer_id):
        raise Problem(
            "invalid-request", HTTPStatus.UNPROCESSABLE_ENTITY, "The path names another customer.", field="customer_id"
        )
    path = f"/v1/customers/{quote(customer_id, safe='')}/orders"
    return await _page(call, path, query.model_copy(update={"customer_id": customer_id}))


async def _order(call: Call, order_id: str, min_version: int | None) -> Order:
    """The order, at least at this version. Problem 404 when there is none for this caller, 503 when the view is behind
    for longer than a command may take."""
    views = call.parts.views
    order = await views.order(order_id)
    if order is not None and not may_see(call, order):
        raise not_found()
    if min_version is not None and (order is None or order.version < min_version):
        patience = call.parts.settings.command_timeout
        order = await views.wait(order_id, lambda found: found.version >= min_version, patience)
    if order is None or not may_see(call, order):
        raise not_found()
    if min_version is not None and order.version < min_version:
        raise behind(order.version, min_version)
    return order


async def _page(call: Call, path: str, query: OrderSearch) -> Response:
    views = call.parts.views
    found = await search(views.rows, query, path)
    known = await views.orders(found.order_ids) if found.order_ids else {}
    orders = [known[order_id] for order_id in found.order_ids if order_id in known]
    await call.parts.addresses.prepare(orders)
    headers = {}
    if found.following:
        following = {**query.asked(), "limit": query.limit, "cursor": found.following}
        headers["Link"] = f'<{path}?{urlencode(following, doseq=True)}>; rel="next"'
    items = [order_json(order, call.parts.addresses.open, call.caller.staff) for order in orders]
    counted = {} if found.total is None else {"total": found.total}
    return reply({"items": items, "next": found.following, **counted}, headers=headers)
