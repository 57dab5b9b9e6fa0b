"""Reconciliation, pure: what an order says about money, held against what the provider reports by itself.

Money moves under an id that we gave it: the payment of an attempt, a capture of an authorization, a refund. For each
such movement the order says that it asked for it and that it happened (booked), and the provider that it happened
(reported). The two sides come over topics that keep no order among each other, so a side that is missing is waited for:
one that still is at the second look, 20 seconds after the first, which is 20 seconds after the movement became known,
is an exception. At the first look, what the order waits for and the provider has done is asked for again. What can't
come right by waiting is an exception at once. An exception resolves itself when the sides agree after all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from uuid_utils import NAMESPACE_URL, uuid5

from schemas import events as e
from schemas import payment as p
from schemas.base import Event, Instant, Message, Model, Payload
from schemas.operations import ExceptionOpened, ExceptionResolved
from schemas.policy import PaymentRules
from schemas.timers import SetTimer

LOOK_AFTER = timedelta(seconds=20)
LOOKS = 2
WAITING = 100
"""Movements of one order that may wait for their other side; one more is raised at once."""
REFERENCES = 10
"""References of the provider's that are kept of one movement."""

Kind = Literal["payment", "capture", "refund"]
Cause = Event[Any] | Message[Any]


class Movement(Model):
    """One movement of money, by the id that we gave it. Amounts are minor units; None: that side did not say so.

    authorized: reported as reserved only. voided: reported as given free. captured: what the provider reported as
    captured of this authorization. again: references of the provider under the same id, besides the first. looks: how
    often it was found one-sided. raised: the kinds of its exceptions that are open."""

    kind: Kind
    reference: str
    attempt_id: str
    asked: int | None = None
    booked: int | None = None
    reported: int | None = None
    currency: str | None = None
    reported_currency: str | None = None
    provider_ref: str | None = None
    again: tuple[str, ...] = ()
    authorized: bool = False
    voided: bool = False
    captured: int = 0
    looks: int = 0
    raised: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.reference}"


class Watch(Model):
    """Movements of an order that were one-sided, and when each is looked at; the one timer that is set; how many were
    set before."""

    due: dict[str, Instant] = {}
    timer: Instant | None = None
    timers: int = 0


@dataclass(frozen=True)
class Fact:
    """What a message says about one movement."""

    says: Literal["asked", "booked", "reported", "voided"]
    kind: Kind
    reference: str
    attempt_id: str
    amount: int
    currency: str | None = None
    provider_ref: str | None = None
    authorized: bool = False

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.reference}"


@dataclass(frozen=True)
class Send:
    """Something to send; its id derives from `name`. `again`: a command that an exception offers to send again."""

    topic: str
    name: str
    payload: Payload
    again: Payload | None = None


@dataclass
class Outcome:
    """What a message leads to: movements that changed (by name), the watch, and what has to be sent."""

    changed: dict[str, Movement] = field(default_factory=dict)
    watch: Watch = field(default_factory=Watch)
    sends: list[Send] = field(default_factory=list)


def concerns(cause: Cause) -> bool:
    """Whether the message says anything about money. Imported history does not: nothing was charged for it here."""
    return isinstance(cause.data, p.Reconcile) or bool(facts(cause))


def names(watch: Watch, cause: Cause) -> tuple[str, ...]:
    """The movements that `react` needs to know."""
    if isinstance(cause.data, p.Reconcile):
        return tuple(watch.due)
    found = facts(cause)
    return tuple(dict.fromkeys([*(fact.name for fact in found), *(_payment_of(fact) for fact in found)]))


def react(
    order_id: str, known: Mapping[str, Movement], watch: Watch, cause: Cause, now: datetime, rules: PaymentRules
) -> Outcome:
    """What becomes of the movements that `names` gave. `now` is the broker's time of the message."""
    outcome = Outcome(watch=watch)
    if isinstance(cause.data, p.Reconcile):
        _look(known, now, rules, outcome)
    else:
        for fact in facts(cause):
            _hear(known, fact, outcome)
        for movement in list(outcome.changed.values()):
            _wait_for_the_other_side(movement, now, rules, outcome)
    for movement in list(outcome.changed.values()):
        _raise_and_resolve(order_id, movement, rules, outcome)
    _set_timer(order_id, isinstance(cause.data, p.Reconcile), now, outcome)
    return outcome


