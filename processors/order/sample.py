"""A sample order in every state, and every command to try on it: what docs/lifecycle.md is made of.

An order comes into a state by commands, as in life. What a command says (ids, versions, deadlines, amounts) is taken
from the order that it is tried on, and one of the clock is tried when it is due: so a refusal is the state's doing, not
the sample's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from processors.order import names
from processors.order.decide import decide
from processors.order.evolve import evolve
from schemas import commands as c
from schemas.address import Address, Sealed
from schemas.base import Command, Event, Instant, Payload
from schemas.order import Order, Payment, PromotionTerms, Quote, ShipmentLine
from schemas.policy import Policy
from schemas.replies import Rejection

AT = datetime(2026, 3, 2, 10, tzinfo=UTC)
ORDER_ID = "0b8e7a52-2f0e-4d5c-9d0b-0e5f5c1b7a10"
RMA = names.rma(names.order_number(ORDER_ID), 1)
PARCEL = "11111111-1111-4111-8111-111111111111"
OTHER_PARCEL = "22222222-2222-4222-8222-222222222222"
HOME = Address(sealed=Sealed(key_id="k", nonce="", ciphertext=""), postal_code="10119", country="DE")
ELSEWHERE = HOME.model_copy(update={"postal_code": "20095"})
HELLO = PromotionTerms(code="HELLO5", kind="percentage", percent="5")
SPRING = PromotionTerms(code="SPRING10", kind="percentage", percent="10")
CUSTOMER = "customer:42"
STAFF = "staff:ann"


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
    lines=(c.NewLine(quote=quote("MUG"), quantity=2), c.NewLine(quote=quote("POT"), quantity=1)),
    shipping_address=HOME,
    billing_address=HOME,
    shipping_method="standard",
    promo_codes=(HELLO.code,),
    promotions=(HELLO,),
)
SUBMIT = c.SubmitOrder(
    payment_token="pm_card_visa",  # noqa: S106
    quotes=(quote("MUG"), quote("POT")),
    promotions=(HELLO,),
)
ONE = (ShipmentLine(line_id="L1", sku="MUG", quantity=1),)
ALL = (ShipmentLine(line_id="L1", sku="MUG", quantity=2), ShipmentLine(line_id="L2", sku="POT", quantity=1))
SHIP = c.ShipShipment(shipment_id=PARCEL, carrier="P", tracking_number="T", tracking_url="https://t.example")
WISH = c.RequestReturn(items=(c.ReturnWish(line_id="L1", quantity=1, reason="defective"),))


class Story:
    """An order and how it came to be what it is."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.order: Order | None = None
        self.at = AT

    @property
    def now(self) -> Order:
        if self.order is None:
            raise ValueError("the order has not begun")
        return self.order

    def tell(self, *payloads: Payload, actor: str = "system:sample", at: Instant | None = None) -> Story:
        """Decide and fold commands, a second after each other. ValueError when one is refused: the sample must be a
        life that can be."""
        for payload in payloads:
            self.at = at or self.at + timedelta(seconds=1)
            decision = self.decide(payload, actor, self.at)
            if isinstance(decision, Rejection):
                raise ValueError(f"{type(payload).__name__}: {decision.type}: {decision.detail}")
            for event in decision:
                self.order = evolve(self.order, self._event(event))
        return self

    def decide(self, payload: Payload, actor: str, at: Instant) -> Any:
        command: Command[Any] = Command(
            id="sample", order_id=ORDER_ID, at=at, actor=actor, correlation_id="sample", data=payload
        )
        return decide(self.order, command, self.policy)

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


# States


def _nothing(story: Story) -> Story:
    return story


def _draft(story: Story) -> Story:
    return story.tell(CREATE, actor=CUSTOMER)


def _placed(story: Story) -> Story:
    return _draft(story).tell(SUBMIT, actor=CUSTOMER)


def _declined(story: Story) -> Story:
    _placed(story)
    return story.tell(c.FailPayment(attempt_id=_attempt(story.now), code="card_declined"))


def _reviewed(story: Story) -> Story:
    return _placed(story).tell(c.HoldOrder(kind="fraud", reason="amount", score=60))


def _paid(story: Story) -> Story:
    _placed(story)
    return story.tell(_confirmed(story.now))


def _edited(story: Story) -> Story:
    return _paid(story).tell(c.AddItem(line=c.NewLine(quote=quote("LAMP"), quantity=1)), actor=CUSTOMER)


def _reserved(story: Story) -> Story:
    """The money is only reserved until the order is shipped."""
    payment = story.policy.payment.model_copy(update={"capture": "on_shipment"})
    story.policy = story.policy.model_copy(update={"payment": payment})
    _placed(story)
    return story.tell(
        _confirmed(story.now).model_copy(update={"authorized": True, "expires_at": AT + timedelta(days=7)})
    )


