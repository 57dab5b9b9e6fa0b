"""Orders on their way: what many stories begin with."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from schemas import commands as c
from schemas.order import ShipmentLine
from schemas.policy import Policy
from tests.domain.order_story import Story
from tests.support.examples import POLICY, T0, at, create, line

SAGA = "system:placement"
MUGS_AND_LAMP = (line("MUG", 3), line("LAMP", 1, 5000))
ON_SHIPMENT: Policy = POLICY.model_copy(
    update={"payment": POLICY.payment.model_copy(update={"capture": "on_shipment"})}
)
PATIENT: Policy = POLICY.model_copy(update={"payment": POLICY.payment.model_copy(update={"max_attempts": 3})})
OVER: datetime = T0 + POLICY.edits.modification_window  # of an order that was paid at T0


def placed(*lines: c.NewLine, policy: Policy = POLICY, **changes: Any) -> Story:
    return Story(policy).given(create(*(lines or MUGS_AND_LAMP), submit=True, **changes))


def pay(story: Story, **changes: Any) -> Story:
    """The provider's yes to the newest attempt."""
    values = {"attempt_id": story.attempt, "amount": story.now.payments[-1].amount, "provider_ref": "ch_1"}
    return story.when(c.ConfirmPayment(**{**values, **changes}), actor=SAGA)


def paid(*lines: c.NewLine, policy: Policy = POLICY, **changes: Any) -> Story:
    return pay(placed(*lines, policy=policy, **changes)).then("OrderPaymentConfirmed")


def authorize(story: Story, **changes: Any) -> Story:
    return pay(story, authorized=True, expires_at=at(7 * 86400), **changes)


def authorized(*lines: c.NewLine, policy: Policy = ON_SHIPMENT) -> Story:
    return authorize(placed(*lines, policy=policy)).then("OrderPaymentConfirmed")


def complete(story: Story, **changes: Any) -> Story:
    """Stock, promotion and money for the edit that waits are there."""
    edit = story.now.edit
    assert edit is not None, story.happened
    values: dict[str, Any] = {"edit_id": edit.edit_id}
    if edit.due:
        values |= {"attempt_id": edit.attempt_id, "amount": edit.due, "provider_ref": f"ch_{edit.edit_id}"}
    envelope = {"at": changes.pop("at", T0)}
    return story.when(c.CompleteEdit(**{**values, **changes}), actor=SAGA, **envelope)


def processing(story: Story) -> Story:
    return story.when(c.BeginFulfilment(due_at=OVER), at=OVER, actor="system:timers").then("OrderProcessingStarted")


def ship(story: Story, shipment_id: str, **units: int) -> Story:
    """A parcel of these units (line id → quantity) leaves."""
    order = story.now
    lines = []
    for line_id, quantity in units.items():
        found = order.line(line_id)
        assert found is not None
        lines.append(ShipmentLine(line_id=line_id, sku=found.sku, quantity=quantity))
    story.given(c.PlanShipment(shipment_id=shipment_id, lines=tuple(lines)), at=OVER, actor="system:fulfilment")
    sent = c.ShipShipment(shipment_id=shipment_id, carrier="c", tracking_number="n", tracking_url="https://c/n")
    return story.when(sent, at=OVER, actor="system:fulfilment")


def held_money(story: Story) -> int:
    """What the shop has of the customer's money, as the order's events say."""
    return story.now.captured - story.now.refunded
