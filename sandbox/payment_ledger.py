"""The ledger of the sandbox payment provider: what was authorized, charged, captured, voided and refunded, under whose
idempotency key, and how much of it was reported. Durable; one SQLite file, one process.

Amounts are integer minor units. Payment tokens are compared and hashed, never stored.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import Field, SecretStr

from sandbox.service import Body, Journal, Refusal

T = TypeVar("T")
Kind = Literal["charge", "authorization", "capture", "void", "refund"]
Attempted = Literal["charge", "authorization"]
Ending = Literal["captured", "authorized", "declined"]

SLOW_SECONDS = 3.0
AUTHORIZATION_SECONDS = 7 * 86_400.0

FLAKY = "pm_sandbox_flaky"
SLOW = "pm_sandbox_slow"
TIMEOUT = "pm_sandbox_timeout"
CAPTURE_FAILS = "pm_sandbox_captureFails"
REPORTS_LATE = "pm_sandbox_reportsLate"
# The decline code of each token that declines. An unknown one: invalid_token.
DECLINES = {"pm_card_chargeDeclined": "card_declined"}
ACCEPTED = frozenset({"pm_card_visa", FLAKY, SLOW, TIMEOUT, CAPTURE_FAILS, REPORTS_LATE})
# What lasts beyond the first request of a token is kept as the attempt's mood.
MOODS = {CAPTURE_FAILS: "capture_fails", REPORTS_LATE: "answers_lost"}

SCHEMA = """
CREATE TABLE IF NOT EXISTS entries (
    seq          INTEGER PRIMARY KEY,
    kind         TEXT NOT NULL,
    key          TEXT NOT NULL,
    attempt_id   TEXT NOT NULL,  -- the key of the charge or authorization that this is, or belongs to
    id           TEXT NOT NULL,
    reference    TEXT NOT NULL,
    amount       INTEGER NOT NULL CHECK (amount >= 0),
    currency     TEXT NOT NULL,
    status       TEXT NOT NULL,  -- captured | authorized | declined | processing | voided | refunded
    decline_code TEXT,
    body_hash    BLOB NOT NULL,
    due_at       REAL,           -- epoch seconds at which a slow attempt succeeds by itself
    at           TEXT NOT NULL,  -- RFC 3339, UTC
    expires_at   REAL,           -- of an authorization, epoch seconds
    mood         TEXT,
    UNIQUE (kind, key)
) STRICT;
CREATE INDEX IF NOT EXISTS of_attempt ON entries (attempt_id, kind);
CREATE TABLE IF NOT EXISTS refused_once (key TEXT PRIMARY KEY) WITHOUT ROWID, STRICT;
CREATE TABLE IF NOT EXISTS reported (one INTEGER PRIMARY KEY CHECK (one = 1), seq INTEGER NOT NULL) STRICT;
INSERT INTO reported VALUES (1, 0) ON CONFLICT DO NOTHING;
PRAGMA user_version = 2;
"""

# From the first release, which knew charges and refunds only, and whose table said so.
UPGRADE = f"""
BEGIN;
ALTER TABLE entries RENAME TO entries_1;
DROP INDEX IF EXISTS refunds;
{SCHEMA}
INSERT INTO entries (seq, kind, key, attempt_id, id, reference, amount, currency, status, decline_code, body_hash,
                     due_at, at)
SELECT seq, kind, key, attempt_id, id, reference, amount, currency, status, decline_code, body_hash, due_at, at
FROM entries_1;
DROP TABLE entries_1;
COMMIT;
"""  # noqa: S608 - our own words only

# What an entry is reported as (payment.feed): (kind, status) → kind of the event.
REPORTED = {
    ("charge", "captured"): "captured",
    ("charge", "declined"): "declined",
    ("authorization", "authorized"): "authorized",
    ("authorization", "declined"): "declined",
    ("capture", "captured"): "capture",
    ("void", "voided"): "voided",
    ("refund", "refunded"): "refunded",
}

Amount = Annotated[int, Field(gt=0, le=10**12)]
Currency = Annotated[str, Field(pattern="^[A-Z]{3}$")]
Key = Annotated[str, Field(min_length=1, max_length=255)]


class AttemptRequest(Body):
    """`reference` is the order's id."""

    amount: Amount
    currency: Currency
    payment_token: SecretStr = Field(min_length=1, max_length=255)
    reference: Key

    def fingerprint(self) -> bytes:
        token = self.payment_token.get_secret_value()
        return _digest(self.amount, self.currency, token, self.reference)


