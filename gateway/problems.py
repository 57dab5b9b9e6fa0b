"""Errors as users see them: application/problem+json (RFC 9457), for every error there is.

`type` is /problems/KEBAB and stable; `errors` lists each field at fault as {field, detail}, with fields written as in
the request: items[0].sku, If-Match, limit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Scope

from schemas.money import to_text
from schemas.replies import Rejection

MEDIA_TYPE = "application/problem+json"
# Where an ASGI scope holds the correlation id, and the type of the problem that it was answered with.
CORRELATION = "oms.correlation_id"
TYPE = "oms.problem"

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "examples": ["/problems/out-of-stock"]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"field": {"type": "string", "examples": ["items[0].sku"]}, "detail": {"type": "string"}},
            },
        },
        "correlation_id": {"type": "string"},
    },
}
"""A problem in OpenAPI."""


class Problem(Exception):
    """An error to answer with. `errors`: (field, detail) pairs; `extra`: more members of the problem document."""

    def __init__(
        self,
        type: str,
        status: int,
        detail: str,
        *,
        field: str | None = None,
        errors: Sequence[tuple[str, str]] = (),
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{type}: {detail}")
        self.type = type
        self.status = status
        self.detail = detail
        self.errors = list(errors) or ([(field, detail)] if field else [])
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})


def not_found(what: str = "There is no such order.") -> Problem:
    return Problem("not-found", HTTPStatus.NOT_FOUND, what)


def unavailable(type: str, detail: str, retry_after: int = 1) -> Problem:
    """Something that this request needs is down: 503, with Retry-After (seconds)."""
    return Problem(type, HTTPStatus.SERVICE_UNAVAILABLE, detail, headers={"Retry-After": str(retry_after)})


def rejected(rejection: Rejection, within: str = "") -> Problem:
    """A refusal by the rules, as it is told to users. Rules name fields as creation has them; `within` is the part
    of it that the request's body is, and is taken off: shipping_address.country → country."""
    extra = dict(rejection.extra)
    fields = extra.pop("fields", rejection.field)
    return Problem(
        rejection.type,
        rejection.status,
        rejection.detail,
        errors=[(_inside(field, within), rejection.detail) for field in fields.split(",")] if fields else (),
        extra=_told(extra),
    )


def _inside(field: str, within: str) -> str:
    if within == "items":
        return re.sub(r"^items\[\d+\]\.", "", field)
    return field.removeprefix(f"{within}.") if within else field


def _told(extra: dict[str, Any]) -> dict[str, Any]:
    """Rules speak in text and minor units; users see lists, numbers and amounts."""
    if "skus" in extra:
        extra["skus"] = extra["skus"].split(",")
    if "unavailable" in extra:
        extra["unavailable"] = orjson.loads(extra["unavailable"])
    if "allowed_actions" in extra:
        extra["allowed_actions"] = [action for action in extra["allowed_actions"].split(", ") if action != "nothing"]
    if {"before", "after", "currency"} <= extra.keys():
        currency = extra.pop("currency")
        for name in ("before", "after"):
            extra[name] = {"amount": to_text(int(extra[name]), currency), "currency": currency}
    if "version" in extra:
        extra["version"] = int(extra["version"])
    if "status" in extra:
        extra["order_status"] = extra.pop("status")  # `status` is the problem's own
    return extra


def document(problem: Problem, correlation_id: str | None) -> dict[str, Any]:
    return {
        **problem.extra,
        "type": f"/problems/{problem.type}",
        "title": problem.type.replace("-", " ").capitalize(),
        "status": int(problem.status),
        "detail": problem.detail,
        **({"errors": [{"field": f, "detail": d} for f, d in problem.errors]} if problem.errors else {}),
        **({"correlation_id": correlation_id} if correlation_id else {}),
    }


def response(problem: Problem, scope: Scope) -> Response:
    """The answer; notes the type in the scope, for the metrics."""
    scope[TYPE] = problem.type
    return Response(
        orjson.dumps(document(problem, scope.get(CORRELATION))),
        status_code=problem.status,
        headers=problem.headers,
        media_type=MEDIA_TYPE,
    )


def install(app: FastAPI) -> None:
    """Make every error of this application a problem. (What nobody expected is caught by `gateway.edge`.)"""

    async def on_problem(request: Request, error: Exception) -> Response:
        match error:
            case Problem():
                return response(error, request.scope)
            case RequestValidationError():
                return response(invalid(error.errors()), request.scope)
            case HTTPException():
                return response(_of_http(error), request.scope)
        raise error

    for kind in (Problem, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, on_problem)


def invalid(errors: Sequence[Any]) -> Problem:
    """A request that does not fit its model. What was sent is never repeated: it may be what must not be logged."""
    if any(error["type"] == "json_invalid" for error in errors):
        return Problem("malformed-json", HTTPStatus.BAD_REQUEST, "The body is not valid JSON.", field="body")
    found = [(field_of(error["loc"]), _say(error)) for error in errors]
    detail = f"{found[0][0]}: {found[0][1]}" + (f" (and {len(found) - 1} more)" if len(found) > 1 else "")
    return Problem("invalid-request", HTTPStatus.UNPROCESSABLE_ENTITY, detail, errors=found)


def _say(error: Mapping[str, Any]) -> str:
    if error["type"] == "extra_forbidden":
        return "There is no such field."
    return str(error["msg"]).removeprefix("Value error, ")


def field_of(location: Sequence[str | int]) -> str:
    """('body', 'items', 0, 'sku') → 'items[0].sku'; a header by its own name."""
    where, *path = location
    if where == "header":
        return "-".join(part.capitalize() for part in str(path[0]).replace("_", "-").split("-"))
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text or str(where)


_HTTP_TYPES = {
    HTTPStatus.NOT_FOUND: ("no-such-route", "There is nothing at this address."),
    HTTPStatus.METHOD_NOT_ALLOWED: ("method-not-allowed", "This address does not know that method."),
    HTTPStatus.BAD_REQUEST: ("malformed-body", "The body could not be read."),
}


def _of_http(error: HTTPException) -> Problem:
    status = HTTPStatus(error.status_code)
    fallback = (status.phrase.lower().replace(" ", "-"), str(error.detail))
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        fallback = ("body-too-large", str(error.detail))
    type_, detail = _HTTP_TYPES.get(status, fallback)
    return Problem(type_, status, detail, headers=error.headers)
