"""Whole lives of orders over HTTP, with everything between the request and the parcel at the door: provider, warehouse
and carrier are the sandbox's. The lives are lived side by side, as in a shop; each has a test of its own."""

from __future__ import annotations

import email
import email.policy
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from uuid import NAMESPACE_URL, uuid4, uuid5

import httpx
import orjson
import pytest

from processors.notification import notices
from sandbox.webhooks import sign
from schemas.base import Event
from schemas.notification import NoticeSent
from tests.support.books import assert_balanced
from tests.support.stack import Stack, cart

PATIENCE = 180.0
"""Seconds until a life is given up: far more than it takes, for machines that have much else to do."""
UNDER_WAY = ("PENDING_PAYMENT", "PAYMENT_CONFIRMED", "PROCESSING", "SHIPPED")
ENDS = ("DELIVERED", "REFUNDED", "CANCELLED")

Order = dict[str, Any]
T = TypeVar("T")


class TooLate(Exception):
    """The machine was so busy that the seconds which an order has to be paid or changed were over before we came to it.
    That is right, and not the life that was to be lived: it is begun again."""


def cents(money: dict[str, str]) -> int:
    assert money["currency"] == "EUR"
    return int(money["amount"].replace(".", ""))


class Customer:
    """A customer whom nobody else knows, with an e-mail address; and the staff that looks after the order."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self.id = f"life-{uuid4().hex[:12]}"
        put = {"email": f"{self.id}@customers.example", "channel": "email"}
        assert self.ask("PUT", f"/v1/customers/{self.id}/preferences", put).status_code == 200

    def ask(self, method: str, path: str, body: Any = None, *, staff: bool = False) -> httpx.Response:
        """The answer: the same request with the same key is sent until there is one."""
        key, deadline = uuid4().hex, time.monotonic() + PATIENCE
        while True:
            admin = "clerk" if staff else None
            answer = self.stack.call(method, path, body, key=key, customer=self.id, admin=admin)
            if answer.status_code not in (202, 503):
                return answer
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.2)

    def do(self, method: str, path: str, body: Any = None, *, staff: bool = False) -> Order:
        answer = self.ask(method, path, body, staff=staff)
        assert answer.status_code in (200, 201), f"{method} {path}: {answer.text}"
        order: Order = answer.json()
        return order

    def in_time(self, method: str, path: str, body: Any) -> Order:
        """`do`, where policy leaves little time for it."""
        answer = self.ask(method, path, body)
        if answer.status_code == 409 and answer.json()["type"] in (
            "/problems/cannot-modify",
            "/problems/cannot-cancel",
        ):
            raise TooLate(answer.text)
        assert answer.status_code == 200, f"{method} {path}: {answer.text}"
        order: Order = answer.json()
        return order

    def place(self, *items: tuple[str, int], fate: dict[str, Any] | None = None, **changes: Any) -> str:
        """The id of an order that was just placed. `fate`: what becomes of its first parcel; it is settled before the
        order is placed, so that nobody can have packed it."""
        order_id = str(self.do("POST", "/v1/orders", cart(*items, submit=fate is None, **changes))["id"])
        if fate is not None:
            self.fate(order_id, fate)
            self.do("POST", f"/v1/orders/{order_id}/submit", {"payment_token": "pm_card_visa"})
        return order_id

    def until(self, order_id: str, wanted: Callable[[Order], bool], what: str) -> Order:
        """The order, as staff sees it, once it is as wanted."""
        order: Order = {}
        deadline = time.monotonic() + PATIENCE
        while not (order and wanted(order)):
            assert time.monotonic() < deadline, f"never {what}: {order}"
            time.sleep(0.5)  # twenty who ask all the time are a load of their own
            order = self.stack.order(order_id)
            if order and order["status"] == "CANCELLED" and not wanted(order):
                if order["cancellation"]["reason"] == "payment_timeout":
                    raise TooLate(order_id)
                raise AssertionError(f"never {what}: {order}")
        return order

    def status(self, order_id: str, *statuses: str) -> Order:
        return self.until(order_id, lambda order: order["status"] in statuses, " or ".join(statuses))

    def delivered(self, order_id: str) -> Order:
        return self.status(order_id, "DELIVERED")

    def refunded(self, order_id: str, count: int = 1) -> Order:
        """The order once it has so many refunds, all completed."""
        return self.until(
            order_id,
            lambda order: [refund["status"] for refund in order["refunds"]] == ["completed"] * count,
            f"{count} refund(s) completed",
        )

    def fate(self, order_id: str, plan: dict[str, Any]) -> None:
        """What becomes of the order's next parcel."""
        url = f"{self.stack.settings.logistics_url}/v1/control/next"
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                answer = httpx.post(url, json={"order_id": order_id, **plan}, timeout=10)
                assert answer.status_code == 200, answer.text
                return
            except httpx.TransportError:  # it was just killed
                assert time.monotonic() < deadline
                time.sleep(0.2)

    def books(self, order_id: str) -> tuple[list[int], list[int]]:
        """(amounts charged, amounts refunded) for the order by the provider's ledger, in cents."""
        mine = [entry for entry in self.stack.ledger() if entry["reference"] == order_id]
        return (
            [entry["amount"] for entry in mine if entry["kind"] == "charge" and entry["status"] == "captured"],
            [entry["amount"] for entry in mine if entry["kind"] == "refund" and entry["status"] == "refunded"],
        )

    def sent_back(self, order_id: str, condition: str, **wish: Any) -> Order:
        """Return units of line 1 of a delivered order; the order as it is after the inspection."""
        item = {"line_id": "L1", "quantity": 1, "reason": "changed_mind", **wish}
        asked = self.do("POST", f"/v1/orders/{order_id}/returns", {"items": [item], "comment": "too blue"})
        assert asked["status"] == "REFUND_REQUESTED"
        rma = asked["returns"][-1]["rma"]
        self.do("POST", f"/v1/admin/returns/{rma}/approve", staff=True)
        self.returned(order_id, "received")
        # The news of the label may come after its goods: who asked the carrier for it may have been killed meanwhile.
        self.until(order_id, lambda order: bool(order["returns"][-1]["tracking_number"]), "labelled")
        looked = {"items": [{"line_id": "L1", "condition": condition}]}
        return self.do("POST", f"/v1/admin/returns/{rma}/inspect", looked, staff=True)

    def returned(self, order_id: str, status: str) -> Order:
        """The order once the last of its returns (the view may not have it yet) is in this status."""
        return self.until(order_id, lambda order: [one["status"] for one in order["returns"]][-1:] == [status], status)

    def timeline(self, order_id: str, end: str) -> list[tuple[str, datetime]]:
        """The order's events, type and time, once one of type `end` is there: their view may be behind the orders'."""

        def told() -> list[tuple[str, datetime]]:
            items = self.stack.call("GET", f"/v1/orders/{order_id}/events", admin="clerk").json()["items"]
            events = [(event["type"], datetime.fromisoformat(event["occurred_at"])) for event in items]
            return events if end in dict(events) else []

        return self.stack.until(told, f"{order_id} has its {end}", PATIENCE)


