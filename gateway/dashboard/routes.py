"""The pages. Each works as one GET; the script of the dashboard gets the same page again every five seconds and puts
its moving parts in place of the old ones."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.responses import RedirectResponse, Response

from analytics import kpis
from gateway.call import OrderId, Parts
from gateway.dashboard import html, session
from gateway.dashboard.contents import Contents, Period
from gateway.dashboard.figures import shown, timeline, words
from gateway.dashboard.session import PATH, Staff
from gateway.problems import TYPE, Problem, invalid, not_found
from schemas.money import Money

SIGN_IN = f"{PATH}/sign-in"


class Page(APIRoute):
    """A route whose problems are pages too, because a person reads them."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await handle(request)
            except RequestValidationError as error:
                problem = invalid(error.errors())
            except Problem as error:
                problem = error
            request.scope[TYPE] = problem.type  # for the metrics
            return _complaint(request, problem)

        return handler


router = APIRouter(prefix=PATH, route_class=Page, include_in_schema=False)


def install(app: FastAPI, parts: Parts) -> None:
    """Put the pages into this application."""
    app.state.dashboard = Contents(parts.views)
    app.include_router(router)


@router.get("")
async def dashboard(request: Request, staff: Staff, period: Period = Period.DAY) -> Response:
    """503 when the views can't be read: with what was read last, if anything was."""
    contents: Contents = request.app.state.dashboard
    found = await contents.get(period)
    status = HTTPStatus.OK if found.complete else HTTPStatus.SERVICE_UNAVAILABLE
    return html.page(
        "dashboard.html", status, staff=staff.id, period=period, periods=list(Period), **shown(found, datetime.now(UTC))
    )


@router.get("/orders/{order_id}")
async def order(request: Request, staff: Staff, order_id: OrderId) -> Response:
    """What happened to an order."""
    views = request.app.state.parts.views
    found = await views.order(order_id)
    if found is None:
        raise not_found()
    return html.page(
        "order.html",
        order=found,
        status=words(found.status),
        total=kpis.text(Money.of(found.totals.total, found.currency).model_dump(), "money"),
        events=timeline(await views.events(order_id)),
    )


@router.get("/sign-in")
async def sign_in_page() -> Response:
    return html.page("sign_in.html", detail="")


@router.post("/sign-in", dependencies=[Depends(session.same_origin)])
async def sign_in(request: Request) -> Response:
    """A form with the field `token`."""
    form = parse_qs((await request.body()).decode("latin-1"))
    token = form.get("token", [""])[0].strip().removeprefix("Bearer ")
    response = RedirectResponse(PATH, HTTPStatus.SEE_OTHER, html.HEADERS)
    await session.sign_in(request, token, response)
    return response


@router.post("/sign-out", dependencies=[Depends(session.same_origin)])
async def sign_out() -> Response:
    response = RedirectResponse(SIGN_IN, HTTPStatus.SEE_OTHER, html.HEADERS)
    session.sign_out(response)
    return response


@router.get("/static/{name:path}")
async def static(name: str, v: str = "") -> Response:
    found = html.static_file(name, v)
    if found is None:
        raise not_found("There is no such file.")
    return found


def _complaint(request: Request, problem: Problem) -> Response:
    if problem.status == HTTPStatus.UNAUTHORIZED:
        asked = request.method == "POST" or session.COOKIE in request.cookies
        return html.page("sign_in.html", problem.status, detail=problem.detail if asked else "")
    title = problem.type.replace("-", " ").capitalize()
    signed_in = problem.status == HTTPStatus.FORBIDDEN and session.COOKIE in request.cookies
    return html.page("message.html", problem.status, title=title, detail=problem.detail, signed_in=signed_in)
