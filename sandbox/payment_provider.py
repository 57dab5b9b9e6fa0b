"""The sandbox payment provider: a small HTTP service that charges nobody and forgets nothing.

It stands in for a company's real provider, behaves like one (idempotency keys, refunds, outages, silence) and
keeps a durable ledger, so that tests and the auditor compare what OMS believes with what was really charged.

    python -m sandbox.payment_provider --data-dir DIR --port PORT

Amounts are integer minor units. Every error is `{"error": {"code", "message", "field"?}}`. Payment tokens are
compared and hashed, never stored or logged.
"""

import argparse
import asyncio
import hashlib
import logging
import re
import signal
import sqlite3
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import orjson
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

log = logging.getLogger(__name__)

DATABASE = "payment-provider.sqlite"
SLOW_SECONDS = 3.0
PAGE_LIMIT = 1000
# Open requests (a held one never ends by itself) get this long at SIGTERM.
SHUTDOWN_SECONDS = 1.0

T = TypeVar("T")
Kind = Literal["charge", "refund"]
ChargeStatus = Literal["captured", "declined", "processing"]

FLAKY = "pm_sandbox_flaky"
SLOW = "pm_sandbox_slow"
# How a charge with the token starts, and its decline code. Any other token is declined: invalid_token.
TOKENS: dict[str, tuple[ChargeStatus, str | None]] = {
    "pm_card_visa": ("captured", None),
    "pm_card_chargeDeclined": ("declined", "card_declined"),
    "pm_sandbox_timeout": ("processing", None),
    FLAKY: ("captured", None),
    SLOW: ("processing", None),
}

SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    seq          INTEGER PRIMARY KEY,
    kind         TEXT NOT NULL CHECK (kind IN ('charge', 'refund')),
    key          TEXT NOT NULL,
    attempt_id   TEXT NOT NULL,  -- the charge's key: its own for a charge, the refunded one's for a refund
    id           TEXT NOT NULL,
    reference    TEXT NOT NULL,
    amount       INTEGER NOT NULL CHECK (amount > 0),
    currency     TEXT NOT NULL,
    status       TEXT NOT NULL CHECK (status IN ('captured', 'declined', 'processing', 'refunded')),
    decline_code TEXT,
    body_hash    BLOB NOT NULL,
    due_at       REAL,           -- epoch seconds at which a slow charge is captured by itself
    at           TEXT NOT NULL,  -- RFC 3339, UTC
    UNIQUE (kind, key)
) STRICT;
CREATE INDEX IF NOT EXISTS refunds ON entries (attempt_id) WHERE kind = 'refund';
CREATE TABLE IF NOT EXISTS refused_once (key TEXT PRIMARY KEY) WITHOUT ROWID, STRICT;
"""


class Refusal(Exception):
    """An answer that is not 200: HTTP status, a code for machines, words for people, the field at fault."""

    def __init__(self, status: int, code: str, message: str, field: str | None = None) -> None:
        super().__init__(code)
        self.status, self.code, self.message, self.field = status, code, message, field


class Body(BaseModel):
    # strict: 12.0 or "12" is not an amount in minor units.
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class ChargeRequest(Body):
    amount: int = Field(gt=0, le=10**12)
    currency: str = Field(pattern="^[A-Z]{3}$")
    payment_token: SecretStr = Field(min_length=1, max_length=255)
    reference: str = Field(min_length=1, max_length=255)
    capture: Literal[True] = True

    def fingerprint(self) -> bytes:
        token = self.payment_token.get_secret_value()
        return _digest(self.amount, self.currency, token, self.reference)


class RefundRequest(Body):
    """`attempt_id` is the Idempotency-Key of the charge. A currency, if sent, must be the charge's."""

    attempt_id: str = Field(min_length=1, max_length=255)
    amount: int = Field(gt=0, le=10**12)
    currency: str | None = Field(default=None, pattern="^[A-Z]{3}$")

    def fingerprint(self) -> bytes:
        return _digest(self.attempt_id, self.amount, self.currency)


class SettleRequest(Body):
    status: Literal["captured", "declined"]


class OutageRequest(Body):
    seconds: Annotated[float, Field(strict=False, ge=0, le=86_400)]


