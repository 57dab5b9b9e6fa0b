"""Creating and submitting: what an order must have, and what it costs at today's prices."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Any

from processors.order import pricing, promotions
from processors.order.checks import Decision
from processors.order.names import order_number, payment_attempt_id
from processors.order.pricing import Priced
from schemas import commands as c
from schemas import events as e
from schemas.address import Address
from schemas.base import Command, Instant, Payload
from schemas.order import Line, Order, PromotionTerms, Quote
from schemas.policy import Policy, states
from schemas.replies import Rejection


def create(command: Command[Any], data: c.CreateOrder, policy: Policy) -> Decision:
    terms = terms_for(data.promo_codes, data.promotions)
    if isinstance(terms, Rejection):
        return terms
    if problem := addresses_problem(data.shipping_address, data.billing_address, policy):
        return problem
    if data.submit and (missing := missing_for_submission(data)):
        return missing
    priced = pricing.price(
        tuple(pricing.priced_line(f"L{i}", new.quote, new.quantity) for i, new in enumerate(data.lines, start=1)),
        data.currency,
        data.shipping_address,
        data.shipping_method,
        terms,
        command.at,
        policy,
        new=data.promo_codes,
        free_shipping=data.exchange_of is not None,
    )
    if isinstance(priced, Rejection):
        return priced
    if data.submit and (missing := missing_payment(data.payment_token, priced)):
        return missing
    created = e.OrderCreated(
        number=order_number(command.order_id),
        customer_id=data.customer_id,
        currency=data.currency,
        lines=priced.lines,
        totals=priced.totals,
        shipping_address=data.shipping_address,
        billing_address=data.billing_address,
        shipping_method=data.shipping_method,
        estimated_delivery=priced.estimated_delivery,
        promo_codes=data.promo_codes,
        cart_id=data.cart_id,
        promotions=priced.promotions,
        incoterm=priced.incoterm,
        exchange_of=data.exchange_of,
        abandon_at=None if data.submit else command.at + policy.deadlines.draft_abandoned_after,
    )
    if not data.submit:
        return [created]
    return [created, *submitted(command.order_id, created, priced, data.payment_token, command.at, policy)]


def submit_draft(order: Order, submit: c.SubmitOrder, at: Instant, policy: Policy) -> Decision:
    """At today's prices and terms. A promotion that is over, or takes nothing off any more, falls away; when any of
    this changes the total, `accepted_total` must name the new one."""
    if missing := missing_for_submission(order):
        return missing
    quotes = {quote.sku: quote for quote in submit.quotes}
    terms = {t.code: t for t in submit.promotions}
    skus = [line.sku for line in order.lines if line.sku not in quotes]
    codes = [p.terms.code for p in order.promotions if p.terms.code not in terms]
    if skus or codes:
        missing_quotes = {"skus": ",".join(skus), "promo_codes": ",".join(codes)}
        return Rejection(
            type="quotes-missing",
            detail="The order has lines or promotions that were not priced anew.",
            extra={kind: names for kind, names in missing_quotes.items() if names},
        )
    today = (terms[p.terms.code] for p in order.promotions)
    priced = reprice(
        order,
        at,
        policy,
        lines=tuple(requoted(line, quotes[line.sku]) for line in order.lines),
        address=order.shipping_address,
        terms=tuple(t for t in today if promotions.in_force(t, at)),
    )
    if isinstance(priced, Rejection):
        return priced
    if priced.totals.total not in (order.totals.total, submit.accepted_total):
        return Rejection(
            type="price-changed",
            field="accept_total",
            detail="Prices have changed since the order was drafted; submit again with accept_total to agree.",
            extra={
                "before": str(order.totals.total),
                "after": str(priced.totals.total),
                "currency": order.currency,
            },
        )
    if missing := missing_payment(submit.payment_token, priced):
        return missing
    return submitted(order.order_id, order, priced, submit.payment_token, at, policy)


def requoted(line: Line, quote: Quote) -> Line:
    return pricing.priced_line(line.line_id, quote, line.quantity)


def missing_for_submission(order: Order | c.CreateOrder) -> Rejection | None:
    present = {
        "shipping_address": order.shipping_address,
        "billing_address": order.billing_address,
        "shipping_method": order.shipping_method,
    }
    return next((_incomplete(field) for field, value in present.items() if not value), None)


def missing_payment(payment_token: str | None, priced: Priced) -> Rejection | None:
    """Nobody is asked how to pay nothing."""
    return None if payment_token or priced.totals.total == 0 else _incomplete("payment_token")


def _incomplete(field: str) -> Rejection:
    return Rejection(type="incomplete", status=422, field=field, detail=f"An order needs its {field} to be submitted.")


def submitted(
    order_id: str, order: Order | e.OrderCreated, priced: Priced, token: str | None, at: Instant, policy: Policy
) -> list[Payload]:
    """Submission asks for the first payment in the same breath; of a total of 0 too, so that the order goes the way of
    all others: placement confirms that payment without asking a provider. Promotions that take nothing off are left
    out: no use of them is taken."""
    total = priced.totals.total
    return [
        e.OrderSubmitted(
            lines=priced.lines,
            totals=priced.totals,
            estimated_delivery=priced.estimated_delivery,
            promotions=tuple(p for p in priced.promotions if p.amount > 0),
            customer_id=order.customer_id,
            shipping_address=order.shipping_address,
            billing_address=order.billing_address,
            incoterm=priced.incoterm,
        ),
        e.OrderPaymentRequested(
            attempt_id=payment_attempt_id(order_id, 1),
            attempt=1,
            amount=total,
            currency=order.currency,
            payment_token=token or "",
            due_at=at + policy.payment.timeout,
            valid_until=at + policy.payment.submit_within,
            authorize=policy.payment.capture == "on_shipment" and total > 0,
        ),
    ]


def reprice(
    order: Order,
    at: Instant,
    policy: Policy,
    *,
    lines: tuple[Line, ...] | None = None,
    address: Address | None = None,
    method: str | None = None,
    terms: tuple[PromotionTerms, ...] | None = None,
) -> Priced | Rejection:
    """The order priced anew with these changes (None: as the order has it), or why it can't be had so.

    Of the lines only what their quotes said and their quantities matter. A promotion that the order has and that no
    longer fits takes 0 off; one that is new in `terms` is refused where it does not fit. Only a new address is held
    to its country's rules."""
    if problem := address_problem(address, policy):
        return problem
    applied = {p.terms.code for p in order.promotions}
    wanted = tuple(p.terms for p in order.promotions) if terms is None else terms
    return pricing.price(
        order.lines if lines is None else lines,
        order.currency,
        address or order.shipping_address,
        method or order.shipping_method,
        wanted,
        at,
        policy,
        new=[t.code for t in wanted if t.code not in applied],
        free_shipping=order.exchange_of is not None,
    )


