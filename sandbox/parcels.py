"""The books of the sandbox's warehouse and carrier: picks, parcels, their schedule and what was reported; in SQLite.

Each pick and each parcel is a small state machine whose next step has a due time, so that a restart goes on where the
last process stopped. A step and the event that reports it are one transaction.

Addresses are for the label and aren't kept: of a recipient the books know country and postal code.
"""

from __future__ import annotations

import hashlib
import sqlite3
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import orjson
from pydantic import Field

from sandbox.service import Body, Journal, Refusal

Sender = Literal["warehouse", "carrier"]

STEPS = 500
"""Steps in one transaction."""
RETURN_STEPS = 2
"""How long a customer takes to send a parcel back."""
CARRIERS = {"express": ("Sandbox Express", 1)}
"""Shipping method → who carries it, and in how many days. Any other method goes by Sandbox Post."""
POST = ("Sandbox Post", 4)

SCHEMA = """
CREATE TABLE IF NOT EXISTS picks (
    shipment_id TEXT PRIMARY KEY,
    order_id    TEXT NOT NULL,
    lines       TEXT NOT NULL,   -- JSON, as asked for
    status      TEXT NOT NULL,   -- picking | picked | packed | short (nothing is there) | cancelled
    plan        TEXT NOT NULL,   -- JSON, a Plan
    fingerprint BLOB NOT NULL,
    due_at      REAL             -- epoch seconds of the next step
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS picks_due ON picks (due_at) WHERE due_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS parcels (
    reference          TEXT PRIMARY KEY,  -- the shipment's id; the RMA of a parcel that comes back
    order_id           TEXT NOT NULL,
    status             TEXT NOT NULL,     -- booked | shipped | in_transit | out_for_delivery | failed | delivered |
                                          -- lost | cancelled | returning | returned; labelled | received of an RMA's
    carrier            TEXT NOT NULL,
    tracking_number    TEXT NOT NULL UNIQUE,
    estimated_delivery TEXT,              -- ISO date
    country            TEXT NOT NULL,
    postal_code        TEXT,
    details            TEXT NOT NULL,     -- JSON: method, weight, customs
    plan               TEXT NOT NULL,     -- JSON, a Plan
    attempt            INTEGER NOT NULL,  -- delivery attempts that failed
    asked              INTEGER NOT NULL,  -- the newest redelivery asked for
    fingerprint        BLOB NOT NULL,
    due_at             REAL
) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS parcels_due ON parcels (due_at) WHERE due_at IS NOT NULL;
CREATE TABLE IF NOT EXISTS plans (order_id TEXT PRIMARY KEY, plan TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS return_plans (order_id TEXT PRIMARY KEY, plan TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (
    position INTEGER PRIMARY KEY,
    sender   TEXT NOT NULL,
    subject  TEXT NOT NULL,   -- shipment id or RMA
    body     TEXT NOT NULL    -- JSON, as the webhook carries it
) STRICT;
CREATE INDEX IF NOT EXISTS events_of ON events (sender, position);
CREATE INDEX IF NOT EXISTS events_about ON events (subject);
CREATE TABLE IF NOT EXISTS outboxes (sender TEXT PRIMARY KEY, delivered INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""


class Short(Body):
    """So many units of a line that are not there; `line` is its id or its SKU."""

    line: str
    quantity: int = Field(gt=0)


class Plan(Body):
    """What becomes of a parcel; nothing said: all goes well."""

    short: tuple[Short, ...] = Field(default=(), strict=False)
    fail_attempts: int = Field(default=0, ge=0, description="deliveries that nobody is home for")
    lose: bool = Field(default=False, description="on its way")
    return_to_sender: bool = Field(default=False, description="instead of being delivered")
    refuse: str | None = Field(default=None, description="the carrier does not take it: an error code")


class ReturnPlan(Body):
    """What becomes of an order's returns."""

    keep: bool = Field(default=False, description="the customer sends nothing back until told to")
    refuse: str | None = Field(default=None, description="there is no label: an error code")


# What the end of a SKU does to the parcel that it is in.
SKUS: dict[str, dict[str, Any]] = {
    "-SANDBOX-FAIL": {"fail_attempts": 1},
    "-SANDBOX-NOBODY": {"fail_attempts": 1_000},
    "-SANDBOX-LOST": {"lose": True},
    "-SANDBOX-RETURN": {"return_to_sender": True},
    "-SANDBOX-REFUSED": {"refuse": "not_accepted"},
}
SHORT_SKU = "-SANDBOX-SHORT"
"""One unit of such a line is not there."""


