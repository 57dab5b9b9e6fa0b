"""decide(order, command, policy) → events | rejection: every rule of an order's life.

Pure: no clock (a command carries its time), no I/O. A rejection is data; an exception is a bug. Here is only which rule
answers which command; `actions.py` says what is possible in which status, and the rules lie beside this file:

    drafting    create, submit                    fulfilling  shipments, their deliveries, and what goes wrong
    editing     changes, before and after placing returning   returns
    paying      attempts, captures, holds         refunding   how much of what is given back
    cancelling  the end, whole or of some units   importing   history from another system

To add a command, write its class in `schemas/commands.py`, a `case` here, a `case` in `evolve` for each new event, the
tests, and a row in `sample.py` for docs/lifecycle.md.
"""

from __future__ import annotations

from typing import Any

from processors.order import cancelling, drafting, editing, fulfilling, importing, paying, refunding, returning
from processors.order.checks import Decision, already_there, impossible, may_touch, version_mismatch
from schemas import commands as c
from schemas.base import Command
from schemas.order import Order
from schemas.policy import Policy
from schemas.replies import Rejection


def decide(order: Order | None, command: Command[Any], policy: Policy) -> Decision:
    """The events that the command leads to (none: nothing to do), or why it is refused."""
    data = command.data
    if isinstance(data, c.RefuseRequest):
        return data.rejection
    if isinstance(data, c.CreateOrder):
        return already_there(order) if order else drafting.create(command, data, policy)
    if isinstance(data, c.ImportOrder):
        return already_there(order) if order else importing.import_order(command, data, policy, decide)
    if order is None or not may_touch(command.actor, order):
        return Rejection(type="not-found", status=404, detail=f"There is no order {command.order_id}.")
    if command.expected_version is not None and command.expected_version != order.version:
        return version_mismatch(order, command.expected_version)
    actor, at = command.actor, command.at
    match data:
        case c.SubmitOrder() as submit:
            return impossible(order, "submit", actor) or drafting.submit_draft(order, submit, at, policy)
        case c.AbandonDraft() as abandon:
            return cancelling.abandon_draft(order, abandon)
        case (
            c.AddItem()
            | c.RemoveItem()
            | c.ChangeQuantity()
            | c.ChangeShippingAddress()
            | c.ChangeBillingAddress()
            | c.ChangeShippingMethod()
            | c.ApplyPromotion()
            | c.RemovePromotion()
        ):
            return impossible(order, "modify", actor) or editing.change(order, command, policy)
        case c.CompleteEdit() as complete:
            return editing.complete_edit(order, complete, at)
        case c.FailEdit() as fail:
            return editing.fail_edit(order, fail, at)
        case c.ExpireEdit() as expire:
            return editing.expire_edit(order, expire, at)
        case c.CancelOrder() as cancel:
            return cancelling.cancel_order(order, cancel, actor)
        case c.PayOrder() as pay:
            return impossible(order, "pay", actor) or paying.pay_again(order, pay, actor, at, policy)
        case c.ConfirmPayment() as confirm if editing.waits_for(order, confirm.attempt_id):
            return editing.confirm_edit_payment(order, confirm, at)
        case c.ConfirmPayment() as confirm:
            return paying.confirm_payment(order, confirm, at, policy)
        case c.FailPayment() as failed if editing.waits_for(order, failed.attempt_id):
            return editing.fail_edit_payment(order, failed, at)
        case c.FailPayment() as failed:
            return paying.fail_payment(order, failed, policy)
        case c.ExpirePayment() as expire_payment:
            return paying.expire_payment(order, expire_payment)
        case c.ConfirmCapture() as captured:
            return paying.confirm_capture(order, captured)
        case c.FailCapture() as not_captured:
            return paying.fail_capture(order, not_captured)
        case c.ConfirmVoid() as voided:
            return paying.confirm_void(order, voided)
        case c.RenewAuthorization() as renew:
            return paying.renew_authorization(order, renew, at, policy)
        case c.HoldOrder() as hold:
            return impossible(order, "hold", actor) or paying.hold_order(order, hold, actor, at, policy)
        case c.ReleaseOrder() as release:
            return impossible(order, "release", actor) or paying.release_order(order, release, actor, at, policy)
        case c.ExpireReview() as unreviewed:
            return paying.expire_review(order, unreviewed, at, policy)
        case c.BeginFulfilment() as begin:
            return fulfilling.begin(order, begin, at)
        case c.PlanShipment() as plan:
            return fulfilling.plan_shipment(order, plan)
        case c.UpdateShipment() as update:
            return fulfilling.update_shipment(order, update)
        case c.ShipShipment() as ship:
            return fulfilling.ship(order, ship)
        case c.FailDelivery() as undelivered:
            return fulfilling.fail_delivery(order, undelivered, at, policy)
        case c.DeliverShipment() as deliver:
            return fulfilling.deliver(order, deliver)
        case c.LoseShipment() as lose:
            return fulfilling.lose(order, lose, policy)
        case c.ShortItems() as short:
            return fulfilling.short(order, short)
        case c.ReportStuck() as stuck:
            return fulfilling.report_stuck(order, stuck)
        case c.RequestReturn() as wish:
            return impossible(order, "return", actor) or returning.request_return(order, wish, at, policy)
        case c.ApproveReturn() as approve:
            return returning.approve_return(order, approve, at, policy)
        case c.DenyReturn() as deny:
            return returning.deny_return(order, deny)
        case c.LabelReturn() as label:
            return returning.label_return(order, label)
        case c.ReceiveReturn() as receive:
            return returning.receive_return(order, receive)
        case c.InspectReturn() as inspect:
            return returning.inspect_return(order, inspect, policy)
        case c.ExpireReturn() as expired:
            return returning.expire_return(order, expired)
        case c.RefundOrder() as refund:
            return impossible(order, "refund", actor) or refunding.refund_order(order, refund, policy)
        case c.CompleteRefund() as refunded:
            return refunding.complete_refund(order, refunded)
        case c.FailRefund() as unrefunded:
            return refunding.fail_refund(order, unrefunded)
        case c.AbandonRefund() as abandoned:
            return refunding.abandon_refund(order, abandoned)
        case c.AnswerSurvey() as answer:
            return impossible(order, "survey", actor) or returning.answer_survey(order, answer, actor)
        case other:
            raise ValueError(f"decide has no case for {type(other).__name__}")