class ChargeRequest(AttemptRequest):
    capture: Literal[True] = True


class PartRequest(Body):
    """A capture or a refund. `attempt_id` is the Idempotency-Key of the charge or authorization; a currency, if sent,
    must be the same as there."""

    attempt_id: Key
    amount: Amount
    currency: Currency | None = None

    def fingerprint(self) -> bytes:
        return _digest(self.attempt_id, self.amount, self.currency)


class VoidRequest(Body):
    attempt_id: Key

    def fingerprint(self) -> bytes:
        return _digest(self.attempt_id)


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
    expires_at: float | None
    mood: str | None

    def answer(self) -> dict[str, object]:
        """What the caller gets."""
        fields = ("id", "status", "amount", "currency", "reference")
        answer: dict[str, object] = {name: getattr(self, name) for name in fields}
        if self.decline_code is not None:
            answer["decline_code"] = self.decline_code
        if self.kind not in ("charge", "authorization"):
            answer["attempt_id"] = self.attempt_id
        if self.expires_at is not None:
            answer["expires_at"] = datetime.fromtimestamp(self.expires_at, UTC).isoformat()
        return answer

    def line(self) -> dict[str, object]:
        """What `GET /v1/ledger` shows; `attempt_id` ties captures, voids and refunds to their attempt."""
        fields = ("seq", "kind", "key", "attempt_id", "reference", "amount", "currency", "status", "at")
        return {name: getattr(self, name) for name in fields}

    def event(self) -> dict[str, object]:
        """What the provider reports of it (gateway/routes/webhooks_payments.py)."""
        return {
            "event_id": f"evt_{self.id}_{self.status}",
            "kind": REPORTED[self.kind, self.status],
            "order_id": self.reference,
            "reference": self.key,
            "attempt_id": self.attempt_id,
            "amount": self.amount,
            "currency": self.currency,
            "provider_ref": self.id,
            "occurred_at": self.at,
        }


