"""The rules of an order's life, without Kafka."""

from __future__ import annotations

import pytest

from processors.order.actions import POSSIBLE, allowed_actions
from processors.order.names import order_number
from schemas import commands as c
from schemas.base import Payload
from schemas.order import OrderStatus
from schemas.replies import Rejection
from tests.domain.order_lives import OVER, PATIENT, paid, placed, processing, ship
from tests.domain.order_story import Story
from tests.support.examples import POLICY, T0, address, at, create, line, quote

PLACED = create(line("MUG", 2), line("LAMP", 1, 5000), submit=True)


def test_a_draft_is_created_with_its_totals() -> None:
    story = Story().when(create(line("MUG", 2))).then("OrderCreated")
    assert story.now.status == "DRAFT"
    # 2 × 10.00 net, standard shipping of one started kilogram, 19 % tax on both
    assert story.now.totals.model_dump() == {
        "subtotal": 2000, "discount": 0, "tax": 492, "shipping": 590, "total": 3082, "shipping_tax": 112, "duty": 0,
    }  # fmt: skip


def test_creating_with_submit_places_the_order_at_once() -> None:
    story = Story().when(PLACED).then("OrderCreated", "OrderSubmitted", "OrderPaymentRequested")
    assert story.now.status == "PENDING_PAYMENT"
    assert story.now.submitted_at == T0
    assert story.now.payment_due_at == T0 + POLICY.payment.timeout
    assert story.now.payments[0].amount == story.now.totals.total
    assert story.now.estimated_delivery == "2026-03-06"


def test_an_order_is_created_once() -> None:
    Story().given(create()).when(create(), name="2").refused("order-exists")


@pytest.mark.parametrize(
    ("changes", "type", "field"),
    [
        ({"lines": ()}, "no-lines", "items"),
        ({"lines": tuple(line(f"S{i}") for i in range(101))}, "too-many-lines", "items"),
        ({"lines": (line(), line("LAMP", 0))}, "quantity-out-of-range", "items[1].quantity"),
        ({"lines": (line("MUG", 1000),)}, "quantity-out-of-range", "items[0].quantity"),
        ({"shipping_address": address("BR")}, "country-not-served", "shipping_address.country"),
        ({"shipping_method": "drone"}, "unknown-shipping-method", "shipping_method"),
        ({"lines": (line(weight_grams=40_000),)}, "too-heavy", "shipping_method"),
        ({"currency": "CHF"}, "no-shipping-price", "currency"),
        ({"promo_codes": ("SPRING",)}, "unknown-promo-code", "promo_codes[0]"),
        ({"submit": True, "payment_token": None}, "incomplete", "payment_token"),
        ({"submit": True, "shipping_address": None}, "incomplete", "shipping_address"),
        ({"submit": True, "billing_address": None}, "incomplete", "billing_address"),
        ({"submit": True, "shipping_method": None}, "incomplete", "shipping_method"),
    ],
)
def test_what_can_not_be_created(changes: dict[str, object], type: str, field: str) -> None:
    Story().when(create().model_copy(update=changes)).refused(type, 422, field)


def test_lines_of_a_draft_can_be_changed() -> None:
    story = Story().given(create(line("MUG", 1)))
    story.when(c.AddItem(line=line("LAMP", 1, 5000))).then("OrderLineItemAdded")
    story.when(c.ChangeQuantity(line_id="L1", quantity=3)).then("OrderLineItemQuantityChanged")
    assert [(x.line_id, x.sku, x.quantity) for x in story.now.lines] == [("L1", "MUG", 3), ("L2", "LAMP", 1)]
    assert story.now.totals.subtotal == 8000
    story.when(c.RemoveItem(line_id="L1")).then("OrderLineItemRemoved")
    story.when(c.AddItem(line=line("CUP", 1))).then("OrderLineItemAdded")
    assert [x.line_id for x in story.now.lines] == ["L2", "L3"], "a line id is never used again"


def test_the_same_quantity_is_no_event() -> None:
    Story().given(create()).when(c.ChangeQuantity(line_id="L1", quantity=1)).then()


def test_the_last_line_stays() -> None:
    Story().given(create()).when(c.RemoveItem(line_id="L1")).refused("last-line", 422, "line_id")


def test_a_line_that_is_not_there() -> None:
    story = Story().given(create())
    story.when(c.RemoveItem(line_id="L9")).refused("unknown-line", 404, "line_id")
    story.when(c.ChangeQuantity(line_id="L9", quantity=1)).refused("unknown-line", 404, "line_id")


