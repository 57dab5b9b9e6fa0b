"""What the fulfilment saga knows about an order, and what it sends. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from uuid_utils import NAMESPACE_URL, uuid5

from processors.order.parcels import without
from schemas.address import Address
from schemas.base import Event, Instant, Message, Model, Payload
from schemas.logistics import CarrierReported
from schemas.order import OrderStatus, ShipmentLine

ACTOR = "system:fulfilment"
OWNER = "fulfilment"
POOL = "main"
Cause = Event[Any] | Message[Any]


class Item(Model):
    """A line, as far as its units have to be sent. `shipped`: with a carrier or delivered, lost ones not. `wanted` is
    what stock is to hold for it in all: as ordered, less what was cancelled before it left, plus what is sent again.

    Of the units to ship `missing` are not in stock (back-ordered, or refused), and of `pending` nobody knows yet: stock
    was asked under the order's version `asked`."""

    line_id: str
    sku: str
    name: str
    weight_grams: int
    quantity: int
    net: int  # minor units, of the whole line
    cancelled: int = 0
    shipped: int = 0
    wanted: int
    missing: int = 0
    pending: int = 0
    asked: int = 0
    backorder: bool = False
    hs_code: str | None = None
    origin: str | None = None

    @property
    def to_ship(self) -> int:
        return self.quantity - self.cancelled - self.shipped


class Parcel(Model):
    """A parcel that has not ended. status: asked (the order has not said yes yet) | planned | packed | out (a carrier
    has it) | called_back (its pick was cancelled and the warehouse has not answered yet) | back (it had left, and is at
    the warehouse again: late reports of its way are no news). booking: none | asked | made | failed. `short`: units
    that the warehouse reported and the order has not cancelled yet. `announced`: the order was told that it left.
    `extra`: units in it that were cancelled too late. `waiting`: what the carrier reported before its booking was
    known. `seen`: the newest reports."""

    shipment_id: str
    status: str = "asked"
    lines: tuple[ShipmentLine, ...]
    short: tuple[ShipmentLine, ...] = ()
    extra: tuple[ShipmentLine, ...] = ()
    booking: str = "none"
    carrier: str = ""
    tracking_number: str = ""
    tracking_url: str = ""
    estimated_delivery: str | None = None
    announced: bool = False
    attempts: int = 0
    failed_at: Instant | None = None
    waiting: tuple[CarrierReported, ...] = ()
    seen: tuple[str, ...] = ()

    @property
    def contents(self) -> tuple[ShipmentLine, ...]:
        return without(self.lines, self.short)

    @property
    def at_home(self) -> bool:
        return self.status in ("planned", "packed")


class Fulfilment(Model):
    """phase: waiting (to begin) | processing | ended, where items and parcels are forgotten. `version` is that of the
    newest event heard; nothing is planned before it reaches `wait_for`, because the order refused a plan that didn't
    know of that event. `count`: parcels so far. `asked`: returns and refunds that are under way after the delivery.
    `stuck`: the open exception; it may come before the payment, with which a fulfilment else begins."""

    order_id: str
    phase: str = "waiting"
    status: str = OrderStatus.PENDING_PAYMENT
    version: int = 0
    wait_for: int = 0
    begin_at: Instant | None = None  # while it waits: when it may begin
    items: tuple[Item, ...] = ()
    parcels: tuple[Parcel, ...] = ()
    count: int = 0
    address: Address | None = None
    shipping_method: str = ""
    customer_id: str = ""
    currency: str = ""
    incoterm: str | None = None
    asked: tuple[str, ...] = ()
    stuck: str | None = None
    imported: bool = False

    def parcel(self, shipment_id: str) -> Parcel | None:
        return next((p for p in self.parcels if p.shipment_id == shipment_id), None)

    def item(self, line_id: str) -> Item | None:
        return next((i for i in self.items if i.line_id == line_id), None)

    def had(self, parcel_id: str) -> bool:
        """Whether it is, or was, a parcel of ours."""
        return any(parcel_id == shipment_id(self.order_id, number) for number in range(1, self.count + 1))

    def with_parcel(self, shipment_id: str, **changes: Any) -> Fulfilment:
        parcels = tuple(p.model_copy(update=changes) if p.shipment_id == shipment_id else p for p in self.parcels)
        return self.model_copy(update={"parcels": parcels})

    def without_parcel(self, shipment_id: str) -> Fulfilment:
        return self.model_copy(update={"parcels": tuple(p for p in self.parcels if p.shipment_id != shipment_id)})

    def with_item(self, line_id: str, **changes: Any) -> Fulfilment:
        items = tuple(i.model_copy(update=changes) if i.line_id == line_id else i for i in self.items)
        return self.model_copy(update={"items": items})


@dataclass(frozen=True)
class Send:
    """Something to send. `name` tells it from the saga's other messages about this order, and its id derives from it:
    the same reason gives the same message. `retry`: what an exception offers to send again."""

    topic: str
    name: str
    payload: Payload
    retry: Send | None = None


Step = tuple[Fulfilment, list[Send]]
"""The fulfilment after a message, and what has to be sent because of it."""


def message_id(order_id: str, name: str) -> str:
    return str(uuid5(NAMESPACE_URL, f"oms:fulfilment:{order_id}:{name}"))


def shipment_id(order_id: str, count: int) -> str:
    return str(uuid5(NAMESPACE_URL, f"oms:shipment:{order_id}:{count}"))
