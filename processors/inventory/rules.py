"""Stock of one SKU in one pool: pure rules.

free + reserved + shipped changes only by adjustments, and nothing ever goes below zero. A reservation (order, line)
is RESERVED, then COMMITTED or RELEASED for good; a release that comes before its reserve leaves RELEASED behind,
which refuses the reserve.
"""

from __future__ import annotations

from enum import StrEnum

from schemas.base import Model


class Fate(StrEnum):
    RESERVED = "RESERVED"
    COMMITTED = "COMMITTED"
    RELEASED = "RELEASED"


class Stock(Model):
    """Counts of units. `version` counts the movements."""

    on_hand: int = 0
    reserved: int = 0
    shipped: int = 0
    version: int = 0


class Reservation(Model):
    """`order_version` is that of the newest command seen for it."""

    fate: str
    quantity: int
    order_version: int


class Moved(Model):
    """The new counts and the new reservation."""

    stock: Stock
    reservation: Reservation
    quantity: int


class Repeated(Model):
    """This was done already: answer as then, change nothing."""

    quantity: int


class Refused(Model):
    reason: str


def reserve(stock: Stock, found: Reservation | None, quantity: int, order_version: int) -> Moved | Repeated | Refused:
    if found is not None:
        if found.fate == Fate.RESERVED and found.quantity == quantity:
            return Repeated(quantity=quantity)
        if found.order_version > order_version:
            return Refused(reason="released" if found.fate == Fate.RELEASED else "stale")
        return Refused(reason="released" if found.fate == Fate.RELEASED else "settled")
    if quantity < 1 or quantity > stock.on_hand:
        return Refused(reason="insufficient")
    return Moved(
        stock=_moved(stock, on_hand=-quantity, reserved=quantity),
        reservation=Reservation(fate=Fate.RESERVED, quantity=quantity, order_version=order_version),
        quantity=quantity,
    )


def release(stock: Stock, found: Reservation | None, order_version: int) -> Moved | Repeated | Refused:
    if found is None:
        tombstone = Reservation(fate=Fate.RELEASED, quantity=0, order_version=order_version)
        return Moved(stock=stock, reservation=tombstone, quantity=0)
    if found.fate == Fate.RELEASED:
        return Repeated(quantity=found.quantity)
    if found.order_version > order_version:
        return Refused(reason="stale")
    if found.fate == Fate.COMMITTED:
        return Refused(reason="settled")
    return Moved(
        stock=_moved(stock, on_hand=found.quantity, reserved=-found.quantity),
        reservation=found.model_copy(update={"fate": Fate.RELEASED, "order_version": order_version}),
        quantity=found.quantity,
    )


def commit(stock: Stock, found: Reservation | None, order_version: int) -> Moved | Repeated | Refused:
    if found is None:
        return Refused(reason="unknown")
    if found.fate == Fate.COMMITTED:
        return Repeated(quantity=found.quantity)
    if found.order_version > order_version:
        return Refused(reason="stale")
    if found.fate == Fate.RELEASED:
        return Refused(reason="released")
    return Moved(
        stock=_moved(stock, reserved=-found.quantity, shipped=found.quantity),
        reservation=found.model_copy(update={"fate": Fate.COMMITTED, "order_version": order_version}),
        quantity=found.quantity,
    )


def adjust(stock: Stock, delta: int) -> Stock | Refused:
    if stock.on_hand + delta < 0:
        return Refused(reason="insufficient")
    return _moved(stock, on_hand=delta)


def _moved(stock: Stock, on_hand: int = 0, reserved: int = 0, shipped: int = 0) -> Stock:
    return Stock(
        on_hand=stock.on_hand + on_hand,
        reserved=stock.reserved + reserved,
        shipped=stock.shipped + shipped,
        version=stock.version + 1,
    )
