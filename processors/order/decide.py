"""decide(order, command, policy) → events | rejection: every rule of an order's life.

Pure: no clock (a command carries its time), no I/O. A rejection is data; an exception is a bug. To add a command,
write its class in `schemas/commands.py`, a `case` here, a `case` in `evolve` for each new event, and the tests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

from processors.order import pricing
from processors.order.actions import POSSIBLE, allowed_actions
from schemas import commands as c
from schemas import events as e
from schemas.address import Address
from schemas.base import Command, Instant, Payload
from schemas.order import CancellationReason, Line, Order, OrderStatus, Quote, Totals
from schemas.policy import Policy
from schemas.replies import Rejection

Decision = Sequence[Payload] | Rejection

BY_PEOPLE = {CancellationReason.CUSTOMER_REQUEST, CancellationReason.CHANGED_MIND}


def decide(order: Order | None, command: Command[Any], policy: Policy) -> Decision:
    """The events that the command leads to (none: nothing to do), or why it is refused."""
    data = command.data
    if isinstance(data, c.RefuseRequest):
        return data.rejection
    if isinstance(data, c.CreateOrder):
        return already_there(order) if order else create(command, data, policy)
    if order is None or not may_touch(command.actor, order):
        return Rejection(type="not-found", status=404, detail=f"There is no order {command.order_id}.")
    if command.expected_version is not None and command.expected_version != order.version:
        return version_mismatch(order, command.expected_version)
    match data:
        case c.AddItem(line=line):
            return impossible(order, "modify") or add_item(order, line, policy)
        case c.RemoveItem(line_id=line_id):
            return impossible(order, "modify") or remove_item(order, line_id, policy)
        case c.ChangeQuantity(line_id=line_id, quantity=quantity):
            return impossible(order, "modify") or change_quantity(order, line_id, quantity, policy)
        case c.ChangeShippingAddress(address=address):
            return impossible(order, "modify") or change_shipping_address(order, address, policy)
        case c.ChangeBillingAddress(address=address):
            return impossible(order, "modify") or [
                e.OrderBillingAddressChanged(before=order.billing_address, address=address)
            ]
        case c.ChangeShippingMethod(shipping_method=method):
            return impossible(order, "modify") or change_shipping_method(order, method, command.at, policy)
        case c.SubmitOrder() as submit:
            return impossible(order, "submit") or submit_draft(order, submit, command.at, policy)
        case c.CancelOrder() as cancel:
            return cancel_order(order, cancel, command.actor)
        case c.ConfirmPayment() as confirm:
            return confirm_payment(order, confirm)
        case c.FailPayment() as fail:
            return fail_payment(order, fail)
        case c.ExpirePayment() as expire:
            return expire_payment(order, expire)
        case c.CompleteRefund() as complete:
            return complete_refund(order, complete)
        case other:
            raise ValueError(f"decide has no case for {type(other).__name__}")


# Who and when


def may_touch(actor: str, order: Order) -> bool:
    """Customers reach their own orders only; to others an order does not exist."""
    kind, _, name = actor.partition(":")
    return kind != "customer" or name == order.customer_id


def already_there(order: Order) -> Rejection:
    return Rejection(type="order-exists", detail=f"Order {order.order_id} exists already.")


def version_mismatch(order: Order, expected: int) -> Rejection:
    return Rejection(
        type="version-mismatch",
        status=412,
        field="If-Match",
        detail=f"The order is at version {order.version}, not at {expected}.",
        extra={"version": str(order.version)},
    )


def impossible(order: Order, action: str) -> Rejection | None:
    """A rejection that says the state and what is possible from it, or None when the action is possible."""
    if order.status in POSSIBLE[action]:
        return None
    possible = ", ".join(allowed_actions(order)) or "nothing"
    return Rejection(
        type=f"cannot-{action}",
        detail=f"To {action} is not possible while an order is {order.status}; possible now: {possible}.",
        extra={"status": order.status, "allowed_actions": possible},
    )


# Drafts


def create(command: Command[Any], data: c.CreateOrder, policy: Policy) -> Decision:
    lines = tuple(pricing.priced_line(f"L{i}", new.quote, new.quantity) for i, new in enumerate(data.lines, start=1))
    problem = (
        lines_problem(lines, data.currency, policy)
        or address_problem(data.shipping_address, policy)
        or (data.shipping_method and pricing.shipping_problem(lines, data.currency, data.shipping_method, policy))
        or promo_problem(data.promo_codes)
    )
    if problem:
        return problem
    lines, totals = pricing.priced(lines, data.currency, data.shipping_address, data.shipping_method, policy)
    if too_much := total_problem(totals, data.currency, policy):
        return too_much
    created = e.OrderCreated(
        number=order_number(command.order_id),
        customer_id=data.customer_id,
        currency=data.currency,
        lines=lines,
        totals=totals,
        shipping_address=data.shipping_address,
        billing_address=data.billing_address,
        shipping_method=data.shipping_method,
        estimated_delivery=(
            pricing.estimated_delivery(command.at, data.shipping_method, policy) if data.shipping_method else None
        ),
        promo_codes=data.promo_codes,
        cart_id=data.cart_id,
    )
    if not data.submit:
        return [created]
    if missing := missing_for_submission(created, data.payment_token):
        return missing
    return [
        created,
        *submitted(command.order_id, 1, created, lines, totals, data.payment_token or "", command.at, policy),
    ]


def add_item(order: Order, new: c.NewLine, policy: Policy) -> Decision:
    line = pricing.priced_line(f"L{order.last_line + 1}", new.quote, new.quantity)
    changed = reprice(order, (*order.lines, line), policy)
    if isinstance(changed, Rejection):
        return changed
    lines, totals = changed
    return [
        e.OrderLineItemAdded(line_id=line.line_id, sku=line.sku, quantity=line.quantity, lines=lines, totals=totals)
    ]


def remove_item(order: Order, line_id: str, policy: Policy) -> Decision:
    line = find_line(order, line_id)
    if isinstance(line, Rejection):
        return line
    if len(order.lines) == 1:
        return Rejection(
            type="last-line",
            status=422,
            field="line_id",
            detail="An order has at least one line; cancel the order to give up the last one.",
        )
    changed = reprice(order, tuple(other for other in order.lines if other.line_id != line_id), policy)
    if isinstance(changed, Rejection):
        return changed
    lines, totals = changed
    return [
        e.OrderLineItemRemoved(line_id=line.line_id, sku=line.sku, quantity=line.quantity, lines=lines, totals=totals)
    ]


def change_quantity(order: Order, line_id: str, quantity: int, policy: Policy) -> Decision:
    line = find_line(order, line_id)
    if isinstance(line, Rejection):
        return line
    if quantity == line.quantity:
        return []
    update = {"quantity": quantity, "line_total": line.unit_price * quantity}
    changed = reprice(
        order, tuple(o.model_copy(update=update) if o.line_id == line_id else o for o in order.lines), policy
    )
    if isinstance(changed, Rejection):
        return changed
    lines, totals = changed
    return [
        e.OrderLineItemQuantityChanged(
            line_id=line_id, sku=line.sku, before=line.quantity, quantity=quantity, lines=lines, totals=totals
        )
    ]


def change_shipping_address(order: Order, address: Address, policy: Policy) -> Decision:
    if problem := address_problem(address, policy):
        return problem
    lines, totals = pricing.priced(order.lines, order.currency, address, order.shipping_method, policy)
    return [e.OrderShippingAddressChanged(before=order.shipping_address, address=address, lines=lines, totals=totals)]


def change_shipping_method(order: Order, method: str, at: Instant, policy: Policy) -> Decision:
    if problem := pricing.shipping_problem(order.lines, order.currency, method, policy):
        return problem
    lines, totals = pricing.priced(order.lines, order.currency, order.shipping_address, method, policy)
    return [
        e.OrderShippingMethodChanged(
            before=order.shipping_method,
            shipping_method=method,
            estimated_delivery=pricing.estimated_delivery(at, method, policy),
            lines=lines,
            totals=totals,
        )
    ]


def reprice(order: Order, lines: tuple[Line, ...], policy: Policy) -> tuple[tuple[Line, ...], Totals] | Rejection:
    """Changed lines priced anew, or why the order can't have them."""
    problem = lines_problem(lines, order.currency, policy) or (
        order.shipping_method and pricing.shipping_problem(lines, order.currency, order.shipping_method, policy)
    )
    if problem:
        return problem
    lines, totals = pricing.priced(lines, order.currency, order.shipping_address, order.shipping_method, policy)
    return total_problem(totals, order.currency, policy) or (lines, totals)


