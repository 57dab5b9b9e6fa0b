"""Random lives of orders, walked by hypothesis through every processor: whoever can do something does it at any moment,
in the middle of a saga too, under policies that are drawn. After every step the books (tests/simulation/lives.py) hold:
stock, money and promotion uses are conserved, an order is sound after each event; whenever all is quiet, everybody
agrees; and in the end nothing hangs.

OMS_LIVES=1000 walks so many lives, other ones each time (`make chaos`); without it a few, always the same.
"""

from __future__ import annotations

import itertools
import os
import random
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from schemas import commands as c
from schemas.base import Payload
from schemas.order import Order, OrderStatus
from schemas.policy import Policy
from tests.simulation.lives import DAY, MANY, PROMOTIONS, SKUS, Life
from tests.simulation.logistics import Logistics
from tests.support.examples import POLICY, address

S = OrderStatus
LIVES = int(os.environ.get("OMS_LIVES", "0"))
SEED = st.integers(0, 2**24 - 1)  # of larger numbers hypothesis draws mostly small ones
WAITS = [
    *(1.0,) * 6,
    *(25.0,) * 4,  # the books of money are compared
    POLICY.edits.timeout.total_seconds() + 1,
    POLICY.payment.timeout.total_seconds() + 1,
    POLICY.edits.modification_window.total_seconds() + 1,
    *(DAY + 1,) * 3,
    6 * DAY,
    8 * DAY,
    31 * DAY,
]

Statuses = frozenset[str]
ANY: Statuses = frozenset()
DRAFT: Statuses = frozenset({S.DRAFT})
UNPAID: Statuses = frozenset({S.PENDING_PAYMENT})
CHANGEABLE: Statuses = frozenset({S.DRAFT, S.PENDING_PAYMENT, S.PAYMENT_CONFIRMED})
CANCELLABLE: Statuses = frozenset({S.PENDING_PAYMENT, S.PAYMENT_CONFIRMED, S.PROCESSING})
PAID: Statuses = frozenset({S.PAYMENT_CONFIRMED, S.PROCESSING, S.SHIPPED, S.DELIVERED})
DELIVERED: Statuses = frozenset({S.DELIVERED, S.REFUND_REQUESTED})
RETURNING: Statuses = frozenset({S.REFUND_REQUESTED})

Choices = dict[str, Sequence[Any]]

