"""Refunds: parts that add up to the cent, spread over payments, never more than was taken."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.order import names
from processors.order.refunding import given_back, left, line_due, refund_everything, refunds_of, share
from schemas import commands as c
from schemas import events as e
from schemas.order import Order, Payment, Refund, RefundItem
from schemas.policy import Policy
from tests.domain.order_lives import OVER, paid, processing, ship
from tests.domain.order_story import Story
from tests.support.delivered import ATTEMPT, delivered, delivered_line, story
from tests.support.examples import POLICY

LINES = (delivered_line("L1", 3, 1000), delivered_line("L2", 2, 701))  # + 583 shipping = 2284


def payment(name: str, amount: int, **changes: object) -> Payment:
    return Payment.model_validate({"attempt_id": name, "amount": amount, "status": "captured", **changes})


def initiated(told: Story) -> list[e.OrderRefundInitiated]:
    return [event.data for event in told.history if isinstance(event.data, e.OrderRefundInitiated)]


def complete(refund: e.OrderRefundInitiated) -> c.CompleteRefund:
    return c.CompleteRefund(refund_id=refund.refund_id, provider_ref="re")


# Shares


@given(amount=st.integers(0, 10**9), cuts=st.lists(st.integers(1, 9), min_size=1, max_size=30))
def test_the_parts_of_an_amount_add_up_however_it_is_cut(amount: int, cuts: list[int]) -> None:
    quantity, done, parts = sum(cuts), 0, []
    for units in cuts:
        parts.append(share(amount, done, done + units, quantity))
        done += units
    assert sum(parts) == amount
    exact = [amount * units / quantity for units in cuts]
    assert all(abs(part - wanted) <= 1.0001 for part, wanted in zip(parts, exact, strict=True))


def test_a_share_is_rounded_half_up() -> None:
    assert [share(1000, n, n + 1, 3) for n in range(3)] == [333, 334, 333]
    assert [share(701, n, n + 1, 2) for n in range(2)] == [351, 350]


def test_the_next_units_come_after_the_cancelled_and_the_returned_ones() -> None:
    def due(quantity: int, **changes: int) -> RefundItem:
        line = delivered_line(quantity=4, paid=1002, **changes)  # 250.5 each: 251, 250, 251, 250
        return line_due(delivered(line), line, quantity)

    assert due(1) == RefundItem(line_id="L1", quantity=1, amount=251)
    assert due(1, cancelled=1).amount == 250
    assert due(2, cancelled=1, returned=1).amount == 501


# Spreading over payments


def test_a_refund_is_spread_over_payments_oldest_first() -> None:
    order = delivered(
        payments=(
            payment("a", 100, refunded=40),
            payment("b", 900, status="declined"),
            payment("c", 900, captured=200),
            payment("d", 300),
        ),
        refunds=(Refund(refund_id="x", attempt_id="a", amount=40, status="completed", reason="edit"),),
    )
    assert left(order) == 60 + 200 + 300
    refunds = refunds_of(order, 270, "return", rma="RMA")
    assert [(r.attempt_id, r.amount) for r in refunds] == [("a", 60), ("c", 200), ("d", 10)]
    assert [r.refund_id for r in refunds] == [names.refund_id("a", 2), names.refund_id("c", 1), names.refund_id("d", 1)]
    assert {(r.reason, r.rma, r.currency) for r in refunds} == {("return", "RMA", "EUR")}
    assert sum(r.amount for r in refunds_of(order, 10**6, "return")) == 560
    assert [(r.attempt_id, r.amount) for r in refund_everything(order, "cancelled")] == [
        ("a", 60),
        ("c", 200),
        ("d", 300),
    ]
    assert refunds_of(order, 0, "return") == []
    assert refunds_of(order, -5, "return") == []


@given(
    payments=st.lists(st.integers(1, 500), min_size=1, max_size=4),
    items=st.lists(st.integers(0, 300), max_size=4),
    shipping=st.integers(0, 200),
    extra=st.integers(0, 200),
)
def test_what_a_refund_is_for_adds_up_over_its_payments(
    payments: list[int], items: list[int], shipping: int, extra: int
) -> None:
    order = delivered(payments=tuple(payment(f"a{n}", amount) for n, amount in enumerate(payments)))
    named = [RefundItem(line_id=f"L{n}", quantity=1, amount=amount) for n, amount in enumerate(items)]
    wanted = sum(items) + shipping + extra
    refunds = refunds_of(order, wanted, "staff", items=named, shipping=shipping)
    assert sum(r.amount for r in refunds) == min(wanted, sum(payments))
    assert all(sum(i.amount for i in r.items) + r.shipping <= r.amount for r in refunds)
    parts = [item for r in refunds for item in r.items]
    for item in named:
        units = sum(p.quantity for p in parts if p.line_id == item.line_id)
        amount = sum(p.amount for p in parts if p.line_id == item.line_id)
        assert units <= 1
        assert amount <= item.amount
        if wanted <= sum(payments):
            assert amount == item.amount
            assert units == 1 or item.amount == 0
    if wanted <= sum(payments):
        assert sum(r.shipping for r in refunds) == shipping


# By staff


def test_staff_refunds_units_shipping_and_an_amount() -> None:
    told = story(delivered(*LINES))
    told.when(
        c.RefundOrder(
            reason="damaged",
            items=(c.ItemQuantity(line_id="L1", quantity=1), c.ItemQuantity(line_id="L2", quantity=2)),
            shipping=True,
            amount=50,
            comment="called us",
        )
    ).then("OrderRefundInitiated")
    (refund,) = initiated(told)
    assert refund.amount == 333 + 701 + 583 + 50
    assert [(i.line_id, i.quantity, i.amount) for i in refund.items] == [("L1", 1, 333), ("L2", 2, 701)]
    assert (refund.shipping, refund.kept, refund.comment, refund.reason) == (583, True, "called us", "damaged")
    assert told.now.status == "REFUND_REQUESTED"
    told.when(complete(refund)).then("OrderRefundCompleted")
    assert told.now.status == "DELIVERED"


def test_all_the_money_back_makes_a_delivered_order_refunded_once_it_is_done() -> None:
    told = story().given(c.RefundOrder(reason="goodwill", amount=1583))
    assert told.now.status == "REFUND_REQUESTED"
    told.given(complete(initiated(told)[0]))
    assert told.now.status == "REFUNDED"
    told.when(c.RefundOrder(reason="goodwill", amount=1)).refused("cannot-refund")


@pytest.mark.parametrize("status", ["PAYMENT_CONFIRMED", "PROCESSING", "SHIPPED"])
def test_before_delivery_a_refund_changes_no_status(status: str) -> None:
    told = story(delivered(status=status)).given(c.RefundOrder(reason="late", amount=1583))
    told.given(complete(initiated(told)[0]))
    assert told.now.status == status


def shipped() -> Story:
    return ship(processing(paid()), "S1", L1=3, L2=1)


ARRIVES = c.DeliverShipment(shipment_id="S1")


@pytest.mark.parametrize("completed_first", [True, False])
def test_an_order_that_was_refunded_on_its_way_is_delivered_all_the_same(completed_first: bool) -> None:
    told = shipped()
    told.given(c.RefundOrder(reason="late", amount=told.now.captured), at=OVER)
    steps = [complete(initiated(told)[0]), ARRIVES]
    told.given(*(steps if completed_first else reversed(steps)), at=OVER)
    assert told.now.refunded == told.now.captured
    assert told.now.status == "DELIVERED"
    assert [stay.status for stay in told.now.history][-2:] == ["SHIPPED", "DELIVERED"]


def test_what_was_given_back_on_the_way_counts_for_what_is_asked_for_later() -> None:
    told = shipped()
    told.given(c.RefundOrder(reason="late", amount=100), at=OVER)
    told.given(complete(initiated(told)[0]), ARRIVES, at=OVER)
    told.given(c.RefundOrder(reason="damaged", amount=told.now.captured - 100), at=OVER)
    assert told.now.status == "REFUND_REQUESTED"
    told.given(complete(initiated(told)[1]), at=OVER)
    assert told.now.status == "REFUNDED"


def test_more_than_is_left_is_refused_and_says_what_is_left() -> None:
    told = story().given(c.RefundOrder(reason="goodwill", amount=1000))
    told.when(c.RefundOrder(reason="goodwill", amount=584)).refused("refund-too-high", 422, "amount")
    assert told.refusal is not None
    assert told.refusal.extra == {"left": "5.83 EUR"}
    assert "5.83 EUR" in told.refusal.detail
    told.when(c.RefundOrder(reason="goodwill", items=(c.ItemQuantity(line_id="L1", quantity=3),)))
    told.refused("refund-too-high", 422, "amount")
    told.when(c.RefundOrder(reason="goodwill", amount=583)).then("OrderRefundInitiated")


@pytest.mark.parametrize(
    ("refund", "type", "field"),
    [
        (c.RefundOrder(reason="goodwill"), "nothing-to-refund", "amount"),
        (c.RefundOrder(reason="goodwill", amount=0), "nothing-to-refund", "amount"),
        (c.RefundOrder(reason="goodwill", items=(c.ItemQuantity(line_id="L9", quantity=1),)), "unknown-line",
         "items[0].line_id"),
        (c.RefundOrder(reason="goodwill", items=(c.ItemQuantity(line_id="L1", quantity=4),)), "quantity-out-of-range",
         "items[0].quantity"),
        (c.RefundOrder(reason="goodwill", items=(c.ItemQuantity(line_id="L1", quantity=2),) * 2),
         "quantity-out-of-range", "items[1].quantity"),
    ],
)  # fmt: skip
def test_what_cannot_be_refunded_names_the_field(refund: c.RefundOrder, type: str, field: str) -> None:
    story().when(refund).refused(type, 422, field)


@pytest.mark.parametrize("reason", ["The cup has a scratch.", "return", ""])
def test_a_reason_that_policy_does_not_know_is_refused_and_says_which_there_are(reason: str) -> None:
    told = story().when(c.RefundOrder(reason=reason, amount=1)).refused("unknown-reason", 422, "reason")
    assert told.refusal is not None
    assert told.refusal.detail.endswith("there are: goodwill, damaged, late, missing, price, other.")


def test_a_shop_has_its_own_reasons_or_none() -> None:
    told = story()
    told.policy = Policy.model_validate({**POLICY.model_dump(), "refunds": {"reasons": ["recall"]}})
    told.when(c.RefundOrder(reason="goodwill", amount=1)).refused("unknown-reason", 422, "reason")
    told.when(c.RefundOrder(reason="recall", amount=1)).then("OrderRefundInitiated")
    told.policy = Policy.model_validate({**POLICY.model_dump(), "refunds": {"reasons": None}})
    told.when(c.RefundOrder(reason="The cup has a scratch.", amount=1)).then("OrderRefundInitiated")


def test_units_and_shipping_are_refunded_once() -> None:
    told = story().given(
        c.RefundOrder(reason="goodwill", items=(c.ItemQuantity(line_id="L1", quantity=2),), shipping=True)
    )
    two = (c.ItemQuantity(line_id="L1", quantity=2),)
    told.when(c.RefundOrder(reason="goodwill", items=two)).refused("quantity-out-of-range", 422, "items[0].quantity")
    told.when(c.RefundOrder(reason="goodwill", shipping=True)).refused("nothing-to-refund", 422, "amount")
    told.given(c.RefundOrder(reason="goodwill", items=(c.ItemQuantity(line_id="L1", quantity=1),)))
    assert [r.amount for r in initiated(told)] == [667 + 583, 333]
    assert given_back(told.now, told.now.lines[0]) == told.now.lines[0].paid
    assert line_due(told.now, told.now.lines[0], 3).amount == 0


@given(steps=st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=6))
def test_refunds_by_units_never_exceed_their_line(steps: list[tuple[int, bool]]) -> None:
    told = story(delivered(*LINES))
    for quantity, first in steps:
        line_id = "L1" if first else "L2"
        told.when(c.RefundOrder(reason="goodwill", items=(c.ItemQuantity(line_id=line_id, quantity=quantity),)))
    for line in told.now.lines:
        parts = [item for r in told.now.refunds for item in r.items if item.line_id == line.line_id]
        assert sum(item.amount for item in parts) == given_back(told.now, line)
        assert sum(item.quantity for item in parts) <= line.quantity
    assert told.now.refunded == sum(r.amount for r in initiated(told)) <= told.now.captured


# Failures


def money(order: Order) -> tuple[int, int]:
    return order.refunded, order.payments[0].refunded


def test_a_failed_refund_gives_nothing_until_a_retry_completes_it() -> None:
    told = story().given(c.RefundOrder(reason="goodwill", amount=1583))
    (refund,) = initiated(told)
    assert money(told.now) == (1583, 1583)
    told.when(c.FailRefund(refund_id=refund.refund_id, code="expired_card")).then("OrderRefundFailed")
    assert money(told.now) == (0, 0)
    assert left(told.now) == 1583
    assert told.now.status == "REFUND_REQUESTED"
    told.when(c.FailRefund(refund_id=refund.refund_id, code="expired_card")).then()
    told.when(complete(refund)).then("OrderRefundCompleted")
    assert money(told.now) == (1583, 1583)
    assert told.now.status == "REFUNDED"
    told.when(complete(refund)).then()
    told.when(c.FailRefund(refund_id=refund.refund_id, code="late")).then()


def test_the_next_refund_after_a_failed_one_has_another_id() -> None:
    told = story().given(c.RefundOrder(reason="goodwill", amount=100))
    told.given(c.FailRefund(refund_id=initiated(told)[0].refund_id, code="x"))
    told.given(c.RefundOrder(reason="goodwill", amount=100))
    assert [r.refund_id for r in initiated(told)] == [names.refund_id(ATTEMPT, 1), names.refund_id(ATTEMPT, 2)]


def failed(amount: int) -> tuple[Story, str]:
    """A delivered order with a refund of this amount that failed, and its id."""
    told = story().given(c.RefundOrder(reason="goodwill", amount=amount))
    refund = initiated(told)[0].refund_id
    return told.given(c.FailRefund(refund_id=refund, code="closed_account")), refund


def abandon(refund: str, paid_elsewhere: bool = False) -> c.AbandonRefund:
    return c.AbandonRefund(refund_id=refund, paid_elsewhere=paid_elsewhere, comment="paid to the new card")


def test_a_failed_refund_that_another_one_made_up_for_is_given_up() -> None:
    told, refund = failed(500)
    told.given(c.RefundOrder(reason="goodwill", amount=500))
    told.given(complete(initiated(told)[1]))
    assert told.now.status == "REFUND_REQUESTED"
    told.when(abandon(refund), actor="staff:eve").then("OrderRefundAbandoned")
    assert [r.status for r in told.now.refunds] == ["abandoned", "completed"]
    assert told.now.status == "DELIVERED"
    assert money(told.now) == (500, 500)
    told.when(abandon(refund)).then()
    told.when(c.FailRefund(refund_id=refund, code="late")).then()
    told.given(c.RefundOrder(reason="goodwill", amount=1083))
    told.given(complete(initiated(told)[2]))
    assert (told.now.status, left(told.now)) == ("REFUNDED", 0)


def test_units_of_a_refund_that_was_given_up_can_be_refunded_again() -> None:
    units = c.RefundOrder(reason="goodwill", items=(c.ItemQuantity(line_id="L1", quantity=3),), shipping=True)
    told = story().given(units)
    refund = initiated(told)[0].refund_id
    told.given(c.FailRefund(refund_id=refund, code="closed_account"), abandon(refund), units)
    assert initiated(told)[1].amount == 1583


def test_what_was_paid_elsewhere_is_given_and_never_given_again() -> None:
    units = c.RefundOrder(reason="goodwill", items=(c.ItemQuantity(line_id="L1", quantity=3),), shipping=True)
    told = story().given(units)
    refund = initiated(told)[0].refund_id
    told.given(c.FailRefund(refund_id=refund, code="closed_account"))
    told.when(abandon(refund, paid_elsewhere=True), actor="staff:eve").then("OrderRefundAbandoned")
    assert (told.now.status, told.now.refunds[0].status) == ("REFUNDED", "paid_elsewhere")
    assert told.now.refunds[0].completed_at is not None
    assert money(told.now) == (1583, 1583)
    assert line_due(told.now, told.now.lines[0], 3).amount == 0
    assert refund_everything(told.now, "cancelled") == []
    told.when(abandon(refund, paid_elsewhere=True)).then()
    told.when(abandon(refund)).then()
    told.when(c.CompleteRefund(refund_id=refund, provider_ref="re")).then("OrderRefundCompleted")
    assert money(told.now) == (1583, 1583), "counted once"


def test_a_part_that_was_paid_elsewhere_leaves_the_rest() -> None:
    told, refund = failed(500)
    told.given(abandon(refund, paid_elsewhere=True))
    assert (told.now.status, left(told.now)) == ("DELIVERED", 1083)


def test_that_a_given_up_refund_was_paid_elsewhere_can_be_told_later() -> None:
    told, refund = failed(500)
    told.given(abandon(refund)).when(abandon(refund, paid_elsewhere=True)).then("OrderRefundAbandoned")
    assert money(told.now) == (500, 500)


def test_not_more_is_paid_elsewhere_than_was_left() -> None:
    told, refund = failed(1000)
    told.given(c.RefundOrder(reason="goodwill", amount=1000))
    told.when(abandon(refund, paid_elsewhere=True)).refused("refund-too-high")
    assert told.refusal is not None
    assert told.refusal.extra == {"left": "5.83 EUR"}


def test_a_refund_that_is_under_way_or_done_is_not_given_up() -> None:
    told = story().given(c.RefundOrder(reason="goodwill", amount=500))
    (refund,) = initiated(told)
    told.when(abandon(refund.refund_id)).refused("refund-not-failed")
    told.given(complete(refund))
    told.when(abandon(refund.refund_id)).then()
    told.when(abandon(refund.refund_id, paid_elsewhere=True)).refused("refund-not-failed")
    told.when(abandon("x")).refused("unknown-refund")


def test_a_refund_that_was_given_up_and_came_all_the_same_counts() -> None:
    """Somebody had tried it again just before."""
    told, refund = failed(1583)
    told.given(abandon(refund))
    assert (told.now.status, money(told.now)) == ("DELIVERED", (0, 0))
    told.when(c.CompleteRefund(refund_id=refund, provider_ref="re")).then("OrderRefundCompleted")
    assert money(told.now) == (1583, 1583)


def test_refunds_after_the_end_complete_and_change_no_status() -> None:
    for status in ("CANCELLED", "REFUNDED"):
        going = Refund(refund_id="x", attempt_id=ATTEMPT, amount=10, status="initiated", reason="cancelled")
        told = story(delivered(status=status, refunds=(going,)))
        told.when(c.CompleteRefund(refund_id="x", provider_ref="re")).then("OrderRefundCompleted")
        assert told.now.status == status


def test_an_unknown_refund_is_refused() -> None:
    story().when(c.CompleteRefund(refund_id="x", provider_ref="re")).refused("unknown-refund")
    story().when(c.FailRefund(refund_id="x", code="no")).refused("unknown-refund")
