"""What every request passes, as plain ASGI: correlation id, whether it is for this gateway, size limit, how old what
was read is, metrics, one log line, and the answer to what nobody expected."""

from __future__ import annotations

import math
import re
import time
from http import HTTPStatus

import structlog
import uuid_utils
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.cards import contains_card_number
from gateway.freshness import reading
from gateway.metrics import Metrics
from gateway.problems import CORRELATION, TYPE, Problem, response
from gateway.roles import Role, misdirected
from gateway.webhooks import PATHS

MAX_BODY = 256 * 1024
MAX_REPORT = 1024 * 1024
"""Of a webhook, which carries many events."""
DRAINED = 4 * 1024 * 1024
"""How much of a body that is too large is read before answering, so that an ordinary client gets to see the answer."""

_HEADER = b"x-correlation-id"
_LAG = b"x-view-lag"
"""Seconds that what was read from the views is old, at most; absent while that is not known."""
_FITS = re.compile(r"[A-Za-z0-9._:-]{1,64}")

log = structlog.get_logger("gateway.access")


class Edge:
    """Wraps the application. The correlation id is in `scope[CORRELATION]`, in every log line and in the answer."""

    def __init__(self, app: ASGIApp, metrics: Metrics, role: Role = Role.ALL) -> None:
        self._app = app
        self._metrics = metrics
        self._role = role

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        correlation_id = _correlation_id(scope)
        scope[CORRELATION] = correlation_id
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(correlation_id=correlation_id)
        header = (_HEADER, correlation_id.encode())
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), header]
                if (lag := read.lag) is not None:
                    message["headers"].append((_LAG, f"{math.ceil(lag * 100) / 100:.2f}".encode()))
            await send(message)

        try:
            with reading() as read:
                if (problem := misdirected(self._role, scope["method"], scope["path"])) is not None:
                    await response(problem, scope)(scope, receive, answer)
                    return
                await self._app(scope, _limited(scope, receive), answer)
        except Exception:
            # The last resort: an exception here is a bug. Its text may hold anything, so users don't get it.
            log.exception("unexpected error", method=scope["method"], route=_route(scope))
            if status:
                raise
            problem = Problem(
                "internal-error", HTTPStatus.INTERNAL_SERVER_ERROR, "Something unexpected happened; it was logged."
            )
            await response(problem, scope)(scope, receive, answer)
        finally:
            self._record(scope, status, time.perf_counter() - began)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        method, route = scope["method"], _route(scope)
        self._metrics.requests.labels(method, route, status).inc()
        self._metrics.seconds.labels(method, route).observe(seconds)
        if status >= 400:
            self._metrics.errors.labels(method, route, scope.get(TYPE, "")).inc()
        log.info("request", method=method, route=route, status=status, ms=round(seconds * 1000, 1))


def _route(scope: Scope) -> str:
    """The route's template: a path itself would make a metric per order, and may hold anything."""
    return getattr(scope.get("route"), "path", None) or "unmatched"


def _correlation_id(scope: Scope) -> str:
    """The caller's, if it is one that can go everywhere, or a new one."""
    for name, value in scope["headers"]:
        if name == _HEADER:
            found = value.decode("latin-1")
            if _FITS.fullmatch(found) and not contains_card_number(found):
                return str(found)
    return str(uuid_utils.uuid7())


def _limited(scope: Scope, receive: Receive) -> Receive:
    """`receive` that gives up on a body over MAX_BODY (MAX_REPORT)."""
    most = MAX_REPORT if scope["path"] in PATHS else MAX_BODY
    length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    declared = int(length) if length.isdigit() else 0
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if max(received, declared) <= most:
            return message
        while message.get("more_body") and received < DRAINED:
            message = await receive()
            received += len(message.get("body", b""))
        raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"A body has at most {most // 1024} KiB.")

    return limited