# One life each. `mug` costs 10.00 and has stock for all.


def an_edit_that_costs_more_is_charged_on_top(stack: Stack, mug: str) -> None:
    ada = Customer(stack)
    order_id = ada.place((mug, 1))
    asked = ada.in_time("PATCH", f"/v1/orders/{order_id}/items/L1", {"quantity": 3, "reason": "guests"})
    edited = ada.until(
        order_id, lambda order: order["version"] >= asked["version"] and order["edit"] is None, "edited, or not"
    )
    if edited["items"][0]["quantity"] != 3:
        raise TooLate  # the difference could not be charged in time
    assert [(payment["purpose"], payment["status"]) for payment in edited["payments"]] == [
        ("order", "captured"),
        ("edit", "captured"),
    ]
    order = ada.delivered(order_id)
    charged, refunded = ada.books(order_id)
    assert len(charged) == 2
    assert sum(charged) == cents(order["total"])
    assert refunded == []
    assert order["items"][0]["quantities"]["delivered"] == 3
    assert "OrderEditCompleted" in dict(ada.timeline(order_id, "OrderDelivered"))


def an_edit_that_costs_less_is_refunded(stack: Stack, mug: str) -> None:
    ada = Customer(stack)
    order_id = ada.place((mug, 3))
    ada.in_time("PATCH", f"/v1/orders/{order_id}/items/L1", {"quantity": 1})
    ada.refunded(order_id)
    order = ada.delivered(order_id)
    charged, refunded = ada.books(order_id)
    assert len(charged) == len(refunded) == 1
    assert charged[0] - refunded[0] == cents(order["total"])
    assert [(refund["reason"], cents(refund["amount"])) for refund in order["refunds"]] == [("edit", refunded[0])]
    assert order["items"][0]["quantities"] == {
        "ordered": 1,
        "cancelled": 0,
        "shipped": 1,
        "delivered": 1,
        "returned": 0,
    }


