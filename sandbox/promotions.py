"""The sample shop's promotions, and how they get into a running shop: over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import aiohttp

from sandbox.catalogue import CatalogueError, send


def _amounts(**by_currency: str) -> list[dict[str, str]]:
    return [{"amount": amount, "currency": currency} for currency, amount in by_currency.items()]


PROMOTIONS: Mapping[str, Mapping[str, Any]] = {
    "SPRING10": {"kind": "percentage", "percent": "10"},
    "FIRST50": {"kind": "percentage", "percent": "15", "limit": 50, "limit_per_customer": 2},
    "WELCOME5": {
        "kind": "fixed",
        "amounts": _amounts(EUR="5.00", USD="5.00", GBP="4.00", JPY="800"),
        "exclusive": True,
    },
    "FREESHIP": {
        "kind": "free_shipping",
        "minimum_subtotal": _amounts(EUR="30.00", USD="35.00", GBP="25.00", JPY="5000"),
    },
    "B2G1": {"kind": "buy_x_get_y", "buy": 2, "get": 1, "categories": ["books"]},
}
"""Code → the body of `PUT /v1/admin/promotions/{code}`."""


async def load_promotions(base_url: str, token: str, session: aiohttp.ClientSession) -> int:
    """Define those that the shop has not; returns how many that were. `token`: bearer token of staff. CatalogueError
    when the shop refuses one."""
    headers = {"Authorization": f"Bearer {token}"}
    url = f"{base_url}/v1/admin/promotions"
    async with session.get(url, params={"limit": "1000"}, headers=headers) as answer:
        if answer.status != 200:
            raise CatalogueError(f"the promotions can't be listed: {answer.status} {(await answer.text())[:500]}")
        known = {promotion["code"] for promotion in (await answer.json())["items"]}
    new = {code: body for code, body in PROMOTIONS.items() if code not in known}
    for code, body in new.items():
        await send(partial(session.put, f"{url}/{code}", json=dict(body), headers=headers), f"promotion {code}")
    return len(new)
