"""The promotion processor: the single writer of a promotion's uses, keyed by its code.

State under a code: `promotion`, and entries, so that no value grows: `use:ORDER` (what the order has of it),
`customer:ID` (how many uses the customer has) and `put:ID` for each change by staff, with its outcome.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from uuid_utils import NAMESPACE_URL, uuid5

from processors.kit import Handler, Incoming, Outgoing, State
from processors.promotion import rules
from processors.promotion.rules import Promotion, Refused, Use
from processors.shapes import Shape
from schemas import promotion as p
from schemas.base import Message, Payload
from schemas.policy import Policy
from schemas.replies import IDEMPOTENCY_KEY_REUSED, PromotionOutcome

PROMOTION = Shape(Promotion)
USE = Shape(Use)


def handler(policy: Policy) -> Handler:
    """The handler for `runtime.streams` and the simulation."""

    def handle(state: State, incoming: Incoming) -> Iterable[Outgoing]:
        cause = incoming.message
        if not isinstance(cause, Message):
            raise TypeError(f"{type(cause).__name__} is not a promotion command")
        match cause.data:
            case p.RedeemPromotion() | p.ReleasePromotion() as command:
                return handle_use(state, incoming.key, cause, command)
            case p.PutPromotion() as command:
                return handle_put(state, incoming.key, cause, command, policy.idempotency_kept)
            case other:
                raise TypeError(f"{type(other).__name__} is not a promotion command")

    return handle


def handle_use(
    state: State, code: str, cause: Message[Any], command: p.RedeemPromotion | p.ReleasePromotion
) -> list[Outgoing]:
    """An order uses the code, or gives the use back; the saga that asked hears what came of it."""
    if cause.order_id is None:
        raise ValueError("a use belongs to an order")
    entry, version = f"use:{cause.order_id}", command.order_version
    promotion, found = PROMOTION.load(state, "promotion"), USE.load(state, entry)
    done: Payload
    match command:
        case p.RedeemPromotion(customer_id=customer_id):
            used = state.get(f"customer:{customer_id}", 0)
            outcome = rules.redeem(promotion, found, used, customer_id, version)
            kind, done = "redeemed", p.PromotionRedeemed(code=code, order_version=version)
        case p.ReleasePromotion():
            outcome = rules.release(found, version)
            kind, done = "released", p.PromotionReleased(code=code, order_version=version)
    if isinstance(outcome, Refused):
        return [_result(cause, p.PromotionRefused(code=code, reason=outcome.reason, order_version=version))]
    USE.save(state, entry, outcome.use)
    if outcome.change == 0:
        return [_result(cause, done)]
    if promotion is None:
        raise ValueError(f"{code} is used and not defined")
    customer = f"customer:{outcome.use.customer_id}"
    state.set(customer, state.get(customer, 0) + outcome.change)
    after = promotion.model_copy(update={"used": promotion.used + outcome.change})
    changed = p.PromotionChanged(
        kind=kind, code=code, customer_id=outcome.use.customer_id, used=after.used, limit=after.limit
    )
    return [*_changed(state, code, cause, after, changed), _result(cause, done)]


def handle_put(
    state: State, code: str, cause: Message[Any], command: p.PutPromotion, kept: timedelta
) -> list[Outgoing]:
    """Staff defines or changes it; a repeat gets the first answer."""
    entry = f"put:{cause.id}"
    seen = state.get(entry)
    if seen is not None:
        if seen["body_hash"] == command.body_hash:
            return _reply(cause, PromotionOutcome.model_validate(seen["outcome"]))
        return _reply(cause, PromotionOutcome(command_id=cause.id, accepted=False, rejection=IDEMPOTENCY_KEY_REUSED))
    if command.terms.code != code:
        raise ValueError(f"the terms of {command.terms.code} came under the key {code}")
    before = PROMOTION.load(state, "promotion")
    after = rules.put(before, command.terms, command.limit, command.limit_per_customer)
    changed = p.PromotionChanged(
        kind="put",
        code=code,
        used=after.used,
        limit=after.limit,
        before=_level(before) if before else None,
        after=_level(after),
    )
    outputs = _changed(state, code, cause, after, changed)
    outcome = PromotionOutcome(command_id=cause.id, accepted=True, level=_level(after))
    state.set(entry, {"body_hash": command.body_hash, "outcome": outcome.model_dump(mode="json")}, ttl=kept)
    return [*outputs, *_reply(cause, outcome)]


def _changed(
    state: State, code: str, cause: Message[Any], after: Promotion, changed: p.PromotionChanged
) -> list[Outgoing]:
    PROMOTION.save(state, "promotion", after)
    return [
        Outgoing("promotion.events", code, _message(cause, changed)),
        Outgoing("promotion.levels", code, _message(cause, _level(after))),
    ]


def _level(promotion: Promotion) -> p.PromotionLevel:
    return p.PromotionLevel(**dict(promotion))


def _result(cause: Message[Any], payload: Payload) -> Outgoing:
    return Outgoing("promotion.results", cause.order_id or "", _message(cause, payload))


def _reply(cause: Message[Any], outcome: PromotionOutcome) -> list[Outgoing]:
    return [Outgoing("order.replies", cause.reply_to, _message(cause, outcome))] if cause.reply_to else []


def _message(cause: Message[Any], payload: Payload) -> Message[Any]:
    return Message(
        id=str(uuid5(NAMESPACE_URL, f"oms:{type(payload).__name__}:{cause.id}")),
        at=cause.at,
        actor=cause.actor if payload.family == "promotion.events" else "system:promotion",
        correlation_id=cause.correlation_id,
        causation_id=cause.id,
        order_id=cause.order_id,
        data=payload,
    )
