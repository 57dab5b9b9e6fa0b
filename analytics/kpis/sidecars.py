"""What a KPI means: the sidecar `NAME.yaml` beside `NAME.sql`."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

ORDER = (
    "completion",
    "processing_time",
    "satisfaction",
    "cart_abandonment",
    "return_rate",
    "orders_created",
    "average_order_value",
    "revenue",
    "units_per_order",
    "cancellations_by_reason",
    "returns_by_reason",
    "refunds_by_reason",
    "payment_acceptance",
    "payment_retries",
    "on_time_delivery",
    "stock_outs",
    "stuck_orders",
    "active_orders",
    "funnel",
    "time_in_status",
    "saga_durations",
    "discounts",
    "promotion_use",
    "product_sales",
)
"""How a report lists them."""

DIMENSIONS = {
    "category": "of the product",
    "code": "the provider's reason for declining; '' when it accepted",
    "condition": "of what came back; '' until it was inspected",
    "country": "of the shipping address; '' without one",
    "currency": "of the order",
    "pool": "of stock",
    "purpose": "of the payment: order, edit or renewal (of an authorization)",
    "region": "country and state of the shipping address, as in US-CA",
    "shipping_method": "'' while none is chosen",
    "sku": "of the product",
    "status": "of the return, now",
}
"""What KPIs can be grouped by."""

Unit = Literal["text", "count", "ratio", "seconds", "points", "number", "money"]
Verdict = Literal["met", "missed", "open"]
"""Of a figure about its target: `open` while what is not decided yet could still turn it."""


class _Sidecar(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Line(_Sidecar):
    """How the report shows a row: `value` is a column, `label` and `note` name columns in braces."""

    value: str
    label: str = ""
    note: str = ""


class Cohort(_Sidecar):
    """Columns with the orders behind a rate: `part` of the `whole`, and those `open`, which are of the whole and may
    all still come to the part, or none of them."""

    part: str
    whole: str
    open: str

    def ends(self, row: Mapping[str, Any]) -> tuple[float, ...]:
        """The least and the most that the rate can come to (0 to 1); nothing of no orders."""
        part, whole = row[self.part], row[self.whole]
        return (part / whole, (part + row[self.open]) / whole) if whole else ()


class Target(_Sidecar):
    """What the business wants of a column: more than `over` or less than `under`. Without a `cohort` its figure is
    judged as it is."""

    column: str
    over: float | None = None
    under: float | None = None
    cohort: Cohort | None = None

    @model_validator(mode="after")
    def _has_one_bound(self) -> Self:
        if (self.over is None) == (self.under is None):
            raise ValueError("a target is either over or under something")
        return self

    @property
    def bound(self) -> float:
        return self.under if self.over is None else self.over  # type: ignore[return-value]

    def verdict(self, row: Mapping[str, Any]) -> Verdict | None:
        """Of a row of the KPI; None when there is nothing to judge."""
        value = row[self.column]
        ends = self.cohort.ends(row) if self.cohort else () if value is None else (value,)
        if not ends:
            return None
        met = [end > self.bound if self.over is not None else end < self.bound for end in ends]
        return "met" if all(met) else "open" if any(met) else "missed"


class Kpi(_Sidecar):
    """`unit` is the headline's; `columns` says how each column is to be read: ratio 0 to 1, points 1 to 5, money in the
    `currency` of its row. Columns of text tell apart the rows of one period and group."""

    name: str
    title: str
    question: str = Field(description="the owner's, that it answers")
    meaning: str
    counts: str = Field(description="what is counted, and which of its times must lie in the period")
    grain: str
    unit: str
    made_of: str = Field(description="the table in `oms`")
    dimensions: tuple[str, ...] = Field(default=(), description="what it can be grouped by")
    target: Target | None = None
    columns: dict[str, Unit]
    headline: tuple[Line, ...] = Field(default=(), description="how the report shows it; none: only by its name")
    sql: str

    @property
    def keys(self) -> tuple[str, ...]:
        """The columns that tell rows of one period and group apart."""
        return tuple(name for name, unit in self.columns.items() if unit == "text")


@cache
def load() -> dict[str, Kpi]:
    """All KPIs by name, in the order in which a report lists them."""
    return {name: _read(name) for name in ORDER}


def _read(name: str) -> Kpi:
    folder = files(__package__)
    sidecar: dict[str, Any] = yaml.safe_load((folder / f"{name}.yaml").read_text())
    return Kpi(name=name, sql=(folder / f"{name}.sql").read_text(), **sidecar)
