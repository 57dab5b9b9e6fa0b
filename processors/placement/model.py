"""What the placement saga knows of an order, and what it sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from schemas.base import Event, Instant, Message, Model, Payload
from schemas.order import CancellationReason

ACTOR = "system:placement"
POOL = "main"
Cause = Event[Any] | Message[Any]


class Need(Model):
    """What a line needs of the stock. Units, those shipped already included: `wanted` is what was agreed on with the
    customer, `asked` what the newest ReserveStock said; they differ while an edit asks for more. `version` is the order
    version in that command, which its answer repeats. fate: asked | reserved | refused (and holds nothing)."""

    line_id: str
    sku: str
    backorder: bool = False
    wanted: int
    asked: int
    version: int
    fate: str = "asked"


class Use(Model):
    """The use of a promotion. `version` as in Need. fate: asked | redeemed | refused."""

    code: str
    version: int
    fate: str = "asked"


class Score(Model):
    """What the fraud scoring says of one aspect; None: nothing yet. `version` as in Need."""

    aspect: str
    score: int | None = None
    reasons: tuple[str, ...] = ()
    version: int = 0


def total(scores: tuple[Score, ...]) -> int:
    return sum(s.score or 0 for s in scores)


def reasons(scores: tuple[Score, ...]) -> str:
    return ", ".join(dict.fromkeys(reason for s in scores for reason in s.reasons))


class Attempt(Model):
    """A payment attempt. purpose: order | edit | renewal. fate: requested | charging | unknown | captured | authorized
    | voided | declined | not_made. `taken`, `provider_ref` and `expires_at` are the provider's words."""

    attempt_id: str
    amount: int
    currency: str
    token: str
    valid_until: Instant
    fate: str = "requested"
    purpose: str = "order"
    authorize: bool = False
    taken: int | None = None
    provider_ref: str | None = None
    expires_at: Instant | None = None  # of an authorization
    raised: bool = False  # an exception waits for the provider's word

    @property
    def open(self) -> bool:
        """The provider was asked, and has not said how it ended."""
        return self.fate in ("charging", "unknown")

    @property
    def settled(self) -> bool:
        return self.fate != "requested" and not self.open

    @property
    def has_money(self) -> bool:
        return self.fate in ("captured", "authorized")


class Transfer(Model):
    """A refund, a capture of an authorization, or its void (under the id of the attempt). fate: asked | done | failed,
    which was raised."""

    transfer_id: str
    amount: int
    fate: str = "asked"


class Timer(Model):
    """A timer that runs for the order. There is one of a kind, but each authorization is renewed by itself."""

    kind: str
    due_at: Instant
    generation: str

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.generation}" if self.kind == "authorization_renewal" else self.kind


class PendingEdit(Model):
    """A change of the placed order that waits. step: waiting (for the first payment) | asking (stock, promotions and
    scoring) | paying | completing | failing; the last two are over with [order]'s event. `rises` are the lines that
    want more than now (until they are asked for), `codes` its new promotions, `scores` what the scoring says of it."""

    edit_id: str
    version: int
    rises: tuple[Need, ...] = ()
    codes: tuple[str, ...] = ()
    attempt_id: str | None = None
    step: str = "waiting"
    short: tuple[str, ...] = ()  # SKUs of rises that were refused
    scores: tuple[Score, ...] = ()


class Placement(Model):
    """phase: draft | placing (until it is paid) | refused (we asked to cancel it) | paid | ended (cancelled).
    `version` is that of the newest event that mattered. After the end only payment is left."""

    order_id: str
    phase: str = "draft"
    customer_id: str = ""
    currency: str = ""
    needs: tuple[Need, ...] = ()
    uses: tuple[Use, ...] = ()
    scores: tuple[Score, ...] = ()
    review: int = 0  # the version at which [order] was asked to hold it for a review
    cleared: bool = False  # the review ended well
    held: bool = False
    attempts: tuple[Attempt, ...] = ()
    transfers: tuple[Transfer, ...] = ()
    edit: PendingEdit | None = None
    timers: tuple[Timer, ...] = ()
    version: int = 0

    def but(self, **changes: Any) -> Placement:
        return self.model_copy(update=changes)

    def with_attempt(self, attempt_id: str, **changes: Any) -> Placement:
        changed = (a.model_copy(update=changes) if a.attempt_id == attempt_id else a for a in self.attempts)
        return self.but(attempts=tuple(changed))

    def settled(self, attempt_id: str, **words: Any) -> Placement:
        """The provider has said how the attempt ended: its token is of no use any more."""
        return self.with_attempt(attempt_id, **words, token="", raised=False)

    def without_uncharged(self, purpose: str) -> tuple[Attempt, ...]:
        """The attempts that a provider has heard of, or that are for something else. The others are superseded."""
        return tuple(a for a in self.attempts if a.purpose != purpose or a.fate != "requested")

    def without_timer(self, name: str) -> tuple[Timer, ...]:
        return tuple(t for t in self.timers if t.name != name)

    def attempt(self, attempt_id: str | None) -> Attempt | None:
        return next((a for a in self.attempts if a.attempt_id == attempt_id), None)

    def transfer(self, transfer_id: str) -> Transfer | None:
        return next((t for t in self.transfers if t.transfer_id == transfer_id), None)

    def need(self, line_id: str) -> Need | None:
        return next((n for n in self.needs if n.line_id == line_id), None)

    @property
    def answered(self) -> bool:
        """Stock, promotions and scoring have all spoken."""
        asked = any(n.fate == "asked" for n in self.needs) or any(u.fate == "asked" for u in self.uses)
        return not asked and all(s.score is not None for s in self.scores)

    @property
    def short_skus(self) -> tuple[str, ...]:
        return tuple(sorted({n.sku for n in self.needs if n.fate == "refused"}))

    @property
    def refused_codes(self) -> tuple[str, ...]:
        return tuple(u.code for u in self.uses if u.fate == "refused")

    @property
    def refusal(self) -> str:
        """Why an order in phase refused is to be cancelled."""
        if self.short_skus:
            return CancellationReason.OUT_OF_STOCK
        return CancellationReason.PROMOTION_UNAVAILABLE if self.refused_codes else CancellationReason.FRAUD


@dataclass(frozen=True)
class Send:
    """Something to send. `name` tells it from the saga's other messages about this order, and its id derives from it:
    the same reason gives the same message. `key`: the message's, when it is not the order. `retry`: what an exception
    offers to send again."""

    topic: str
    name: str
    payload: Payload
    key: str | None = None
    retry: Send | None = None