def test_addresses_and_method_of_a_draft_can_be_changed() -> None:
    story = Story().given(create(line("MUG", 1), shipping_address=None, billing_address=None, shipping_method=None))
    assert (story.now.totals.tax, story.now.totals.shipping) == (0, 0)
    story.when(c.ChangeShippingAddress(address=address("FR"))).then("OrderShippingAddressChanged")
    assert story.now.totals.tax == 200
    story.when(c.ChangeShippingMethod(shipping_method="express")).then("OrderShippingMethodChanged")
    assert story.now.totals.shipping == 2340
    story.when(c.ChangeBillingAddress(address=address("FR"))).then("OrderBillingAddressChanged")
    story.when(c.SubmitOrder(payment_token="t", quotes=(quote("MUG"),)), at=at(60))
    story.then("OrderSubmitted", "OrderPaymentRequested")


def test_submitting_prices_anew_and_a_changed_total_must_be_accepted() -> None:
    story = Story().given(create(line("MUG", 1)))
    dearer = (quote("MUG", 1100),)
    story.when(c.SubmitOrder(payment_token="t", quotes=dearer)).refused("price-changed", 409, "accept_total")
    assert story.refusal is not None
    assert story.refusal.extra == {"before": "1892", "after": "2011", "currency": "EUR"}
    story.when(c.SubmitOrder(payment_token="t", quotes=dearer, accepted_total=2011))
    story.then("OrderSubmitted", "OrderPaymentRequested")
    assert story.now.payments[0].amount == story.now.totals.total == 2011


def test_submitting_needs_a_quote_for_every_line() -> None:
    story = Story().given(create(line("MUG"), line("LAMP")))
    story.when(c.SubmitOrder(payment_token="t", quotes=(quote("MUG"),))).refused("quotes-missing")
    assert story.refusal is not None
    assert story.refusal.extra == {"skus": "LAMP"}


def test_cancelled_is_final() -> None:
    story = Story().given(create(), c.CancelOrder(reason="customer_request"))
    story.when(c.CancelOrder(reason="customer_request")).refused("cannot-cancel")
    story.when(c.SubmitOrder(payment_token="t", quotes=())).refused("cannot-submit")
    assert allowed_actions(story.now) == ()


REQUESTS: dict[str, Payload] = {
    "modify": c.ChangeQuantity(line_id="L1", quantity=1),
    "submit": c.SubmitOrder(payment_token="t", quotes=()),
    "pay": c.PayOrder(payment_token="t"),
    "cancel": c.CancelOrder(reason="customer_request"),
    "return": c.RequestReturn(items=()),
    "survey": c.AnswerSurvey(score=5),
    "hold": c.HoldOrder(kind="staff", reason="r"),
    "release": c.ReleaseOrder(),
    "refund": c.RefundOrder(reason="goodwill", amount=1),
}


def test_every_action_is_tried() -> None:
    assert set(REQUESTS) == set(POSSIBLE)


def says_what_is_possible(story: Story, staff: bool, **more: str) -> None:
    possible = ", ".join(allowed_actions(story.now, staff)) or "nothing"
    assert story.refusal is not None
    assert story.refusal.detail.endswith(f"; possible now: {possible}.")
    assert story.refusal.extra == {"status": story.now.status, "allowed_actions": possible, **more}


@pytest.mark.parametrize("actor", ["staff:eve", "customer:42"])
@pytest.mark.parametrize("status", list(OrderStatus))
@pytest.mark.parametrize("action", list(POSSIBLE))
def test_an_illegal_transition_says_the_state_and_what_is_possible(action: str, status: str, actor: str) -> None:
    if status in POSSIBLE[action]:
        return
    story = paid()
    story.order = story.now.model_copy(update={"status": status})
    story.when(REQUESTS[action], actor=actor).refused(f"cannot-{action}")
    assert story.refusal is not None
    assert status in story.refusal.detail
    says_what_is_possible(story, actor == "staff:eve")


@pytest.mark.parametrize("actor", ["staff:eve", "customer:42"])
def test_what_only_the_moment_forbids_says_what_is_possible_too(actor: str) -> None:
    def refused(story: Story, payload: Payload, type: str, **more: str) -> None:
        story.when(payload, actor=actor).refused(type)
        says_what_is_possible(story, actor == "staff:eve", **more)

    hold = c.HoldOrder(kind="staff", reason="r")
    refused(placed(), REQUESTS["pay"], "payment-under-way")
    refused(placed().given(hold), REQUESTS["pay"], "order-held")
    refused(placed().given(hold), hold, "already-held")
    refused(placed(), c.ReleaseOrder(), "not-held")
    edited = paid().given(c.AddItem(line=line("CUP")))
    assert edited.now.edit is not None
    refused(edited, REQUESTS["modify"], "edit-pending", edit_id=edited.now.edit.edit_id)