def _begun(story: Story) -> Story:
    return story.tell(c.BeginFulfilment(due_at=_modifiable_until(story.now)), at=_modifiable_until(story.now))


def _processing(story: Story) -> Story:
    return _begun(_paid(story))


def _packed(story: Story) -> Story:
    return _processing(story).tell(c.PlanShipment(shipment_id=PARCEL, lines=ALL))


def _part_shipped(story: Story) -> Story:
    return _processing(story).tell(c.PlanShipment(shipment_id=PARCEL, lines=ONE), SHIP)


def _shipped(story: Story) -> Story:
    return _packed(story).tell(SHIP)


def _charging(story: Story) -> Story:
    return _begun(_reserved(story)).tell(c.PlanShipment(shipment_id=PARCEL, lines=ALL), SHIP)


def _delivered(story: Story) -> Story:
    return _shipped(story).tell(c.DeliverShipment(shipment_id=PARCEL))


def _returning(story: Story) -> Story:
    return _delivered(story).tell(WISH, actor=CUSTOMER)


def _approved(story: Story) -> Story:
    return _returning(story).tell(c.ApproveReturn(rma=RMA))


def _received(story: Story) -> Story:
    return _approved(story).tell(c.ReceiveReturn(rma=RMA))


def _refunding(story: Story) -> Story:
    return _received(story).tell(c.InspectReturn(rma=RMA))


def _not_refunded(story: Story) -> Story:
    _refunding(story)
    return story.tell(c.FailRefund(refund_id=_refund(story.now), code="closed_account"))


def _refunded(story: Story) -> Story:
    _delivered(story)
    story.tell(c.RefundOrder(reason="goodwill", amount=story.now.captured), actor=STAFF)
    return story.tell(_done(story.now))


def _cancelled(story: Story) -> Story:
    _paid(story).tell(c.CancelOrder(reason="changed_mind"), actor=CUSTOMER)
    return story.tell(_done(story.now))


def _voiding(story: Story) -> Story:
    return _reserved(story).tell(c.CancelOrder(reason="changed_mind"), actor=CUSTOMER)


STATES: dict[str, tuple[str, Callable[[Story], Story]]] = {
    "no order": ("there is no such order yet", _nothing),
    "DRAFT": ("a draft", _draft),
    "PENDING_PAYMENT": ("placed; the charge is under way", _placed),
    "PENDING_PAYMENT, declined": ("the first attempt was declined, another is allowed", _declined),
    "PENDING_PAYMENT, held": ("held for a fraud review", _reviewed),
    "PAYMENT_CONFIRMED": ("paid; it may be changed for a while", _paid),
    "PAYMENT_CONFIRMED, edit": ("paid; an edit waits for stock and money", _edited),
    "PAYMENT_CONFIRMED, reserved": ("the money is reserved, and captured when it is shipped", _reserved),
    "PROCESSING": ("the warehouse has it; nothing was shipped", _processing),
    "PROCESSING, packed": ("all of it is in a parcel that has not left", _packed),
    "PROCESSING, part shipped": ("one of three units was shipped", _part_shipped),
    "SHIPPED": ("all is on its way", _shipped),
    "SHIPPED, capturing": ("all is on its way; the reserved money is being captured", _charging),
    "DELIVERED": ("all has arrived", _delivered),
    "REFUND_REQUESTED": ("a return was asked for", _returning),
    "REFUND_REQUESTED, approved": ("the goods may come back", _approved),
    "REFUND_REQUESTED, received": ("the goods are back, nobody has looked at them", _received),
    "REFUND_REQUESTED, refunding": ("the goods were accepted, their money is on its way", _refunding),
    "REFUND_REQUESTED, failed": ("the provider has refused to give it back", _not_refunded),
    "REFUNDED": ("all that was paid was given back", _refunded),
    "CANCELLED": ("cancelled after it was paid, money given back", _cancelled),
    "CANCELLED, voiding": ("cancelled; the reserved money is being given free", _voiding),
}
"""State → (what it means, how an order comes there)."""


# Commands


def _newest(order: Order) -> Payment | None:
    return order.payments[-1] if order.payments else None


def _attempt(order: Order) -> str:
    """The attempt that the provider would tell of: of the edit that waits, or the newest."""
    if order.edit is not None and order.edit.attempt_id is not None:
        return order.edit.attempt_id
    payment = _newest(order)
    return payment.attempt_id if payment else names.payment_attempt_id(ORDER_ID, 1)