def terms_for(codes: Sequence[str], known: Collection[PromotionTerms]) -> tuple[PromotionTerms, ...] | Rejection:
    """The terms of these codes, in their order."""
    by_code = {t.code: t for t in known}
    for i, code in enumerate(codes):
        if code not in by_code:
            return Rejection(
                type="unknown-promo-code",
                status=422,
                field=f"promo_codes[{i}]",
                detail=f"There is no promotion {code!r}.",
                extra={"code": code},
            )
    return tuple(by_code[code] for code in codes)


def addresses_problem(shipping: Address | None, billing: Address | None, policy: Policy) -> Rejection | None:
    return address_problem(shipping, policy) or address_problem(billing, policy, "billing_address")


def address_problem(address: Address | None, policy: Policy, field: str = "shipping_address") -> Rejection | None:
    """Why nothing can be sent (or billed) there: country-not-served, invalid-postal-code, invalid-state, all 422 at the
    address's own field. Bills go to any country, but where we know its rules they hold."""
    if address is None:
        return None
    rules = policy.countries.get(address.country)
    if rules is None:
        return pricing.country_problem(address.country, policy) if field == "shipping_address" else None
    if rules.postal_code and not re.fullmatch(rules.postal_code, address.postal_code or "", re.ASCII):
        return Rejection(
            type="invalid-postal-code",
            status=422,
            field=f"{field}.postal_code",
            detail=f"An address in {address.country} needs a postal code of that country.",
        )
    if rules.state == "required" and address.state not in states(address.country):
        return Rejection(
            type="invalid-state",
            status=422,
            field=f"{field}.state",
            detail=f"An address in {address.country} needs the code of a state (ISO 3166-2, as in CA of US-CA).",
        )
    return None
