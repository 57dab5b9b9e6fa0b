"""What every route gets: who calls, with which preconditions, and the parts of the gateway."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Annotated, Any

import orjson
import uuid_utils
from cachetools import LRUCache
from fastapi import Depends, Request
from pydantic import BaseModel
from starlette.responses import Response

from gateway import ids
from gateway.auth import Authenticator, Caller
from gateway.cards import card_field
from gateway.catalogue import Catalogue
from gateway.commands import Bus
from gateway.keys import Addresses
from gateway.metrics import Metrics
from gateway.preferences import PreferenceTable
from gateway.problems import CORRELATION, Problem, not_found
from gateway.promotions import Promotions
from gateway.queries import Views
from gateway.roles import Role
from runtime.feed import Feed
from runtime.settings import Settings
from schemas.base import Command, Message, Payload
from schemas.order import Order
from schemas.policy import Policy

MAX_WAIT = 30.0
RECENT = 2_000

_ETAG = re.compile(r'"(\d{1,15})"')
_WAIT = re.compile(r"wait\s*=\s*(\d{1,6})")


@dataclass(frozen=True)
class Parts:
    """What the gateway is made of; put together in `gateway.main`."""

    settings: Settings
    policy: Policy
    authenticator: Authenticator
    bus: Bus
    catalogue: Catalogue
    preferences: PreferenceTable
    promotions: Promotions
    views: Views
    addresses: Addresses
    metrics: Metrics
    role: Role = Role.ALL
    recent: LRUCache[str, Order] = field(default_factory=lambda: LRUCache(RECENT))
    """Orders as the newest outcomes had them: what is fixed about an order, and a first guess at the rest."""

    def feeds(self) -> dict[str, Feed]:
        """What a gateway of this role follows. Only commands need replies, promotions and preferences."""
        if self.role is Role.QUERY:
            return {"catalogue": self.catalogue.feed}
        return {
            "replies": self.bus.replies,
            "catalogue": self.catalogue.feed,
            "promotions": self.promotions.feed,
            "preferences": self.preferences.feed,
        }


@dataclass(frozen=True)
class Call:
    """One authenticated request."""

    parts: Parts
    caller: Caller
    correlation_id: str
    method: str
    path: str
    body_hash: str
    """SHA-256 (hex) of the raw body."""
    idempotency_key: str | None
    expected_version: int | None
    respond_async: bool
    wait: float | None
    """Seconds to wait for the payment, of `Prefer: wait=N`."""

    def command_id(self, dry_run: bool = False) -> str:
        """A preview changes nothing, so it is never a repeat of something."""
        key = None if dry_run else self.idempotency_key
        return ids.command_id(self.caller.actor, self.method, self.path, key)

    def command(self, order_id: str, command_id: str, data: Payload, dry_run: bool = False) -> Command[Any]:
        return Command(
            id=command_id,
            order_id=order_id,
            at=datetime.now(UTC),
            actor=self.caller.actor,
            correlation_id=self.correlation_id,
            expected_version=self.expected_version,
            reply_to=self.parts.bus.address,
            body_hash=self.body_hash,
            dry_run=dry_run,
            data=data,
        )

    def message(self, data: Payload, message_id: str | None = None, **envelope: str | None) -> Message[Any]:
        """Of whoever calls. Without an id it is one of its own; `envelope`: order_id, reply_to."""
        return Message(
            id=message_id or str(uuid_utils.uuid7()),
            at=datetime.now(UTC),
            actor=self.caller.actor,
            correlation_id=self.correlation_id,
            data=data,
            **envelope,
        )


def _known_parameters(route: Any) -> frozenset[str] | None:
    """The names that this route takes in its query; None where a model says so, and refuses the others itself."""
    found: list[Any] = []
    dependants = [route.dependant]
    while dependants:
        dependant = dependants.pop()
        found += dependant.query_params
        dependants += dependant.dependencies
    kinds = [parameter.field_info.annotation for parameter in found]
    if any(isinstance(kind, type) and issubclass(kind, BaseModel) for kind in kinds):
        return None
    return frozenset(parameter.alias for parameter in found)


def _refuse_unknown_parameters(request: Request) -> None:
    """A typo must not be ignored: `?dryrun=true` would place an order."""
    if not request.query_params:
        return
    route = request.scope["route"]
    known = _known_parameters(route)
    unknown = [] if known is None else [name for name in request.query_params if name not in known]
    if unknown:
        possible = f"there are {', '.join(sorted(known))}" if known else "there are none"
        raise Problem(
            "invalid-request",
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"There is no parameter {unknown[0]} here; {possible}.",
            errors=[(name, f"There is no such parameter; {possible}.") for name in unknown],
        )


async def call(request: Request) -> Call:
    _refuse_unknown_parameters(request)
    # Headers are read here rather than declared: FastAPI takes a third of a request's time to look for them.
    # `gateway.openapi` documents them.
    headers = request.headers
    idempotency_key = headers.get("idempotency-key")
    parts: Parts = request.app.state.parts
    caller = await parts.authenticator.caller(headers.get("authorization"))
    body = await request.body()
    if body and (field := card_field(body)) is not None:
        raise Problem(
            "card-number",
            HTTPStatus.UNPROCESSABLE_ENTITY,
            f"{field} looks like a card number. We never take one: send the payment provider's token.",
            field=field,
        )
    if idempotency_key is not None and not 1 <= len(idempotency_key) <= 255:
        raise Problem(
            "invalid-request",
            HTTPStatus.UNPROCESSABLE_ENTITY,
            "Idempotency-Key has 1 to 255 characters.",
            field="Idempotency-Key",
        )
    respond_async, wait = _preferences(headers.get("prefer"))
    return Call(
        parts=parts,
        caller=caller,
        correlation_id=request.scope[CORRELATION],
        method=request.method,
        path=request.url.path,
        body_hash=hashlib.sha256(body).hexdigest(),
        idempotency_key=idempotency_key,
        expected_version=_version(headers.get("if-match")),
        respond_async=respond_async,
        wait=wait,
    )


async def staff(call: Annotated[Call, Depends(call)]) -> Call:
    if not call.caller.staff:
        raise Problem("forbidden", HTTPStatus.FORBIDDEN, "This needs the scope orders:admin.")
    return call


AnyCall = Annotated[Call, Depends(call)]
StaffCall = Annotated[Call, Depends(staff)]


async def order_id(order_id: str) -> str:
    """An order's id out of the path. What can't be one is not found, and never becomes a message key."""
    if not ids.is_uuid(order_id):
        raise not_found()
    return order_id


OrderId = Annotated[str, Depends(order_id)]


def reply(
    document: Any, status: int = 200, headers: dict[str, str] | None = None, version: int | None = None
) -> Response:
    """JSON; `version` becomes the ETag."""
    found = dict(headers or {})
    if version is not None:
        found["ETag"] = f'"{version}"'
    return Response(orjson.dumps(document), status_code=status, headers=found, media_type="application/json")


def _version(if_match: str | None) -> int | None:
    """`If-Match: "3"`. A weak tag never matches strongly; anything else we never gave out."""
    if if_match is None or if_match.strip() == "*":
        return None
    found = _ETAG.fullmatch(if_match.strip())
    if found is None:
        raise Problem(
            "invalid-request",
            HTTPStatus.BAD_REQUEST,
            'If-Match is an order\'s ETag, such as "3".',
            field="If-Match",
        )
    return int(found[1])


def _preferences(prefer: str | None) -> tuple[bool, float | None]:
    """(respond-async, wait). What is not understood is left alone (RFC 7240)."""
    if prefer is None:
        return False, None
    wanted = [part.strip().lower() for part in prefer.split(",")]
    waits = [found for part in wanted if (found := _WAIT.fullmatch(part))]
    return "respond-async" in wanted, min(float(waits[0][1]), MAX_WAIT) if waits else None
