"""Changes of placed orders: at once, or as an edit that waits for stock, promotion and money."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from processors.order.actions import allowed_actions
from processors.order.attempts import price_of
from processors.order.editing import applied
from processors.order.processor import ORDER, handle_command
from schemas import commands as c
from schemas.base import Payload
from schemas.order import OrderStatus
from tests.domain.order_lives import (
    ON_SHIPMENT,
    OVER,
    SAGA,
    authorized,
    complete,
    held_money,
    paid,
    pay,
    placed,
    processing,
    ship,
)
from tests.domain.order_story import Story
from tests.support.examples import POLICY, T0, address, at, command, create, line, terms
from tests.support.memory import Memory

SPRING = c.ApplyPromotion(terms=terms("SPRING"))
CHANGES = (
    c.AddItem(line=line("CUP")),
    c.RemoveItem(line_id="L1"),
    c.ChangeQuantity(line_id="L1", quantity=5),
    c.ChangeShippingAddress(address=address("FR")),
    c.ChangeBillingAddress(address=address("FR")),
    c.ChangeShippingMethod(shipping_method="express"),
    SPRING,
)


def last(story: Story) -> Any:
    return story.history[-1].data


# In a draft


def test_promotions_of_a_draft_come_and_go() -> None:
    story = Story().given(create(line("MUG", 2)))
    before = story.now.totals
    story.when(SPRING).then("OrderPromotionApplied")
    assert story.now.promo_codes == ("SPRING",)
    assert story.now.totals.discount == 200
    story.when(SPRING).refused("promotion-twice", 409, "code")
    story.when(c.RemovePromotion(code="SPRING")).then("OrderPromotionRemoved")
    assert not story.now.promo_codes
    assert story.now.totals == before
    story.when(c.RemovePromotion(code="SPRING")).refused("unknown-promo-code", 404, "code")


def test_a_promotion_that_does_not_fit_is_refused_at_its_field() -> None:
    story = Story().given(create(line("MUG", 2)))
    rich = c.ApplyPromotion(terms=terms("RICH", minimum_subtotal={"EUR": 99_00}))
    story.when(rich).refused("promotion-minimum", 409, "code")


def test_a_change_says_why() -> None:
    story = Story().given(create(line("MUG", 2)))
    story.when(c.ChangeQuantity(line_id="L1", quantity=1, reason="too many")).then("OrderLineItemQuantityChanged")
    assert last(story).reason == "too many"


@pytest.mark.parametrize(
    "same",
    [
        c.ChangeQuantity(line_id="L1", quantity=3),
        c.ChangeShippingAddress(address=address()),
        c.ChangeBillingAddress(address=address()),
        c.ChangeShippingMethod(shipping_method="standard"),
    ],
)
def test_what_is_so_already_is_no_change(same: Payload) -> None:
    Story().given(create(line("MUG", 3))).when(same).then()
    paid(line("MUG", 3)).when(same).then()


# After payment


def test_a_cheaper_order_is_changed_at_once_and_the_difference_given_back() -> None:
    story = paid()
    before = story.now.totals
    story.when(c.ChangeQuantity(line_id="L1", quantity=1, reason="two too many"))
    story.then("OrderLineItemQuantityChanged", "OrderEditCompleted", "OrderRefundInitiated")
    done, refund = story.history[-2].data, story.history[-1].data
    assert (done.kind, done.reason, done.requested_by) == ("change_quantity", "two too many", "customer:42")
    assert (done.before, done.after) == (before, story.now.totals)
    assert (refund.reason, refund.amount) == ("edit", before.total - story.now.totals.total)
    assert story.now.edits == 1
    assert held_money(story) == story.now.totals.total


def test_a_line_is_taken_out_at_once() -> None:
    story = paid().when(c.RemoveItem(line_id="L2"))
    story.then("OrderLineItemRemoved", "OrderEditCompleted", "OrderRefundInitiated")
    assert [x.line_id for x in story.now.lines] == ["L1"]
    assert held_money(story) == story.now.totals.total


def test_a_bill_goes_elsewhere_at_once() -> None:
    for story in (placed(), paid()):
        story.when(c.ChangeBillingAddress(address=address("US"))).refused("invalid-state", 422, "billing_address.state")
        story.when(c.ChangeBillingAddress(address=address("FR"))).then(
            "OrderBillingAddressChanged", "OrderEditCompleted"
        )
        assert story.now.billing_address == address("FR")
        assert story.now.edit is None


def test_more_units_wait_for_stock_and_money() -> None:
    story = paid()
    before = story.now
    story.when(c.ChangeQuantity(line_id="L1", quantity=5), at=at(60)).then("OrderEditRequested")
    edit, asked = story.now.edit, last(story)
    assert edit is not None
    assert (story.now.lines, story.now.totals, story.now.status) == (before.lines, before.totals, before.status)
    assert (edit.kind, edit.line_id, edit.before, edit.quantity) == ("change_quantity", "L1", 3, 5)
    assert edit.due == asked.amount == edit.totals.total - before.totals.total > 0
    assert asked.due_at == at(60) + POLICY.edits.timeout
    assert asked.valid_until <= asked.due_at
    assert (asked.payment_token, asked.authorize) == ("pm_card_visa", False)
    assert (story.now.payments[-1].purpose, story.now.payments[-1].status) == ("edit", "requested")
    complete(story).then("OrderLineItemQuantityChanged", "OrderEditCompleted")
    assert (story.now.edit, story.now.edits) == (None, 1)
    assert story.now.totals == edit.totals
    assert story.now.payments[-1].status == "captured"
    assert held_money(story) == story.now.totals.total


def test_the_payment_of_an_edit_may_be_told_as_a_payment() -> None:
    story = paid().given(c.AddItem(line=line("CUP")))
    pay(story).then("OrderLineItemAdded", "OrderEditCompleted")
    assert held_money(story) == story.now.totals.total
    pay(story).then()


def test_a_promotion_waits_for_its_redemption_and_gives_money_back() -> None:
    story = paid()
    before = story.now.totals.total
    story.when(SPRING).then("OrderEditRequested")
    assert last(story).amount == 0
    assert last(story).payment_token is None
    complete(story).then("OrderPromotionApplied", "OrderEditCompleted", "OrderRefundInitiated")
    assert story.now.totals.total < before
    assert held_money(story) == story.now.totals.total
    story.when(c.RemovePromotion(code="SPRING")).then("OrderEditRequested")
    assert last(story).amount == before - story.now.totals.total
    complete(story).then("OrderPromotionRemoved", "OrderEditCompleted")
    assert held_money(story) == story.now.totals.total == before


def test_an_address_where_it_costs_more_waits_for_money() -> None:
    story = paid()
    story.when(c.ChangeShippingAddress(address=address("BR"))).refused(
        "country-not-served", 422, "shipping_address.country"
    )
    story.when(c.ChangeShippingAddress(address=address("FR"))).then("OrderEditRequested")
    complete(story).then("OrderShippingAddressChanged", "OrderEditCompleted")
    assert last(story).kind == "change_shipping_address"
    assert story.history[-2].data.before == address()
    assert story.now.shipping_address == address("FR")
    assert held_money(story) == story.now.totals.total


def test_a_faster_way_costs_more_and_a_slower_one_less() -> None:
    story = paid().given(c.ChangeShippingMethod(shipping_method="express"))
    slow = story.now.estimated_delivery
    complete(story).then("OrderShippingMethodChanged", "OrderEditCompleted")
    assert story.now.estimated_delivery is not None
    assert slow is not None
    assert story.now.estimated_delivery < slow
    story.when(c.ChangeShippingMethod(shipping_method="standard"))
    story.then("OrderShippingMethodChanged", "OrderEditCompleted", "OrderRefundInitiated")
    assert story.now.shipping_method == "standard"
    assert held_money(story) == story.now.totals.total


@pytest.mark.parametrize("reason", ["out_of_stock", "payment_declined", "promotion_unavailable"])
def test_an_edit_that_fails_changes_nothing(reason: str) -> None:
    story = paid()
    before = story.now
    story.given(c.AddItem(line=line("CUP")))
    edit = story.now.edit
    assert edit is not None
    fail = c.FailEdit(edit_id=edit.edit_id, reason=reason, detail="d", skus=("CUP",))
    story.when(fail, actor=SAGA).then("OrderEditFailed")
    assert (last(story).kind, last(story).reason, last(story).skus) == ("add_item", reason, ("CUP",))
    assert (story.now.edit, story.now.lines, story.now.totals) == (None, before.lines, before.totals)
    assert held_money(story) == before.totals.total
    story.when(fail, actor=SAGA).then()
    story.when(c.AddItem(line=line("CUP"))).then("OrderEditRequested")
    assert story.now.edit is not None
    assert story.now.edit.line_id == "L4", "the id of a line that did not come to be is not used again"


def test_a_declined_difference_fails_the_edit() -> None:
    story = paid().given(c.AddItem(line=line("CUP")))
    story.when(c.FailPayment(attempt_id=story.attempt, code="card_declined"), actor=SAGA).then("OrderEditFailed")
    assert (last(story).reason, story.now.payments[-1].status) == ("payment_declined", "declined")
    assert story.now.status == "PAYMENT_CONFIRMED"


def test_an_edit_expires_and_a_stale_deadline_does_nothing() -> None:
    story = paid().given(c.AddItem(line=line("CUP")))
    edit = story.now.edit
    assert edit is not None
    story.when(c.ExpireEdit(edit_id="another"), actor="system:timers").then()
    story.when(c.ExpireEdit(edit_id=edit.edit_id), actor="system:timers").then("OrderEditFailed")
    assert last(story).reason == "timeout"
    assert story.now.payments[-1].status == "superseded"
    story.when(c.ExpireEdit(edit_id=edit.edit_id), actor="system:timers").then()


@pytest.mark.parametrize("as_payment", [True, False])
def test_money_for_an_edit_that_is_over_goes_back(as_payment: bool) -> None:
    story = paid().given(c.AddItem(line=line("CUP")))
    edit = story.now.edit
    assert edit is not None
    assert edit.attempt_id is not None
    story.given(c.ExpireEdit(edit_id=edit.edit_id))
    money = {"attempt_id": edit.attempt_id, "amount": edit.due, "provider_ref": "ch_late"}
    late = c.ConfirmPayment(**money) if as_payment else c.CompleteEdit(edit_id=edit.edit_id, **money)
    story.when(late, actor=SAGA).then("OrderRefundInitiated")
    assert (last(story).captured_late, last(story).amount) == ("ch_late", edit.due)
    assert held_money(story) == story.now.totals.total
    story.when(late, actor=SAGA).then()


def test_reserved_money_for_an_edit_that_is_over_is_given_free() -> None:
    story = authorized().given(c.AddItem(line=line("CUP")))
    edit = story.now.edit
    assert edit is not None
    story.given(c.ExpireEdit(edit_id=edit.edit_id))
    late = c.ConfirmPayment(attempt_id=edit.attempt_id or "", amount=edit.due, provider_ref="au", authorized=True)
    story.when(late, actor=SAGA).then("OrderPaymentVoidRequested")
    story.when(late, actor=SAGA).then()
    assert (held_money(story), story.now.refunds) == (0, ())


def test_an_edit_is_not_completed_before_its_money_is_there() -> None:
    story = paid().given(c.AddItem(line=line("CUP")))
    complete(story, attempt_id=None).refused("edit-not-paid")
    unpaid = placed().given(c.ChangeQuantity(line_id="L1", quantity=1))
    complete(unpaid).refused("edit-not-paid")


def test_an_edit_that_nobody_waits_for_is_not_completed() -> None:
    paid().when(c.CompleteEdit(edit_id="another"), actor=SAGA).then()


# Before payment


@pytest.mark.parametrize("payload", [p for p in CHANGES if not isinstance(p, c.ChangeBillingAddress)])
def test_an_unpaid_order_keeps_its_total_until_it_is_paid(payload: Payload) -> None:
    story = placed()
    asked = story.now.totals.total
    story.when(payload).then("OrderEditRequested")
    assert story.now.totals.total == asked
    edit = story.now.edit
    assert edit is not None
    pay(story, attempt_id=story.now.payments[0].attempt_id, amount=asked).then("OrderPaymentConfirmed")
    complete(story)
    assert story.happened[1] == "OrderEditCompleted"
    assert story.now.totals == edit.totals
    assert held_money(story) == story.now.totals.total


def test_a_change_of_an_unpaid_order_that_costs_the_same_happens_at_once() -> None:
    story = placed().when(c.ChangeShippingAddress(address=address(postal_code="20095")))
    story.then("OrderShippingAddressChanged", "OrderEditCompleted")
    assert story.now.shipping_address == address(postal_code="20095")


# Refusals


@pytest.mark.parametrize("payload", CHANGES)
def test_one_edit_at_a_time(payload: Payload) -> None:
    for story in (placed(), paid()):
        story.given(c.AddItem(line=line("POT")))
        assert "modify" not in allowed_actions(story.now)
        story.when(payload).refused("edit-pending")
        story.when(payload, actor="staff:eve").refused("edit-pending")


@pytest.mark.parametrize("payload", CHANGES)
def test_the_time_to_modify_ends(payload: Payload) -> None:
    story = paid().when(payload, at=OVER).refused("cannot-modify")
    assert story.refusal is not None
    assert story.refusal.extra == {"status": "PAYMENT_CONFIRMED", "allowed_actions": "cancel"}
    assert OVER.isoformat() in story.refusal.detail


@pytest.mark.parametrize("status", [s for s in OrderStatus if s not in ("DRAFT", "PENDING_PAYMENT")])
def test_an_order_that_is_being_fulfilled_is_not_modified(status: str) -> None:
    if status == "PAYMENT_CONFIRMED":
        return
    story = paid()
    story.order = story.now.model_copy(update={"status": status})
    story.when(c.ChangeQuantity(line_id="L1", quantity=1)).refused("cannot-modify")
    assert story.refusal is not None
    assert status in story.refusal.detail
    assert story.refusal.extra["status"] == status


def test_a_held_order_is_changed_by_staff_only() -> None:
    story = paid().given(c.HoldOrder(kind="staff", reason="check"), actor="staff:eve")
    change = c.ChangeQuantity(line_id="L1", quantity=1)
    story.when(change).refused("order-held")
    assert "modify" not in allowed_actions(story.now)
    assert "modify" in allowed_actions(story.now, staff=True)
    story.when(change, actor="staff:eve")
    story.then("OrderLineItemQuantityChanged", "OrderEditCompleted", "OrderRefundInitiated")
    assert story.history[-2].data.requested_by == "staff:eve"


def test_what_is_not_there_can_not_be_changed() -> None:
    story = paid(line("MUG", 2))
    story.when(c.RemoveItem(line_id="L9")).refused("unknown-line", 404, "line_id")
    story.when(c.ChangeQuantity(line_id="L9", quantity=1)).refused("unknown-line", 404, "line_id")
    story.when(c.RemoveItem(line_id="L1")).refused("last-line", 422, "line_id")
    story.when(c.ChangeQuantity(line_id="L1", quantity=0)).refused("quantity-out-of-range", 422, "items[0].quantity")


def test_a_placed_order_keeps_a_line_with_open_units() -> None:
    story = paid().given(cancel_items(L1=3), actor="staff:eve")
    story.when(c.RemoveItem(line_id="L2")).refused("last-line", 422, "line_id")
    story.when(c.ChangeQuantity(line_id="L1", quantity=2)).refused("quantity-out-of-range", 422, "quantity")
    story.when(c.RemoveItem(line_id="L1"))
    story.then("OrderLineItemRemoved", "OrderEditCompleted", "OrderRefundInitiated")  # a kilogram less is to be sent
    assert story.now.totals.total == held_money(story), "what was given back before is not given back again"


def test_an_order_that_cost_nothing_has_no_means_to_pay_more() -> None:
    free = terms("ALL", percent="100"), terms("POST", kind="free_shipping")
    story = placed(line("MUG"), payment_token=None, promo_codes=("ALL", "POST"), promotions=free)
    assert story.now.totals.total == 0
    pay(story, amount=0, provider_ref="nothing-to-pay").then("OrderPaymentConfirmed")
    story.when(c.RemovePromotion(code="ALL")).refused("no-payment-token")
    assert story.refusal is not None
    assert "place a new order" in story.refusal.detail
    assert story.refusal.extra == {"status": "PAYMENT_CONFIRMED", "allowed_actions": "modify, cancel"}
    story.when(c.AddItem(line=line("CUP"))).then("OrderEditRequested")
    assert last(story).amount == 0, "what costs nothing can be had"


# Fulfilment waits for the end of an edit


def test_fulfilment_waits_for_the_edit_and_begins_with_its_end() -> None:
    story = paid().given(c.AddItem(line=line("CUP")), at=at(1790))
    story.when(c.BeginFulfilment(due_at=OVER), at=OVER).then()
    complete(story, at=at(1900)).then("OrderLineItemAdded", "OrderEditCompleted", "OrderProcessingStarted")
    assert [x.sku for x in last(story).lines] == ["MUG", "LAMP", "CUP"]
    assert story.now.status == "PROCESSING"


def test_fulfilment_begins_when_the_edit_fails() -> None:
    story = paid().given(c.AddItem(line=line("CUP")), at=at(1790))
    assert story.now.edit is not None
    early = c.FailEdit(edit_id=story.now.edit.edit_id, reason="out_of_stock")
    story.when(early, at=OVER, actor=SAGA).then("OrderEditFailed", "OrderProcessingStarted")
    assert [x.sku for x in last(story).lines] == ["MUG", "LAMP"]


def test_fulfilment_does_not_begin_before_its_time() -> None:
    story = paid().given(c.AddItem(line=line("CUP")))
    complete(story, at=at(60)).then("OrderLineItemAdded", "OrderEditCompleted")
    processing(story)


# Money that is only reserved


def test_a_dearer_order_reserves_the_difference_and_a_cheaper_one_takes_less() -> None:
    story = authorized()
    first = story.now.totals.total
    story.when(c.ChangeQuantity(line_id="L1", quantity=2)).then("OrderLineItemQuantityChanged", "OrderEditCompleted")
    assert held_money(story) == 0
    story.when(c.ChangeQuantity(line_id="L1", quantity=4)).then("OrderEditRequested")
    assert last(story).authorize
    assert story.now.edit is not None
    assert story.now.edit.totals.total - first == last(story).amount, "what is reserved already is not reserved again"
    complete(story, authorized=True, expires_at=at(86400))
    story.then("OrderLineItemQuantityChanged", "OrderEditCompleted")
    assert (story.now.payments[-1].status, story.now.payments[-1].expires_at) == ("authorized", at(86400))
    processing(story)
    ship(story, "S1", L1=4, L2=1)
    assert [p.capturing for p in story.now.payments] == [first, story.now.totals.total - first]


def test_more_units_for_reserved_money_that_suffices_wait_for_stock_only() -> None:
    story = authorized().given(c.ChangeQuantity(line_id="L1", quantity=1))
    story.when(c.ChangeQuantity(line_id="L1", quantity=3)).then("OrderEditRequested")
    assert (last(story).amount, last(story).authorize) == (0, False)
    complete(story).then("OrderLineItemQuantityChanged", "OrderEditCompleted")
    assert len(story.now.payments) == 1


def test_a_charged_edit_of_an_order_whose_money_is_reserved_is_not_given_back_while_that_pays_for_less() -> None:
    story = authorized().given(c.ChangeQuantity(line_id="L1", quantity=5))
    complete(story).then("OrderLineItemQuantityChanged", "OrderEditCompleted")
    assert held_money(story) > 0
    story.when(c.ChangeQuantity(line_id="L1", quantity=3)).then("OrderLineItemQuantityChanged", "OrderEditCompleted")
    processing(story)
    ship(story, "S1", L1=3, L2=1)
    assert held_money(story) + sum(p.capturing for p in story.now.payments) == story.now.totals.total


# Previews


def test_a_preview_shows_the_order_as_if_the_edit_were_completed() -> None:
    story = paid().given(c.AddItem(line=line("CUP")))
    preview = applied(story.now)
    assert [x.sku for x in preview.lines] == ["MUG", "LAMP", "CUP"]
    assert preview.totals.total > story.now.totals.total
    assert preview.edit is not None
    assert preview.edit.due == preview.totals.total - story.now.totals.total
    assert (preview.version, preview.status) == (story.now.version, story.now.status)
    done = complete(story).now
    assert (preview.lines, preview.totals) == (done.lines, done.totals)
    assert applied(done) is done


def test_a_dry_run_previews_the_totals_of_an_edit_and_writes_nothing() -> None:
    story = paid()
    memory = Memory()
    ORDER.save(memory, "order", story.now)
    stored = dict(memory.entries)
    request = command(c.AddItem(line=line("CUP")), dry_run=True)
    (answer,) = handle_command(memory, request, POLICY)
    outcome = answer.message.data
    assert outcome.accepted
    assert outcome.version == story.now.version
    story.given(c.AddItem(line=line("CUP")))
    assert story.now.edit is not None
    assert outcome.order.totals == story.now.edit.totals
    assert outcome.order.edit.due == outcome.order.totals.total - story.now.totals.total
    assert memory.entries == stored


# Sums


def cancel_items(**units: int) -> c.CancelOrder:
    items = tuple(c.ItemQuantity(line_id=line_id, quantity=quantity) for line_id, quantity in units.items())
    return c.CancelOrder(reason="customer_request", items=items)


FREE_MUG = terms("3FOR2", kind="buy_x_get_y", buy=2, get=1, skus=("MUG",))
PROMOTIONS = (terms("SPRING", percent="12.5"), FREE_MUG, terms("FIVE", kind="fixed", amounts={"EUR": 500}))
PRICES = st.integers(min_value=1, max_value=9_999)
LINE_IDS = st.sampled_from(["L1", "L2", "L3", "L4"])
EDITS = st.one_of(
    st.builds(lambda n, price: c.AddItem(line=line("CUP", n, price)), st.integers(1, 5), PRICES),
    st.builds(lambda line_id: c.RemoveItem(line_id=line_id), LINE_IDS),
    st.builds(lambda line_id, n: c.ChangeQuantity(line_id=line_id, quantity=n), LINE_IDS, st.integers(1, 9)),
    st.builds(lambda to: c.ChangeShippingAddress(address=address(to)), st.sampled_from(["DE", "FR", "GB", "JP"])),
    st.builds(lambda m: c.ChangeShippingMethod(shipping_method=m), st.sampled_from(["standard", "express"])),
    st.builds(lambda t: c.ApplyPromotion(terms=t), st.sampled_from(PROMOTIONS)),
    st.builds(lambda t: c.RemovePromotion(code=t.code), st.sampled_from(PROMOTIONS)),
)
ENDS = st.sampled_from(["complete", "complete", "expire"])
CANCELS = st.builds(lambda line_id, n: cancel_items(**{line_id: n}), LINE_IDS, st.integers(1, 2))


def live(story: Story, steps: list[tuple[Payload, str]]) -> None:
    for payload, end in steps:
        story.when(payload)
        edit = story.now.edit
        if edit is not None and end == "complete":
            complete(story)
            assert story.refusal is None
        elif edit is not None:
            story.when(c.ExpireEdit(edit_id=edit.edit_id)).then("OrderEditFailed")
        if story.now.status == "CANCELLED":
            return
        assert held_money(story) == price_of(story.now, story.now.lines, story.now.totals)
        assert any(x.quantity > x.cancelled for x in story.now.lines)


@settings(max_examples=150, deadline=None)
@given(prices=st.tuples(PRICES, PRICES), steps=st.lists(st.tuples(EDITS, ENDS), max_size=8))
def test_after_any_edits_the_shop_has_what_the_order_costs(
    prices: tuple[int, int], steps: list[tuple[Payload, str]]
) -> None:
    story = paid(line("MUG", 3, prices[0]), line("LAMP", 2, prices[1]))
    live(story, steps)
    assert held_money(story) == story.now.totals.total
    assert all(0 <= p.refunded <= p.taken for p in story.now.payments)


@settings(max_examples=150, deadline=None)
@given(prices=st.tuples(PRICES, PRICES), steps=st.lists(st.tuples(EDITS | CANCELS, ENDS), max_size=8))
def test_after_any_edits_and_cancelled_units_too_and_the_end_gives_everything_back(
    prices: tuple[int, int], steps: list[tuple[Payload, str]]
) -> None:
    story = paid(line("MUG", 3, prices[0]), line("LAMP", 2, prices[1]))
    live(story, steps)
    if story.now.status != "CANCELLED":
        story.when(c.CancelOrder(reason="customer_request"))
    assert story.now.status == "CANCELLED"
    assert held_money(story) == 0


@settings(max_examples=100, deadline=None)
@given(prices=st.tuples(PRICES, PRICES), steps=st.lists(EDITS, max_size=6))
def test_after_any_edits_shipping_takes_what_the_order_costs(prices: tuple[int, int], steps: list[Payload]) -> None:
    story = authorized(line("MUG", 3, prices[0]), line("LAMP", 2, prices[1]), policy=ON_SHIPMENT)
    for payload in steps:
        story.when(payload)
        if story.now.edit is not None:
            complete(story, authorized=story.now.edit.due > 0)
    assert held_money(story) == 0
    processing(story)
    ship(story, "S1", **{x.line_id: x.quantity for x in story.now.lines})
    assert sum(p.capturing for p in story.now.payments) == story.now.totals.total


GOODWILL = st.builds(
    lambda line_id, n: c.RefundOrder(reason="goodwill", items=(c.ItemQuantity(line_id=line_id, quantity=n),)),
    LINE_IDS,
    st.integers(1, 2),
)


@settings(max_examples=150, deadline=None)
@given(
    prices=st.tuples(PRICES, PRICES),
    steps=st.lists(st.tuples(EDITS | CANCELS | GOODWILL, ENDS), max_size=8),
    at_once=st.integers(1, 3),
)
def test_after_all_that_whatever_comes_back_is_paid_back_to_the_cent(
    prices: tuple[int, int], steps: list[tuple[Payload, str]], at_once: int
) -> None:
    story = paid(line("MUG", 3, prices[0]), line("LAMP", 2, prices[1]))
    live(story, steps)
    if story.now.status == "CANCELLED":
        return
    arrives(story)
    comes_back(story, at_once)
    assert held_money(story) == story.now.totals.shipping + story.now.totals.shipping_tax


def arrives(story: Story) -> None:
    """All that is left of the order, in one parcel."""
    ship(processing(story), "S1", **{x.line_id: x.to_ship for x in story.now.lines if x.to_ship})
    story.given(c.DeliverShipment(shipment_id="S1"), at=OVER, actor="system:fulfilment")
    assert story.now.status == "DELIVERED"


def comes_back(story: Story, at_once: int) -> None:
    """All that arrived, as good as new, so many units of a line in one return."""
    for found in story.now.lines:
        for done in range(0, found.delivered, at_once):
            units = min(at_once, found.delivered - done)
            wish = c.ReturnWish(line_id=found.line_id, quantity=units, reason="changed_mind")
            story.given(c.RequestReturn(items=(wish,)), at=OVER)
            rma = story.now.returns[-1].rma
            story.given(c.ApproveReturn(rma=rma), c.ReceiveReturn(rma=rma), c.InspectReturn(rma=rma), at=OVER)


def test_what_units_cost_less_since_others_were_cancelled_is_not_taken_from_them() -> None:
    story = paid(line("MUG", 4, weight_grams=1))
    story.given(cancel_items(L1=1), c.ApplyPromotion(terms=terms("HALF", percent="50")))
    complete(story)
    (mugs,) = story.now.lines
    arrives(story)
    comes_back(story, 3)
    assert story.history[-1].data.amount == mugs.paid * 3 // 4
    assert held_money(story) == story.now.totals.shipping + story.now.totals.shipping_tax


def test_what_staff_gave_back_before_the_price_rose_does_not_shorten_a_later_refund() -> None:
    story = paid(line("MUG", 2, weight_grams=1), line("LAMP", 1, 5000, weight_grams=1))
    complete(story.given(c.ApplyPromotion(terms=terms("HALF", percent="50"))))
    goodwill = c.RefundOrder(reason="goodwill", items=(c.ItemQuantity(line_id="L2", quantity=1),))
    story.given(goodwill, actor="staff:eve")
    complete(story.given(c.RemovePromotion(code="HALF")))
    before = held_money(story)
    story.given(cancel_items(L1=1))
    assert before - held_money(story) == story.now.lines[0].paid // 2


def test_units_that_staff_gave_back_the_price_of_are_not_paid_back_again() -> None:
    story = paid(line("MUG", 2, weight_grams=1), line("LAMP", 1, 5000))
    goodwill = c.RefundOrder(reason="goodwill", items=(c.ItemQuantity(line_id="L1", quantity=2),))
    story.given(goodwill, actor="staff:eve")
    before = held_money(story)
    story.when(c.RemoveItem(line_id="L1")).then("OrderLineItemRemoved", "OrderEditCompleted")
    assert held_money(story) == before == story.now.totals.total


def test_the_times_of_a_requested_edit_lie_inside_its_deadline() -> None:
    hasty = POLICY.model_copy(
        update={"edits": POLICY.edits.model_copy(update={"timeout": POLICY.payment.timeout / 15})}
    )
    story = paid(policy=hasty).given(c.AddItem(line=line("CUP")))
    assert last(story).valid_until == last(story).due_at == T0 + hasty.edits.timeout
