"""Who looks at the dashboard. A browser sends no bearer header by itself, so signing in puts the token into a cookie
that scripts can't read and other sites can't send; it goes when the token expires. The header works as well."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlsplit

import jwt
from fastapi import Depends, Request
from starlette.responses import Response

from gateway.auth import Caller
from gateway.call import Parts
from gateway.problems import Problem

COOKIE = "oms_dashboard"
PATH = "/dashboard"


async def staff(request: Request) -> Caller:
    """Problem 401 without a valid token, 403 with a customer's."""
    authorization = request.headers.get("authorization")
    token = request.cookies.get(COOKIE)
    if authorization is None and token:
        authorization = f"Bearer {token}"
    return await _staff(request, authorization)


Staff = Annotated[Caller, Depends(staff)]


async def sign_in(request: Request, token: str, response: Response) -> None:
    """Check the token and have the response set the cookie. Problem as `staff`."""
    await _staff(request, f"Bearer {token}")
    # It was verified just now; this only reads when it ends.
    expires = jwt.decode(token, options={"verify_signature": False})["exp"]
    response.set_cookie(
        COOKIE,
        token,
        max_age=max(0, int(expires - time.time())),
        path=PATH,
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )


def sign_out(response: Response) -> None:
    response.delete_cookie(COOKIE, path=PATH, httponly=True, samesite="strict")


async def same_origin(request: Request) -> None:
    """For what changes something: Problem 403 when another site's page sends it. Browsers always say on a POST where it
    comes from; the scheme is left out of it, because a proxy may take TLS off."""
    origin = request.headers.get("origin")
    if origin is None or urlsplit(origin).netloc != request.headers.get("host"):
        raise Problem("cross-origin", HTTPStatus.FORBIDDEN, "This form was not sent by a page of this dashboard.")


async def _staff(request: Request, authorization: str | None) -> Caller:
    parts: Parts = request.app.state.parts
    caller = await parts.authenticator.caller(authorization)
    if not caller.staff:
        raise Problem("forbidden", HTTPStatus.FORBIDDEN, "The dashboard needs the scope orders:admin.")
    return caller
