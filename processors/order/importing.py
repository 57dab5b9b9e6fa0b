"""History from another system: its prices are taken as they were, everything else goes by the rules of today.

The whole history is decided at once, each step with its own time, and one refusal refuses it all. Its events are marked
as imported, so that nobody acts on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from processors.order.checks import Decision
from processors.order.evolve import evolve
from processors.order.names import order_number, payment_attempt_id
from schemas import commands as c
from schemas import events as e
from schemas.base import FAMILIES, Command, Event, Instant, Payload
from schemas.order import Order
from schemas.policy import Policy
from schemas.replies import Rejection

Decide = Callable[[Order | None, Command[Any], Policy], Decision]

STEPS = frozenset(
    {
        "CancelOrder",
        "ConfirmPayment",
        "FailPayment",
        "PayOrder",
        "BeginFulfilment",
        "PlanShipment",
        "ShipShipment",
        "DeliverShipment",
        "RefundOrder",
        "CompleteRefund",
        "AnswerSurvey",
    }
)
"""What can have happened to an imported order."""


class Past(Payload):
    """A decided event with its own time and author, and the order after it: it had to be made to decide the next."""

    at: Instant
    actor: str
    payload: Payload
    after: Order


def import_order(command: Command[Any], data: c.ImportOrder, policy: Policy, decide: Decide) -> Decision:
    """The events of the whole history, as `Past`, or why it can't be."""
    if problem := amounts_problem(data) or times_problem(data, command.at):
        return problem
    policy = in_the_past(policy)
    story = _Story(command)
    story.add(
        data.created_at,
        f"customer:{data.customer_id}",
        [
            e.OrderCreated(
                number=order_number(command.order_id),
                customer_id=data.customer_id,
                currency=data.currency,
                lines=data.lines,
                totals=data.totals,
                shipping_address=data.shipping_address,
                billing_address=data.billing_address,
                shipping_method=data.shipping_method,
            )
        ],
    )
    if data.submitted_at is not None:
        story.add(data.submitted_at, f"customer:{data.customer_id}", _submitted(command.order_id, data, policy))
    for step in data.steps:
        if step.command not in STEPS:
            return _refused(step, Rejection(type="unknown-step", status=422, detail=f"{step.command} is no step."))
        if story.order is not None and step.at < story.order.updated_at:
            return _out_of_order(step.where, step.at)
        payload = FAMILIES["order.commands"].payloads[step.command].model_validate_json(step.payload)
        decision = decide(story.order, story.command_of(step, payload), policy)
        if isinstance(decision, Rejection):
            return _refused(step, decision)
        story.add(step.at, step.actor, decision)
    story.add(
        command.at,
        command.actor,
        [e.OrderImported(source=data.source, external_id=data.external_id, order=story.order)],
    )
    return story.events


def in_the_past(policy: Policy) -> Policy:
    """Deadlines and reasons of today say nothing about what happened long ago."""
    return policy.model_copy(
        update={
            "edits": policy.edits.model_copy(update={"modification_window": timedelta(0)}),
            "payment": policy.payment.model_copy(update={"capture": "on_submission", "max_attempts": 20}),
            "refunds": policy.refunds.model_copy(update={"reasons": None}),
        }
    )


def amounts_problem(data: c.ImportOrder) -> Rejection | None:
    """Sums that don't add up are found before they are anybody's books."""
    totals = data.totals
    if not data.lines:
        return _unbalanced("items", "An order has at least one line.")
    for i, line in enumerate(data.lines):
        if line.quantity < 1 or line.line_total < 0 or not 0 <= line.discount <= line.line_total or line.tax < 0:
            return _unbalanced(f"items[{i}]", "A line has units, and amounts that are not negative.")
    sums = {
        "subtotal": (sum(line.line_total for line in data.lines), totals.subtotal),
        "discount": (sum(line.discount for line in data.lines), totals.discount),
        "tax": (sum(line.tax for line in data.lines) + totals.shipping_tax, totals.tax),
        "total": (totals.subtotal - totals.discount + totals.tax + totals.shipping, totals.total),
    }
    for field, (computed, told) in sums.items():
        if computed != told:
            return _unbalanced(field, f"The {field} is told as {told} and adds up to {computed} (minor units).")
    return None


def times_problem(data: c.ImportOrder, now: Instant) -> Rejection | None:
    """History is over. The steps' own order is looked at as they are decided."""
    told = [("created_at", data.created_at), *((step.where, step.at) for step in data.steps)]
    if data.submitted_at is not None:
        told.append(("submitted_at", data.submitted_at))
        if data.submitted_at < data.created_at:
            return _out_of_order("submitted_at", data.submitted_at)
    for field, at in told:
        if at > now:
            return Rejection(type="in-the-future", status=422, field=field, detail=f"{at.isoformat()} is yet to come.")
    return None


class _Story:
    """The events so far, and the order that they make."""

    def __init__(self, command: Command[Any]) -> None:
        self._command = command
        self.order: Order | None = None
        self.events: list[Past] = []

    def add(self, at: Instant, actor: str, payloads: Sequence[Payload]) -> None:
        for payload in payloads:
            version = self.order.version + 1 if self.order else 1
            event: Event[Any] = Event(
                id="",
                order_id=self._command.order_id,
                version=version,
                occurred_at=at,
                actor=actor,
                correlation_id=self._command.correlation_id,
                causation_id=self._command.id,
                previous_hash="",
                data=payload,
                imported=True,
            )
            self.order = evolve(self.order, event)
            self.events.append(Past(at=at, actor=actor, payload=payload, after=self.order))

    def command_of(self, step: c.PastStep, payload: Payload) -> Command[Any]:
        return self._command.model_copy(
            update={"at": step.at, "actor": step.actor, "data": payload, "expected_version": None}
        )


def _submitted(order_id: str, data: c.ImportOrder, policy: Policy) -> list[Payload]:
    at = data.submitted_at or data.created_at
    return [
        e.OrderSubmitted(
            lines=data.lines,
            totals=data.totals,
            customer_id=data.customer_id,
            shipping_address=data.shipping_address,
            billing_address=data.billing_address,
        ),
        e.OrderPaymentRequested(
            attempt_id=payment_attempt_id(order_id, 1),
            attempt=1,
            amount=data.totals.total,
            currency=data.currency,
            payment_token="imported",  # noqa: S106  (nobody charges it)
            due_at=at + policy.payment.timeout,
            valid_until=at + policy.payment.submit_within,
        ),
    ]


def _unbalanced(field: str, detail: str) -> Rejection:
    return Rejection(type="amounts-differ", status=422, field=field, detail=detail)


def _out_of_order(field: str, at: Instant) -> Rejection:
    detail = f"{at.isoformat()} is before what happened before it."
    return Rejection(type="out-of-order", status=422, field=field, detail=detail)


def _refused(step: c.PastStep, rejection: Rejection) -> Rejection:
    """The rule's refusal, at the place in the source document that it is about. Of what a rule names, documents have
    the amount; ids and lines are ours."""
    field = f"{step.where}.amount" if rejection.field == "amount" else step.where
    return rejection.model_copy(update={"field": field})
