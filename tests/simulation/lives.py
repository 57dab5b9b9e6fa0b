"""Random lives: everything that customers, staff and the outside can do to a few orders at any moment, and the books
that are kept beside the system: they read what is written, check it record by record (`Books`), and once nobody has
anything to do they compare stock, money, promotions and parcels with what the orders say (`Life.rest`)."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import uuid5

import orjson

from processors.inventory.processor import RESERVATION, STOCK
from processors.inventory.rules import Reservation, Stock
from processors.kit import Outgoing
from processors.order import drafting
from processors.order.evolve import evolve
from processors.order.pricing import Priced
from processors.order.refunding import share
from processors.returns.saga import exchange_order_id
from schemas import commands as c
from schemas import events as e
from schemas import inventory as i
from schemas import logistics as g
from schemas import payment as p
from schemas import promotion as promo
from schemas.base import Command, Event, Message, Payload
from schemas.operations import DeadLettered, ExceptionOpened, ExceptionResolved
from schemas.order import Order, OrderStatus, Payment, PromotionTerms, Quote
from schemas.policy import Policy
from schemas.replies import CommandOutcome
from tests.simulation.bank import Bank, Charge
from tests.simulation.logistics import Logistics
from tests.simulation.world import World, Written
from tests.support.again import TOPICS, assert_the_same_rows
from tests.support.examples import NAMES, quote

S = OrderStatus
DAY = timedelta(days=1).total_seconds()
MANY = 20_000
"""More messages than any life sets off at once."""

NEXT: dict[str, set[str]] = {
    S.DRAFT: {S.PENDING_PAYMENT, S.CANCELLED},
    S.PENDING_PAYMENT: {S.PAYMENT_CONFIRMED, S.CANCELLED},
    S.PAYMENT_CONFIRMED: {S.PROCESSING, S.CANCELLED},
    S.PROCESSING: {S.SHIPPED, S.CANCELLED},
    S.SHIPPED: {S.DELIVERED, S.PROCESSING},
    S.DELIVERED: {S.REFUND_REQUESTED},
    S.REFUND_REQUESTED: {S.DELIVERED, S.REFUNDED},
    S.REFUNDED: set(),
    S.CANCELLED: set(),
}
"""The epic's state machine."""

SKUS: dict[str, Quote] = {
    "MUG": quote("MUG", 1000),
    "PEN": quote("PEN", 333, tax_category="reduced"),
    "LAMP": quote("LAMP", 4999, category="electronics", backorder=True),
    "TEA": quote("TEA", 250, category="groceries", tax_category="zero"),
}
PROMOTIONS: dict[str, tuple[PromotionTerms, int | None, int | None]] = {
    "TEN": (PromotionTerms(code="TEN", kind="percentage", percent="10"), 2, None),
    "FIVER": (PromotionTerms(code="FIVER", kind="fixed", amounts={"EUR": 500}), None, 1),
    "POST": (PromotionTerms(code="POST", kind="free_shipping"), 1, None),
    "THIRD": (PromotionTerms(code="THIRD", kind="buy_x_get_y", buy=2, get=1), 1, 1),
    "GIFT": (PromotionTerms(code="GIFT", kind="percentage", percent="100", exclusive=True), 1, None),
}
"""Terms, limit, limit for each customer."""


