"""The order: what a fold of its events gives, what the state store holds and `order.states` carries."""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from schemas.address import Address
from schemas.base import Family, Instant, Message, Minor, Model, Payload


class OrderStatus(StrEnum):
    DRAFT = "DRAFT"
    PENDING_PAYMENT = "PENDING_PAYMENT"
    PAYMENT_CONFIRMED = "PAYMENT_CONFIRMED"
    PROCESSING = "PROCESSING"
    SHIPPED = "SHIPPED"
    DELIVERED = "DELIVERED"
    REFUND_REQUESTED = "REFUND_REQUESTED"
    REFUNDED = "REFUNDED"
    CANCELLED = "CANCELLED"


class CancellationReason(StrEnum):
    CUSTOMER_REQUEST = "customer_request"
    CHANGED_MIND = "changed_mind"
    OUT_OF_STOCK = "out_of_stock"
    PAYMENT_DECLINED = "payment_declined"
    PAYMENT_TIMEOUT = "payment_timeout"
    FRAUD = "fraud"
    PROMOTION_UNAVAILABLE = "promotion_unavailable"
    LOST = "lost"
    ABANDONED = "abandoned"
    UNDELIVERABLE = "undeliverable"
    STAFF = "staff"


class Quote(Model):
    """What the catalogue said of a SKU when the gateway asked it. The price is for one unit; whether it includes tax
    depends on where the order goes (`prices_include_tax` of the country in policy)."""

    product_id: str
    sku: str
    name: str
    category: str
    tax_category: str
    weight_grams: int
    unit_price: Minor
    hs_code: str | None = Field(default=None, description="customs tariff number")
    origin: str | None = Field(default=None, description="country of origin, ISO 3166-1 alpha-2")
    backorder: bool = Field(default=False, description="may be sold when there is too little in stock")


class Line(Model):
    """A line of an order. `line_total`, `discount` and `tax` are of the whole line as ordered (`quantity` units):
    line_total − discount + tax is what the customer pays for it. Where prices are without tax, line_total = quantity ×
    unit_price; where they include it (`tax_included`), line_total and discount are net of the tax that they contained.

    The fates of its units: cancelled after placement, shipped (handed to a carrier; those of a lost parcel not
    any more), delivered, returned (arrived back and inspected). open = quantity − cancelled − delivered."""

    line_id: str
    product_id: str
    sku: str
    name: str
    category: str
    tax_category: str
    weight_grams: int
    quantity: int
    unit_price: Minor
    discount: Minor = 0
    tax: Minor = 0
    line_total: Minor
    tax_included: bool = False
    duty: Minor = Field(default=0, description="the part of `tax` that is import duty")
    cancelled: int = 0
    shipped: int = 0
    delivered: int = 0
    returned: int = 0
    hs_code: str | None = None
    origin: str | None = None
    backorder: bool = False

    @property
    def to_ship(self) -> int:
        """Units that have not left the house yet and still should."""
        return self.quantity - self.cancelled - self.shipped

    @property
    def paid(self) -> int:
        """What the customer pays for the whole line."""
        return self.line_total - self.discount + self.tax


class Totals(Model):
    """subtotal − discount + tax + shipping = total, all in minor units of the order's currency. `tax` is that of the
    lines plus `shipping_tax`; `duty` is a part of it. `shipping` is net, after promotions."""

    subtotal: Minor = 0
    discount: Minor = 0
    tax: Minor = 0
    shipping: Minor = 0
    total: Minor = 0
    shipping_tax: Minor = 0
    duty: Minor = 0


class PromotionTerms(Model):
    """A promotion as it was when the gateway copied it into the command. Kinds: percentage (`percent` of what fits),
    fixed (`amount` off what fits, at most that), free_shipping, buy_x_get_y (of each `buy` + `get` units that fit, the
    `get` cheapest cost nothing). Empty `skus` and `categories`: everything fits. `exclusive`: with no other one."""

    code: str
    kind: str
    percent: str = Field(default="0", description="a decimal number from 0 to 100")
    amounts: dict[str, Minor] = Field(default={}, description="currency → amount off, of kind fixed")
    buy: int = 0
    get: int = 0
    minimum_subtotal: dict[str, Minor] = Field(default={}, description="currency → least subtotal; none: no minimum")
    skus: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    valid_from: Instant | None = None
    valid_until: Instant | None = None
    exclusive: bool = False
    version: int = 1
    active: bool = True


