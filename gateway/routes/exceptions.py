"""The exception queue: what no rule could settle. Staff looks, tries again, or says how it was settled.

It is written by the sagas and by the reconciliation, and read from its view: what was done here shows a moment later.
"""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode
from uuid import NAMESPACE_URL, uuid5

from fastapi import APIRouter, Query
from starlette.responses import Response

from gateway import cursor as cursors
from gateway import times
from gateway.asking import accepted, ask
from gateway.call import Call, StaffCall, reply
from gateway.documents import instant
from gateway.models import Body, Words
from gateway.problems import Problem, not_found, rejected
from schemas.base import Event, Payload
from schemas.codec import decode
from schemas.commands import AbandonRefund
from schemas.operations import ExceptionResolved, ExceptionRetried

router = APIRouter(prefix="/v1/admin/exceptions", tags=["exceptions"])

TOPIC = "exceptions"


class Resolution(Body):
    """`paid_elsewhere` (of a `refund_failed` only): the customer has the money all the same, by bank transfer or so."""

    resolution: Words
    paid_elsewhere: bool = False


@router.get("")
async def list_exceptions(
    call: StaffCall,
    status: Annotated[list[Literal["open", "resolved"]] | None, Query(description="default: open")] = None,
    kind: Annotated[list[str] | None, Query(description="any of these", max_length=50)] = None,
    order_id: Annotated[str, Query(max_length=64)] = "",
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> Response:
    """What needs a person, the newest first."""
    filters: dict[str, Any] = {
        "status": sorted(set(status or ["open"])),
        "kind": sorted(set(kind or [])),
        "order_id": order_id,
    }
    before_us, before_id = cursors.decode(cursor, filters, (int, str)) if cursor else (times.EVER, "")
    rows = await call.parts.views.rows(
        "exceptions",
        exception_id="",
        statuses=filters["status"],
        kinds=filters["kind"],
        order_id=order_id,
        before_us=before_us,
        before_id=before_id,
        limit=limit + 1,
    )
    page, following, headers = rows[:limit], None, {}
    if len(rows) > limit:
        following = cursors.encode([int(page[-1]["opened_us"]), page[-1]["exception_id"]], filters)
        given = {name: value for name, value in filters.items() if value}
        query = urlencode({**given, "limit": limit, "cursor": following}, doseq=True)
        headers["Link"] = f'<{router.prefix}?{query}>; rel="next"'
    return reply({"items": [_shown(row) for row in page], "next": following}, headers=headers)


@router.get("/{exception_id}")
async def get_exception(call: StaffCall, exception_id: str) -> Response:
    return reply(_shown(await _find(call, exception_id)))


@router.post("/{exception_id}/retry", status_code=HTTPStatus.ACCEPTED)
async def retry(call: StaffCall, exception_id: str) -> Response:
    """Send what failed once more. It has the ids that it had: what was done after all is not done twice. The exception
    stays open until the result resolves it."""
    row = await _find(call, exception_id)
    _need_open(row)
    if not row["retry_topic"]:
        raise Problem(
            "not-retryable",
            HTTPStatus.CONFLICT,
            f"There is nothing to send again for a {row['kind']}: settle it, then resolve it.",
        )
    again = decode(base64.b64decode(row["retry"]))
    if isinstance(again, Event):
        raise TypeError("an event is not sent again")
    # A worker answers under an id that derives from its command's: a new answer must not look like the old one.
    fresh = again.model_copy(
        update={
            "id": str(uuid5(NAMESPACE_URL, f"oms:retry:{again.id}:{row['retries']}")),
            "at": datetime.now(UTC),
            "actor": call.caller.actor,
        }
    )
    await call.parts.bus.produce(row["retry_topic"], row["retry_key"], fresh)
    await _tell(call, row, ExceptionRetried(exception_id=exception_id))
    return reply({"exception_id": exception_id, "status": "retried"}, HTTPStatus.ACCEPTED)


@router.post("/{exception_id}/resolve")
async def resolve(call: StaffCall, exception_id: str, body: Resolution) -> Response:
    """Somebody settled it; `resolution` says how. A failed refund is given up with it: the order goes on without."""
    row = await _find(call, exception_id)
    _need_open(row)
    if row["kind"] == "refund_failed":
        pending = await _abandon_refund(call, row, body)
        if pending is not None:
            return pending
    elif body.paid_elsewhere:
        detail = f"Only a failed refund can be paid elsewhere; this is a {row['kind']}."
        raise Problem("not-a-refund", HTTPStatus.UNPROCESSABLE_ENTITY, detail, field="paid_elsewhere")
    await _tell(call, row, ExceptionResolved(exception_id=exception_id, resolution=body.resolution))
    return reply({"exception_id": exception_id, "status": "resolved", "resolution": body.resolution})


async def _abandon_refund(call: Call, row: dict[str, Any], body: Resolution) -> Response | None:
    """None once the order has given the refund up; 202 when it has not said so in time: the exception stays open."""
    data = AbandonRefund(
        refund_id=row["facts"]["refund_id"], paid_elsewhere=body.paid_elsewhere, comment=body.resolution
    )
    command_id = call.command_id()
    outcome = await ask(call, row["order_id"], command_id, data, dry_run=False)
    if outcome is None:
        return accepted(row["order_id"], command_id)
    if outcome.rejection is not None:
        raise rejected(outcome.rejection)
    return None


async def _find(call: Call, exception_id: str) -> dict[str, Any]:
    rows = await call.parts.views.rows(
        "exceptions",
        exception_id=exception_id,
        statuses=[],
        kinds=[],
        order_id="",
        before_us=times.EVER,
        before_id="",
        limit=1,
    )
    if not rows:
        raise not_found("There is no such exception.")
    return rows[0]


def _need_open(row: dict[str, Any]) -> None:
    if row["status"] != "open":
        raise Problem("exception-resolved", HTTPStatus.CONFLICT, f"It was resolved already: {row['resolution']}")


async def _tell(call: Call, row: dict[str, Any], data: Payload) -> None:
    message = call.message(data, order_id=row["order_id"] or None)
    await call.parts.bus.produce(TOPIC, row["order_id"], message)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    opened = times.of(row["opened_us"])
    resolved = row["status"] == "resolved"
    return {
        "exception_id": row["exception_id"],
        "kind": row["kind"],
        "status": row["status"],
        "owner": row["owner"],
        "order_id": row["order_id"] or None,
        "order": f"/v1/orders/{quote(row['order_id'])}" if row["order_id"] else None,
        "detail": row["detail"],
        "facts": row["facts"],
        "opened_at": instant(opened),
        "age_seconds": max(0, int((datetime.now(UTC) - opened).total_seconds())),
        "retryable": bool(row["retry_topic"]),
        "retries": int(row["retries"]),
        "resolution": row["resolution"] if resolved else None,
        "resolved_by": row["resolved_by"] if resolved else None,
        "resolved_at": instant(times.of(row["resolved_us"])) if resolved else None,
    }
