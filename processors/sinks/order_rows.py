"""The whole order after a command → rows of the views that are made of it: summaries, lines, payments, refunds,
parcels, returns. Pure, like `rows`."""

from __future__ import annotations

from datetime import date
from itertools import pairwise
from typing import NamedTuple

from schemas.base import Message
from schemas.order import Order, OrderState, OrderStatus

from .rows import day, micros, micros_or_none, skus, version

State = Message[OrderState]


class SummaryRow(NamedTuple):
    order_id: str
    version: int
    customer_id: str
    number: str
    status: str
    currency: str
    created_at: int
    submitted_at: int | None
    updated_at: int
    paid_at: int | None
    processing_at: int | None
    shipped_at: int | None
    delivered_at: int | None
    cancelled_at: int | None
    refunded_at: int | None
    statuses: list[str]
    entered: list[int]
    left_statuses: list[str]
    left_at: list[int]
    stayed: list[int]
    promised_delivery: date | None
    estimated_delivery: date | None
    subtotal: int
    discount: int
    tax: int
    shipping: int
    total: int
    captured: int
    refunded: int
    units: int
    cancelled_units: int
    returned_units: int
    skus: list[str]
    names: list[str]
    promo_codes: list[str]
    tracking_numbers: list[str]
    shipping_method: str
    country: str
    state: str
    payment_attempts: int
    payment_declines: int
    returns: int
    return_requested_at: int | None
    survey_score: int | None
    cancellation_reason: str
    hold: str
    stuck: str
    exchange_of: str
    imported: bool
    appended_at: int


class LineRow(NamedTuple):
    order_id: str
    line_id: str
    version: int
    is_deleted: int
    sku: str
    product_id: str
    name: str
    category: str
    customer_id: str
    status: str
    currency: str
    country: str
    created_at: int
    submitted_at: int | None
    paid_at: int | None
    quantity: int
    cancelled: int
    shipped: int
    delivered: int
    returned: int
    unit_price: int
    line_total: int
    discount: int
    tax: int
    appended_at: int


class PaymentRow(NamedTuple):
    order_id: str
    attempt_id: str
    version: int
    created_at: int
    number: int
    purpose: str
    status: str
    currency: str
    amount: int
    captured: int
    refunded: int
    code: str
    provider_ref: str
    country: str
    requested_at: int | None
    settled_at: int | None
    appended_at: int


class RefundRow(NamedTuple):
    order_id: str
    refund_id: str
    version: int
    created_at: int
    attempt_id: str
    status: str
    reason: str
    rma: str
    currency: str
    amount: int
    shipping: int
    line_ids: list[str]
    provider_ref: str
    initiated_at: int | None
    completed_at: int | None
    appended_at: int


class ShipmentRow(NamedTuple):
    order_id: str
    shipment_id: str
    version: int
    created_at: int
    status: str
    carrier: str
    tracking_number: str
    country: str
    line_ids: list[str]
    skus: list[str]
    quantities: list[int]
    attempts: int
    reshipped: bool
    estimated_delivery: date | None
    shipped_at: int | None
    delivered_at: int | None
    appended_at: int


class ReturnRow(NamedTuple):
    order_id: str
    rma: str
    line_id: str
    version: int
    created_at: int
    status: str
    sku: str
    quantity: int
    reason: str
    condition: str
    refund: int | None
    restock: bool | None
    exchange_sku: str
    currency: str
    carrier: str
    tracking_number: str
    requested_at: int
    ended_at: int | None
    appended_at: int


def summary_rows(state: State, appended_at: int) -> list[SummaryRow]:
    """One row: what lists show and KPIs count of the order."""
    order, totals = state.data.order, state.data.order.totals
    cancelled = order.status == OrderStatus.CANCELLED
    attempts = [p for p in order.payments if p.purpose == "order"]
    declines = sum(p.status == "declined" for p in attempts)
    return [
        SummaryRow(
            order.order_id,
            version(order),
            order.customer_id,
            order.number,
            order.status,
            order.currency,
            micros(order.created_at),
            micros_or_none(order.submitted_at),
            micros(order.updated_at),
            _reached(order, OrderStatus.PAYMENT_CONFIRMED),
            _reached(order, OrderStatus.PROCESSING),
            _reached(order, OrderStatus.SHIPPED),
            _reached(order, OrderStatus.DELIVERED),
            _reached(order, OrderStatus.CANCELLED),
            _reached(order, OrderStatus.REFUNDED),
            [stay.status for stay in order.history],
            [micros(stay.since) for stay in order.history],
            *_left(order),
            day(order.promised_delivery),
            day(order.estimated_delivery),
            totals.subtotal,
            totals.discount,
            totals.tax,
            totals.shipping,
            totals.total,
            order.captured,
            sum(r.amount for r in order.refunds if r.given),
            sum(line.quantity for line in order.lines),
            sum(line.quantity - line.delivered if cancelled else line.cancelled for line in order.lines),
            sum(line.returned for line in order.lines),
            skus(order),
            list(dict.fromkeys(line.name for line in order.lines)),
            [applied.terms.code for applied in order.promotions] or list(order.promo_codes),
            [s.tracking_number for s in order.shipments if s.tracking_number],
            order.shipping_method or "",
            *_place(order),
            # Another try is one after a decline. An attempt that only took the place of one (after a hold) is none.
            declines + sum(p.status != "declined" for p in attempts[-1:]),
            declines,
            len(order.returns),
            min((micros(r.requested_at) for r in order.returns), default=None),
            order.survey.score if order.survey else None,
            order.cancellation.reason if order.cancellation else "",
            order.hold.kind if order.hold else "",
            order.stuck or "",
            order.exchange_of or "",
            order.imported,
            appended_at,
        )
    ]