class AppliedPromotion(Model):
    """`amount`: what it takes off the order, shipping included."""

    terms: PromotionTerms
    amount: Minor = 0


class Capture(Model):
    """A part of an authorization that was asked for. status: requested | captured | failed."""

    capture_id: str
    amount: Minor
    status: str = "requested"


class Payment(Model):
    """One attempt to be paid. `purpose`: order, edit (the difference of an edit), renewal (of an authorization).
    `captured` is what was taken of an authorization; None: all of `amount` when the status is captured."""

    attempt_id: str
    amount: Minor
    status: str  # requested | authorized | captured | declined | voiding | voided | superseded (by a newer one)
    provider_ref: str | None = None
    code: str | None = None
    refunded: Minor = 0
    purpose: str = "order"
    captured: Minor | None = None
    capturing: Minor = Field(default=0, description="asked for and not confirmed yet")
    expires_at: Instant | None = Field(default=None, description="of an authorization")
    captures: tuple[Capture, ...] = ()
    requested_at: Instant | None = None
    settled_at: Instant | None = Field(default=None, description="when it was known what became of it")

    @property
    def taken(self) -> int:
        """Money that was really taken."""
        return self.captured if self.captured is not None else (self.amount if self.status == "captured" else 0)


class RefundItem(Model):
    """A part of a refund: what is given back for so many units of a line, tax included."""

    line_id: str
    quantity: int
    amount: Minor


class Refund(Model):
    """`items` and `shipping` say what it is for; they may be less than `amount` (goodwill).
    status: initiated | completed | failed (it may be tried again) | abandoned | paid_elsewhere (not by provider)."""

    refund_id: str
    attempt_id: str
    amount: Minor
    status: str
    reason: str
    provider_ref: str | None = None
    rma: str | None = None
    items: tuple[RefundItem, ...] = ()
    shipping: Minor = 0
    kept: bool = Field(default=False, description="the units in `items` stay with the customer")
    initiated_at: Instant | None = None
    completed_at: Instant | None = None

    @property
    def given(self) -> bool:
        """The customer has the money."""
        return self.status in ("completed", "paid_elsewhere")

    @property
    def counts(self) -> bool:
        """The customer has the money, or it is on its way: nothing else may give it back once more."""
        return self.given or self.status == "initiated"

    @property
    def over(self) -> bool:
        """Nobody is to do anything about it any more."""
        return self.given or self.status == "abandoned"


class Cancellation(Model):
    reason: str
    comment: str | None = None
    skus: tuple[str, ...] = ()


class Edit(Model):
    """A change of a placed order that waits for stock, promotion or money; it happens whole or not at all. `kind`
    names the change: add_item, remove_item, change_quantity, change_shipping_address, change_shipping_method,
    apply_promotion, remove_promotion. `lines`, `totals` and the rest are as they will be."""

    edit_id: str
    kind: str
    actor: str
    reason: str | None = None
    requested_at: Instant
    lines: tuple[Line, ...]
    totals: Totals
    line_id: str | None = None
    sku: str | None = None
    quantity: int | None = None
    before: int | None = None
    shipping_address: Address | None = None
    shipping_method: str | None = None
    estimated_delivery: str | None = None
    promotions: tuple[AppliedPromotion, ...] = ()
    code: str | None = None
    due: Minor = Field(default=0, description="what is to be paid more")
    attempt_id: str | None = None
    incoterm: str | None = None


class ShipmentLine(Model):
    line_id: str
    sku: str
    quantity: int


class Shipment(Model):
    """One parcel. status: planned | picked | packed | shipped | in_transit | out_for_delivery | failed (a delivery
    attempt) | undeliverable (the last attempt failed, it comes back) | delivered | lost | returned (it came back) |
    cancelled. `reshipped`: what was lost or returned with it is sent again."""

    shipment_id: str
    status: str
    lines: tuple[ShipmentLine, ...]
    carrier: str | None = None
    tracking_number: str | None = None
    tracking_url: str | None = None
    estimated_delivery: str | None = None
    attempts: int = 0
    shipped_at: Instant | None = None
    delivered_at: Instant | None = None
    reshipped: bool = False


