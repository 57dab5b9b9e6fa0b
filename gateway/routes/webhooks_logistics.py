"""What warehouse and carrier report by themselves: each step of a parcel."""

from __future__ import annotations

from datetime import date
from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import AwareDatetime, Field, ValidationInfo, field_validator
from starlette.responses import Response

from gateway.models import Body
from gateway.webhooks import MAX_EVENTS, Name, Webhook, documented
from schemas.logistics import CarrierReported, WarehouseReported
from schemas.order import ShipmentLine

router = APIRouter(prefix="/v1", tags=["webhooks"])

WAREHOUSE = "warehouse.events"
CARRIER = "carrier.events"

EventId = Annotated[Name, Field(description="the reporter's; a repeat is the same event")]
OrderId = Annotated[Name, Field(description="the order that the parcel was asked for with")]


class Units(Body):
    line_id: Name
    sku: Name
    quantity: Annotated[int, Field(ge=1, le=1_000_000)]


class WarehouseEvent(Body):
    """A step of picking and packing. `lines` of `short`: the units that are not there."""

    event_id: EventId
    order_id: OrderId
    shipment_id: Name
    kind: Literal["picked", "packed", "short", "cancelled"]
    lines: Annotated[tuple[Units, ...], Field(max_length=1_000, validate_default=True)] = ()
    occurred_at: AwareDatetime

    @field_validator("lines")
    @classmethod
    def _named(cls, lines: tuple[Units, ...], info: ValidationInfo) -> tuple[Units, ...]:
        if not lines and info.data.get("kind") == "short":
            raise ValueError("say which units are not there")
        return lines


class WarehouseEvents(Body):
    events: Annotated[list[WarehouseEvent], Field(min_length=1, max_length=MAX_EVENTS)]


class CarrierEvent(Body):
    """A step of a parcel on its way. `reference`: the shipment id; of `return_received` the RMA. `attempt`: which
    delivery attempt failed, from 1."""

    event_id: EventId
    order_id: OrderId
    reference: Name
    kind: Literal[
        "shipped",
        "in_transit",
        "out_for_delivery",
        "failed_attempt",
        "delivered",
        "lost",
        "returned",
        "return_received",
    ]
    tracking_number: Name
    detail: Annotated[str | None, Field(max_length=500)] = None
    attempt: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    estimated_delivery: Annotated[date | None, Field(description="when it changed")] = None
    occurred_at: AwareDatetime


class CarrierEvents(Body):
    events: Annotated[list[CarrierEvent], Field(min_length=1, max_length=MAX_EVENTS)]


@router.post("/warehouse/events", status_code=HTTPStatus.ACCEPTED, openapi_extra=documented(WarehouseEvents))
async def warehouse_events(hook: Webhook) -> Response:
    """202 when all events are on the topic warehouse.events; anything else: send the whole again."""
    reports = [
        (
            event.order_id,
            event.event_id,
            WarehouseReported(
                event_id=event.event_id,
                shipment_id=event.shipment_id,
                kind=event.kind,
                lines=tuple(
                    ShipmentLine(line_id=line.line_id, sku=line.sku, quantity=line.quantity) for line in event.lines
                ),
                occurred_at=event.occurred_at,
            ),
        )
        for event in hook.read(WarehouseEvents).events
    ]
    return await hook.accept(WAREHOUSE, reports)


@router.post("/carriers/events", status_code=HTTPStatus.ACCEPTED, openapi_extra=documented(CarrierEvents))
async def carrier_events(hook: Webhook) -> Response:
    """202 when all events are on the topic carrier.events; anything else: send the whole again."""
    reports = [
        (
            event.order_id,
            event.event_id,
            CarrierReported(
                event_id=event.event_id,
                reference=event.reference,
                kind=event.kind,
                tracking_number=event.tracking_number,
                detail=event.detail,
                attempt=event.attempt,
                estimated_delivery=None if event.estimated_delivery is None else event.estimated_delivery.isoformat(),
                occurred_at=event.occurred_at,
            ),
        )
        for event in hook.read(CarrierEvents).events
    ]
    return await hook.accept(CARRIER, reports)
