"""Key figures, for staff: what `oms kpi` prints, as JSON, CSV or Parquet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response, StreamingResponse

from analytics import kpis
from analytics.kpis.exports import MEDIA_TYPES, Export, export
from gateway.call import Call, StaffCall, reply
from gateway.problems import Problem, not_found

router = APIRouter(prefix="/v1/kpis", tags=["key figures"])

_TIME = "a date or a time, on the clocks of `tz` unless it says otherwise"
_FORMATS = ("json", *MEDIA_TYPES)
_BY_MEDIA_TYPE = {"application/json": "json", **{media_type: name for name, media_type in MEDIA_TYPES.items()}}

Asked = dict[str, str | None]


async def period(
    since: Annotated[str | None, Query(alias="from", max_length=40, description=_TIME)] = None,
    until: Annotated[str | None, Query(alias="to", max_length=40, description=f"{_TIME}; not included")] = None,
    tz: Annotated[str | None, Query(max_length=40, description="IANA name of a time zone; default UTC")] = None,
) -> Asked:
    return {"from": since, "to": until, "tz": tz}


Period = Annotated[Asked, Depends(period)]


@router.get("")
async def all_kpis(call: StaffCall, period: Period) -> Response:
    """Every KPI: what it means, what it can be asked for, and its rows for the whole of the period."""
    catalogue = kpis.load()
    for kpi in catalogue.values():
        _checked(kpi, period)
    found = await asyncio.gather(*(call.parts.views.kpi(name, period) for name in catalogue))
    items = [
        {**kpis.described(kpi), "headline": kpis.headline(kpi, rows), "rows": rows}
        for kpi, rows in zip(catalogue.values(), found, strict=True)
    ]
    return reply({"items": items, "next": None})


@router.get("/{name}")
async def one_kpi(
    call: StaffCall,
    request: Request,
    name: str,
    period: Period,
    grain: Annotated[str | None, Query(max_length=40, description=", ".join(kpis.GRAINS))] = None,
    group_by: Annotated[str | None, Query(max_length=40, description="a dimension of the KPI")] = None,
    format: Annotated[str | None, Query(max_length=40, description=f"{', '.join(_FORMATS)}; or `Accept`")] = None,
) -> Response:
    """One KPI of the period, by hour, day or week, by a dimension."""
    kpi = kpis.load().get(name)
    if kpi is None:
        raise not_found(f"There is no such KPI; there are {', '.join(kpis.load())}.")
    what = {**period, "grain": grain, "group_by": group_by}
    checked = _checked(kpi, what)
    chosen = format or _accepted(request.headers.get("accept", ""))
    if chosen not in _FORMATS:
        raise _bad(kpis.BadParameter("format", f"must be one of {', '.join(_FORMATS)}"))
    if chosen == "json":
        return reply({**kpis.described(kpi), "rows": await call.parts.views.kpi(name, what)})
    return StreamingResponse(
        await _begun(_exported(call, kpi, checked, export(chosen, kpi, checked))),
        media_type=MEDIA_TYPES[chosen],
        headers={"Content-Disposition": f'attachment; filename="{name}.{chosen}"', "Vary": "Accept"},
    )


def _checked(kpi: kpis.Kpi, what: Asked) -> kpis.Asked:
    try:
        return kpis.asked(kpi, what)
    except kpis.BadParameter as error:
        raise _bad(error) from error


def _bad(error: kpis.BadParameter) -> Problem:
    return Problem("invalid-request", HTTPStatus.UNPROCESSABLE_ENTITY, error.detail, field=error.field)


def _accepted(accept: str) -> str:
    """The first of ours in an Accept header; whoever takes anything gets JSON."""
    named = (part.partition(";")[0].strip().lower() for part in accept.split(","))
    return next((_BY_MEDIA_TYPE[name] for name in named if name in _BY_MEDIA_TYPE), "json")


async def _exported(call: Call, kpi: kpis.Kpi, what: kpis.Asked, file: Export) -> AsyncIterator[bytes]:
    async with call.parts.views.kpi_stream(kpi, what) as blocks:
        async for rows in blocks:
            yield file.block(rows)
    yield file.end()


async def _begun(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same, once there is a first part: until then an error can still be answered."""
    first = await anext(parts)

    async def all_of_it() -> AsyncIterator[bytes]:
        yield first
        async for part in parts:
            yield part

    return all_of_it()
