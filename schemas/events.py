"""The events of an order: a public contract (docs/events.md is made of it). Amounts are in minor units of the
order's currency, which OrderCreated names. Events that change the lines carry them whole as they are afterwards,
so that no reader has to price anything."""

from __future__ import annotations

from pydantic import Field

from schemas.address import Address
from schemas.base import Event, Family, Instant, Minor, Payload
from schemas.order import (
    AppliedPromotion,
    Edit,
    ExchangeTerms,
    Line,
    Order,
    RefundItem,
    ReturnItem,
    ShipmentLine,
    Totals,
)

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
    promotions: tuple[AppliedPromotion, ...] = ()
    incoterm: str | None = None
    exchange_of: str | None = None
    abandon_at: Instant | None = None


class OrderLineItemAdded(Payload, family="order.events"):
    """Item added; product added during modification."""

    line_id: str
    sku: str
    quantity: int
    lines: tuple[Line, ...]
    totals: Totals
    promotions: tuple[AppliedPromotion, ...] = ()
    reason: str | None = None


class OrderLineItemRemoved(Payload, family="order.events"):
    """Item removed; product removed during modification."""

    line_id: str
    sku: str
    quantity: int
    lines: tuple[Line, ...]
    totals: Totals
    promotions: tuple[AppliedPromotion, ...] = ()
    reason: str | None = None


class OrderLineItemQuantityChanged(Payload, family="order.events"):
    """A line's quantity is another one: `before`, then `quantity`."""

    line_id: str
    sku: str
    before: int
    quantity: int
    lines: tuple[Line, ...]
    totals: Totals
    promotions: tuple[AppliedPromotion, ...] = ()
    reason: str | None = None


class OrderShippingAddressChanged(Payload, family="order.events"):
    """It goes elsewhere; tax follows the address."""

    before: Address | None = None
    address: Address
    lines: tuple[Line, ...]
    totals: Totals
    promotions: tuple[AppliedPromotion, ...] = ()
    reason: str | None = None
    incoterm: str | None = None
    estimated_delivery: str | None = None


class OrderBillingAddressChanged(Payload, family="order.events"):
    """The bill goes elsewhere."""

    before: Address | None = None
    address: Address
    reason: str | None = None


class OrderShippingMethodChanged(Payload, family="order.events"):
    """It goes another way; shipping costs and the estimated delivery follow."""

    before: str | None = None
    shipping_method: str
    estimated_delivery: str | None = None
    lines: tuple[Line, ...]
    totals: Totals
    promotions: tuple[AppliedPromotion, ...] = ()
    reason: str | None = None


class OrderPromotionApplied(Payload, family="order.events"):
    """A promotion takes something off; `promotions` are all that apply now."""

    code: str
    promotions: tuple[AppliedPromotion, ...]
    lines: tuple[Line, ...]
    totals: Totals
    reason: str | None = None


class OrderPromotionRemoved(Payload, family="order.events"):
    """A promotion was taken back; `promotions` are those that still apply."""

    code: str
    promotions: tuple[AppliedPromotion, ...]
    lines: tuple[Line, ...]
    totals: Totals
    reason: str | None = None


class OrderEditRequested(Payload, family="order.events"):
    """A placed order is to change, once stock, promotion and (`amount`, minor units) money for it are there: then
    the event that `edit.kind` names and OrderEditCompleted follow, else OrderEditFailed. `payment_token`,
    `valid_until` and `due_at` belong to the payment of the difference, if there is one; so do the addresses, as they
    will be, which the fraud scoring looks at."""

    edit: Edit
    amount: Minor = 0
    currency: str
    payment_token: str | None = None
    valid_until: Instant
    due_at: Instant
    authorize: bool = Field(default=False, description="only reserve `amount`; it is captured on shipment")
    shipping_address: Address | None = None
    billing_address: Address | None = None


class OrderEditCompleted(Payload, family="order.events"):
    """A placed order was changed (the event before says how): who, why, and the totals before and after. A payment of
    the difference is named; a lower price is given back by OrderRefundInitiated."""

    edit_id: str
    kind: str
    reason: str | None = None
    requested_by: str
    before: Totals
    after: Totals
    attempt_id: str | None = None
    amount: Minor = 0
    provider_ref: str | None = None
    authorized: bool = False
    expires_at: Instant | None = None


class OrderEditFailed(Payload, family="order.events"):
    """The change does not happen; the order is as it was. reason: out_of_stock | payment_declined |
    promotion_unavailable | fraud | timeout | fulfilment_begun."""

    edit_id: str
    kind: str
    reason: str
    detail: str | None = None
    skus: tuple[str, ...] = ()


