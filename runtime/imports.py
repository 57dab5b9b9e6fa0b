"""`oms import`: history from another system, one JSON object a line, through the same rules.

Every line becomes one command on `order.internal` under an id that derives from its source and its own id, and its
outcome is waited for. So an import can be stopped and started again as often as you like: what is there already is
answered as it was the first time. Nothing is half imported, and what is refused is written to a report with its reason.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import orjson
from confluent_kafka import KafkaError, Producer
from pydantic import ValidationError
from uuid_utils import uuid5

from processors.order.history import NAMESPACE, PastAddress, PastOrder, Unfit, command_of, order_id_of
from runtime import dead_letters, kafka
from runtime.errors import UserError
from runtime.feed import Feed, Received, from_now
from runtime.keystore import Vault, vault
from runtime.settings import Settings
from schemas.address import Address
from schemas.base import Command
from schemas.codec import encode
from schemas.replies import CommandOutcome, Rejection

COMMANDS = "order.internal"
REPLIES = "order.replies"
ACTOR = "staff:import"
IN_FLIGHT = 1_000
"""Lines that wait for their outcome at a time."""
LINGER_MS = 100
"""Lines wait for each other: nobody waits for one, and a request costs the broker more than what is in it."""
PATIENCE = 60.0
"""Seconds without any outcome after which the import gives up (and can be started again)."""
NAMED = 10
"""Lines that are named when it gives up."""


@dataclass
class Tally:
    """How far the import has come."""

    lines: int = 0
    imported: int = 0
    known: int = 0
    """Orders that were there already from a longer while ago."""
    rejected: int = 0


@dataclass(frozen=True)
class Line:
    number: int
    external_id: str


@dataclass
class Importer:
    """One run over one file. `report` gets a JSON object for each rejected line."""

    settings: Settings
    source: str
    report: TextIO
    on_progress: Callable[[Tally], None] = lambda _: None
    tally: Tally = field(default_factory=Tally)

    def run(self, lines: Iterator[bytes]) -> Tally:
        """Import all lines. UserError when Kafka or [order] doesn't answer for longer than PATIENCE."""
        self._waiting: dict[str, Line] = {}
        self._changed = threading.Condition()
        self._heard = time.monotonic()
        self._failed: str | None = None
        self._vault = vault(self.settings)
        self._address = f"import.{secrets.token_hex(6)}"
        key = self._address.encode()
        producer = kafka.producer(self.settings, message_max_bytes=dead_letters.MAX_BYTES, linger_ms=LINGER_MS)
        replies = Feed(
            self.settings,
            "import",
            producer,
            from_now(REPLIES, key),
            self._take,
            wanted=lambda found: found == key,
            process="oms-cli",
        )
        replies.start()
        try:
            if not replies.caught_up.wait(PATIENCE):
                raise UserError("Kafka does not answer: is the stack running?")
            for number, raw in enumerate(lines, start=1):
                if raw.strip():
                    self._send(producer, number, raw)
                producer.poll(0)
            self._wait_for(lambda: not self._waiting)
        finally:
            producer.flush(5)
            replies.stop(2)
        return self.tally

    def _send(self, producer: Producer, number: int, raw: bytes) -> None:
        self.tally.lines += 1
        try:
            past = PastOrder.model_validate_json(raw)
            data = command_of(self.source, past, self._seal)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            self._reject(Line(number, _id_of(raw)), "invalid", _field(first["loc"]), first["msg"])
            return
        except Unfit as error:
            self._reject(Line(number, past.id), "invalid", error.field, str(error))
            return
        order_id = order_id_of(self.source, past.id)
        command: Command[Any] = Command(
            id=str(uuid5(NAMESPACE, f"import\n{self.source}\n{past.id}")),
            order_id=order_id,
            at=datetime.now(UTC),
            actor=ACTOR,
            correlation_id=order_id,
            reply_to=self._address,
            body_hash=hashlib.sha256(raw.strip()).hexdigest(),
            data=data,
        )
        value = encode(command)
        if len(value) > dead_letters.MAX_BYTES // 3:
            self._reject(Line(number, past.id), "too-large", None, f"The history has {len(value)} bytes.")
            return
        self._wait_for(lambda: len(self._waiting) < IN_FLIGHT and command.id not in self._waiting)
        with self._changed:
            self._waiting[command.id] = Line(number, past.id)
        producer.produce(
            COMMANDS,
            key=order_id.encode(),
            value=value,
            headers=kafka.headers(command),
            on_delivery=self._delivered,
        )

    def _delivered(self, error: KafkaError | None, _: Any) -> None:
        if error is not None:
            with self._changed:
                self._failed = error.str()
                self._changed.notify_all()

    def _wait_for(self, done: Callable[[], bool]) -> None:
        with self._changed:
            while not done():
                if self._failed is not None:
                    raise UserError(f"Kafka did not take a line ({self._failed}): start the import again.")
                if not self._changed.wait(1.0) and time.monotonic() - self._heard > PATIENCE:
                    raise UserError(
                        f"No outcome for {PATIENCE:g} s of line {named(list(self._waiting.values()))}. Is the order "
                        "processor running (oms status), or are they dead letters (oms dlq list)? Then start the "
                        "import again."
                    )

    def _take(self, batch: Sequence[Received]) -> None:
        """In the feed's thread."""
        with self._changed:
            for received in batch:
                outcome = received.message.data if received.message else None
                if isinstance(outcome, CommandOutcome) and (line := self._waiting.pop(outcome.command_id, None)):
                    self._settle(line, outcome.rejection)
            self._heard = time.monotonic()
            self._changed.notify_all()
        self.on_progress(self.tally)

    def _settle(self, line: Line, rejection: Rejection | None) -> None:
        if rejection is None:
            self.tally.imported += 1
        elif rejection.type == "order-exists":
            self.tally.known += 1
        else:
            detail = rejection.detail
            if rejection.type == "idempotency-key-reused":
                detail = "An order with this id was imported before with another content."
            self._reject(line, rejection.type, rejection.field, detail)

    def _reject(self, line: Line, type: str, field: str | None, detail: str) -> None:
        found = {"line": line.number, "id": line.external_id, "type": type, "field": field, "reason": detail}
        with self._changed:  # also called in the feed's thread
            self.tally.rejected += 1
            self.report.write(orjson.dumps(found).decode() + "\n")
            self.report.flush()

    def _seal(self, customer_id: str, address: PastAddress) -> Address:
        return seal(self._vault, customer_id, address)


def seal(keys: Vault, customer_id: str, address: PastAddress) -> Address:
    personal = {"name": address.name, "street_address": address.street_address, "city": address.city}
    return Address(
        sealed=keys.seal(customer_id, personal),
        state=address.state,
        postal_code=address.postal_code,
        country=address.country,
    )


def named(lines: Sequence[Line]) -> str:
    """'17 (id 4711), 18 (id 4712) and 3 more'"""
    some = ", ".join(f"{line.number} (id {line.external_id})" for line in lines[:NAMED])
    more = len(lines) - NAMED
    return f"{some} and {more} more" if more > 0 else some


def lines_of(path: Path) -> Iterator[bytes]:
    """UserError when the file can't be read."""
    try:
        with path.open("rb") as file:
            yield from file
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}.") from error


def _id_of(raw: bytes) -> str:
    try:
        found = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return ""
    return str(found.get("id", "")) if isinstance(found, dict) else ""


def _field(loc: Sequence[int | str]) -> str:
    """('items', 0, 'sku') → items[0].sku"""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
