"""Every KPI once more, in plain Python over the orders and the stock ledger: what the queries must come to. It shares
nothing with the views but the names of the figures.

    figures = Fold(orders, movements, now).rows("completion", {"grain": "day", "tz": "Asia/Tokyo"})
    assert by_key("completion", kpis.run(client, "completion", …)) == by_key("completion", figures)
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from itertools import groupby, pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from analytics import kpis
from schemas.base import Message
from schemas.inventory import StockMoved
from schemas.money import digits
from schemas.order import Order

DAY = timedelta(days=1)
ACTIVE = ("PENDING_PAYMENT", "PAYMENT_CONFIRMED", "PROCESSING", "SHIPPED")


@dataclass
class Fact:
    """Something that counts: when, what it can be grouped by, which row it belongs to, and its figures."""

    at: datetime | None
    of: Mapping[str, str]
    key: tuple[str, ...] = ()
    figures: Any = None


Figures = dict[str, Any]
Sum = Callable[[list[Any]], Figures]
"""The figures of the facts of one row → its columns, without the keys."""


class Fold:
    def __init__(self, orders: Iterable[Order], movements: Iterable[Message[StockMoved]], now: datetime) -> None:
        """`orders`: each as it is now. `movements`: in any order, repeated ones too."""
        self.orders = list(orders)
        self.movements = {(m.data.sku, m.data.pool, m.data.version): m for m in movements}
        self.now = now

    def rows(self, name: str, params: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """As `kpis.run` gives them, in no particular order."""
        params = params or {}
        grain, group_by, tz = params.get("grain"), params.get("group_by"), ZoneInfo(params.get("tz", "UTC"))
        since, until = params.get("from", kpis.EARLIEST), params.get("to", kpis.LATEST)
        facts, summed = KPIS[name]
        found: dict[tuple[Any, ...], list[Any]] = defaultdict(list)
        for fact in facts(self, tz):
            if fact.at is not None and since <= fact.at < until:
                at = period(fact.at, grain, tz) if grain else None
                found[at, fact.of[group_by] if group_by else None, *fact.key].append(fact.figures)
        keys = kpis.load()[name].keys
        rows = []
        for (at, group, *key), figures in found.items():
            beginning = {**({"at": at} if grain else {}), **({group_by: group} if group_by else {})}
            for more in _each(summed(figures)):
                rows.append({**beginning, **dict(zip(keys, key, strict=False)), **more})
        _shares(name, rows, group_by)
        if not rows and not grain and not group_by and not keys:
            rows.append({c: 0 if unit == "count" else None for c, unit in kpis.load()[name].columns.items()})
        return rows


def by_key(name: str, rows: Iterable[Mapping[str, Any]]) -> dict[tuple[Any, ...], Any]:
    """Rows to be compared: by period, group and key; floats nearly."""
    columns = kpis.load()[name].columns
    found = {}
    for row in rows:
        figures = {c: row[c] for c, unit in columns.items() if unit != "text"}
        key = tuple(value for c, value in row.items() if columns.get(c, "text") == "text")
        assert key not in found, f"two rows of {name} are {key}"
        found[key] = {c: pytest.approx(v, rel=1e-9) if isinstance(v, float) else v for c, v in figures.items()}
    return found


def period(at: datetime, grain: str, tz: ZoneInfo) -> str:
    local = at.astimezone(tz)
    if grain == "hour":
        start = at - timedelta(minutes=local.minute, seconds=local.second, microseconds=local.microsecond)
        return start.astimezone(tz).isoformat()
    day = local.date() - timedelta(days=local.weekday() if grain == "week" else 0)
    return datetime(day.year, day.month, day.day, tzinfo=tz).isoformat()


def quantile(numbers: Sequence[float], share: float) -> float:
    """Between two numbers as far as the share is between their ranks."""
    ordered = sorted(numbers)
    rank = (len(ordered) - 1) * share
    low, high = ordered[math.floor(rank)], ordered[math.ceil(rank)]
    return low + (high - low) * (rank - math.floor(rank))


# Facts


def dims(order: Order) -> dict[str, str]:
    address = order.shipping_address
    country, state = (address.country, address.state or "") if address else ("", "")
    return {
        "currency": order.currency,
        "country": country,
        "region": f"{country}-{state}" if state else country,
        "shipping_method": order.shipping_method or "",
    }


def reached(order: Order, status: str) -> datetime | None:
    return min((stay.since for stay in order.history if stay.status == status), default=None)


def _by(at: Callable[[Order], datetime | None]) -> Callable[[Fold, ZoneInfo], Iterator[Fact]]:
    """A fact an order, at one of its times."""
    return lambda fold, _: (Fact(at(order), dims(order), figures=order) for order in fold.orders)


def _by_currency(at: Callable[[Order], datetime | None]) -> Callable[[Fold, ZoneInfo], Iterator[Fact]]:
    return lambda fold, _: (Fact(at(o), dims(o), (o.currency,), o) for o in fold.orders)


def submitted(order: Order) -> datetime | None:
    return order.submitted_at


def created(order: Order) -> datetime:
    return order.created_at


def paid(order: Order) -> datetime | None:
    return reached(order, "PAYMENT_CONFIRMED")


def delivered(order: Order) -> datetime | None:
    return reached(order, "DELIVERED")


def _carts(fold: Fold, _: ZoneInfo) -> Iterator[Fact]:
    for order in fold.orders:
        deadline = order.created_at + DAY
        fate = "undecided"
        if order.submitted_at and order.submitted_at <= deadline:
            fate = "submitted"
        elif order.status != "DRAFT" or deadline < fold.now:
            fate = "abandoned"
        yield Fact(order.created_at, dims(order), figures=fate)


def _cancelled(fold: Fold, _: ZoneInfo) -> Iterator[Fact]:
    for order in fold.orders:
        if order.cancellation:
            yield Fact(reached(order, "CANCELLED"), dims(order), (order.cancellation.reason,), order)


def _return_lines(fold: Fold, _: ZoneInfo) -> Iterator[Fact]:
    for order in fold.orders:
        for returned in order.returns:
            for item in returned.items:
                of = {
                    "currency": order.currency,
                    "sku": item.sku,
                    "status": returned.status,
                    "condition": item.condition or "",
                }
                yield Fact(returned.requested_at, of, (item.reason,), (returned.rma, item))


def _refunds(fold: Fold, _: ZoneInfo) -> Iterator[Fact]:
    for order in fold.orders:
        for refund in order.refunds:
            if refund.status == "completed":
                yield Fact(refund.completed_at, {}, (order.currency, refund.reason), (order, refund))


def _attempts(fold: Fold, _: ZoneInfo) -> Iterator[Fact]:
    for order in fold.orders:
        for payment in order.payments:
            if payment.status not in ("requested", "superseded"):
                of = {**dims(order), "purpose": payment.purpose, "code": payment.code or ""}
                yield Fact(payment.settled_at, of, figures=payment)


def _promised(fold: Fold, tz: ZoneInfo) -> Iterator[Fact]:
    for order in fold.orders:
        at = delivered(order)
        if at is not None and order.promised_delivery:
            days = (at.astimezone(tz).date() - date.fromisoformat(order.promised_delivery)).days
            yield Fact(at, dims(order), figures=days)


def _stock_outs(fold: Fold, _: ZoneInfo) -> Iterator[Fact]:
    for (sku, pool), versions in groupby(sorted(fold.movements), lambda key: key[:2]):
        was_out, began = True, None
        for version in versions:
            movement = fold.movements[version]
            is_out = movement.data.on_hand <= 0
            if is_out and not was_out:
                began = movement.at
            elif was_out and not is_out and began is not None:
                yield Fact(began, {"sku": sku, "pool": pool}, figures=(sku, (movement.at - began).total_seconds()))
                began = None
            was_out = is_out
        if began is not None:
            yield Fact(began, {"sku": sku, "pool": pool}, figures=(sku, (fold.now - began).total_seconds()))


def _stuck(fold: Fold, _: ZoneInfo) -> Iterator[Fact]:
    for order in fold.orders:
        if order.stuck:
            waited = fold.now - order.history[-1].since
            yield Fact(order.created_at, dims(order), (order.stuck,), waited.total_seconds())


def _active(fold: Fold, _: ZoneInfo) -> Iterator[Fact]:
    return (Fact(o.created_at, dims(o), (o.status,), o) for o in fold.orders if o.status in ACTIVE)


def _stays(fold: Fold, _: ZoneInfo) -> Iterator[Fact]:
    for order in fold.orders:
        times: dict[str, tuple[datetime, float]] = {}
        for stay, following in pairwise(order.history):
            before = times.get(stay.status, (following.since, 0.0))[1]
            times[stay.status] = following.since, before + (following.since - stay.since).total_seconds()
        for status, (left, seconds) in times.items():
            if status != order.status:
                yield Fact(left, dims(order), (status,), seconds)


def _sagas(fold: Fold, _: ZoneInfo) -> Iterator[Fact]:
    for order in fold.orders:
        steps = {
            "placement": (order.submitted_at, paid(order)),
            "shipping": (paid(order), reached(order, "SHIPPED")),
            "delivery": (paid(order), delivered(order)),
        }
        for saga, (since, until) in steps.items():
            if since and until:
                yield Fact(until, {}, (saga,), (until - since).total_seconds())
        for back in order.returns:
            if back.status == "closed" and back.ended_at:
                yield Fact(back.ended_at, {}, ("return",), (back.ended_at - back.requested_at).total_seconds())


def _promotions(fold: Fold, _: ZoneInfo) -> Iterator[Fact]:
    for order in fold.orders:
        for code in [applied.terms.code for applied in order.promotions] or order.promo_codes:
            yield Fact(paid(order), dims(order), (code, order.currency), order)


def _lines(fold: Fold, _: ZoneInfo) -> Iterator[Fact]:
    for order in fold.orders:
        for line in order.lines:
            of = {**dims(order), "sku": line.sku, "category": line.category}
            yield Fact(paid(order), of, (order.currency,), (order, line))


# Sums


def _completion(orders: list[Order]) -> Figures:
    counts = {
        "submitted": len(orders),
        "paid": sum(paid(o) is not None for o in orders),
        "delivered": sum(delivered(o) is not None for o in orders),
        "cancelled": sum(o.status == "CANCELLED" for o in orders),
    }
    return {
        **counts,
        "under_way": counts["submitted"] - counts["delivered"] - counts["cancelled"],
        "paid_rate": counts["paid"] / len(orders),
        "delivered_rate": counts["delivered"] / len(orders),
    }


def _processing(orders: list[Order]) -> Figures:
    spans = [_seconds(o.submitted_at, delivered(o)) for o in orders]
    return {**_spread(spans), "within_three_days": sum(s < 3 * 86_400 for s in spans) / len(spans)}


def _satisfaction(orders: list[Order]) -> Figures:
    scores = [o.survey.score for o in orders if o.survey]
    return {
        "delivered": len(orders),
        "answers": len(scores),
        "score": _mean(scores),
        "answer_rate": len(scores) / len(orders),
        "unhappy_rate": _rate(sum(s <= 2 for s in scores), len(scores)),
    }


def _abandonment(fates: list[str]) -> Figures:
    gone, open_ones = fates.count("abandoned"), fates.count("undecided")
    return {
        "created": len(fates),
        "submitted": fates.count("submitted"),
        "abandoned": gone,
        "decided": len(fates) - open_ones,
        "undecided": open_ones,
        "abandonment_rate": _rate(gone, len(fates) - open_ones),
    }


def _return_rate(orders: list[Order]) -> Figures:
    came = sum(line.quantity - line.cancelled for o in orders for line in o.lines)
    back = sum(line.returned for o in orders for line in o.lines)
    asked = sum(bool(o.returns) for o in orders)
    return {
        "delivered": len(orders),
        "with_return": asked,
        "returns": sum(len(o.returns) for o in orders),
        "units": came,
        "returned_units": back,
        "return_rate": asked / len(orders),
        "unit_return_rate": _rate(back, came),
    }


def _value(orders: list[Order]) -> Figures:
    totals = sorted(o.totals.total for o in orders)
    money = _money(orders[0].currency)
    return {
        "orders": len(orders),
        "revenue": money(sum(totals)),
        "average_order_value": money(round(sum(totals) / len(totals))),
        "median_order_value": money(totals[len(totals) // 2]),
    }


def _revenue(orders: list[Order]) -> Figures:
    taken = sum(o.captured for o in orders)
    back = sum(r.amount for o in orders for r in o.refunds if r.given)
    money = _money(orders[0].currency)
    return {"orders": len(orders), "captured": money(taken), "refunded": money(back), "net": money(taken - back)}


def _units(orders: list[Order]) -> Figures:
    units = sum(line.quantity for o in orders for line in o.lines)
    return {
        "orders": len(orders),
        "units": units,
        "units_per_order": units / len(orders),
        "products_per_order": _mean([len({line.sku for line in o.lines}) for o in orders]),
    }


def _cancellations(orders: list[Order]) -> Figures:
    return {"orders": len(orders), "after_payment": sum(paid(o) is not None for o in orders)}


def _returns(found: list[Any]) -> Figures:
    return {
        "returns": len({rma for rma, _ in found}),
        "units": sum(item.quantity for _, item in found),
        "exchanged": sum(item.quantity for _, item in found if item.exchange),
    }


def _refunded(found: list[Any]) -> Figures:
    spans = [_seconds(refund.initiated_at, refund.completed_at) for _, refund in found]
    refunded = _money(found[0][0].currency)(sum(refund.amount for _, refund in found))
    return {"refunds": len(found), "refunded": refunded, "mean_duration": _mean(spans)}


def _acceptance(payments: list[Any]) -> Figures:
    declined = sum(p.status == "declined" for p in payments)
    spans = _spread([_seconds(p.requested_at, p.settled_at) for p in payments])
    return {
        "attempts": len(payments),
        "accepted": len(payments) - declined,
        "declined": declined,
        "acceptance_rate": 1 - declined / len(payments),
        "p50": spans["p50"],
        "p95": spans["p95"],
    }


def _retries(orders: list[Order]) -> Figures | None:
    asked = {o.order_id: [p for p in o.payments if p.purpose == "order"] for o in orders}
    orders = [o for o in orders if asked[o.order_id]]
    if not orders:
        return None
    # After a decline the customer tries again; whoever asks after anything else (a release) only asks afresh.
    tries = {key: 1 + sum(p.status == "declined" for p in found[:-1]) for key, found in asked.items()}
    again = [o for o in orders if tries[o.order_id] > 1]
    at_once = sum(paid(o) is not None and o not in again for o in orders)
    in_the_end = sum(paid(o) is not None for o in again)
    attempts = sum(tries[o.order_id] for o in orders)
    return {
        "orders": len(orders),
        "attempts": attempts,
        "paid_at_once": at_once,
        "retried": len(again),
        "paid_by_retry": in_the_end,
        "lost": sum(paid(o) is None and any(p.status == "declined" for p in asked[o.order_id]) for o in orders),
        "paid_at_once_rate": at_once / len(orders),
        "retry_success_rate": _rate(in_the_end, len(again)),
        "attempts_per_order": attempts / len(orders),
    }


def _punctual(days: list[int]) -> Figures:
    late = [d for d in days if d > 0]
    return {
        "orders": len(days),
        "on_time": len(days) - len(late),
        "late": len(late),
        "on_time_rate": 1 - len(late) / len(days),
        "mean_days_late": _mean(late),
    }


def _outs(found: list[tuple[str, float]]) -> Figures:
    spans = [seconds for _, seconds in found]
    return {
        "stock_outs": len(found),
        "products": len({sku for sku, _ in found}),
        "mean_duration": _mean(spans),
        "longest": max(spans),
    }


def _funnel(orders: list[Order]) -> list[Figures]:
    came = {
        "created": len(orders),
        "submitted": sum(o.submitted_at is not None for o in orders),
        "paid": sum(paid(o) is not None for o in orders),
        "processing": sum(reached(o, "PROCESSING") is not None for o in orders),
        "shipped": sum(reached(o, "SHIPPED") is not None for o in orders),
        "delivered": sum(delivered(o) is not None for o in orders),
    }
    before = [len(orders), *came.values()]
    return [
        {"stage": stage, "orders": n, "of_created": n / len(orders), "of_stage_before": _rate(n, earlier)}
        for (stage, n), earlier in zip(came.items(), before, strict=False)
    ]


def _discounts(orders: list[Order]) -> Figures:
    goods, off = sum(o.totals.subtotal for o in orders), sum(o.totals.discount for o in orders)
    using = sum(bool(o.promotions or o.promo_codes) for o in orders)
    money = _money(orders[0].currency)
    return {
        "orders": len(orders),
        "with_promotion": using,
        "promotion_rate": using / len(orders),
        "subtotal": money(goods),
        "discount": money(off),
        "discount_rate": _rate(off, goods),
    }


def _promotion_use(orders: list[Order]) -> Figures:
    money = _money(orders[0].currency)
    return {
        "orders": len(orders),
        "customers": len({o.customer_id for o in orders}),
        "revenue": money(sum(o.totals.total for o in orders)),
        "discount": money(sum(o.totals.discount for o in orders)),
    }


def _sales(found: list[Any]) -> Figures:
    return {
        "lines": len(found),
        "units": sum(line.quantity for _, line in found),
        "cancelled_units": sum(
            line.quantity - line.delivered if o.status == "CANCELLED" else line.cancelled for o, line in found
        ),
        "returned_units": sum(line.returned for _, line in found),
        "revenue": _money(found[0][0].currency)(sum(x.line_total - x.discount + x.tax for _, x in found)),
    }


def _spread(seconds: list[float]) -> Figures:
    return {
        "orders": len(seconds),
        "mean": _mean(seconds),
        "p50": quantile(seconds, 0.5),
        "p95": quantile(seconds, 0.95),
    }


KPIS: dict[str, tuple[Callable[[Fold, ZoneInfo], Iterator[Fact]], Callable[[list[Any]], Any]]] = {
    "completion": (_by(submitted), _completion),
    "processing_time": (_by(delivered), _processing),
    "satisfaction": (_by(delivered), _satisfaction),
    "cart_abandonment": (_carts, _abandonment),
    "return_rate": (_by(delivered), _return_rate),
    "orders_created": (
        _by(created),
        lambda orders: {"orders": len(orders), "customers": len({o.customer_id for o in orders})},
    ),
    "average_order_value": (_by_currency(paid), _value),
    "revenue": (_by_currency(paid), _revenue),
    "units_per_order": (_by(submitted), _units),
    "cancellations_by_reason": (_cancelled, _cancellations),
    "returns_by_reason": (_return_lines, _returns),
    "refunds_by_reason": (_refunds, _refunded),
    "payment_acceptance": (_attempts, _acceptance),
    "payment_retries": (_by(submitted), _retries),
    "on_time_delivery": (_promised, _punctual),
    "stock_outs": (_stock_outs, _outs),
    "stuck_orders": (_stuck, lambda spans: {"orders": len(spans), "longest": max(spans)}),
    "active_orders": (_active, lambda orders: {"orders": len(orders)}),
    "funnel": (_by(created), _funnel),
    "time_in_status": (_stays, _spread),
    "saga_durations": (_sagas, _spread),
    "discounts": (_by_currency(paid), _discounts),
    "promotion_use": (_promotions, _promotion_use),
    "product_sales": (_lines, _sales),
}
"""Name → its facts, and what they come to."""

_SHARE_OF = {"cancellations_by_reason": "orders", "returns_by_reason": "units"}


def _shares(name: str, rows: list[dict[str, Any]], group_by: str | None) -> None:
    """The share of a row in all of its period and group."""
    column = _SHARE_OF.get(name)
    if column is None:
        return
    totals: dict[Any, int] = defaultdict(int)
    for row in rows:
        totals[row.get("at"), row.get(group_by or "")] += row[column]
    for row in rows:
        row["share"] = row[column] / totals[row.get("at"), row.get(group_by or "")]


def _each(figures: Figures | list[Figures] | None) -> list[Figures]:
    if figures is None:
        return []
    return figures if isinstance(figures, list) else [figures]


def _money(currency: str) -> Callable[[int], dict[str, str]]:
    places = digits(currency)

    def money(minor: int) -> dict[str, str]:
        whole, part = divmod(abs(minor), 10**places)
        text = f"{'-' if minor < 0 else ''}{whole}" + (f".{part:0{places}}" if places else "")
        return {"amount": text, "currency": currency}

    return money


def _seconds(since: datetime | None, until: datetime | None) -> float:
    assert since is not None
    assert until is not None
    return (until - since).total_seconds()


def _mean(numbers: Sequence[float]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None


def _rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None
