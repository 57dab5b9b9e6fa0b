"""The sandbox's warehouse and carrier: one HTTP service that moves nothing and forgets nothing.

It stands in for a company's real partners: parcels are picked, packed and carried, one step after the other, and each
step is reported by a signed webhook to the gateway. What goes wrong is said by the end of a SKU
(`sandbox.parcels.SKUS`), by `POST /v1/control/next`, or by chance (OMS_SANDBOX_SHORT_RATE, …_FAIL_RATE, …_LOST_RATE).

    python -m sandbox.logistics --data-dir DIR --port PORT

Ids are the caller's and make every request repeatable. Errors are `{"error": {"code", "message", "field"?}}`.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from html import escape
from pathlib import Path
from typing import Annotated, Any, TypeVar

from aiohttp import web
from pydantic import Field

from runtime.settings import Settings
from sandbox import service
from sandbox.parcels import (
    SCHEMA,
    Conduct,
    LabelRequest,
    Parcels,
    PickRequest,
    Plan,
    RedeliveryRequest,
    ReturnPlan,
    Sender,
    ShipmentRequest,
)
from sandbox.service import Body, Journal, Refusal, answer, parse
from sandbox.webhooks import Reporter

DATABASE = "logistics-partners.sqlite"
AFTER_FAILURE = 1.0
"""Seconds until the steps are tried again when the books could not be written (a full disk)."""

log = logging.getLogger(__name__)
T = TypeVar("T")


class NextRequest(Plan):
    """What becomes of the order's next parcel, or of this one (`shipment_id`)."""

    order_id: str | None = Field(default=None, min_length=1, max_length=255)
    shipment_id: str | None = Field(default=None, min_length=1, max_length=255)

    def plan(self) -> Plan:
        return Plan.model_validate(self.model_dump(exclude={"order_id", "shipment_id"}))


class ReturnsRequest(ReturnPlan):
    order_id: str = Field(min_length=1, max_length=255)

    def plan(self) -> ReturnPlan:
        return ReturnPlan.model_validate(self.model_dump(exclude={"order_id"}))


class OutageRequest(Body):
    seconds: Annotated[float, Field(strict=False, ge=0, le=86_400)]


class Outbox:
    """What one of the partners has to report, as `sandbox.webhooks` wants it."""

    def __init__(self, journal: Journal, parcels: Parcels, sender: Sender) -> None:
        self._journal, self._parcels, self._sender = journal, parcels, sender

    def undelivered(self, limit: int) -> Sequence[tuple[int, dict[str, Any]]]:
        return self._parcels.undelivered(self._sender, limit)

    async def delivered(self, position: int) -> None:
        await self._journal.write(lambda: self._parcels.delivered(self._sender, position))


