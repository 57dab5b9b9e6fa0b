"""Searching orders: what can be asked for, and pages that neither repeat nor skip an order while others come.

A page is keyset: it goes on after the sort key of the last item. The views keep older versions of an order for a while,
and asking the engine for the newest of each first (FINAL) reads the whole table. So a statement takes as candidates the
first rows that match, older versions too, and then looks at the newest version of each. An order that matches now has
its newest row among the rows that match, so none is missed; a candidate that only matched once, or that belongs
further down now, is left out here and comes, if it does, by its newest row.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from gateway import cursor as cursors
from gateway import times
from gateway.ids import is_uuid
from gateway.models import Time
from gateway.problems import Problem
from processors.order.paying import HOLDS
from schemas.money import CurrencyCode, to_minor
from schemas.order import OrderStatus

Sort = Literal["-created_at", "created_at", "-updated_at", "updated_at", "-total", "total"]
Row = dict[str, Any]
Place = tuple[int, str]
"""Where an order stands in a sort: (its key, its id)."""
Ask = Callable[..., Awaitable[list[Row]]]
"""`Views.rows`: (statement, parameters) → rows."""

SPARE = 20
"""Rows to look at besides those that a page needs: some will be older versions of the same orders."""
MOST_CANDIDATES = 5_000
_MOST = 2**62
"""Minor units that no total reaches."""
_RANGES = (
    ("total_min", "total_max", True),
    ("created_from", "created_to", False),
    ("submitted_from", "submitted_to", False),
    ("updated_from", "updated_to", False),
)
"""(least, most, whether the most is included)"""

Text = Annotated[str, Field(min_length=1, max_length=128)]
Amount = Annotated[str, Field(pattern=r"^\d{1,15}(\.\d{1,4})?$", examples=["100.00"])]


class OrderSearch(BaseModel):
    """The query of a list of orders. Times: RFC 3339 with a time zone; `…_to` is not included."""

    model_config = ConfigDict(extra="forbid")

    id: list[str] = Field(default=[], max_length=100, description="any of these")
    number: Text | None = None
    status: list[OrderStatus] = Field(default=[], description="any of these")
    customer_id: Text | None = Field(default=None, description="staff: one customer's")
    sku: Text | None = None
    product: Annotated[str, Field(min_length=2, max_length=128)] | None = Field(
        default=None, description="a part of a product's name"
    )
    hold: Literal["fraud", "staff", "any"] | None = Field(default=None, description="what holds it")
    promo_code: Text | None = None
    tracking_number: Text | None = None
    country: Annotated[str, Field(pattern="^[A-Z]{2}$")] | None = Field(default=None, description="it is shipped to")
    currency: CurrencyCode | None = None
    total_min: Amount | None = Field(default=None, description="needs `currency`")
    total_max: Amount | None = Field(default=None, description="needs `currency`; included")
    created_from: Time | None = None
    created_to: Time | None = None
    submitted_from: Time | None = None
    submitted_to: Time | None = None
    updated_from: Time | None = None
    updated_to: Time | None = None
    sort: Sort = Field(default="-created_at", description="by total: needs `currency`")
    count: bool = Field(default=False, description="say how many there are in all, as `total`")
    limit: int = Field(default=20, ge=1, le=100)
    cursor: str | None = Field(default=None, max_length=500)

    def asked(self) -> dict[str, Any]:
        """What was asked for as it stands in a URL, without the page; a cursor belongs to it."""
        return self.model_dump(mode="json", exclude={"limit", "cursor", "count"}, exclude_defaults=True)

    def parameters(self) -> dict[str, Any]:
        """What was asked for, for `order_filters.sql`. Problem (422 at its parameter) for what makes no sense."""
        if self.currency is None and (self.total_min or self.total_max or self.sort.endswith("total")):
            raise _bad("currency", "Amounts are compared in one currency: say which.")
        if bad := next((each for each in self.id if not is_uuid(each)), None):
            raise _bad(f"id[{self.id.index(bad)}]", "This is no order's id.")
        asked: dict[str, Any] = {
            "ids": self.id,
            "number": self.number,
            "statuses": [str(status) for status in self.status],
            "customer_id": self.customer_id,
            "sku": self.sku,
            "product": self.product,
            "holds": self._holds(),
            "promo_code": self.promo_code,
            "tracking_number": self.tracking_number,
            "country": self.country,
            "currency": self.currency,
            "total_min": self._minor("total_min"),
            "total_max": self._minor("total_max"),
            "created_from": _micros(self.created_from),
            "created_to": _micros(self.created_to),
            "submitted_from": _micros(self.submitted_from),
            "submitted_to": _micros(self.submitted_to),
            "updated_from": _micros(self.updated_from),
            "updated_to": _micros(self.updated_to),
        }
        for least, most, included in _RANGES:
            begin, end = asked[least], asked[most]
            if begin is not None and end is not None and (begin > end or (begin == end and not included)):
                raise _bad(most, f"must be after `{least}`" if not included else f"must not be less than `{least}`")
        return {name: value for name, value in asked.items() if value not in (None, [])}

    def _holds(self) -> list[str]:
        return [kind for kind in HOLDS if self.hold in (kind, "any")]

    def _minor(self, name: str) -> int | None:
        amount = getattr(self, name)
        if amount is None or self.currency is None:
            return None
        try:
            minor = to_minor(amount, self.currency)
        except ValueError as error:
            raise _bad(name, f"{error}.") from error
        if minor > _MOST:
            raise _bad(name, f"No order costs that much {self.currency}.")
        return minor


class Found(BaseModel):
    """A page: ids of orders as asked for, the cursor of the next one, and how many there are when that was asked."""

    order_ids: list[str]
    following: str | None = None
    total: int | None = None


async def search(ask: Ask, query: OrderSearch, path: str) -> Found:
    """The page that the query asks for. Problem 422 for bad filters and for a cursor of another list."""
    parameters = query.parameters()
    bound = {**query.asked(), "path": path}
    by, down = query.sort.removeprefix("-"), query.sort.startswith("-")
    at: Place = (_MOST if by == "total" else times.EVER, "") if down else (-_MOST if by == "total" else 0, "")
    if query.cursor:
        key, order_id = cursors.decode(query.cursor, bound, (int, str))
        at = key, order_id
    look = _of_everybody if query.customer_id is None else _of_customer
    found = await look(ask, {**parameters, "by": by}, down, at, query.limit + 1)
    page = found[: query.limit]
    following = cursors.encode(list(page[-1]), bound) if len(found) > query.limit else None
    return Found(
        order_ids=[order_id for _, order_id in page],
        following=following,
        total=await _count(ask, query, parameters) if query.count else None,
    )


async def _of_customer(ask: Ask, parameters: dict[str, Any], down: bool, at: Place, wanted: int) -> list[Place]:
    here = {"key": at[0], "order_id": at[1], "down": down, "wanted": wanted}
    return [_place(row) for row in await ask("orders_of_customer", **parameters, **here)]


async def _of_everybody(ask: Ask, parameters: dict[str, Any], down: bool, at: Place, wanted: int) -> list[Place]:
    """At least so many places, unless there are fewer."""
    found: list[Place] = []
    candidates = wanted + SPARE
    while len(found) < wanted:
        here = {"key": at[0], "order_id": at[1], "candidates": candidates}
        rows = await ask("orders_down" if down else "orders_up", **parameters, **here)
        if not rows:
            break
        key, order_id = rows[0]["reached"]
        last = int(key), order_id
        matching = (_place(row) for row in rows if row["matches"])
        found += sorted((each for each in matching if (last <= each < at if down else at < each <= last)), reverse=down)
        if int(rows[0]["looked_at"]) < candidates:
            break
        at, candidates = last, min(4 * candidates, MOST_CANDIDATES)
    return found


def _place(row: Row) -> Place:
    return int(row["key"]), row["order_id"]


async def _count(ask: Ask, query: OrderSearch, parameters: dict[str, Any]) -> int:
    statement = "orders_count" if query.customer_id is None else "orders_of_customer_count"
    (row,) = await ask(statement, **parameters)
    return int(row["orders"])


def _micros(at: datetime | None) -> int | None:
    return None if at is None else times.micros(at)


def _bad(field: str, detail: str) -> Problem:
    return Problem("invalid-request", HTTPStatus.UNPROCESSABLE_ENTITY, detail, field=field)
