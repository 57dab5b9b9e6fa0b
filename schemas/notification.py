"""The language of messages to customers. Keyed by customer."""

from __future__ import annotations

from pydantic import Field

from schemas.address import Sealed
from schemas.base import Family, Instant, Message, Model, Payload

Family("notification.commands", Message)
Family("notification.events", Message)
Family("customer.preferences", Message)
Family("customer.events", Message)


class Preferences(Payload, family="customer.preferences"):
    """Where and how to reach a customer. `contact` seals {email, phone, webhook_url, push_token}. `opt_outs` are kinds
    of messages that the customer does not want; those that a contract needs are sent all the same."""

    customer_id: str
    contact: Sealed
    channel: str  # email | sms | webhook | push
    language: str
    opt_outs: tuple[str, ...] = ()


class Wishes(Model):
    """Preferences without what names or reaches a person. `contacts`: the ways that are known (email, phone, …)."""

    channel: str
    language: str
    opt_outs: tuple[str, ...] = ()
    contacts: tuple[str, ...] = ()


class PreferencesChanged(Payload, family="customer.events"):
    """A customer, or staff for them, replaced their preferences. `new_contacts`: the ways whose address is another
    one now. `before`: as the gateway that was asked knew them; None: these are the first."""

    customer_id: str
    before: Wishes | None = None
    after: Wishes
    new_contacts: tuple[str, ...] = ()


class NoticeLine(Model):
    name: str
    sku: str
    quantity: int
    total: str


class SendNotice(Payload, family="notification.commands"):
    """Tell the customer about an event of an order. `kind`: a template's name. Amounts are texts with their currency;
    `event_id` makes the Message-ID, so that a repeat is the same message. `paid`: whether money was ever taken for the
    order (a reservation is none); None: not known. `attempts_left`: how often a declined payment may be tried again."""

    kind: str
    event_id: str
    customer_id: str
    order_number: str
    status: str = Field(default="", description="always empty; readers of the first version need it")
    occurred_at: Instant
    lines: tuple[NoticeLine, ...] = ()
    total: str | None = None
    amount: str | None = None
    reason: str | None = None
    carrier: str | None = None
    tracking_number: str | None = None
    tracking_url: str | None = None
    estimated_delivery: str | None = None
    rma: str | None = None
    label_url: str | None = None
    paid: bool | None = None
    attempts_left: int | None = None


class NoticeSent(Payload, family="notification.events"):
    """`message_id` is the Message-ID; `channel` how it went."""

    kind: str
    event_id: str
    channel: str
    message_id: str
    language: str


class NoticeSkipped(Payload, family="notification.events"):
    """reason: opted_out | no_contact | forgotten (the key of the contact is gone)."""

    kind: str
    event_id: str
    channel: str
    reason: str


class NoticeFailed(Payload, family="notification.events"):
    """It could not be sent, and is not tried any more."""

    kind: str
    event_id: str
    channel: str
    message_id: str
    error: str