class OrderSubmitted(Payload, family="order.events"):
    """Order submitted for processing; customer confirms order. `lines` and `totals` are at the prices agreed on."""

    lines: tuple[Line, ...]
    totals: Totals
    estimated_delivery: str | None = None
    promotions: tuple[AppliedPromotion, ...] = ()
    customer_id: str | None = None
    shipping_address: Address | None = None
    billing_address: Address | None = None
    incoterm: str | None = None


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
    authorize: bool = Field(default=False, description="only reserve the money; it is captured on shipment")
    purpose: str = Field(default="order", description="order | renewal (of an authorization that expires)")


class OrderPaymentConfirmed(Payload, family="order.events"):
    """Payment successful; payment service confirmation. `provider_ref` is the provider's id of the charge. When it is
    only `authorized`, the money is reserved until `expires_at`. Until `modifiable_until` the order may be changed;
    then fulfilment begins."""

    attempt_id: str
    amount: Minor
    provider_ref: str
    authorized: bool = False
    expires_at: Instant | None = None
    modifiable_until: Instant | None = None
    purpose: str = "order"


class OrderPaymentFailed(Payload, family="order.events"):
    """Payment unsuccessful; payment service rejection. `code` is the provider's. `attempts_left`: how often the
    customer may try again (`POST …/pay`)."""

    attempt_id: str
    code: str
    attempts_left: int = 0
    purpose: str = Field(default="order", description="order | renewal (the order goes on without it)")


class OrderPaymentCaptureRequested(Payload, family="order.events"):
    """A part of an authorization is to be taken, because what it pays for was shipped."""

    attempt_id: str
    capture_id: str
    amount: Minor
    currency: str


class OrderPaymentCaptured(Payload, family="order.events"):
    """Money of an authorization was taken."""

    attempt_id: str
    capture_id: str
    amount: Minor
    provider_ref: str


class OrderPaymentCaptureFailed(Payload, family="order.events"):
    """The provider refused to capture; a person must look."""

    attempt_id: str
    capture_id: str
    amount: Minor
    code: str


class OrderPaymentVoidRequested(Payload, family="order.events"):
    """What is left of an authorization is to be given free."""

    attempt_id: str


class OrderPaymentVoided(Payload, family="order.events"):
    """An authorization is void: nothing more can be taken of it."""

    attempt_id: str


class OrderHeld(Payload, family="order.events"):
    """Nothing goes on until somebody releases or cancels it; a fraud review has a deadline (`due_at`)."""

    kind: str
    reason: str
    score: int | None = None
    due_at: Instant | None = None


class OrderReleased(Payload, family="order.events"):
    """It goes on."""

    kind: str
    comment: str | None = None


class OrderProcessingStarted(Payload, family="order.events"):
    """Fulfillment begun; payment confirmation. From here on the order can't be changed, only cancelled until something
    was shipped. `lines`, address and method are what is to be sent."""

    lines: tuple[Line, ...]
    shipping_address: Address
    shipping_method: str
    estimated_delivery: str | None = None
    incoterm: str | None = None
    customer_id: str | None = None
    currency: str | None = None


class OrderShipmentPlanned(Payload, family="order.events"):
    """The warehouse was asked to pick a parcel."""

    shipment_id: str
    lines: tuple[ShipmentLine, ...]


class OrderShipmentUpdated(Payload, family="order.events"):
    """A parcel got on: picked | packed | in_transit | out_for_delivery. `estimated_delivery` when it changed."""

    shipment_id: str
    status: str
    estimated_delivery: str | None = None
    detail: str | None = None


class OrderShipmentDispatched(Payload, family="order.events"):
    """A carrier has a parcel (again, when `redelivery`: another attempt after a failed one)."""

    shipment_id: str
    lines: tuple[ShipmentLine, ...]
    carrier: str
    tracking_number: str
    tracking_url: str
    estimated_delivery: str | None = None
    redelivery: bool = False


class OrderShipped(Payload, family="order.events"):
    """Order dispatched; warehouse confirmation. All that is still to be sent is on its way."""

    shipments: tuple[str, ...]
    estimated_delivery: str | None = None


class OrderDeliveryFailed(Payload, family="order.events"):
    """A delivery attempt failed. `final`: there is no other one, the parcel comes back."""

    shipment_id: str
    attempt: int
    reason: str
    final: bool = False
    estimated_delivery: str | None = None