@dataclass(frozen=True, slots=True)
class Conduct:
    """How the sandbox behaves.

    Args:
        pace: seconds that a step takes.
        short_rate, fail_rate, lost_rate: shares (0 to 1) of parcels that lack a unit, are taken by nobody at the first
            attempt, get lost. Which ones, `seed` and the shipment's id say: the same ones each time.
        public_url: where people find tracking pages and labels.
    """

    pace: float = 1.0
    short_rate: float = 0.0
    fail_rate: float = 0.0
    lost_rate: float = 0.0
    seed: str = ""
    public_url: str = ""


class PickLine(Body):
    line_id: str = Field(min_length=1, max_length=255)
    sku: str = Field(min_length=1, max_length=255)
    quantity: int = Field(gt=0)
    name: str = ""
    weight_grams: int = Field(default=0, ge=0)


class PickRequest(Body):
    shipment_id: str = Field(min_length=1, max_length=255)
    order_id: str = Field(min_length=1, max_length=255)
    lines: tuple[PickLine, ...] = Field(min_length=1, strict=False)


class Recipient(Body):
    name: str = Field(min_length=1)
    street_address: str = Field(min_length=1)
    city: str = Field(min_length=1)
    state: str | None = None
    postal_code: str | None = None
    country: str = Field(pattern="^[A-Z]{2}$")


class CustomsLine(Body):
    """`value` in minor units of `currency`."""

    sku: str
    name: str
    quantity: int = Field(gt=0)
    value: int = Field(ge=0)
    currency: str = Field(pattern="^[A-Z]{3}$")
    hs_code: str | None = None
    origin: str | None = None


class Customs(Body):
    incoterm: Literal["DAP", "DDP"]
    items: tuple[CustomsLine, ...] = Field(min_length=1, strict=False)


class ShipmentRequest(Body):
    shipment_id: str = Field(min_length=1, max_length=255)
    order_id: str = Field(min_length=1, max_length=255)
    method: str = Field(min_length=1, max_length=64)
    address: Recipient
    weight_grams: int = Field(ge=0)
    customs: Customs | None = None


class RedeliveryRequest(Body):
    """`attempt`: the newer request has the larger one; a repeat changes nothing."""

    attempt: int = Field(ge=0)


class LabelRequest(Body):
    """`address`: where the customer sends it from."""

    rma: str = Field(min_length=1, max_length=255)
    order_id: str = Field(min_length=1, max_length=255)
    address: Recipient


