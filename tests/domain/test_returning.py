"""Returns: who may send what back, the steps of an RMA, what the goods are then worth, and the status that follows."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import commands as c
from schemas import events as e
from schemas.order import Order, Payment, ReturnItem
from schemas.policy import Policy
from tests.domain.order_story import Story
from tests.support.delivered import ATTEMPT, NUMBER, RMA, delivered, delivered_line, story
from tests.support.examples import POLICY, T0, quote

HOME = delivered_line("L1", 3, 1000)
TV = delivered_line("L2", 1, 50000, category="electronics", name="Television")
MILK = delivered_line("L3", 2, 300, category="groceries", name="Milk")
AUTO = POLICY.model_copy(update={"returns": POLICY.returns.model_copy(update={"auto_approve": True})})


def wish(line_id: str = "L1", quantity: int = 1, reason: str = "changed_mind", **changes: Any) -> c.ReturnWish:
    return c.ReturnWish(line_id=line_id, quantity=quantity, reason=reason, **changes)


def ask(*wishes: c.ReturnWish) -> c.RequestReturn:
    return c.RequestReturn(items=wishes or (wish(),), comment="too blue")


def received(told: Story, *wishes: c.ReturnWish, rma: str = RMA) -> Story:
    return told.given(ask(*wishes), c.ApproveReturn(rma=rma), c.ReceiveReturn(rma=rma))


def inspect(rma: str = RMA, **conditions: str) -> c.InspectReturn:
    return c.InspectReturn(
        rma=rma, items=tuple(c.Inspected(line_id=line, condition=found) for line, found in conditions.items())
    )


def refunds(told: Story) -> list[e.OrderRefundInitiated]:
    return [event.data for event in told.history if isinstance(event.data, e.OrderRefundInitiated)]


def inspections(told: Story) -> list[e.OrderReturnInspected]:
    return [event.data for event in told.history if isinstance(event.data, e.OrderReturnInspected)]


def complete(told: Story) -> Story:
    for refund in told.now.refunds:
        told.given(c.CompleteRefund(refund_id=refund.refund_id, provider_ref="re"))
    return told


# The whole way


def test_a_return_from_request_to_refund() -> None:
    told = story(delivered(HOME, TV))
    told.when(ask(wish(quantity=2)), at=T0 + timedelta(days=2)).then("OrderReturnRequested", "OrderRefundRequested")
    assert told.now.status == "REFUND_REQUESTED"
    (rma,) = told.now.returns
    assert (rma.rma, rma.status, rma.comment) == (f"RMA-{NUMBER}-1", "requested", "too blue")
    assert rma.requested_at == T0 + timedelta(days=2)
    assert told.history[-1].data.amount == 667
    told.when(c.ApproveReturn(rma=RMA), at=T0 + timedelta(days=3)).then("OrderReturnApproved")
    approved = told.history[-1].data
    assert approved.expires_at == T0 + timedelta(days=3) + POLICY.returns.send_back_within
    assert (approved.customer_id, approved.shipping_address) == ("42", told.now.shipping_address)
    label = c.LabelReturn(rma=RMA, carrier="ups", tracking_number="1Z", label_url="https://labels.example/1Z")
    told.when(label).then("OrderReturnLabelCreated")
    told.when(label).then()
    told.when(c.ReceiveReturn(rma=RMA)).then("OrderReturnReceived")
    told.when(inspect()).then("OrderReturnInspected", "OrderRefundInitiated")
    assert told.now.status == "REFUND_REQUESTED"
    assert told.now.returns[0].status == "inspected"
    assert told.now.lines[0].returned == 2
    (refund,) = refunds(told)
    assert (refund.amount, refund.reason, refund.rma, refund.kept) == (667, "return", RMA, False)
    complete(told)
    assert told.now.status == "DELIVERED"
    found = told.now.returns[0]
    assert (found.status, found.carrier, found.tracking_number) == ("closed", "ups", "1Z")
    assert (found.items[0].condition, found.items[0].refund, found.items[0].restock) == ("as_new", 667, True)


def test_policy_may_approve_by_itself() -> None:
    told = story(policy=AUTO).when(ask())
    told.then("OrderReturnRequested", "OrderRefundRequested", "OrderReturnApproved")
    assert told.now.returns[0].status == "approved"


def test_a_denied_return_ends_it() -> None:
    told = story().given(ask())
    told.when(c.DenyReturn(rma=RMA, reason="worn")).then("OrderRefundDenied")
    assert (told.now.status, told.now.returns[0].status, told.now.returns[0].denied) == ("DELIVERED", "denied", "worn")
    told.when(ask(wish(quantity=3))).then("OrderReturnRequested", "OrderRefundRequested")
    assert told.now.returns[1].rma == f"RMA-{NUMBER}-2"


def test_a_return_expires_only_while_it_waits_for_the_goods() -> None:
    expire = c.ExpireReturn(rma=RMA)
    told = story().given(ask())
    told.when(expire).then()
    told.given(c.ApproveReturn(rma=RMA))
    told.when(expire).then("OrderReturnExpired")
    assert (told.now.status, told.now.returns[0].status) == ("DELIVERED", "expired")
    told.when(expire).then()
    received(story()).when(expire).then()
    told.when(c.ExpireReturn(rma="RMA-other")).then()


def test_the_order_waits_for_its_last_open_return() -> None:
    told = story().given(ask(), ask())
    told.given(c.DenyReturn(rma=RMA, reason="no"))
    assert told.now.status == "REFUND_REQUESTED"
    told.given(c.DenyReturn(rma=f"RMA-{NUMBER}-2", reason="no"))
    assert told.now.status == "DELIVERED"


def test_everything_back_and_given_back_is_refunded_for_good() -> None:
    told = received(story(), wish(quantity=3, reason="defective")).given(inspect())
    assert refunds(told)[0].amount == told.now.totals.total
    assert refunds(told)[0].shipping == 583
    assert told.now.status == "REFUND_REQUESTED"
    complete(told)
    assert told.now.status == "REFUNDED"
    assert told.now.returns[0].status == "closed"
    told.when(ask()).refused("cannot-return")


def test_refunded_waits_for_open_returns() -> None:
    told = story().given(ask(), c.RefundOrder(reason="goodwill", amount=1583))
    complete(told)
    assert told.now.status == "REFUND_REQUESTED"
    told.given(c.DenyReturn(rma=RMA, reason="keep it"))
    assert told.now.status == "REFUNDED"


def test_a_return_worth_nothing_is_closed_at_once() -> None:
    told = received(story()).when(inspect(L1="unusable")).then("OrderReturnInspected")
    assert told.now.status == "DELIVERED"
    assert told.now.returns[0].status == "closed"
    assert (told.now.lines[0].returned, told.now.returns[0].items[0].restock) == (1, False)


def test_a_label_that_comes_after_the_goods_is_recorded_and_changes_nothing_else() -> None:
    label = c.LabelReturn(rma=RMA, carrier="ups", tracking_number="1Z", label_url="https://labels.example/1Z")
    received_only = received(story(), wish(quantity=3, reason="defective"))
    inspected = received(story(), wish(quantity=3, reason="defective")).given(inspect())
    refunded = complete(received(story(), wish(quantity=3, reason="defective")).given(inspect()))
    for told, status in ((received_only, "received"), (inspected, "inspected"), (refunded, "closed")):
        before = told.now
        told.when(label).then("OrderReturnLabelCreated")
        (back,) = told.now.returns
        assert (back.status, back.carrier, back.tracking_number) == (status, "ups", "1Z")
        assert told.now.status == before.status
        told.when(label).then()
    assert refunded.now.status == "REFUNDED"


def test_a_failed_refund_keeps_the_return_open_until_it_is_retried() -> None:
    told = received(story()).given(inspect())
    refund = refunds(told)[0].refund_id
    told.given(c.FailRefund(refund_id=refund, code="closed_account"))
    assert (told.now.status, told.now.returns[0].status) == ("REFUND_REQUESTED", "inspected")
    complete(told)
    assert (told.now.status, told.now.returns[0].status) == ("DELIVERED", "closed")


@pytest.mark.parametrize("paid_elsewhere", [False, True])
def test_a_failed_refund_that_is_given_up_closes_its_return(paid_elsewhere: bool) -> None:
    told = received(story()).given(inspect())
    refund = refunds(told)[0]
    told.given(c.FailRefund(refund_id=refund.refund_id, code="closed_account"))
    told.given(c.RefundOrder(reason="goodwill", amount=100))
    told.given(c.CompleteRefund(refund_id=told.now.refunds[-1].refund_id, provider_ref="re"))
    assert (told.now.status, told.now.returns[0].status) == ("REFUND_REQUESTED", "inspected")
    told.given(c.AbandonRefund(refund_id=refund.refund_id, paid_elsewhere=paid_elsewhere), actor="staff:eve")
    assert (told.now.status, told.now.returns[0].status) == ("DELIVERED", "closed")
    assert told.now.refunded == 100 + paid_elsewhere * refund.amount


def test_a_return_paid_from_two_payments_is_closed_by_the_second_refund() -> None:
    payments = tuple(Payment(attempt_id=f"a{n}", amount=792, status="captured") for n in (1, 2))
    told = received(story(delivered(payments=payments)), wish(quantity=3)).given(inspect())
    first, second = refunds(told)
    assert (first.amount, second.amount) == (792, 208)
    told.given(c.CompleteRefund(refund_id=first.refund_id, provider_ref="re"))
    assert told.now.returns[0].status == "inspected"
    told.given(c.CompleteRefund(refund_id=second.refund_id, provider_ref="re"))
    assert (told.now.returns[0].status, told.now.status) == ("closed", "DELIVERED")


# Who may send what back


@pytest.mark.parametrize(
    ("wishes", "type", "field"),
    [
        ((wish("L9"),), "unknown-line", "items[0].line_id"),
        ((wish(), wish("L2", reason="bored")), "unknown-reason", "items[1].reason"),
        ((wish(quantity=4),), "quantity-out-of-range", "items[0].quantity"),
        ((wish(quantity=0),), "quantity-out-of-range", "items[0].quantity"),
        ((wish(), wish()), "duplicate-line", "items[1].line_id"),
        ((wish(), wish("L3")), "not-returnable", "items[1].line_id"),
    ],
)
def test_a_wrong_request_names_its_field(wishes: tuple[c.ReturnWish, ...], type: str, field: str) -> None:
    story(delivered(HOME, TV, MILK)).when(c.RequestReturn(items=wishes)).refused(type, 422, field)


def test_a_request_needs_an_item() -> None:
    story().when(c.RequestReturn(items=())).refused("no-lines", 422, "items")


def test_units_that_are_cancelled_returned_or_on_their_way_back_are_not_there() -> None:
    told = story(delivered(delivered_line(quantity=5, delivered=4, shipped=4, cancelled=1)))
    received(told, wish(quantity=1)).given(inspect())
    told.given(ask(wish(quantity=2)))
    told.when(ask(wish(quantity=2))).refused("quantity-out-of-range", 422, "items[0].quantity")
    told.when(ask(wish(quantity=1))).then("OrderReturnRequested", "OrderRefundRequested")


def test_the_window_closes() -> None:
    last = T0 + POLICY.returns.window
    story().when(ask(), at=last).then("OrderReturnRequested", "OrderRefundRequested")
    told = story().when(ask(), at=last + timedelta(seconds=1))
    told.refused("return-window-closed", 409, "items[0].line_id")
    assert told.refusal is not None
    assert "2026-04-01" in told.refusal.detail
    assert told.refusal.extra == {"closed_at": last.isoformat()}


def test_a_category_has_a_window_of_its_own() -> None:
    rules = POLICY.returns.model_copy(update={"category_windows": {"electronics": timedelta(days=90)}})
    told = story(delivered(HOME, TV), POLICY.model_copy(update={"returns": rules}))
    later = T0 + timedelta(days=60)
    told.when(ask(wish("L2"), wish("L1")), at=later).refused("return-window-closed", 409, "items[1].line_id")
    told.when(ask(wish("L2")), at=later).then("OrderReturnRequested", "OrderRefundRequested")


@pytest.mark.parametrize("status", ["DRAFT", "PAYMENT_CONFIRMED", "SHIPPED", "CANCELLED", "REFUNDED"])
def test_only_what_was_delivered_comes_back(status: str) -> None:
    story(delivered(status=status)).when(ask()).refused("cannot-return")


def test_a_stranger_sees_no_order() -> None:
    story().when(ask(), actor="customer:43").refused("not-found", 404)
    story().when(ask(), actor="staff:clerk").then("OrderReturnRequested", "OrderRefundRequested")


# Steps out of order

STEPS = {
    "approve": c.ApproveReturn(rma=RMA),
    "deny": c.DenyReturn(rma=RMA, reason="no"),
    "label": c.LabelReturn(rma=RMA, carrier="c", tracking_number="t", label_url="u"),
    "receive": c.ReceiveReturn(rma=RMA),
    "inspect": inspect(),
}
POSSIBLE = {
    "requested": ["approve", "deny"],
    "approved": ["label", "receive"],
    "received": ["label", "inspect"],
    "inspected": ["label"],
    "closed": ["label"],
    "denied": [],
    "expired": [],
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("status", POSSIBLE)
def test_a_step_out_of_order_names_the_status_and_what_is_possible(status: str, step: str) -> None:
    told = story().given(ask())
    (rma,) = told.now.returns
    told.order = told.now.model_copy(update={"returns": (rma.model_copy(update={"status": status}),)})
    told.when(STEPS[step])
    if step in POSSIBLE[status]:
        assert told.refusal is None
        return
    told.refused("return-not-open", 409)
    assert told.refusal is not None
    assert status in told.refusal.detail
    possible = ", ".join(step for step in POSSIBLE[status] if step != "label") or "nothing"
    assert told.refusal.extra == {"return_status": status, "possible": possible}


@pytest.mark.parametrize("step", STEPS)
def test_an_unknown_return_is_not_found(step: str) -> None:
    story().when(STEPS[step]).refused("unknown-return", 404)


@pytest.mark.parametrize(
    ("looked", "type", "field"),
    [
        ((("L1", "licked"),), "unknown-condition", "items[0].condition"),
        ((("L2", "as_new"),), "unknown-line", "items[0].line_id"),
        ((("L1", "as_new"), ("L1", "opened")), "duplicate-line", "items[1].line_id"),
    ],
)
def test_a_wrong_inspection_names_its_field(looked: tuple[tuple[str, str], ...], type: str, field: str) -> None:
    items = tuple(c.Inspected(line_id=line, condition=condition) for line, condition in looked)
    received(story(delivered(HOME, TV))).when(c.InspectReturn(rma=RMA, items=items)).refused(type, 422, field)


# What it is worth


@pytest.mark.parametrize(
    ("reason", "condition", "refund", "fee"),
    [
        ("changed_mind", "as_new", 45000, 5000),
        ("changed_mind", "opened", 40500, 4500),
        ("changed_mind", "damaged", 22500, 2500),
        ("changed_mind", "unusable", 0, 0),
        ("defective", "defective", 50000, 0),
        ("wrong_item", "opened", 45000, 0),
    ],
)
def test_condition_and_restocking_fee(reason: str, condition: str, refund: int, fee: int) -> None:
    told = received(story(delivered(HOME, TV)), wish("L2", reason=reason)).given(inspect(L2=condition))
    (inspected,) = inspections(told)
    assert (inspected.items[0].refund, inspected.amount, inspected.restocking_fee) == (refund, refund, fee)
    assert inspected.items[0].restock is POLICY.returns.conditions[condition].restock
    assert sum(r.amount for r in refunds(told)) == refund


def test_half_a_cent_is_rounded_up() -> None:
    told = received(story(delivered(delivered_line(quantity=1, paid=1001)))).given(inspect(L1="damaged"))
    assert inspections(told)[0].amount == 501


def test_a_fee_for_everything() -> None:
    rules = POLICY.returns.model_copy(update={"restocking_fee_percent": Decimal("12.5")})
    told = received(story(policy=POLICY.model_copy(update={"returns": rules})), wish(quantity=3)).given(inspect())
    assert (inspections(told)[0].amount, inspections(told)[0].restocking_fee) == (875, 125)


def test_shipping_comes_back_when_it_is_the_shops_fault_and_nothing_stays() -> None:
    def shipping(*wishes: c.ReturnWish, order: Order | None = None, **conditions: str) -> int:
        told = received(story(order), *wishes).given(inspect(**conditions))
        return sum(r.shipping for r in refunds(told))

    assert shipping(wish(quantity=3, reason="defective")) == 583
    assert shipping(wish(quantity=3, reason="defective"), L1="damaged") == 583
    assert shipping(wish(quantity=3, reason="defective"), L1="unusable") == 0
    assert shipping(wish(quantity=2, reason="defective")) == 0
    assert shipping(wish(quantity=3, reason="changed_mind")) == 0
    both = delivered(HOME, TV)
    assert shipping(wish(quantity=3, reason="defective"), wish("L2", reason="changed_mind"), order=both) == 0
    assert shipping(wish(quantity=3, reason="defective"), wish("L2", reason="wrong_item"), order=both) == 583
    partly = delivered(delivered_line(quantity=3, cancelled=1, delivered=2, shipped=2))
    assert shipping(wish(quantity=2, reason="defective"), order=partly) == 583


def test_shipping_comes_back_once() -> None:
    told = story().given(c.RefundOrder(reason="late", shipping=True))
    received(told, wish(quantity=3, reason="defective")).given(inspect())
    assert [(r.amount, r.shipping) for r in refunds(told)] == [(583, 583), (1000, 0)]


def test_units_refunded_without_return_are_not_paid_for_again() -> None:
    told = story().given(c.RefundOrder(reason="damaged", items=(c.ItemQuantity(line_id="L1", quantity=2),)))
    received(told, wish(quantity=2)).given(inspect())
    assert [r.amount for r in refunds(told)] == [667, 333]
    received(told, wish(quantity=1), rma=f"RMA-{NUMBER}-2").given(inspect(f"RMA-{NUMBER}-2"))
    assert told.now.refunded == 1000
    assert inspections(told)[1].amount == 0


def test_never_more_than_is_left() -> None:
    told = story().given(c.RefundOrder(reason="goodwill", amount=1500))
    received(told, wish(quantity=3)).given(inspect())
    (inspected,) = inspections(told)
    assert (inspected.amount, inspected.items[0].refund) == (83, 83)
    assert refunds(told)[1].items[0].amount == 83
    complete(told)
    assert told.now.status == "REFUNDED"


@given(
    paid=st.integers(1, 10_000),
    quantities=st.lists(st.integers(1, 4), min_size=1, max_size=5),
    conditions=st.lists(st.sampled_from(sorted(POLICY.returns.conditions)), min_size=5, max_size=5),
    reasons=st.lists(st.sampled_from(sorted(POLICY.returns.reasons)), min_size=5, max_size=5),
    goodwill=st.integers(0, 12_000),
)
def test_however_an_order_comes_back_the_money_adds_up(
    paid: int, quantities: list[int], conditions: list[str], reasons: list[str], goodwill: int
) -> None:
    line = delivered_line(quantity=sum(quantities), paid=paid)
    told = story(delivered(line))
    told.when(c.RefundOrder(reason="goodwill", amount=goodwill))
    for n, quantity in enumerate(quantities, start=1):
        rma = f"RMA-{NUMBER}-{n}"
        received(told, wish(quantity=quantity, reason=reasons[n - 1]), rma=rma)
        told.given(inspect(rma, L1=conditions[n - 1]))
    order = told.now
    assert order.lines[0].returned == line.quantity
    assert order.refunded <= order.captured
    assert order.refunded == order.payments[0].refunded
    assert sum(item.amount for r in order.refunds for item in r.items) <= line.paid
    complete(told)
    assert told.now.status == ("REFUNDED" if order.refunded == order.captured else "DELIVERED")
    if goodwill == 0 and set(conditions[: len(quantities)]) == {"as_new"}:
        assert sum(item.amount for r in order.refunds for item in r.items) == line.paid


# Exchange


def test_an_exchange_carries_what_the_new_order_needs() -> None:
    wanted = quote("LAMP", 700)
    told = received(story(delivered(HOME, TV)), wish(exchange=wanted), wish("L2")).given(inspect())
    (inspected,) = inspections(told)
    assert inspected.items[0].exchange == wanted
    assert inspected.exchange is not None
    assert inspected.exchange.model_dump() == {
        "customer_id": "42",
        "currency": "EUR",
        "shipping_address": told.now.shipping_address and told.now.shipping_address.model_dump(),
        "billing_address": told.now.billing_address and told.now.billing_address.model_dump(),
        "shipping_method": "standard",
        "payment_token": "pm_card_visa",
    }


def test_what_is_worth_nothing_is_not_exchanged() -> None:
    told = received(story(), wish(exchange=quote("LAMP"))).given(inspect(L1="unusable"))
    assert inspections(told)[0].exchange is None


def test_an_order_without_a_payment_to_take_over_can_not_be_exchanged() -> None:
    told = story(delivered(payment_token=None))
    told.when(ask(wish(exchange=quote("LAMP")))).refused("not-exchangeable", 422, "items[0].exchange_sku")
    told.when(ask()).then("OrderReturnRequested", "OrderRefundRequested")


# The survey


def test_the_survey_is_answered_once_by_the_customer() -> None:
    told = story()
    told.when(c.AnswerSurvey(score=0)).refused("score-out-of-range", 422, "score")
    told.when(c.AnswerSurvey(score=6)).refused("score-out-of-range", 422, "score")
    told.when(c.AnswerSurvey(score=5), actor="staff:clerk").refused("forbidden", 403)
    told.when(c.AnswerSurvey(score=5), actor="customer:43").refused("not-found", 404)
    told.when(c.AnswerSurvey(score=4, comment="nice"), at=T0 + timedelta(days=1)).then("OrderSurveyAnswered")
    assert told.now.survey is not None
    assert (told.now.survey.score, told.now.survey.comment) == (4, "nice")
    assert told.now.survey.answered_at == T0 + timedelta(days=1)
    told.when(c.AnswerSurvey(score=1)).refused("survey-answered")


@pytest.mark.parametrize("status", ["DRAFT", "SHIPPED", "CANCELLED"])
def test_there_is_no_survey_before_delivery(status: str) -> None:
    story(delivered(status=status)).when(c.AnswerSurvey(score=5)).refused("cannot-survey")


def test_a_reason_that_policy_has_dropped_is_the_customers() -> None:
    told = story(delivered(HOME, TV)).given(ask(wish("L2", reason="defective")))
    told.policy = Policy.model_validate(
        {**POLICY.model_dump(), "returns": {**POLICY.returns.model_dump(), "reasons": {}}}
    )
    told.given(c.ApproveReturn(rma=RMA), c.ReceiveReturn(rma=RMA), inspect())
    assert inspections(told)[0].restocking_fee == 5000


def test_items_are_recorded_as_asked_for() -> None:
    told = story(delivered(HOME, TV)).given(ask(wish("L2"), wish("L1", 2, "wrong_item")))
    assert told.now.returns[0].items == (
        ReturnItem(line_id="L2", sku="SKU-L2", quantity=1, reason="changed_mind"),
        ReturnItem(line_id="L1", sku="SKU-L1", quantity=2, reason="wrong_item"),
    )
    assert told.now.payments[0].attempt_id == ATTEMPT