class OrderShipmentDelivered(Payload, family="order.events"):
    """A parcel has arrived."""

    shipment_id: str
    lines: tuple[ShipmentLine, ...]


class OrderDelivered(Payload, family="order.events"):
    """Order received; delivery confirmation. All that was sent has arrived."""

    shipments: tuple[str, ...]


class OrderShipmentLost(Payload, family="order.events"):
    """A parcel will never arrive: lost or undeliverable. What was in it is sent again (`reship`) or cancelled."""

    shipment_id: str
    lines: tuple[ShipmentLine, ...]
    reason: str
    reship: bool


class OrderItemsCancelled(Payload, family="order.events"):
    """Units of a placed order that will not come. What was paid for them is given back by OrderRefundInitiated."""

    lines: tuple[ShipmentLine, ...]
    reason: str
    comment: str | None = None
    shipment_id: str | None = None


class OrderCancelled(Payload, family="order.events"):
    """Final. `skus` names what was short when the reason is out_of_stock."""

    reason: str
    comment: str | None = None
    skus: tuple[str, ...] = ()


class OrderReturnRequested(Payload, family="order.events"):
    """The customer wants to send something back. `exchange`s ask for another product instead of money."""

    rma: str
    items: tuple[ReturnItem, ...]
    comment: str | None = None


class OrderRefundRequested(Payload, family="order.events"):
    """Money is asked for, because of a return; `amount` is what it would be at most."""

    rma: str
    amount: Minor


class OrderReturnApproved(Payload, family="order.events"):
    """The goods may come back until `expires_at`."""

    rma: str
    expires_at: Instant
    items: tuple[ReturnItem, ...]
    shipping_address: Address
    customer_id: str = ""


class OrderReturnLabelCreated(Payload, family="order.events"):
    """Send it back with this label. After OrderReturnReceived: the label that the goods had come with."""

    rma: str
    carrier: str
    tracking_number: str
    label_url: str


class OrderReturnReceived(Payload, family="order.events"):
    """The goods are back and wait for inspection."""

    rma: str


class OrderReturnInspected(Payload, family="order.events"):
    """Somebody looked at the goods; each item says its condition, what is given back for it, and whether it can be sold
    again. `amount` is given back by OrderRefundInitiated (0: nothing is, and the return is closed). `exchange` is there
    when something else is wanted for an item that was accepted (its refund is above 0): an order of its own follows."""

    rma: str
    items: tuple[ReturnItem, ...]
    amount: Minor
    restocking_fee: Minor = 0
    comment: str | None = None
    exchange: ExchangeTerms | None = None


class OrderRefundDenied(Payload, family="order.events"):
    """A return was denied: no goods back, no money back."""

    rma: str
    reason: str


class OrderReturnExpired(Payload, family="order.events"):
    """Nothing came back in time; the return is over."""

    rma: str


class OrderRefundInitiated(Payload, family="order.events"):
    """Money is on its way back. `captured_late` is the provider's reference of a capture that came after the
    cancellation: this event is then the first that tells of it."""

    refund_id: str
    attempt_id: str
    amount: Minor
    reason: str
    captured_late: str | None = None
    currency: str | None = None
    rma: str | None = None
    items: tuple[RefundItem, ...] = ()
    shipping: Minor = 0
    comment: str | None = None
    kept: bool = Field(default=False, description="the units in `items` stay with the customer")


class OrderRefundCompleted(Payload, family="order.events"):
    """Refund processed; payment service confirmation."""

    refund_id: str
    amount: Minor
    provider_ref: str


class OrderRefundFailed(Payload, family="order.events"):
    """The provider refused the refund; a person must look (exceptions)."""

    refund_id: str
    amount: Minor
    code: str


class OrderRefundAbandoned(Payload, family="order.events"):
    """Staff gave a refund up that had failed. With `paid_elsewhere` the customer has the amount, though not by the
    payment provider; without, it was not given back."""

    refund_id: str
    amount: Minor
    paid_elsewhere: bool = False
    comment: str | None = None


class OrderSurveyAnswered(Payload, family="order.events"):
    """The customer said how it was: 1 (bad) to 5 (good)."""

    score: int
    comment: str | None = None


class OrderStuck(Payload, family="order.events"):
    """The order has been in this status for longer than policy says; a person must look (exceptions)."""

    status: str
    since: Instant


class OrderImported(Payload, family="order.events"):
    """The events before this one are history from another system: nothing was charged, sent or moved for them."""

    source: str
    external_id: str
    order: Order | None = Field(
        default=None, description="as that history left it: who needs no more may pass by the events before this one"
    )
