"""What requests about returns, refunds, holds and the survey look like."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.models import Amount, Body, LineQuantityBody, Name, Quantity, Sku, Words, text

LineId = Annotated[str, text(16)]
Comment = Annotated[str, text(500)]


class ReturnItemBody(Body):
    line_id: LineId
    quantity: Quantity
    reason: Annotated[Name, Field(description="one of policy's: returns.reasons", examples=["does_not_fit"])]
    exchange_sku: Annotated[
        Sku | None,
        Field(description="send this instead, at today's price: ordered once the goods are back and accepted"),
    ] = None


class ReturnBody(Body):
    items: Annotated[list[ReturnItemBody], Field(min_length=1, max_length=500)]
    comment: Comment | None = None


class SurveyBody(Body):
    score: Annotated[int, Field(ge=1, le=5, description="1 (bad) to 5 (good)")]
    comment: Comment | None = None


class DenyBody(Body):
    reason: Words


class InspectedBody(Body):
    line_id: LineId
    condition: Annotated[Name, Field(description="one of policy's: returns.conditions", examples=["as_new"])]


class InspectBody(Body):
    items: Annotated[
        list[InspectedBody], Field(max_length=500, description="lines not named are in policy's first condition")
    ] = []
    comment: Comment | None = None


class RefundBody(Body):
    """What is named is given back: units (they stay with the customer), shipping, and an amount on top."""

    reason: Annotated[Words, Field(description="one of policy's: refunds.reasons", examples=["goodwill"])]
    items: Annotated[list[LineQuantityBody], Field(max_length=500)] = []
    shipping: bool = False
    amount: Amount | None = None
    comment: Comment | None = None


class HoldBody(Body):
    reason: Words


class ReleaseBody(Body):
    comment: Comment | None = None