def facts(cause: Cause) -> list[Fact]:
    """What the message says about money."""
    if isinstance(cause, Event) and cause.imported:
        return []
    match cause.data:
        case e.OrderPaymentRequested() as d:
            return [Fact("asked", "payment", d.attempt_id, d.attempt_id, d.amount, d.currency)]
        case e.OrderEditRequested(edit=edit) as d if edit.attempt_id is not None and d.amount > 0:
            return [Fact("asked", "payment", edit.attempt_id, edit.attempt_id, d.amount, d.currency)]
        case e.OrderPaymentConfirmed() as d:
            return [Fact("booked", "payment", d.attempt_id, d.attempt_id, d.amount)]
        case e.OrderEditCompleted(attempt_id=str(attempt_id)) as d:
            return [Fact("booked", "payment", attempt_id, attempt_id, d.amount)]
        case e.OrderPaymentVoidRequested(attempt_id=attempt_id):
            # The order knows of the money that it gives free. Of an authorization that came too late nothing else says.
            return [Fact("voided", "payment", attempt_id, attempt_id, 0)]
        case e.OrderPaymentCaptureRequested() as d:
            return [Fact("asked", "capture", d.capture_id, d.attempt_id, d.amount, d.currency)]
        case e.OrderPaymentCaptured() as d:
            return [Fact("booked", "capture", d.capture_id, d.attempt_id, d.amount)]
        case e.OrderRefundInitiated() as d:
            asked = Fact("asked", "refund", d.refund_id, d.attempt_id, d.amount, d.currency)
            if d.captured_late is None:
                return [asked]
            return [Fact("booked", "payment", d.attempt_id, d.attempt_id, d.amount), asked]
        case e.OrderRefundCompleted() as d:
            return [Fact("booked", "refund", d.refund_id, "", d.amount)]
        case p.ProviderReported() as d:
            return _reported(d)
        case _:
            return []


def _reported(said: p.ProviderReported) -> list[Fact]:
    attempt_id = said.attempt_id or said.reference
    match said.kind:
        case "captured" | "authorized":
            kind: Kind = "payment"
        case "capture":
            kind = "capture"
        case "refunded":
            kind = "refund"
        case "voided":
            return [Fact("voided", "payment", attempt_id, attempt_id, said.amount)]
        case _:  # declined: nothing moved
            return []
    authorized = said.kind == "authorized"
    return [
        Fact("reported", kind, said.reference, attempt_id, said.amount, said.currency, said.provider_ref, authorized)
    ]


def _payment_of(fact: Fact) -> str:
    return f"payment:{fact.attempt_id}" if fact.kind == "capture" else fact.name


def _hear(known: Mapping[str, Movement], fact: Fact, outcome: Outcome) -> None:
    before = outcome.changed.get(fact.name) or known.get(fact.name) or _unheard(fact.kind, fact.reference, fact)
    after = before.model_copy(update=_changes(before, fact))
    if after == before:
        return
    outcome.changed[after.name] = after
    if fact.kind == "capture" and fact.says == "reported" and before.reported is None:
        name = _payment_of(fact)
        payment = outcome.changed.get(name) or known.get(name) or _unheard("payment", fact.attempt_id, fact)
        outcome.changed[name] = payment.model_copy(update={"captured": payment.captured + fact.amount})


def _unheard(kind: Kind, reference: str, fact: Fact) -> Movement:
    return Movement(kind=kind, reference=reference, attempt_id=fact.attempt_id)


def _changes(before: Movement, fact: Fact) -> dict[str, Any]:
    """The first word counts: events are never taken back, and reports come several times."""
    match fact.says:
        case "asked" if before.asked is None:
            return {"asked": fact.amount, "currency": fact.currency, "attempt_id": fact.attempt_id}
        case "booked" if before.booked is None:
            return {"booked": fact.amount}
        case "voided":
            return {"voided": True}
        case "reported":
            return _report(before, fact)
        case _:
            return {}


def _report(before: Movement, fact: Fact) -> dict[str, Any]:
    if before.reported is None or (before.provider_ref == fact.provider_ref and before.authorized > fact.authorized):
        return {
            "reported": fact.amount,
            "reported_currency": fact.currency,
            "provider_ref": fact.provider_ref,
            "authorized": fact.authorized,
            "attempt_id": before.attempt_id or fact.attempt_id,
        }
    known = (before.provider_ref, *before.again)
    if fact.provider_ref is None or fact.provider_ref in known or len(known) >= REFERENCES:
        return {}
    return {"again": (*before.again, fact.provider_ref)}


def one_sided(movement: Movement, rules: PaymentRules) -> str | None:
    """The kind of exception that a movement is if its other side does not come."""
    refund = movement.kind == "refund"
    if movement.reported is not None and movement.booked is None:
        given_free = movement.authorized and movement.voided
        return None if given_free else "refund_unknown" if refund else "payment_without_order"
    if movement.booked and movement.reported is None and rules.feed:  # nobody reports that nothing (0) was paid
        return None if movement.voided else "refund_unknown" if refund else "order_without_payment"
    return None


def contradictions(movement: Movement) -> frozenset[str]:
    """What no waiting mends."""
    found = set()
    if movement.again:
        found.add("refund_unknown" if movement.kind == "refund" else "captured_twice")
    if movement.asked is not None and movement.captured > movement.asked:
        found.add("captured_twice")
    if movement.reported is not None:
        amounts = {movement.asked, movement.booked, movement.reported} - {None}
        currencies = {movement.currency, movement.reported_currency} - {None}
        if len(amounts) > 1 or len(currencies) > 1:
            found.add("amount_differs")
    return frozenset(found)


