"""Commands to an order. Those of `order.commands` come from people through a gateway, those of `order.internal`
from sagas, timers and the import; both topics speak this one language."""

from __future__ import annotations

from schemas.address import Address
from schemas.base import Command, Family, Instant, Minor, Model, Payload
from schemas.order import Quote
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


class AddItem(Payload, family="order.commands"):
    line: NewLine


class RemoveItem(Payload, family="order.commands"):
    line_id: str


class ChangeQuantity(Payload, family="order.commands"):
    line_id: str
    quantity: int


class ChangeShippingAddress(Payload, family="order.commands"):
    address: Address


class ChangeBillingAddress(Payload, family="order.commands"):
    address: Address


class ChangeShippingMethod(Payload, family="order.commands"):
    shipping_method: str


class SubmitOrder(Payload, family="order.commands"):
    """`quotes` are today's prices of the lines. Where they change the total, `accepted_total` must name the new one."""

    payment_token: str | None = None
    quotes: tuple[Quote, ...]
    accepted_total: Minor | None = None


class CancelOrder(Payload, family="order.commands"):
    """`skus` names what was short when the reason is out_of_stock."""

    reason: str
    comment: str | None = None
    skus: tuple[str, ...] = ()


class RefuseRequest(Payload, family="order.commands"):
    """The gateway's catalogue speaks against a request (no such product, too little in stock). It comes under the
    request's own command id: a repeat of one that was accepted before gets that outcome, not this refusal."""

    rejection: Rejection


class ConfirmPayment(Payload, family="order.commands"):
    """The provider captured the money of an attempt."""

    attempt_id: str
    amount: Minor
    provider_ref: str


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
