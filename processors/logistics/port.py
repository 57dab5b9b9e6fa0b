"""The ports to a warehouse and a carrier: what OMS asks of them. What becomes of it they report by themselves,
by webhooks.

Every id is ours and makes its request repeatable: the same again changes nothing. So there is one way to fail without
a word, `Unavailable`: send the same again later, whether or not it was processed. Weights are grams, values integer
minor units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from processors.outside import Unavailable
from schemas.logistics import CustomsItem, Picked


@dataclass(frozen=True, slots=True)
class PostalAddress:
    """In clear: only ever on its way to the carrier, never in a log or an error."""

    name: str
    street_address: str
    city: str
    state: str | None
    postal_code: str | None
    country: str


@dataclass(frozen=True, slots=True)
class Customs:
    incoterm: str
    currency: str
    items: Sequence[CustomsItem]


@dataclass(frozen=True, slots=True)
class Booked:
    """`estimated_delivery`: an ISO date."""

    carrier: str
    tracking_number: str
    tracking_url: str
    estimated_delivery: str | None


@dataclass(frozen=True, slots=True)
class Label:
    carrier: str
    tracking_number: str
    label_url: str


@dataclass(frozen=True, slots=True)
class Refused:
    """No, and no again the next time. `code` is the partner's."""

    code: str


class Warehouse(Protocol):
    """Every method may raise Unavailable."""

    async def pick(self, shipment_id: str, order_id: str, lines: Sequence[Picked]) -> Refused | None:
        """Pick and pack a parcel. None: it will be, or told what is missing."""
        ...

    async def cancel_pick(self, shipment_id: str) -> Refused | None:
        """Don't. Refused: too late, or never heard of."""
        ...


class Carrier(Protocol):
    """Every method may raise Unavailable."""

    async def book(
        self,
        shipment_id: str,
        order_id: str,
        method: str,
        address: PostalAddress,
        weight_grams: int,
        customs: Customs | None,
    ) -> Booked | Refused:
        """Have a packed parcel fetched."""
        ...

    async def cancel(self, shipment_id: str) -> Refused | None:
        """Don't fetch it, or bring it back. Refused: too late, or never heard of."""
        ...

    async def redeliver(self, shipment_id: str, attempt: int) -> Refused | None:
        """Try to deliver again; a repeat of the same attempt changes nothing."""
        ...

    async def label(self, rma: str, order_id: str, address: PostalAddress) -> Label | Refused:
        """A label for a parcel that comes back from this address."""
        ...


__all__ = ["Booked", "Carrier", "Customs", "Label", "PostalAddress", "Refused", "Unavailable", "Warehouse"]
