"""The language of stock. Keyed by `sku#pool`; results go to the sagas, keyed by order."""

from __future__ import annotations

from schemas.base import Family, Message, Payload

Family("inventory.commands", Message)
Family("inventory.events", Message)
Family("inventory.results", Message)
Family("inventory.levels", Message)


class ReserveStock(Payload, family="inventory.commands"):
    """`quantity` is how many units the line wants in all, those shipped already included: a newer command sets it anew,
    up or down, also to 0. `order_version` is the version of the order that caused this; an
    older one than already accepted is refused. With `backorder` what is not there is waited for."""

    line_id: str
    sku: str
    pool: str
    quantity: int
    order_version: int
    backorder: bool = False


class ReleaseStock(Payload, family="inventory.commands"):
    """Gives what a line has reserved (and not shipped) back, for good. Comes it first, it leaves a tombstone that
    refuses the reserve."""

    line_id: str
    sku: str
    pool: str
    order_version: int


class CommitStock(Payload, family="inventory.commands"):
    """Units of a line have left the house, whatever the books say; each `shipment_id` counts once. Without a quantity:
    all that are reserved. `extra` of them were cancelled too late: the line gets no less of those that it wants."""

    line_id: str
    sku: str
    pool: str
    order_version: int
    quantity: int | None = None
    shipment_id: str = ""
    extra: int = 0


class LoseStock(Payload, family="inventory.commands"):
    """The warehouse does not find units of a line: they are written off. What the line wants stays as it is; until it
    wants less (ReserveStock), it waits for others. Each `cause_id` counts once."""

    line_id: str
    sku: str
    pool: str
    quantity: int
    cause_id: str


class RestockStock(Payload, family="inventory.commands"):
    """Shipped units have come back: on hand again with `restock`, else written off. Each `cause_id` counts once."""

    line_id: str
    sku: str
    pool: str
    quantity: int
    cause_id: str
    restock: bool


class AdjustStock(Payload, family="inventory.commands"):
    """Staff counted, received or wrote off: on hand changes by `delta`, and never below zero."""

    sku: str
    pool: str
    delta: int
    reason: str
    body_hash: str | None = None


class StockMoved(Payload, family="inventory.events"):
    """The ledger: what moved, and what there is afterwards. on_hand counts what is free to sell. What a line gives back
    because it wants fewer is `released`; units that left without being in the books are `adjusted` first (reason
    shipped_unreserved)."""

    kind: str  # adjusted | reserved | released | committed | lost | restocked | written_off
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
    """The line has its `quantity` units (all it wants in all), but for the `backordered` ones, which StockAllocated
    will tell of."""

    line_id: str
    sku: str
    quantity: int
    order_version: int
    backordered: int = 0


class StockAllocated(Payload, family="inventory.results"):
    """Stock came for a line that waited: `quantity` units now, `waiting` still to come."""

    line_id: str
    sku: str
    quantity: int
    waiting: int


class StockRefused(Payload, family="inventory.results"):
    """reason: insufficient | released (a release came first) | stale (a newer command was seen) | unknown (nothing was
    ever reserved for this line). `cause_id`: of a LoseStock or RestockStock that was refused."""

    line_id: str
    sku: str
    quantity: int
    available: int
    reason: str
    order_version: int
    cause_id: str = ""


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
    shipment_id: str = ""


class StockLost(Payload, family="inventory.results"):
    line_id: str
    sku: str
    quantity: int
    cause_id: str


class StockRestocked(Payload, family="inventory.results"):
    line_id: str
    sku: str
    quantity: int
    cause_id: str
    restock: bool
