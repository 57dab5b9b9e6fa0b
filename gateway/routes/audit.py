"""The audit log: who did what to what, when, why, and what it was before and after. For staff."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal

import orjson
from fastapi import APIRouter, Query
from starlette.responses import Response

from gateway import cursor as cursors
from gateway import times
from gateway.call import StaffCall
from gateway.documents import instant
from gateway.models import Time
from gateway.problems import Problem
from gateway.routes.history import paged

router = APIRouter(prefix="/v1/admin/audit", tags=["audit"])

Subject = Literal["order", "stock", "promotion", "product", "customer", "exception"]

_SEALED = frozenset({"sealed", "fingerprint"})


@router.get("")
async def audit(
    call: StaffCall,
    subject: Annotated[Subject | None, Query(description="what was changed")] = None,
    subject_id: Annotated[
        str, Query(max_length=128, description="order id, SKU#POOL, promotion code, SKU, customer id or exception id")
    ] = "",
    order_id: Annotated[str, Query(max_length=64, description="short for subject=order&subject_id=…")] = "",
    actor: Annotated[str, Query(max_length=200, description="customer:ID, staff:ID or system:PROCESS")] = "",
    what: Annotated[str, Query(max_length=64, description="the event, or the kind of movement or change")] = "",
    since: Annotated[Time | None, Query(alias="from")] = None,
    until: Annotated[Time | None, Query(alias="to", description="not included")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> Response:
    """Every change of orders, stock (but for what orders reserve and ship), promotions, products and customers'
    preferences, and what was done about exceptions, the newest first. `before`
    and `after` are as the log has them, amounts in minor units; `before` is null where nothing was replaced, and where
    only the order's timeline knows it. Of an address they show country, state and postal code: name and street stay
    sealed, and the envelope is left out."""
    if order_id and (subject or subject_id):
        detail = "Stands for subject and subject_id: leave these away."
        raise Problem("invalid-request", HTTPStatus.UNPROCESSABLE_ENTITY, detail, field="order_id")
    if since is not None and until is not None and since >= until:
        raise Problem("invalid-request", HTTPStatus.UNPROCESSABLE_ENTITY, "must be after `from`", field="to")
    filters: dict[str, Any] = {
        "subject": "order" if order_id else subject or "",
        "subject_id": order_id or subject_id,
        "actor": actor,
        "what": what,
    }
    period = {"from": since and since.isoformat(), "to": until and until.isoformat()}
    bound = {**filters, **period, "path": router.prefix}
    before_us, before_id = cursors.decode(cursor, bound, (int, str)) if cursor else (times.EVER, "")
    rows = await call.parts.views.rows(
        "audit",
        **filters,
        from_us=times.micros(since) if since else 0,
        to_us=times.micros(until) if until else times.EVER,
        before_us=before_us,
        before_id=before_id,
        limit=limit + 1,  # one more tells whether there is a next page
    )
    following = [int(rows[limit - 1]["at_us"]), rows[limit - 1]["id"]] if len(rows) > limit else None
    return paged([_shown(row) for row in rows[:limit]], following, router.prefix, {**filters, **period}, limit)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "at": instant(times.of(row["at_us"])),
        "subject": row["subject"],
        "subject_id": row["subject_id"],
        "version": int(row["version"]) or None,
        "actor": row["actor"],
        "what": row["what"],
        "why": row["why"] or None,
        "before": _without_seals(orjson.loads(row["before"])) if row["before"] else None,
        "after": _without_seals(orjson.loads(row["after"])) if row["after"] else None,
        "correlation_id": row["correlation_id"],
        "causation_id": row["causation_id"] or None,
    }


def _without_seals(value: Any) -> Any:
    """Without what only the holder of the customer's key can read, and the hash of it."""
    if isinstance(value, dict):
        return {name: _without_seals(inner) for name, inner in value.items() if name not in _SEALED}
    return [_without_seals(inner) for inner in value] if isinstance(value, list) else value
