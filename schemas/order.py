"""The order: what a fold of its events gives, what the state store holds and `order.states` carries."""

from __future__ import annotations

from enum import StrEnum

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
    ABANDONED = "abandoned"
    UNDELIVERABLE = "undeliverable"
    STAFF = "staff"


class Quote(Model):
    """What the catalogue said of a SKU when the gateway asked it; the price is for one unit, before tax."""

    product_id: str
    sku: str
    name: str
    category: str
    tax_category: str
    weight_grams: int
    unit_price: Minor


class Line(Model):
    """A line of an order. `discount` and `tax` are of the whole line; line_total = quantity × unit_price."""

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


class Totals(Model):
    """subtotal − discount + tax + shipping = total, all in minor units of the order's currency."""

    subtotal: Minor = 0
    discount: Minor = 0
    tax: Minor = 0
    shipping: Minor = 0
    total: Minor = 0


class Payment(Model):
    """One attempt to be paid."""

    attempt_id: str
    amount: Minor
    status: str  # requested | captured | declined
    provider_ref: str | None = None
    code: str | None = None
    refunded: Minor = 0


class Refund(Model):
    refund_id: str
    attempt_id: str
    amount: Minor
    status: str  # initiated | completed
    reason: str
    provider_ref: str | None = None


class Cancellation(Model):
    reason: str
    comment: str | None = None
    skus: tuple[str, ...] = ()


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
    last_line: int = 0  # line ids are L1, L2, … and never used again
    last_hash: str = ""  # SHA-256 of the newest event, which the next one carries

    @property
    def captured(self) -> int:
        return sum(p.amount for p in self.payments if p.status == "captured")

    @property
    def refunded(self) -> int:
        """Refunds under way count: what they take can't be given back again."""
        return sum(r.amount for r in self.refunds)


Family("order.states", Message)


class OrderState(Payload, family="order.states"):
    """The whole order after a command."""

    order: Order
