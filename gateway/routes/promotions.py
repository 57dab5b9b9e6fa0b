"""Promotions: staff defines them, and sees how much of them is used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from http import HTTPStatus
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query
from pydantic import Field
from starlette.responses import Response

from gateway import cursor as cursors
from gateway.call import StaffCall, reply
from gateway.documents import instant
from gateway.models import Amount, Body, Name, PromoCode, Sku, Time
from gateway.problems import Problem, not_found, rejected
from schemas.money import Money, to_text
from schemas.order import PromotionTerms
from schemas.promotion import PromotionLevel, PutPromotion
from schemas.replies import PromotionOutcome

router = APIRouter(prefix="/v1/admin/promotions", tags=["promotions"])

COMMANDS = "promotion.commands"
PATH = "/v1/admin/promotions"


Code = Annotated[PromoCode, Path()]
Count = Annotated[int, Field(ge=1, le=1_000_000_000)]
Units = Annotated[int, Field(ge=1, le=1000)]


class PromotionBody(Body):
    """`percent` belongs to kind percentage, `amounts` to fixed, `buy` and `get` to buy_x_get_y. Without SKUs and
    categories everything fits."""

    kind: Literal["percentage", "fixed", "free_shipping", "buy_x_get_y"]
    percent: Annotated[Decimal, Field(strict=False, gt=0, le=100, decimal_places=4)] | None = None
    amounts: Annotated[list[Amount], Field(max_length=200, description="what is taken off, one a currency")] = []
    buy: Units | None = None
    get: Annotated[Units | None, Field(description="of each `buy` + `get` units these are free")] = None
    minimum_subtotal: Annotated[list[Amount], Field(max_length=200, description="one a currency")] = []
    # Every order that uses it carries its terms along, so these lists have bounds.
    skus: Annotated[list[Sku], Field(max_length=200)] = []
    categories: Annotated[list[Name], Field(max_length=50)] = []
    valid_from: Time | None = None
    valid_until: Annotated[Time | None, Field(description="it is over at this time")] = None
    exclusive: Annotated[bool, Field(description="with no other promotion")] = False
    limit: Annotated[Count | None, Field(description="uses in all")] = None
    limit_per_customer: Count | None = None
    active: bool = True


_OF_KIND = {"percentage": ("percent",), "fixed": ("amounts",), "buy_x_get_y": ("buy", "get"), "free_shipping": ()}


@router.put("/{code}")
async def put_promotion(call: StaffCall, code: Code, body: PromotionBody) -> Response:
    """Define a promotion, or change it; 201 when it is new. Orders keep the terms that they were placed with, and a
    limit below what is used refuses new uses only. Codes are upper-case."""
    if wrong := list(_mistakes(body)):
        field, detail = wrong[0]
        raise Problem("invalid-request", HTTPStatus.UNPROCESSABLE_ENTITY, f"{field}: {detail}", errors=wrong)
    data = PutPromotion(
        terms=_terms(code, body),
        limit=body.limit,
        limit_per_customer=body.limit_per_customer,
        body_hash=call.body_hash,
    )
    command_id = call.command_id()
    patience = call.parts.settings.command_timeout
    message = call.message(data, command_id, reply_to=call.parts.bus.address)
    outcome = await call.parts.bus.ask(COMMANDS, code, message, call.body_hash, patience)
    if outcome is None:
        pending = {
            "command_id": command_id,
            "status": "pending",
            "detail": "It will be done; repeat with the same key.",
        }
        return reply(pending, HTTPStatus.ACCEPTED, {"Location": f"{PATH}/{code}", "Retry-After": "1"})
    if not isinstance(outcome, PromotionOutcome):
        raise TypeError(f"the reply to a change of a promotion is {type(outcome).__name__}")
    if outcome.rejection is not None:
        raise rejected(outcome.rejection)
    if outcome.level is None:
        raise ValueError("an accepted promotion has no level")
    call.parts.promotions.learn(outcome.level)
    new = outcome.level.terms.version == 1
    return reply(promotion_json(outcome.level), HTTPStatus.CREATED if new else HTTPStatus.OK)


@router.get("")
async def list_promotions(
    call: StaffCall,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=500)] = None,
) -> Response:
    """All promotions, by code, inactive ones too."""
    call.parts.promotions.need()
    after = cursors.decode(cursor, {"path": PATH}, (str,))[0] if cursor else ""
    found = call.parts.promotions.page(after, limit + 1)
    following, headers = None, {}
    if len(found) > limit:
        following = cursors.encode([found[limit - 1].terms.code], {"path": PATH})
        headers["Link"] = f'<{PATH}?{urlencode({"limit": limit, "cursor": following})}>; rel="next"'
    return reply({"items": [promotion_json(level) for level in found[:limit]], "next": following}, headers=headers)


@router.get("/{code}")
async def get_promotion(call: StaffCall, code: Code) -> Response:
    """One promotion, and how much of it is `used`."""
    call.parts.promotions.need()
    level = call.parts.promotions.level(code)
    if level is None:
        raise not_found("There is no such promotion.")
    return reply(promotion_json(level))


def promotion_json(level: PromotionLevel) -> dict[str, Any]:
    """A promotion for staff. `used`: how many orders hold it."""
    terms = level.terms
    return {
        "code": terms.code,
        "kind": terms.kind,
        "percent": terms.percent if terms.kind == "percentage" else None,
        "amounts": _moneys(terms.amounts),
        "buy": terms.buy or None,
        "get": terms.get or None,
        "minimum_subtotal": _moneys(terms.minimum_subtotal),
        "skus": terms.skus,
        "categories": terms.categories,
        "valid_from": terms.valid_from and instant(terms.valid_from),
        "valid_until": terms.valid_until and instant(terms.valid_until),
        "exclusive": terms.exclusive,
        "limit": level.limit,
        "limit_per_customer": level.limit_per_customer,
        "active": terms.active,
        "used": level.used,
        "version": terms.version,
    }


def _mistakes(body: PromotionBody) -> Iterable[tuple[str, str]]:
    """(field, what is wrong): what one field alone can't say."""
    needed = _OF_KIND[body.kind]
    for kind, fields in _OF_KIND.items():
        for field in fields:
            given = bool(getattr(body, field))
            if given and field not in needed:
                yield field, f"belongs to kind {kind}, not to {body.kind}"
            elif not given and field in needed:
                yield field, f"is needed for kind {body.kind}"
    for i, amount in enumerate(body.amounts):
        if amount.minor == 0:
            yield f"amounts[{i}]", "must be more than nothing"
    for field in ("amounts", "minimum_subtotal"):
        currencies = [money.currency for money in getattr(body, field)]
        if len(set(currencies)) != len(currencies):
            yield field, "must have one amount a currency"
    if body.valid_from is not None and body.valid_until is not None and body.valid_from >= body.valid_until:
        yield "valid_until", "must be after valid_from"


def _terms(code: str, body: PromotionBody) -> PromotionTerms:
    return PromotionTerms(
        code=code,
        kind=body.kind,
        percent="0" if body.percent is None else f"{body.percent.normalize():f}",
        amounts=_minors(body.amounts),
        buy=body.buy or 0,
        get=body.get or 0,
        minimum_subtotal=_minors(body.minimum_subtotal),
        skus=tuple(dict.fromkeys(body.skus)),
        categories=tuple(dict.fromkeys(body.categories)),
        valid_from=body.valid_from,
        valid_until=body.valid_until,
        exclusive=body.exclusive,
        active=body.active,
    )


def _minors(moneys: Iterable[Money]) -> dict[str, int]:
    return {money.currency: money.minor for money in moneys}


def _moneys(minors: Mapping[str, int]) -> list[dict[str, str]]:
    return [{"amount": to_text(minor, currency), "currency": currency} for currency, minor in minors.items()]
