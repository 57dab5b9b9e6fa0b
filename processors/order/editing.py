"""Changing an order: its lines, addresses, shipping method and promotions.

In a draft a change happens at once. In a placed order it is an edit (docs/decisions/0012-edits.md), which happens whole
or not at all: at once when it needs nothing from anybody, else when stock, promotion and money for it are there.
"""

from __future__ import annotations

from typing import Any

from processors.order import attempts, capturing, drafting, fulfilling, paying, pricing, refunding
from processors.order.checks import Decision, edit_pending, find_line, not_now, order_held
from processors.order.names import edit_id, payment_attempt_id
from schemas import commands as c
from schemas import events as e
from schemas.base import Command, Instant, Payload
from schemas.order import Edit, Line, Order, OrderStatus
from schemas.policy import Policy
from schemas.replies import Rejection

Change = (
    c.AddItem
    | c.RemoveItem
    | c.ChangeQuantity
    | c.ChangeShippingAddress
    | c.ChangeBillingAddress
    | c.ChangeShippingMethod
    | c.ApplyPromotion
    | c.RemovePromotion
)


def change(order: Order, command: Command[Any], policy: Policy) -> Decision:
    """The order's status allows changes."""
    if order.status != OrderStatus.DRAFT and (refused := _not_now(order, command)):
        return refused
    data: Change = command.data
    if isinstance(data, c.ChangeBillingAddress):
        return _change_billing_address(order, data, command.actor, policy)
    edit = _edit(order, data, command, policy)
    if edit is None or isinstance(edit, Rejection):
        return edit or []
    if order.status == OrderStatus.DRAFT:
        return [_event(order, edit)]
    if not any(line.quantity > line.cancelled for line in edit.lines):
        return _last_line()
    return _at_once(order, edit) if _needs_nobody(order, edit) else _requested(order, edit, command.at, policy)


def complete_edit(order: Order, complete: c.CompleteEdit, at: Instant) -> Decision:
    """Money for an edit that does not wait any more goes back by itself."""
    edit = order.edit
    if edit is None or edit.edit_id != complete.edit_id:
        return paying.too_late(order, complete)
    if order.status != OrderStatus.PAYMENT_CONFIRMED or (edit.due > 0 and complete.attempt_id != edit.attempt_id):
        return Rejection(
            type="edit-not-paid",
            detail="The order, or what this change of it costs more, was not paid yet.",
            extra={"edit_id": edit.edit_id},
        )
    paid = {
        "attempt_id": complete.attempt_id,
        "amount": complete.amount,
        "provider_ref": complete.provider_ref,
        "authorized": complete.authorized,
        "expires_at": complete.expires_at,
    }
    return _completed(order, edit, at, paid if edit.due else {})


def confirm_edit_payment(order: Order, confirm: c.ConfirmPayment, at: Instant) -> Decision:
    """The money of the edit that waits: it was asked for last, when stock and promotion were there."""
    edit = "" if order.edit is None else order.edit.edit_id
    return complete_edit(order, c.CompleteEdit(edit_id=edit, **confirm.model_dump()), at)


def fail_edit(order: Order, fail: c.FailEdit, at: Instant) -> Decision:
    """Stale unless this very edit still waits."""
    if order.edit is None or order.edit.edit_id != fail.edit_id:
        return []
    failed = e.OrderEditFailed(
        edit_id=fail.edit_id, kind=order.edit.kind, reason=fail.reason, detail=fail.detail, skus=fail.skus
    )
    return [failed, *fulfilling.start(fulfilling.after(order, [failed]), at)]


def fail_edit_payment(order: Order, failed: c.FailPayment, at: Instant) -> Decision:
    """The money of the edit that waits was declined."""
    edit = "" if order.edit is None else order.edit.edit_id
    return fail_edit(order, c.FailEdit(edit_id=edit, reason="payment_declined", detail=failed.code), at)


def expire_edit(order: Order, expire: c.ExpireEdit, at: Instant) -> Decision:
    return fail_edit(order, c.FailEdit(edit_id=expire.edit_id, reason="timeout"), at)


def waits_for(order: Order, attempt_id: str) -> bool:
    """Whether an edit waits for the money of this attempt."""
    return order.edit is not None and order.edit.attempt_id == attempt_id


def applied(order: Order) -> Order:
    """The order with the edit that waits as if it were completed; the edit is still named, so that a preview says what
    is to be paid."""
    if order.edit is None:
        return order
    after = fulfilling.after(order, [_event(order, order.edit)])
    return after.model_copy(update={"version": order.version})


# What a change comes to


def _edit(order: Order, data: Change, command: Command[Any], policy: Policy) -> Edit | Rejection | None:
    """The order as it will be, why it can't be, or None when that is how it is."""
    wish = _wish(order, data)
    if wish is None or isinstance(wish, Rejection):
        return wish
    facts, changes = wish
    priced = drafting.reprice(order, command.at, policy, **changes)
    if isinstance(priced, Rejection):
        return _at_its_field(priced, data)
    return Edit(
        edit_id=edit_id(order.order_id, order.edits + 1),
        actor=command.actor,
        reason=data.reason,
        requested_at=command.at,
        lines=priced.lines,
        totals=priced.totals,
        promotions=priced.promotions,
        estimated_delivery=priced.estimated_delivery,
        incoterm=priced.incoterm,
        **facts,
    )


