"""The inventory processor: the single writer of stock, keyed by `sku#pool`.

State under a key: `stock` (the counts), `reservation:ORDER:LINE` (one entry each, so that no value grows), and
`adjusted:ID` for each adjustment seen, with its outcome.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from processors.inventory import rules
from processors.inventory.rules import Moved, Refused, Repeated, Reservation, Stock
from processors.kit import Handler, Incoming, Outgoing, State
from processors.shapes import Shape
from schemas import inventory as i
from schemas.base import Message, Payload
from schemas.policy import Policy
from schemas.replies import IDEMPOTENCY_KEY_REUSED, Rejection, StockOutcome

STOCK = Shape(Stock)
RESERVATION = Shape(Reservation)


def handler(policy: Policy) -> Handler:
    """The handler for `runtime.streams` and the simulation."""

    def handle(state: State, incoming: Incoming) -> Iterable[Outgoing]:
        cause = incoming.message
        if not isinstance(cause, Message):
            raise TypeError(f"{type(cause).__name__} is not a stock command")
        match cause.data:
            case i.ReserveStock() | i.ReleaseStock() | i.CommitStock():
                return handle_reservation(state, incoming.key, cause)
            case i.AdjustStock():
                return handle_adjustment(state, incoming.key, cause, policy.idempotency_kept)
            case other:
                raise TypeError(f"{type(other).__name__} is not a stock command")

    return handle


def handle_reservation(state: State, key: str, cause: Message[Any]) -> list[Outgoing]:
    """Reserve, release or commit one line of one order; the saga that asked hears what came of it."""
    command: i.ReserveStock | i.ReleaseStock | i.CommitStock = cause.data
    if cause.order_id is None:
        raise ValueError("a reservation belongs to an order")
    entry = f"reservation:{cause.order_id}:{command.line_id}"
    stock = STOCK.load(state, "stock") or Stock()
    found = RESERVATION.load(state, entry)
    outcome: Moved | Repeated | Refused
    result: type[i.StockReserved | i.StockReleased | i.StockCommitted]
    match command:
        case i.ReserveStock():
            outcome = rules.reserve(stock, found, command.quantity, command.order_version)
            kind, result = "reserved", i.StockReserved
        case i.ReleaseStock():
            outcome = rules.release(stock, found, command.order_version)
            kind, result = "released", i.StockReleased
        case i.CommitStock():
            outcome = rules.commit(stock, found, command.order_version)
            kind, result = "committed", i.StockCommitted
    if isinstance(outcome, Refused):
        refused = i.StockRefused(
            line_id=command.line_id,
            sku=command.sku,
            quantity=command.quantity if isinstance(command, i.ReserveStock) else 0,
            available=stock.on_hand,
            reason=outcome.reason,
            order_version=command.order_version,
        )
        return [_result(cause, refused)]
    outputs = []
    if isinstance(outcome, Moved):
        RESERVATION.save(state, entry, outcome.reservation)
        if outcome.stock is not stock:
            outputs = _moved(
                state, key, cause, outcome.stock, kind=kind, quantity=outcome.quantity, line_id=command.line_id
            )
    done = result(
        line_id=command.line_id, sku=command.sku, quantity=outcome.quantity, order_version=command.order_version
    )
    return [*outputs, _result(cause, done)]


def handle_adjustment(state: State, key: str, cause: Message[Any], kept: timedelta) -> list[Outgoing]:
    """Staff changed what is on hand; a repeat gets the first answer."""
    command: i.AdjustStock = cause.data
    entry = f"adjusted:{cause.id}"
    seen = state.get(entry)
    if seen is not None:
        if seen["body_hash"] == command.body_hash:
            return _reply(cause, StockOutcome.model_validate(seen["outcome"]))
        return _reply(cause, StockOutcome(command_id=cause.id, accepted=False, rejection=IDEMPOTENCY_KEY_REUSED))
    stock = STOCK.load(state, "stock") or Stock()
    after = rules.adjust(stock, command.delta)
    outputs: list[Outgoing] = []
    if isinstance(after, Refused):
        short = Rejection(
            type="stock-below-zero",
            field="delta",
            detail=f"{command.sku} has {stock.on_hand} units on hand: a change of {command.delta} would go below zero.",
        )
        outcome = StockOutcome(command_id=cause.id, accepted=False, rejection=short, level=_level(key, stock))
    else:
        outputs = _moved(state, key, cause, after, kind="adjusted", quantity=command.delta, reason=command.reason)
        outcome = StockOutcome(command_id=cause.id, accepted=True, level=_level(key, after))
    state.set(entry, {"body_hash": command.body_hash, "outcome": outcome.model_dump(mode="json")}, ttl=kept)
    return [*outputs, *_reply(cause, outcome)]


def _moved(state: State, key: str, cause: Message[Any], stock: Stock, **what: Any) -> list[Outgoing]:
    STOCK.save(state, "stock", stock)
    sku, _, pool = key.partition("#")
    moved = i.StockMoved(
        sku=sku,
        pool=pool,
        on_hand=stock.on_hand,
        reserved=stock.reserved,
        shipped=stock.shipped,
        version=stock.version,
        **what,
    )
    return [
        Outgoing("inventory.events", key, _message(cause, moved)),
        Outgoing("inventory.levels", key, _message(cause, _level(key, stock))),
    ]


def _level(key: str, stock: Stock) -> i.StockLevel:
    sku, _, pool = key.partition("#")
    return i.StockLevel(sku=sku, pool=pool, **stock.model_dump())


def _result(cause: Message[Any], payload: Payload) -> Outgoing:
    return Outgoing("inventory.results", cause.order_id or "", _message(cause, payload))


def _reply(cause: Message[Any], outcome: StockOutcome) -> list[Outgoing]:
    return [Outgoing("order.replies", cause.reply_to, _message(cause, outcome))] if cause.reply_to else []


def _message(cause: Message[Any], payload: Payload) -> Message[Any]:
    return Message(
        id=str(uuid5(NAMESPACE_URL, f"oms:{type(payload).__name__}:{cause.id}")),
        at=cause.at,
        actor=cause.actor if payload.family == "inventory.events" else "system:inventory",
        correlation_id=cause.correlation_id,
        causation_id=cause.id,
        order_id=cause.order_id,
        data=payload,
    )
