"""The document that `oms import` reads, one JSON object a line, and the command that it becomes.

Pure: sealing of addresses is handed in. Amounts are decimal texts in the order's currency; times are RFC 3339 with
their zone. docs/import.md shows it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from uuid_utils import UUID, uuid5

from processors.order.names import payment_attempt_id, refund_id
from schemas import commands as c
from schemas.address import Address
from schemas.base import Payload
from schemas.money import CurrencyCode, to_minor, to_text
from schemas.order import CancellationReason, Line, ShipmentLine, Totals

NAMESPACE = UUID("0b5f0b0e-6c0a-5d0a-9d0a-6a1d1b1c1e1f")

Text = Annotated[str, Field(min_length=1, max_length=200)]
Amount = Annotated[str, Field(pattern=r"^\d{1,15}(\.\d{1,4})?$", examples=["129.90"])]
Time = Annotated[AwareDatetime, Field(ge=datetime(1970, 1, 1, tzinfo=UTC), lt=datetime(9999, 1, 1, tzinfo=UTC))]
"""From what views can hold to what is a time in UTC too; that it is over is for [order] to say."""
MOST = 10**15
"""Minor units of one amount: sums over an order still are numbers of 64 bits."""
SealAddress = Callable[[str, "PastAddress"], Address]
"""(customer id, address in clear) → the address as messages carry it."""


class Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PastAddress(Document):
    name: Text
    street_address: Text
    city: Text
    state: Text | None = None
    postal_code: Text | None = None
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")]


class PastItem(Document):
    """A line as it was sold. `line_total` = quantity × unit_price unless told; `discount` and `tax` are the line's."""

    sku: Text
    product_id: Text | None = None
    name: Text
    category: Text = "other"
    tax_category: Text = "standard"
    weight_grams: Annotated[int, Field(ge=0, le=10_000_000)] = 0
    quantity: Annotated[int, Field(ge=1, le=1_000_000)]
    unit_price: Amount
    line_total: Amount | None = None
    discount: Amount = "0"
    tax: Amount = "0"


class PastPayment(Document):
    at: Time
    status: Literal["captured", "declined"]
    amount: Amount | None = Field(default=None, description="default: the order's total")
    reference: Text = "imported"


class PastShipmentItem(Document):
    item: Annotated[int, Field(ge=0, description="index into items")]
    quantity: Annotated[int, Field(ge=1)]


class PastShipment(Document):
    """Without `items` it holds all there is."""

    shipped_at: Time
    delivered_at: Time | None = None
    carrier: Text = "unknown"
    tracking_number: Text = "unknown"
    tracking_url: Text = "about:blank"
    items: list[PastShipmentItem] = []


class PastRefund(Document):
    at: Time
    amount: Amount
    reason: Text = "refund"
    reference: Text = "imported"


class PastCancellation(Document):
    at: Time
    reason: CancellationReason = CancellationReason.STAFF
    comment: Text | None = None


class PastReview(Document):
    at: Time
    score: Annotated[int, Field(ge=1, le=5)]
    comment: Annotated[str, Field(max_length=2000)] | None = None


class PastOrder(Document):
    """One order of another system, with all that happened to it. subtotal − discount + tax + shipping = total, where
    `tax` and the other sums are made of the items unless `shipping_tax` adds to it; `total` is checked."""

    id: Text
    customer_id: Annotated[str, Field(min_length=1, max_length=128)]
    currency: CurrencyCode
    created_at: Time
    submitted_at: Time | None = None
    items: Annotated[list[PastItem], Field(min_length=1, max_length=500)]
    shipping: Amount = "0"
    shipping_tax: Amount = "0"
    total: Amount
    shipping_address: PastAddress | None = None
    billing_address: PastAddress | None = None
    shipping_method: Text | None = None
    payments: list[PastPayment] = []
    shipments: list[PastShipment] = []
    cancelled: PastCancellation | None = None
    refunds: list[PastRefund] = []
    review: PastReview | None = None