class Parcels:
    """The books. What returns `dict` is what a caller gets. Changes run inside `Journal.write`."""

    def __init__(self, journal: Journal, conduct: Conduct) -> None:
        self._db = journal.db
        self._conduct = conduct

    # What is asked for

    def plan_next(self, order_id: str, plan: Plan) -> None:
        """What becomes of the next parcel of this order."""
        self._db.execute("INSERT OR REPLACE INTO plans VALUES (?, ?)", (order_id, plan.model_dump_json()))

    def plan_shipment(self, shipment_id: str, plan: Plan) -> None:
        """What becomes of a parcel that there is already. Refusal: 404."""
        values = (plan.model_dump_json(), shipment_id)
        picks = self._db.execute("UPDATE picks SET plan = ? WHERE shipment_id = ?", values).rowcount
        if not self._db.execute("UPDATE parcels SET plan = ? WHERE reference = ?", values).rowcount + picks:
            raise Refusal(404, "shipment_not_found", "There is no such shipment.", "shipment_id")

    def plan_returns(self, order_id: str, plan: ReturnPlan) -> None:
        """What becomes of the returns of this order from now on."""
        self._db.execute("INSERT OR REPLACE INTO return_plans VALUES (?, ?)", (order_id, plan.model_dump_json()))

    def pick(self, request: PickRequest, now: float) -> dict[str, Any]:
        """Pick and pack a parcel. Refusal: 409 when this shipment was asked for with other lines."""
        fingerprint = _fingerprint(request.order_id, [line.model_dump() for line in request.lines])
        known = self._one("SELECT * FROM picks WHERE shipment_id = ?", request.shipment_id)
        if known is None:
            plan = self._take_plan(request.order_id) or self._usual(request.shipment_id, request.lines)
            lines = orjson.dumps([line.model_dump() for line in request.lines]).decode()
            self._db.execute(
                "INSERT INTO picks VALUES (?, ?, ?, 'picking', ?, ?, ?)",
                (request.shipment_id, request.order_id, lines, plan.model_dump_json(), fingerprint, self._next(now)),
            )
        elif known["fingerprint"] != fingerprint:
            raise Refusal(409, "shipment_exists", "This shipment was asked for with other lines.", "shipment_id")
        return self.find_pick(request.shipment_id)

    def cancel_pick(self, shipment_id: str, now: float) -> dict[str, Any]:
        """Not to be packed, or to be unpacked. Refusal: 404, and 409 too_late when the carrier has it."""
        pick = self._one("SELECT * FROM picks WHERE shipment_id = ?", shipment_id)
        if pick is None:
            raise Refusal(404, "shipment_not_found", "There is no such shipment.")
        parcel = self._one("SELECT status FROM parcels WHERE reference = ?", shipment_id)
        if pick["status"] == "short" or (parcel is not None and parcel["status"] not in ("booked", "cancelled")):
            raise Refusal(409, "too_late", f"The parcel is {parcel['status'] if parcel else 'not there'}.")
        if pick["status"] != "cancelled":
            self._move_pick(shipment_id, "cancelled", None)
            self._report("warehouse", shipment_id, pick["order_id"], now, kind="cancelled", lines=[])
        return self.find_pick(shipment_id)

    def book(self, request: ShipmentRequest, now: float) -> dict[str, Any]:
        """Have a parcel fetched. Refusal: 409 for another parcel under this id, 422 when it is not accepted."""
        address = request.address
        details = {
            "method": request.method,
            "weight_grams": request.weight_grams,
            "customs": None if request.customs is None else request.customs.model_dump(),
        }
        fingerprint = _fingerprint(request.order_id, address.country, address.postal_code, details)
        known = self._one("SELECT * FROM parcels WHERE reference = ?", request.shipment_id)
        if known is None:
            carrier, days = CARRIERS.get(request.method, POST)
            pick = self._one("SELECT plan FROM picks WHERE shipment_id = ?", request.shipment_id)
            # Of a parcel that the warehouse never saw, it is the order's next.
            plan = Plan.model_validate_json(pick["plan"]) if pick else self._planned(request.order_id) or Plan()
            if plan.refuse is not None:
                raise Refusal(422, plan.refuse, "The carrier does not take this parcel.")
            if pick is None:
                self._take_plan(request.order_id)
            arrival = datetime.fromtimestamp(now, UTC).date() + timedelta(days=days)
            self._add_parcel(
                request.shipment_id,
                request.order_id,
                "booked",
                carrier,
                arrival.isoformat(),
                address,
                details,
                plan,
                fingerprint,
                self._next(now),
            )
        elif known["fingerprint"] != fingerprint:
            raise Refusal(409, "shipment_exists", "Another parcel was booked under this id.", "shipment_id")
        return self.find_parcel(request.shipment_id)

    def cancel(self, shipment_id: str, now: float) -> dict[str, Any]:
        """Not to be fetched, or to be brought back. Refusal: 404, and 409 too_late when it has arrived somewhere."""
        parcel = self._parcel(shipment_id)
        match parcel["status"]:
            case "booked":
                self._move(shipment_id, "cancelled", None)
            case "shipped" | "in_transit" | "out_for_delivery" | "failed":
                self._move(shipment_id, "returning", self._next(now))
            case "cancelled" | "returning" | "returned":
                pass
            case status:
                raise Refusal(409, "too_late", f"The parcel is {status}.")
        return self.find_parcel(shipment_id)

    def redeliver(self, shipment_id: str, request: RedeliveryRequest, now: float) -> dict[str, Any]:
        """Try again. Refusal: 404, and 409 when it is neither waiting for that nor on its way."""
        parcel = self._parcel(shipment_id)
        if request.attempt > parcel["asked"]:
            if parcel["status"] not in ("failed", "shipped", "in_transit", "out_for_delivery"):
                raise Refusal(409, "cannot_redeliver", f"The parcel is {parcel['status']}.")
            if parcel["status"] == "failed":
                self._move(shipment_id, "in_transit", self._next(now))
            self._db.execute("UPDATE parcels SET asked = ? WHERE reference = ?", (request.attempt, shipment_id))
        return self.find_parcel(shipment_id)

    def label(self, request: LabelRequest, now: float) -> dict[str, Any]:
        """A label for a parcel that comes back. Refusal: 409 when the RMA was used for another order."""
        address = request.address
        fingerprint = _fingerprint(request.order_id, address.country, address.postal_code)
        known = self._one("SELECT * FROM parcels WHERE reference = ?", request.rma)
        if known is None:
            row = self._one("SELECT plan FROM return_plans WHERE order_id = ?", request.order_id)
            plan = ReturnPlan() if row is None else ReturnPlan.model_validate_json(row["plan"])
            if plan.refuse is not None:
                raise Refusal(422, plan.refuse, "The carrier makes no label for this.")
            due_at = None if plan.keep else self._next(now, RETURN_STEPS)
            self._add_parcel(
                request.rma,
                request.order_id,
                "labelled",
                POST[0],
                None,
                address,
                {},
                Plan(),
                fingerprint,
                due_at,
            )
        elif known["fingerprint"] != fingerprint:
            raise Refusal(409, "rma_exists", "This RMA was used for another return.", "rma")
        return self.find_parcel(request.rma)

    def send_return(self, rma: str, now: float) -> dict[str, Any]:
        """The customer sends it now. Refusal: 404."""
        if self._parcel(rma)["status"] == "labelled":
            self._move(rma, "labelled", self._next(now))
        return self.find_parcel(rma)

    # What happens by itself

    def step(self, now: float) -> int:
        """Do what is due, STEPS at most; how many steps that were."""
        picks = self._due("picks", "shipment_id", now, STEPS)
        for pick in picks:
            self._step_pick(pick, now)
        parcels = self._due("parcels", "reference", now, STEPS - len(picks))
        for parcel in parcels:
            self._step_parcel(parcel, now)
        return len(picks) + len(parcels)

    def next_due(self) -> float | None:
        """When something is to be done; epoch seconds."""
        row = self._one("SELECT min(due_at) FROM (SELECT min(due_at) AS due_at FROM picks UNION ALL"
                        " SELECT min(due_at) FROM parcels)")  # fmt: skip
        return None if row is None else row[0]

    def _step_pick(self, pick: sqlite3.Row, now: float) -> None:
        shipment_id, order_id = pick["shipment_id"], pick["order_id"]
        if pick["status"] == "picked":
            self._move_pick(shipment_id, "packed", None)
            self._report("warehouse", shipment_id, order_id, now, kind="packed", lines=[])
            return
        lines = orjson.loads(pick["lines"])
        missing = _missing(lines, Plan.model_validate_json(pick["plan"]).short)
        if missing:
            self._report("warehouse", shipment_id, order_id, now, kind="short", lines=missing)
        if sum(line["quantity"] for line in missing) == sum(line["quantity"] for line in lines):
            self._move_pick(shipment_id, "short", None)
            return
        self._move_pick(shipment_id, "picked", self._next(now))
        self._report("warehouse", shipment_id, order_id, now, kind="picked", lines=[])

    def _step_parcel(self, parcel: sqlite3.Row, now: float) -> None:
        plan = Plan.model_validate_json(parcel["plan"])
        match parcel["status"]:
            case "booked":
                self._advance(parcel, "shipped", now)
            case "shipped":
                self._advance(parcel, "in_transit", now)
            case "in_transit" if plan.lose:
                self._advance(parcel, "lost", now, detail="not found in the depot")
            case "in_transit":
                self._advance(parcel, "out_for_delivery", now)
            case "out_for_delivery" if plan.return_to_sender:
                self._advance(parcel, "returned", now, detail="the recipient is unknown at the address")
            case "out_for_delivery" if parcel["attempt"] < plan.fail_attempts:
                self._fail(parcel, now)
            case "out_for_delivery":
                self._advance(parcel, "delivered", now)
            case "returning":
                self._advance(parcel, "returned", now, detail="called back")
            case "labelled":
                self._advance(parcel, "received", now, kind="return_received")
            case status:
                raise AssertionError(f"a parcel that is {status} has no next step")

    def _advance(self, parcel: sqlite3.Row, status: str, now: float, **said: Any) -> None:
        goes_on = status in ("shipped", "in_transit", "out_for_delivery")
        self._move(parcel["reference"], status, self._next(now) if goes_on else None)
        self._report_parcel(parcel, now, **{"kind": status, **said})

    def _fail(self, parcel: sqlite3.Row, now: float) -> None:
        """Nobody is home; it waits until it is called back or to be delivered again."""
        tomorrow = (datetime.fromtimestamp(now, UTC).date() + timedelta(days=1)).isoformat()
        later = max(tomorrow, parcel["estimated_delivery"] or "")
        attempt = parcel["attempt"] + 1
        self._move(parcel["reference"], "failed", None)
        self._db.execute(
            "UPDATE parcels SET attempt = ?, estimated_delivery = ? WHERE reference = ?",
            (attempt, later, parcel["reference"]),
        )
        self._report_parcel(
            parcel,
            now,
            kind="failed_attempt",
            attempt=attempt,
            detail="nobody was home",
            estimated_delivery=later,
        )

    # What was said, and reads

    def undelivered(self, sender: Sender, limit: int) -> Sequence[tuple[int, dict[str, Any]]]:
        """(position, event) of the sender's events after the last delivered one."""
        sql = (
            "SELECT position, body FROM events WHERE sender = ?1 AND position >"
            " coalesce((SELECT delivered FROM outboxes WHERE sender = ?1), 0) ORDER BY position LIMIT ?2"
        )
        return [(row["position"], orjson.loads(row["body"])) for row in self._db.execute(sql, (sender, limit))]

    def delivered(self, sender: Sender, position: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO outboxes VALUES (?, ?)", (sender, position))

    def find_pick(self, shipment_id: str) -> dict[str, Any]:
        """Refusal: 404."""
        pick = self._one("SELECT * FROM picks WHERE shipment_id = ?", shipment_id)
        if pick is None:
            raise Refusal(404, "shipment_not_found", "There is no such shipment.")
        lines = orjson.loads(pick["lines"])
        return {"shipment_id": shipment_id, "order_id": pick["order_id"], "status": pick["status"], "lines": lines}

    def find_parcel(self, reference: str) -> dict[str, Any]:
        """A shipment, or a return. Refusal: 404."""
        return self._told(self._parcel(reference))

    def tracked(self, tracking_number: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """A parcel and what the carrier said of it, oldest first. Refusal: 404."""
        row = self._one("SELECT * FROM parcels WHERE tracking_number = ?", tracking_number)
        if row is None:
            raise Refusal(404, "parcel_not_found", "No parcel has this tracking number.")
        sql = "SELECT body FROM events WHERE subject = ? AND sender = 'carrier' ORDER BY position"
        said = self._db.execute(sql, (row["reference"],))
        return self._told(row), [orjson.loads(event["body"]) for event in said]

    def of_order(self, order_id: str) -> list[dict[str, Any]]:
        rows = self._db.execute("SELECT * FROM parcels WHERE order_id = ? ORDER BY reference", (order_id,))
        return [self._told(row) for row in rows]

    def _told(self, row: sqlite3.Row) -> dict[str, Any]:
        base = {"order_id": row["order_id"], "status": row["status"], "carrier": row["carrier"],
                "tracking_number": row["tracking_number"], "country": row["country"],
                "postal_code": row["postal_code"]}  # fmt: skip
        public = self._conduct.public_url
        if row["status"] in ("labelled", "received"):
            return {"rma": row["reference"], **base, "label_url": f"{public}/labels/{row['tracking_number']}"}
        details = orjson.loads(row["details"])
        return {
            "shipment_id": row["reference"],
            **base,
            **details,
            "tracking_url": f"{public}/track/{row['tracking_number']}",
            "estimated_delivery": row["estimated_delivery"],
            "attempts": row["attempt"],
        }

    # Inside

    def _planned(self, order_id: str) -> Plan | None:
        row = self._one("SELECT plan FROM plans WHERE order_id = ?", order_id)
        return None if row is None else Plan.model_validate_json(row["plan"])

    def _take_plan(self, order_id: str) -> Plan | None:
        plan = self._planned(order_id)
        self._db.execute("DELETE FROM plans WHERE order_id = ?", (order_id,))
        return plan

    def _usual(self, reference: str, lines: Sequence[PickLine]) -> Plan:
        """As SKUs and chance want it."""
        values: dict[str, Any] = {}
        for line in lines:
            values |= next((said for end, said in SKUS.items() if line.sku.endswith(end)), {})
        short = [Short(line=line.line_id, quantity=1) for line in lines if line.sku.endswith(SHORT_SKU)]
        conduct = self._conduct
        if self._chance("short", reference) < conduct.short_rate:
            short = short or [Short(line=lines[0].line_id, quantity=1)]
        if self._chance("fail", reference) < conduct.fail_rate:
            values.setdefault("fail_attempts", 1)
        if self._chance("lost", reference) < conduct.lost_rate:
            values.setdefault("lose", True)
        return Plan(short=tuple(short), **values)

    def _chance(self, what: str, reference: str) -> float:
        digest = hashlib.sha256(f"{self._conduct.seed}:{what}:{reference}".encode()).digest()
        return float(int.from_bytes(digest[:6], "big")) / float(1 << 48)

    def _add_parcel(
        self,
        reference: str,
        order_id: str,
        status: str,
        carrier: str,
        estimated_delivery: str | None,
        address: Recipient,
        details: dict[str, Any],
        plan: Plan,
        fingerprint: bytes,
        due_at: float | None,
    ) -> None:
        number = "SB" + hashlib.sha256(reference.encode()).hexdigest()[:12].upper()
        self._db.execute(
            "INSERT INTO parcels VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, -1, ?, ?)",
            (
                reference,
                order_id,
                status,
                carrier,
                number,
                estimated_delivery,
                address.country,
                address.postal_code,
                orjson.dumps(details).decode(),
                plan.model_dump_json(),
                fingerprint,
                due_at,
            ),
        )

    def _report_parcel(self, parcel: sqlite3.Row, now: float, **said: Any) -> None:
        self._report(
            "carrier", parcel["reference"], parcel["order_id"], now, tracking_number=parcel["tracking_number"], **said
        )

    def _report(self, sender: Sender, subject: str, order_id: str, now: float, **said: Any) -> None:
        name = "shipment_id" if sender == "warehouse" else "reference"
        body = {
            "event_id": str(uuid.uuid4()),
            "order_id": order_id,
            name: subject,
            **said,
            "occurred_at": datetime.fromtimestamp(now, UTC).isoformat(timespec="microseconds"),
        }
        sql = "INSERT INTO events (sender, subject, body) VALUES (?, ?, ?)"
        self._db.execute(sql, (sender, subject, orjson.dumps(body).decode()))

    def _next(self, now: float, steps: int = 1) -> float:
        return now + steps * self._conduct.pace

    def _due(self, table: str, key: str, now: float, limit: int) -> list[sqlite3.Row]:
        sql = f"SELECT * FROM {table} WHERE due_at <= ? ORDER BY due_at, {key} LIMIT ?"  # noqa: S608 - our own names
        return self._db.execute(sql, (now, limit)).fetchall()

    def _move_pick(self, shipment_id: str, status: str, due_at: float | None) -> None:
        sql = "UPDATE picks SET status = ?, due_at = ? WHERE shipment_id = ?"
        self._db.execute(sql, (status, due_at, shipment_id))

    def _move(self, reference: str, status: str, due_at: float | None) -> None:
        sql = "UPDATE parcels SET status = ?, due_at = ? WHERE reference = ?"
        self._db.execute(sql, (status, due_at, reference))

    def _parcel(self, reference: str) -> sqlite3.Row:
        row = self._one("SELECT * FROM parcels WHERE reference = ?", reference)
        if row is None:
            raise Refusal(404, "shipment_not_found", "There is no such parcel.")
        return row

    def _one(self, sql: str, *values: object) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._db.execute(sql, values).fetchone()
        return row


def _missing(lines: Sequence[dict[str, Any]], short: Sequence[Short]) -> list[dict[str, Any]]:
    """The units that are not there, never more than were asked for."""
    found = []
    for line in lines:
        wanted = sum(one.quantity for one in short if one.line in (line["line_id"], line["sku"]))
        if wanted:
            quantity = min(wanted, line["quantity"])
            found.append({"line_id": line["line_id"], "sku": line["sku"], "quantity": quantity})
    return found


def _fingerprint(*values: object) -> bytes:
    return hashlib.sha256(orjson.dumps(values)).digest()