def _wish(order: Order, data: Change) -> tuple[dict[str, Any], dict[str, Any]] | Rejection | None:
    """(what the edit says of the change, what pricing has to take into account); None when it changes nothing."""
    match data:
        case c.AddItem(line=new):
            line = pricing.priced_line(f"L{order.last_line + 1}", new.quote, new.quantity)
            return _line_facts("add_item", line), {"lines": (*order.lines, line)}
        case c.RemoveItem(line_id=line_id):
            found = find_line(order, line_id)
            if isinstance(found, Rejection):
                return found
            left = tuple(line for line in order.lines if line is not found)
            return (_line_facts("remove_item", found), {"lines": left}) if left else _last_line()
        case c.ChangeQuantity(line_id=line_id, quantity=quantity):
            return _wished_quantity(order, line_id, quantity)
        case c.ChangeShippingAddress(address=address):
            if address == order.shipping_address:
                return None
            return {"kind": "change_shipping_address", "shipping_address": address}, {"address": address}
        case c.ChangeShippingMethod(shipping_method=method):
            if method == order.shipping_method:
                return None
            return {"kind": "change_shipping_method", "shipping_method": method}, {"method": method}
        case c.ApplyPromotion(terms=terms):
            facts = {"kind": "apply_promotion", "code": terms.code}
            return facts, {"terms": (*(p.terms for p in order.promotions), terms)}
        case c.RemovePromotion(code=code):
            others = tuple(p.terms for p in order.promotions if p.terms.code != code)
            if len(others) == len(order.promotions):
                return _unknown_promotion(code)
            return {"kind": "remove_promotion", "code": code}, {"terms": others}
        case c.ChangeBillingAddress():
            raise ValueError("a billing address changes nothing that is priced")


def _wished_quantity(
    order: Order, line_id: str, quantity: int
) -> tuple[dict[str, Any], dict[str, Any]] | Rejection | None:
    found = find_line(order, line_id)
    if isinstance(found, Rejection):
        return found
    if quantity == found.quantity:
        return None
    if quantity < found.cancelled:
        return _below_cancelled(found, quantity)
    changed = found.model_copy(update={"quantity": quantity})
    lines = tuple(changed if line is found else line for line in order.lines)
    return {**_line_facts("change_quantity", changed), "before": found.quantity}, {"lines": lines}


def _line_facts(kind: str, line: Line) -> dict[str, Any]:
    return {"kind": kind, "line_id": line.line_id, "sku": line.sku, "quantity": line.quantity}


def _event(order: Order, edit: Edit) -> Payload:
    """The event that makes the change happen."""
    priced: dict[str, Any] = {
        "lines": edit.lines,
        "totals": edit.totals,
        "promotions": edit.promotions,
        "reason": edit.reason,
    }
    line: dict[str, Any] = {"line_id": edit.line_id, "sku": edit.sku, "quantity": edit.quantity}
    match edit.kind:
        case "add_item":
            return e.OrderLineItemAdded(**line, **priced)
        case "remove_item":
            return e.OrderLineItemRemoved(**line, **priced)
        case "change_quantity":
            return e.OrderLineItemQuantityChanged(**line, before=edit.before, **priced)
        case "change_shipping_address":
            return e.OrderShippingAddressChanged(
                before=order.shipping_address,
                address=edit.shipping_address,
                estimated_delivery=edit.estimated_delivery,
                incoterm=edit.incoterm,
                **priced,
            )
        case "change_shipping_method":
            return e.OrderShippingMethodChanged(
                before=order.shipping_method,
                shipping_method=edit.shipping_method,
                estimated_delivery=edit.estimated_delivery,
                **priced,
            )
        case "apply_promotion":
            return e.OrderPromotionApplied(code=edit.code, **priced)
        case "remove_promotion":
            return e.OrderPromotionRemoved(code=edit.code, **priced)
        case kind:
            raise ValueError(f"there is no edit of kind {kind!r}")


def _change_billing_address(order: Order, data: c.ChangeBillingAddress, actor: str, policy: Policy) -> Decision:
    if problem := drafting.address_problem(data.address, policy, "billing_address"):
        return problem
    if data.address == order.billing_address:
        return []
    changed = e.OrderBillingAddressChanged(before=order.billing_address, address=data.address, reason=data.reason)
    if order.status == OrderStatus.DRAFT:
        return [changed]
    done = e.OrderEditCompleted(
        edit_id=edit_id(order.order_id, order.edits + 1),
        kind="change_billing_address",
        reason=data.reason,
        requested_by=actor,
        before=order.totals,
        after=order.totals,
    )
    return [changed, done]