def cancelled_units_are_refunded_and_the_rest_is_delivered(stack: Stack, mug: str) -> None:
    ada = Customer(stack)
    order_id = ada.place((mug, 3))
    paid = ada.status(order_id, "PAYMENT_CONFIRMED", "PROCESSING", "SHIPPED", "DELIVERED")
    items = [{"line_id": "L1", "quantity": 1}]
    left = ada.in_time("POST", f"/v1/orders/{order_id}/cancel", {"reason": "changed_mind", "items": items})
    if left["status"] != "PAYMENT_CONFIRMED":
        raise TooLate  # the parcel may be on its way with all three
    ada.refunded(order_id)
    order = ada.delivered(order_id)
    units = {"ordered": 3, "cancelled": 1, "shipped": 2, "delivered": 2, "returned": 0}
    assert order["items"][0]["quantities"] == units
    (_, (refunded,)) = ada.books(order_id)
    assert refunded == round(3570 / 3)  # a third of 3 × 10.00 and 19 %
    assert order["total"] == paid["total"], "what was ordered stays on the record"


def ten_customers_race_for_a_code_with_three_uses(stack: Stack, mug: str) -> None:
    customers = [Customer(stack) for _ in range(10)]
    code = f"L{uuid4().hex[:10].upper()}"
    terms = {"kind": "percentage", "percent": 50, "limit": 3}
    stack.done("PUT", f"/v1/admin/promotions/{code}", terms)
    with ThreadPoolExecutor(10) as pool:
        body = cart((mug, 2), promo_codes=[code])
        answers = list(pool.map(lambda one: one.ask("POST", "/v1/orders", body), customers))
    assert {answer.status_code for answer in answers} <= {201, 409}
    refused = [answer.json()["type"] for answer in answers if answer.status_code == 409]
    assert set(refused) <= {"/problems/promotion-used-up"}
    placed = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    ends = [customers[0].status(order_id, "DELIVERED", "CANCELLED") for order_id in placed]
    won = [order for order in ends if order["status"] == "DELIVERED"]
    lost = [order["cancellation"]["reason"] for order in ends if order["status"] == "CANCELLED"]
    if "payment_timeout" in lost:
        raise TooLate
    assert [cents(order["discount"]) for order in won] == [1000] * 3
    assert set(lost) <= {"promotion_unavailable"}
    assert len(won) + len(lost) + len(refused) == 10
    level = stack.call("GET", f"/v1/admin/promotions/{code}", admin="clerk").json()
    assert level["used"] == 3


def a_held_order_is_charged_once_staff_releases_it(stack: Stack, mug: str) -> None:
    ada = Customer(stack)
    order_id = ada.place((stack.product(stock=2, price="6000.00"), 1), (mug, 1))
    held = ada.until(order_id, lambda order: bool(order["holds"]), "held")
    assert (held["status"], held["holds"][0]["kind"]) == ("PENDING_PAYMENT", "fraud")
    assert ada.books(order_id) == ([], [])
    ada.do("POST", f"/v1/admin/orders/{order_id}/release", {"comment": "we know them"}, staff=True)
    order = ada.delivered(order_id)
    assert ada.books(order_id) == ([cents(order["total"])], [])


def a_held_order_that_staff_cancels_is_never_charged(stack: Stack, mug: str) -> None:
    ada = Customer(stack)
    yacht = stack.product(stock=2, price="6000.00")
    order_id = ada.place((yacht, 1), (mug, 1))
    ada.until(order_id, lambda order: bool(order["holds"]), "held")
    ada.do("POST", f"/v1/orders/{order_id}/cancel", {"reason": "fraud", "comment": "stolen card"}, staff=True)
    order = ada.status(order_id, "CANCELLED")
    assert order["cancellation"] == {"reason": "fraud", "comment": "stolen card", "skus": []}
    assert ada.books(order_id) == ([], [])

    def back() -> bool:
        items = stack.call("GET", "/v1/products?limit=1000").json()["items"]
        return any(item["sku"] == yacht and item["available"] == 2 for item in items)

    stack.until(back, "the stock is back", PATIENCE)


