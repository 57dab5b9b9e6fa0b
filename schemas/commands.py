"""Commands to an order. Those of `order.commands` come from people through a gateway, those of `order.internal`
from sagas, timers and the import; both topics speak this one language."""

from __future__ import annotations

from schemas.address import Address
from schemas.base import Command, Family, Instant, Minor, Model, Payload
from schemas.order import Line, PromotionTerms, Quote, ShipmentLine, Totals
from schemas.replies import Rejection

COMMANDS = Family("order.commands", Command)


class NewLine(Model):
    quote: Quote
    quantity: int


class CreateOrder(Payload, family="order.commands"):
    """A draft, or with `submit` an order that is placed at once."""

    customer_id: str
    currency: str
    lines: tuple[NewLine, ...]
    shipping_address: Address | None = None
    billing_address: Address | None = None
    shipping_method: str | None = None
    promo_codes: tuple[str, ...] = ()
    payment_token: str | None = None
    cart_id: str | None = None
    submit: bool = False
    promotions: tuple[PromotionTerms, ...] = ()
    exchange_of: str | None = None


# Changes. In a draft they happen at once; in a placed order they are edits, which may have to wait for stock and money.
# `reason` says why, for the audit.


class AddItem(Payload, family="order.commands"):
    line: NewLine
    reason: str | None = None


class RemoveItem(Payload, family="order.commands"):
    line_id: str
    reason: str | None = None


class ChangeQuantity(Payload, family="order.commands"):
    line_id: str
    quantity: int
    reason: str | None = None


class ChangeShippingAddress(Payload, family="order.commands"):
    address: Address
    reason: str | None = None


class ChangeBillingAddress(Payload, family="order.commands"):
    address: Address
    reason: str | None = None


class ChangeShippingMethod(Payload, family="order.commands"):
    shipping_method: str
    reason: str | None = None


class ApplyPromotion(Payload, family="order.commands"):
    terms: PromotionTerms
    reason: str | None = None


class RemovePromotion(Payload, family="order.commands"):
    code: str
    reason: str | None = None


class CompleteEdit(Payload, family="order.commands"):
    """Stock and promotion are there, and the difference is paid (`attempt_id`, `amount`, `provider_ref`)."""

    edit_id: str
    attempt_id: str | None = None
    amount: Minor = 0
    provider_ref: str | None = None
    authorized: bool = False
    expires_at: Instant | None = None


class FailEdit(Payload, family="order.commands"):
    """reason: out_of_stock | payment_declined | promotion_unavailable | fraud."""

    edit_id: str
    reason: str
    detail: str | None = None
    skus: tuple[str, ...] = ()


class ExpireEdit(Payload, family="order.commands"):
    """The time for an edit is over. Stale (and ignored) unless this very edit still waits."""

    edit_id: str


class SubmitOrder(Payload, family="order.commands"):
    """`quotes` are today's prices of the lines, `promotions` today's terms of its promotions. Where they change the
    total, `accepted_total` must name the new one."""

    payment_token: str | None = None
    quotes: tuple[Quote, ...]
    accepted_total: Minor | None = None
    promotions: tuple[PromotionTerms, ...] = ()


class PayOrder(Payload, family="order.commands"):
    """Another attempt to pay, after one was declined."""

    payment_token: str


class ItemQuantity(Model):
    line_id: str
    quantity: int


class CancelOrder(Payload, family="order.commands"):
    """`skus` names what was short when the reason is out_of_stock. With `items` only these units are cancelled."""

    reason: str
    comment: str | None = None
    skus: tuple[str, ...] = ()
    items: tuple[ItemQuantity, ...] = ()


class AbandonDraft(Payload, family="order.commands"):
    """Nobody came back to it. Stale unless it is still a draft at the version that set the timer off."""

    version: int


class HoldOrder(Payload, family="order.commands"):
    """kind: fraud (from the placement saga, for a review) | staff."""

    kind: str
    reason: str
    score: int | None = None


class ReleaseOrder(Payload, family="order.commands"):
    comment: str | None = None


class ExpireReview(Payload, family="order.commands"):
    """Nobody reviewed the held order in time. Stale unless it is held with this deadline."""

    due_at: Instant


class RefuseRequest(Payload, family="order.commands"):
    """The gateway's catalogue speaks against a request (no such product, too little in stock). It comes under the
    request's own command id: a repeat of one that was accepted before gets that outcome, not this refusal."""

    rejection: Rejection


class ConfirmPayment(Payload, family="order.commands"):
    """The provider captured the money of an attempt, or (`authorized`) reserved it until `expires_at`."""

    attempt_id: str
    amount: Minor
    provider_ref: str
    authorized: bool = False
    expires_at: Instant | None = None


class FailPayment(Payload, family="order.commands"):
    """The provider declined an attempt."""

    attempt_id: str
    code: str


class ExpirePayment(Payload, family="order.commands"):
    """The time to pay is over. Stale (and ignored) unless the order still waits for this very attempt."""

    attempt_id: str
    due_at: Instant