WHICH = range(8)
LINE = range(4)
UNITS = range(1, 5)
CARD = ["pm_card_visa"] * 6 + ["pm_card_chargeDeclined", "pm_sandbox_timeout"]
COUNTRY = ["DE", "FR", "GB"]
METHOD = ["standard", "express"]
CODES = [(), (), (), *((code,) for code in PROMOTIONS), ("TEN", "POST"), ("FIVER", "THIRD")]
NEW: Choices = {
    "skus": [*((sku,) for sku in SKUS), *itertools.permutations(SKUS, 2)],
    "units": UNITS,
    "submit": [True, True, True, True, False],
    "customer": ["42", "43"],
    "codes": CODES,
    "card": CARD,
    "country": COUNTRY,
    "method": METHOD,
}
ACTS: dict[str, tuple[int, Statuses, Choices]] = {
    # customers
    "creates": (5, ANY, NEW),
    "submits": (2, DRAFT, {"n": WHICH, "card": CARD}),
    "pays": (2, UNPAID, {"n": WHICH, "card": CARD}),
    "changes_units": (4, CHANGEABLE, {"n": WHICH, "line": LINE, "units": UNITS}),
    "adds": (3, CHANGEABLE, {"n": WHICH, "sku": [*SKUS], "units": UNITS}),
    "removes": (2, CHANGEABLE, {"n": WHICH, "line": LINE}),
    "applies": (3, CHANGEABLE, {"n": WHICH, "code": [*PROMOTIONS]}),
    "takes_off": (2, CHANGEABLE, {"n": WHICH, "code": [*PROMOTIONS]}),
    "moves": (2, CHANGEABLE, {"n": WHICH, "country": COUNTRY, "billing": [False, False, True]}),
    "hurries": (2, CHANGEABLE, {"n": WHICH, "method": METHOD}),
    "cancels": (1, CANCELLABLE, {"n": WHICH}),
    "cancels_units": (4, CANCELLABLE, {"n": WHICH, "line": LINE, "units": UNITS}),
    "wants_to_return": (6, DELIVERED, {"n": WHICH, "line": LINE, "units": UNITS,
                            "reason": ["changed_mind", "defective"], "exchange": [None, None, "PEN", "LAMP"]}),
    "answers_the_survey": (1, DELIVERED, {"n": WHICH}),
    "asks_again": (1, ANY, {}),
    # staff
    "holds": (1, CHANGEABLE, {"n": WHICH}),
    "releases": (3, CHANGEABLE, {"n": WHICH}),
    "gives_back": (3, PAID, {"n": WHICH, "line": LINE, "units": range(3), "shipping": [False, True],
                       "amount": [0, 100, 701]}),
    "handles_a_return": (8, RETURNING, {"n": WHICH, "which": range(3), "condition": [*POLICY.returns.conditions]}),
    "meddles_with_a_return": (2, RETURNING, {"n": WHICH, "which": range(3),
                                  "step": ["deny", "receive", "inspect", "comes_back"]}),
    "counts_stock": (2, ANY, {"sku": [*SKUS], "delta": range(-3, 8)}),
    "changes_a_promotion": (1, ANY, {"code": [*PROMOTIONS], "limit": [None, 0, 1, 2], "each": [None, 1]}),
    "tries_again": (2, ANY, {"n": WHICH}),
    # the outside
    "provider_changes_its_mood": (2, ANY, {"mood": [None, None, None, None, "declined", "processing"]}),
    "provider_refuses": (1, ANY, {"what": [(), (), ("RefundPayment",), ("CapturePayment",), ("VoidPayment",)]}),
    "provider_decides": (3, ANY, {"paid": [True, False]}),
    "carrier_refuses": (1, ANY, {"n": WHICH}),
    "outside_repeats": (2, ANY, {"topic": ["payment.results", "shipping.results", "warehouse.events", "carrier.events",
                                      "payment.feed"], "n": range(50)}),
    "worker_dies": (1, ANY, {"worker": ["payment", "logistics"], "n": range(1, 6)}),
    "process_stops": (4, ANY, {"name": ["placement", "fulfilment", "inventory", "promotion", "payment", "logistics",
                                   "returns", "reconciliation", "timers", "fraud", "order"]}),
    # time
    "rests": (4, ANY, {}),
    "time_passes": (4, ANY, {"seconds": WAITS}),
    "clock_strikes": (4, ANY, {"seconds": WAITS}),
    "days_pass": (5, ANY, {"days": range(1, 4)}),
}  # fmt: skip
"""What may happen: how often, mostly to orders in which statuses, and with what."""

STEPS = [*(MANY,) * 3, 0, 2, 5, 10, 20, 40]


def drawn(choices: Choices, dice: random.Random) -> dict[str, Any]:
    return {name: dice.choice(values) for name, values in choices.items()}


RULES = {
    "payment": st.fixed_dictionaries(
        {"capture": st.sampled_from(["on_submission", "on_shipment"]), "max_attempts": st.sampled_from([1, 3])}
    ),
    "fraud": st.sampled_from(
        [
            {"enabled": False},
            {"amounts": {"EUR": 15000}, "unreviewed": "cancel"},
            {"amounts": {"EUR": 15000}, "unreviewed": "release"},
            {"amounts": {"EUR": 15000}, "reject_at": 50},
        ]
    ),
    "fulfilment": st.fixed_dictionaries(
        {
            "split": st.sampled_from(["ship_complete", "ship_available"]),
            "lost": st.sampled_from(["cancel", "reship"]),
            "undeliverable": st.sampled_from(["cancel", "reship"]),
            "delivery_attempts": st.sampled_from([3, 1]),
        }
    ),
    "returns": st.fixed_dictionaries(
        {"auto_approve": st.booleans(), "restocking_fee_percent": st.sampled_from([0, 15])}
    ),
}
SHARES = {name: st.sampled_from([0, 0, 0.3, 0.7]) for name in ("short", "fail", "lose", "back", "repeats", "disorder")}


def policy(**changes: dict[str, Any]) -> Policy:
    """The shipped one with these changes."""
    rules = POLICY.model_dump()
    return Policy.model_validate({**rules, **{name: {**rules[name], **values} for name, values in changes.items()}})


