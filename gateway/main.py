"""The gateway, put together: commands in, queries out."""

from __future__ import annotations

import asyncio
import copy
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

import structlog
import uvicorn
from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute

from gateway import openapi, problems
from gateway.auth import Authenticator
from gateway.call import Parts
from gateway.catalogue import Catalogue
from gateway.commands import Bus
from gateway.dashboard import routes as dashboard
from gateway.edge import Edge
from gateway.keys import Addresses
from gateway.metrics import Metrics
from gateway.monitor import Monitor
from gateway.preferences import PreferenceTable
from gateway.promotions import Promotions
from gateway.queries import Views
from gateway.roles import Role, misdirected
from gateway.routes import (
    audit,
    exceptions,
    history,
    kpis,
    lists,
    operations,
    orders,
    preferences,
    products,
    promotions,
    registry,
    reorder,
    returns,
    webhooks_logistics,
    webhooks_payments,
)
from runtime import health
from runtime import registry as schemas_registry
from runtime.errors import UserError
from runtime.keystore import vault
from runtime.settings import Settings
from schemas import policy

STOP_WITHIN = 3
"""Seconds that requests under way get when the process is told to stop."""

log = structlog.get_logger(__name__)


def run_command(settings: Settings, name: str) -> None:
    """`run`, for commands only."""
    run(settings.model_copy(update={"gateway_role": Role.COMMAND}), name)


def run_query(settings: Settings, name: str) -> None:
    """`run`, for queries only."""
    run(settings.model_copy(update={"gateway_role": Role.QUERY}), name)


def run(settings: Settings, name: str) -> None:
    """Serve until SIGTERM or SIGINT. Blocks, on the main thread.

    Raises:
        UserError: the port is taken.
    """
    health.report(name, "starting")
    listener = _listen(settings)
    server: uvicorn.Server
    failed = False

    def give_up() -> None:
        nonlocal failed
        failed = True
        server.should_exit = True

    app = create_app(create_parts(settings), name, on_dead=give_up)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http="httptools",
            ws="none",
            lifespan="on",
            access_log=False,
            log_config=None,
            server_header=False,
            timeout_graceful_shutdown=STOP_WITHIN,
        )
    )
    # uvicorn raises the signal again when it has stopped; by then everything is closed and there is nothing to do.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run(sockets=[listener])
    if failed or not server.started:
        sys.exit(1)


def create_parts(settings: Settings) -> Parts:
    """Everything the gateway consists of; nothing is started yet."""
    bus = Bus(settings)
    return Parts(
        settings=settings,
        policy=policy.load(settings.policy).scaled(settings.time_scale),
        authenticator=Authenticator(settings),
        bus=bus,
        catalogue=Catalogue(settings, bus.producer),
        preferences=PreferenceTable(settings, bus.producer),
        promotions=Promotions(settings, bus.producer),
        views=Views(settings),
        addresses=Addresses(vault(settings)),
        metrics=Metrics(),
        role=Role(settings.gateway_role),
    )


def create_app(parts: Parts, name: str = "gateway", on_dead: Callable[[], None] = lambda: None) -> FastAPI:
    """The ASGI application. Its lifespan starts and stops the parts."""
    monitor = Monitor(parts, name, on_dead)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        schemas_registry.subjects()  # reads its files now rather than during a request
        if parts.role is not Role.QUERY:
            parts.bus.start()
            parts.preferences.start()
            parts.promotions.start()
        parts.catalogue.start()
        background = [asyncio.create_task(monitor.run(), name="monitor")]
        if parts.role is not Role.COMMAND:
            background.append(asyncio.create_task(parts.metrics.business.run(parts.views), name="business metrics"))
        log.info("started", instance=parts.bus.address, role=parts.role)
        try:
            yield
        finally:
            for task in background:
                task.cancel()
            await parts.views.close()
            await asyncio.gather(*(asyncio.to_thread(feed.stop, 1) for feed in parts.feeds().values()))
            if parts.role is not Role.QUERY:
                await asyncio.to_thread(parts.bus.stop)
            log.info("stopped")

    app = FastAPI(
        title="OMS",
        description="Order management: commands in, queries out. `X-View-Lag`: seconds that an answer is old at most.",
        version="1",
        lifespan=lifespan,
        responses={
            status: {"description": status.phrase, "content": {problems.MEDIA_TYPE: {"schema": problems.SCHEMA}}}
            for status in (HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.SERVICE_UNAVAILABLE)
        },
    )
    app.state.parts = parts
    app.state.monitor = monitor
    problems.install(app)
    openapi.install(app)
    app.add_middleware(Edge, metrics=parts.metrics, role=parts.role)
    for routes in (
        orders,
        reorder,
        returns,
        lists,
        history,
        products,
        promotions,
        preferences,
        exceptions,
        audit,
        kpis,
        registry,
        operations,
        webhooks_payments,
        webhooks_logistics,
    ):
        app.include_router(_of_role(routes.router, parts.role))
    if parts.role is not Role.COMMAND:
        dashboard.install(app, parts)
    return app


def _of_role(router: APIRouter, role: Role) -> APIRouter:
    """The routes that a gateway of this role has. (For the others the edge answers: they are misdirected.)"""
    found = copy.copy(router)
    found.routes = [
        route
        for route in router.routes
        if isinstance(route, APIRoute)
        and all(misdirected(role, method, route.path) is None for method in route.methods or ())
    ]
    return found


def _listen(settings: Settings) -> socket.socket:
    """Bound here rather than by uvicorn, which would log a taken port and go on to exit without a word."""
    listener = socket.socket(socket.AF_INET6 if ":" in settings.gateway_host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.gateway_host, settings.gateway_port))
    except OSError as error:
        raise UserError(
            f"The gateway can't listen on {settings.gateway_host}:{settings.gateway_port} ({error.strerror}): "
            "choose another port (OMS_GATEWAY_PORT)."
        ) from error
    return listener