class Unfit(ValueError):
    """The document is well-formed, but can't be meant; `field` is the place in it."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(problem)
        self.field = field


MinorOf = Callable[[str, str], int]
"""(amount, its place in the document) → minor units."""


def order_id_of(source: str, external_id: str) -> str:
    """The same order of the same source is the same order here, however often it is imported."""
    return str(uuid5(NAMESPACE, f"{source}\n{external_id}"))


def command_of(source: str, past: PastOrder, seal: SealAddress) -> c.ImportOrder:
    """The command for [order]. Unfit: an amount is too large or has more digits than its currency, an index leads
    nowhere, or parts of the document contradict each other."""

    def minor(amount: str, field: str) -> int:
        try:
            found = to_minor(amount, past.currency)
        except ValueError as error:
            raise Unfit(field, str(error)) from error
        return _small(found, field)

    lines = tuple(_line(n, item, minor) for n, item in enumerate(past.items))
    subtotal = sum(line.line_total for line in lines)
    discount = sum(line.discount for line in lines)
    tax = sum(line.tax for line in lines) + minor(past.shipping_tax, "shipping_tax")
    totals = Totals(
        subtotal=subtotal,
        discount=discount,
        tax=tax,
        shipping=minor(past.shipping, "shipping"),
        shipping_tax=minor(past.shipping_tax, "shipping_tax"),
        total=minor(past.total, "total"),
    )
    shipping, billing = past.shipping_address, past.billing_address
    return c.ImportOrder(
        source=source,
        external_id=past.id,
        customer_id=past.customer_id,
        currency=past.currency,
        created_at=past.created_at,
        submitted_at=past.submitted_at,
        lines=lines,
        totals=totals,
        shipping_address=shipping and seal(past.customer_id, shipping),
        billing_address=billing and seal(past.customer_id, billing),
        shipping_method=past.shipping_method,
        steps=_Steps(order_id_of(source, past.id), past, lines, totals, minor).made(),
    )


def _line(n: int, item: PastItem, minor: MinorOf) -> Line:
    where = f"items[{n}]"
    unit_price = minor(item.unit_price, f"{where}.unit_price")
    if item.line_total is None:
        line_total = _small(unit_price * item.quantity, f"{where}.unit_price")
    else:
        line_total = minor(item.line_total, f"{where}.line_total")
    return Line(
        line_id=f"L{n + 1}",
        product_id=item.product_id or item.sku,
        sku=item.sku,
        name=item.name,
        category=item.category,
        tax_category=item.tax_category,
        weight_grams=item.weight_grams,
        quantity=item.quantity,
        unit_price=unit_price,
        line_total=line_total,
        discount=minor(item.discount, f"{where}.discount"),
        tax=minor(item.tax, f"{where}.tax"),
    )


def _small(minor: int, field: str) -> int:
    if minor > MOST:
        raise Unfit(field, f"It is more than {MOST} minor units.")
    return minor


@dataclass(frozen=True)
class _Captured:
    """The attempt that brought money; there is at most one. Minor units."""

    attempt_id: str
    amount: int
    at: datetime


@dataclass(frozen=True)
class _GivenBack:
    """A refund as it is told, minor units, and its place in the document."""

    at: datetime
    amount: int
    told: PastRefund
    where: str


class _Steps:
    """What happened after submission, as commands in the order of their times."""

    def __init__(self, order_id: str, past: PastOrder, lines: tuple[Line, ...], totals: Totals, minor: MinorOf) -> None:
        self._order_id = order_id
        self._past = past
        self._lines = lines
        self._totals = totals
        self._minor = minor
        self._steps: list[c.PastStep] = []

    def made(self) -> tuple[c.PastStep, ...]:
        captured = self._payments()
        self._shipments(captured is not None)
        self._end(captured)
        if (review := self._past.review) is not None:
            self._add(
                review.at, f"customer:{self._past.customer_id}", "review",
                c.AnswerSurvey(score=review.score, comment=review.comment),
            )  # fmt: skip
        # Stable: where times are equal, payments come first, then shipments, the end, and the review.
        return tuple(sorted(self._steps, key=lambda step: step.at))

    def _payments(self) -> _Captured | None:
        captured = None
        for n, payment in enumerate(self._past.payments, start=1):
            attempt_id, where = payment_attempt_id(self._order_id, n), f"payments[{n - 1}]"
            if n > 1:
                self._add(payment.at, SYSTEM, where, c.PayOrder(payment_token="imported"))  # noqa: S106
            if payment.status == "declined":
                self._add(payment.at, SYSTEM, where, c.FailPayment(attempt_id=attempt_id, code="declined"))
                continue
            total = self._totals.total
            amount = total if payment.amount is None else self._minor(payment.amount, f"{where}.amount")
            if amount < total and self._past.cancelled is None:
                detail = f"{self._text(amount)} does not pay {self._text(total)}, and the order was not cancelled."
                raise Unfit(f"{where}.amount", detail)
            confirm = c.ConfirmPayment(attempt_id=attempt_id, amount=amount, provider_ref=payment.reference)
            self._add(payment.at, SYSTEM, where, confirm)
            captured = _Captured(attempt_id, amount, payment.at)
        return captured

    def _shipments(self, paid: bool) -> None:
        if self._past.shipments and self._past.shipping_address is None:
            raise Unfit("shipping_address", "It was shipped: it is to be told where to.")
        if self._past.shipments and self._past.shipping_method is None:
            raise Unfit("shipping_method", "It was shipped: it is to be told by which method.")
        left = {line.line_id: line.quantity for line in self._lines}
        shipments = sorted(enumerate(self._past.shipments), key=lambda found: found[1].shipped_at)
        for n, (index, shipment) in enumerate(shipments):
            where = f"shipments[{index}]"
            units: dict[str, int] = {}
            for i, item in enumerate(shipment.items):
                if item.item >= len(self._lines):
                    field = f"{where}.items[{i}].item"
                    raise Unfit(field, f"There is no item {item.item}: there are {len(self._lines)}, from 0 on.")
                line_id = self._lines[item.item].line_id
                units[line_id] = units.get(line_id, 0) + item.quantity
                if units[line_id] > left[line_id]:
                    field = f"{where}.items[{i}].quantity"
                    detail = f"Of item {item.item} {left[line_id]} units are left, not {units[line_id]}."
                    raise Unfit(field, detail)
            parcel = units or {line_id: quantity for line_id, quantity in left.items() if quantity > 0}
            skus = {line.line_id: line.sku for line in self._lines}
            lines = tuple(
                ShipmentLine(line_id=line_id, sku=skus[line_id], quantity=quantity)
                for line_id, quantity in parcel.items()
            )
            for line_id, quantity in parcel.items():
                left[line_id] -= quantity
            shipment_id = str(uuid5(UUID(self._order_id), f"shipment {n + 1}"))
            at = shipment.shipped_at
            if n == 0 and paid:
                self._add(at, SYSTEM, where, c.BeginFulfilment(due_at=at))
            self._add(at, SYSTEM, where, c.PlanShipment(shipment_id=shipment_id, lines=lines))
            ship = c.ShipShipment(
                shipment_id=shipment_id,
                carrier=shipment.carrier,
                tracking_number=shipment.tracking_number,
                tracking_url=shipment.tracking_url,
            )
            self._add(at, SYSTEM, where, ship)
            if shipment.delivered_at is not None:
                deliver = c.DeliverShipment(shipment_id=shipment_id)
                self._add(shipment.delivered_at, SYSTEM, f"{where}.delivered_at", deliver)

    def _end(self, captured: _Captured | None) -> None:
        cancelled, refunds = self._past.cancelled, self._refunds()
        if refunds and captured is None:
            raise Unfit(f"{refunds[0].where}.amount", "It gives money back that no payment has brought.")
        if cancelled is not None:
            self._cancellation(cancelled, captured, refunds)
        else:
            for refund in refunds:
                self._give(refund, refund.at)
        if captured is not None:
            for count, refund in enumerate(refunds, start=1):
                done = c.CompleteRefund(
                    refund_id=refund_id(captured.attempt_id, count), provider_ref=refund.told.reference
                )
                self._add(refund.at, SYSTEM, refund.where, done)

    def _refunds(self) -> list[_GivenBack]:
        """In the order of their times."""
        refunds = []
        for index, told in enumerate(self._past.refunds):
            where = f"refunds[{index}]"
            refunds.append(_GivenBack(told.at, self._minor(told.amount, f"{where}.amount"), told, where))
        return sorted(refunds, key=lambda refund: refund.at)

    def _cancellation(self, cancelled: PastCancellation, captured: _Captured | None, refunds: list[_GivenBack]) -> None:
        """It gives back what was captured: as the refunds tell, which then tell of all of it; without any, at once."""
        paid, back = captured.amount if captured else 0, sum(refund.amount for refund in refunds)
        for refund in refunds:
            if refund.at < cancelled.at:
                raise Unfit(f"{refund.where}.at", "It was before the cancellation, of which it is to be the refund.")
        if refunds and back != paid:
            detail = f"A cancellation gives back what was captured, {self._text(paid)}, not {self._text(back)}."
            raise Unfit(f"{refunds[-1].where}.amount", detail)
        # Money that came after the cancellation goes back by itself, in one refund.
        if captured is not None and captured.at <= cancelled.at:
            for refund in refunds:
                self._give(refund, cancelled.at)
        cancel = c.CancelOrder(reason=cancelled.reason, comment=cancelled.comment)
        self._add(cancelled.at, STAFF, "cancelled", cancel)
        if captured is not None and paid > 0 and not refunds:
            done = c.CompleteRefund(refund_id=refund_id(captured.attempt_id, 1), provider_ref="imported")
            self._add(max(cancelled.at, captured.at), SYSTEM, "cancelled", done)

    def _give(self, refund: _GivenBack, at: datetime) -> None:
        self._add(at, STAFF, refund.where, c.RefundOrder(reason=refund.told.reason, amount=refund.amount))

    def _text(self, amount: int) -> str:
        return f"{to_text(amount, self._past.currency)} {self._past.currency}"

    def _add(self, at: Any, actor: str, where: str, payload: Payload) -> None:
        step = c.PastStep(
            at=at, actor=actor, command=type(payload).__name__, payload=payload.model_dump_json(), where=where
        )
        self._steps.append(step)


SYSTEM = "system:import"
STAFF = "staff:import"
