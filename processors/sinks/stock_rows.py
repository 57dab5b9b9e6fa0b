"""Messages of the stock's single writer → rows: what is there now, and the ledger of how it came to that. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from schemas.base import Message
from schemas.inventory import StockLevel, StockMoved

from .rows import micros


class StockRow(NamedTuple):
    sku: str
    pool: str
    version: int
    on_hand: int
    reserved: int
    shipped: int
    changed_at: int
    appended_at: int


class LedgerRow(NamedTuple):
    sku: str
    pool: str
    version: int
    kind: str
    quantity: int
    on_hand: int
    reserved: int
    shipped: int
    reason: str
    order_id: str
    line_id: str
    actor: str
    at: int
    correlation_id: str
    appended_at: int


def stock_rows(message: Message[Any], appended_at: int) -> list[StockRow]:
    """One row: a SKU's units in one pool."""
    level = message.data
    if not isinstance(level, StockLevel):
        raise ValueError(f"a {type(level).__name__} is no level of stock")
    counts = (level.on_hand, level.reserved, level.shipped)
    return [StockRow(level.sku, level.pool, level.version, *counts, micros(message.at), appended_at)]


def ledger_rows(message: Message[Any], appended_at: int) -> list[LedgerRow]:
    """One row: a movement, with what there is afterwards."""
    moved = message.data
    if not isinstance(moved, StockMoved):
        raise ValueError(f"a {type(moved).__name__} is no movement of stock")
    return [
        LedgerRow(
            moved.sku,
            moved.pool,
            moved.version,
            moved.kind,
            moved.quantity,
            moved.on_hand,
            moved.reserved,
            moved.shipped,
            moved.reason or "",
            message.order_id or "",
            moved.line_id or "",
            message.actor,
            micros(message.at),
            message.correlation_id,
            appended_at,
        )
    ]
