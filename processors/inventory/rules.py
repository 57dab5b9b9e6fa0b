"""Stock of one SKU in one pool: pure rules.

free + reserved + shipped = adjustments − lost − written off, and nothing ever goes below zero. What a line of an order
has reserved follows from what was ever said about it, in whatever order it was said:

    reserved + waiting = wanted − (shipped − extra), or nothing once it is released

`wanted` is that of the newest accepted version, `shipped` and `extra` (what left though it was cancelled) are sums (who
runs the rules sees to it that each shipment and each loss comes once), `released` is for good. So reserve, commit,
release, lose and restock commute, as long as there is enough.

What happened to the goods is not refused because the books say otherwise. A parcel that left with more units than the
line had reserved takes free ones, and where there is none either, the books had one too few: it is found by an
adjustment. A loss that finds nothing free takes nothing: the units are promised to others, and the warehouse will say
so when it looks for them.
"""

from __future__ import annotations

from typing import Any

from schemas.base import Model

UNRESERVED = "shipped_unreserved"
"""Reason of the adjustment by which units are found that left the house and were not in the books."""


class Stock(Model):
    """Counts of units; on_hand are the free ones. `waiting`: units that back-orders wait for. `version` counts the
    movements."""

    on_hand: int = 0
    reserved: int = 0
    shipped: int = 0
    version: int = 0
    waiting: int = 0


class Reservation(Model):
    """What a line of an order has of the stock. `order_version` is that of the newest command accepted. `shipped`,
    `extra`, `lost` and `returned` only grow. `restocking` and `writing_off` came back before the books knew that they
    had left. `released`: None, or how many units were given back at the end."""

    order_version: int = 0
    wanted: int = 0
    held: int = 0
    waiting: int = 0
    shipped: int = 0
    extra: int = 0
    lost: int = 0
    returned: int = 0
    restocking: int = 0
    writing_off: int = 0
    released: int | None = None

    @property
    def due(self) -> int:
        """Units it should hold or wait for."""
        return 0 if self.released is not None else max(0, self.wanted - self.shipped + self.extra)


class Move(Model):
    """A line of the ledger; `stock` is what there is afterwards."""

    kind: str  # as StockMoved
    quantity: int
    stock: Stock
    reason: str | None = None


class Done(Model):
    """`quantity`: units of the answer. A repeat has no moves."""

    stock: Stock
    line: Reservation
    moves: tuple[Move, ...] = ()
    quantity: int


class Refused(Model):
    reason: str


def reserve(
    stock: Stock, found: Reservation | None, quantity: int, order_version: int, backorder: bool = False
) -> Done | Refused:
    """The line wants `quantity` units in all. What it lacks is taken from what is free and not waited for by others, in
    whole or not at all; with `backorder` it waits for the rest. A refusal leaves the line as it was. 0 units: it holds
    nothing, and may want some again."""
    line = found or Reservation()
    if line.released is not None:
        return Refused(reason="released")
    if quantity < 0:
        return Refused(reason="insufficient")
    # Of two that say different things under one version the larger wins, whichever comes first.
    if (order_version, quantity) < (line.order_version, line.wanted):
        return Refused(reason="stale")
    wants = _with(line, order_version=order_version, wanted=quantity)
    missing = wants.due - line.held - line.waiting
    if missing <= 0:
        return _lowered(stock, line, wants, "released", quantity)
    took = min(missing, max(0, stock.on_hand - stock.waiting))
    if took < missing and not backorder:
        return Refused(reason="insufficient")
    after = _with(wants, held=line.held + took, waiting=line.waiting + missing - took)
    moves = _moves(stock, "reserved", took, on_hand=-took, reserved=took)
    return _done(stock, line, after, moves, quantity)


def release(stock: Stock, found: Reservation | None, order_version: int) -> Done:
    """The line gives back what it holds and wants nothing any more, whatever is said later. Comes that first, it stays
    as a tombstone."""
    line = found or Reservation()
    if line.released is not None:
        return Done(stock=stock, line=line, quantity=line.released)
    ended = _with(line, released=line.held, order_version=max(order_version, line.order_version))
    return _lowered(stock, line, ended, "released", line.held)


def commit(stock: Stock, found: Reservation | None, quantity: int | None, extra: int = 0) -> Done | Refused:
    """So many units have left the house; None: all that the line holds. `extra` of them it does not want any more. What
    was returned before its parcel was heard of comes back now."""
    if found is None:
        return Refused(reason="unknown")
    quantity = found.held if quantity is None else quantity
    if quantity < 0 or not 0 <= extra <= quantity:
        return Refused(reason="insufficient")
    line = _less(found, quantity, shipped=found.shipped + quantity, extra=found.extra + extra)
    held = found.held - line.held
    free = min(quantity - held, stock.on_hand)
    none = quantity - held - free
    moves = _moves(stock, "adjusted", none, on_hand=none, reason=UNRESERVED)
    moves += _moves(_last(stock, moves), "committed", quantity, on_hand=-free - none, reserved=-held, shipped=quantity)
    return _returned(stock, found, line, moves, quantity)


