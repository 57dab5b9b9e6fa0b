"""The inventory processor: the single writer of stock, keyed by `sku#pool`.

State under a key: `stock` (the counts), `reservation:ORDER:LINE` (one entry each, so that no value grows), and of what
counts once an entry with the answer: `shipment:ORDER:LINE:ID`, `lost:…`, `restocked:…`, `adjusted:ID`. Lines that wait
for stock are a linked list: `queue` (its ends) and `place:ORDER:LINE`, so that one can leave it from the middle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

from uuid_utils import NAMESPACE_URL, uuid5

from processors.inventory import rules
from processors.inventory.queue import Place, Queue
from processors.inventory.rules import Done, Move, Refused, Reservation, Stock
from processors.kit import Handler, Incoming, Outgoing, State
from processors.shapes import Shape
from schemas import inventory as i
from schemas.base import Message, Payload
from schemas.policy import Policy
from schemas.replies import IDEMPOTENCY_KEY_REUSED, Rejection, StockOutcome

ALLOCATIONS = 500
"""At most so many back-orders are served per command, so that a delivery for thousands stays a small transaction. The
rest is served by the next commands for the SKU (each served order soon sends its CommitStock, if nothing else comes);
until then what is free is theirs: nobody else can reserve it."""


def _of_one_fate(value: dict[str, Any]) -> dict[str, Any]:
    """Shape 1: a quantity, and RESERVED, COMMITTED or RELEASED."""
    quantity, fate = value["quantity"], value["fate"]
    return {
        "order_version": value["order_version"],
        "wanted": quantity,
        "held": quantity if fate == "RESERVED" else 0,
        "shipped": quantity if fate == "COMMITTED" else 0,
        "released": quantity if fate == "RELEASED" else None,
    }


STOCK = Shape(Stock, 2, {1: lambda value: {**value, "waiting": 0}})
RESERVATION = Shape(Reservation, 2, {1: _of_one_fate})

LineCommand = i.ReserveStock | i.ReleaseStock | i.CommitStock | i.LoseStock | i.RestockStock


def handler(policy: Policy) -> Handler:
    """The handler for `runtime.streams` and the simulation."""

    def handle(state: State, incoming: Incoming) -> Iterable[Outgoing]:
        cause = incoming.message
        if not isinstance(cause, Message):
            raise TypeError(f"{type(cause).__name__} is not a stock command")
        books = Books(state, incoming.key, cause)
        match cause.data:
            case i.ReserveStock() | i.ReleaseStock() | i.CommitStock() | i.LoseStock() | i.RestockStock() as command:
                handle_line(books, command)
                books.serve_queue()
            case i.AdjustStock() as command:
                handle_adjustment(books, command, policy.idempotency_kept)
            case other:
                raise TypeError(f"{type(other).__name__} is not a stock command")
        return books.close()

    return handle


class Books:
    """What one command does to the stock of its key: state read and written, and the messages that tell of it."""

    def __init__(self, state: State, key: str, cause: Message[Any]) -> None:
        self.state = state
        self.key = key
        self.cause = cause
        self.sku, _, self.pool = key.partition("#")
        self._before = STOCK.load(state, "stock") or Stock()
        self.stock = self._before
        self.queue = Queue(state)
        self._moves = 0
        self._told: list[Outgoing] = []
        self._answers: list[Outgoing] = []

    def line(self, order_id: str, line_id: str) -> Reservation | None:
        return RESERVATION.load(self.state, f"reservation:{order_id}:{line_id}")

    def book(self, order_id: str, line_id: str, done: Done) -> None:
        """Take over what the rules said about a line."""
        RESERVATION.save(self.state, f"reservation:{order_id}:{line_id}", done.line)
        self.stock = done.stock
        for move in done.moves:
            self.tell(move, order_id, line_id)

    def tell(self, move: Move, order_id: str | None, line_id: str | None) -> None:
        """A line of the ledger."""
        counts = move.stock
        moved = i.StockMoved(
            kind=move.kind,
            sku=self.sku,
            pool=self.pool,
            line_id=line_id,
            quantity=move.quantity,
            reason=move.reason,
            on_hand=counts.on_hand,
            reserved=counts.reserved,
            shipped=counts.shipped,
            version=counts.version,
        )
        # The first keeps the id that it had when a command moved stock once at most.
        nth = f":{self._moves}" if self._moves else ""
        self._moves += 1
        self._told.append(Outgoing("inventory.events", self.key, _message(self.cause, moved, nth, order_id=order_id)))

    def answer(self, payload: Payload) -> None:
        """To the saga that asked."""
        self._answers.append(Outgoing("inventory.results", self.cause.order_id or "", _message(self.cause, payload)))

    def reply(self, outcome: StockOutcome) -> None:
        """To the gateway that waits, if one does."""
        if self.cause.reply_to:
            self._answers.append(Outgoing("order.replies", self.cause.reply_to, _message(self.cause, outcome)))

    def serve_queue(self) -> None:
        """What is free goes to the lines that wait, in their order."""
        for _ in range(ALLOCATIONS):
            if self.stock.on_hand == 0 or (place := self.queue.first()) is None:
                return
            line = self.line(place.order_id, place.line_id)
            if line is None:
                raise ValueError(f"{place.order_id}:{place.line_id} waits and has no reservation")
            done = rules.allocate(self.stock, line)
            self.book(place.order_id, place.line_id, done)
            if done.line.waiting == 0:
                self.queue.leave(place)
            allocated = i.StockAllocated(
                line_id=place.line_id, sku=self.sku, quantity=done.quantity, waiting=done.line.waiting
            )
            about = f":{place.order_id}:{place.line_id}"
            message = _message(self.cause, allocated, about, order_id=place.order_id)
            # The line's own story goes on: it was only set off by somebody else's command.
            message = message.model_copy(update={"correlation_id": place.correlation_id})
            self._answers.append(Outgoing("inventory.results", place.order_id, message))

    def level(self) -> i.StockLevel:
        counts = self.stock.model_dump(exclude={"waiting"})
        return i.StockLevel(sku=self.sku, pool=self.pool, **counts)

    def close(self) -> list[Outgoing]:
        """Write the counts; everything that has to be sent."""
        if self.stock != self._before:
            STOCK.save(self.state, "stock", self.stock)
        level = [Outgoing("inventory.levels", self.key, _message(self.cause, self.level()))] if self._moves else []
        return [*self._told, *level, *self._answers]


def handle_line(books: Books, command: LineCommand) -> None:
    """One line of one order; the saga that asked hears what came of it."""
    order_id, line_id = books.cause.order_id, command.line_id
    if order_id is None:
        raise ValueError("a reservation belongs to an order")
    found = books.line(order_id, line_id)
    match command:
        case i.ReserveStock(order_version=version):
            outcome = rules.reserve(books.stock, found, command.quantity, version, command.backorder)
        case i.ReleaseStock(order_version=version):
            outcome = rules.release(books.stock, found, version)
        case i.CommitStock(shipment_id=shipment_id):
            entry = f"shipment:{order_id}:{line_id}:{shipment_id}"
            outcome = _once(
                books, entry, found, lambda: rules.commit(books.stock, found, command.quantity, command.extra)
            )
        case i.LoseStock(cause_id=cause_id):
            entry = f"lost:{order_id}:{line_id}:{cause_id}"
            outcome = _once(books, entry, found, lambda: rules.lose(books.stock, found, command.quantity))
        case i.RestockStock(cause_id=cause_id):
            entry = f"restocked:{order_id}:{line_id}:{cause_id}"
            outcome = _once(
                books, entry, found, lambda: rules.restock(books.stock, found, command.quantity, command.restock)
            )
    if isinstance(outcome, Refused):
        refused = i.StockRefused(
            line_id=line_id,
            sku=command.sku,
            quantity=getattr(command, "quantity", None) or 0,
            available=max(0, books.stock.on_hand - books.stock.waiting),
            reason=outcome.reason,
            order_version=getattr(command, "order_version", 0),
            cause_id=getattr(command, "cause_id", ""),
        )
        books.answer(refused)
        return
    books.book(order_id, line_id, outcome)
    _queue_up(books, order_id, line_id, outcome.line)
    books.answer(_result(command, outcome))


def _once(books: Books, entry: str, line: Reservation | None, do: Callable[[], Done | Refused]) -> Done | Refused:
    """What was done already is answered as then, and changes nothing."""
    seen = books.state.get(entry)
    if seen is not None and line is not None:
        return Done(stock=books.stock, line=line, quantity=seen["quantity"])
    outcome = do()
    if isinstance(outcome, Done):
        books.state.set(entry, {"quantity": outcome.quantity})
    return outcome


def _queue_up(books: Books, order_id: str, line_id: str, line: Reservation) -> None:
    """In the queue while it waits; who wants more keeps the place."""
    place = books.queue.find(order_id, line_id)
    if line.waiting and place is None:
        correlation_id = books.cause.correlation_id
        books.queue.join(Place(order_id=order_id, line_id=line_id, correlation_id=correlation_id))
    elif not line.waiting and place is not None:
        books.queue.leave(place)


def _result(command: LineCommand, done: Done) -> Payload:
    line_id, sku, quantity = command.line_id, command.sku, done.quantity
    match command:
        case i.ReserveStock(order_version=version):
            return i.StockReserved(
                line_id=line_id, sku=sku, quantity=quantity, order_version=version, backordered=done.line.waiting
            )
        case i.ReleaseStock(order_version=version):
            return i.StockReleased(line_id=line_id, sku=sku, quantity=quantity, order_version=version)
        case i.CommitStock(order_version=version, shipment_id=shipment_id):
            return i.StockCommitted(
                line_id=line_id, sku=sku, quantity=quantity, order_version=version, shipment_id=shipment_id
            )
        case i.LoseStock(cause_id=cause_id):
            return i.StockLost(line_id=line_id, sku=sku, quantity=quantity, cause_id=cause_id)
        case i.RestockStock(cause_id=cause_id, restock=restock):
            return i.StockRestocked(line_id=line_id, sku=sku, quantity=quantity, cause_id=cause_id, restock=restock)


def handle_adjustment(books: Books, command: i.AdjustStock, kept: timedelta) -> None:
    """Staff changed what is on hand; a repeat gets the first answer."""
    cause = books.cause
    entry = f"adjusted:{cause.id}"
    seen = books.state.get(entry)
    if seen is not None:
        if seen["body_hash"] == command.body_hash:
            books.reply(StockOutcome.model_validate(seen["outcome"]))
        else:
            books.reply(StockOutcome(command_id=cause.id, accepted=False, rejection=IDEMPOTENCY_KEY_REUSED))
        books.serve_queue()
        return
    after = rules.adjust(books.stock, command.delta)
    if isinstance(after, Refused):
        short = Rejection(
            type="stock-below-zero",
            field="delta",
            detail=f"{command.sku} has {books.stock.on_hand} units on hand: "
            f"a change of {command.delta} would go below zero.",
        )
        books.serve_queue()
        outcome = StockOutcome(command_id=cause.id, accepted=False, rejection=short, level=books.level())
    else:
        books.stock = after
        books.tell(Move(kind="adjusted", quantity=command.delta, stock=after, reason=command.reason), None, None)
        books.serve_queue()
        outcome = StockOutcome(command_id=cause.id, accepted=True, level=books.level())
    books.state.set(entry, {"body_hash": command.body_hash, "outcome": outcome.model_dump(mode="json")}, ttl=kept)
    books.reply(outcome)


def _message(cause: Message[Any], payload: Payload, nth: str = "", order_id: str | None = None) -> Message[Any]:
    return Message(
        id=str(uuid5(NAMESPACE_URL, f"oms:{type(payload).__name__}:{cause.id}{nth}")),
        at=cause.at,
        actor=cause.actor if payload.family == "inventory.events" else "system:inventory",
        correlation_id=cause.correlation_id,
        causation_id=cause.id,
        order_id=order_id or cause.order_id,
        data=payload,
    )
