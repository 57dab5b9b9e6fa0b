"""The catalogue: read by everybody, written by staff."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query
from starlette.responses import Response

from gateway import cursor as cursors
from gateway.call import AnyCall, Call, StaffCall, reply
from gateway.catalogue import CHANGES, PRODUCTS
from gateway.documents import product_json, stock_json
from gateway.models import ProductBody, Sku, StockBody
from gateway.problems import not_found, rejected, unavailable
from gateway.reference import replace
from schemas.catalog import Product, ProductChanged
from schemas.inventory import AdjustStock
from schemas.replies import StockOutcome

router = APIRouter(prefix="/v1", tags=["catalogue"])

STOCK = "inventory.commands"
POOL = "main"

PathSku = Annotated[Sku, Path()]


@router.get("/products")
async def list_products(
    call: AnyCall,
    limit: Annotated[int, Query(ge=1, le=1000)] = 500,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> Response:
    """What is for sale, by SKU; staff also see what no longer is."""
    _need_catalogue(call)
    after = cursors.decode(cursor, {"path": "/v1/products"}, (str,))[0] if cursor else ""
    found = call.parts.catalogue.page(after, limit + 1, inactive=call.caller.staff)
    following, headers = None, {}
    if len(found) > limit:
        following = cursors.encode([found[limit - 1].sku], {"path": "/v1/products"})
        headers["Link"] = f'</v1/products?{urlencode({"limit": limit, "cursor": following})}>; rel="next"'
    items = [product_json(product, call.parts.catalogue) for product in found[:limit]]
    return reply({"items": items, "next": following}, headers=headers)


@router.put("/admin/products/{sku}")
async def put_product(call: StaffCall, sku: PathSku, body: ProductBody) -> Response:
    """Put a product on sale, or change it; 201 when it is new. Returns when this gateway sells it."""
    catalogue = call.parts.catalogue
    _need_catalogue(call)
    known = catalogue.product(sku)
    product = Product(
        sku=sku,
        product_id=body.product_id or (known.product_id if known else sku),
        name=body.name,
        category=body.category,
        tax_category=body.tax_category,
        weight_grams=body.weight_grams,
        prices={price.currency: price.minor for price in body.prices},
        active=body.active,
        hs_code=body.hs_code,
        origin=body.origin,
        backorder=body.backorder,
    )
    await replace(
        call,
        catalogue,
        sku,
        now=(PRODUCTS, product),
        changed=(CHANGES, ProductChanged(before=known, after=product)),
        sorry="The catalogue could not be changed at the moment.",
    )
    return reply(product_json(product, catalogue), HTTPStatus.OK if known else HTTPStatus.CREATED)


@router.post("/admin/products/{sku}/stock")
async def adjust_stock(call: StaffCall, sku: PathSku, body: StockBody) -> Response:
    """Add units to what is on hand, or take some away; never below zero."""
    _need_catalogue(call)
    if call.parts.catalogue.product(sku) is None:
        raise not_found("There is no such product.")
    data = AdjustStock(sku=sku, pool=POOL, delta=body.delta, reason=body.reason, body_hash=call.body_hash)
    key, command_id = f"{sku}#{POOL}", call.command_id()
    message = call.message(data, command_id, reply_to=call.parts.bus.address)
    patience = call.parts.settings.command_timeout
    outcome = await call.parts.bus.ask(STOCK, key, message, call.body_hash, patience)
    if outcome is None:
        pending = {
            "command_id": command_id,
            "status": "pending",
            "detail": "It will be done; repeat with the same key.",
        }
        return reply(pending, HTTPStatus.ACCEPTED, {"Location": "/v1/products", "Retry-After": "1"})
    if not isinstance(outcome, StockOutcome):
        raise TypeError(f"the reply to a stock adjustment is {type(outcome).__name__}")
    if outcome.rejection is not None:
        raise rejected(outcome.rejection)
    if outcome.level is None:
        raise ValueError("an accepted adjustment has no level")
    call.parts.catalogue.learn(outcome.level)
    return reply(stock_json(outcome.level))


def _need_catalogue(call: Call) -> None:
    if not call.parts.catalogue.loaded:
        raise unavailable("catalogue-loading", "The catalogue is still being loaded.")
