"""Webhooks: what the outside world reports by itself. Signed, checked, written to a topic, and only then answered.

`OMS-Signature: t=SECONDS,v1=HEX`: HMAC-SHA256 with the shared secret over `t`, a dot and the body as it is; `t` (Unix
time) may be at most five minutes away. Several `v1` may stand there, so that a secret can be changed without a gap.
A route takes `Webhook`, reads it with `read`, and ends with `accept`:

    class Batch(Body):  # gateway.models.Body
        events: Annotated[list[Report], Field(min_length=1, max_length=MAX_EVENTS)]

    @router.post("/v1/…/events", status_code=202, openapi_extra=documented(Batch))
    async def events(hook: Webhook) -> Response:
        batch = hook.read(Batch)
        return await hook.accept("….events", [(order_id, event_id, payload) for … in batch.events])
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any, TypeVar
from uuid import NAMESPACE_URL, uuid5

from fastapi import Depends, Request
from pydantic import BaseModel, StringConstraints, ValidationError
from starlette.responses import Response

from gateway.call import Parts, reply
from gateway.problems import CORRELATION, Problem, invalid, unavailable
from schemas.base import Message, Payload

PATHS = frozenset({"/v1/payments/events", "/v1/carriers/events", "/v1/warehouse/events"})
HEADER = "OMS-Signature"
TOLERANCE = 300
"""Seconds that the signature's time may be away from ours."""
MAX_EVENTS = 500

Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f-\x9f]+$")]
"""An id of somebody else's: anything without control characters."""

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True)
class Signed:
    """A request whose signature is right."""

    parts: Parts
    correlation_id: str
    path: str
    body: bytes

    def read(self, model: type[M]) -> M:
        """The body as `model`. Problem: 400 when it is no JSON, 422 naming each field that is wrong."""
        try:
            return model.model_validate_json(self.body)
        except ValidationError as error:
            errors = error.errors(include_url=False, include_input=False, include_context=False)
            raise invalid([{**one, "loc": ("body", *one["loc"])} for one in errors]) from None

    async def accept(self, topic: str, reports: Sequence[tuple[str, str, Payload]]) -> Response:
        """202 when Kafka has all of them. `reports`: (order id, the reporter's event id, what it says); a message's id
        derives from the event id, so that a repeat is the same message. Problem: 503, send the whole again."""
        bus = self.parts.bus
        now = datetime.now(UTC)
        try:
            written = [
                bus.produce(topic, order_id, self._message(topic, order_id, event_id, payload, now))
                for order_id, event_id, payload in reports
            ]
            await asyncio.gather(*written)
        except Problem as lost:
            raise unavailable("kafka-unavailable", "This can't be taken at the moment. Send it again.") from lost
        return reply({"accepted": len(reports)}, HTTPStatus.ACCEPTED)

    def _message(self, topic: str, order_id: str, event_id: str, payload: Payload, now: datetime) -> Message[Any]:
        return Message(
            id=str(uuid5(NAMESPACE_URL, f"oms:{topic}:{event_id}")),
            at=now,
            actor=f"system:{self.path.split('/')[2]}",
            correlation_id=self.correlation_id,
            order_id=order_id,
            data=payload,
        )


async def signed(request: Request) -> Signed:
    """Problem: 503 while no secret is configured, 401 when the signature is missing, wrong or too old."""
    parts: Parts = request.app.state.parts
    secret = parts.settings.webhook_secret.get_secret_value()
    if not secret:
        raise unavailable("webhooks-off", "No webhook secret is configured (OMS_WEBHOOK_SECRET).", retry_after=60)
    body = await request.body()
    wrong = what_is_wrong(request.headers.get(HEADER), body, secret, time.time())
    if wrong is not None:
        raise Problem("bad-signature", HTTPStatus.UNAUTHORIZED, wrong, field=HEADER)
    return Signed(parts, request.scope[CORRELATION], request.url.path, body)


Webhook = Annotated[Signed, Depends(signed)]


def what_is_wrong(header: str | None, body: bytes, secret: str, now: float) -> str | None:
    """Why this is not signed with our secret at about `now` (Unix time), or None when it is."""
    if header is None:
        return f"{HEADER} is missing: t=SECONDS,v1=HEX."
    parts = [part.strip().partition("=") for part in header.split(",")]
    times = [value for name, _, value in parts if name == "t"]
    signatures = [value for name, _, value in parts if name == "v1"]
    if len(times) != 1 or not (times[0].isascii() and times[0].isdigit() and len(times[0]) <= 12) or not signatures:
        return f"{HEADER} is t=SECONDS,v1=HEX."
    expected = signature(secret, times[0], body).encode()
    if not any(hmac.compare_digest(expected, found.encode()) for found in signatures):
        return "The signature does not belong to this body and our secret."
    if abs(now - int(times[0])) > TOLERANCE:
        return f"The signature's time is more than {TOLERANCE} seconds away from ours."
    return None


def signature(secret: str, seconds: str, body: bytes) -> str:
    """HMAC-SHA256, hex."""
    return hmac.new(secret.encode(), seconds.encode() + b"." + body, hashlib.sha256).hexdigest()


def documented(model: type[BaseModel]) -> dict[str, Any]:
    """The body of a webhook for OpenAPI, which can't see it: the signature is checked before anything is parsed."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    schema.pop("$defs", None)
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
