"""Orders' events with hand-picked times and amounts, chained and folded as [order] does it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid5

from processors.order.evolve import evolve
from schemas import events as e
from schemas.address import Address
from schemas.base import Event, Message, Payload
from schemas.codec import encode
from schemas.order import Line, Order, OrderState, Totals
from tests.support.examples import NAMES, at


def one_line(sku: str = "MUG", quantity: int = 1, price: int = 1000) -> tuple[Line, ...]:
    total = quantity * price
    return (
        Line(
            line_id="L1",
            product_id=f"P-{sku}",
            sku=sku,
            name=f"A {sku.lower()}",
            category="home",
            tax_category="standard",
            weight_grams=400,
            quantity=quantity,
            unit_price=price,
            line_total=total,
        ),
    )


@dataclass
class History:
    """One order's life. `happens` adds an event at T0 + seconds, with its state."""

    name: str
    customer: str = "42"
    currency: str = "EUR"
    total: int = 1000
    events: list[Event[Any]] = field(default_factory=list)
    states: list[Message[OrderState]] = field(default_factory=list)

    @property
    def order_id(self) -> str:
        return str(uuid5(NAMES, self.name))

    @property
    def order(self) -> Order:
        return self.states[-1].data.order

    def happens(self, seconds: float, payload: Payload) -> History:
        version = len(self.events) + 1
        before = encode(self.events[-1]) if self.events else None
        event = Event(
            id=str(uuid5(NAMES, f"{self.name}/{version}")),
            order_id=self.order_id,
            version=version,
            occurred_at=at(seconds),
            actor=f"customer:{self.customer}",
            correlation_id=str(uuid5(NAMES, f"request/{self.name}")),
            causation_id=str(uuid5(NAMES, f"command/{self.name}/{version}")),
            previous_hash=hashlib.sha256(before).hexdigest() if before else "",
            data=payload,
        )
        order = evolve(self.order if self.states else None, event)
        self.events.append(event)
        self.states.append(
            Message(
                id=event.id,
                at=event.occurred_at,
                actor="system:order",
                correlation_id=event.correlation_id,
                causation_id=event.causation_id,
                order_id=self.order_id,
                data=OrderState(order=order),
            )
        )
        return self

    def created(self, seconds: float, address: Address | None = None) -> History:
        return self.happens(
            seconds,
            e.OrderCreated(
                number=self.name.upper(),
                customer_id=self.customer,
                currency=self.currency,
                lines=one_line(price=self.total),
                totals=Totals(subtotal=self.total, total=self.total),
                shipping_address=address,
                billing_address=address,
            ),
        )

    def submitted(self, seconds: float) -> History:
        totals = Totals(subtotal=self.total, total=self.total)
        return self.happens(seconds, e.OrderSubmitted(lines=one_line(price=self.total), totals=totals))

    def payment_requested(self, seconds: float) -> History:
        return self.happens(
            seconds,
            e.OrderPaymentRequested(
                attempt_id=f"{self.name}-1",
                attempt=1,
                amount=self.total,
                currency=self.currency,
                payment_token="pm_card_visa",
                due_at=at(seconds + 900),
                valid_until=at(seconds + 600),
            ),
        )

    def paid(self, seconds: float) -> History:
        confirmed = e.OrderPaymentConfirmed(attempt_id=f"{self.name}-1", amount=self.total, provider_ref="ch_1")
        return self.happens(seconds, confirmed)

    def cancelled(self, seconds: float, reason: str) -> History:
        return self.happens(seconds, e.OrderCancelled(reason=reason))
