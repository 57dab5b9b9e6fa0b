"""Every view once more, in plain Python over what lies on the topics: what its table must hold. It shares nothing with
the sink but the names of tables and columns.

    expected = Fold(records, opened).views()
    assert found(client, "payments") == expected["payments"]
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Any

import orjson
from clickhouse_connect.driver.client import Client

from schemas import events as e
from schemas.address import Sealed
from schemas.base import Envelope, Event, Message, Model
from schemas.catalog import ProductChanged
from schemas.inventory import StockLevel, StockMoved
from schemas.notification import NoticeFailed, NoticeSent, NoticeSkipped, PreferencesChanged
from schemas.operations import ExceptionOpened, ExceptionResolved, ExceptionRetried
from schemas.order import Order, OrderState
from schemas.promotion import PromotionChanged

Row = dict[str, Any]
Key = tuple[Any, ...]
View = dict[Key, Row]

IDENTITY: dict[str, tuple[str, tuple[str, ...]]] = {
    "order_events": ("oms.order_events", ("order_id", "version")),
    "orders": ("oms.orders", ("order_id",)),
    "order_summaries": ("oms.order_summaries", ("order_id",)),
    "customer_orders": ("oms.customer_orders", ("order_id",)),
    "personal": ("personal.addresses", ("order_id", "kind")),
    "order_lines": ("oms.order_lines", ("order_id", "line_id")),
    "payments": ("oms.payments", ("order_id", "attempt_id")),
    "refunds": ("oms.refunds", ("order_id", "refund_id")),
    "shipments": ("oms.shipments", ("order_id", "shipment_id")),
    "returns": ("oms.returns", ("order_id", "rma", "line_id")),
    "stock": ("oms.stock", ("sku", "pool")),
    "stock_ledger": ("oms.stock_ledger", ("sku", "pool", "version")),
    "audit": ("oms.audit", ("id",)),
    "exceptions": ("oms.exceptions", ("exception_id", "message_id")),
    "notifications": ("oms.notifications", ("order_id", "event_id", "channel")),
}
"""View → (its table, what a row of it is about)."""

_BULKY = ("lines", "totals", "promotions", "payment_token", "reason", "comment", "order")


@dataclass(frozen=True)
class Lying:
    """A message as it lies on its topic, None where it can't be read; at: the broker's time."""

    topic: str
    value: bytes | None
    message: Envelope | None
    at: datetime


def found(client: Client, view: str) -> View:
    """What the table of the view holds. Fails when two of its rows are about the same."""
    table, identity = IDENTITY[view]
    database, _, name = table.partition(".")
    where = {"database": database, "table": name}
    result = client.query("SELECT * FROM {database:Identifier}.{table:Identifier} FINAL", parameters=where)
    rows: View = {}
    for values in result.result_rows:
        row = {column: _plain(value) for column, value in zip(result.column_names, values, strict=True)}
        key = tuple(row[column] for column in identity)
        assert key not in rows, f"{view}: two rows about {key}"
        rows[key] = row
    return rows


def assert_equal(client: Client, expected: dict[str, View]) -> None:
    """Every view, each row and column."""
    assert set(expected) == set(IDENTITY)
    for view, rows in expected.items():
        there = found(client, view)
        assert there.keys() == rows.keys(), (view, sorted(there.keys() ^ rows.keys())[:3])
        for key, row in rows.items():
            differ = {name: (there[key].get(name), value) for name, value in row.items() if there[key][name] != value}
            assert not differ, (view, key, differ)
            assert there[key].keys() == row.keys(), (view, there[key].keys() ^ row.keys())


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value


class Fold:
    """`opened`: what an envelope says, None once its key is gone."""

    def __init__(self, records: Iterable[Lying], opened: Callable[[Sealed], dict[str, Any] | None]) -> None:
        self._opened = opened
        self._views: dict[str, View] = {view: {} for view in IDENTITY}
        newest: dict[str, tuple[Message[OrderState], datetime]] = {}
        for lying in records:
            match lying.topic, lying.message:
                case "order.events", Event(version=version) as event if version > 0:
                    self._event(event, lying)
                case "order.states", Message(data=OrderState(order=order)) as state:
                    before = newest.get(order.order_id)
                    if before is None or before[0].data.order.version <= order.version:
                        newest[order.order_id] = state, lying.at
                case "inventory.levels", Message(data=StockLevel() as level) as message:
                    self._level(level, message, lying.at)
                case "inventory.events", Message(data=StockMoved() as moved) as message:
                    self._moved(moved, message, lying.at)
                case "promotion.events", Message(data=PromotionChanged() as changed) as message:
                    if changed.kind == "put":
                        after = {"limit": changed.limit, "used": changed.used}
                        self._put_down(message, "promotion", changed.code, "put", lying.at, changed, after)
                case "catalog.events", Message(data=ProductChanged(after=product) as changed) as message:
                    self._put_down(message, "product", product.sku, "put", lying.at, changed, {})
                case "customer.events", Message(data=PreferencesChanged(customer_id=who) as changed) as message:
                    more = {"new_contacts": changed.new_contacts}
                    self._put_down(message, "customer", who, "preferences", lying.at, changed, {}, **more)
                case "exceptions", Message() as message:
                    self._exception(message, lying.at)
                case "notification.events", Message() as message:
                    self._notice(message, lying.at)
        for state, at in newest.values():
            self._order(state.data.order, at)

    def views(self) -> dict[str, View]:
        """View → what a row is about → its columns."""
        return self._views

    def _put(self, view: str, **row: Any) -> None:
        self._views[view][tuple(row[column] for column in IDENTITY[view][1])] = row

    # What an event says

    def _event(self, event: Event[Any], lying: Lying) -> None:
        said, raw = event.data, lying.value
        assert raw is not None
        priced = getattr(said, "totals", None) or getattr(said, "after", None)
        self._put(
            "order_events",
            order_id=event.order_id,
            version=event.version,
            id=event.id,
            type=type(said).__name__,
            occurred_at=event.occurred_at,
            actor=event.actor,
            correlation_id=event.correlation_id,
            causation_id=event.causation_id,
            data=said.model_dump_json(),
            total=priced.total if priced is not None else None,
            hash=hashlib.sha256(raw).hexdigest(),
            previous_hash=event.previous_hash,
            appended_at=lying.at,
        )
        before, after = _change(said)
        why = ": ".join(text for text in (getattr(said, "reason", None), getattr(said, "comment", None)) if text)
        self._audit(event, "order", event.order_id, event.version, type(said).__name__, why, before, after, lying.at)

    def _put_down(
        self,
        message: Message[Any],
        subject: str,
        subject_id: str,
        what: str,
        at: datetime,
        changed: PromotionChanged | ProductChanged | PreferencesChanged,
        otherwise: dict[str, Any],
        **more: Any,
    ) -> None:
        """A change that says what was before and after; `otherwise`: one that does not say it."""
        before = changed.before.model_dump(mode="json") if changed.before else None
        after = {**changed.after.model_dump(mode="json"), **more} if changed.after else otherwise
        self._audit(message, subject, subject_id, 0, what, "", before, after, at)

    def _audit(
        self,
        message: Event[Any] | Message[Any],
        subject: str,
        subject_id: str,
        version: int,
        what: str,
        why: str,
        before: dict[str, Any] | None,
        after: dict[str, Any],
        at: datetime,
    ) -> None:
        self._put(
            "audit",
            id=message.id,
            at=message.occurred_at if isinstance(message, Event) else message.at,
            subject=subject,
            subject_id=subject_id,
            version=version,
            actor=message.actor,
            what=what,
            why=why,
            before="" if before is None else _Json(before),
            after=_Json(after),
            correlation_id=message.correlation_id,
            causation_id=message.causation_id or "",
            appended_at=at,
        )

    # What an order is now

    def _order(self, order: Order, at: datetime) -> None:
        here = order.shipping_address
        country, region = (here.country, here.state or "") if here else ("", "")
        first = {stay.status: stay.since for stay in reversed(order.history)}
        head = {
            "order_id": order.order_id,
            "version": order.version,
            "customer_id": order.customer_id,
            "number": order.number,
            "status": order.status,
            "currency": order.currency,
            "created_at": order.created_at,
            "submitted_at": order.submitted_at,
            "updated_at": order.updated_at,
            "subtotal": order.totals.subtotal,
            "discount": order.totals.discount,
            "tax": order.totals.tax,
            "shipping": order.totals.shipping,
            "total": order.totals.total,
            "skus": _once(line.sku for line in order.lines),
            "cancellation_reason": order.cancellation.reason if order.cancellation else "",
            "appended_at": at,
        }
        self._put("orders", **head, document=order.model_dump_json())
        cancelled = order.status == "CANCELLED"
        tries = [payment for payment in order.payments if payment.purpose == "order"]
        summary = {
            **head,
            "paid_at": first.get("PAYMENT_CONFIRMED"),
            "processing_at": first.get("PROCESSING"),
            "shipped_at": first.get("SHIPPED"),
            "delivered_at": first.get("DELIVERED"),
            "cancelled_at": first.get("CANCELLED"),
            "refunded_at": first.get("REFUNDED"),
            "statuses": [stay.status for stay in order.history],
            "entered": [stay.since for stay in order.history],
            **_left(order),
            "promised_delivery": _day(order.promised_delivery),
            "estimated_delivery": _day(order.estimated_delivery),
            "captured": order.captured,
            "refunded": sum(refund.amount for refund in order.refunds if refund.given),
            "units": sum(line.quantity for line in order.lines),
            "cancelled_units": sum(x.quantity - x.delivered if cancelled else x.cancelled for x in order.lines),
            "returned_units": sum(line.returned for line in order.lines),
            "names": _once(line.name for line in order.lines),
            "promo_codes": [applied.terms.code for applied in order.promotions] or list(order.promo_codes),
            "tracking_numbers": [parcel.tracking_number for parcel in order.shipments if parcel.tracking_number],
            "shipping_method": order.shipping_method or "",
            "country": country,
            "state": region,
            "payment_attempts": bool(tries) + sum(before.status == "declined" for before in tries[:-1]),
            "payment_declines": len([payment for payment in tries if payment.status == "declined"]),
            "returns": len(order.returns),
            "return_requested_at": min((back.requested_at for back in order.returns), default=None),
            "survey_score": order.survey.score if order.survey else None,
            "hold": order.hold.kind if order.hold else "",
            "stuck": order.stuck or "",
            "exchange_of": order.exchange_of or "",
            "imported": order.imported,
        }
        self._put("order_summaries", **summary)
        self._put("customer_orders", **summary)
        common = {"order_id": order.order_id, "version": order.version, "appended_at": at}
        for kind, address in (("shipping", order.shipping_address), ("billing", order.billing_address)):
            person = None if address is None else self._opened(address.sealed)
            if address is not None and person is not None:
                self._put(
                    "personal",
                    **common,
                    kind=kind,
                    customer_id=order.customer_id,
                    name=person.get("name") or "",
                    street_address=person.get("street_address") or "",
                    city=person.get("city") or "",
                    state=address.state or "",
                    postal_code=address.postal_code or "",
                    country=address.country,
                )
        for line in order.lines:
            self._put(
                "order_lines",
                **common,
                line_id=line.line_id,
                is_deleted=0,
                **{name: head[name] for name in ("customer_id", "status", "currency", "created_at", "submitted_at")},
                paid_at=summary["paid_at"],
                country=country,
                **line.model_dump(include={"sku", "product_id", "name", "category", "quantity", "cancelled"}),
                **line.model_dump(include={"shipped", "delivered", "returned", "unit_price", "line_total"}),
                **line.model_dump(include={"discount", "tax"}),
            )
        for number, payment in enumerate(order.payments, start=1):
            self._put(
                "payments",
                **common,
                created_at=order.created_at,
                **payment.model_dump(include={"attempt_id", "purpose", "status", "amount", "refunded"}),
                **payment.model_dump(include={"requested_at", "settled_at"}),
                number=number,
                currency=order.currency,
                captured=payment.taken,
                code=payment.code or "",
                provider_ref=payment.provider_ref or "",
                country=country,
            )
        for refund in order.refunds:
            self._put(
                "refunds",
                **common,
                created_at=order.created_at,
                **refund.model_dump(include={"refund_id", "attempt_id", "status", "reason", "amount", "shipping"}),
                **refund.model_dump(include={"initiated_at", "completed_at"}),
                rma=refund.rma or "",
                currency=order.currency,
                line_ids=[item.line_id for item in refund.items],
                provider_ref=refund.provider_ref or "",
            )
        for parcel in order.shipments:
            self._put(
                "shipments",
                **common,
                created_at=order.created_at,
                **parcel.model_dump(include={"shipment_id", "status", "attempts", "reshipped"}),
                **parcel.model_dump(include={"shipped_at", "delivered_at"}),
                carrier=parcel.carrier or "",
                tracking_number=parcel.tracking_number or "",
                country=country,
                line_ids=[line.line_id for line in parcel.lines],
                skus=[line.sku for line in parcel.lines],
                quantities=[line.quantity for line in parcel.lines],
                estimated_delivery=_day(parcel.estimated_delivery),
            )
        for back in order.returns:
            for item in back.items:
                self._put(
                    "returns",
                    **common,
                    created_at=order.created_at,
                    **back.model_dump(include={"rma", "status", "requested_at", "ended_at"}),
                    **item.model_dump(include={"line_id", "sku", "quantity", "reason", "refund", "restock"}),
                    condition=item.condition or "",
                    exchange_sku=item.exchange.sku if item.exchange else "",
                    currency=order.currency,
                    carrier=back.carrier or "",
                    tracking_number=back.tracking_number or "",
                )

    # Stock, exceptions, messages to customers

    def _level(self, level: StockLevel, message: Message[Any], at: datetime) -> None:
        before = self._views["stock"].get((level.sku, level.pool))
        if before is None or before["version"] <= level.version:
            counts = level.model_dump(include={"sku", "pool", "version", "on_hand", "reserved", "shipped"})
            self._put("stock", **counts, changed_at=message.at, appended_at=at)

    def _moved(self, moved: StockMoved, message: Message[Any], at: datetime) -> None:
        said = moved.model_dump(
            include={"sku", "pool", "version", "kind", "quantity", "on_hand", "reserved", "shipped"}
        )
        self._put(
            "stock_ledger",
            **said,
            reason=moved.reason or "",
            order_id=message.order_id or "",
            line_id=moved.line_id or "",
            actor=message.actor,
            at=message.at,
            correlation_id=message.correlation_id,
            appended_at=at,
        )
        if moved.kind in ("reserved", "released", "committed"):
            return
        counts = moved.model_dump(include={"on_hand", "reserved", "shipped"})
        earlier = {**counts, "on_hand": moved.on_hand - moved.quantity} if moved.kind == "adjusted" else None
        after = {**counts, "quantity": moved.quantity, "line_id": moved.line_id}
        where = f"{moved.sku}#{moved.pool}"
        self._audit(message, "stock", where, moved.version, moved.kind, moved.reason or "", earlier, after, at)

    def _exception(self, message: Message[Any], at: datetime) -> None:
        data = message.data
        opened = data if isinstance(data, ExceptionOpened) else None
        what = {ExceptionOpened: "opened", ExceptionRetried: "retried", ExceptionResolved: "resolved"}[type(data)]
        self._put(
            "exceptions",
            exception_id=data.exception_id,
            message_id=message.id,
            version=_millis(at),
            what=what,
            order_id=message.order_id or "",
            kind=opened.kind if opened else "",
            owner=opened.owner if opened else "",
            detail=opened.detail if opened else "",
            facts=dict(opened.facts) if opened else {},
            retry_topic=(opened.retry_topic or "") if opened else "",
            retry_key=(opened.retry_key or "") if opened else "",
            retry=base64.b64encode(opened.retry or b"").decode() if opened else "",
            resolution=data.resolution if isinstance(data, ExceptionResolved) else "",
            actor=message.actor,
            at=message.at,
            appended_at=at,
        )
        if opened is None:
            why = data.resolution if isinstance(data, ExceptionResolved) else ""
            self._audit(message, "exception", data.exception_id, 0, what, why, None, {"order_id": message.order_id}, at)

    def _notice(self, message: Message[Any], at: datetime) -> None:
        data = message.data
        outcome = {NoticeSent: "sent", NoticeSkipped: "skipped", NoticeFailed: "failed"}[type(data)]
        detail = {"skipped": "reason", "failed": "error"}.get(outcome)
        self._put(
            "notifications",
            order_id=message.order_id or "",
            event_id=data.event_id,
            channel=data.channel,
            version=_millis(at),
            kind=data.kind,
            outcome=outcome,
            message_id=getattr(data, "message_id", ""),
            detail=getattr(data, detail) if detail else "",
            at=message.at,
            appended_at=at,
        )


class _Json(str):
    """JSON text that is equal to any other that says the same."""

    __slots__ = ()

    def __new__(cls, value: Any) -> _Json:
        return super().__new__(cls, _text(value))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and bool(other) and _text(orjson.loads(other)) == str.__str__(self)

    def __ne__(self, other: object) -> bool:
        return not self == other  # str has an own one

    __hash__ = str.__hash__


def _text(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _change(said: Model) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """(before, after) of the audit log."""
    match said:
        case e.OrderLineItemQuantityChanged():
            line = {"line_id": said.line_id, "sku": said.sku}
            return {**line, "quantity": said.before}, {**line, "quantity": said.quantity}
        case e.OrderShippingAddressChanged() | e.OrderBillingAddressChanged():
            return said.before.model_dump() if said.before else None, said.address.model_dump()
        case e.OrderShippingMethodChanged():
            return {"shipping_method": said.before}, {"shipping_method": said.shipping_method}
        case e.OrderLineItemRemoved():
            return said.model_dump(include={"line_id", "sku", "quantity"}), {}
        case e.OrderPromotionRemoved():
            return {"code": said.code}, {}
        case e.OrderEditCompleted():
            return said.before.model_dump(), said.after.model_dump()
    whole = orjson.loads(said.model_dump_json())
    return None, {
        name: _without_nulls(value) for name, value in whole.items() if name not in _BULKY and value is not None
    }


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _once(texts: Iterable[str]) -> list[str]:
    seen: list[str] = []
    for text in texts:
        if text not in seen:
            seen.append(text)
    return seen


def _left(order: Order) -> dict[str, Any]:
    """Of each status but the present one, when it was last left and how many microseconds it lasted in all."""
    stays = [(one.status, one.since, then.since) for one, then in pairwise(order.history)]
    gone = [status for status in _once(status for status, _, _ in stays) if status != order.history[-1].status]
    lasted = [[end - start for status, start, end in stays if status == name] for name in gone]
    return {
        "left_statuses": gone,
        "left_at": [max(end for status, _, end in stays if status == name) for name in gone],
        "stayed": [sum(times, timedelta()) // timedelta(microseconds=1) for times in lasted],
    }


def _day(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)


def _millis(at: datetime) -> int:
    return round(at.timestamp() * 1000)
