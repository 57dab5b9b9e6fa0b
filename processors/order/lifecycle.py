"""docs/lifecycle.md, made of the rules themselves: `python -m processors.order.lifecycle [--check] FILE`.

A sample order is brought into each state by commands, as in life; then every command is tried on it, and what `decide`
says is written down: the events, or the refusal's type.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from processors.order import names
from processors.order.decide import decide
from processors.order.evolve import evolve
from schemas import commands as c
from schemas.address import Address, Sealed
from schemas.base import Command, Event, Payload
from schemas.order import Order, PromotionTerms, Quote, ShipmentLine
from schemas.policy import Policy, load
from schemas.replies import Rejection

HEAD = """# The life of an order

Made by `make schemas` of the rules themselves (`python -m processors.order.lifecycle`); don't edit it. Each command is
tried on a sample order in each state, and this is what `decide` says: the events (without their `Order`), `=` where
there is nothing to do (a repeat, or a fact that came too late), or in *italics* the stable `type` of the refusal.

The statuses are the epic's, and REFUND_REQUESTED. Inside of them, what else is the case matters as well:
"""

AT = datetime(2026, 3, 2, 10, tzinfo=UTC)
ORDER_ID = "0b8e7a52-2f0e-4d5c-9d0b-0e5f5c1b7a10"
NUMBER = names.order_number(ORDER_ID)
ATTEMPT = names.payment_attempt_id(ORDER_ID, 1)
PARCEL = "11111111-1111-4111-8111-111111111111"
OTHER_PARCEL = "22222222-2222-4222-8222-222222222222"
RMA = names.rma(NUMBER, 1)
HOME = Address(sealed=Sealed(key_id="k", nonce="", ciphertext=""), postal_code="10119", country="DE")
ELSEWHERE = HOME.model_copy(update={"postal_code": "20095"})
TERMS = PromotionTerms(code="SPRING10", kind="percentage", percent="10")


def quote(sku: str) -> Quote:
    return Quote(
        product_id=sku,
        sku=sku,
        name=sku,
        category="home",
        tax_category="standard",
        weight_grams=400,
        unit_price=1000,
    )


CREATE = c.CreateOrder(
    customer_id="42",
    currency="EUR",
    lines=(c.NewLine(quote=quote("MUG"), quantity=2),),
    shipping_address=HOME,
    billing_address=HOME,
    shipping_method="standard",
)
SUBMIT = c.SubmitOrder(payment_token="pm_card_visa", quotes=(quote("MUG"),))  # noqa: S106
ALL = (ShipmentLine(line_id="L1", sku="MUG", quantity=2),)
ONE = (ShipmentLine(line_id="L1", sku="MUG", quantity=1),)


class Story:
    """An order and how it came to be what it is."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.order: Order | None = None
        self.at = AT

    def tell(self, *payloads: Payload, actor: str = "system:sample", after: timedelta = timedelta(seconds=1)) -> Story:
        """Decide and fold commands. ValueError when one is refused: the sample must be a life that can be."""
        for payload in payloads:
            self.at += after
            decision = self.decide(payload, actor)
            if isinstance(decision, Rejection):
                raise ValueError(f"{type(payload).__name__}: {decision.type}: {decision.detail}")
            for event in decision:
                self.order = evolve(self.order, self._event(event))
        return self

    def decide(self, payload: Payload, actor: str) -> Any:
        command: Command[Any] = Command(
            id="sample", order_id=ORDER_ID, at=self.at, actor=actor, correlation_id="sample", data=payload
        )
        return decide(self.order, command, self.policy)

    def captured(self) -> c.ConfirmPayment:
        order = self._order()
        return c.ConfirmPayment(attempt_id=ATTEMPT, amount=order.totals.total, provider_ref="ch_1")

    def refunds_done(self) -> list[Payload]:
        return [
            c.CompleteRefund(refund_id=refund.refund_id, provider_ref="re_1")
            for refund in self._order().refunds
            if refund.status != "completed"
        ]

    def _order(self) -> Order:
        if self.order is None:
            raise ValueError("the order has not begun")
        return self.order

    def _event(self, payload: Payload) -> Event[Any]:
        return Event(
            id="sample",
            order_id=ORDER_ID,
            version=self.order.version + 1 if self.order else 1,
            occurred_at=self.at,
            actor="system:sample",
            correlation_id="sample",
            causation_id="sample",
            previous_hash="",
            data=payload,
        )


def _draft(story: Story) -> Story:
    return story.tell(CREATE, actor="customer:42")


