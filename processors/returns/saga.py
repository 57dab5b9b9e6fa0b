"""The returns saga, pure: approved → a label and a deadline; back again → received; inspected → stock and exchanges.

Whether a step is possible is for [order] to say, so the saga remembers next to nothing: the labels that were asked for
and are not there yet. It joins topics that keep no order among each other; `evolve` and `react` are right under any
interleaving, and what they send has ids derived from its cause, so that a repeat sends the same again.

Money is not its business: [order] names the refunds, and placement has them made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from uuid_utils import NAMESPACE_URL, uuid5

from schemas import commands as c
from schemas import events as e
from schemas import inventory as i
from schemas.address import Address
from schemas.base import Event, Message, Model, Payload
from schemas.logistics import CarrierReported, MakeReturnLabel, ReturnLabelFailed, ReturnLabelMade
from schemas.operations import ExceptionOpened, ExceptionResolved
from schemas.order import ExchangeTerms, ReturnItem
from schemas.replies import CommandRejected
from schemas.timers import CancelTimer, SetTimer

ACTOR = "system:returns"
OWNER = "returns"
POOL = "main"
Cause = Event[Any] | Message[Any]


class LabelAsked(Model):
    """A return whose label is not there yet; `failed`: the carrier refused it, and a person was told."""

    rma: str
    address: Address
    customer_id: str
    failed: bool = False


class Returns(Model):
    """The returns of one order, as far as something is still to be asked for."""

    labels: tuple[LabelAsked, ...] = ()

    def label(self, rma: str) -> LabelAsked | None:
        return next((x for x in self.labels if x.rma == rma), None)


@dataclass(frozen=True)
class Send:
    """Something to send. `name` tells it from the saga's other messages about this order, and its id derives from it.
    `retry`: the message that an exception offers to send again. `order_id`: when it is another order's."""

    topic: str
    name: str
    payload: Payload
    retry: Send | None = None
    order_id: str | None = None


def exchange_order_id(rma: str, line_id: str) -> str:
    """The order that is made in exchange for a returned line."""
    return str(uuid5(NAMESPACE_URL, f"oms:exchange:{rma}:{line_id}"))


def evolve(returns: Returns | None, cause: Cause) -> Returns | None:
    """The returns after the message; None until the first one is approved."""
    match cause.data:
        case e.OrderReturnApproved(rma=rma) as approved:
            before = returns or Returns()
            if before.label(rma) is not None:
                return returns
            asked = LabelAsked(rma=rma, address=approved.shipping_address, customer_id=approved.customer_id)
            return Returns(labels=(*before.labels, asked))
        case e.OrderReturnLabelCreated(rma=rma) | e.OrderReturnReceived(rma=rma) | e.OrderReturnExpired(rma=rma):
            if returns is None or returns.label(rma) is None:
                return returns
            return Returns(labels=tuple(x for x in returns.labels if x.rma != rma))
        case ReturnLabelFailed(rma=rma) if returns is not None and returns.label(rma) is not None:
            failed = {"failed": True}
            return Returns(labels=tuple(x.model_copy(update=failed) if x.rma == rma else x for x in returns.labels))
        case _:
            return returns


def react(before: Returns | None, after: Returns | None, cause: Cause) -> list[Send]:
    """What has to be sent because of the message. Nobody acts on history from another system."""
    match cause:
        case Event(imported=True):
            return []
        case Event(order_id=order_id):
            return _on_event(before, cause.data, order_id)
        case Message():
            return _on_message(after, cause.data)


def _on_event(before: Returns | None, event: Payload, order_id: str) -> list[Send]:
    match event:
        case e.OrderReturnApproved(rma=rma) as approved:
            return [
                _make_label(rma, approved.shipping_address, approved.customer_id),
                Send(
                    "timer.commands",
                    f"expiry:{rma}",
                    SetTimer(
                        timer_id=_timer(order_id, rma), kind="return_expiry", due_at=approved.expires_at, generation=rma
                    ),
                ),
            ]
        case e.OrderReturnLabelCreated(rma=rma):
            return _resolve_label(before, rma, "the label was made")
        case e.OrderReturnExpired(rma=rma):
            return _resolve_label(before, rma, "the return expired")
        case e.OrderReturnReceived(rma=rma):
            return [
                Send("timer.commands", f"received:{rma}", CancelTimer(timer_id=_timer(order_id, rma))),
                *_resolve_label(before, rma, "the goods are back"),
            ]
        case e.OrderReturnInspected(rma=rma, items=items, exchange=terms):
            return [
                *(_restock(rma, item) for item in items),
                *(_exchange(rma, item, terms, order_id) for item in items if terms and item.exchange and item.refund),
            ]
        case _:
            return []


