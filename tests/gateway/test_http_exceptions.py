"""The exception queue over HTTP: listed, looked at, retried, resolved."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from runtime import kafka
from schemas.base import Message, Payload
from schemas.codec import encode
from schemas.operations import ExceptionOpened
from schemas.payment import QueryPayment
from tests.gateway.conftest import Shop, problem

PATH = "/v1/admin/exceptions"


def message(data: Payload, order_id: str) -> Message[Any]:
    return Message(
        id=str(uuid4()),
        at=datetime.now(UTC),
        actor="system:placement",
        correlation_id="c",
        order_id=order_id,
        data=data,
    )


def opened(shop: Shop, *, retryable: bool = True, kind: str = "payment_unknown") -> dict[str, Any]:
    """An exception as a saga writes it, once it shows."""
    order_id, attempt = str(uuid4()), str(uuid4())
    again = encode(message(QueryPayment(attempt_id=attempt, amount=100, currency="EUR", asked=1), order_id))
    data = ExceptionOpened(
        exception_id=f"unknown:{attempt}",
        kind=kind,
        owner="payments",
        detail="The provider never said.",
        facts={"attempt_id": attempt},
        retry_topic="payment.commands" if retryable else None,
        retry_key=order_id if retryable else None,
        retry=again if retryable else None,
    )
    producer = kafka.producer(shop.stack.settings)
    producer.produce("exceptions", key=order_id.encode(), value=encode(message(data, order_id)))
    assert producer.flush(10) == 0
    return until(shop, data.exception_id, lambda found: found["status"] == "open")


def until(shop: Shop, exception_id: str, true: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 20
    while True:
        answer = shop.call("GET", f"{PATH}/{exception_id}", as_="staff")
        if answer.status_code == 200 and true(answer.json()):
            found: dict[str, Any] = answer.json()
            return found
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)


def test_an_exception_is_listed_with_what_a_person_needs(shop: Shop) -> None:
    one = opened(shop)
    assert (one["kind"], one["owner"], one["retryable"]) == ("payment_unknown", "payments", True)
    assert one["order"] == f"/v1/orders/{one['order_id']}"
    assert one["facts"] == {"attempt_id": one["exception_id"].removeprefix("unknown:")}
    assert one["age_seconds"] >= 0
    listed = shop.call("GET", f"{PATH}?order_id={one['order_id']}", as_="staff").json()
    assert [item["exception_id"] for item in listed["items"]] == [one["exception_id"]]
    assert shop.call("GET", f"{PATH}?order_id={one['order_id']}&status=resolved", as_="staff").json()["items"] == []
    assert shop.call("GET", f"{PATH}?order_id={one['order_id']}&kind=refund_failed", as_="staff").json()["items"] == []


def test_a_retry_sends_what_failed_once_more_and_the_worker_answers(shop: Shop) -> None:
    one = opened(shop)
    answer = shop.call("POST", f"{PATH}/{one['exception_id']}/retry", as_="staff")
    assert answer.status_code == 202, answer.text
    attempt = one["facts"]["attempt_id"]
    deadline = time.monotonic() + 20
    while not [
        r
        for r in shop.stack.read("payment.results")
        if r.message is not None and getattr(r.message.data, "attempt_id", None) == attempt
    ]:
        assert time.monotonic() < deadline, "the payment worker was asked again"
        time.sleep(0.2)
    assert until(shop, one["exception_id"], lambda found: found["retries"] == 1)["status"] == "open"


def test_what_can_not_be_retried_says_so(shop: Shop) -> None:
    one = opened(shop, retryable=False, kind="payment_contradiction")
    problem(shop.call("POST", f"{PATH}/{one['exception_id']}/retry", as_="staff"), 409, "not-retryable")


def test_a_resolution_is_kept_with_who_said_it(shop: Shop) -> None:
    one = opened(shop)
    path = f"{PATH}/{one['exception_id']}"
    problem(shop.call("POST", f"{path}/resolve", {}, as_="staff"), 422, "invalid-request", "resolution")
    elsewhere = {"resolution": "x", "paid_elsewhere": True}
    problem(shop.call("POST", f"{path}/resolve", elsewhere, as_="staff"), 422, "not-a-refund", "paid_elsewhere")
    done = shop.call("POST", f"{path}/resolve", {"resolution": "paid by transfer"}, as_="staff")
    assert done.status_code == 200, done.text
    found = until(shop, one["exception_id"], lambda found: found["status"] == "resolved")
    assert (found["resolution"], found["resolved_by"]) == ("paid by transfer", "staff:test-staff")
    problem(shop.call("POST", f"{path}/retry", as_="staff"), 409, "exception-resolved")
    problem(shop.call("POST", f"{path}/resolve", {"resolution": "x"}, as_="staff"), 409, "exception-resolved")


def test_pages_have_a_stable_order(shop: Shop) -> None:
    made = {opened(shop, kind="test_pages")["exception_id"] for _ in range(3)}
    seen: list[str] = []
    path = f"{PATH}?kind=test_pages&limit=2"
    while path:
        answer = shop.call("GET", path, as_="staff")
        seen += [item["exception_id"] for item in answer.json()["items"]]
        link = answer.headers.get("link", "")
        path = link[1 : link.index(">")] if link else ""
    assert made <= set(seen)
    assert len(seen) == len(set(seen))
    problem(shop.call("GET", f"{PATH}?cursor=nonsense", as_="staff"), 422, "invalid-cursor", "cursor")


def test_only_staff_sees_them(shop: Shop) -> None:
    problem(shop.call("GET", PATH), 403, "forbidden")
    problem(shop.call("POST", f"{PATH}/x/retry"), 403, "forbidden")
    problem(shop.call("GET", f"{PATH}/there-is-none", as_="staff"), 404, "not-found")
