"""Key figures, for staff: what `oms kpi` prints, as JSON."""

from __future__ import annotations

import asyncio
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from pydantic import AwareDatetime
from starlette.responses import Response

from analytics import kpis
from gateway.call import Call, StaffCall, reply
from gateway.problems import Problem, not_found

router = APIRouter(prefix="/v1/kpis", tags=["key figures"])


async def period(
    since: Annotated[AwareDatetime | None, Query(alias="from")] = None,
    until: Annotated[AwareDatetime | None, Query(alias="to", description="not included")] = None,
) -> dict[str, datetime]:
    if since is not None and until is not None and since >= until:
        raise Problem("invalid-request", HTTPStatus.UNPROCESSABLE_ENTITY, "must be after `from`", field="to")
    return {name: at for name, at in (("from", since), ("to", until)) if at is not None}


Period = Annotated[dict[str, datetime], Depends(period)]


@router.get("")
async def all_kpis(call: StaffCall, period: Period) -> Response:
    """Every KPI of the period."""
    found = await asyncio.gather(*(_kpi(call, name, period) for name in kpis.load()))
    return reply({"items": found, "next": None})


@router.get("/{name}")
async def one_kpi(call: StaffCall, name: str, period: Period) -> Response:
    """One KPI of the period."""
    if name not in kpis.load():
        raise not_found(f"There is no such KPI; there are {', '.join(kpis.load())}.")
    return reply(await _kpi(call, name, period))


async def _kpi(call: Call, name: str, period: dict[str, datetime]) -> dict[str, Any]:
    kpi = kpis.load()[name]
    rows = await call.parts.views.kpi(name, period)
    shown = kpi.model_dump(include={"name", "title", "question", "meaning", "grain", "unit", "target", "columns"})
    return {**shown, "rows": rows}