class Strict(Bank):
    """A provider that knows what was asked of it first: nobody may ask for more than there is, but for what was refused
    before and is tried again when the money has gone another way meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: set[str] = set()

    def handle(self, command: Message[Any], now: Any) -> list[Outgoing]:
        """What was done once stays done, however often it is asked for."""
        refuses, kind = self.refuses, type(command.data).__name__
        match command.data:
            case p.RefundPayment(refund_id=name) | p.CapturePayment(capture_id=name) as ask:
                if name in self.refunds or name in self.captures:
                    self.refuses = set()
                elif kind in refuses:
                    self.refused.add(name)
                elif name in self.refused and not self._possible(ask):
                    self.refuses = {kind}
            case p.VoidPayment(attempt_id=name) if self.charges[name].status == "voided":
                self.refuses = set()
        try:
            return super().handle(command, now)
        finally:
            self.refuses = refuses

    def _possible(self, ask: p.RefundPayment | p.CapturePayment) -> bool:
        charge = self.charges[ask.attempt_id]
        if isinstance(ask, p.RefundPayment):
            return charge.refunded + ask.amount <= charge.taken
        return charge.captured + ask.amount <= charge.amount

    @property
    def undecided(self) -> list[Charge]:
        return [charge for charge in self.charges.values() if charge.status == "processing"]

    def decide(self, paid: bool) -> None:
        """The last word on everything that is under way."""
        for charge in self.undecided:
            charge.status = ("authorized" if charge.expires_at else "captured") if paid else "declined"


@dataclass
class Books:
    """What the topics say, checked as it is read: what holds at any moment."""

    world: World
    orders: dict[str, Order] = field(default_factory=dict)
    events: dict[str, list[Event[Any]]] = field(default_factory=lambda: defaultdict(list))
    stock: dict[str, i.StockMoved] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)
    holders: dict[str, dict[str, str | None]] = field(default_factory=lambda: defaultdict(dict))
    limits: dict[str, tuple[int | None, int | None]] = field(default_factory=dict)
    open: dict[str, tuple[str, ExceptionOpened]] = field(default_factory=dict)
    levels: dict[str, i.StockLevel] = field(default_factory=dict)
    states: dict[str, Order] = field(default_factory=dict)
    payments: dict[str, Payload] = field(default_factory=dict)  # attempt id → the provider's last word
    unbooked: set[str] = field(default_factory=set)  # orders of which the carrier refused a parcel
    answered: set[str] = field(default_factory=set)
    dry: set[str] = field(default_factory=set)
    asked: dict[str, int] = field(default_factory=dict)  # attempt, capture or refund id → amount
    _read: dict[tuple[str, int], int] = field(default_factory=lambda: defaultdict(int))

    def read(self) -> None:
        for topic, take in (
            ("order.events", self._event),
            ("inventory.events", self._moved),
            ("promotion.levels", self._promotion),
            ("promotion.events", self._used),
            ("exceptions", self._exception),
            ("dead.letters", self._letter),
            ("order.replies", self._reply),
            ("order.states", self._state),
            ("inventory.levels", self._level),
            ("payment.results", self._payment),
            ("shipping.results", self._booking),
        ):
            for partition, records in enumerate(self.world.log[topic]):
                for record in records[self._read[topic, partition] :]:
                    take(record)
                self._read[topic, partition] = len(records)
        self._bank()

    def _event(self, record: Written) -> None:
        event = record.message
        assert isinstance(event, Event)
        before = self.orders.get(event.order_id)
        assert event.version == (before.version + 1 if before else 1), "versions count without a gap"
        assert event.previous_hash == (before.last_hash if before else ""), "events are chained"
        assert before is None or event.occurred_at >= before.updated_at, "time does not run backwards"
        assert event.causation_id not in self.dry, f"a dry run led to {event.data}"
        assert record.value is not None
        hashed = hashlib.sha256(record.value).hexdigest()
        order = evolve(before, event).model_copy(update={"last_hash": hashed})
        self.orders[event.order_id] = order
        self.events[event.order_id].append(event)
        self._asked_for(event.data)
        try:
            _sound(before, order)
        except AssertionError as error:
            told = [type(x.data).__name__ for x in self.events[event.order_id]]
            raise AssertionError(f"{error}\nafter {event.data!r}\nof {order!r}\nwith {told}") from None

    def _asked_for(self, data: Any) -> None:
        match data:
            case e.OrderPaymentRequested(attempt_id=name, amount=amount):
                self._ask(name, amount)
            case e.OrderEditRequested(edit=edit, amount=amount) if edit.attempt_id is not None:
                self._ask(edit.attempt_id, amount)
            case e.OrderPaymentCaptureRequested(capture_id=name, amount=amount):
                self._ask(name, amount)
            case e.OrderRefundInitiated(refund_id=name, amount=amount):
                self._ask(name, amount)

    def _ask(self, name: str, amount: int) -> None:
        assert name not in self.asked, f"{name} was asked for twice"
        assert amount >= 0, f"{name} is asked for with {amount}"
        self.asked[name] = amount

    def _moved(self, record: Written) -> None:
        """The ledger: each movement follows from the one before, and units neither appear nor vanish."""
        assert record.message is not None
        now: i.StockMoved = record.message.data
        old = self.stock.get(now.sku)
        had = (old.on_hand, old.reserved, old.shipped) if old else (0, 0, 0)
        has = (now.on_hand, now.reserved, now.shipped)
        free, held, out = (a - b for a, b in zip(has, had, strict=True))
        n = now.quantity
        assert now.version == (old.version if old else 0) + 1, f"a movement of {now.sku} is missing"
        assert min(has) >= 0, f"below zero: {now}"
        assert n > 0 or now.kind == "adjusted", now
        right = {
            "adjusted": (free, held, out) == (n, 0, 0),
            "reserved": (free, held, out) == (-n, n, 0),
            "released": (free, held, out) == (n, -n, 0),
            "committed": out == n and free + held == -n and max(free, held) <= 0,
            "lost": out == 0 and free + held == -n and max(free, held) <= 0,
            "restocked": (free, held, out) == (n, 0, -n),
            "written_off": (free, held, out) == (0, 0, -n),
        }
        assert right[now.kind], f"{now} does not follow from {old}"
        self.lost[now.sku] += n if now.kind == "lost" else 0
        if now.reason == "shipped_unreserved":
            self.lost[now.sku] -= n
            assert self.lost[now.sku] >= 0, f"units left that nobody had reserved or lost: {now}"
        self.stock[now.sku] = now

    def _promotion(self, record: Written) -> None:
        assert record.message is not None
        level: promo.PromotionLevel = record.message.data
        self.limits[level.terms.code] = (level.limit, level.limit_per_customer)

    def _used(self, record: Written) -> None:
        assert isinstance(record.message, Message)
        use: promo.PromotionChanged = record.message.data
        holders, order_id = self.holders[use.code], record.message.order_id or ""
        if use.kind == "redeemed":
            assert order_id not in holders, f"{order_id} uses {use.code} twice"
            holders[order_id] = use.customer_id
            assert use.limit is None or use.used <= use.limit, f"beyond its limit: {use}"
            each = self.limits[use.code][1]
            times = sum(customer == use.customer_id for customer in holders.values())
            assert each is None or times <= each, f"beyond the customer's limit: {use}"
        elif use.kind == "released":
            del holders[order_id]
        assert use.used == len(holders), f"{use} has {holders}"

    def _exception(self, record: Written) -> None:
        assert isinstance(record.message, Message)
        match record.message.data:
            case ExceptionOpened(kind="saga_command_refused" | "payment_contradiction" | "stock_refused" as kind) as x:
                raise AssertionError(f"{kind}: {x.detail} {x.facts}")
            case ExceptionOpened() as found:
                self.open[found.exception_id] = (record.message.order_id or "", found)
            case ExceptionResolved(exception_id=name):
                self.open.pop(name, None)

    def _letter(self, record: Written) -> None:
        assert record.message is not None
        letter = record.message.data
        assert not isinstance(letter, DeadLettered), f"{letter.processor} failed at {letter.topic}: {letter.error}"

    def _reply(self, record: Written) -> None:
        assert record.message is not None
        outcome = record.message.data
        if isinstance(outcome, CommandOutcome):
            assert outcome.accepted or (outcome.rejection is not None and 400 <= outcome.rejection.status < 500), (
                outcome
            )
            self.answered.add(outcome.command_id)

    def _state(self, record: Written) -> None:
        assert record.message is not None
        order: Order = record.message.data.order
        self.states[order.order_id] = order

    def _level(self, record: Written) -> None:
        assert record.message is not None
        self.levels[record.message.data.sku] = record.message.data

    def _payment(self, record: Written) -> None:
        assert record.message is not None
        attempt_id = getattr(record.message.data, "attempt_id", None)
        if attempt_id is not None:
            self.payments[attempt_id] = record.message.data

    def _booking(self, record: Written) -> None:
        assert isinstance(record.message, Message)
        if isinstance(record.message.data, g.BookingFailed):
            self.unbooked.add(record.message.order_id or "")

    def _bank(self) -> None:
        """The provider never did anything that no order asked for (the bank itself refuses to do more than it can)."""
        bank = self.world.bank
        for name, charge in bank.charges.items():
            assert charge.amount == self.asked.get(name), f"{charge} of {name}, not {self.asked.get(name)}"
            assert 0 <= charge.refunded <= charge.taken <= charge.amount, charge
        for name, amount in (*bank.captures.items(), *bank.refunds.items()):
            assert amount == self.asked.get(name), f"{name}: {amount}, not {self.asked.get(name)}"


def _sound(before: Order | None, order: Order) -> None:
    """What holds of an order after each event."""
    if before is not None and before.status != order.status:
        assert order.status in NEXT[before.status], f"{before.status} → {order.status}"
    t = order.totals
    assert t.subtotal - t.discount + t.tax + t.shipping == t.total, f"{t} does not add up"
    assert min(t.subtotal, t.discount, t.tax, t.shipping, t.total) >= 0, f"{t} has something below zero"
    assert sum(x.line_total for x in order.lines) == t.subtotal, "the lines are not the subtotal"
    assert sum(x.discount for x in order.lines) == t.discount, "the lines are not the discount"
    assert sum(x.tax for x in order.lines) + t.shipping_tax == t.tax, "the lines are not the tax"
    ids = [x.line_id for x in order.lines]
    assert len(set(ids)) == len(ids) > 0, "each line has a name of its own"
    for x in order.lines:
        assert x.quantity >= 1, x
        assert min(x.cancelled, x.shipped, x.delivered, x.returned) >= 0, x
        assert x.cancelled + x.shipped <= x.quantity, x
        assert x.returned <= x.delivered <= x.shipped, x
        assert x.paid >= 0, x
    for payment in order.payments:
        made = sum(r.amount for r in order.refunds if r.attempt_id == payment.attempt_id and r.counts)
        assert payment.refunded == made, payment
        assert payment.taken + payment.capturing <= payment.amount, payment
        if not any(r.status == "failed" for r in order.refunds):
            assert payment.refunded <= payment.taken, payment
    if not any(r.status == "failed" for r in order.refunds):
        assert order.refunded <= order.captured, "more is given back than was taken"
    for parcel in order.shipments:
        assert parcel.lines or parcel.status == "cancelled", parcel
        assert all(x.quantity > 0 for x in parcel.lines), parcel
    out = Counter[str]()
    for parcel in order.shipments:
        if parcel.status not in ("planned", "picked", "packed", "cancelled", "lost", "returned"):
            out.update({x.line_id: x.quantity for x in parcel.lines})
    assert out == Counter({x.line_id: x.shipped for x in order.lines if x.shipped}), "parcels and lines differ"
    if order.status == S.CANCELLED:
        assert (order.edit, order.hold) == (None, None), "it is over"
    if order.status in (S.DELIVERED, S.REFUND_REQUESTED, S.REFUNDED):
        assert all(x.to_ship == 0 and x.delivered == x.shipped for x in order.lines), "not all has come"
        assert any(x.delivered for x in order.lines), "nothing has come"


def _refusal(record: Written) -> bool:
    return record.message is not None and type(record.message.data).__name__.endswith("Failed")


class Life:
    """A world with its books, and everything that can be done to it."""

    def __init__(self, seed: int, rules: Policy, outside: Logistics, units: int) -> None:
        self.world = World(seed, logistics=outside, rules=rules)
        self.rules = rules
        self.bank = Strict()
        self.world.bank = self.bank
        self.books = Books(self.world)
        self.sent: set[str] = set()
        self.last: tuple[str, Command[Any]] | None = None
        self._count = 0
        self._changes = 0
        for sku in SKUS:
            self.adjust(sku, units)
        for code, (terms, limit, each) in PROMOTIONS.items():
            self.put(code, terms, limit, each)
        self.rest()

    # What people do

    @property
    def orders(self) -> list[Order]:
        self.books.read()
        return list(self.books.orders.values())

    def order(self, n: int, *statuses: str) -> Order | None:
        """One in these statuses, if there is one; else any that there is."""
        orders = self.orders
        found = [x for x in orders if x.status in statuses] or orders
        return found[n % len(found)] if found else None

    def new_id(self) -> str:
        return str(uuid5(NAMES, f"life {self._name()}"))

    def send(
        self, order_id: str, payload: Payload, actor: str, *, dry_run: bool = False, version: int | None = None
    ) -> None:
        command: Command[Any] = Command(
            id=str(uuid5(NAMES, f"command {self._name()}")),
            order_id=order_id,
            at=self.world.now,
            actor=actor,
            correlation_id="life",
            reply_to="gateway",
            expected_version=version,
            dry_run=dry_run,
            data=payload,
        )
        self.sent.add(command.id)
        if dry_run:
            self.books.dry.add(command.id)
        self.last = (order_id, command)
        self.world.write("order.commands", order_id, command)

    def send_change(self, order: Order, payload: Payload) -> None:
        """Most of them by the customer, every seventh by staff; every eighth is only a preview."""
        self._changes += 1
        actor = f"customer:{order.customer_id}" if self._changes % 7 else "staff:clerk"
        self.send(order.order_id, payload, actor, dry_run=self._changes % 8 == 0)

    def send_again(self) -> None:
        """A client that has not heard the answer repeats its request."""
        if self.last is not None:
            self.world.write("order.commands", *self.last)

    def adjust(self, sku: str, delta: int) -> None:
        self._staff(
            "inventory.commands", f"{sku}#main", i.AdjustStock(sku=sku, pool="main", delta=delta, reason="count")
        )

    def put(self, code: str, terms: PromotionTerms, limit: int | None, each: int | None) -> None:
        put = promo.PutPromotion(terms=terms, limit=limit, limit_per_customer=each)
        self._staff("promotion.commands", code, put)

    def comes_back(self, order_id: str, rma: str) -> None:
        """The carrier brings a return."""
        back = g.CarrierReported(
            event_id=self._name(),
            reference=rma,
            kind="return_received",
            tracking_number="T",
            occurred_at=self.world.now,
        )
        self._staff("carrier.events", order_id, back, order_id=order_id)

    def retry(self, n: int) -> None:
        """Somebody has one of the open exceptions tried again."""
        self.books.read()
        found = [x for _, x in self.books.open.values() if x.retry_topic is not None]
        if found:
            again = found[n % len(found)]
            assert again.retry_topic is not None
            self.world.write(again.retry_topic, again.retry_key, again.retry)

    def repeat(self, topic: str, n: int) -> None:
        """The outside says something again that it said before; no refusals, after which it may have done it."""
        said = [x for x in self.world.records(topic) if x.key is not None and not _refusal(x)]
        if said:
            again = said[n % len(said)]
            self.world.write(topic, again.key, again.message)

    def work_again(self, worker: str, n: int) -> None:
        """A worker that died before it had committed does its last commands again."""
        for consumer in self.world.consumers:
            if consumer.name == worker:
                for place, position in consumer.positions.items():
                    consumer.positions[place] = max(0, position - n)

    # Time

    def go(self, steps: int, seed: int) -> None:
        self.world.random.seed(seed)
        for _ in range(steps):
            if not self.world.step():
                break
        else:
            assert steps < MANY, "it never ends"
        self.books.read()

    def rest(self) -> None:
        """Nobody is kept from working, until there is nothing to do: then all books agree."""
        self.world.frozen.clear()
        self.world.settle(MANY)
        self.books.read()
        self._balance()

    def pass_time(self, seconds: float) -> None:
        self.world.tick(seconds)
        self.world.settle(MANY)
        self.books.read()

    def end(self) -> None:
        """Everything that is broken is mended, everything that is missing comes, and months go by: every life ends."""
        self.world.frozen.clear()
        self.bank.mood = None
        self.bank.refuses = set()
        self.world.logistics.refuses = set()
        self.bank.decide(paid=len(self.bank.charges) % 2 == 0)
        for order in self.orders:
            if order.hold is not None:
                self.send(order.order_id, c.ReleaseOrder(), "staff:clerk")
        for sku in SKUS:
            self.adjust(sku, 100)
        self.rest()
        for _ in range(9):
            self.pass_time(DAY + 1)
            for n in range(len(self.books.open)):
                self.retry(n)
            self.rest()
        for _ in range(5):
            self.pass_time(10 * DAY)
            self.rest()
        self._over()
        for topic in TOPICS:
            for record in self.world.records(topic):
                if record.value is not None:
                    assert_the_same_rows(topic, record.value)

    # What is right once nobody has anything to do

    def _balance(self) -> None:
        for order in self.books.orders.values():
            try:
                self._money(order)
                self._edit(order)
                self._price(order)
                self._parcels(order)
                self._exchanges(order)
            except AssertionError as error:
                told = [type(x.data).__name__ for x in self.books.events[order.order_id]]
                found = {p.attempt_id: self.bank.charges.get(p.attempt_id) for p in order.payments}
                raise AssertionError(f"{error}\nof {order!r}\nwith {told}\nand {found}") from None
            assert self.books.states[order.order_id] == order, "order.states is not the fold of the events"
        self._stock()
        self._promotions()
        self._exceptions()
        assert self.sent <= self.books.answered, "somebody got no answer"

    def _money(self, order: Order) -> None:
        charges = {
            p.attempt_id: self.bank.charges[p.attempt_id] for p in order.payments if p.attempt_id in self.bank.charges
        }
        refused = self.refused(order)
        if any(charge.status == "processing" for charge in charges.values()):
            return
        if any(self._unknown(payment) for payment in order.payments):
            return  # the provider has decided, and was not asked yet
        taken = sum(charge.taken for charge in charges.values())
        given = sum(charge.refunded for charge in charges.values())
        assert order.captured == taken, f"the order has {order.captured}, the provider {taken}"
        assert sum(r.amount for r in order.refunds if r.status == "completed") == given, f"given back: {given}"
        assert not any(r.status == "initiated" for r in order.refunds), "a refund is still under way"
        assert not any(x.status == "requested" for q in order.payments for x in q.captures), "a capture is under way"
        reserved = {
            k for k, charge in charges.items() if charge.status == "authorized" and charge.captured < charge.amount
        }
        over = order.status == S.CANCELLED or (
            order.status in (S.DELIVERED, S.REFUND_REQUESTED, S.REFUNDED) and not refused
        )
        if over and not refused:
            assert not reserved, f"money stays reserved: {reserved}"
        if refused:
            assert 0 <= given <= taken
            return
        net = taken - given
        if order.status in (S.DRAFT, S.PENDING_PAYMENT, S.CANCELLED):
            assert net == 0, f"the shop keeps {net}"
        elif self.rules.payment.capture == "on_submission" or over:
            kept = sum(r.amount for r in order.refunds if r.kept)
            returned = sum(r.amount for r in order.refunds if r.rma is not None)
            cancelled = sum(share(x.paid, 0, x.cancelled, x.quantity) for x in order.lines)
            price = order.totals.total - cancelled - returned
            # Units whose price staff gave back cost nothing more when prices rise; what was given back out of goodwill
            # is not given back once more with a unit, or by a lower price.
            for item in (item for r in order.refunds if r.kept for item in r.items):
                line = order.line(item.line_id)
                kept += share(line.paid, 0, min(item.quantity, line.quantity), line.quantity) + 1 if line else 0
            assert max(0, price - kept) <= net <= max(0, price), (
                f"the shop has {net}, and not {price - kept} to {price}"
            )

    def refused(self, order: Order) -> bool:
        """Whether the provider ever refused to give back, to capture or to void."""
        failed = (e.OrderRefundFailed, e.OrderPaymentCaptureFailed)
        if any(isinstance(x.data, failed) for x in self.books.events[order.order_id]):
            return True
        return any(payment.status == "voiding" for payment in order.payments)

    def _unknown(self, payment: Payment) -> bool:
        """The provider gave no answer on it, and the next question is still to come."""
        return isinstance(self.books.payments.get(payment.attempt_id), p.PaymentUnknown)

    def _edit(self, order: Order) -> None:
        if order.edit is None:
            return
        attempt = self.bank.charges.get(order.edit.attempt_id or "")
        over = order.edit.requested_at + self.rules.edits.timeout <= self.world.now  # the next tick says so
        why = order.status == S.PENDING_PAYMENT or order.hold is not None or attempt is not None or over
        assert why, "an edit waits for nothing"

    def _price(self, order: Order) -> None:
        """Whatever was changed in whatever order, it costs what such an order costs."""
        anew = drafting.reprice(order, order.updated_at, self.rules)
        assert isinstance(anew, Priced), anew
        assert (anew.totals, anew.lines) == (order.totals, order.lines), f"it would cost {anew}"

    def _exchanges(self, order: Order) -> None:
        """What is wanted instead of what came back is an order of its own."""
        for event in self.books.events[order.order_id]:
            for item in event.data.items if isinstance(event.data, e.OrderReturnInspected) else ():
                made = exchange_order_id(event.data.rma, item.line_id) in self.books.orders
                assert made == bool(item.exchange and item.refund), f"{item}: {made}"

    def _parcels(self, order: Order) -> None:
        """A parcel that arrived is a parcel that the order knows to have arrived, if it was not called back."""
        for parcel in order.shipments:
            real = self.world.logistics.parcels.get(parcel.shipment_id)
            if real is None or parcel.status == "cancelled":
                continue
            if real.way == "delivered":
                assert parcel.status == "delivered", f"{parcel} has arrived"
            if parcel.status == "delivered":
                assert real.way == "delivered", f"{parcel} has not arrived"
                assert sorted(real.lines, key=str) == sorted(parcel.lines, key=str), "other units arrived"

    def _stock(self) -> None:
        """What the lines of each order hold, wait for and had sent, line by line."""
        held: Counter[str] = Counter()
        waiting: Counter[str] = Counter()
        reservations = self._reservations()
        for (order_id, line_id, sku), line in reservations.items():
            order = self.books.orders[order_id]
            held[sku] += line.held
            waiting[sku] += line.waiting
            found = order.line(line_id)
            over = found is None or order.status in (S.DRAFT, S.CANCELLED)
            due = {0} if over else {found.to_ship}
            if order.edit is not None:
                due |= {x.to_ship for x in order.edit.lines if x.line_id == line_id}
            facts = f"{line_id} of {order_id} ({order.status}): {line!r}\n{found!r}\n{order.edit!r}"
            assert line.held + line.waiting in due, f"reserved is not {due}: {facts}"
            assert not line.waiting or line.lost or SKUS[sku].backorder, f"waits: {facts}"
            sent, back = self._sent(order_id, line_id)
            assert line.shipped - line.extra == sent, f"not {sent} were sent: {facts}"
            assert 0 <= line.returned - back <= line.extra, f"not {back} came back: {facts}"
            assert line.restocking == line.writing_off == 0, facts
        for order in self.books.orders.values():
            if order.status in (S.PAYMENT_CONFIRMED, S.PROCESSING):
                for x in order.lines:
                    known = (order.order_id, x.line_id, x.sku) in reservations
                    assert known or not x.to_ship, f"nothing is reserved for {x}"
        for sku, moved in self.books.stock.items():
            counts = self._counts(sku)
            assert (counts.on_hand, counts.reserved, counts.shipped) == (moved.on_hand, moved.reserved, moved.shipped)
            assert (counts.reserved, counts.waiting) == (held[sku], waiting[sku]), f"{sku}: {counts}"
            assert not (counts.waiting and counts.on_hand), f"{sku} is waited for and there: {counts}"
            level = self.books.levels[sku]
            assert (level.on_hand, level.reserved, level.shipped) == (moved.on_hand, moved.reserved, moved.shipped)
            assert self.books.lost[sku] <= self.world.logistics.written_off[sku], (
                f"{sku}: more is written off than lost"
            )

    def _sent(self, order_id: str, line_id: str) -> tuple[int, int]:
        """Units of a line that left the house, and of those the ones that came back."""
        sent = back = 0
        for event in self.books.events[order_id]:
            match event.data:
                case e.OrderShipmentDispatched(redelivery=False, lines=lines):
                    sent += sum(x.quantity for x in lines if x.line_id == line_id)
                case e.OrderShipmentLost(reason="undeliverable", lines=lines):
                    back += sum(x.quantity for x in lines if x.line_id == line_id)
                case e.OrderReturnInspected(items=items):
                    back += sum(x.quantity for x in items if x.line_id == line_id)
        return sent, back

    def _reservations(self) -> dict[tuple[str, str, str], Reservation]:
        found = {}
        for key, entries in self._state("inventory").items():
            for name, raw in entries.items():
                if name.startswith("reservation:"):
                    _, order_id, line_id = name.split(":")
                    found[order_id, line_id, key.decode().partition("#")[0]] = RESERVATION.read(orjson.loads(raw))
        return found

    def _counts(self, sku: str) -> Stock:
        return STOCK.read(orjson.loads(self._state("inventory")[f"{sku}#main".encode()]["stock"]))

    def _state(self, processor: str) -> dict[bytes, dict[str, bytes]]:
        return next(consumer.state for consumer in self.world.consumers if consumer.name == processor)

    def _promotions(self) -> None:
        """A placed order uses the promotions that take something off, and none that it has not."""
        placed = [order for order in self.books.orders.values() if order.status not in (S.DRAFT, S.CANCELLED)]
        for code, holders in self.books.holders.items():
            must, may = set(), set()
            for order in placed:
                waiting = order.edit.promotions if order.edit is not None else ()
                if any(x.terms.code == code for x in (*order.promotions, *waiting)):
                    may.add(order.order_id)
                if any(x.terms.code == code and x.amount for x in order.promotions):
                    must.add(order.order_id)
            assert must <= set(holders) <= may, f"{code}: {holders}, but {must} have it"

    def _exceptions(self) -> None:
        for order_id, found in self.books.open.values():
            order = self.books.orders[order_id]
            facts = f"{found.kind}: {found.detail} {found.facts}"
            match found.kind:
                case "payment_unknown":
                    assert any(self._unknown(payment) for payment in order.payments), facts
                case "order_stuck":
                    assert order.stuck == found.facts["status"], facts
                case "refund_failed" | "capture_failed":
                    assert self.refused(order), facts
                case "void_failed":
                    assert any(x.status == "voiding" for x in order.payments), facts
                case "authorization_not_renewed":
                    assert self.rules.payment.capture == "on_shipment", facts
                case "booking_failed":
                    assert order_id in self.books.unbooked, facts
                case "shipped_after_cancel":
                    parcel = self.world.logistics.parcels[found.facts["shipment_id"]]
                    assert parcel.way not in ("none", "booked", "cancelled"), facts
                case "return_unexpected":
                    pass  # a carrier may bring what nobody has approved
                case _:
                    raise AssertionError(facts)

    def _over(self) -> None:
        """Nothing hangs when all was done that can be done."""
        looked_after = {order_id for order_id, x in self.books.open.values() if x.kind == "shipped_after_cancel"}
        ends = {S.CANCELLED, S.DELIVERED, S.REFUNDED, S.REFUND_REQUESTED}
        for order in self.books.orders.values():
            told = [type(x.data).__name__ for x in self.books.events[order.order_id]]
            facts = f"\n{order!r}\nwith {told}\nopen: {self.books.open}\n{self.world.logistics.parcels}"
            assert order.edit is None, f"an edit never ended: {facts}"
            assert order.status in ends or order.order_id in looked_after, f"{order.status} for ever: {facts}"
            if order.status == S.REFUND_REQUESTED:
                waits = any(r.status in ("requested", "received") for r in order.returns)
                assert waits or any(r.status == "failed" for r in order.refunds), f"nobody is asked: {facts}"
            assert all(r.status != "approved" for r in order.returns), f"a return never expired: {facts}"

    # Small parts

    def _name(self) -> str:
        self._count += 1
        return str(self._count)

    def _staff(self, topic: str, key: str, payload: Payload, order_id: str | None = None) -> None:
        message: Message[Any] = Message(
            id=str(uuid5(NAMES, f"message {self._name()}")),
            at=self.world.now,
            actor="staff:clerk",
            correlation_id="life",
            order_id=order_id,
            data=payload,
        )
        self.world.write(topic, key, message)