class ReturnItem(Model):
    """What comes back. `condition`, `refund` (minor units, tax included) and `restock` are there after inspection.
    `exchange`: the catalogue's quote of the SKU that is wanted instead."""

    line_id: str
    sku: str
    quantity: int
    reason: str
    exchange: Quote | None = None
    condition: str | None = None
    refund: Minor | None = None
    restock: bool | None = None


class ExchangeTerms(Model):
    """What an order made in exchange takes over from the first one."""

    customer_id: str
    currency: str
    shipping_address: Address
    billing_address: Address
    shipping_method: str
    payment_token: str


class Return(Model):
    """status: requested | approved | denied | expired | received | inspected (its refund is under way) | closed."""

    rma: str
    status: str
    items: tuple[ReturnItem, ...]
    requested_at: Instant
    comment: str | None = None
    expires_at: Instant | None = None
    label_url: str | None = None
    carrier: str | None = None
    tracking_number: str | None = None
    denied: str | None = None
    ended_at: Instant | None = None  # closed, denied or expired

    @property
    def open(self) -> bool:
        return self.status in ("requested", "approved", "received", "inspected")


class Hold(Model):
    """Why nothing goes on: kind is fraud (a review, with a deadline) or staff."""

    kind: str
    reason: str
    score: int | None = None
    since: Instant
    due_at: Instant | None = None


class Survey(Model):
    score: int
    comment: str | None = None
    answered_at: Instant


class Stay(Model):
    """A status that the order came into, and when."""

    status: str
    since: Instant


class RemovedLine(Model):
    """A line that was taken out of the order."""

    line_id: str
    sku: str


class Order(Model):
    """One order at one version."""

    order_id: str
    number: str
    customer_id: str
    status: str
    version: int
    currency: str
    created_at: Instant
    submitted_at: Instant | None = None
    updated_at: Instant
    lines: tuple[Line, ...]
    totals: Totals
    shipping_address: Address | None = None
    billing_address: Address | None = None
    shipping_method: str | None = None
    estimated_delivery: str | None = None  # ISO date
    promo_codes: tuple[str, ...] = ()
    payment_token: str | None = None
    cart_id: str | None = None
    payments: tuple[Payment, ...] = ()
    payment_due_at: Instant | None = None
    refunds: tuple[Refund, ...] = ()
    cancellation: Cancellation | None = None
    promotions: tuple[AppliedPromotion, ...] = ()
    edit: Edit | None = None
    edits: int = 0  # how many were begun
    hold: Hold | None = None
    modifiable_until: Instant | None = None
    shipments: tuple[Shipment, ...] = ()
    returns: tuple[Return, ...] = ()
    delivered_at: Instant | None = None
    survey: Survey | None = None
    exchange_of: str | None = None
    incoterm: str | None = None  # DAP | DDP, of an international order
    imported: bool = False
    status_version: int = 0  # the version that brought it into its status
    status_since: Instant | None = None
    stuck: str | None = None  # the status it was reported stuck in, until it leaves that
    last_line: int = 0  # line ids are L1, L2, … and never used again
    history: tuple[Stay, ...] = ()  # its way through the statuses, oldest first
    removed: tuple[RemovedLine, ...] = ()
    promised_delivery: str | None = None  # ISO date: what the customer was told on submission
    last_hash: str = ""  # SHA-256 of the newest event, which the next one carries

    @property
    def captured(self) -> int:
        return sum(p.taken for p in self.payments)

    @property
    def refunded(self) -> int:
        """Refunds under way count: what they take can't be given back again."""
        return sum(r.amount for r in self.refunds if r.counts)

    def line(self, line_id: str) -> Line | None:
        return next((line for line in self.lines if line.line_id == line_id), None)

    def shipment(self, shipment_id: str) -> Shipment | None:
        return next((s for s in self.shipments if s.shipment_id == shipment_id), None)

    def return_(self, rma: str) -> Return | None:
        return next((r for r in self.returns if r.rma == rma), None)


Family("order.states", Message)


class OrderState(Payload, family="order.states"):
    """The whole order after a command."""

    order: Order
