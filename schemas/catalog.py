"""Reference data: the catalogue, compacted by SKU, and who changed it."""

from __future__ import annotations

from schemas.base import Family, Message, Minor, Payload

Family("catalog.products", Message)
Family("catalog.events", Message)


class Product(Payload, family="catalog.products"):
    """A thing for sale. `prices`: currency → minor units of one unit. For an order to a country whose prices include
    tax (policy) these include it; elsewhere it comes on top."""

    sku: str
    product_id: str
    name: str
    category: str
    tax_category: str
    weight_grams: int
    prices: dict[str, Minor]
    active: bool = True
    hs_code: str | None = None
    origin: str | None = None
    backorder: bool = False


class ProductChanged(Payload, family="catalog.events"):
    """Staff put a product on sale, or changed it. `before`: as the gateway that was asked knew it; None: it is new."""

    before: Product | None = None
    after: Product