def find_line(order: Order, line_id: str) -> Line | Rejection:
    for line in order.lines:
        if line.line_id == line_id:
            return line
    return Rejection(type="unknown-line", status=404, field="line_id", detail=f"The order has no line {line_id}.")


def lines_problem(lines: Sequence[Line], currency: str, policy: Policy) -> Rejection | None:
    if not lines:
        return Rejection(type="no-lines", status=422, field="items", detail="An order has at least one line.")
    if len(lines) > policy.limits.max_lines:
        return Rejection(
            type="too-many-lines",
            status=422,
            field="items",
            detail=f"An order has at most {policy.limits.max_lines} lines, not {len(lines)}.",
        )
    for i, line in enumerate(lines):
        if not 1 <= line.quantity <= policy.limits.max_quantity:
            return Rejection(
                type="quantity-out-of-range",
                status=422,
                field=f"items[{i}].quantity",
                detail=f"A line has a quantity from 1 to {policy.limits.max_quantity}, not {line.quantity}.",
            )
    return None


def total_problem(totals: Totals, currency: str, policy: Policy) -> Rejection | None:
    limit = policy.limits.max_total.get(currency)
    if limit is None or totals.total <= limit:
        return None
    return Rejection(
        type="total-too-high", status=422, field="items", detail="The total is above what one order may have."
    )