RequestBody = TypeVar("RequestBody", bound=Body)


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the ledger."""

    seq: int
    kind: Kind
    key: str
    attempt_id: str
    id: str
    reference: str
    amount: int
    currency: str
    status: str
    decline_code: str | None
    body_hash: bytes
    due_at: float | None
    at: str

    def answer(self) -> dict[str, object]:
        """What the caller of a charge or a refund gets."""
        fields = ("id", "status", "amount", "currency", "reference")
        answer: dict[str, object] = {name: getattr(self, name) for name in fields}
        if self.decline_code is not None:
            answer["decline_code"] = self.decline_code
        return answer

    def line(self) -> dict[str, object]:
        """What `GET /v1/ledger` shows; `attempt_id` ties a refund to its charge."""
        fields = ("seq", "kind", "key", "attempt_id", "reference", "amount", "currency", "status", "at")
        return {name: getattr(self, name) for name in fields}


class Ledger:
    """The durable ledger, one SQLite file, one process.

    `write` groups the operations of concurrent requests into one transaction, so one fsync, and answers
    after it. Commits run on the event loop itself: no answer may leave before the fsync anyway, requests that
    arrive during one share the next, and a reader on the loop never meets an open transaction. Waiting
    some milliseconds to fill a group was measured: a tenth less CPU, and the wait on top of every charge.
    """

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, timeout=1.0, isolation_level=None)
        # An exclusive lock: a second provider on the same file fails at start instead of sharing the money.
        self._db.executescript(
            "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;" + SCHEMA
        )
        self._waiting: list[tuple[Callable[[], Any], asyncio.Future[Any]]] = []

    async def write(self, operation: Callable[[], T]) -> T:
        """Run `operation` in the next group commit; returns or raises its Refusal once that is on disk."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._commit)
        self._waiting.append((operation, future))
        return await future

    def _commit(self) -> None:
        batch, self._waiting = self._waiting, []
        outcomes: list[tuple[Any, Refusal | None]] = []
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for operation, _ in batch:
                try:
                    outcomes.append((operation(), None))
                except Refusal as refusal:
                    outcomes.append((None, refusal))
            self._db.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - not swallowed: every request of the batch fails with it
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        for (_, future), (result, refused) in zip(batch, outcomes, strict=True):
            if future.done():  # the client went away; what it asked for is done all the same
                continue
            if refused is None:
                future.set_result(result)
            else:
                future.set_exception(refused)

    def close(self) -> None:
        if self._waiting:
            self._commit()
        self._db.close()

    # Reads see committed entries only.

    def find(self, kind: Kind, key: str) -> Entry | None:
        row = self._db.execute("SELECT * FROM entries WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        return Entry(*row) if row else None

    def page(self, after: int, limit: int) -> list[Entry]:
        rows = self._db.execute("SELECT * FROM entries WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit))
        return [Entry(*row) for row in rows]

    def unfinished(self) -> list[Entry]:
        """Slow charges that a crash or a stop left processing."""
        sql = "SELECT * FROM entries WHERE status = 'processing' AND due_at IS NOT NULL"
        return [Entry(*row) for row in self._db.execute(sql)]

    # Operations for `write`.

    def charge(self, key: str, request: ChargeRequest) -> Entry:
        """The charge of this key: the one there is, or a new one."""
        fingerprint = request.fingerprint()
        if known := self._known("charge", key, fingerprint):
            return known
        token = request.payment_token.get_secret_value()
        if token == FLAKY and self._refuse_once(key):
            raise Refusal(503, "temporarily_unavailable", "The first request of this token fails.")
        status, decline_code = TOKENS.get(token, ("declined", "invalid_token"))
        due_at = time.time() + SLOW_SECONDS if token == SLOW else None
        return self._add(
            kind="charge",
            key=key,
            attempt_id=key,
            id=f"ch_{uuid.uuid4().hex}",
            reference=request.reference,
            amount=request.amount,
            currency=request.currency,
            status=status,
            decline_code=decline_code,
            body_hash=fingerprint,
            due_at=due_at,
        )

    def refund(self, key: str, request: RefundRequest) -> Entry:
        """The refund of this key. Refusals: 404 charge_not_found, 409 with what is in the way."""
        fingerprint = request.fingerprint()
        if known := self._known("refund", key, fingerprint):
            return known
        charge = self.find("charge", request.attempt_id)
        if charge is None:
            raise Refusal(404, "charge_not_found", "No charge has this key.", "attempt_id")
        if charge.status != "captured":
            raise Refusal(409, "charge_not_captured", f"The charge is {charge.status}.", "attempt_id")
        if request.currency not in (None, charge.currency):
            raise Refusal(409, "currency_mismatch", f"The charge was in {charge.currency}.", "currency")
        sql = "SELECT coalesce(sum(amount), 0) FROM entries WHERE kind = 'refund' AND attempt_id = ?"
        left = charge.amount - self._db.execute(sql, (charge.key,)).fetchone()[0]
        if request.amount > left:
            raise Refusal(409, "amount_exceeds_refundable", f"{left} can be refunded.", "amount")
        return self._add(
            kind="refund",
            key=key,
            attempt_id=charge.key,
            id=f"re_{uuid.uuid4().hex}",
            reference=charge.reference,
            amount=request.amount,
            currency=charge.currency,
            status="refunded",
            decline_code=None,
            body_hash=fingerprint,
            due_at=None,
        )

    def settle(self, key: str, status: Literal["captured", "declined"]) -> Entry:
        """End a processing charge; ending it the same way again changes nothing.

        The entry moves to the end of the ledger, so that a reader who follows it by `seq` sees how it ended.
        """
        charge = self.find("charge", key)
        if charge is None:
            raise Refusal(404, "charge_not_found", "No charge has this key.")
        if charge.status == status:
            return charge
        if charge.status != "processing":
            raise Refusal(409, "already_settled", f"The charge is {charge.status}.", "status")
        decline_code = "card_declined" if status == "declined" else None
        row = self._db.execute(
            "UPDATE entries SET seq = (SELECT max(seq) + 1 FROM entries),"
            " status = ?, decline_code = ?, at = ? WHERE seq = ? RETURNING *",
            (status, decline_code, _now(), charge.seq),
        ).fetchone()
        return Entry(*row)

    def _known(self, kind: Kind, key: str, fingerprint: bytes) -> Entry | None:
        entry = self.find(kind, key)
        if entry is not None and entry.body_hash != fingerprint:
            raise Refusal(409, "idempotency_key_reuse", "This key was used with another body.")
        return entry

    def _refuse_once(self, key: str) -> bool:
        done = self._db.execute("INSERT INTO refused_once VALUES (?) ON CONFLICT DO NOTHING", (key,))
        return done.rowcount == 1

    def _add(self, **values: object) -> Entry:
        values["at"] = _now()
        names = ", ".join(values)
        places = ", ".join("?" * len(values))
        sql = f"INSERT INTO entries ({names}) VALUES ({places}) RETURNING *"  # noqa: S608 - our own column names
        return Entry(*self._db.execute(sql, tuple(values.values())).fetchone())


class PaymentProvider:
    """The HTTP side: routes, the sandbox's moods, and the clock of slow charges."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._outage_until = 0.0  # on the event loop's clock
        self._settling: dict[str, asyncio.Task[None]] = {}

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._guard])
        app.add_routes(
            [
                web.post("/v1/charges", self._create_charge),
                web.get("/v1/charges/{key}", self._get_charge),
                web.post("/v1/refunds", self._create_refund),
                web.get("/v1/refunds/{key}", self._get_refund),
                web.get("/v1/ledger", self._get_ledger),
                web.post("/sandbox/charges/{key}/settle", self._settle),
                web.post("/sandbox/outage", self._outage),
                web.get("/healthz", self._healthz),
            ]
        )
        return app

    def resume(self) -> None:
        """Take up the slow charges that the last process left."""
        for charge in self._ledger.unfinished():
            self._settle_when_due(charge)

    async def close(self) -> None:
        tasks = list(self._settling.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        path = request.path
        out = asyncio.get_running_loop().time() < self._outage_until
        try:
            if out and path.startswith("/v1/") and path != "/v1/ledger":
                raise Refusal(503, "unavailable", "The provider is out of service.")
            return await handler(request)
        except Refusal as refusal:
            error = {"code": refusal.code, "message": refusal.message}
            if refusal.field is not None:
                error["field"] = refusal.field
            return _json({"error": error}, refusal.status)
        except web.HTTPException as answer:  # aiohttp's own: no such route, wrong method, body too large
            code = (answer.reason or "error").lower().replace(" ", "_")
            return _json({"error": {"code": code, "message": answer.reason}}, answer.status)

    async def _create_charge(self, request: web.Request) -> web.StreamResponse:
        key = _idempotency_key(request)
        body = _parse(ChargeRequest, await request.read())
        if has_card_number(body.payment_token.get_secret_value()):
            raise Refusal(422, "card_number", "Send a payment token, never a card number.", "payment_token")
        entry = await self._ledger.write(lambda: self._ledger.charge(key, body))
        if entry.status == "processing":
            entry = await self._settled(entry)
        return _json(entry.answer())

    async def _settled(self, charge: Entry) -> Entry:
        """A slow charge once it is captured. A hung one never: the handler ends when the client goes away."""
        if charge.due_at is None:
            await asyncio.Event().wait()
        self._settle_when_due(charge)
        # shield: the charge goes on when the client leaves.
        await asyncio.shield(self._settling[charge.key])
        return self._found("charge", charge.key)

    def _settle_when_due(self, charge: Entry) -> None:
        if charge.key not in self._settling:
            task = asyncio.create_task(self._capture_at(charge.key, charge.due_at or 0.0))
            task.add_done_callback(lambda _: self._settling.pop(charge.key))
            self._settling[charge.key] = task

    async def _capture_at(self, key: str, due_at: float) -> None:
        await asyncio.sleep(due_at - time.time())
        try:
            await self._ledger.write(lambda: self._ledger.settle(key, "captured"))
        except Refusal as refusal:  # a test declined it in the meantime
            log.info("slow charge %s: %s", key, refusal.code)

    async def _get_charge(self, request: web.Request) -> web.Response:
        return _json(self._found("charge", request.match_info["key"]).answer())

    async def _create_refund(self, request: web.Request) -> web.Response:
        key = _idempotency_key(request)
        body = _parse(RefundRequest, await request.read())
        entry = await self._ledger.write(lambda: self._ledger.refund(key, body))
        return _json(entry.answer())

    async def _get_refund(self, request: web.Request) -> web.Response:
        return _json(self._found("refund", request.match_info["key"]).answer())

    async def _get_ledger(self, request: web.Request) -> web.Response:
        """`?after=SEQ&limit=N`; `next` is the `after` of the next page, null on the last one."""
        after = _query_int(request, "after", default=0, low=0, high=2**62)
        limit = _query_int(request, "limit", default=PAGE_LIMIT, low=1, high=PAGE_LIMIT)
        entries = self._ledger.page(after, limit)
        more = entries[-1].seq if len(entries) == limit else None
        return _json({"items": [entry.line() for entry in entries], "next": more})

    async def _settle(self, request: web.Request) -> web.Response:
        key = request.match_info["key"]
        body = _parse(SettleRequest, await request.read())
        entry = await self._ledger.write(lambda: self._ledger.settle(key, body.status))
        return _json(entry.answer())

    async def _outage(self, request: web.Request) -> web.Response:
        """`{"seconds": N}` from now; 0 ends it."""
        body = _parse(OutageRequest, await request.read())
        self._outage_until = asyncio.get_running_loop().time() + body.seconds
        return _json({"seconds": body.seconds})

    async def _healthz(self, _: web.Request) -> web.Response:
        return _json({"status": "ok"})

    def _found(self, kind: Kind, key: str) -> Entry:
        entry = self._ledger.find(kind, key)
        if entry is None:
            raise Refusal(404, f"{kind}_not_found", f"No {kind} has this key.")
        return entry


def has_card_number(text: str) -> bool:
    """Whether a run of 13 to 19 digits in the text, also one grouped by spaces or dashes, passes Luhn."""
    runs = re.findall(r"\d+", text) + re.findall(r"\d(?:[ -]?\d)+", text)
    return any(_luhn([int(char) for char in run if char.isdigit()]) for run in runs)


def _luhn(digits: list[int]) -> bool:
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return 13 <= len(digits) <= 19 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _digest(*values: object) -> bytes:
    return hashlib.sha256(orjson.dumps(values)).digest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")


def _idempotency_key(request: web.Request) -> str:
    key = request.headers.get("Idempotency-Key", "")
    if not (0 < len(key) <= 255 and key.isascii() and key.isprintable()):
        raise Refusal(400, "idempotency_key_required", "Idempotency-Key: 1 to 255 ASCII characters.")
    return key


def _parse(model: type[RequestBody], body: bytes) -> RequestBody:
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        # Without the input: it may hold what must not be repeated. Not chained, for the same reason.
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or None
        raise Refusal(422, "invalid_request", first["msg"], field) from None


def _query_int(request: web.Request, name: str, *, default: int, low: int, high: int) -> int:
    text = request.query.get(name, str(default))
    value = int(text) if text.isascii() and text.isdigit() and len(text) < 20 else -1
    if not low <= value <= high:
        raise Refusal(422, "invalid_request", f"An integer from {low} to {high}.", name)
    return value


async def _serve(data_dir: Path, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    ledger = Ledger(data_dir / DATABASE)
    provider = PaymentProvider(ledger)
    provider.resume()
    # handler_cancellation: a handler that holds a connection ends when its client goes away.
    runner = web.AppRunner(
        provider.application(), access_log=None, handler_cancellation=True, shutdown_timeout=SHUTDOWN_SECONDS
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        log.info("sandbox payment provider on http://%s:%d", host, port)
        await stop.wait()
    finally:
        await runner.cleanup()
        await provider.close()
        ledger.close()


def serve(data_dir: Path, host: str, port: int) -> None:
    """Serve until SIGTERM or SIGINT, in the main thread; the ledger is `data_dir/payment-provider.sqlite`.

    Raises sqlite3.OperationalError when another provider has the ledger, OSError when the port is taken.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    asyncio.run(_serve(data_dir, host, port))


def main() -> None:
    parser = argparse.ArgumentParser(description="The sandbox payment provider.")
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8090)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    serve(arguments.data_dir, arguments.host, arguments.port)


if __name__ == "__main__":
    main()