def _wait_for_the_other_side(movement: Movement, now: datetime, rules: PaymentRules, outcome: Outcome) -> None:
    watch = outcome.watch
    if movement.looks or movement.name in watch.due or one_sided(movement, rules) is None:
        return
    if len(watch.due) >= WAITING:
        outcome.changed[movement.name] = movement.model_copy(update={"looks": LOOKS})
        return
    outcome.watch = watch.model_copy(update={"due": {**watch.due, movement.name: now + LOOK_AFTER}})


def _look(known: Mapping[str, Movement], now: datetime, rules: PaymentRules, outcome: Outcome) -> None:
    """What was one-sided 20 seconds ago: is it still? The first time it is healed if it can be, the second raised."""
    due = {}
    for name, at in outcome.watch.due.items():
        movement = known[name]
        if one_sided(movement, rules) is None:
            continue
        if at > now:
            due[name] = at
            continue
        looks = movement.looks + 1
        outcome.changed[name] = movement.model_copy(update={"looks": looks})
        if looks < LOOKS:
            due[name] = now + LOOK_AFTER
            again = _ask_again(movement)
            if again is not None:
                outcome.sends.append(Send("payment.commands", f"heal:{name}", again))
    outcome.watch = outcome.watch.model_copy(update={"due": due})


def _ask_again(movement: Movement) -> Payload | None:
    """The command that makes the payment worker say again what the provider has done, where the order waits for it.
    Ids make the provider do nothing twice."""
    if movement.asked is None or movement.reported is None or movement.booked is not None:
        return None
    attempt_id, amount = movement.attempt_id, movement.asked
    currency = movement.currency or movement.reported_currency or ""
    match movement.kind:
        case "payment":
            return p.QueryPayment(attempt_id=attempt_id, amount=amount, currency=currency, asked=1)
        case "capture":
            return p.CapturePayment(
                attempt_id=attempt_id, capture_id=movement.reference, amount=amount, currency=currency
            )
        case "refund":
            return p.RefundPayment(
                refund_id=movement.reference, attempt_id=attempt_id, amount=amount, currency=currency
            )


def _raise_and_resolve(order_id: str, movement: Movement, rules: PaymentRules, outcome: Outcome) -> None:
    """Open the exceptions that are due and resolve those that came right."""
    kinds = set(contradictions(movement))
    missing = one_sided(movement, rules)
    if missing is not None and movement.looks >= LOOKS:
        kinds.add(missing)
    if kinds == set(movement.raised):
        return
    for kind in sorted(kinds - set(movement.raised)):
        outcome.sends.append(_open(order_id, movement, kind))
    for kind in sorted(set(movement.raised) - kinds):
        resolved = ExceptionResolved(
            exception_id=_exception_id(order_id, movement, kind), resolution="both sides agree now"
        )
        outcome.sends.append(Send("exceptions", f"resolve:{kind}:{movement.name}", resolved))
    outcome.changed[movement.name] = movement.model_copy(update={"raised": tuple(sorted(kinds))})


_DETAILS = {
    "payment_without_order": "The provider took or reserved money that the order does not know of.",
    "order_without_payment": "The order counts money as paid that the provider never reported.",
    "captured_twice": "The provider took money more than once, or more than the order asked for.",
    "amount_differs": "The provider reports another amount or currency than the order.",
    "refund_unknown": "A refund that only one side knows of, or that was made more than once.",
}


def _open(order_id: str, movement: Movement, kind: str) -> Send:
    said: dict[str, int | str | None] = {
        "movement": movement.kind,
        "reference": movement.reference,
        "attempt_id": movement.attempt_id or None,
        "provider_ref": ", ".join(ref for ref in (movement.provider_ref, *movement.again) if ref) or None,
        "asked": movement.asked,
        "booked": movement.booked,
        "reported": movement.reported,
        "captured": movement.captured or None,
        "currency": movement.currency,
        "reported_currency": movement.reported_currency,
    }
    opened = ExceptionOpened(
        exception_id=_exception_id(order_id, movement, kind),
        kind=kind,
        owner="payments",
        detail=_DETAILS[kind],
        facts={name: str(value) for name, value in said.items() if value is not None},
    )
    return Send("exceptions", f"raise:{kind}:{movement.name}", opened, again=_ask_again(movement))


def _exception_id(order_id: str, movement: Movement, kind: str) -> str:
    """Derived: references are the provider's words, and may hold anything."""
    return str(uuid5(NAMESPACE_URL, f"oms:reconciliation:{order_id}:{kind}:{movement.name}"))


def _set_timer(order_id: str, fired: bool, now: datetime, outcome: Outcome) -> None:
    """One timer at a time; what becomes due later is looked at after it fired. Overdue by too much, it is set again."""
    watch = outcome.watch
    if watch.timer is not None and now < watch.timer + (timedelta() if fired else LOOK_AFTER):
        return
    if not watch.due:
        outcome.watch = watch if watch.timer is None else watch.model_copy(update={"timer": None})
        return
    due_at = min(watch.due.values())
    number = watch.timers + 1
    timer = SetTimer(timer_id=f"{order_id}:reconcile", kind="reconcile", due_at=due_at, generation=str(number))
    outcome.watch = watch.model_copy(update={"timer": due_at, "timers": number})
    outcome.sends.append(Send("timer.commands", f"timer:{number}", timer))
