"""What the payment provider reports by itself: each thing that it did, so that its books can be held against ours."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter
from pydantic import AwareDatetime, Field, ValidationInfo, field_validator
from starlette.responses import Response

from gateway.models import Body
from gateway.webhooks import MAX_EVENTS, Name, Webhook, documented
from schemas.money import CurrencyCode
from schemas.payment import ProviderReported

router = APIRouter(prefix="/v1/payments", tags=["webhooks"])

TOPIC = "payment.feed"


class PaymentEvent(Body):
    """One thing that the provider did. `reference` is the attempt, capture or refund id that we gave it; a capture and
    a refund name their attempt besides."""

    event_id: Annotated[Name, Field(description="the provider's; a repeat is the same event")]
    kind: Literal["captured", "authorized", "capture", "voided", "declined", "refunded"]
    order_id: Annotated[Name, Field(description="the order that the provider was told")]
    reference: Name
    attempt_id: Annotated[Name | None, Field(validate_default=True)] = None
    amount: Annotated[int, Field(ge=0, le=10**15, description="minor units")]
    currency: CurrencyCode
    provider_ref: Name
    occurred_at: AwareDatetime

    @field_validator("attempt_id")
    @classmethod
    def _named(cls, attempt_id: str | None, info: ValidationInfo) -> str | None:
        if attempt_id is None and info.data.get("kind") in ("capture", "refunded"):
            raise ValueError("captures and refunds name their attempt")
        return attempt_id


class PaymentEvents(Body):
    events: Annotated[list[PaymentEvent], Field(min_length=1, max_length=MAX_EVENTS)]


@router.post("/events", status_code=HTTPStatus.ACCEPTED, openapi_extra=documented(PaymentEvents))
async def payment_events(hook: Webhook) -> Response:
    """202 when all events are on the topic payment.feed; anything else: send the whole again."""
    reports = [
        (
            event.order_id,
            event.event_id,
            ProviderReported(
                event_id=event.event_id,
                kind=event.kind,
                reference=event.reference,
                attempt_id=event.attempt_id,
                amount=event.amount,
                currency=event.currency,
                provider_ref=event.provider_ref,
                occurred_at=event.occurred_at,
            ),
        )
        for event in hook.read(PaymentEvents).events
    ]
    return await hook.accept(TOPIC, reports)