def what_the_warehouse_does_not_find_is_refunded(stack: Stack, mug: str) -> None:
    ada = Customer(stack)
    order_id = ada.place((mug, 3), fate={"short": [{"line": "L1", "quantity": 1}]})
    order = ada.delivered(order_id)
    assert order["items"][0]["quantities"]["cancelled"] == 1
    assert order["items"][0]["quantities"]["delivered"] == 2
    ada.refunded(order_id)
    (_, refunded) = ada.books(order_id)
    assert refunded == [1190]


def a_parcel_that_nobody_took_comes_again(stack: Stack, mug: str) -> None:
    ada = Customer(stack)
    order_id = ada.place((mug, 1), fate={"fail_attempts": 1})
    order = ada.delivered(order_id)
    assert order["shipments"][0]["delivery_attempts"] == 1
    timeline = [type for type, _ in ada.timeline(order_id, "OrderDelivered")]
    first = timeline.index("OrderDeliveryFailed")
    assert timeline.index("OrderShipped") < first < timeline.index("OrderDelivered")
    assert timeline[first:].count("OrderShipmentDispatched") == 1, "it was sent out again"


def a_lost_parcel_is_sent_anew(stack: Stack, mug: str) -> None:
    ada = Customer(stack)
    order_id = ada.place((mug, 2), fate={"lose": True})
    order = ada.delivered(order_id)
    assert [parcel["status"] for parcel in order["shipments"]] == ["lost", "delivered"]
    assert order["items"][0]["quantities"]["delivered"] == 2
    assert ada.books(order_id) == ([cents(order["total"])], [])


def a_return_in_used_condition_is_refunded_in_part(stack: Stack, mug: str) -> None:
    ada = Customer(stack)
    order_id = ada.place((mug, 2))
    ada.delivered(order_id)
    inspected = ada.sent_back(order_id, "opened")
    (refund,) = inspected["refunds"]
    assert cents(refund["amount"]) == 1071  # 90 % of 10.00 and 19 %
    order = ada.returned(order_id, "closed")
    assert order["status"] == "DELIVERED"
    assert order["items"][0]["quantities"]["returned"] == 1
    assert ada.books(order_id)[1] == [1071]


def an_exchange_becomes_an_order_that_is_delivered_too(stack: Stack, mug: str) -> None:
    ada = Customer(stack)
    other = stack.product(stock=5, price="12.00")
    order_id = ada.place((mug, 1))
    ada.delivered(order_id)
    ada.sent_back(order_id, "as_new", exchange_sku=other)

    def made() -> list[Order]:
        page = stack.call("GET", f"/v1/customers/{ada.id}/orders", customer=ada.id).json()
        return [order for order in page["items"] if order["exchange_of"] == order_id]

    (new,) = stack.until(made, "the order in exchange", PATIENCE)
    assert [(item["sku"], item["quantity"]) for item in ada.delivered(new["id"])["items"]] == [(other, 1)]
    ada.refunded(order_id)
    assert ada.books(order_id)[1] == [1190]
    assert ada.books(new["id"]) == ([cents(new["total"])], [])


def all_of_it_back_is_refunded_and_the_survey_answered(stack: Stack, mug: str) -> None:
    ada = Customer(stack)
    order_id = ada.place((mug, 2))
    early = ada.ask("POST", f"/v1/orders/{order_id}/survey", {"score": 1})
    assert (early.status_code, early.json()["type"]) == (409, "/problems/cannot-survey")
    total = cents(ada.delivered(order_id)["total"])
    ada.sent_back(order_id, "defective", quantity=2, reason="defective")
    ada.status(order_id, "REFUNDED")
    assert ada.books(order_id) == ([total], [total])  # the shop's fault: shipping too
    rated = ada.do("POST", f"/v1/orders/{order_id}/survey", {"score": 2, "comment": "broken, but friendly"})
    assert rated["status"] == "REFUNDED"
    assert rated["survey"] == {"score": 2, "comment": "broken, but friendly"}


Life = Callable[[Stack, str], None]
LIVES: list[Life] = [
    an_edit_that_costs_more_is_charged_on_top,
    an_edit_that_costs_less_is_refunded,
    cancelled_units_are_refunded_and_the_rest_is_delivered,
    ten_customers_race_for_a_code_with_three_uses,
    a_held_order_is_charged_once_staff_releases_it,
    a_held_order_that_staff_cancels_is_never_charged,
    what_the_warehouse_does_not_find_is_refunded,
    a_parcel_that_nobody_took_comes_again,
    a_lost_parcel_is_sent_anew,
    a_return_in_used_condition_is_refunded_in_part,
    an_exchange_becomes_an_order_that_is_delivered_too,
    all_of_it_back_is_refunded_and_the_survey_answered,
]