class Logistics:
    """The HTTP side, the clock, and the webhooks.

    Args:
        gateway_url: where webhooks go; nobody there: they wait.
        secret: what they are signed with; empty: nothing is sent.
    """

    def __init__(self, journal: Journal, conduct: Conduct, gateway_url: str, secret: str) -> None:
        self._journal = journal
        self._parcels = Parcels(journal, conduct)
        self._outage_until = 0.0  # on the event loop's clock
        self._changed = asyncio.Event()
        paths: dict[Sender, str] = {"warehouse": "/v1/warehouse/events", "carrier": "/v1/carriers/events"}
        self._reporters = [
            Reporter(f"{gateway_url}{path}", secret, Outbox(journal, self._parcels, sender))
            for sender, path in paths.items()
            if secret
        ]

    def application(self) -> web.Application:
        app = web.Application(middlewares=[service.guard(self._is_out)])
        app.add_routes(
            [
                web.post("/v1/picks", self._pick),
                web.get("/v1/picks/{id}", self._get_pick),
                web.delete("/v1/picks/{id}", self._cancel_pick),
                web.post("/v1/shipments", self._book),
                web.get("/v1/shipments", self._list),
                web.get("/v1/shipments/{id}", self._get_parcel),
                web.post("/v1/shipments/{id}/cancel", self._cancel),
                web.post("/v1/shipments/{id}/redeliver", self._redeliver),
                web.post("/v1/labels", self._label),
                web.get("/v1/labels/{id}", self._get_parcel),
                web.get("/track/{number}", self._tracking_page),
                web.get("/labels/{number}", self._label_page),
                web.post("/v1/control/next", self._plan_next),
                web.post("/v1/control/returns", self._plan_returns),
                web.post("/v1/control/returns/{rma}/send", self._send_return),
                web.post("/v1/control/outage", self._outage),
                web.get("/healthz", self._healthz),
            ]
        )
        return app

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The clock ticks and webhooks go out."""
        tasks = [asyncio.create_task(self._tick())]
        tasks += [asyncio.create_task(reporter.run()) for reporter in self._reporters]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, Exception):
                    raise outcome

    async def _tick(self) -> None:
        """Do what is due, when it is due."""
        while True:
            self._changed.clear()
            try:
                done = await self._journal.write(lambda: self._parcels.step(time.time()))
            except Exception:
                log.exception("the steps that are due could not be done")
                await asyncio.sleep(AFTER_FAILURE)
                continue
            if done:
                self._wake_reporters()
                continue
            due = self._parcels.next_due()
            wait = None if due is None else max(0.0, due - time.time())
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                pass  # it is time

    def _wake_reporters(self) -> None:
        for reporter in self._reporters:
            reporter.wake()

    def _is_out(self, path: str) -> bool:
        partners = path.startswith("/v1/") and not path.startswith("/v1/control/")
        return partners and asyncio.get_running_loop().time() < self._outage_until

    async def _do(self, operation: Callable[[], T]) -> T:
        """A change of the books, on disk; then the clock looks again what is next."""
        result = await self._journal.write(operation)
        self._changed.set()
        return result

    async def _pick(self, request: web.Request) -> web.Response:
        body = parse(PickRequest, await request.read())
        return answer(await self._do(lambda: self._parcels.pick(body, time.time())))

    async def _get_pick(self, request: web.Request) -> web.Response:
        return answer(self._parcels.find_pick(request.match_info["id"]))

    async def _cancel_pick(self, request: web.Request) -> web.Response:
        shipment_id = request.match_info["id"]
        cancelled = await self._do(lambda: self._parcels.cancel_pick(shipment_id, time.time()))
        self._wake_reporters()
        return answer(cancelled)

    async def _book(self, request: web.Request) -> web.Response:
        body = parse(ShipmentRequest, await request.read())
        return answer(await self._do(lambda: self._parcels.book(body, time.time())))

    async def _list(self, request: web.Request) -> web.Response:
        """`?order_id=`: its parcels, returns among them."""
        return answer({"items": self._parcels.of_order(request.query.get("order_id", ""))})

    async def _get_parcel(self, request: web.Request) -> web.Response:
        return answer(self._parcels.find_parcel(request.match_info["id"]))

    async def _cancel(self, request: web.Request) -> web.Response:
        shipment_id = request.match_info["id"]
        return answer(await self._do(lambda: self._parcels.cancel(shipment_id, time.time())))

    async def _redeliver(self, request: web.Request) -> web.Response:
        shipment_id = request.match_info["id"]
        body = parse(RedeliveryRequest, await request.read())
        return answer(await self._do(lambda: self._parcels.redeliver(shipment_id, body, time.time())))

    async def _label(self, request: web.Request) -> web.Response:
        body = parse(LabelRequest, await request.read())
        return answer(await self._do(lambda: self._parcels.label(body, time.time())))

    async def _plan_next(self, request: web.Request) -> web.Response:
        body = parse(NextRequest, await request.read())
        order_id, shipment_id, plan = body.order_id, body.shipment_id, body.plan()
        if order_id is not None and shipment_id is None:
            await self._do(lambda: self._parcels.plan_next(order_id, plan))
        elif shipment_id is not None and order_id is None:
            await self._do(lambda: self._parcels.plan_shipment(shipment_id, plan))
        else:
            raise Refusal(422, "invalid_request", "Either order_id or shipment_id.", "order_id")
        return answer(body.model_dump())

    async def _plan_returns(self, request: web.Request) -> web.Response:
        body = parse(ReturnsRequest, await request.read())
        await self._do(lambda: self._parcels.plan_returns(body.order_id, body.plan()))
        return answer(body.model_dump())

    async def _send_return(self, request: web.Request) -> web.Response:
        rma = request.match_info["rma"]
        return answer(await self._do(lambda: self._parcels.send_return(rma, time.time())))

    async def _outage(self, request: web.Request) -> web.Response:
        """`{"seconds": N}` from now, in which neither partner takes anything; 0 ends it."""
        body = parse(OutageRequest, await request.read())
        self._outage_until = asyncio.get_running_loop().time() + body.seconds
        return answer({"seconds": body.seconds})

    async def _healthz(self, _: web.Request) -> web.Response:
        return answer({"status": "ok"})

    async def _tracking_page(self, request: web.Request) -> web.Response:
        parcel, events = self._parcels.tracked(request.match_info["number"])
        arrival = parcel.get("estimated_delivery")
        rows = "".join(
            f"<tr><td>{escape(event['occurred_at'][:19].replace('T', ' '))}</td><td>{escape(_said(event))}</td></tr>"
            for event in reversed(events)
        )
        expected = f"<p>Expected on {escape(arrival)}.</p>" if arrival and parcel["status"] not in ENDED else ""
        return _page(
            f"{parcel['carrier']} {parcel['tracking_number']}",
            f"<p><strong>{escape(_words(parcel['status']))}</strong>, to {escape(_place(parcel))}</p>{expected}"
            f"<table>{rows}</table>",
        )

    async def _label_page(self, request: web.Request) -> web.Response:
        parcel, _ = self._parcels.tracked(request.match_info["number"])
        what = parcel.get("rma") or parcel["shipment_id"]
        return _page(
            f"{parcel['carrier']} {parcel['tracking_number']}",
            f"<p>Return label, from {escape(_place(parcel))}</p><p class=code>{escape(what)}</p>",
        )


ENDED = frozenset({"delivered", "lost", "cancelled", "returned", "received"})


STYLE = (
    ":root{color-scheme:light dark}body{font:16px system-ui;max-width:40rem;margin:3rem auto;padding:0 1rem}"
    "td{padding:.3rem 1rem .3rem 0}.code{font:700 2rem monospace}"
)


def _words(status: str) -> str:
    return status.replace("_", " ")


def _said(event: dict[str, Any]) -> str:
    detail = event.get("detail")
    return _words(event["kind"]) + (f": {detail}" if detail else "")


def _place(parcel: dict[str, Any]) -> str:
    return " ".join(part for part in (parcel["country"], parcel["postal_code"]) if part)


def _page(title: str, content: str) -> web.Response:
    html = (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
        f"<h1>{escape(title)}</h1>{content}"
    )
    return web.Response(text=html, content_type="text/html")


async def _serve(data_dir: Path, host: str, port: int, conduct: Conduct, gateway_url: str, secret: str) -> None:
    # NORMAL: like the broker, it survives its own death, not a power cut; a third of the fsyncs.
    journal = Journal(data_dir / DATABASE, SCHEMA, "NORMAL")
    try:
        logistics = Logistics(journal, conduct, gateway_url, secret)
        await service.serve(logistics.application(), logistics.running(), host, port)
    finally:
        journal.close()


def serve(settings: Settings, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, in the main thread; the books are `data_dir/logistics-partners.sqlite`.

    Raises sqlite3.OperationalError when another process has the books, OSError when the port is taken.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    conduct = Conduct(
        pace=settings.sandbox_pace,
        short_rate=settings.sandbox_short_rate,
        fail_rate=settings.sandbox_fail_rate,
        lost_rate=settings.sandbox_lost_rate,
        seed=settings.sandbox_seed,
        public_url=(settings.logistics_public_url or f"http://{host}:{port}").rstrip("/"),
    )
    secret = settings.webhook_secret.get_secret_value()
    if not secret:
        log.warning("OMS_WEBHOOK_SECRET is not set: nothing will be reported")
    asyncio.run(_serve(settings.data_dir, host, port, conduct, settings.gateway_url.rstrip("/"), secret))


def main() -> None:
    parser = argparse.ArgumentParser(description="The sandbox's warehouse and carrier. See OMS_SANDBOX_* too.")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8091)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    serve(Settings(data_dir=arguments.data_dir), arguments.host, arguments.port)


if __name__ == "__main__":
    main()
