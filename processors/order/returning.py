"""Sending goods back: asked for, approved, received, inspected; what each unit is then worth. And the survey.

A return (RMA) is open from the request until it is denied, expired, found worth nothing, or its refund is completed;
meanwhile the order is REFUND_REQUESTED (`evolve` derives that).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import ROUND_HALF_UP, Decimal

from processors.order import refunding
from processors.order.checks import Decision, not_now
from processors.order.names import rma as rma_of
from schemas import commands as c
from schemas import events as e
from schemas.base import Instant, Payload
from schemas.order import ExchangeTerms, Line, Order, RefundItem, Return, ReturnItem
from schemas.policy import Policy, ReturnRules
from schemas.replies import Rejection

# step → the statuses of a return that it is possible from; a label is nothing that people ask for
STEPS = {
    "approve": {"requested"},
    "deny": {"requested"},
    "label": {"approved", "received", "inspected", "closed"},
    "receive": {"approved"},
    "inspect": {"received"},
}
BY_PEOPLE = [step for step in STEPS if step != "label"]


def request_return(order: Order, wish: c.RequestReturn, at: Instant, policy: Policy) -> Decision:
    """Units of delivered lines, each for a reason that policy knows, inside the window of their category."""
    if not wish.items:
        return _bad("items", "no-lines", "A return has at least one item.")
    items: list[ReturnItem] = []
    for i, wanted in enumerate(wish.items):
        line = order.line(wanted.line_id)
        if line is None:
            return _bad(f"items[{i}].line_id", "unknown-line", f"The order has no line {wanted.line_id}.")
        if any(item.line_id == line.line_id for item in items):
            return _bad(f"items[{i}].line_id", "duplicate-line", f"Line {line.line_id} is named twice.")
        problem = _item_problem(order, line, wanted, i, at, policy.returns)
        if problem is not None:
            return problem
        items.append(
            ReturnItem(
                line_id=line.line_id,
                sku=line.sku,
                quantity=wanted.quantity,
                reason=wanted.reason,
                exchange=wanted.exchange,
            )
        )
    rma = rma_of(order.number, len(order.returns) + 1)
    most = _worth(order, items, policy.returns)
    events: list[Payload] = [
        e.OrderReturnRequested(rma=rma, items=tuple(items), comment=wish.comment),
        e.OrderRefundRequested(rma=rma, amount=most.total),
    ]
    if policy.returns.auto_approve:
        events.append(_approved(order, rma, tuple(items), at, policy.returns))
    return events


def approve_return(order: Order, approve: c.ApproveReturn, at: Instant, policy: Policy) -> Decision:
    found = _at_step(order, approve.rma, "approve")
    return found if isinstance(found, Rejection) else [_approved(order, found.rma, found.items, at, policy.returns)]


def deny_return(order: Order, deny: c.DenyReturn) -> Decision:
    found = _at_step(order, deny.rma, "deny")
    return found if isinstance(found, Rejection) else [e.OrderRefundDenied(rma=found.rma, reason=deny.reason)]


def label_return(order: Order, label: c.LabelReturn) -> Decision:
    """The news of a label may come after the goods that came with it: which label it was is a fact all the same."""
    found = _at_step(order, label.rma, "label")
    if isinstance(found, Rejection):
        return found
    if found.label_url is not None:
        return []
    return [
        e.OrderReturnLabelCreated(
            rma=found.rma,
            carrier=label.carrier,
            tracking_number=label.tracking_number,
            label_url=label.label_url,
        )
    ]


def receive_return(order: Order, receive: c.ReceiveReturn) -> Decision:
    found = _at_step(order, receive.rma, "receive")
    return found if isinstance(found, Rejection) else [e.OrderReturnReceived(rma=found.rma)]


def inspect_return(order: Order, inspect: c.InspectReturn, policy: Policy) -> Decision:
    """What the condition of each item is worth is given back, and an item that was worth something is exchanged."""
    found = _at_step(order, inspect.rma, "inspect")
    if isinstance(found, Rejection):
        return found
    rules = policy.returns
    named: dict[str, str] = {}
    for i, looked in enumerate(inspect.items):
        if looked.line_id in named:
            return _bad(f"items[{i}].line_id", "duplicate-line", f"Line {looked.line_id} is named twice.")
        if all(item.line_id != looked.line_id for item in found.items):
            return _bad(f"items[{i}].line_id", "unknown-line", f"{found.rma} has no line {looked.line_id}.")
        if looked.condition not in rules.conditions:
            detail = f"There is no condition {looked.condition!r}; there are {', '.join(rules.conditions)}."
            return _bad(f"items[{i}].condition", "unknown-condition", detail)
        named[looked.line_id] = looked.condition
    unsaid = next(iter(rules.conditions))
    conditions = [named.get(item.line_id, unsaid) for item in found.items]
    items = [
        item.model_copy(update={"condition": condition, "restock": rules.conditions[condition].restock})
        for item, condition in zip(found.items, conditions, strict=True)
    ]
    worth = _worth(order, items, rules)
    items = [item.model_copy(update={"refund": part.amount}) for item, part in zip(items, worth.items, strict=True)]
    wanted = any(item.exchange is not None and item.refund for item in items)
    inspected = e.OrderReturnInspected(
        rma=found.rma,
        items=tuple(items),
        amount=worth.total,
        restocking_fee=worth.fee,
        comment=inspect.comment,
        exchange=_exchange_terms(order) if wanted else None,
    )
    given = [part for part in worth.items if part.amount]
    refunds = refunding.refunds_of(order, worth.total, "return", rma=found.rma, items=given, shipping=worth.shipping)
    return [inspected, *refunds]


def expire_return(order: Order, expire: c.ExpireReturn) -> Decision:
    """Stale unless the return still waits for the goods."""
    found = order.return_(expire.rma)
    if found is None or found.status != "approved":
        return []
    return [e.OrderReturnExpired(rma=found.rma)]


def answer_survey(order: Order, answer: c.AnswerSurvey, actor: str) -> Decision:
    """Once, by the customer."""
    if actor.startswith("staff:"):
        return Rejection(type="forbidden", status=403, detail="Only the customer can say how it was.")
    if not 1 <= answer.score <= 5:
        return _bad("score", "score-out-of-range", f"A score is from 1 (bad) to 5 (good), not {answer.score}.")
    if order.survey is not None:
        return not_now(order, actor, "survey-answered", "The survey of this order was answered already")
    return [e.OrderSurveyAnswered(score=answer.score, comment=answer.comment)]


# Asking


def _item_problem(
    order: Order, line: Line, wanted: c.ReturnWish, i: int, at: Instant, rules: ReturnRules
) -> Rejection | None:
    if wanted.reason not in rules.reasons:
        known = ", ".join(rules.reasons) or "none"
        return _bad(
            f"items[{i}].reason", "unknown-reason", f"There is no reason {wanted.reason!r}; there are: {known}."
        )
    window = rules.category_windows.get(line.category, rules.window)
    if window <= timedelta(0):
        detail = f"{line.name} can't be returned: products of the category {line.category} can't."
        return _bad(f"items[{i}].line_id", "not-returnable", detail)
    if order.delivered_at is None:
        raise ValueError(f"order {order.order_id} is {order.status} without a time of delivery")
    closed_at = order.delivered_at + window
    if at > closed_at:
        return Rejection(
            type="return-window-closed",
            field=f"items[{i}].line_id",
            detail=f"{line.name} could be returned until {closed_at.date().isoformat()}.",
            extra={"closed_at": closed_at.isoformat()},
        )
    free = line.delivered - line.returned - _under_way(order, line)
    if not 1 <= wanted.quantity <= free:
        detail = f"Of line {line.line_id} {max(0, free)} units can be returned, not {wanted.quantity}."
        return _bad(f"items[{i}].quantity", "quantity-out-of-range", detail)
    if wanted.exchange is not None and _exchange_terms(order) is None:
        detail = "The order has no address, shipping method or payment that another one could take over."
        return _bad(f"items[{i}].exchange_sku", "not-exchangeable", detail)
    return None


def _under_way(order: Order, line: Line) -> int:
    """Units of a line in returns that were not inspected yet; those that were are `line.returned`."""
    return sum(
        item.quantity
        for found in order.returns
        if found.open and found.status != "inspected"
        for item in found.items
        if item.line_id == line.line_id
    )


def _approved(
    order: Order, rma: str, items: tuple[ReturnItem, ...], at: Instant, rules: ReturnRules
) -> e.OrderReturnApproved:
    if order.shipping_address is None:
        raise ValueError(f"order {order.order_id} was delivered without an address")
    return e.OrderReturnApproved(
        rma=rma,
        expires_at=at + rules.send_back_within,
        items=items,
        shipping_address=order.shipping_address,
        customer_id=order.customer_id,
    )


def _at_step(order: Order, rma: str, step: str) -> Return | Rejection:
    """The return, when this step is possible now."""
    found = order.return_(rma)
    if found is None:
        return Rejection(type="unknown-return", status=404, detail=f"The order has no return {rma}.")
    if found.status in STEPS[step]:
        return found
    possible = ", ".join(other for other in BY_PEOPLE if found.status in STEPS[other]) or "nothing"
    return Rejection(
        type="return-not-open",
        detail=f"To {step} is not possible while return {rma} is {found.status}; possible now: {possible}.",
        extra={"return_status": found.status, "possible": possible},
    )


# Worth


class _Worth:
    """What a return gives back, in minor units: for each item, of shipping, and what the restocking fee took."""

    def __init__(self, items: list[RefundItem], shipping: int, fee: int) -> None:
        self.items = items
        self.shipping = shipping
        self.fee = fee

    @property
    def total(self) -> int:
        return sum(item.amount for item in self.items) + self.shipping


def _worth(order: Order, items: Sequence[ReturnItem], rules: ReturnRules) -> _Worth:
    """Never more than is left of what was taken. Without a condition (before inspection): as if all were well."""
    left, fee = refunding.left(order), 0
    parts = []
    for item in items:
        line = order.line(item.line_id)
        if line is None:
            raise ValueError(f"order {order.order_id} has no line {item.line_id}")
        due = refunding.line_due(order, line, item.quantity)
        percent = rules.conditions[item.condition].refund_percent if item.condition else Decimal(100)
        worth = _percent(due.amount, percent)
        kept_back = _percent(worth, _fee_percent(line, item, rules))
        fee += kept_back
        parts.append(due.model_copy(update={"amount": min(worth - kept_back, left)}))
        left -= parts[-1].amount
    shipping = min(refunding.shipping_left(order), left) if _shipping_too(order, items, parts, rules) else 0
    return _Worth(parts, max(0, shipping), fee)


def _fee_percent(line: Line, item: ReturnItem, rules: ReturnRules) -> Decimal:
    if _fault(item, rules) == "shop":
        return Decimal(0)
    return rules.category_fees.get(line.category, rules.restocking_fee_percent)


def _fault(item: ReturnItem, rules: ReturnRules) -> str:
    """A reason that policy does not know any more is the customer's."""
    reason = rules.reasons.get(item.reason)
    return reason.fault if reason else "customer"


