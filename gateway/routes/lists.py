"""Reading orders: one, its timeline, lists. Everything comes from the views."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Query, Request
from pydantic import AwareDatetime
from starlette.responses import Response

from gateway import cursor as cursors
from gateway import past
from gateway.asking import may_see
from gateway.call import AnyCall, Call, OrderId, reply
from gateway.documents import addresses_in, event_json, order_json
from gateway.problems import Problem, not_found
from gateway.routes.history import AsOf, AtVersion, behind, order_then, timeline
from schemas.order import Order, OrderStatus

router = APIRouter(prefix="/v1", tags=["orders"])

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EVER = int((datetime(2200, 1, 1, tzinfo=UTC) - _EPOCH) / timedelta(microseconds=1))

Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str | None, Query(max_length=500)]
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
    shown = [order_json(then, addresses.open) for then in past.fold(events)]
    items = [
        {**event_json(row, event.data, order.currency, addresses.open), "changes": past.changes(before, after)}
        for row, event, before, after in zip(rows, events, [None, *shown], shown, strict=False)
    ]
    return reply({"items": items, "next": None}, version=order.version)


@router.get("/orders")
async def list_orders(
    call: AnyCall,
    status: Annotated[list[OrderStatus] | None, Query(description="any of these")] = None,
    sku: Annotated[str, Query(max_length=64)] = "",
    customer_id: Annotated[str | None, Query(max_length=128, description="staff: one customer's")] = None,
    created_from: AwareDatetime | None = None,
    created_to: Annotated[AwareDatetime | None, Query(description="not included")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """Orders, newest first: a customer's own, or, for staff, everybody's."""
    if not call.caller.staff:
        if customer_id not in (None, call.caller.id):
            raise Problem("forbidden", HTTPStatus.FORBIDDEN, "These are not your orders.", field="customer_id")
        customer_id = call.caller.id
    filters = _filters(status, sku, customer_id, created_from, created_to)
    return await _page(call, "/v1/orders", filters, customer_id, limit, cursor)


@router.get("/customers/{customer_id}/orders")
async def list_orders_of_customer(
    call: AnyCall,
    customer_id: str,
    status: Annotated[list[OrderStatus] | None, Query(description="any of these")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """A customer's order history, newest first."""
    if not call.caller.staff and customer_id != call.caller.id:
        raise not_found("There is no such customer.")
    path = f"/v1/customers/{quote(customer_id, safe='')}/orders"
    return await _page(call, path, _filters(status, "", None, None, None), customer_id, limit, cursor)


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


def _filters(
    status: list[OrderStatus] | None,
    sku: str,
    customer_id: str | None,
    created_from: datetime | None,
    created_to: datetime | None,
) -> dict[str, Any]:
    """The filters as they stand in the URL, without those that were not given."""
    given = {
        "status": sorted({str(one) for one in status or ()}),
        "sku": sku,
        "customer_id": customer_id,
        "created_from": created_from and created_from.isoformat(),
        "created_to": created_to and created_to.isoformat(),
    }
    return {name: value for name, value in given.items() if value}


async def _page(
    call: Call, path: str, filters: dict[str, Any], customer_id: str | None, limit: int, cursor: str | None
) -> Response:
    bound = {**filters, "path": path}
    before_us, before_id = cursors.decode(cursor, bound, (int, str)) if cursor else (_EVER, "")
    parameters = {
        "statuses": filters.get("status", []),
        "sku": filters.get("sku", ""),
        "from_us": _micros(filters.get("created_from"), 0),
        "to_us": _micros(filters.get("created_to"), _EVER),
        "before_us": before_us,
        "before_id": before_id,
        "limit": limit + 1,  # one more tells whether there is a next page
    }
    if customer_id is None:
        rows = await call.parts.views.rows("orders_of_all", **parameters)
    else:
        rows = await call.parts.views.rows("orders_of_customer", customer_id=customer_id, **parameters)
    page = rows[:limit]
    orders = [Order.model_validate_json(row["document"]) for row in page if row["document"]]
    await call.parts.addresses.prepare(orders)
    following, headers = None, {}
    if len(rows) > limit:
        following = cursors.encode([int(page[-1]["created_us"]), page[-1]["order_id"]], bound)
        query = urlencode({**filters, "limit": limit, "cursor": following}, doseq=True)
        headers["Link"] = f'<{path}?{query}>; rel="next"'
    items = [order_json(order, call.parts.addresses.open, call.caller.staff) for order in orders]
    return reply({"items": items, "next": following}, headers=headers)


def _micros(at: str | None, default: int) -> int:
    """Microseconds since 1970, within what the view can hold."""
    if at is None:
        return default
    found = (datetime.fromisoformat(at) - _EPOCH) // timedelta(microseconds=1)
    return min(max(found, 0), _EVER)