class CompleteRefund(Payload, family="order.commands"):
    refund_id: str
    provider_ref: str


class FailRefund(Payload, family="order.commands"):
    """The provider refused a refund; it may be retried from the exception queue, or given up (AbandonRefund)."""

    refund_id: str
    code: str


class AbandonRefund(Payload, family="order.commands"):
    """Staff gives a failed refund up: nothing of it was given, or all of it was `paid_elsewhere` (by bank transfer)."""

    refund_id: str
    paid_elsewhere: bool = False
    comment: str | None = None


class ConfirmCapture(Payload, family="order.commands"):
    attempt_id: str
    capture_id: str
    amount: Minor
    provider_ref: str


class FailCapture(Payload, family="order.commands"):
    attempt_id: str
    capture_id: str
    amount: Minor
    code: str


class ConfirmVoid(Payload, family="order.commands"):
    attempt_id: str


class RenewAuthorization(Payload, family="order.commands"):
    """An authorization expires soon. Stale unless something of it is still to be captured."""

    attempt_id: str


# Fulfilment: what the fulfilment saga has heard from warehouse and carrier


class BeginFulfilment(Payload, family="order.commands"):
    """The time to modify is over."""

    due_at: Instant


class PlanShipment(Payload, family="order.commands"):
    """The warehouse was asked for these units."""

    shipment_id: str
    lines: tuple[ShipmentLine, ...]


class UpdateShipment(Payload, family="order.commands"):
    """status: picked | packed | in_transit | out_for_delivery. `estimated_delivery`: an ISO date, when it changed."""

    shipment_id: str
    status: str
    estimated_delivery: str | None = None
    detail: str | None = None


class ShipShipment(Payload, family="order.commands"):
    """The carrier has it."""

    shipment_id: str
    carrier: str
    tracking_number: str
    tracking_url: str
    estimated_delivery: str | None = None


class FailDelivery(Payload, family="order.commands"):
    """A delivery attempt failed; `attempt` counts from 1. Whether there is another is for policy to say."""

    shipment_id: str
    attempt: int
    reason: str
    estimated_delivery: str | None = None


class DeliverShipment(Payload, family="order.commands"):
    shipment_id: str


class LoseShipment(Payload, family="order.commands"):
    """The carrier lost it (or sent it back)."""

    shipment_id: str
    reason: str


class ShortItems(Payload, family="order.commands"):
    """The warehouse does not find these units of a planned shipment."""

    shipment_id: str
    lines: tuple[ShipmentLine, ...]


class ReportStuck(Payload, family="order.commands"):
    """The order has been in a status for longer than policy says. Stale unless it has been in it since `version`."""

    status: str
    version: int


# Returns and refunds


class ReturnWish(Model):
    line_id: str
    quantity: int
    reason: str
    exchange: Quote | None = None


class RequestReturn(Payload, family="order.commands"):
    items: tuple[ReturnWish, ...]
    comment: str | None = None


class ApproveReturn(Payload, family="order.commands"):
    rma: str


class DenyReturn(Payload, family="order.commands"):
    rma: str
    reason: str


class LabelReturn(Payload, family="order.commands"):
    """The carrier made a return label."""

    rma: str
    carrier: str
    tracking_number: str
    label_url: str


class ReceiveReturn(Payload, family="order.commands"):
    rma: str


class Inspected(Model):
    """condition: as in policy (returns.conditions)."""

    line_id: str
    condition: str


class InspectReturn(Payload, family="order.commands"):
    """Staff looked at what came back. Lines that are not named arrived in the first condition of policy."""

    rma: str
    items: tuple[Inspected, ...] = ()
    comment: str | None = None


class ExpireReturn(Payload, family="order.commands"):
    """Nothing came back in time. Stale unless the return is approved and nothing has arrived."""

    rma: str


class RefundOrder(Payload, family="order.commands"):
    """Staff gives money back: for units, for shipping, or an amount out of goodwill (exactly what is named)."""

    reason: str
    items: tuple[ItemQuantity, ...] = ()
    shipping: bool = False
    amount: Minor | None = None
    comment: str | None = None


class AnswerSurvey(Payload, family="order.commands"):
    """score: 1 to 5."""

    score: int
    comment: str | None = None


# History from elsewhere


class PastStep(Model):
    """One thing that happened to an imported order, with its own time. `payload` is the JSON of the command class that
    `command` names; `where` is the place in the source document, for a refusal."""

    at: Instant
    actor: str
    command: str
    payload: str
    where: str


class ImportOrder(Payload, family="order.commands"):
    """A whole history: the order as the other system priced it, and what happened to it, decided step by step by the
    same rules. All of it, or nothing."""

    source: str
    external_id: str
    customer_id: str
    currency: str
    created_at: Instant
    submitted_at: Instant | None = None
    lines: tuple[Line, ...]
    totals: Totals
    shipping_address: Address | None = None
    billing_address: Address | None = None
    shipping_method: str | None = None
    steps: tuple[PastStep, ...] = ()