def _confirmed(order: Order) -> c.ConfirmPayment:
    amount = order.edit.due if order.edit is not None else order.totals.total
    return c.ConfirmPayment(attempt_id=_attempt(order), amount=amount, provider_ref="ch_1")


def _completed(order: Order) -> c.CompleteEdit:
    if order.edit is None:
        return c.CompleteEdit(edit_id=_edit(order))
    return c.CompleteEdit(edit_id=_edit(order), attempt_id=_attempt(order), amount=order.edit.due, provider_ref="ch_2")


def _edit(order: Order) -> str:
    """The edit that waits, or the first one there could be."""
    return order.edit.edit_id if order.edit else names.edit_id(ORDER_ID, 1)


def _capture(order: Order) -> dict[str, Any]:
    payment = _newest(order)
    capture = payment.captures[-1] if payment and payment.captures else None
    return {
        "attempt_id": _attempt(order),
        "capture_id": capture.capture_id if capture else "there is none",
        "amount": capture.amount if capture else order.totals.total,
    }


def _refund(order: Order) -> str:
    return order.refunds[-1].refund_id if order.refunds else names.refund_id(_attempt(order), 1)


def _done(order: Order) -> c.CompleteRefund:
    return c.CompleteRefund(refund_id=_refund(order), provider_ref="re_1")


def _modifiable_until(order: Order) -> Instant:
    return order.modifiable_until or AT


def _payment_due(order: Order) -> Instant:
    return order.payment_due_at or AT


def _review_due(order: Order) -> Instant:
    return order.hold.due_at if order.hold and order.hold.due_at else AT


def _imported(order: Order) -> c.ImportOrder:
    return c.ImportOrder(
        source="old-shop",
        external_id="1",
        customer_id="42",
        currency=order.currency,
        created_at=AT,
        lines=order.lines,
        totals=order.totals,
    )


@dataclass(frozen=True)
class Tried:
    """A row of the page: a command of this name (and a note which one), who sends it, how it is made of the order that
    it is tried on, and when it is due (default: a second after the last one)."""

    name: str
    actor: str
    make: Callable[[Order], Payload]
    due: Callable[[Order], Instant] | None = None


def _same(name: str, actor: str, payload: Payload) -> Tried:
    return Tried(name, actor, lambda _: payload)