def _placed(story: Story) -> Story:
    return _draft(story).tell(SUBMIT, actor="customer:42")


def _declined(story: Story) -> Story:
    return _placed(story).tell(c.FailPayment(attempt_id=ATTEMPT, code="card_declined"))


def _reviewed(story: Story) -> Story:
    return _placed(story).tell(c.HoldOrder(kind="fraud", reason="amount", score=60))


def _paid(story: Story) -> Story:
    _placed(story)
    return story.tell(story.captured())


def _edited(story: Story) -> Story:
    return _paid(story).tell(c.AddItem(line=c.NewLine(quote=quote("LAMP"), quantity=1)), actor="customer:42")


def _processing(story: Story) -> Story:
    _paid(story)
    if story.order is None or story.order.modifiable_until is None:
        raise ValueError("a paid order can be modified for a while")
    due = story.order.modifiable_until
    return story.tell(c.BeginFulfilment(due_at=due), after=due - story.at)


def _sent(story: Story, lines: tuple[ShipmentLine, ...]) -> Story:
    ship = c.ShipShipment(shipment_id=PARCEL, carrier="P", tracking_number="T", tracking_url="https://t.example")
    return _processing(story).tell(c.PlanShipment(shipment_id=PARCEL, lines=lines), ship)


def _part_shipped(story: Story) -> Story:
    return _sent(story, ONE)


def _shipped(story: Story) -> Story:
    return _sent(story, ALL)


def _delivered(story: Story) -> Story:
    return _shipped(story).tell(c.DeliverShipment(shipment_id=PARCEL))


def _returning(story: Story) -> Story:
    wish = c.RequestReturn(items=(c.ReturnWish(line_id="L1", quantity=1, reason="defective"),))
    return _delivered(story).tell(wish, actor="customer:42")


def _refunded(story: Story) -> Story:
    _delivered(story).tell(c.RefundOrder(reason="goodwill", amount=story.captured().amount), actor="staff:sample")
    return story.tell(*story.refunds_done())


def _cancelled(story: Story) -> Story:
    _paid(story).tell(c.CancelOrder(reason="changed_mind"), actor="customer:42")
    return story.tell(*story.refunds_done())


STATES: dict[str, tuple[str, Callable[[Story], Story]]] = {
    "DRAFT": ("a draft", _draft),
    "PENDING_PAYMENT": ("placed; the charge is under way", _placed),
    "PENDING_PAYMENT, declined": ("the first attempt was declined, another is allowed", _declined),
    "PENDING_PAYMENT, held": ("held for a fraud review", _reviewed),
    "PAYMENT_CONFIRMED": ("paid; it may be changed for a while", _paid),
    "PAYMENT_CONFIRMED, edit": ("paid; an edit waits for stock and money", _edited),
    "PROCESSING": ("the warehouse has it; nothing was shipped", _processing),
    "PROCESSING, part shipped": ("one of two units was shipped", _part_shipped),
    "SHIPPED": ("all is on its way", _shipped),
    "DELIVERED": ("all has arrived", _delivered),
    "REFUND_REQUESTED": ("a return is open", _returning),
    "REFUNDED": ("all that was paid was given back", _refunded),
    "CANCELLED": ("cancelled after it was paid, money given back", _cancelled),
}
"""State → (what it means, how an order comes there)."""