class Ledger:
    """`write` groups the operations of concurrent requests into one transaction, so one fsync, and answers after it
    (`sandbox.service.Journal`). Reads see what is committed only.

    Args:
        authorization_seconds: how long an authorization lasts.
    """

    def __init__(self, path: Path, authorization_seconds: float = AUTHORIZATION_SECONDS) -> None:
        self._journal = Journal(path, _schema_for(path), "FULL")
        self._db = self._journal.db
        self._authorization_seconds = authorization_seconds
        self.on_entry: Callable[[], object] = lambda: None
        """Called when there is something to report, in the transaction that writes it."""

    async def write(self, operation: Callable[[], T]) -> T:
        """Run `operation` in the next group commit; returns or raises its Refusal once that is on disk."""
        return await self._journal.write(operation)

    def close(self) -> None:
        self._journal.close()

    def find(self, kind: Kind, key: str) -> Entry | None:
        row = self._db.execute("SELECT * FROM entries WHERE kind = ? AND key = ?", (kind, key)).fetchone()
        return Entry(*row) if row else None

    def page(self, after: int, limit: int) -> list[Entry]:
        rows = self._db.execute("SELECT * FROM entries WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit))
        return [Entry(*row) for row in rows]

    def unfinished(self) -> list[Entry]:
        """Slow attempts that a crash or a stop left processing."""
        sql = "SELECT * FROM entries WHERE status = 'processing' AND due_at IS NOT NULL"
        return [Entry(*row) for row in self._db.execute(sql)]

    def authorization_now(self, entry: Entry) -> dict[str, object]:
        """What can be captured now: like the first answer, but voided or expired when nothing of it was captured."""
        answer = entry.answer()
        if entry.status == "authorized" and not self._sum("capture", entry.key):
            if self.find("void", entry.key) is not None:
                answer["status"] = "voided"
            elif _expired(entry):
                answer["status"] = "expired"
        return answer

    # The outbox of `sandbox.webhooks.Reporter`: entries in the order of their numbers. One that is still processing
    # gets a new number when it ends.

    def undelivered(self, limit: int) -> list[tuple[int, dict[str, Any]]]:
        rows = self._db.execute(
            "SELECT * FROM entries WHERE seq > (SELECT seq FROM reported) AND status <> 'processing'"
            " ORDER BY seq LIMIT ?",
            (limit,),
        )
        return [(entry.seq, entry.event()) for entry in (Entry(*row) for row in rows)]

    async def delivered(self, position: int) -> None:
        await self.write(lambda: self._db.execute("UPDATE reported SET seq = ?", (position,)))

    # Operations for `write`.

    def attempt(self, kind: Attempted, key: str, request: AttemptRequest) -> Entry:
        """The charge or authorization of this key: the one there is, or a new one."""
        fingerprint = request.fingerprint()
        if known := self._known(kind, key, fingerprint):
            return known
        token = request.payment_token.get_secret_value()
        if token == FLAKY and self._refuse_once(key):
            raise Refusal(503, "temporarily_unavailable", "The first request of this token fails.")
        decline_code = None if token in ACCEPTED else DECLINES.get(token, "invalid_token")
        if kind == "charge" and token == CAPTURE_FAILS:
            decline_code = "capture_declined"
        if decline_code is not None:
            status = "declined"
        elif token in (SLOW, TIMEOUT):
            status = "processing"
        else:
            status = "captured" if kind == "charge" else "authorized"
        return self._add(
            kind=kind,
            key=key,
            attempt_id=key,
            id=_id("ch" if kind == "charge" else "au"),
            reference=request.reference,
            amount=request.amount,
            currency=request.currency,
            status=status,
            decline_code=decline_code,
            body_hash=fingerprint,
            due_at=time.time() + SLOW_SECONDS if token == SLOW else None,
            expires_at=None if kind == "charge" else time.time() + self._authorization_seconds,
            mood=MOODS.get(token),
        )

    def capture(self, key: str, request: PartRequest) -> Entry:
        """The capture of this key. Refusals: 404 authorization_not_found, 402 and 409 with what is in the way."""
        fingerprint = request.fingerprint()
        if known := self._known("capture", key, fingerprint):
            return known
        authorization = self._authorization(request.attempt_id)
        if authorization.status != "authorized":
            message = f"The authorization is {authorization.status}."
            raise Refusal(409, f"authorization_{authorization.status}", message, "attempt_id")
        if authorization.mood == "capture_fails":
            raise Refusal(402, "capture_declined", "The card's bank does not pay.")
        if self.find("void", authorization.key) is not None:
            raise Refusal(409, "authorization_voided", "The authorization is void.", "attempt_id")
        if _expired(authorization):
            raise Refusal(409, "authorization_expired", "The authorization has expired.", "attempt_id")
        _same_currency(request, authorization)
        left = authorization.amount - self._sum("capture", authorization.key)
        if request.amount > left:
            raise Refusal(409, "amount_exceeds_authorized", f"{left} can be captured.", "amount")
        return self._part("capture", key, authorization, request.amount, "captured", fingerprint)

    def void(self, key: str, request: VoidRequest) -> Entry:
        """Give free what is left of an authorization; its amount may be 0. 404 authorization_not_found, 409."""
        fingerprint = request.fingerprint()
        if known := self._known("void", key, fingerprint):
            return known
        authorization = self._authorization(request.attempt_id)
        if authorization.status != "authorized":
            message = f"The authorization is {authorization.status}."
            raise Refusal(409, f"authorization_{authorization.status}", message, "attempt_id")
        if key != authorization.key:
            raise Refusal(422, "invalid_request", "The Idempotency-Key of a void is the attempt's.", "attempt_id")
        left = authorization.amount - self._sum("capture", authorization.key)
        return self._part("void", key, authorization, left, "voided", fingerprint)

    def refund(self, key: str, request: PartRequest) -> Entry:
        """The refund of this key. Refusals: 404 charge_not_found, 409 with what is in the way."""
        fingerprint = request.fingerprint()
        if known := self._known("refund", key, fingerprint):
            return known
        attempt = self.find("charge", request.attempt_id) or self.find("authorization", request.attempt_id)
        if attempt is None:
            raise Refusal(404, "charge_not_found", "No charge has this key.", "attempt_id")
        taken = self._sum("capture", attempt.key) if attempt.kind == "authorization" else attempt.amount
        if attempt.status not in ("captured", "authorized") or not taken:
            raise Refusal(409, "charge_not_captured", f"The {attempt.kind} is {attempt.status}.", "attempt_id")
        _same_currency(request, attempt)
        left = taken - self._sum("refund", attempt.key)
        if request.amount > left:
            raise Refusal(409, "amount_exceeds_refundable", f"{left} can be refunded.", "amount")
        return self._part("refund", key, attempt, request.amount, "refunded", fingerprint)

    def settle(self, kind: Attempted, key: str, status: Ending) -> Entry:
        """End a processing attempt; ending it the same way again changes nothing.

        The entry moves to the end of the ledger, so that a reader who follows it by `seq` sees how it ended.
        """
        attempt = self.find(kind, key)
        if attempt is None:
            raise Refusal(404, f"{kind}_not_found", f"No {kind} has this key.")
        if status == ("authorized" if kind == "charge" else "captured"):
            raise Refusal(422, "invalid_request", f"A {kind} does not end so.", "status")
        if attempt.status == status:
            return attempt
        if attempt.status != "processing":
            raise Refusal(409, "already_settled", f"The {kind} is {attempt.status}.", "status")
        decline_code = "card_declined" if status == "declined" else None
        row = self._db.execute(
            "UPDATE entries SET seq = (SELECT max(seq) + 1 FROM entries),"
            " status = ?, decline_code = ?, at = ? WHERE seq = ? RETURNING *",
            (status, decline_code, _now(), attempt.seq),
        ).fetchone()
        self.on_entry()
        return Entry(*row)

    def expire(self, key: str) -> Entry:
        """Let an authorization end now."""
        self._authorization(key)
        sql = "UPDATE entries SET expires_at = ? WHERE kind = 'authorization' AND key = ? RETURNING *"
        return Entry(*self._db.execute(sql, (time.time(), key)).fetchone())

    def _authorization(self, key: str) -> Entry:
        found = self.find("authorization", key)
        if found is None:
            raise Refusal(404, "authorization_not_found", "No authorization has this key.", "attempt_id")
        return found

    def _known(self, kind: Kind, key: str, fingerprint: bytes) -> Entry | None:
        entry = self.find(kind, key)
        if entry is not None and entry.body_hash != fingerprint:
            raise Refusal(409, "idempotency_key_reuse", "This key was used with another body.")
        return entry

    def _refuse_once(self, key: str) -> bool:
        done = self._db.execute("INSERT INTO refused_once VALUES (?) ON CONFLICT DO NOTHING", (key,))
        return done.rowcount == 1

    def _sum(self, kind: Kind, attempt_id: str) -> int:
        sql = "SELECT coalesce(sum(amount), 0) FROM entries WHERE attempt_id = ? AND kind = ?"
        return int(self._db.execute(sql, (attempt_id, kind)).fetchone()[0])

    def _part(
        self, kind: Literal["capture", "void", "refund"], key: str, of: Entry, amount: int, status: str, digest: bytes
    ) -> Entry:
        """Something done to an attempt, whose mood it shares."""
        return self._add(
            kind=kind,
            key=key,
            attempt_id=of.key,
            id=_id(kind[:2]),
            reference=of.reference,
            amount=amount,
            currency=of.currency,
            status=status,
            body_hash=digest,
            mood=of.mood,
        )

    def _add(self, **values: object) -> Entry:
        values["at"] = _now()
        names = ", ".join(values)
        places = ", ".join("?" * len(values))
        sql = f"INSERT INTO entries ({names}) VALUES ({places}) RETURNING *"  # noqa: S608 - our own column names
        entry = Entry(*self._db.execute(sql, tuple(values.values())).fetchone())
        self.on_entry()
        return entry


def _schema_for(path: Path) -> str:
    """What brings the file there to today's tables."""
    if not path.exists():
        return SCHEMA
    db = sqlite3.connect(path, timeout=1.0)
    try:
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        first = db.execute("PRAGMA user_version").fetchone()[0] == 0 and "entries" in tables
    finally:
        db.close()
    return UPGRADE if first else SCHEMA


def _same_currency(request: PartRequest, attempt: Entry) -> None:
    if request.currency not in (None, attempt.currency):
        raise Refusal(409, "currency_mismatch", f"The {attempt.kind} was in {attempt.currency}.", "currency")


def _expired(authorization: Entry) -> bool:
    return authorization.expires_at is not None and time.time() >= authorization.expires_at


def _id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex}"


def _digest(*values: object) -> bytes:
    return hashlib.sha256(orjson.dumps(values)).digest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
