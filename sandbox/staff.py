"""The other side of the counter: staff who review, approve and inspect; and the sandbox's warehouse and carrier."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import aiohttp

from sandbox.catalogue import add_stock
from sandbox.client import Client, Refused
from sandbox.people import Returning
from sandbox.tally import Tally

LOOK = 1.0
"""Seconds that a member of staff takes to look at something."""


class PartnersSilent(Exception):
    """The sandbox's warehouse and carrier don't answer; the text says what to do."""


class Partners:
    """The sandbox's warehouse and carrier, as far as one can ask them to let something go wrong, or to come again."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url.rstrip("/")

    async def plan(self, order_id: str, fate: Mapping[str, Any]) -> None:
        """What becomes of the order's next parcel. PartnersSilent."""
        await self._post("/v1/control/next", {"order_id": order_id, **fate})

    async def come_again(self, shipment_id: str, attempt: int) -> bool:
        """The customer asks the carrier for another delivery attempt; whether there will be one. PartnersSilent."""
        return await self._post(f"/v1/shipments/{shipment_id}/redeliver", {"attempt": attempt})

    async def _post(self, path: str, body: Mapping[str, Any]) -> bool:
        try:
            async with self._session.post(self._url + path, json=dict(body)) as answer:
                if answer.status in (200, 409):
                    return answer.status == 200
                text = f"{answer.status} {(await answer.text())[:300]}"
        except aiohttp.ClientError as error:
            text = str(error)
        raise PartnersSilent(
            f"{self._url}{path}: {text}; without the sandbox's warehouse and carrier leave short_pick, misses_parcel, "
            "unreachable and loses_parcel out (--share short_pick=0 …)"
        )


class Staff:
    """Everything is done once for an order, under its own idempotency key."""

    def __init__(self, client: Client, session: aiohttp.ClientSession, base_url: str, token: str, tally: Tally) -> None:
        self._client = client
        self._session = session
        self._base_url = base_url
        self._token = token
        self._tally = tally

    async def review(self, order: dict[str, Any], verdict: str) -> dict[str, Any]:
        """Look at a held order, then release it or cancel it."""
        await asyncio.sleep(LOOK)
        what, path, body = "released", f"/v1/admin/orders/{order['id']}/release", {"comment": "known customer"}
        if verdict == "cancel":
            what, path = "cancelled", f"/v1/orders/{order['id']}/cancel"
            body = {"reason": "fraud", "comment": "nobody answers the phone"}
        decided = await self._client.call("POST", path, None, f"{order['id']}-review-{order['version']}", body)
        self._tally.done[f"review: {what}"] += 1
        return decided

    async def answer_return(self, rma: str, returning: Returning) -> dict[str, Any]:
        """Approve a return or deny it."""
        await asyncio.sleep(LOOK)
        path = f"/v1/admin/returns/{rma}"
        if returning.approved:
            answered = await self._client.call("POST", f"{path}/approve", None, f"{rma}-approve")
            self._tally.done["return: approved"] += 1
        else:
            body = {"reason": "It shows signs of long use."}
            answered = await self._client.call("POST", f"{path}/deny", None, f"{rma}-deny", body)
            self._tally.done["return: denied"] += 1
        return answered

    async def inspect(self, rma: str, line_ids: list[str], condition: str) -> dict[str, Any]:
        """Say in which condition the goods have come back."""
        await asyncio.sleep(LOOK)
        body = {"items": [{"line_id": line_id, "condition": condition} for line_id in line_ids]}
        inspected = await self._client.call("POST", f"/v1/admin/returns/{rma}/inspect", None, f"{rma}-inspect", body)
        self._tally.done[f"inspected: {condition}"] += 1
        return inspected

    async def apologise(self, order: dict[str, Any]) -> None:
        """Give the shipping back, because a parcel was lost; nothing happens where it cost nothing."""
        body = {"reason": "goodwill", "shipping": True, "comment": "The first parcel got lost."}
        path = f"/v1/admin/orders/{order['id']}/refunds"
        try:
            await self._client.call("POST", path, None, f"{order['id']}-goodwill", body)
            self._tally.done["goodwill: shipping given back"] += 1
        except Refused as refused:
            if not refused.by_a_rule:
                raise
            self._tally.refusals[refused.type] += 1

    async def restock(self, sku: str, units: int, key: str) -> None:
        """The supplier has delivered."""
        await add_stock(self._base_url, self._token, self._session, sku, units, "delivery by the supplier", key)
        self._tally.done["supplier delivered"] += 1