def _left(order: Order) -> tuple[list[str], list[int], list[int]]:
    """The statuses that it has been in and is not in now; when it left each for the last time; how long all its stays
    there took."""
    left: dict[str, tuple[int, int]] = {}
    for stay, following in pairwise(order.history):
        since, until = micros(stay.since), micros(following.since)
        _, before = left.get(stay.status, (0, 0))
        left[stay.status] = until, before + until - since
    left.pop(order.status, None)
    return list(left), [until for until, _ in left.values()], [stayed for _, stayed in left.values()]


def line_rows(state: State, appended_at: int) -> list[LineRow]:
    """A row for each line the order has or had. Of one that is gone only what it is found by is left."""
    order = state.data.order
    country, _ = _place(order)
    of_order = (order.customer_id, order.status, order.currency, country, micros(order.created_at))
    times = (micros_or_none(order.submitted_at), _reached(order, OrderStatus.PAYMENT_CONFIRMED))
    here = [
        LineRow(
            order.order_id,
            line.line_id,
            version(order),
            0,
            line.sku,
            line.product_id,
            line.name,
            line.category,
            *of_order,
            *times,
            line.quantity,
            line.cancelled,
            line.shipped,
            line.delivered,
            line.returned,
            line.unit_price,
            line.line_total,
            line.discount,
            line.tax,
            appended_at,
        )
        for line in order.lines
    ]
    gone = [
        LineRow(
            *(order.order_id, line.line_id, version(order), 1, line.sku, "", "", "", *of_order, *times),
            *(0, 0, 0, 0, 0),
            *(0, 0, 0, 0),
            appended_at,
        )
        for line in order.removed
    ]
    return [*here, *gone]


def payment_rows(state: State, appended_at: int) -> list[PaymentRow]:
    """A row for each attempt to be paid."""
    order = state.data.order
    created_at = micros(order.created_at)
    country, _ = _place(order)
    return [
        PaymentRow(
            order.order_id,
            payment.attempt_id,
            version(order),
            created_at,
            number,
            payment.purpose,
            payment.status,
            order.currency,
            payment.amount,
            payment.taken,
            payment.refunded,
            payment.code or "",
            payment.provider_ref or "",
            country,
            micros_or_none(payment.requested_at),
            micros_or_none(payment.settled_at),
            appended_at,
        )
        for number, payment in enumerate(order.payments, start=1)
    ]


def refund_rows(state: State, appended_at: int) -> list[RefundRow]:
    """A row for each refund."""
    order = state.data.order
    created_at = micros(order.created_at)
    return [
        RefundRow(
            order.order_id,
            refund.refund_id,
            version(order),
            created_at,
            refund.attempt_id,
            refund.status,
            refund.reason,
            refund.rma or "",
            order.currency,
            refund.amount,
            refund.shipping,
            [item.line_id for item in refund.items],
            refund.provider_ref or "",
            micros_or_none(refund.initiated_at),
            micros_or_none(refund.completed_at),
            appended_at,
        )
        for refund in order.refunds
    ]


def shipment_rows(state: State, appended_at: int) -> list[ShipmentRow]:
    """A row for each parcel."""
    order = state.data.order
    created_at = micros(order.created_at)
    country, _ = _place(order)
    return [
        ShipmentRow(
            order.order_id,
            shipment.shipment_id,
            version(order),
            created_at,
            shipment.status,
            shipment.carrier or "",
            shipment.tracking_number or "",
            country,
            [line.line_id for line in shipment.lines],
            [line.sku for line in shipment.lines],
            [line.quantity for line in shipment.lines],
            shipment.attempts,
            shipment.reshipped,
            day(shipment.estimated_delivery),
            micros_or_none(shipment.shipped_at),
            micros_or_none(shipment.delivered_at),
            appended_at,
        )
        for shipment in order.shipments
    ]


def return_rows(state: State, appended_at: int) -> list[ReturnRow]:
    """A row for each line of each return."""
    order = state.data.order
    created_at = micros(order.created_at)
    return [
        ReturnRow(
            order.order_id,
            returned.rma,
            item.line_id,
            version(order),
            created_at,
            returned.status,
            item.sku,
            item.quantity,
            item.reason,
            item.condition or "",
            item.refund,
            item.restock,
            item.exchange.sku if item.exchange else "",
            order.currency,
            returned.carrier or "",
            returned.tracking_number or "",
            micros(returned.requested_at),
            micros_or_none(returned.ended_at),
            appended_at,
        )
        for returned in order.returns
        for item in returned.items
    ]


def _reached(order: Order, status: str) -> int | None:
    """When the order was first in this status."""
    return next((micros(stay.since) for stay in order.history if stay.status == status), None)


def _place(order: Order) -> tuple[str, str]:
    """(country, state) that it goes to."""
    address = order.shipping_address
    return (address.country, address.state or "") if address else ("", "")