def test_a_paid_order_is_delivered_within_15_seconds(lively_stack: Stack) -> None:
    """One of six, so that a machine which does something else for a while is forgiven."""
    ada = Customer(lively_stack)
    mug = lively_stack.product(stock=10)
    took: list[timedelta] = []
    for _ in range(6):
        order_id = ada.place((mug, 2))
        try:
            order = ada.delivered(order_id)
        except TooLate:
            continue
        assert order["shipments"][0]["tracking_url"].startswith("http")
        at = dict(ada.timeline(order_id, "OrderDelivered"))
        took.append(at["OrderDelivered"] - at["OrderPaymentConfirmed"])
        if took[-1] < timedelta(seconds=15):
            break
    print(f"from payment to delivery: {', '.join(f'{one.total_seconds():.1f} s' for one in took)}")
    assert took
    assert took[-1] < timedelta(seconds=15)


@pytest.fixture(scope="module")
def lives(lively_stack: Stack) -> Iterator[dict[Life, Future[None]]]:
    mug = lively_stack.product(stock=1_000)
    with ThreadPoolExecutor(len(LIVES)) as pool:
        yield {life: pool.submit(lived, partial(life, lively_stack, mug)) for life in LIVES}


def lived(life: Callable[[], T]) -> T:
    """What the life comes to; it is begun again where it was too late for it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return life()
        except TooLate:
            if time.monotonic() > deadline:
                raise


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.__name__)
def test_a_life(lives: dict[Life, Future[None]], life: Life) -> None:
    lives[life].result()


def test_a_report_with_a_wrong_signature_is_nobodys(lively_stack: Stack) -> None:
    """Whoever of the three it says it is from, and whatever it says."""
    for path in ("/v1/carriers/events", "/v1/warehouse/events", "/v1/payments/events"):
        for signature in (sign("not the secret", b"{}"), "nonsense", None):
            headers = {} if signature is None else {"OMS-Signature": signature}
            answer = lively_stack.http.post(path, content=b"{}", headers=headers)
            assert (answer.status_code, answer.json()["type"]) == (401, "/problems/bad-signature")


def test_the_books_balance_after_these_lives(lively_stack: Stack) -> None:
    balanced(lively_stack)


# Everything is killed once, in the middle of it


KILLED = (
    "placement",
    "promotion",
    "fulfilment",
    "notices",
    "logistics",
    "logistics-partners",
    "notification",
    "reconciliation",
    "returns",
)
STEP = 25
"""So many events of orders lie between two kills."""
CANCELS = 2
FATES: dict[int, dict[str, Any]] = {
    3: {"fail_attempts": 1},
    4: {"lose": True},
    5: {"short": [{"line": "L1", "quantity": 1}]},
}
"""Kind of life → what becomes of its first parcel."""


def as_far_as_it_goes(stack: Stack, mug: str, code: str, n: int) -> str:
    """A life of kind n; the order's id once it is at its end. An edit or a cancellation that is refused, because it was
    too late for it, is left at that; but an order that was not paid in time, because the saga was dead, is no life."""
    ada = Customer(stack)
    codes = [code] if n % 5 == 0 else []
    order_id = ada.place((mug, 2), promo_codes=codes, fate=FATES.get(n % 10))
    if n % 10 in (0, 1):
        ada.ask("PATCH", f"/v1/orders/{order_id}/items/L1", {"quantity": 3 - 2 * (n % 2)})
    elif n % 10 == CANCELS:
        ada.ask("POST", f"/v1/orders/{order_id}/cancel", {"reason": "changed_mind"})
    end = ada.status(order_id, *ENDS)
    if end["status"] == "CANCELLED" and end["cancellation"]["reason"] == "payment_timeout":
        raise TooLate(order_id)
    if end["status"] == "DELIVERED" and n % 10 > 5:
        ada.sent_back(order_id, "as_new", quantity=1 + n % 2, reason="defective")
        ada.returned(order_id, "closed")
    return order_id


def test_kill_9_of_each_in_the_middle_of_20_lives(lively_stack: Stack) -> None:
    """All of them come to an end, nothing is charged, shipped, refunded or told twice, and nothing is forgotten."""
    stack = lively_stack
    mug, code = stack.product(stock=1_000), f"K{uuid4().hex[:10].upper()}"
    stack.done("PUT", f"/v1/admin/promotions/{code}", {"kind": "percentage", "percent": 10})
    dead = {}
    with ThreadPoolExecutor(20) as pool:
        going = [pool.submit(lived, partial(as_far_as_it_goes, stack, mug, code, n)) for n in range(20)]
        for name in KILLED:
            goes_on(stack, going)
            dead[name] = stack.kill(name)
        orders = [future.result() for future in going]
    for name, pid in dead.items():
        stack.back(name, pid, PATIENCE)
    balanced(stack)
    ends = [stack.until(partial(stack.order, order_id), f"{order_id} is shown")["status"] for order_id in orders]
    print("kill -9:", *ends)
    for n, end in enumerate(ends):
        assert end in ({"DELIVERED", "CANCELLED"} if n % 10 == CANCELS else {"DELIVERED", "REFUNDED"}), orders[n]
    everyone_was_told_once(stack)


def goes_on(stack: Stack, lives: list[Future[str]], seconds: float = 5) -> None:
    """Wait for the next STEP events; without end where nothing goes on while somebody is dead, so not for too long."""

    def events() -> int:
        return int(stack.sql("SELECT count() AS n FROM oms.order_events")[0]["n"])

    wanted, deadline = events() + STEP, time.monotonic() + seconds
    while time.monotonic() < deadline and events() < wanted and not all(life.done() for life in lives):
        time.sleep(0.1)


def balanced(stack: Stack) -> None:
    """The books balance, once nothing is under way."""

    def rests() -> bool:
        rows = stack.sql("SELECT document FROM oms.orders FINAL WHERE status != 'DRAFT'")
        return not any(under_way(orjson.loads(row["document"])) for row in rows)

    stack.until(rests, "nothing is under way", PATIENCE)
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            assert_balanced(stack)
            return
        except AssertionError:  # units of a parcel that is there may still be on their way through the books
            if time.monotonic() > deadline:
                raise
            time.sleep(1)


def under_way(order: dict[str, Any]) -> bool:
    """Whether somebody other than a person is still to do something about it; `order` is the view's document."""
    travels = any(parcel["status"] in ("shipped", "in_transit", "out_for_delivery") for parcel in order["shipments"])
    comes_back = any(returned["status"] in ("approved", "inspected") for returned in order["returns"])
    pays = any(refund["status"] == "initiated" for refund in order["refunds"])
    waits = order["status"] in UNDER_WAY and order["hold"] is None
    return waits or travels or comes_back or pays or order["edit"] is not None


