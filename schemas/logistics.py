"""The language of warehouse and carrier: what the sagas ask, what the worker found out, and what the outside reports by
itself (signed webhooks land in warehouse.events and carrier.events)."""

from __future__ import annotations

from schemas.address import Address
from schemas.base import Family, Instant, Message, Minor, Model, Payload
from schemas.order import ShipmentLine

Family("warehouse.commands", Message)
Family("warehouse.events", Message)
Family("shipping.commands", Message)
Family("shipping.results", Message)
Family("carrier.events", Message)


class Picked(Model):
    """A line of a parcel as the warehouse needs it."""

    line_id: str
    sku: str
    name: str
    quantity: int
    weight_grams: int


class PickShipment(Payload, family="warehouse.commands"):
    """Pick and pack a parcel."""

    shipment_id: str
    lines: tuple[Picked, ...]


class CancelPick(Payload, family="warehouse.commands"):
    """Don't. Too late is no error: what happens anyway is reported."""

    shipment_id: str


class WarehouseReported(Payload, family="warehouse.events"):
    """kind: picked | packed | short (`lines` are the units that are not there) | cancelled. `event_id` is the
    warehouse's; a repeat is the same event."""

    event_id: str
    shipment_id: str
    kind: str
    lines: tuple[ShipmentLine, ...] = ()
    occurred_at: Instant


class CustomsItem(Model):
    sku: str
    name: str
    quantity: int
    value: Minor
    hs_code: str | None = None
    origin: str | None = None


class BookShipment(Payload, family="shipping.commands"):
    """Have the carrier fetch a packed parcel. `customs` only when it leaves the country."""

    shipment_id: str
    shipping_method: str
    address: Address
    customer_id: str
    weight_grams: int
    currency: str
    customs: tuple[CustomsItem, ...] = ()
    incoterm: str | None = None


class CancelShipment(Payload, family="shipping.commands"):
    """Don't fetch it, or bring it back."""

    shipment_id: str


class RedeliverShipment(Payload, family="shipping.commands"):
    """Try to deliver again."""

    shipment_id: str
    attempt: int


class MakeReturnLabel(Payload, family="shipping.commands"):
    rma: str
    address: Address
    customer_id: str


class ShipmentBooked(Payload, family="shipping.results"):
    """The carrier will fetch it: it is shipped once the carrier reports so (carrier.events)."""

    shipment_id: str
    carrier: str
    tracking_number: str
    tracking_url: str
    estimated_delivery: str | None = None


class BookingFailed(Payload, family="shipping.results"):
    """The carrier refused, or gave no answer for too long: a person must look."""

    shipment_id: str
    code: str


class ReturnLabelMade(Payload, family="shipping.results"):
    rma: str
    carrier: str
    tracking_number: str
    label_url: str


class ReturnLabelFailed(Payload, family="shipping.results"):
    rma: str
    code: str


class CarrierReported(Payload, family="carrier.events"):
    """kind: shipped | in_transit | out_for_delivery | failed_attempt | delivered | lost | returned (undeliverable, back
    at the warehouse) | return_received (an RMA's parcel). `reference` is the shipment id or the RMA."""

    event_id: str
    reference: str
    kind: str
    tracking_number: str
    detail: str | None = None
    attempt: int = 0
    estimated_delivery: str | None = None
    occurred_at: Instant