def lose(stock: Stock, found: Reservation | None, quantity: int) -> Done | Refused:
    """So many units of the line are not to be found. What it holds is written off first, and it waits for others; then
    what is free: it may have been given back meanwhile."""
    if found is None:
        return Refused(reason="unknown")
    if quantity < 1:
        return Refused(reason="insufficient")
    line = _less(found, quantity, lost=found.lost + quantity)
    held = found.held - line.held
    free = min(quantity - held, stock.on_hand)
    moves = _moves(stock, "lost", held + free, on_hand=-free, reserved=-held)
    return _done(stock, found, line, moves, held + free)


def restock(stock: Stock, found: Reservation | None, quantity: int, sellable: bool) -> Done | Refused:
    """So many shipped units are back; written off unless `sellable`."""
    if found is None:
        return Refused(reason="unknown")
    if quantity < 1:
        return Refused(reason="insufficient")
    counted = "restocking" if sellable else "writing_off"
    line = _with(found, **{counted: getattr(found, counted) + quantity})
    return _returned(stock, found, line, (), quantity)


def adjust(stock: Stock, delta: int) -> Stock | Refused:
    """Staff changes what is free."""
    if stock.on_hand + delta < 0:
        return Refused(reason="insufficient")
    return _moved(stock, on_hand=delta)


def allocate(stock: Stock, line: Reservation) -> Done:
    """The line that has waited longest gets what is free of what it waits for."""
    quantity = min(stock.on_hand, line.waiting)
    after = _with(line, held=line.held + quantity, waiting=line.waiting - quantity)
    return _done(
        stock, line, after, _moves(stock, "reserved", quantity, on_hand=-quantity, reserved=quantity), quantity
    )


def _lowered(stock: Stock, before: Reservation, line: Reservation, kind: str, quantity: int) -> Done:
    """The line is due no more than it has: it first stops to wait, then gives back."""
    held = min(before.held, line.due)
    freed = before.held - held
    after = _with(line, held=held, waiting=line.due - held)
    return _done(stock, before, after, _moves(stock, kind, freed, on_hand=freed, reserved=-freed), quantity)


def _less(line: Reservation, quantity: int, **sums: int) -> Reservation:
    """The line after so many of its units have gone for good: held ones first. It waits for what it lacks then."""
    after = _with(line, held=line.held - min(quantity, line.held), **sums)
    return _with(after, waiting=max(0, after.due - after.held))


def _returned(stock: Stock, before: Reservation, line: Reservation, moves: tuple[Move, ...], quantity: int) -> Done:
    """What has come back, as far as it is known to have left."""
    for kind, counted in (("restocked", "restocking"), ("written_off", "writing_off")):
        back = min(getattr(line, counted), line.shipped - line.returned)
        line = _with(line, returned=line.returned + back, **{counted: getattr(line, counted) - back})
        free = back if kind == "restocked" else 0
        moves += _moves(_last(stock, moves), kind, back, on_hand=free, shipped=-back)
    return _done(stock, before, line, moves, quantity)


def _done(stock: Stock, before: Reservation, line: Reservation, moves: tuple[Move, ...], quantity: int) -> Done:
    after = _last(stock, moves)
    waiting = after.waiting + line.waiting - before.waiting
    if waiting != after.waiting:
        after = after.model_copy(update={"waiting": waiting})
    return Done(stock=after, line=line, moves=moves, quantity=quantity)


def _last(stock: Stock, moves: tuple[Move, ...]) -> Stock:
    return moves[-1].stock if moves else stock


def _moves(
    stock: Stock,
    kind: str,
    quantity: int,
    *,
    on_hand: int = 0,
    reserved: int = 0,
    shipped: int = 0,
    reason: str | None = None,
) -> tuple[Move, ...]:
    if quantity == 0:
        return ()
    after = _moved(stock, on_hand, reserved, shipped)
    return (Move(kind=kind, quantity=quantity, stock=after, reason=reason),)


def _moved(stock: Stock, on_hand: int = 0, reserved: int = 0, shipped: int = 0) -> Stock:
    return Stock(
        on_hand=stock.on_hand + on_hand,
        reserved=stock.reserved + reserved,
        shipped=stock.shipped + shipped,
        version=stock.version + 1,
        waiting=stock.waiting,
    )


def _with(line: Reservation, **changes: Any) -> Reservation:
    return line.model_copy(update=changes)