class Lives(RuleBasedStateMachine):
    """One rule for all acts, and dice of its own: left to itself, hypothesis switches most rules off in each life, and
    does in it the same again and again."""

    life: Life
    sound = False
    stopped: dict[str, int]
    wanted: Statuses

    @initialize(
        rules=st.fixed_dictionaries(RULES),
        outside=st.fixed_dictionaries(SHARES),
        units=st.sampled_from([8, 30, 100, 3]),
        orders=st.integers(1, 4),
        seed=SEED,
    )
    def begins(
        self,
        rules: dict[str, Any],
        outside: dict[str, Any],
        units: int,
        orders: int,
        seed: int,
    ) -> None:
        self.life = Life(seed, policy(**rules), Logistics(seed, **outside), units)
        self.stopped = {}
        dice = random.Random(seed)
        for _ in range(orders):
            self.creates(**drawn(NEW, dice))
        self.life.go(3, seed)
        self.sound = True

    @rule(seed=SEED)
    def happens(self, seed: int) -> None:
        """Somebody does something, and the processors go on: so many messages far, or until all is done."""
        dice = random.Random(seed)
        there = {order.status for order in self.life.orders}
        anything = dice.random() < 0.1
        able = {name: often for name, (often, wants, _) in ACTS.items() if anything or not wants or wants & there}
        (name,) = dice.choices(list(able), list(able.values()))
        _, wants, choices = ACTS[name]
        facts, steps = drawn(choices, dice), dice.choice(STEPS)
        self.wanted = ANY if anything else wants
        note(f"  {name}{facts}, {steps} steps")
        self.sound = False
        self.stopped = {other: acts - 1 for other, acts in self.stopped.items() if acts}
        self.life.world.frozen = set(self.stopped)
        getattr(self, name)(**facts)
        self.life.go(steps, seed)
        self.sound = True

    def teardown(self) -> None:
        if self.sound:
            self.life.rest()
            self.life.end()

    # Customers

    def creates(
        self, skus: tuple[str, ...], units: int, submit: bool, customer: str, codes: tuple[str, ...], card: str,
        country: str, method: str,
    ) -> None:  # fmt: skip
        lines = tuple(c.NewLine(quote=SKUS[sku], quantity=max(1, units - i)) for i, sku in enumerate(skus))
        payload = c.CreateOrder(
            customer_id=customer,
            currency="EUR",
            lines=lines,
            shipping_address=address(country),
            billing_address=address(),
            shipping_method=method,
            promo_codes=codes,
            promotions=tuple(PROMOTIONS[code][0] for code in codes),
            payment_token=card,
            submit=submit,
        )
        self.life.send(self.life.new_id(), payload, f"customer:{customer}")

    def submits(self, n: int, card: str) -> None:
        if order := self._one(n):
            payload = c.SubmitOrder(
                payment_token=card,
                quotes=tuple(SKUS[line.sku] for line in order.lines),
                promotions=tuple(PROMOTIONS[code][0] for code in order.promo_codes),
            )
            self._customer(order, payload)

    def pays(self, n: int, card: str) -> None:
        if order := self._one(n):
            self._customer(order, c.PayOrder(payment_token=card))

    def changes_units(self, n: int, line: int, units: int) -> None:
        if order := self._one(n):
            self._changes(order, c.ChangeQuantity(line_id=_line(order, line), quantity=units))

    def adds(self, n: int, sku: str, units: int) -> None:
        if order := self._one(n):
            self._changes(order, c.AddItem(line=c.NewLine(quote=SKUS[sku], quantity=units)))

    def removes(self, n: int, line: int) -> None:
        if order := self._one(n):
            self._changes(order, c.RemoveItem(line_id=_line(order, line)))

    def applies(self, n: int, code: str) -> None:
        if order := self._one(n):
            self._changes(order, c.ApplyPromotion(terms=PROMOTIONS[code][0]))

    def takes_off(self, n: int, code: str) -> None:
        if order := self._one(n):
            self._changes(order, c.RemovePromotion(code=code))

    def moves(self, n: int, country: str, billing: bool) -> None:
        change = c.ChangeBillingAddress if billing else c.ChangeShippingAddress
        if order := self._one(n):
            self._changes(order, change(address=address(country)))

    def hurries(self, n: int, method: str) -> None:
        if order := self._one(n):
            self._changes(order, c.ChangeShippingMethod(shipping_method=method))

    def cancels(self, n: int) -> None:
        if order := self._one(n):
            self._customer(order, c.CancelOrder(reason="changed_mind"))

    def cancels_units(self, n: int, line: int, units: int) -> None:
        if order := self._one(n):
            some = c.ItemQuantity(line_id=_line(order, line), quantity=units)
            self._customer(order, c.CancelOrder(reason="changed_mind", items=(some,)))

    def wants_to_return(self, n: int, line: int, units: int, reason: str, exchange: str | None) -> None:
        if order := self._one(n):
            instead = SKUS[exchange] if exchange else None
            wish = c.ReturnWish(line_id=_line(order, line), quantity=units, reason=reason, exchange=instead)
            self._customer(order, c.RequestReturn(items=(wish,)))

    def answers_the_survey(self, n: int) -> None:
        if order := self._one(n):
            self._customer(order, c.AnswerSurvey(score=4))

    def asks_again(self) -> None:
        self.life.send_again()

    # Staff

    def holds(self, n: int) -> None:
        if order := self._one(n):
            self._staff(order, c.HoldOrder(kind="staff", reason="a call"))

    def releases(self, n: int) -> None:
        if order := self._one(n):
            self._staff(order, c.ReleaseOrder())

    def gives_back(self, n: int, line: int, units: int, shipping: bool, amount: int) -> None:
        if order := self._one(n):
            items = (c.ItemQuantity(line_id=_line(order, line), quantity=units),) if units else ()
            self._staff(order, c.RefundOrder(reason="goodwill", items=items, shipping=shipping, amount=amount or None))

    def handles_a_return(self, n: int, which: int, condition: str) -> None:
        """The next step."""
        order = self._one(n)
        if order is None or not order.returns:
            return
        found = order.returns[which % len(order.returns)]
        match found.status:
            case "requested":
                self._staff(order, c.ApproveReturn(rma=found.rma))
            case "approved":
                self.life.comes_back(order.order_id, found.rma)
            case "received":
                looked = tuple(c.Inspected(line_id=item.line_id, condition=condition) for item in found.items)
                self._staff(order, c.InspectReturn(rma=found.rma, items=looked))

    def meddles_with_a_return(self, n: int, which: int, step: str) -> None:
        """Any step, possible or not."""
        order = self._one(n)
        if order is None or not order.returns:
            return
        found = order.returns[which % len(order.returns)]
        if step == "comes_back":
            self.life.comes_back(order.order_id, found.rma)
            return
        payloads: dict[str, Payload] = {
            "deny": c.DenyReturn(rma=found.rma, reason="worn"),
            "receive": c.ReceiveReturn(rma=found.rma),
            "inspect": c.InspectReturn(rma=found.rma),
        }
        self._staff(order, payloads[step])

    def counts_stock(self, sku: str, delta: int) -> None:
        self.life.adjust(sku, delta)

    def changes_a_promotion(self, code: str, limit: int | None, each: int | None) -> None:
        self.life.put(code, PROMOTIONS[code][0], limit, each)

    def tries_again(self, n: int) -> None:
        self.life.retry(n)

    # The outside

    def provider_changes_its_mood(self, mood: str | None) -> None:
        self.life.bank.mood = mood

    def provider_refuses(self, what: tuple[str, ...]) -> None:
        self.life.bank.refuses = set(what)

    def provider_decides(self, paid: bool) -> None:
        self.life.bank.decide(paid)

    def carrier_refuses(self, n: int) -> None:
        if order := self._one(n):
            self.life.world.logistics.refuses ^= {order.order_id}

    def outside_repeats(self, topic: str, n: int) -> None:
        self.life.repeat(topic, n)

    def worker_dies(self, worker: str, n: int) -> None:
        self.life.work_again(worker, n)

    def process_stops(self, name: str) -> None:
        """For a while."""
        self.stopped[name] = 3
        self.life.world.frozen.add(name)

    # Time

    def rests(self) -> None:
        self.stopped = {}
        self.life.rest()

    def time_passes(self, seconds: float) -> None:
        self.life.pass_time(seconds)

    def clock_strikes(self, seconds: float) -> None:
        """Other things happen before all that follows from it has."""
        self.life.world.tick(seconds)

    def days_pass(self, days: int) -> None:
        """Quietly: orders are paid, packed and delivered."""
        self.rests()
        for _ in range(days):
            self.life.pass_time(DAY + 1)
        self.rests()

    # Small parts

    def _one(self, n: int) -> Order | None:
        return self.life.order(n, *self.wanted)

    def _customer(self, order: Order, payload: Payload) -> None:
        self.life.send(order.order_id, payload, f"customer:{order.customer_id}")

    def _staff(self, order: Order, payload: Payload) -> None:
        self.life.send(order.order_id, payload, "staff:clerk")

    def _changes(self, order: Order, payload: Payload) -> None:
        """By whom, and whether only to look what it would lead to, does not matter much."""
        self.life.send_change(order, payload)


def _line(order: Order, n: int) -> str:
    return order.lines[n % len(order.lines)].line_id


TestLives = Lives.TestCase
TestLives.settings = settings(
    max_examples=LIVES or 25,
    stateful_step_count=40,
    deadline=None,
    derandomize=not LIVES,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)