def everyone_was_told_once(stack: Stack) -> None:
    """Each event that customers hear of is one e-mail: none is missing, and a repeat is the same one."""
    expected = message_ids(stack)

    def told() -> set[str]:
        found = set()
        for path in (stack.data_dir / "outbox" / "email").glob("*.eml"):
            letter = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
            if letter["To"].startswith("life-"):
                assert path.stem == letter["Message-ID"].strip("<>").partition("@")[0]
                found.add(letter["Message-ID"])
        return found

    stack.until(lambda: expected <= told(), "nobody waits for a message", PATIENCE)
    assert told() == expected
    asked = [record.message.data.event_id for record in stack.read("notification.commands") if record.message]
    assert len(asked) == len(set(asked)), "nothing was asked for twice"

    def on_record() -> set[str]:
        results = [record.message.data for record in stack.read("notification.events") if record.message]
        return {sent.message_id for sent in results if isinstance(sent, NoticeSent)}

    stack.until(lambda: expected <= on_record(), "what was sent is on record", PATIENCE)


def message_ids(stack: Stack) -> set[str]:
    """Of all that our customers must have heard, by a fold of their orders' events."""
    domain = stack.settings.mail_from.rpartition("@")[2]
    known: dict[str, notices.Known | None] = {}
    expected = set()
    for record in stack.read("order.events"):
        event = record.message
        if not isinstance(event, Event):
            continue  # another test's poison
        known[event.order_id] = notices.evolve(known.get(event.order_id), event)
        found = notices.notice(known[event.order_id], event)
        if found is not None and found.customer_id.startswith("life-"):
            expected.add(f"<{uuid5(NAMESPACE_URL, f'oms:message:{event.id}:email')}@{domain}>")
    return expected