# Edits of placed orders


def _not_now(order: Order, command: Command[Any]) -> Rejection | None:
    if pending := edit_pending(order, command.actor):
        return pending
    if order.modifiable_until is not None and command.at >= order.modifiable_until:
        until = order.modifiable_until.isoformat(timespec="seconds")
        why = f"The order is {order.status} and could be changed until {until}"
        return not_now(order, command.actor, "cannot-modify", why, over="modify")
    return order_held(order, command.actor) if command.actor.startswith("customer:") else None


def _needs_nobody(order: Order, edit: Edit) -> bool:
    """Whether it can happen at once. What an unpaid order costs is settled: its payment may be under way."""
    units = {line.line_id: line.quantity for line in order.lines}
    more = any(line.quantity > units.get(line.line_id, 0) for line in edit.lines)
    has = {p.terms.code for p in order.promotions}
    if more or any(p.terms.code not in has for p in edit.promotions):
        return False
    if order.status == OrderStatus.PENDING_PAYMENT:
        return edit.totals.total == order.totals.total
    return _difference(order, edit) <= 0


def _difference(order: Order, edit: Edit) -> int:
    """What the order costs more (less: below 0) after the edit than before it, or, where money was only reserved, than
    there is of that."""
    after = attempts.price_of(order, edit.lines, edit.totals)
    price = attempts.price_of(order, order.lines, order.totals)
    return after - (max(price, _secured(order)) if _reserved(order) else price)


def _reserved(order: Order) -> int:
    return sum(capturing.uncaptured(payment) for payment in order.payments)


def _secured(order: Order) -> int:
    return _reserved(order) + refunding.left(order)


def _requested(order: Order, edit: Edit, at: Instant, policy: Policy) -> Decision:
    due = max(0, _difference(order, edit))
    if due and not order.payment_token:
        why = (
            "The change costs more, and this order, which cost nothing, was placed without a payment_token and can't "
            "be given one; place a new order for what is to be had in addition"
        )
        return not_now(order, edit.actor, "no-payment-token", why)
    if due:
        attempt_id = payment_attempt_id(order.order_id, len(order.payments) + 1)
        edit = edit.model_copy(update={"due": due, "attempt_id": attempt_id})
    due_at = at + policy.edits.timeout
    return [
        e.OrderEditRequested(
            edit=edit,
            amount=due,
            currency=order.currency,
            payment_token=order.payment_token if due else None,
            valid_until=min(at + policy.payment.submit_within, due_at),
            due_at=due_at,
            authorize=bool(due) and policy.payment.capture == "on_shipment",
            shipping_address=(edit.shipping_address or order.shipping_address) if due else None,
            billing_address=order.billing_address if due else None,
        )
    ]


def _at_once(order: Order, edit: Edit) -> list[Payload]:
    return [_event(order, edit), _done(order, edit, {}), *_refunds(order, edit)]


def _completed(order: Order, edit: Edit, at: Instant, paid: dict[str, Any]) -> list[Payload]:
    """It happens; then fulfilment begins, if it had to wait for this."""
    events = [_event(order, edit), _done(order, edit, paid)]
    start = fulfilling.start(fulfilling.after(order, events), at)
    return [*events, *_refunds(order, edit), *start]


def _done(order: Order, edit: Edit, paid: dict[str, Any]) -> e.OrderEditCompleted:
    return e.OrderEditCompleted(
        edit_id=edit.edit_id,
        kind=edit.kind,
        reason=edit.reason,
        requested_by=edit.actor,
        before=order.totals,
        after=edit.totals,
        **paid,
    )


def _refunds(order: Order, edit: Edit) -> list[e.OrderRefundInitiated]:
    """What the order costs less; but money that is only reserved is not taken instead of being given back."""
    less = -_difference(order, edit)
    if _reserved(order):
        after = attempts.price_of(order, edit.lines, edit.totals)
        less = min(less, refunding.left(order) - after)
    return refunding.refunds_of(order, max(0, less), "edit")


# Refusals


def _last_line() -> Rejection:
    return Rejection(
        type="last-line",
        status=422,
        field="line_id",
        detail="An order has at least one line; cancel the order to give up the last one.",
    )


def _unknown_promotion(code: str) -> Rejection:
    return Rejection(
        type="unknown-promo-code", status=404, field="code", detail=f"The order has no promotion {code!r}."
    )


def _below_cancelled(line: Line, quantity: int) -> Rejection:
    return Rejection(
        type="quantity-out-of-range",
        status=422,
        field="quantity",
        detail=f"Of line {line.line_id} {line.cancelled} units were cancelled, which count: not {quantity}.",
    )


def _at_its_field(rejection: Rejection, data: Change) -> Rejection:
    """Pricing names the fields of a whole order; a code that is applied alone is the field `code`."""
    if isinstance(data, c.ApplyPromotion) and (rejection.field or "").startswith("promo_codes"):
        return rejection.model_copy(update={"field": "code"})
    return rejection
