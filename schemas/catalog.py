"""Reference data: the catalogue, compacted by SKU."""

from __future__ import annotations

from schemas.base import Family, Message, Minor, Payload

Family("catalog.products", Message)


class Product(Payload, family="catalog.products"):
    """A thing for sale. `prices`: currency → minor units of one unit, before tax."""

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
