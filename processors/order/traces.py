"""What a change leaves behind in the order: since when it has its status, when its payments, refunds and returns began
and ended, and which lines it no longer has. What each event means is in `evolve`; this is the same for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from schemas.base import Instant
from schemas.order import Order, Payment, Refund, RemovedLine, Return, Stay

Instants: TypeAdapter[Instant] = TypeAdapter(Instant)

UNANSWERED = ("requested", "superseded")
"""Statuses of a payment of which the provider has said nothing: that of one whose place another took may still come."""


def left_by(order: Order, update: Mapping[str, Any], at: Instant) -> dict[str, Any]:
    """Fields for the order besides those of `update`; `at` is the time of the event."""
    traces: dict[str, Any] = {}
    status = update.get("status", order.status)
    if status != order.status:
        traces["history"] = (*order.history, Stay(status=status, since=at))
    if "lines" in update:
        left = {line.line_id for line in update["lines"]}
        gone = tuple(RemovedLine(line_id=x.line_id, sku=x.sku) for x in order.lines if x.line_id not in left)
        if gone:
            traces["removed"] = (*order.removed, *gone)
    if "payments" in update:
        known = {p.attempt_id: p for p in order.payments}
        traces["payments"] = tuple(_payment(known.get(p.attempt_id), p, at) for p in update["payments"])
    if "refunds" in update:
        before = {r.refund_id: r for r in order.refunds}
        traces["refunds"] = tuple(_refund(before.get(r.refund_id), r, at) for r in update["refunds"])
    if "returns" in update:
        open_ones = {r.rma for r in order.returns if r.open}
        traces["returns"] = tuple(_return(r, at) if r.rma in open_ones else r for r in update["returns"])
    return traces


def _payment(before: Payment | None, after: Payment, at: Instant) -> Payment:
    if before is None:
        return after.model_copy(update={"requested_at": at})
    if before.status in UNANSWERED and after.status not in UNANSWERED:
        return after.model_copy(update={"settled_at": at})
    return after


def _refund(before: Refund | None, after: Refund, at: Instant) -> Refund:
    if before is None:
        return after.model_copy(update={"initiated_at": at})
    if after.given and not before.given:
        return after.model_copy(update={"completed_at": at})
    return after


def _return(after: Return, at: Instant) -> Return:
    return after if after.open else after.model_copy(update={"ended_at": at})


def with_history(value: dict[str, Any]) -> dict[str, Any]:
    """An order as it lay in state before it had a history (shape 2), with what can be told of it: the statuses whose
    time it kept. Those in between are missing."""
    kept = [
        ("DRAFT", value["created_at"]),
        ("PENDING_PAYMENT", value.get("submitted_at")),
        ("DELIVERED", value.get("delivered_at")),
        (value["status"], value.get("status_since")),
    ]
    stays = {status: {"status": status, "since": since} for status, since in kept if since is not None}
    return {**value, "history": sorted(stays.values(), key=lambda stay: Instants.validate_python(stay["since"]))}
