"""Whole lives of orders, made in memory by the real rules: what an archive is filled with. Pure, seeded.

Each visit of `sandbox.people` becomes the commands that the gateway, the sagas and the timers would send, with the
times that a shop takes; the order processor decides them. A refusal is a mistake here and raises.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any
from uuid import NAMESPACE_URL, uuid5

from processors.order.processor import handle_command
from sandbox.catalogue import SampleProduct, catalogue
from sandbox.people import DECLINES, Persona, Visit, plan
from sandbox.promotions import PROMOTIONS
from schemas import commands as c
from schemas.address import Address, Sealed
from schemas.base import Command, Event, Message, Payload
from schemas.money import to_minor
from schemas.order import Order, OrderState, OrderStatus, PromotionTerms, Quote, ShipmentLine
from schemas.policy import Policy, load

SAGA, FULFILMENT, TIMERS, RETURNS, STAFF = (
    "system:placement",
    "system:fulfilment",
    "system:timers",
    "system:returns",
    "staff:desk",
)
CARRIERS = ("swift", "tortoise", "albatross")


@dataclass
class Life:
    """What the topics would hold of one order. `events`: each with its value as it lies on the topic; `states`: the
    whole order after each command. An unfinished life is that of an order under way."""

    finished: bool
    events: list[tuple[Event[Any], bytes]] = field(default_factory=list)
    states: list[Message[OrderState]] = field(default_factory=list)

    @property
    def order(self) -> Order:
        return self.states[-1].data.order


def lives(count: int, seed: int, week: datetime, unfinished: float = 0.015) -> Iterator[Life]:
    """`count` orders that were created within the week that begins at `week`; of the share `unfinished` the life is
    told up to somewhere in its middle."""
    chance = random.Random(seed)  # noqa: S311 (a plan, not a secret)
    policy = load()
    for visit in plan(seed, count, catalogue()):
        at = week + timedelta(days=chance.randrange(7), hours=chance.triangular(0, 24, 19))
        yield _Telling(visit, at, policy, chance).tell(finished=chance.random() >= unfinished)


class _Told(Exception):
    """The life is told no further."""


class _Telling:
    """One life. Its clock only goes forward."""

    def __init__(self, visit: Visit, at: datetime, policy: Policy, chance: random.Random) -> None:
        self._visit = visit
        self._at = at
        self._policy = policy
        self._chance = chance
        self._state = _Entries()
        self._id = str(uuid5(NAMESPACE_URL, f"oms:archive:{visit.customer.id}:{visit.number}"))
        self._customer = f"customer:{visit.customer.id}"
        self._commands = 0
        self._most = 1_000
        self._parcels = 0
        self._life = Life(True)

    def tell(self, finished: bool) -> Life:
        if not finished:
            self._life.finished = False
            self._most = self._chance.randint(1, 7)
        try:
            self._placing()
            self._fulfilling()
            self._afterwards()
        except _Told:
            pass
        return self._life

    # Until it is paid

    def _placing(self) -> None:
        visit = self._visit
        draft = visit.persona in (Persona.BUILDS_DRAFT, Persona.ABANDONS_DRAFT)
        lines = tuple(c.NewLine(quote=self._quote(sku), quantity=quantity) for sku, quantity in visit.basket)
        codes = (visit.code,) if visit.code and self._fits(visit.code) else ()
        address = self._address()
        self._do(
            c.CreateOrder(
                customer_id=visit.customer.id,
                currency=visit.customer.currency,
                lines=lines,
                shipping_address=address,
                billing_address=address,
                shipping_method=visit.shipping_method,
                promo_codes=codes,
                promotions=tuple(_terms(code) for code in codes),
                payment_token=None if draft else visit.payment_token,
                cart_id=str(uuid5(NAMESPACE_URL, f"oms:cart:{self._id}")),
                submit=not draft,
            ),
            self._customer,
        )
        if visit.persona is Persona.ABANDONS_DRAFT:
            self._pass(self._policy.deadlines.draft_abandoned_after)
            self._do(c.AbandonDraft(version=self._order.version), TIMERS)
            return
        if draft:
            self._draft()
        self._paying()

    def _draft(self) -> None:
        if self._visit.added is not None:
            self._pass(minutes=self._chance.uniform(0.2, 30))
            sku, quantity = self._visit.added
            self._do(c.AddItem(line=c.NewLine(quote=self._quote(sku), quantity=quantity)), self._customer)
        self._pass(minutes=self._chance.uniform(0.2, 600))
        quotes = tuple(self._quote(line.sku) for line in self._order.lines)
        self._do(c.SubmitOrder(payment_token=self._visit.payment_token, quotes=quotes), self._customer)

    def _paying(self) -> None:
        persona = self._visit.persona
        self._pass(seconds=self._chance.uniform(0.1, 0.4))
        if persona is Persona.BIG_SPENDER:
            self._do(c.HoldOrder(kind="fraud", reason="a large amount", score=50), SAGA)
            self._pass(minutes=self._chance.uniform(5, 600))
            if self._visit.verdict == "cancel":
                self._do(c.CancelOrder(reason="fraud", comment="not plausible"), STAFF)
                return
            self._do(c.ReleaseOrder(comment="known customer"), STAFF)
        if persona is Persona.WANTS_SCARCE and self._chance.random() < 0.5:
            skus = (self._visit.basket[-1][0],)
            self._do(c.CancelOrder(reason="out_of_stock", skus=skus), SAGA)
            return
        self._pass(seconds=self._chance.lognormvariate(-0.5, 0.6))
        attempt = self._order.payments[-1]
        if self._visit.payment_token == DECLINES:
            self._do(c.FailPayment(attempt_id=attempt.attempt_id, code="card_declined"), SAGA)
            return
        paid = c.ConfirmPayment(
            attempt_id=attempt.attempt_id, amount=attempt.amount, provider_ref=f"ch_{attempt.attempt_id}"
        )
        self._do(paid, SAGA)
        self._second_thoughts()

    def _second_thoughts(self) -> None:
        order = self._order
        first = order.lines[0]
        self._pass(minutes=self._chance.uniform(1, 25))
        match self._visit.persona:
            case Persona.CANCELS:
                self._do(c.CancelOrder(reason="changed_mind", comment="Found it in the attic."), self._customer)
                self._refunded()
            case Persona.CANCELS_PART if len(order.lines) > 1 or first.quantity > 1:
                items = (c.ItemQuantity(line_id=first.line_id, quantity=1),)
                self._do(c.CancelOrder(reason="changed_mind", items=items), self._customer)
                self._refunded()
            case Persona.EDITS:
                more = c.ChangeQuantity(line_id=first.line_id, quantity=first.quantity + 1, reason="second thoughts")
                self._do(more, self._customer)
                self._complete_edit()

    def _complete_edit(self) -> None:
        edit = self._order.edit
        if edit is None:
            return
        self._pass(seconds=self._chance.uniform(0.3, 2))
        complete = c.CompleteEdit(
            edit_id=edit.edit_id,
            attempt_id=edit.attempt_id,
            amount=edit.due,
            provider_ref=f"ch_{edit.attempt_id}" if edit.due else None,
        )
        self._do(complete, SAGA)

    # Parcels

    def _fulfilling(self) -> None:
        if self._order.status != OrderStatus.PAYMENT_CONFIRMED:
            return
        due = self._order.modifiable_until or self._at
        self._at = max(self._at, due)
        self._do(c.BeginFulfilment(due_at=due), TIMERS)
        if self._visit.persona is Persona.WAITS_FOR_STOCK:
            self._pass(days=self._chance.uniform(2, 9))
        self._pass(seconds=self._chance.uniform(0.1, 2))
        parcel = self._plan()
        persona = self._visit.persona
        if persona is Persona.SHORT_PICK:
            self._pass(hours=self._chance.uniform(1, 20))
            lines = self._parcel_lines()
            self._do(c.ShortItems(shipment_id=parcel, lines=(lines[0].model_copy(update={"quantity": 1}),)), FULFILMENT)
            self._refunded()
            if self._order.status == OrderStatus.CANCELLED:
                return
        self._ship(parcel)
        match persona:
            case Persona.MISSES_PARCEL:
                self._miss(parcel, 1)
                self._pass(days=1)
                self._do(c.UpdateShipment(shipment_id=parcel, status="out_for_delivery"), FULFILMENT)
            case Persona.UNREACHABLE:
                for attempt in range(1, self._policy.fulfilment.delivery_attempts + 1):
                    self._miss(parcel, attempt)
                self._pass(days=3)
                self._do(c.LoseShipment(shipment_id=parcel, reason="returned"), FULFILMENT)
                self._refunded()
                return
            case Persona.LOSES_PARCEL:
                self._pass(days=5)
                self._do(c.LoseShipment(shipment_id=parcel, reason="lost"), FULFILMENT)
                parcel = self._plan()
                self._ship(parcel)
        self._pass(hours=self._chance.uniform(2, 12))
        self._do(c.DeliverShipment(shipment_id=parcel), FULFILMENT)

    def _plan(self) -> str:
        self._parcels += 1
        parcel = str(uuid5(NAMESPACE_URL, f"oms:archive:parcel:{self._id}:{self._parcels}"))
        self._do(c.PlanShipment(shipment_id=parcel, lines=self._parcel_lines()), FULFILMENT)
        return parcel

    def _parcel_lines(self) -> tuple[ShipmentLine, ...]:
        return tuple(
            ShipmentLine(line_id=line.line_id, sku=line.sku, quantity=line.to_ship)
            for line in self._order.lines
            if line.to_ship > 0
        )

    def _ship(self, parcel: str) -> None:
        self._pass(hours=self._chance.uniform(2, 40))
        number = f"TRK-{self._order.number}-{self._parcels}"
        self._do(
            c.ShipShipment(
                shipment_id=parcel,
                carrier=self._chance.choice(CARRIERS),
                tracking_number=number,
                tracking_url=f"https://carrier.example/{number}",
                estimated_delivery=self._order.estimated_delivery,
            ),
            FULFILMENT,
        )
        self._pass(days=self._chance.uniform(0.8, 5))

    def _miss(self, parcel: str, attempt: int) -> None:
        self._pass(hours=self._chance.uniform(6, 30))
        self._do(c.FailDelivery(shipment_id=parcel, attempt=attempt, reason="nobody at home"), FULFILMENT)

    # Returns and surveys

    def _afterwards(self) -> None:
        if self._order.status != OrderStatus.DELIVERED:
            return
        if self._visit.returning is not None:
            self._send_back()
        if self._visit.score is not None:
            self._pass(days=self._chance.uniform(0.1, 6))
            comment = "Thank you!" if self._visit.score > 3 else "It could have gone better."
            self._do(c.AnswerSurvey(score=self._visit.score, comment=comment), self._customer)

    def _send_back(self) -> None:
        returning = self._visit.returning
        if returning is None:
            return
        wishes = tuple(
            c.ReturnWish(
                line_id=line.line_id,
                quantity=line.delivered if returning.whole else 1,
                reason=returning.reason,
                exchange=self._quote(returning.exchange_sku) if returning.exchange_sku else None,
            )
            for line in self._order.lines
            if line.delivered and (returning.whole or line.sku == returning.sku)
        )
        self._pass(days=self._chance.uniform(0.5, 12))
        self._do(c.RequestReturn(items=wishes, comment="I would like to send this back."), self._customer)
        rma = self._order.returns[-1].rma
        self._pass(hours=self._chance.uniform(0.2, 20))
        if not returning.approved:
            self._do(c.DenyReturn(rma=rma, reason="worn"), STAFF)
            return
        self._do(c.ApproveReturn(rma=rma), STAFF)
        number = f"RET-{self._order.number}"
        label = f"https://carrier.example/{number}.pdf"
        self._do(c.LabelReturn(rma=rma, carrier="swift", tracking_number=number, label_url=label), RETURNS)
        self._pass(days=self._chance.uniform(2, 9))
        self._do(c.ReceiveReturn(rma=rma), STAFF)
        self._pass(hours=self._chance.uniform(0.5, 20))
        inspected = tuple(c.Inspected(line_id=wish.line_id, condition=returning.condition) for wish in wishes)
        self._do(c.InspectReturn(rma=rma, items=inspected), STAFF)
        self._refunded()

    # Small parts

    def _refunded(self) -> None:
        """The provider gives back what was asked of it."""
        for refund in self._order.refunds:
            if refund.status == "initiated":
                self._pass(seconds=self._chance.uniform(0.3, 3))
                reference = f"re_{refund.refund_id}"
                self._do(c.CompleteRefund(refund_id=refund.refund_id, provider_ref=reference), SAGA)

    def _do(self, payload: Payload, actor: str) -> None:
        if self._commands >= self._most:
            raise _Told
        self._commands += 1
        name = f"oms:archive:{self._id}:{self._commands}"
        command: Command[Any] = Command(
            id=str(uuid5(NAMESPACE_URL, name)),
            order_id=self._id,
            at=self._at,
            actor=actor,
            correlation_id=str(uuid5(NAMESPACE_URL, f"{name}:request")),
            data=payload,
        )
        for out in handle_command(self._state, command, self._policy):
            message = out.message
            if isinstance(message, Event) and out.value is not None:
                self._life.events.append((message, out.value))
            elif isinstance(message, Message) and isinstance(message.data, OrderState):
                self._life.states.append(message)
            else:
                raise ValueError(f"{self._visit.persona}: {type(payload).__name__} was refused: {message.data}")

    def _pass(self, span: timedelta | None = None, **units: float) -> None:
        self._at += span if span is not None else timedelta(**units)

    @property
    def _order(self) -> Order:
        return self._life.order

    def _quote(self, sku: str) -> Quote:
        product = _products()[sku]
        return Quote(
            product_id=product.product_id,
            sku=sku,
            name=product.name,
            category=product.category,
            tax_category=product.tax_category,
            weight_grams=product.weight_grams,
            unit_price=product.price(self._visit.customer.currency),
            hs_code=product.hs_code,
            origin=product.origin,
            backorder=product.backorder,
        )

    def _fits(self, code: str) -> bool:
        """Whether the shop takes the code for this basket."""
        if code == "B2G1":
            books = [quantity for sku, quantity in self._visit.basket if _products()[sku].category == "books"]
            return sum(books) >= 3
        return code != "FREESHIP"  # it needs a minimum

    def _address(self) -> Address:
        place = self._visit.customer.place
        sealed = Sealed(
            key_id=str(uuid5(NAMESPACE_URL, self._customer)),
            nonce=base64.b64encode(self._chance.randbytes(12)).decode(),
            ciphertext=base64.b64encode(self._chance.randbytes(110)).decode(),
        )
        return Address(sealed=sealed, state=place.state, postal_code=place.postal_code, country=place.country)


class _Entries:
    """The order processor's state under one key."""

    def __init__(self) -> None:
        self._entries: dict[str, Any] = {}

    def get(self, key: str, default: Any = None) -> Any:
        return self._entries.get(key, default)

    def set(self, key: str, value: Any, ttl: timedelta | None = None) -> None:
        self._entries[key] = value

    def delete(self, key: str) -> None:
        self._entries.pop(key, None)


@cache
def _products() -> dict[str, SampleProduct]:
    return {product.sku: product for product in catalogue()}


def _terms(code: str) -> PromotionTerms:
    """A promotion of the sample shop as the gateway copies it into a command."""
    body = PROMOTIONS[code]
    amounts = {money["currency"]: to_minor(money["amount"], money["currency"]) for money in body.get("amounts", ())}
    return PromotionTerms(
        code=code,
        kind=body["kind"],
        percent=body.get("percent", "0"),
        amounts=amounts,
        buy=body.get("buy", 0),
        get=body.get("get", 0),
        categories=tuple(body.get("categories", ())),
        exclusive=body.get("exclusive", False),
    )
