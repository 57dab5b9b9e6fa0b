"""The events of an order: a public contract (docs/events.md is made of it). Amounts are in minor units of the
order's currency, which OrderCreated names. Events that change the lines carry them whole as they are afterwards,
so that no reader has to price anything."""

from __future__ import annotations

from schemas.address import Address
from schemas.base import Event, Family, Instant, Minor, Payload
from schemas.order import Line, Totals

EVENTS = Family("order.events", Event)


class OrderCreated(Payload, family="order.events"):
    """New order initialized; cart checkout initiated."""

    number: str
    customer_id: str
    currency: str
    lines: tuple[Line, ...]
    totals: Totals
    shipping_address: Address | None = None
    billing_address: Address | None = None
    shipping_method: str | None = None
    estimated_delivery: str | None = None
    promo_codes: tuple[str, ...] = ()
    cart_id: str | None = None


class OrderLineItemAdded(Payload, family="order.events"):
    """Item added; product added during modification."""

    line_id: str
    sku: str
    quantity: int
    lines: tuple[Line, ...]
    totals: Totals


class OrderLineItemRemoved(Payload, family="order.events"):
    """Item removed; product removed during modification."""

    line_id: str
    sku: str
    quantity: int
    lines: tuple[Line, ...]
    totals: Totals


class OrderLineItemQuantityChanged(Payload, family="order.events"):
    """A line's quantity is another one: `before`, then `quantity`."""

    line_id: str
    sku: str
    before: int
    quantity: int
    lines: tuple[Line, ...]
    totals: Totals


class OrderShippingAddressChanged(Payload, family="order.events"):
    """It goes elsewhere; tax follows the address."""

    before: Address | None = None
    address: Address
    lines: tuple[Line, ...]
    totals: Totals


class OrderBillingAddressChanged(Payload, family="order.events"):
    """The bill goes elsewhere."""

    before: Address | None = None
    address: Address


class OrderShippingMethodChanged(Payload, family="order.events"):
    """It goes another way; shipping costs and the estimated delivery follow."""

    before: str | None = None
    shipping_method: str
    estimated_delivery: str | None = None
    lines: tuple[Line, ...]
    totals: Totals


class OrderSubmitted(Payload, family="order.events"):
    """Order submitted for processing; customer confirms order. `lines` and `totals` are at the prices agreed on."""

    lines: tuple[Line, ...]
    totals: Totals
    estimated_delivery: str | None = None


class OrderPaymentRequested(Payload, family="order.events"):
    """Payment initiated. The order is cancelled at `due_at` when nobody has paid; a provider is not asked to charge
    after `valid_until`."""

    attempt_id: str
    attempt: int
    amount: Minor
    currency: str
    payment_token: str
    due_at: Instant
    valid_until: Instant


class OrderPaymentConfirmed(Payload, family="order.events"):
    """Payment successful; payment service confirmation. `provider_ref` is the provider's id of the charge."""

    attempt_id: str
    amount: Minor
    provider_ref: str


class OrderPaymentFailed(Payload, family="order.events"):
    """Payment unsuccessful; payment service rejection. `code` is the provider's."""

    attempt_id: str
    code: str


class OrderCancelled(Payload, family="order.events"):
    """Final. `skus` names what was short when the reason is out_of_stock."""

    reason: str
    comment: str | None = None
    skus: tuple[str, ...] = ()


class OrderRefundInitiated(Payload, family="order.events"):
    """Money is on its way back. `captured_late` is the provider's reference of a capture that came after the
    cancellation: this event is then the first that tells of it."""

    refund_id: str
    attempt_id: str
    amount: Minor
    reason: str
    captured_late: str | None = None


class OrderRefundCompleted(Payload, family="order.events"):
    """Refund processed; payment service confirmation."""

    refund_id: str
    amount: Minor
    provider_ref: str