COMMANDS: dict[str, tuple[tuple[str, str, Payload], ...]] = {
    "What people do": (
        ("AddItem", "customer:42", c.AddItem(line=c.NewLine(quote=quote("TEA"), quantity=1))),
        ("ChangeQuantity (more)", "customer:42", c.ChangeQuantity(line_id="L1", quantity=3)),
        ("ChangeQuantity (less)", "customer:42", c.ChangeQuantity(line_id="L1", quantity=1)),
        ("ChangeShippingAddress", "customer:42", c.ChangeShippingAddress(address=ELSEWHERE)),
        ("ChangeShippingMethod", "customer:42", c.ChangeShippingMethod(shipping_method="express")),
        ("ApplyPromotion", "customer:42", c.ApplyPromotion(terms=TERMS)),
        ("SubmitOrder", "customer:42", SUBMIT),
        ("PayOrder", "customer:42", c.PayOrder(payment_token="pm_card_visa")),  # noqa: S106
        ("CancelOrder", "customer:42", c.CancelOrder(reason="changed_mind")),
        (
            "CancelOrder (1 unit)",
            "customer:42",
            c.CancelOrder(reason="changed_mind", items=(c.ItemQuantity(line_id="L1", quantity=1),)),
        ),
        (
            "RequestReturn",
            "customer:42",
            c.RequestReturn(items=(c.ReturnWish(line_id="L1", quantity=1, reason="defective"),)),
        ),
        ("AnswerSurvey", "customer:42", c.AnswerSurvey(score=5)),
    ),
    "What staff does": (
        ("HoldOrder", "staff:ann", c.HoldOrder(kind="staff", reason="a look")),
        ("ReleaseOrder", "staff:ann", c.ReleaseOrder()),
        ("RefundOrder (1.00)", "staff:ann", c.RefundOrder(reason="goodwill", amount=100)),
        ("ApproveReturn", "staff:ann", c.ApproveReturn(rma=RMA)),
        ("DenyReturn", "staff:ann", c.DenyReturn(rma=RMA, reason="worn")),
        ("ReceiveReturn", "staff:ann", c.ReceiveReturn(rma=RMA)),
        ("InspectReturn", "staff:ann", c.InspectReturn(rma=RMA)),
    ),
    "What payment tells": (
        ("ConfirmPayment", "system:placement", c.ConfirmPayment(attempt_id=ATTEMPT, amount=1, provider_ref="ch_1")),
        ("FailPayment", "system:placement", c.FailPayment(attempt_id=ATTEMPT, code="card_declined")),
    ),
    "What warehouse and carrier tell": (
        ("PlanShipment", "system:fulfilment", c.PlanShipment(shipment_id=OTHER_PARCEL, lines=ONE)),
        ("UpdateShipment", "system:fulfilment", c.UpdateShipment(shipment_id=PARCEL, status="out_for_delivery")),
        ("FailDelivery", "system:fulfilment", c.FailDelivery(shipment_id=PARCEL, attempt=1, reason="nobody home")),
        ("DeliverShipment", "system:fulfilment", c.DeliverShipment(shipment_id=PARCEL)),
        ("LoseShipment", "system:fulfilment", c.LoseShipment(shipment_id=PARCEL, reason="lost")),
    ),
    "What the clock tells": (
        ("AbandonDraft", "system:timers", c.AbandonDraft(version=1)),
        ("ExpirePayment", "system:timers", c.ExpirePayment(attempt_id=ATTEMPT, due_at=AT)),
        ("BeginFulfilment", "system:timers", c.BeginFulfilment(due_at=AT)),
        ("ExpireReturn", "system:timers", c.ExpireReturn(rma=RMA)),
    ),
}
"""Area → (what the row is called, who does it, the command)."""


def render() -> str:
    """The whole page."""
    policy = load()
    # So that a declined order shows what an order with an attempt left does.
    policy = policy.model_copy(update={"payment": policy.payment.model_copy(update={"max_attempts": 3})})
    stories = {name: come(Story(policy)) for name, (_, come) in STATES.items()}
    parts = [HEAD, *(f"- **{name}**: {meaning}" for name, (meaning, _) in STATES.items())]
    for area, rows in COMMANDS.items():
        parts += ["", f"## {area}", ""]
        parts += _table(list(stories), ((name, [_said(s, payload, who) for s in stories.values()])
                                        for name, who, payload in rows))  # fmt: skip
    return "\n".join(parts) + "\n"


def _said(story: Story, payload: Payload, actor: str) -> str:
    decision = story.decide(payload, actor)
    if isinstance(decision, Rejection):
        return f"*{decision.type}*"
    return ", ".join(type(event).__name__.removeprefix("Order") for event in decision) or "="


def _table(states: list[str], rows: Iterable[tuple[str, list[str]]]) -> Iterable[str]:
    """A table for each command; states with the same answer stand together."""
    for name, cells in rows:
        yield f"### {name}"
        yield ""
        together: dict[str, list[str]] = {}
        for state, cell in zip(states, cells, strict=True):
            together.setdefault(cell, []).append(state)
        yield "| in | leads to |"
        yield "|---|---|"
        for cell, found in together.items():
            yield f"| {'; '.join(found)} | {cell} |"
        yield ""


def main(arguments: list[str]) -> int:
    """Write the page; with --check only say whether it is fresh."""
    check, path = "--check" in arguments, Path(arguments[-1])
    page = render()
    if not check:
        path.write_text(page)
        return 0
    if path.exists() and path.read_text() == page:
        return 0
    print(f"{path} is not what the rules say: run `make schemas`")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