def address_problem(address: Address | None, policy: Policy) -> Rejection | None:
    if address is None or address.country in policy.countries:
        return None
    return Rejection(
        type="country-not-served",
        status=422,
        field="shipping_address.country",
        detail=f"We do not ship to {address.country}; we ship to {', '.join(sorted(policy.countries))}.",
    )


def promo_problem(codes: Sequence[str]) -> Rejection | None:
    if not codes:
        return None
    return Rejection(
        type="unknown-promo-code",
        status=422,
        field="promo_codes[0]",
        detail=f"There is no promotion {codes[0]!r}.",
    )


# Submission and payment


def submit_draft(order: Order, submit: c.SubmitOrder, at: Instant, policy: Policy) -> Decision:
    if missing := missing_for_submission(order, submit.payment_token):
        return missing
    quotes = {quote.sku: quote for quote in submit.quotes}
    if unquoted := [line.sku for line in order.lines if line.sku not in quotes]:
        return Rejection(
            type="quotes-missing",
            detail="The order has lines that were not priced anew.",
            extra={"skus": ",".join(unquoted)},
        )
    changed = reprice(order, tuple(requoted(line, quotes[line.sku]) for line in order.lines), policy)
    if isinstance(changed, Rejection):
        return changed
    lines, totals = changed
    if totals.total not in (order.totals.total, submit.accepted_total):
        return Rejection(
            type="price-changed",
            field="accept_total",
            detail="Prices have changed since the order was drafted; submit again with accept_total to agree.",
            extra={
                "before": str(order.totals.total),
                "after": str(totals.total),
                "currency": order.currency,
            },
        )
    token = submit.payment_token or ""
    return submitted(order.order_id, order.version, order, lines, totals, token, at, policy)


def requoted(line: Line, quote: Quote) -> Line:
    return pricing.priced_line(line.line_id, quote, line.quantity)


def missing_for_submission(order: Order | e.OrderCreated, payment_token: str | None) -> Rejection | None:
    present = {
        "shipping_address": order.shipping_address,
        "billing_address": order.billing_address,
        "shipping_method": order.shipping_method,
        "payment_token": payment_token,
    }
    for field, value in present.items():
        if not value:
            return Rejection(
                type="incomplete",
                status=422,
                field=field,
                detail=f"An order needs its {field} to be submitted.",
            )
    return None


def submitted(
    order_id: str,
    version: int,
    order: Order | e.OrderCreated,
    lines: tuple[Line, ...],
    totals: Totals,
    token: str,
    at: Instant,
    policy: Policy,
) -> list[Payload]:
    """Submission asks for the first payment in the same breath."""
    eta = pricing.estimated_delivery(at, order.shipping_method, policy) if order.shipping_method else None
    return [
        e.OrderSubmitted(lines=lines, totals=totals, estimated_delivery=eta),
        e.OrderPaymentRequested(
            attempt_id=payment_attempt_id(order_id, 1),
            attempt=1,
            amount=totals.total,
            currency=order.currency,
            payment_token=token,
            due_at=at + policy.payment.timeout,
            valid_until=at + policy.payment.submit_within,
        ),
    ]