def _on_message(after: Returns | None, message: Payload) -> list[Send]:
    match message:
        case ReturnLabelMade(rma=rma):
            label = c.LabelReturn(
                rma=rma,
                carrier=message.carrier,
                tracking_number=message.tracking_number,
                label_url=message.label_url,
            )
            return [Send("order.internal", f"label:{rma}", label)]
        case ReturnLabelFailed(rma=rma, code=code):
            asked = after.label(rma) if after is not None else None
            return [_raise_no_label(asked, code)] if asked is not None else []
        case CarrierReported(kind="return_received", reference=rma):
            return [Send("order.internal", f"receive:{rma}", c.ReceiveReturn(rma=rma))]
        case i.StockRefused(cause_id=cause_id) if cause_id.startswith("RMA-"):
            return [_raise_not_restocked(message)]
        case CommandRejected(actor=actor) if actor == ACTOR:
            return _refused(message)
        case _:
            return []


def _timer(order_id: str, rma: str) -> str:
    return f"{order_id}:return_expiry:{rma}"


def _make_label(rma: str, address: Address, customer_id: str) -> Send:
    ask = MakeReturnLabel(rma=rma, address=address, customer_id=customer_id)
    return Send("shipping.commands", f"make_label:{rma}", ask)


def _restock(rma: str, item: ReturnItem) -> Send:
    cause_id = f"{rma}:{item.line_id}"
    back = i.RestockStock(
        line_id=item.line_id,
        sku=item.sku,
        pool=POOL,
        quantity=item.quantity,
        cause_id=cause_id,
        restock=bool(item.restock),
    )
    return Send("inventory.commands", f"restock:{cause_id}", back)


def _exchange(rma: str, item: ReturnItem, terms: ExchangeTerms, order_id: str) -> Send:
    """An order of its own, at the price that was told when the exchange was asked for."""
    if item.exchange is None:
        raise ValueError(f"line {item.line_id} of {rma} is not to be exchanged")
    create = c.CreateOrder(
        customer_id=terms.customer_id,
        currency=terms.currency,
        lines=(c.NewLine(quote=item.exchange, quantity=item.quantity),),
        shipping_address=terms.shipping_address,
        billing_address=terms.billing_address,
        shipping_method=terms.shipping_method,
        payment_token=terms.payment_token,
        submit=True,
        exchange_of=order_id,
    )
    name = f"exchange:{rma}:{item.line_id}"
    return Send("order.internal", name, create, order_id=exchange_order_id(rma, item.line_id))


# What needs a person


def _refused(rejected: CommandRejected) -> list[Send]:
    """The label of a return that was denied or expired meanwhile is worth nothing to anybody, and goods may be reported
    twice: by the carrier and by staff. The rest is for a person."""
    why = rejected.rejection
    received = why.extra.get("return_status") in ("received", "inspected", "closed")
    if why.type == "return-not-open" and (rejected.command == "LabelReturn" or received):
        return []
    kinds = {"ReceiveReturn": "return_unexpected", "CreateOrder": "exchange_refused"}
    return [
        _raise(
            f"refused:{rejected.command_id}",
            kind=kinds.get(rejected.command, "saga_command_refused"),
            detail=f"{rejected.command} was refused: {why.detail}",
            facts={"command_id": rejected.command_id, "type": why.type},
        )
    ]


def _raise_no_label(asked: LabelAsked, code: str) -> Send:
    return _raise(
        _label_exception(asked.rma),
        kind="return_label_failed",
        detail=f"The carrier made no label for {asked.rma}: {code}.",
        facts={"rma": asked.rma, "code": code},
        retry=_make_label(asked.rma, asked.address, asked.customer_id),
    )


def _resolve_label(before: Returns | None, rma: str, resolution: str) -> list[Send]:
    asked = before.label(rma) if before is not None else None
    if asked is None or not asked.failed:
        return []
    name = _label_exception(rma)
    return [Send("exceptions", f"resolve:{name}", ExceptionResolved(exception_id=name, resolution=resolution))]


def _label_exception(rma: str) -> str:
    return f"return_label:{rma}"


def _raise_not_restocked(refused: i.StockRefused) -> Send:
    return _raise(
        f"restock:{refused.cause_id}",
        kind="restock_refused",
        detail=f"Returned units of {refused.sku} could not be booked: {refused.reason}.",
        facts={"cause_id": refused.cause_id, "sku": refused.sku, "line_id": refused.line_id},
    )


def _raise(name: str, *, kind: str, detail: str, facts: dict[str, str], retry: Send | None = None) -> Send:
    opened = ExceptionOpened(exception_id=name, kind=kind, owner=OWNER, detail=detail, facts=facts)
    return Send("exceptions", f"raise:{name}", opened, retry=retry)
