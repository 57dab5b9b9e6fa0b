"""The port to a payment provider: what OMS asks, and the outcomes it can have (decision 0004). Pure.

Money is never guessed about. An outcome says what the provider said; `Unknown` says that nobody knows yet, and
`ProviderUnavailable` that this very request was certainly not processed. Attempt, capture and refund ids are the
provider's idempotency keys, so the same thing may be submitted again and happens once.

Amounts are integer minor units. Payment tokens go to the provider and nowhere else: no log, no error message.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Captured:
    """Charged. `amount` is what the provider says it took, in minor units: compare it with what was asked."""

    provider_ref: str
    amount: int


@dataclass(frozen=True, slots=True)
class Authorized:
    """Reserved until `expires_at` (UTC), and not taken. `amount` is the provider's, as with `Captured`."""

    provider_ref: str
    amount: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Declined:
    """Not charged or authorized, and never will be under this attempt. `code` is the provider's."""

    code: str


@dataclass(frozen=True, slots=True)
class NotFound:
    """The provider has never seen this id. Only ever the answer to a question, never to a submission."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """It may have happened. Ask again later; after `valid_until`, only ask."""

    reason: str


@dataclass(frozen=True, slots=True)
class CaptureMade:
    """A part of an authorization was taken. `amount` is what the provider says it took."""

    provider_ref: str
    amount: int


@dataclass(frozen=True, slots=True)
class CaptureRefused:
    """Nothing was taken. `code` is the provider's."""

    code: str


@dataclass(frozen=True, slots=True)
class Voided:
    """Nothing more can be taken of the authorization."""


@dataclass(frozen=True, slots=True)
class VoidRefused:
    """There is nothing to void. `code` is the provider's."""

    code: str


@dataclass(frozen=True, slots=True)
class Refunded:
    provider_ref: str


@dataclass(frozen=True, slots=True)
class RefundRefused:
    """Nothing was given back. `code` is the provider's."""

    code: str


ChargeOutcome = Captured | Declined | NotFound | Unknown
AuthorizationOutcome = Authorized | Declined | NotFound | Unknown
CaptureOutcome = CaptureMade | CaptureRefused | Unknown
VoidOutcome = Voided | VoidRefused | Unknown
RefundOutcome = Refunded | RefundRefused | Unknown


class ProviderUnavailable(Exception):
    """The request was certainly not processed: nobody was there, or it was turned away at the door.

    It speaks of this call alone. An earlier call with the same id may well have been processed.
    """


class PaymentProvider(Protocol):
    """What OMS asks of a payment provider. Amounts are in minor units, a currency is its ISO 4217 code.

    Every method may raise ProviderUnavailable. A submission repeated with the same id and the same values is safe
    for as long as the provider remembers idempotency keys.
    """

    async def charge(self, attempt_id: str, order_id: str, amount: int, currency: str, token: str) -> ChargeOutcome:
        """Charge and capture at once. Never answers NotFound."""
        ...

    async def find_charge(self, attempt_id: str) -> ChargeOutcome:
        """How the attempt ended. Unknown also when the provider has not finished it."""
        ...

    async def authorize(
        self, attempt_id: str, order_id: str, amount: int, currency: str, token: str
    ) -> AuthorizationOutcome:
        """Reserve the amount without taking it. Never answers NotFound."""
        ...

    async def find_authorization(self, attempt_id: str) -> AuthorizationOutcome:
        """What can be captured now: an authorization that was voided or has expired is Declined, and says so."""
        ...

    async def capture(self, capture_id: str, attempt_id: str, amount: int, currency: str) -> CaptureOutcome:
        """Take a part, or all that is left, of what the attempt authorized. Several captures are possible."""
        ...

    async def find_capture(self, capture_id: str) -> CaptureOutcome | NotFound:
        """Whether the capture was made."""
        ...

    async def void(self, attempt_id: str) -> VoidOutcome:
        """Give free what is left of an authorization, also of one that has expired or was captured whole."""
        ...

    async def find_void(self, attempt_id: str) -> VoidOutcome | NotFound:
        """Whether the authorization was voided."""
        ...

    async def refund(self, refund_id: str, attempt_id: str, amount: int, currency: str) -> RefundOutcome:
        """Give back all or a part of what the attempt captured, at once or of its authorization."""
        ...

    async def find_refund(self, refund_id: str) -> RefundOutcome | NotFound:
        """Whether the refund was made."""
        ...