def confirm_payment(order: Order, confirm: c.ConfirmPayment) -> Decision:
    """Money that comes when the order no longer waits for it goes back by itself."""
    payment = next((p for p in order.payments if p.attempt_id == confirm.attempt_id), None)
    if payment is None:
        return Rejection(type="unknown-payment", detail=f"The order never asked for payment {confirm.attempt_id}.")
    if payment.status == "captured":
        return []
    if order.status == OrderStatus.PENDING_PAYMENT:
        return [
            e.OrderPaymentConfirmed(
                attempt_id=confirm.attempt_id, amount=confirm.amount, provider_ref=confirm.provider_ref
            )
        ]
    return [
        e.OrderRefundInitiated(
            refund_id=refund_id(confirm.attempt_id, 1),
            attempt_id=confirm.attempt_id,
            amount=confirm.amount,
            reason="paid_after_end",
            captured_late=confirm.provider_ref,
        )
    ]


def fail_payment(order: Order, fail: c.FailPayment) -> Decision:
    payment = next((p for p in order.payments if p.attempt_id == fail.attempt_id), None)
    if payment is None:
        return Rejection(type="unknown-payment", detail=f"The order never asked for payment {fail.attempt_id}.")
    if payment.status != "requested" or order.status != OrderStatus.PENDING_PAYMENT:
        return []
    return [
        e.OrderPaymentFailed(attempt_id=fail.attempt_id, code=fail.code),
        e.OrderCancelled(reason=CancellationReason.PAYMENT_DECLINED),
    ]


def expire_payment(order: Order, expire: c.ExpirePayment) -> Decision:
    """Stale unless the order still waits for this attempt with this deadline."""
    waits = order.status == OrderStatus.PENDING_PAYMENT and order.payments[-1].attempt_id == expire.attempt_id
    if not waits or order.payment_due_at != expire.due_at:
        return []
    return [e.OrderCancelled(reason=CancellationReason.PAYMENT_TIMEOUT)]


# The end


def cancel_order(order: Order, cancel: c.CancelOrder, actor: str) -> Decision:
    by_customer = actor.startswith("customer:")
    if by_customer and cancel.reason not in BY_PEOPLE:
        return Rejection(
            type="reason-not-allowed",
            status=422,
            field="reason",
            detail=f"A customer's reason is one of {', '.join(sorted(BY_PEOPLE))}.",
        )
    if cancel.reason not in set(CancellationReason):
        return Rejection(
            type="unknown-reason",
            status=422,
            field="reason",
            detail=f"There is no reason {cancel.reason!r}; there are {', '.join(CancellationReason)}.",
        )
    if refused := impossible(order, "cancel"):
        return refused
    cancelled = e.OrderCancelled(reason=cancel.reason, comment=cancel.comment, skus=cancel.skus)
    return [cancelled, *refunds_of_everything(order)]


def refunds_of_everything(order: Order) -> list[Payload]:
    """One refund for each captured payment, of what is left of it."""
    return [
        e.OrderRefundInitiated(
            refund_id=refund_id(payment.attempt_id, 1),
            attempt_id=payment.attempt_id,
            amount=payment.amount - payment.refunded,
            reason="cancelled",
        )
        for payment in order.payments
        if payment.status == "captured" and payment.amount > payment.refunded
    ]


def complete_refund(order: Order, complete: c.CompleteRefund) -> Decision:
    refund = next((r for r in order.refunds if r.refund_id == complete.refund_id), None)
    if refund is None:
        return Rejection(type="unknown-refund", detail=f"The order has no refund {complete.refund_id}.")
    if refund.status == "completed":
        return []
    return [
        e.OrderRefundCompleted(refund_id=complete.refund_id, amount=refund.amount, provider_ref=complete.provider_ref)
    ]


# Names of things, derived, so that a repeat is the same thing


def payment_attempt_id(order_id: str, attempt: int) -> str:
    return str(uuid5(NAMESPACE_URL, f"oms:payment:{order_id}:{attempt}"))


def refund_id(attempt_id: str, count: int) -> str:
    return str(uuid5(NAMESPACE_URL, f"oms:refund:{attempt_id}:{count}"))


ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"


def order_number(order_id: str) -> str:
    """Short, for people, without letters that look alike: 10 of 32 signs (50 bits) of a hash of the order id."""
    try:
        seed = UUID(order_id).bytes
    except ValueError:
        seed = order_id.encode()
    number = int.from_bytes(hashlib.sha256(seed).digest()[:8], "big")
    signs = "".join(ALPHABET[number >> 5 * i & 31] for i in range(10))
    return f"{signs[:5]}-{signs[5:]}"
