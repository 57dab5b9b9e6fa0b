"""Back in time: one order as it was, everybody's orders as they were, and what changed in between."""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from starlette.responses import Response

from gateway import cursor as cursors
from gateway import past, times
from gateway.call import Call, StaffCall, reply
from gateway.documents import instant
from gateway.models import Time
from gateway.problems import Problem, not_found, unavailable
from gateway.queries import POLL
from schemas.money import to_text
from schemas.order import Order, OrderStatus

router = APIRouter(prefix="/v1/admin", tags=["history"])

AtVersion = Annotated[int | None, Query(ge=1, le=2**53, description="as it was at this version")]
AsOf = Annotated[Time | None, Query(description="as it was at this time")]
Limit = Annotated[int, Query(ge=1, le=100)]
Cursor = Annotated[str | None, Query(max_length=500)]


@router.get("/orders")
async def orders_as_of(
    call: StaffCall,
    as_of: Time,
    status: Annotated[list[OrderStatus] | None, Query(description="any of these, at that time")] = None,
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """All orders that there were at a time, as they were then, the newest first. With a status a page may hold fewer
    than `limit`; `next` tells whether it goes on."""
    path = "/v1/admin/orders"
    filters = {"as_of": as_of.isoformat(), "status": sorted({str(one) for one in status or ()})}
    before_us, before_id = _position(cursor, path, filters)
    rows = await call.parts.views.rows(
        "orders_as_of",
        as_of_us=times.micros(as_of),
        statuses=filters["status"],
        before_us=before_us,
        before_id=before_id,
        limit=limit + 1,  # one more tells whether there is a next page
    )
    page = rows[:limit]
    items = [
        {**_named(row), "created_at": instant(times.of(row["created_us"])), **_state(row, "then")}
        for row in page
        if row["matches"]
    ]
    following = [int(page[-1]["created_us"]), page[-1]["order_id"]] if len(rows) > limit else None
    return paged(items, following, path, filters, limit)


@router.get("/changes")
async def changes_between(
    call: StaffCall,
    since: Annotated[Time, Query(alias="from", description="not included: it is as of then")],
    until: Annotated[Time, Query(alias="to", description="included")],
    limit: Limit = 20,
    cursor: Cursor = None,
) -> Response:
    """The orders to which something happened between two times, the one that changed last first: each as of `from`
    (null: there was none) and as of `to`, and the events in between."""
    if since >= until:
        raise Problem("invalid-request", HTTPStatus.UNPROCESSABLE_ENTITY, "must be after `from`", field="to")
    path = "/v1/admin/changes"
    filters = {"from": since.isoformat(), "to": until.isoformat()}
    before_us, before_id = _position(cursor, path, filters)
    rows = await call.parts.views.rows(
        "changes_between",
        from_us=times.micros(since),
        to_us=times.micros(until),
        before_us=before_us,
        before_id=before_id,
        limit=limit + 1,
    )
    page = rows[:limit]
    items = [
        {
            **_named(row),
            "changed_at": instant(times.of(row["changed_us"])),
            "before": _state(row, "before") if row["status_before"] else None,
            "after": _state(row, "after"),
            "events": row["types"],
        }
        for row in page
    ]
    following = [int(page[-1]["changed_us"]), page[-1]["order_id"]] if len(rows) > limit else None
    return paged(items, following, path, filters, limit)


# One order


async def timeline(call: Call, order_id: str, version: int) -> list[dict[str, Any]]:
    """The rows of an order's events, at least up to this version: the timeline is another view than the order, and may
    be a moment behind it. Problem 503 when it is for longer than a command may take."""
    patience = time.monotonic() + call.parts.settings.command_timeout
    while True:
        rows = await call.parts.views.events(order_id)
        newest = int(rows[-1]["version"]) if rows else 0
        if newest >= version:
            return rows
        if time.monotonic() > patience:
            raise behind(newest, version)
        await asyncio.sleep(POLL)


async def order_then(call: Call, order: Order, version: int | None, as_of: datetime | None) -> Order:
    """The order at this version or time: the fold of its events up to then. Problem 422 when both are asked for, 404
    when there was no such order yet or it has never been at this version."""
    if version is not None and as_of is not None:
        both = "Ask for a version or for a time."
        errors = [("version", both), ("as_of", both)]
        raise Problem("invalid-request", HTTPStatus.UNPROCESSABLE_ENTITY, both, errors=errors)
    rows = await timeline(call, order.order_id, order.version)
    orders = past.fold([past.event(order.order_id, row) for row in rows])
    if as_of is not None:
        found = past.as_of(orders, as_of)
        if found is None:
            raise not_found(f"There was no such order yet: it was created at {instant(order.created_at)}.")
        return found
    if version is None or version > len(orders):
        raise not_found(f"The order has no version {version}; its newest is {len(orders)}.")
    return orders[version - 1]


def behind(version: int, wanted: int) -> Problem:
    return unavailable("view-behind", f"The view is at version {version}; version {wanted} has not come yet.")


# Shown


def _named(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": row["order_id"], "number": row["number"], "customer_id": row["customer_id"]}


def _state(row: dict[str, Any], when: str) -> dict[str, Any]:
    """Status, version and total at a time. Total is null where the events' view does not have it."""
    total, currency = row[f"total_{when}"], row["currency"]
    return {
        "status": row[f"status_{when}"],
        "version": int(row[f"version_{when}"]),
        "total": None if total is None else {"amount": to_text(int(total), currency), "currency": currency},
    }


def _position(cursor: str | None, path: str, filters: dict[str, Any]) -> list[Any]:
    return cursors.decode(cursor, {**filters, "path": path}, (int, str)) if cursor else [times.EVER, ""]


def paged(
    items: list[dict[str, Any]], following: list[Any] | None, path: str, filters: dict[str, Any], limit: int
) -> Response:
    """A page of a list, with the link to the next one where it goes on after this position."""
    if following is None:
        return reply({"items": items, "next": None})
    cursor = cursors.encode(following, {**filters, "path": path})
    given = {name: value for name, value in filters.items() if value}
    query = urlencode({**given, "limit": limit, "cursor": cursor}, doseq=True)
    return reply({"items": items, "next": cursor}, headers={"Link": f'<{path}?{query}>; rel="next"'})
