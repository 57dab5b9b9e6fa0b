"""What has happened in the simulated shop so far."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    DELIVERED = "delivered"
    REFUNDED = "refunded"  # delivered, sent back, and all the money given back
    CANCELLED = "cancelled"
    PAID = "paid"  # where nobody wanted to know more
    DRAFT = "left as a draft"
    REFUSED = "refused"  # by a rule: there never was an order, or it stayed a draft
    UNFINISHED = "unfinished"  # accepted, and without an end when we lost patience
    FAILED = "failed"  # an answer that no rule explains


PLACED = frozenset(Outcome) - {Outcome.DRAFT, Outcome.REFUSED}


@dataclass
class Tally:
    """Latencies in seconds: `create` of the first POST, `read` of GET by id, `paid` from creation to PAYMENT_CONFIRMED
    seen through GET, of orders that are submitted at once with an ordinary card, `delivered` from payment to delivery
    (as the orders say) of parcels that nothing befell."""

    started: float = field(default_factory=time.perf_counter)
    last_end: float = field(default_factory=time.perf_counter)
    visits: int = 0
    orders: dict[str, Outcome | None] = field(default_factory=dict)
    """Every order accepted, by id, and its end (None: still open)."""
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    """Of the visits."""
    reason_of: dict[str, str] = field(default_factory=dict)
    """Why an order was cancelled."""
    refusals: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    """What customers and staff did, besides: "edit: add_item", "return approved", "survey answered" …"""
    stages: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Stage → the orders that were seen to have come so far."""
    scores: list[int] = field(default_factory=list)
    retries: int = 0
    failures: list[str] = field(default_factory=list)
    create: list[float] = field(default_factory=list)
    read: list[float] = field(default_factory=list)
    paid: list[float] = field(default_factory=list)
    finished: int = 0
    """How many of the orders have an end."""

    placed_after: float = 0.0
    """Seconds from the start to the last order's creation."""

    @property
    def placed_per_second(self) -> float:
        return len(self.orders) / self.placed_after if self.placed_after else 0.0

    @property
    def open(self) -> int:
        return len(self.orders) - self.finished

    def seconds(self) -> float:
        return time.perf_counter() - self.started

    @property
    def ended_after(self) -> float:
        """Seconds from the start to the last order's end."""
        return self.last_end - self.started

    @property
    def reasons(self) -> Counter[str]:
        return Counter(self.reason_of.values())

    def reached(self, stage: str) -> int:
        return len(self.stages[stage])

    def created(self, order: Mapping[str, Any]) -> None:
        self.orders.setdefault(order["id"], None)
        self.placed_after = self.seconds()
        self.notice(order)

    def notice(self, order: Mapping[str, Any]) -> None:
        """What an order shows of its life."""
        if order["id"] not in self.orders:
            return
        for stage in stages(order):
            self.stages[stage].add(order["id"])
        if order["cancellation"] is not None:
            self.reason_of[order["id"]] = order["cancellation"]["reason"]

    def end(self, order_id: str, outcome: Outcome) -> None:
        """An order has come to its end."""
        if self.orders.get(order_id) is None:
            self.finished += 1
        self.orders[order_id] = outcome
        self.outcomes[outcome] += 1
        self.last_end = time.perf_counter()


def stages(order: Mapping[str, Any]) -> set[str]:
    """How far an order (as the gateway shows it) has come, and what befell it."""
    shipments = order["shipments"]
    sent = [shipment for shipment in shipments if shipment["shipped_at"]]
    found = {
        "submitted": order["submitted_at"] is not None,
        "paid": order["modifiable_until"] is not None,
        "held": bool(order["holds"]),
        "shipped": bool(sent),
        "split": len([shipment for shipment in sent if shipment["status"] not in ("lost", "returned")]) > 1,
        "delivery failed": any(shipment["delivery_attempts"] for shipment in shipments),
        "lost": any(shipment["status"] == "lost" for shipment in shipments),
        "came back": any(shipment["status"] == "returned" for shipment in shipments),
        "partly cancelled": order["status"] != "CANCELLED"
        and any(item["quantities"]["cancelled"] for item in order["items"]),
        "delivered": order["delivered_at"] is not None,
        "return asked": bool(order["returns"]),
        "money back": any(refund["status"] == "completed" for refund in order["refunds"]),
        "with promotion": bool(order["promotions"]),
    }
    return {stage for stage, reached in found.items() if reached}


def percentile(values: Sequence[float], percent: float) -> float:
    """Nearest rank: the smallest value that `percent` % of all are not above. nan when there are none."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]
