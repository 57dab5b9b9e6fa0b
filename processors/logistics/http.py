"""Warehouse and carrier over HTTP, as the sandbox's (`sandbox/logistics.py`) speak it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import TracebackType
from typing import Self, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from processors.logistics.port import Booked, Customs, Label, PostalAddress, Refused, Unavailable
from processors.outside import Client, NoAnswer
from schemas.logistics import Picked


class HttpLogistics:
    """Both ports, of partners that share an address. Open it with `async with`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def pick(self, shipment_id: str, order_id: str, lines: Sequence[Picked]) -> Refused | None:
        body = {"shipment_id": shipment_id, "order_id": order_id, "lines": [line.model_dump() for line in lines]}
        return done(*await self._send("POST", "/v1/picks", shipment_id, body))

    async def cancel_pick(self, shipment_id: str) -> Refused | None:
        return done(*await self._send("DELETE", f"/v1/picks/{_quoted(shipment_id)}"))

    async def book(
        self,
        shipment_id: str,
        order_id: str,
        method: str,
        address: PostalAddress,
        weight_grams: int,
        customs: Customs | None,
    ) -> Booked | Refused:
        body = {
            "shipment_id": shipment_id,
            "order_id": order_id,
            "method": method,
            "address": asdict(address),
            "weight_grams": weight_grams,
            "customs": None if customs is None else _declared(customs),
        }
        return booked(*await self._send("POST", "/v1/shipments", shipment_id, body))

    async def cancel(self, shipment_id: str) -> Refused | None:
        return done(*await self._send("POST", f"/v1/shipments/{_quoted(shipment_id)}/cancel"))

    async def redeliver(self, shipment_id: str, attempt: int) -> Refused | None:
        path = f"/v1/shipments/{_quoted(shipment_id)}/redeliver"
        return done(*await self._send("POST", path, f"{shipment_id}/{attempt}", {"attempt": attempt}))

    async def label(self, rma: str, order_id: str, address: PostalAddress) -> Label | Refused:
        body = {"rma": rma, "order_id": order_id, "address": asdict(address)}
        return labelled(*await self._send("POST", "/v1/labels", rma, body))

    async def _send(
        self, method: str, path: str, key: str | None = None, body: Mapping[str, object] | None = None
    ) -> tuple[int, bytes]:
        try:
            return await self._client.send(method, path, key, body)
        except NoAnswer as silence:
            raise Unavailable(silence.reason) from silence


class _Booked(BaseModel):
    carrier: str
    tracking_number: str
    tracking_url: str
    estimated_delivery: str | None = None


class _Label(BaseModel):
    carrier: str
    tracking_number: str
    label_url: str


class _Error(BaseModel):
    code: str


class _ErrorAnswer(BaseModel):
    error: _Error


# The partners' answers as outcomes, pure. They raise Unavailable for an unreadable 200, and for what the partner does
# not say itself: a proxy's 404, refused credentials. A refusal needs the partner's own code.


def done(status: int, content: bytes) -> Refused | None:
    """The answer to a request that has no content of its own."""
    return None if status in (200, 202, 204) else refused(status, content)


def booked(status: int, content: bytes) -> Booked | Refused:
    """The answer to `POST /v1/shipments`."""
    if status != 200:
        return refused(status, content)
    found = _read(_Booked, content)
    return Booked(found.carrier, found.tracking_number, found.tracking_url, found.estimated_delivery)


def labelled(status: int, content: bytes) -> Label | Refused:
    """The answer to `POST /v1/labels`."""
    if status != 200:
        return refused(status, content)
    found = _read(_Label, content)
    return Label(found.carrier, found.tracking_number, found.label_url)


def refused(status: int, content: bytes) -> Refused:
    """What any other answer says."""
    if status in (400, 404, 409, 422):
        try:
            return Refused(_ErrorAnswer.model_validate_json(content).error.code)
        except ValidationError:
            pass  # not the partner's own words: below
    raise Unavailable(f"HTTP {status}")


M = TypeVar("M", bound=BaseModel)


def _read(model: type[M], content: bytes) -> M:
    try:
        return model.model_validate_json(content)
    except ValidationError:
        raise Unavailable("unreadable answer") from None


def _declared(customs: Customs) -> dict[str, object]:
    items = [{**item.model_dump(), "currency": customs.currency} for item in customs.items]
    return {"incoterm": customs.incoterm, "items": items}


def _quoted(text: str) -> str:
    return quote(text, safe="")
