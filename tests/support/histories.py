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
from schemas.order import AppliedPromotion, Line, Order, OrderState, ReturnItem, Totals
from tests.support.examples import NAMES, at
from tests.support.examples import address as example_address


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

    def created(self, seconds: float, address: Address | None = None, promo_codes: tuple[str, ...] = ()) -> History:
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
                promo_codes=promo_codes,
            ),
        )

    def submitted(
        self, seconds: float, promised: str | None = None, promotions: tuple[AppliedPromotion, ...] = (), off: int = 0
    ) -> History:
        """`off`: what promotions took off the lines; the total stays what it is."""
        totals = Totals(subtotal=self.total + off, discount=off, total=self.total)
        lines = tuple(line.model_copy(update={"discount": off}) for line in one_line(price=self.total + off))
        submitted = e.OrderSubmitted(lines=lines, totals=totals, estimated_delivery=promised, promotions=promotions)
        return self.happens(seconds, submitted)

    def payment_requested(self, seconds: float, attempt: int = 1) -> History:
        return self.happens(
            seconds,
            e.OrderPaymentRequested(
                attempt_id=f"{self.name}-{attempt}",
                attempt=attempt,
                amount=self.total,
                currency=self.currency,
                payment_token="pm_card_visa",
                due_at=at(seconds + 900),
                valid_until=at(seconds + 600),
            ),
        )

    def declined(self, seconds: float, attempt: int = 1) -> History:
        return self.happens(seconds, e.OrderPaymentFailed(attempt_id=f"{self.name}-{attempt}", code="card_declined"))

    def paid(self, seconds: float, attempt: int = 1) -> History:
        confirmed = e.OrderPaymentConfirmed(
            attempt_id=f"{self.name}-{attempt}", amount=self.total, provider_ref=f"ch_{attempt}"
        )
        return self.happens(seconds, confirmed)

    def processing(self, seconds: float) -> History:
        return self.happens(
            seconds,
            e.OrderProcessingStarted(
                lines=self.order.lines, shipping_address=example_address(), shipping_method="standard"
            ),
        )

    def shipped(self, seconds: float) -> History:
        return self.happens(seconds, e.OrderShipped(shipments=("S1",)))

    def delivered(self, seconds: float) -> History:
        return self.happens(seconds, e.OrderDelivered(shipments=("S1",)))

    def answered(self, seconds: float, score: int) -> History:
        return self.happens(seconds, e.OrderSurveyAnswered(score=score))

    def stuck(self, seconds: float) -> History:
        since = self.order.status_since
        assert since is not None
        return self.happens(seconds, e.OrderStuck(status=self.order.status, since=since))

    def return_requested(self, seconds: float, reason: str) -> History:
        return self.happens(
            seconds, e.OrderReturnRequested(rma=f"RMA-{self.name}-{seconds:g}", items=(self._back(reason),))
        )

    def return_denied(self, seconds: float) -> History:
        return self.happens(seconds, e.OrderRefundDenied(rma=self.order.returns[-1].rma, reason="worn"))

    def return_inspected(self, seconds: float, amount: int) -> History:
        """Without an amount it is closed."""
        back = self.order.returns[-1]
        items = tuple(x.model_copy(update={"condition": "as_new", "refund": amount}) for x in back.items)
        return self.happens(seconds, e.OrderReturnInspected(rma=back.rma, items=items, amount=amount))

    def refund_initiated(self, seconds: float, amount: int, reason: str) -> History:
        open_ones = [r.rma for r in self.order.returns if r.open]
        return self.happens(
            seconds,
            e.OrderRefundInitiated(
                refund_id=f"{self.name}-refund",
                attempt_id=self.order.payments[-1].attempt_id,
                amount=amount,
                reason=reason,
                rma=open_ones[-1] if open_ones else None,
            ),
        )

    def refund_completed(self, seconds: float) -> History:
        refund = self.order.refunds[-1]
        completed = e.OrderRefundCompleted(refund_id=refund.refund_id, amount=refund.amount, provider_ref="re_1")
        return self.happens(seconds, completed)

    def imported(self, seconds: float) -> History:
        return self.happens(seconds, e.OrderImported(source="old", external_id=self.name))

    def cancelled(self, seconds: float, reason: str) -> History:
        return self.happens(seconds, e.OrderCancelled(reason=reason))

    def _back(self, reason: str) -> ReturnItem:
        line = self.order.lines[0]
        return ReturnItem(line_id=line.line_id, sku=line.sku, quantity=1, reason=reason)