COMMANDS: dict[str, tuple[Tried, ...]] = {
    "What people do": (
        _same("CreateOrder", CUSTOMER, CREATE),
        _same("CreateOrder (placed at once)", CUSTOMER,
              CREATE.model_copy(update={"submit": True, "payment_token": SUBMIT.payment_token})),
        _same("AddItem", CUSTOMER, c.AddItem(line=c.NewLine(quote=quote("TEA"), quantity=1))),
        _same("RemoveItem", CUSTOMER, c.RemoveItem(line_id="L2")),
        _same("ChangeQuantity (more)", CUSTOMER, c.ChangeQuantity(line_id="L1", quantity=3)),
        _same("ChangeQuantity (less)", CUSTOMER, c.ChangeQuantity(line_id="L1", quantity=1)),
        _same("ChangeShippingAddress", CUSTOMER, c.ChangeShippingAddress(address=ELSEWHERE)),
        _same("ChangeBillingAddress", CUSTOMER, c.ChangeBillingAddress(address=ELSEWHERE)),
        _same("ChangeShippingMethod", CUSTOMER, c.ChangeShippingMethod(shipping_method="express")),
        _same("ApplyPromotion", CUSTOMER, c.ApplyPromotion(terms=SPRING)),
        _same("RemovePromotion", CUSTOMER, c.RemovePromotion(code=HELLO.code)),
        _same("SubmitOrder", CUSTOMER, SUBMIT),
        _same("PayOrder", CUSTOMER, c.PayOrder(payment_token="pm_card_visa")),  # noqa: S106
        _same("CancelOrder", CUSTOMER, c.CancelOrder(reason="changed_mind")),
        _same("CancelOrder (1 unit)", CUSTOMER,
              c.CancelOrder(reason="changed_mind", items=(c.ItemQuantity(line_id="L1", quantity=1),))),
        _same("RequestReturn", CUSTOMER, WISH),
        _same("AnswerSurvey", CUSTOMER, c.AnswerSurvey(score=5)),
    ),
    "What staff does": (
        _same("HoldOrder", STAFF, c.HoldOrder(kind="staff", reason="a look")),
        _same("ReleaseOrder", STAFF, c.ReleaseOrder()),
        _same("RefundOrder (1.00)", STAFF, c.RefundOrder(reason="goodwill", amount=100)),
        Tried("AbandonRefund", STAFF, lambda order: c.AbandonRefund(refund_id=_refund(order))),
        _same("ApproveReturn", STAFF, c.ApproveReturn(rma=RMA)),
        _same("DenyReturn", STAFF, c.DenyReturn(rma=RMA, reason="worn")),
        _same("ReceiveReturn", STAFF, c.ReceiveReturn(rma=RMA)),
        _same("InspectReturn", STAFF, c.InspectReturn(rma=RMA)),
    ),
    "What stock and payment tell": (
        Tried("ConfirmPayment", "system:placement", _confirmed),
        Tried("FailPayment", "system:placement",
              lambda order: c.FailPayment(attempt_id=_attempt(order), code="card_declined")),
        Tried("CompleteEdit", "system:placement", _completed),
        Tried("FailEdit", "system:placement", lambda order: c.FailEdit(edit_id=_edit(order), reason="out_of_stock")),
        Tried("ConfirmCapture", "system:placement",
              lambda order: c.ConfirmCapture(**_capture(order), provider_ref="cp_1")),
        Tried("FailCapture", "system:placement",
              lambda order: c.FailCapture(**_capture(order), code="card_declined")),
        Tried("ConfirmVoid", "system:placement", lambda order: c.ConfirmVoid(attempt_id=_attempt(order))),
        Tried("CompleteRefund", "system:placement", _done),
        Tried("FailRefund", "system:placement",
              lambda order: c.FailRefund(refund_id=_refund(order), code="closed_account")),
    ),
    "What warehouse and carrier tell": (
        _same("PlanShipment", "system:fulfilment", c.PlanShipment(shipment_id=OTHER_PARCEL, lines=ONE)),
        _same("ShortItems", "system:fulfilment", c.ShortItems(shipment_id=PARCEL, lines=ONE)),
        _same("ShipShipment", "system:fulfilment", SHIP),
        _same("UpdateShipment", "system:fulfilment",
              c.UpdateShipment(shipment_id=PARCEL, status="out_for_delivery")),
        _same("FailDelivery", "system:fulfilment",
              c.FailDelivery(shipment_id=PARCEL, attempt=1, reason="nobody home")),
        _same("DeliverShipment", "system:fulfilment", c.DeliverShipment(shipment_id=PARCEL)),
        _same("LoseShipment", "system:fulfilment", c.LoseShipment(shipment_id=PARCEL, reason="lost")),
        _same("LabelReturn", "system:returns",
              c.LabelReturn(rma=RMA, carrier="P", tracking_number="R", label_url="https://l.example")),
    ),
    "What the clock tells": (
        Tried("AbandonDraft", "system:timers", lambda order: c.AbandonDraft(version=order.version)),
        Tried("ExpirePayment", "system:timers",
              lambda order: c.ExpirePayment(attempt_id=_attempt(order), due_at=_payment_due(order)), _payment_due),
        Tried("ExpireReview", "system:timers", lambda order: c.ExpireReview(due_at=_review_due(order)), _review_due),
        Tried("ExpireEdit", "system:timers", lambda order: c.ExpireEdit(edit_id=_edit(order))),
        Tried("RenewAuthorization", "system:timers",
              lambda order: c.RenewAuthorization(attempt_id=_attempt(order))),
        Tried("BeginFulfilment", "system:timers",
              lambda order: c.BeginFulfilment(due_at=_modifiable_until(order)), _modifiable_until),
        Tried("ReportStuck", "system:timers",
              lambda order: c.ReportStuck(status=order.status, version=order.status_version)),
        _same("ExpireReturn", "system:timers", c.ExpireReturn(rma=RMA)),
    ),
    "What the import and the gateway tell": (
        Tried("ImportOrder", "system:import", _imported),
        _same("RefuseRequest", CUSTOMER, c.RefuseRequest(rejection=Rejection(type="out-of-stock", detail=""))),
    ),
}  # fmt: skip
"""Area → what is tried."""

NEVER = {"RefuseRequest": "it brings the refusal of the gateway's catalogue along"}
"""Commands that lead to nothing in any state → why."""


def told(policy: Policy) -> dict[str, Story]:
    """State → the sample order in it. An order with an attempt left shows more of what a declined one can do."""
    policy = policy.model_copy(update={"payment": policy.payment.model_copy(update={"max_attempts": 3})})
    return {name: come(Story(policy)) for name, (_, come) in STATES.items()}


def answer(tried: Tried, story: Story, draft: Order) -> Any:
    """What `decide` says; where there is no order the command is one for the `draft`."""
    order = story.order or draft
    at = story.at + timedelta(seconds=1)
    if tried.due is not None:
        at = max(at, tried.due(order))
    return story.decide(tried.make(order), tried.actor, at)