def _shipping_too(order: Order, items: Sequence[ReturnItem], parts: Sequence[RefundItem], rules: ReturnRules) -> bool:
    """It is all the shop's fault, it is accepted, and nothing of the order stays with the customer."""
    if any(_fault(item, rules) != "shop" for item in items) or not any(part.amount for part in parts):
        return False
    coming = {item.line_id: item.quantity for item in items}
    return all(
        line.quantity - line.cancelled - line.returned - coming.get(line.line_id, 0) <= 0 for line in order.lines
    )


def _exchange_terms(order: Order) -> ExchangeTerms | None:
    """None for an order that lacks something (an imported one may): `request_return` refuses an exchange then."""
    if not (order.shipping_address and order.billing_address and order.shipping_method and order.payment_token):
        return None
    return ExchangeTerms(
        customer_id=order.customer_id,
        currency=order.currency,
        shipping_address=order.shipping_address,
        billing_address=order.billing_address,
        shipping_method=order.shipping_method,
        payment_token=order.payment_token,
    )


def _percent(amount: int, percent: Decimal) -> int:
    return int((amount * percent / 100).quantize(Decimal(1), rounding=ROUND_HALF_UP))


def _bad(field: str, type: str, detail: str) -> Rejection:
    return Rejection(type=type, status=422, field=field, detail=detail)
