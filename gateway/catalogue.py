"""What is for sale and how much of it there is: tables in memory, fed by `catalog.products` and `inventory.levels`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from confluent_kafka import Producer

from runtime.feed import Feed, Received, from_beginning
from runtime.settings import Settings
from schemas.catalog import Product
from schemas.inventory import StockLevel
from schemas.order import Quote
from schemas.replies import Rejection

PRODUCTS = "catalog.products"
CHANGES = "catalog.events"
LEVELS = "inventory.levels"


@dataclass(frozen=True, slots=True)
class Wish:
    """So many of this SKU; `field` names where in the request it stands."""

    sku: str
    quantity: int
    field: str


class Catalogue:
    """Read on the event loop, written by the feed's thread (and `learn`): single dictionary operations, which are
    atomic."""

    def __init__(self, settings: Settings, producer: Producer) -> None:
        self.feed = Feed(settings, "catalogue", producer, from_beginning(PRODUCTS, LEVELS), self._take)
        self._products: dict[str, Product] = {}
        self._levels: dict[str, dict[str, StockLevel]] = {}
        self._sorted: list[str] | None = None
        self._awaited: dict[str, asyncio.Future[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.feed.start()

    @property
    def loaded(self) -> bool:
        return self.feed.caught_up.is_set()

    def product(self, sku: str) -> Product | None:
        return self._products.get(sku)

    def available(self, sku: str) -> int | None:
        """Units free to sell over all pools; None when nobody ever counted."""
        pools = self._levels.get(sku)
        return None if pools is None else sum(level.available for level in list(pools.values()))

    def page(self, after: str, limit: int, inactive: bool) -> list[Product]:
        """Products by SKU, after this one."""
        if self._sorted is None:
            self._sorted = sorted(self._products)
        found = []
        for sku in self._sorted:
            product = self._products.get(sku)
            if sku > after and product is not None and (product.active or inactive):
                found.append(product)
                if len(found) == limit:
                    break
        return found

    def quotes(self, wishes: Iterable[Wish], currency: str) -> list[Quote] | Rejection:
        """Today's prices in this currency, in the order asked for; or 422 at the field of each unknown or inactive
        SKU, or at `currency` when one has no price in it."""
        found = []
        unknown: list[str] = []
        unpriced: list[str] = []
        for wish in wishes:
            product = self._products.get(wish.sku)
            if product is None or not product.active:
                unknown.append(wish.field)
            elif currency not in product.prices:
                unpriced.append(product.sku)
            else:
                found.append(quote(product, currency))
        if unknown:
            return Rejection(
                type="unknown-product",
                status=HTTPStatus.UNPROCESSABLE_ENTITY,
                field=unknown[0],
                detail="There is no such product.",
                extra={"fields": ",".join(unknown)},
            )
        if unpriced:
            return Rejection(
                type="no-price",
                status=HTTPStatus.UNPROCESSABLE_ENTITY,
                field="currency",
                detail=f"There is no price in {currency} for {', '.join(unpriced)}.",
                extra={"skus": ",".join(unpriced)},
            )
        return found

    def shortage(self, wishes: Iterable[Wish]) -> Rejection | None:
        """409 that names the SKUs of which there is known to be too little. A courtesy, before anybody waits: the
        reservation decides."""
        wanted: dict[str, int] = {}
        fields: dict[str, str] = {}
        for wish in wishes:
            wanted[wish.sku] = wanted.get(wish.sku, 0) + wish.quantity
            fields.setdefault(wish.sku, wish.field)
        short = {
            sku: available
            for sku, quantity in wanted.items()
            if (available := self.available(sku)) is not None and available < quantity and not self._backorder(sku)
        }
        if not short:
            return None
        told = ", ".join(f"{sku} ({available} of {wanted[sku]})" for sku, available in short.items())
        return Rejection(
            type="out-of-stock",
            status=HTTPStatus.CONFLICT,
            field=fields[next(iter(short))],
            detail=f"Not enough in stock: {told}.",
            extra={"skus": ",".join(short), "fields": ",".join(fields[sku] for sku in short)},
        )

    def _backorder(self, sku: str) -> bool:
        product = self._products.get(sku)
        return product is not None and product.backorder

    def learn(self, level: StockLevel) -> None:
        """A level that was told directly: who has just changed it finds it changed. The answer to a repeat is an old
        one, so only a newer version counts; the feed has the last word."""
        known = self._levels.get(level.sku, {}).get(level.pool)
        if known is None or known.version < level.version:
            self._set_level(level)

    def seen(self, message_id: str) -> asyncio.Future[None]:
        """Resolves when this process has read the message with this id."""
        if self._loop is None:
            raise RuntimeError("the catalogue was not started")
        future: asyncio.Future[None] = self._loop.create_future()
        self._awaited[message_id] = future
        future.add_done_callback(lambda _: self._awaited.pop(message_id, None))
        return future

    def _take(self, batch: Sequence[Received]) -> None:
        for received in batch:
            data: Any = None if received.message is None else received.message.data
            if isinstance(data, Product):
                self._products[data.sku] = data
                self._sorted = None
            elif isinstance(data, StockLevel):
                self._set_level(data)
            elif received.topic == PRODUCTS:
                self._products.pop(received.key, None)
                self._sorted = None
            else:
                sku, _, pool = received.key.partition("#")
                self._levels[sku] = {p: level for p, level in self._levels.get(sku, {}).items() if p != pool}
        if self._awaited and self._loop is not None:
            ids = [received.message.id for received in batch if received.message is not None]
            self._loop.call_soon_threadsafe(self._resolve, ids)

    def _set_level(self, level: StockLevel) -> None:
        # A new dictionary each time, so that a reader never sees one change under its hands.
        self._levels[level.sku] = {**self._levels.get(level.sku, {}), level.pool: level}

    def _resolve(self, message_ids: Iterable[str]) -> None:
        for message_id in message_ids:
            future = self._awaited.get(message_id)
            if future is not None and not future.done():
                future.set_result(None)


def quote(product: Product, currency: str) -> Quote:
    return Quote(
        product_id=product.product_id,
        sku=product.sku,
        name=product.name,
        category=product.category,
        tax_category=product.tax_category,
        weight_grams=product.weight_grams,
        unit_price=product.prices[currency],
        hs_code=product.hs_code,
        origin=product.origin,
        backorder=product.backorder,
    )
