"""The language of stock. Keyed by `sku#pool`; results go to the sagas, keyed by order."""

from __future__ import annotations

from schemas.base import Family, Message, Payload

Family("inventory.commands", Message)
Family("inventory.events", Message)
Family("inventory.results", Message)
Family("inventory.levels", Message)


class ReserveStock(Payload, family="inventory.commands"):
    """`order_version` is the version of the order that caused this; an older one than already seen is refused."""

    line_id: str
    sku: str
    pool: str
    quantity: int
    order_version: int


class ReleaseStock(Payload, family="inventory.commands"):
    """Gives a line's reservation back. Comes it first, it leaves a tombstone that refuses the reserve."""

    line_id: str
    sku: str
    pool: str
    order_version: int


class CommitStock(Payload, family="inventory.commands"):
    """The reserved units have left the house."""

    line_id: str
    sku: str
    pool: str
    order_version: int


class AdjustStock(Payload, family="inventory.commands"):
    """Staff counted, received or wrote off: on hand changes by `delta`, and never below zero."""

    sku: str
    pool: str
    delta: int
    reason: str
    body_hash: str | None = None


class StockMoved(Payload, family="inventory.events"):
    """The ledger: what moved, and what there is afterwards. on_hand counts what is free to sell."""

    kind: str  # adjusted | reserved | released | committed
    sku: str
    pool: str
    line_id: str | None = None
    quantity: int
    reason: str | None = None
    on_hand: int
    reserved: int
    shipped: int
    version: int


class StockLevel(Payload, family="inventory.levels"):
    """What is there now. available = on_hand: a reservation takes its units out of it."""

    sku: str
    pool: str
    on_hand: int
    reserved: int
    shipped: int
    version: int

    @property
    def available(self) -> int:
        return self.on_hand


class StockReserved(Payload, family="inventory.results"):
    line_id: str
    sku: str
    quantity: int
    order_version: int


class StockRefused(Payload, family="inventory.results"):
    """reason: insufficient | released (a release came first) | stale (a newer command was seen) | settled (the
    reservation has ended in another way) | unknown (there is no reservation)."""

    line_id: str
    sku: str
    quantity: int
    available: int
    reason: str
    order_version: int


class StockReleased(Payload, family="inventory.results"):
    line_id: str
    sku: str
    quantity: int
    order_version: int


class StockCommitted(Payload, family="inventory.results"):
    line_id: str
    sku: str
    quantity: int
    order_version: int
