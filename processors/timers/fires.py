"""What a timer sends when it fires, by its kind. Pure.

Whoever gets a fire ignores a stale one (by the timer's `generation`, its due time or its `args`), so a fire that is
late, or doubled, does no harm; its id is derived from the timer, so that a repeat is the same message.

    kind                   generation       args                                  sends
    payment_timeout        attempt id                                             ExpirePayment
    payment_query          how often asked  attempt_id, amount, currency, asked   QueryPayment
    abandoned_draft        order version                                          AbandonDraft
    review_deadline        any                                                    ExpireReview
    edit_timeout           edit id                                                ExpireEdit
    authorization_renewal  attempt id                                             RenewAuthorization
    begin_fulfilment       any                                                    BeginFulfilment
    redelivery             any              shipment_id, attempt                  RedeliverShipment
    stuck                  any              status, version                       ReportStuck
    return_expiry          RMA                                                    ExpireReturn
    reconcile              round                                                  Reconcile
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from uuid_utils import UUID, uuid5

from processors.kit import Outgoing
from processors.timers.wheel import Timer
from schemas import commands as c
from schemas.base import Command, Message, Payload
from schemas.logistics import RedeliverShipment
from schemas.payment import QueryPayment, Reconcile
from schemas.timers import SetTimer

ACTOR = "system:timers"
_FIRES = UUID("0d3f5c36-4f5c-5f0a-8a0b-6d3c6f1f9f52")


def fire(timer: Timer, at: datetime) -> Outgoing:
    """The message that this timer sends at `at`.

    Raises:
        ValueError: its kind is unknown, or its `args` are not what that kind needs.
    """
    kind = timer.command.kind
    if kind not in _KINDS:
        raise ValueError(f"no timer of kind {kind!r} is known")
    topic, build = _KINDS[kind]
    try:
        payload = build(timer.command)
    except KeyError as error:
        raise ValueError(f"a {kind} timer needs {error} in its args") from None
    envelope: type[Command[Any] | Message[Any]] = Command if topic == "order.internal" else Message
    message: Command[Any] | Message[Any] = envelope(
        id=fire_id(timer),
        order_id=timer.order_id,
        at=at,
        actor=ACTOR,
        correlation_id=timer.correlation_id,
        causation_id=timer.message_id,
        data=payload,
    )
    return Outgoing(topic, timer.order_id, message)


def fire_id(timer: Timer) -> str:
    set_ = timer.command
    return str(uuid5(_FIRES, f"{set_.timer_id}/{set_.generation}/{set_.due_at.isoformat()}"))


def _payment_query(timer: SetTimer) -> QueryPayment:
    args = timer.args
    return QueryPayment(
        attempt_id=args["attempt_id"],
        amount=int(args["amount"]),
        currency=args["currency"],
        asked=int(args["asked"]),
    )


def _redelivery(timer: SetTimer) -> RedeliverShipment:
    return RedeliverShipment(shipment_id=timer.args["shipment_id"], attempt=int(timer.args["attempt"]))


def _stuck(timer: SetTimer) -> c.ReportStuck:
    return c.ReportStuck(status=timer.args["status"], version=int(timer.args["version"]))


_KINDS: dict[str, tuple[str, Callable[[SetTimer], Payload]]] = {
    "payment_timeout": ("order.internal", lambda t: c.ExpirePayment(attempt_id=t.generation, due_at=t.due_at)),
    "payment_query": ("payment.commands", _payment_query),
    "abandoned_draft": ("order.internal", lambda t: c.AbandonDraft(version=int(t.generation))),
    "review_deadline": ("order.internal", lambda t: c.ExpireReview(due_at=t.due_at)),
    "edit_timeout": ("order.internal", lambda t: c.ExpireEdit(edit_id=t.generation)),
    "authorization_renewal": ("order.internal", lambda t: c.RenewAuthorization(attempt_id=t.generation)),
    "begin_fulfilment": ("order.internal", lambda t: c.BeginFulfilment(due_at=t.due_at)),
    "redelivery": ("shipping.commands", _redelivery),
    "stuck": ("order.internal", _stuck),
    "return_expiry": ("order.internal", lambda t: c.ExpireReturn(rma=t.generation)),
    "reconcile": ("reconciliation.commands", lambda t: Reconcile(round=int(t.generation))),
}
