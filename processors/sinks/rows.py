"""Messages → rows of the views. Pure: no clock, no Kafka, no ClickHouse, no keys.

A row class's fields are its table's columns. Times are microseconds (`appended_at`: milliseconds) since 1970, as the
tables keep them: a third of the cost of datetimes on the way there. A function raises ValueError when the message
can't be a row of its table; the message is poison then.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter
from typing import Any, NamedTuple

import orjson

from schemas.address import Sealed
from schemas.base import Event, Message, Model, Payload
from schemas.notification import NoticeFailed, NoticeSent, NoticeSkipped
from schemas.operations import ExceptionOpened, ExceptionResolved, ExceptionRetried
from schemas.order import Order, OrderState, Totals

Open = Callable[[Sealed], dict[str, str] | None]
"""What a sealed envelope says; None when its key is gone (the person was forgotten)."""


class OrderEventRow(NamedTuple):
    order_id: str
    version: int
    id: str
    type: str
    occurred_at: int
    actor: str
    correlation_id: str
    causation_id: str
    data: str
    total: int | None
    hash: str
    previous_hash: str
    appended_at: int


class OrderRow(NamedTuple):
    order_id: str
    version: int
    customer_id: str
    number: str
    status: str
    currency: str
    created_at: int
    submitted_at: int | None
    updated_at: int
    subtotal: int
    discount: int
    tax: int
    shipping: int
    total: int
    skus: list[str]
    cancellation_reason: str
    appended_at: int
    document: str


class AddressRow(NamedTuple):
    order_id: str
    kind: str
    version: int
    customer_id: str
    name: str
    street_address: str
    city: str
    state: str
    postal_code: str
    country: str
    appended_at: int


class ExceptionRow(NamedTuple):
    exception_id: str
    message_id: str
    version: int
    what: str
    order_id: str
    kind: str
    owner: str
    detail: str
    facts: dict[str, str]
    retry_topic: str
    retry_key: str
    retry: str
    resolution: str
    actor: str
    at: int
    appended_at: int


class NotificationRow(NamedTuple):
    order_id: str
    event_id: str
    channel: str
    version: int
    kind: str
    outcome: str
    message_id: str
    detail: str
    at: int
    appended_at: int


def order_events_rows(event: Event[Any], raw: bytes, appended_at: int) -> list[OrderEventRow]:
    """One row. `raw` is the message's value as it lies on the topic; the next event's previous_hash is its hash."""
    return [
        OrderEventRow(
            event.order_id,
            version(event),
            event.id,
            type(event.data).__name__,
            micros(event.occurred_at),
            event.actor,
            event.correlation_id,
            event.causation_id,
            as_json(event.data),
            _total_after(event.data),
            hashlib.sha256(raw).hexdigest(),
            event.previous_hash,
            appended_at,
        )
    ]


def orders_rows(state: Message[OrderState], appended_at: int) -> list[OrderRow]:
    """One row: the order with its document."""
    order, totals = state.data.order, state.data.order.totals
    return [
        OrderRow(
            order.order_id,
            version(order),
            order.customer_id,
            order.number,
            order.status,
            order.currency,
            micros(order.created_at),
            micros_or_none(order.submitted_at),
            micros(order.updated_at),
            totals.subtotal,
            totals.discount,
            totals.tax,
            totals.shipping,
            totals.total,
            skus(order),
            order.cancellation.reason if order.cancellation else "",
            appended_at,
            as_json(order),
        )
    ]


def personal_rows(state: Message[OrderState], appended_at: int, open_sealed: Open) -> list[AddressRow]:
    """A row for each address the order has and whose key is still there, in clear."""
    order = state.data.order
    rows = []
    for kind, address in (("shipping", order.shipping_address), ("billing", order.billing_address)):
        if address is None or (person := open_sealed(address.sealed)) is None:
            continue
        rows.append(
            AddressRow(
                order.order_id,
                kind,
                version(order),
                order.customer_id,
                str(person.get("name") or ""),
                str(person.get("street_address") or ""),
                str(person.get("city") or ""),
                address.state or "",
                address.postal_code or "",
                address.country,
                appended_at,
            )
        )
    return rows


def exceptions_rows(message: Message[Any], appended_at: int) -> list[ExceptionRow]:
    """One row: what this message says of an exception."""
    kind = owner = detail = retry_topic = retry_key = retry = resolution = ""
    facts: dict[str, str] = {}
    match message.data:
        case ExceptionOpened() as opened:
            what, kind, owner, detail, facts = "opened", opened.kind, opened.owner, opened.detail, opened.facts
            retry_topic, retry_key = opened.retry_topic or "", opened.retry_key or ""
            retry = base64.b64encode(opened.retry or b"").decode()
        case ExceptionRetried():
            what = "retried"
        case ExceptionResolved():
            what, resolution = "resolved", message.data.resolution
        case other:
            raise ValueError(f"a {type(other).__name__} is no message about an exception")
    return [
        ExceptionRow(
            message.data.exception_id,
            message.id,
            appended_at,
            what,
            message.order_id or "",
            kind,
            owner,
            detail,
            facts,
            retry_topic,
            retry_key,
            retry,
            resolution,
            message.actor,
            micros(message.at),
            appended_at,
        )
    ]


def notifications_rows(message: Message[Any], appended_at: int) -> list[NotificationRow]:
    """One row: what became of a message to a customer."""
    message_id = detail = ""
    match message.data:
        case NoticeSent():
            outcome, message_id = "sent", message.data.message_id
        case NoticeSkipped():
            outcome, detail = "skipped", message.data.reason
        case NoticeFailed():
            outcome, message_id, detail = "failed", message.data.message_id, message.data.error
        case other:
            raise ValueError(f"a {type(other).__name__} is no outcome of a message to a customer")
    return [
        NotificationRow(
            message.order_id or "",
            message.data.event_id,
            message.data.channel,
            appended_at,
            message.data.kind,
            outcome,
            message_id,
            detail,
            micros(message.at),
            appended_at,
        )
    ]


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST, _LAST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC)
_MOST = 2**63 - 1


def micros(at: datetime) -> int:
    """Microseconds since 1970. ValueError when ClickHouse's DateTime64 can't hold it."""
    if not _FIRST <= at < _LAST:
        raise ValueError(f"{at.isoformat()} is no time that a view can hold (1900 to 2261)")
    return (at - _EPOCH) // _MICROSECOND


def micros_or_none(at: datetime | None) -> int | None:
    return None if at is None else micros(at)


def day(text: str | None) -> date | None:
    """A date as orders carry it (ISO)."""
    return None if text is None else date.fromisoformat(text)


def version(of: Event[Any] | Order) -> int:
    if of.version < 1:
        raise ValueError(f"version {of.version} of an order: they count from 1")
    return of.version


def skus(order: Order) -> list[str]:
    return list(dict.fromkeys(line.sku for line in order.lines))


def as_json(model: Model) -> str:
    """The same text as pydantic's `model_dump_json`, in a quarter of the time."""
    return orjson.dumps(model, default=_fields, option=orjson.OPT_UTC_Z).decode()


_fields = attrgetter("__dict__")


def _total_after(data: Payload) -> int | None:
    """What the order costs after an event that prices it."""
    said = vars(data)
    totals = said.get("totals") or said.get("after")
    return totals.total if isinstance(totals, Totals) else None
