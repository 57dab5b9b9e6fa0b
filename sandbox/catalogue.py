"""The sample catalogue (`catalogue.jsonl`, one product a line), and how it gets into a running shop: over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import aiohttp
import orjson

from schemas.money import to_minor

AT_ONCE = 16
ATTEMPTS = 6
LATER = (429, 502, 503, 504)
SCARCE = 100
"""Fewer units than this, and the product is one that customers race for."""


class CatalogueError(RuntimeError):
    """The shop refused a product or its stock; the text says which and why."""


@dataclass(frozen=True, slots=True)
class SampleProduct:
    """A product of the sample. `hs_code` and `origin` (country) are for customs; `prices`: currency → amount as
    text ("129.90"); `stock`: units to start with; `backorder`: sold also when there are too few."""

    sku: str
    product_id: str
    name: str
    category: str
    tax_category: str
    weight_grams: int
    hs_code: str
    origin: str
    prices: dict[str, str]
    stock: int
    backorder: bool = False

    @property
    def scarce(self) -> bool:
        return self.stock < SCARCE and not self.backorder

    def price(self, currency: str) -> int:
        """Minor units. KeyError when it has no price in this currency."""
        return to_minor(self.prices[currency], currency)

    def body(self) -> dict[str, Any]:
        """As `PUT /v1/admin/products/{sku}` wants it."""
        return {
            "product_id": self.product_id,
            "name": self.name,
            "category": self.category,
            "tax_category": self.tax_category,
            "weight_grams": self.weight_grams,
            "prices": [{"amount": amount, "currency": currency} for currency, amount in self.prices.items()],
            "active": True,
            "hs_code": self.hs_code,
            "origin": self.origin,
            "backorder": self.backorder,
        }


@cache
def catalogue() -> tuple[SampleProduct, ...]:
    """The sample catalogue, in the file's order."""
    lines = files(__package__).joinpath("catalogue.jsonl").read_text(encoding="utf-8").splitlines()
    return tuple(_product(orjson.loads(line)) for line in lines)


def _product(record: dict[str, Any]) -> SampleProduct:
    prices = {price["currency"]: price["amount"] for price in record.pop("prices")}
    return SampleProduct(**record, prices=prices)


async def load_catalogue(base_url: str, token: str, session: aiohttp.ClientSession) -> int:
    """Put every product and its first stock; returns how many products there are.

    A second run changes nothing: products are put whole, and each stock adjustment has an idempotency key of its
    own for good. `token`: bearer token of staff. CatalogueError when the shop refuses something.
    """
    products = catalogue()
    await _all(lambda product: _put(base_url, token, session, product), products)
    await _all(
        lambda product: add_stock(
            base_url, token, session, product.sku, product.stock, "first delivery", f"sample-catalogue-{product.sku}"
        ),
        products,
    )
    return len(products)


async def for_sale(base_url: str, token: str, session: aiohttp.ClientSession) -> dict[str, int]:
    """Every SKU that the shop lists, and how many units it says there are (0 also when nobody counted)."""
    found: dict[str, int] = {}
    query: dict[str, str] = {"limit": "500"}
    while True:
        async with session.get(
            f"{base_url}/v1/products", params=query, headers={"Authorization": f"Bearer {token}"}
        ) as answer:
            if answer.status != 200:
                raise CatalogueError(f"the list of products was refused: {answer.status} {(await answer.text())[:500]}")
            page = await answer.json()
        found |= {product["sku"]: product["available"] or 0 for product in page["items"]}
        if page["next"] is None:
            return found
        query["cursor"] = page["next"]


async def add_stock(
    base_url: str, token: str, session: aiohttp.ClientSession, sku: str, units: int, reason: str, key: str
) -> None:
    """Add units to a product's stock, once for this idempotency key."""
    await send(
        lambda: session.post(
            f"{base_url}/v1/admin/products/{sku}/stock",
            json={"delta": units, "reason": reason},
            headers={"Authorization": f"Bearer {token}", "Idempotency-Key": key},
        ),
        f"the stock of {sku}",
    )


async def _put(base_url: str, token: str, session: aiohttp.ClientSession, product: SampleProduct) -> None:
    await send(
        lambda: session.put(
            f"{base_url}/v1/admin/products/{product.sku}",
            json=product.body(),
            headers={"Authorization": f"Bearer {token}"},
        ),
        f"product {product.sku}",
    )


async def send(request: Callable[[], Any], what: str) -> None:
    """A request that may be made again, and is while the shop says "later" (a stack that has just started is slow).
    CatalogueError when it is refused."""
    for attempt in range(1, ATTEMPTS + 1):
        async with request() as answer:
            if answer.status < 300:
                return
            if answer.status not in LATER or attempt == ATTEMPTS:
                raise CatalogueError(f"{what} was refused: {answer.status} {(await answer.text())[:500]}")
        await asyncio.sleep(1.0)


async def _all(
    work: Callable[[SampleProduct], Awaitable[None]], products: tuple[SampleProduct, ...], at_once: int = AT_ONCE
) -> None:
    gate = asyncio.Semaphore(at_once)

    async def one(product: SampleProduct) -> None:
        async with gate:
            await work(product)

    await asyncio.gather(*(one(product) for product in products))
