"""For operators: is it alive, can it take orders, what are its numbers."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter, Request
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response

from gateway.call import Parts, reply
from gateway.monitor import Monitor

router = APIRouter(tags=["operations"])


@router.get("/healthz")
async def healthz() -> Response:
    """The process answers."""
    return reply({"status": "alive"})


@router.get("/readyz")
async def readyz(request: Request) -> Response:
    """Each dependency; 503 when one that orders can't be placed without is missing."""
    monitor: Monitor = request.app.state.monitor
    dependencies = {
        name: {"ready": condition.ready, "needed": condition.needed, "detail": condition.detail}
        for name, condition in monitor.conditions.items()
    }
    status = "ready" if monitor.ready else "not ready"
    if monitor.ready and not all(condition.ready for condition in monitor.conditions.values()):
        status = "degraded"
    return reply(
        {"status": status, "dependencies": dependencies},
        HTTPStatus.OK if monitor.ready else HTTPStatus.SERVICE_UNAVAILABLE,
    )


@router.get("/metrics")
async def metrics(request: Request) -> Response:
    """In Prometheus' text format."""
    parts: Parts = request.app.state.parts
    return Response(generate_latest(parts.metrics.registry), media_type=CONTENT_TYPE_LATEST)
