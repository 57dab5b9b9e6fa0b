"""The sandbox payment provider: a small HTTP service that charges nobody and forgets nothing.

It stands in for a company's real provider, behaves like one (idempotency keys, authorizations that expire, partial
captures, refunds, outages, silence, webhooks) and keeps a durable ledger, so that tests and the auditor compare what
OMS believes with what was really charged.

    python -m sandbox.payment_provider --data-dir DIR --port PORT

Amounts are integer minor units. Every error is `{"error": {"code", "message", "field"?}}`. Payment tokens are
compared and hashed, never stored or logged. What they do: pm_card_visa pays, pm_card_chargeDeclined does not; others
declines as invalid_token, except

    pm_sandbox_flaky         the first request of each key is turned away (503)
    pm_sandbox_slow          3 seconds
    pm_sandbox_timeout       no answer, ever; /sandbox/{charges,authorizations}/KEY/settle says how it ended
    pm_sandbox_captureFails  can be authorized, and nothing captured
    pm_sandbox_reportsLate   all that is done with it is done and answered with a 500: asked, or by webhook, it is known
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import re
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

from aiohttp import web
from pydantic import Field

from runtime.settings import Settings
from sandbox.payment_ledger import (
    AUTHORIZATION_SECONDS,
    Attempted,
    AttemptRequest,
    ChargeRequest,
    Ending,
    Entry,
    Kind,
    Ledger,
    PartRequest,
    VoidRequest,
)
from sandbox.service import SHUTDOWN_SECONDS, Body, Refusal, answer, guard, parse
from sandbox.webhooks import Reporter

log = logging.getLogger(__name__)

DATABASE = "payment-provider.sqlite"
WEBHOOK_PATH = "/v1/payments/events"
PAGE_LIMIT = 1000


class SettleRequest(Body):
    status: Ending


class OutageRequest(Body):
    seconds: Annotated[float, Field(strict=False, ge=0, le=86_400)]


class PaymentProvider:
    """The HTTP side: routes, the sandbox's moods, and the clock of slow attempts."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._outage_until = 0.0  # on the event loop's clock
        self._settling: dict[tuple[str, str], asyncio.Task[None]] = {}

    def application(self) -> web.Application:
        app = web.Application(middlewares=[guard(self._out_of_service)])
        app.add_routes(
            [
                web.post("/v1/charges", self._create_charge),
                web.get("/v1/charges/{key}", self._get("charge")),
                web.post("/v1/authorizations", self._create_authorization),
                web.get("/v1/authorizations/{key}", self._get_authorization),
                web.post("/v1/captures", self._create_capture),
                web.get("/v1/captures/{key}", self._get("capture")),
                web.post("/v1/voids", self._create_void),
                web.get("/v1/voids/{key}", self._get("void")),
                web.post("/v1/refunds", self._create_refund),
                web.get("/v1/refunds/{key}", self._get("refund")),
                web.get("/v1/ledger", self._get_ledger),
                web.post("/sandbox/charges/{key}/settle", self._settle("charge")),
                web.post("/sandbox/authorizations/{key}/settle", self._settle("authorization")),
                web.post("/sandbox/authorizations/{key}/expire", self._expire),
                web.post("/sandbox/outage", self._outage),
                web.get("/healthz", self._healthz),
            ]
        )
        return app

    def resume(self) -> None:
        """Take up the slow attempts that the last process left."""
        for attempt in self._ledger.unfinished():
            self._settle_when_due(attempt)

    async def close(self) -> None:
        tasks = list(self._settling.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _out_of_service(self, path: str) -> bool:
        out = asyncio.get_running_loop().time() < self._outage_until
        return out and path.startswith("/v1/") and path != "/v1/ledger"

    async def _create_charge(self, request: web.Request) -> web.StreamResponse:
        return await self._attempt(request, "charge", ChargeRequest)

    async def _create_authorization(self, request: web.Request) -> web.StreamResponse:
        return await self._attempt(request, "authorization", AttemptRequest)

    async def _attempt(self, request: web.Request, kind: Attempted, model: type[AttemptRequest]) -> web.StreamResponse:
        key = _idempotency_key(request)
        body = parse(model, await request.read())
        if has_card_number(body.payment_token.get_secret_value()):
            raise Refusal(422, "card_number", "Send a payment token, never a card number.", "payment_token")
        entry = await self._ledger.write(lambda: self._ledger.attempt(kind, key, body))
        if entry.status == "processing":
            entry = await self._settled(entry)
        return _told(entry)

    async def _settled(self, attempt: Entry) -> Entry:
        """A slow attempt once it succeeded. A hung one never: the handler ends when the client goes away."""
        if attempt.due_at is None:
            await asyncio.Event().wait()
        self._settle_when_due(attempt)
        # shield: the payment goes on when the client leaves.
        await asyncio.shield(self._settling[attempt.kind, attempt.key])
        return self._found(attempt.kind, attempt.key)

    def _settle_when_due(self, attempt: Entry) -> None:
        name = (attempt.kind, attempt.key)
        if name not in self._settling:
            task = asyncio.create_task(self._succeed_at(attempt, attempt.due_at or 0.0))
            task.add_done_callback(lambda _: self._settling.pop(name))
            self._settling[name] = task

    async def _succeed_at(self, attempt: Entry, due_at: float) -> None:
        await asyncio.sleep(due_at - time.time())
        kind: Attempted = "authorization" if attempt.kind == "authorization" else "charge"
        ending: Ending = "authorized" if kind == "authorization" else "captured"
        try:
            await self._ledger.write(lambda: self._ledger.settle(kind, attempt.key, ending))
        except Refusal as refusal:  # a test declined it in the meantime
            log.info("slow %s %s: %s", kind, attempt.key, refusal.code)

    async def _create_capture(self, request: web.Request) -> web.Response:
        key = _idempotency_key(request)
        body = parse(PartRequest, await request.read())
        return _told(await self._ledger.write(lambda: self._ledger.capture(key, body)))

    async def _create_void(self, request: web.Request) -> web.Response:
        key = _idempotency_key(request)
        body = parse(VoidRequest, await request.read())
        return _told(await self._ledger.write(lambda: self._ledger.void(key, body)))

    async def _create_refund(self, request: web.Request) -> web.Response:
        key = _idempotency_key(request)
        body = parse(PartRequest, await request.read())
        return _told(await self._ledger.write(lambda: self._ledger.refund(key, body)))

    def _get(self, kind: Kind) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def get(request: web.Request) -> web.StreamResponse:
            return answer(self._found(kind, request.match_info["key"]).answer())

        return get

    async def _get_authorization(self, request: web.Request) -> web.Response:
        entry = self._found("authorization", request.match_info["key"])
        return answer(self._ledger.authorization_now(entry))

    async def _get_ledger(self, request: web.Request) -> web.Response:
        """`?after=SEQ&limit=N`; `next` is the `after` of the next page, null on the last one."""
        after = _query_int(request, "after", default=0, low=0, high=2**62)
        limit = _query_int(request, "limit", default=PAGE_LIMIT, low=1, high=PAGE_LIMIT)
        entries = self._ledger.page(after, limit)
        more = entries[-1].seq if len(entries) == limit else None
        return answer({"items": [entry.line() for entry in entries], "next": more})

    def _settle(self, kind: Attempted) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def settle(request: web.Request) -> web.StreamResponse:
            key = request.match_info["key"]
            body = parse(SettleRequest, await request.read())
            entry = await self._ledger.write(lambda: self._ledger.settle(kind, key, body.status))
            return answer(entry.answer())

        return settle

    async def _expire(self, request: web.Request) -> web.Response:
        """An authorization ends now."""
        key = request.match_info["key"]
        entry = await self._ledger.write(lambda: self._ledger.expire(key))
        return answer(self._ledger.authorization_now(entry))

    async def _outage(self, request: web.Request) -> web.Response:
        """`{"seconds": N}` from now; 0 ends it."""
        body = parse(OutageRequest, await request.read())
        self._outage_until = asyncio.get_running_loop().time() + body.seconds
        return answer({"seconds": body.seconds})

    async def _healthz(self, _: web.Request) -> web.Response:
        return answer({"status": "ok"})

    def _found(self, kind: Kind, key: str) -> Entry:
        entry = self._ledger.find(kind, key)
        if entry is None:
            raise Refusal(404, f"{kind}_not_found", f"No {kind} has this key.")
        return entry


def _told(entry: Entry) -> web.Response:
    """The answer to what was asked for, unless this one's answers get lost."""
    if entry.mood == "answers_lost":
        raise Refusal(500, "internal_error", "It is done, and its answer got lost.")
    return answer(entry.answer())


def has_card_number(text: str) -> bool:
    """Whether a run of 13 to 19 digits in the text, also one grouped by spaces or dashes, passes Luhn."""
    runs = re.findall(r"\d+", text) + re.findall(r"\d(?:[ -]?\d)+", text)
    return any(_luhn([int(char) for char in run if char.isdigit()]) for run in runs)


def _luhn(digits: list[int]) -> bool:
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return 13 <= len(digits) <= 19 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _idempotency_key(request: web.Request) -> str:
    key = request.headers.get("Idempotency-Key", "")
    if not (0 < len(key) <= 255 and key.isascii() and key.isprintable()):
        raise Refusal(400, "idempotency_key_required", "Idempotency-Key: 1 to 255 ASCII characters.")
    return key


def _query_int(request: web.Request, name: str, *, default: int, low: int, high: int) -> int:
    text = request.query.get(name, str(default))
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
    if not low <= value <= high:
        raise Refusal(422, "invalid_request", f"An integer from {low} to {high}.", name)
    return value


async def _serve(ledger: Ledger, host: str, port: int, reporter: Reporter | None) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    provider = PaymentProvider(ledger)
    provider.resume()
    # handler_cancellation: a handler that holds a connection ends when its client goes away.
    runner = web.AppRunner(
        provider.application(), access_log=None, handler_cancellation=True, shutdown_timeout=SHUTDOWN_SECONDS
    )
    await runner.setup()
    running: set[asyncio.Task[object]] = {asyncio.create_task(stop.wait())}
    if reporter is not None:
        running.add(asyncio.create_task(reporter.run()))
    try:
        await web.TCPSite(runner, host, port).start()
        log.info("sandbox payment provider on http://%s:%d", host, port)
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()  # raises what the reporter died of: the service ends with it, and is started again
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await runner.cleanup()
        await provider.close()


def serve(
    settings: Settings,
    host: str,
    port: int,
    *,
    authorization_seconds: float = AUTHORIZATION_SECONDS,
    webhook_url: str | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, in the main thread; the ledger is `data_dir/payment-provider.sqlite`. What it does
    is reported to `webhook_url` (default: the gateway's), if there is a secret to sign it with.

    Raises sqlite3.OperationalError when another provider has the ledger, OSError when the port is taken.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    ledger = Ledger(settings.data_dir / DATABASE, authorization_seconds)
    reporter = None
    if secret := settings.webhook_secret.get_secret_value():
        reporter = Reporter(webhook_url or settings.gateway_url.rstrip("/") + WEBHOOK_PATH, secret, ledger)
        ledger.on_entry = reporter.wake
    else:
        log.warning("OMS_WEBHOOK_SECRET is not set: nothing will be reported")
    try:
        asyncio.run(_serve(ledger, host, port, reporter))
    finally:
        ledger.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="The sandbox payment provider.")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--authorization-seconds", type=float, default=AUTHORIZATION_SECONDS)
    parser.add_argument(
        "--webhook-url", help="default: OMS_GATEWAY_URL/v1/payments/events; signed with OMS_WEBHOOK_SECRET"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    serve(
        Settings(data_dir=arguments.data_dir),
        arguments.host,
        arguments.port,
        authorization_seconds=arguments.authorization_seconds,
        webhook_url=arguments.webhook_url,
    )


if __name__ == "__main__":
    main()