def test_an_order_that_is_held_or_rated_says_what_is_possible() -> None:
    held = paid().given(c.HoldOrder(kind="staff", reason="r")).when(REQUESTS["modify"]).refused("order-held")
    says_what_is_possible(held, staff=False)
    rated = ship(processing(paid(line("MUG", 1))), "S1", L1=1)
    rated.given(c.DeliverShipment(shipment_id="S1"), c.AnswerSurvey(score=5), at=OVER)
    rated.when(REQUESTS["survey"], at=OVER).refused("survey-answered")
    says_what_is_possible(rated, staff=False)


def test_what_policy_leaves_no_room_for_is_not_said_to_be_possible() -> None:
    story = placed(policy=PATIENT)
    story.given(c.FailPayment(attempt_id=story.attempt, code="card_declined"))
    story.policy = POLICY
    story.when(REQUESTS["pay"]).refused("no-attempts-left")
    assert story.refusal is not None
    assert story.refusal.extra == {"status": "PENDING_PAYMENT", "allowed_actions": "modify, cancel"}


def test_a_front_end_is_offered_what_would_be_accepted() -> None:
    draft = Story().given(create(line("MUG", 2)))
    assert allowed_actions(draft.now) == ("modify", "submit", "cancel")
    assert allowed_actions(placed().now) == ("modify", "cancel"), "a payment is under way"
    assert allowed_actions(placed().now, staff=True) == ("modify", "cancel", "hold")
    assert allowed_actions(paid().now) == ("modify", "cancel")
    assert allowed_actions(paid().now, staff=True) == ("modify", "cancel", "hold", "refund")
    held = paid().given(c.HoldOrder(kind="staff", reason="r"), actor="staff:eve")
    assert allowed_actions(held.now) == ("cancel",)
    assert allowed_actions(held.now, staff=True) == ("modify", "cancel", "release", "refund")
    declined = placed(policy=PATIENT)
    declined.given(c.FailPayment(attempt_id=declined.attempt, code="card_declined"))
    assert allowed_actions(declined.now) == ("modify", "pay", "cancel")
    sent = ship(processing(paid()), "S1", L1=3)
    assert allowed_actions(sent.now) == (), "something was shipped"
    ship(sent, "S2", L2=1)
    for shipment_id in ("S1", "S2"):
        sent.given(c.DeliverShipment(shipment_id=shipment_id), at=OVER)
    assert allowed_actions(sent.now) == ("return", "survey")
    assert allowed_actions(sent.now, staff=True) == ("return", "refund"), "how it was is the customer's to say"
    sent.given(c.AnswerSurvey(score=5), at=OVER)
    wish = c.RequestReturn(
        items=tuple(c.ReturnWish(line_id=x.line_id, quantity=x.quantity, reason="does_not_fit") for x in sent.now.lines)
    )
    sent.given(wish, at=OVER)
    assert allowed_actions(sent.now) == (), "all of it is on its way back"


def test_somebody_elses_order_does_not_exist() -> None:
    story = Story().given(create())
    story.when(c.CancelOrder(reason="customer_request"), actor="customer:7").refused("not-found", 404)
    Story().when(c.CancelOrder(reason="customer_request")).refused("not-found", 404)


def test_an_expected_version_must_be_the_current_one() -> None:
    story = Story().given(create())
    story.when(c.CancelOrder(reason="changed_mind"), expected_version=7).refused("version-mismatch", 412, "If-Match")
    story.when(c.CancelOrder(reason="changed_mind"), expected_version=1).then("OrderCancelled")


def test_payments_and_refunds_that_nobody_asked_for() -> None:
    story = Story().given(PLACED)
    story.when(c.ConfirmPayment(attempt_id="x", amount=1, provider_ref="r")).refused("unknown-payment")
    story.when(c.FailPayment(attempt_id="x", code="r")).refused("unknown-payment")
    story.when(c.CompleteRefund(refund_id="x", provider_ref="r")).refused("unknown-refund")


def test_what_the_catalogue_speaks_against_is_refused_with_its_words() -> None:
    words = Rejection(type="out-of-stock", detail="Too little of MUG.", field="items[0].quantity")
    Story().when(c.RefuseRequest(rejection=words)).refused("out-of-stock", 409, "items[0].quantity")
    Story().given(create()).when(c.RefuseRequest(rejection=words)).refused("out-of-stock", 409, "items[0].quantity")


def test_order_numbers_are_short_and_stable() -> None:
    one, two = (order_number(f"00000000-0000-0000-0000-00000000000{i}") for i in (1, 2))
    assert one != two
    assert len(one) == 11
    assert one == order_number("00000000-0000-0000-0000-000000000001")
