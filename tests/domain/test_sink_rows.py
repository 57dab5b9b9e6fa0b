"""Messages → rows, by themselves."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from processors.sinks import rows
from processors.sinks.views import VIEWS, newest
from schemas.address import Sealed
from schemas.base import Message, Payload
from schemas.codec import encode
from schemas.notification import NoticeFailed, NoticeSent, NoticeSkipped
from schemas.operations import ExceptionOpened, ExceptionResolved, ExceptionRetried
from tests.support.examples import T0, address
from tests.support.histories import History

AT = 1_772_445_600_123


def told() -> History:
    story = History("told", "42", "EUR", 1250).created(0, address("DE")).submitted(1).payment_requested(1)
    return story.cancelled(2.5, "payment_declined")


def ada(sealed: Sealed) -> dict[str, str] | None:
    return {"name": "Ada Lovelace", "street_address": "Torstraße 1", "city": "Berlin"}


def forgotten(sealed: Sealed) -> dict[str, str] | None:
    return None


def test_an_event_is_one_row() -> None:
    event = told().events[3]
    raw = encode(event)
    (row,) = rows.order_events_rows(event, raw, AT)
    assert row._asdict() == {
        "order_id": event.order_id,
        "version": 4,
        "id": event.id,
        "type": "OrderCancelled",
        "occurred_at": int(T0.timestamp()) * 1_000_000 + 2_500_000,
        "actor": "customer:42",
        "correlation_id": event.correlation_id,
        "causation_id": event.causation_id,
        "data": row.data,
        "total": None,
        "hash": hashlib.sha256(raw).hexdigest(),
        "previous_hash": event.previous_hash,
        "appended_at": AT,
    }
    assert json.loads(row.data) == {"reason": "payment_declined", "comment": None, "skus": []}


def test_the_rows_of_an_order_are_chained_by_their_hashes() -> None:
    found = [row for event in told().events for row in rows.order_events_rows(event, encode(event), AT)]
    assert found[0].previous_hash == ""
    assert [row.previous_hash for row in found[1:]] == [row.hash for row in found[:-1]]


def test_a_state_is_one_row_with_the_order_whole() -> None:
    story = told()
    (row,) = rows.orders_rows(story.states[-1], AT)
    assert (row.version, row.status, row.cancellation_reason) == (4, "CANCELLED", "payment_declined")
    assert (row.subtotal, row.discount, row.tax, row.shipping, row.total) == (1250, 0, 0, 0, 1250)
    assert row.skus == ["MUG"]
    assert row.submitted_at == row.created_at + 1_000_000
    assert type(story.order).model_validate_json(row.document) == story.order
    (draft,) = rows.orders_rows(story.states[0], AT)
    assert (draft.submitted_at, draft.cancellation_reason) == (None, "")


def test_an_event_that_prices_the_order_says_what_it_costs() -> None:
    assert [rows.order_events_rows(event, b"", AT)[0].total for event in told().events] == [1250, 1250, None, None]


def test_a_sku_on_two_lines_is_named_once() -> None:
    state = told().states[-1]
    lines = (*state.data.order.lines, *state.data.order.lines)
    order = state.data.order.model_copy(update={"lines": lines})
    twice = state.model_copy(update={"data": state.data.model_copy(update={"order": order})})
    assert rows.orders_rows(twice, AT)[0].skus == ["MUG"]


def test_addresses_are_rows_in_clear() -> None:
    found = rows.personal_rows(told().states[-1], AT, ada)
    assert [row.kind for row in found] == ["shipping", "billing"]
    assert found[0]._asdict() == {
        "order_id": told().order_id,
        "kind": "shipping",
        "version": 4,
        "customer_id": "42",
        "name": "Ada Lovelace",
        "street_address": "Torstraße 1",
        "city": "Berlin",
        "state": "",
        "postal_code": "10115",
        "country": "DE",
        "appended_at": AT,
    }


def test_who_was_forgotten_has_no_row_and_who_gave_no_address_neither() -> None:
    assert rows.personal_rows(told().states[-1], AT, forgotten) == []
    assert rows.personal_rows(History("draft").created(0).states[-1], AT, ada) == []


def test_nothing_personal_but_in_the_personal_view() -> None:
    story = told()
    messages: dict[str, list[Any]] = {"order.events": story.events, "order.states": story.states}
    for view in VIEWS.values():
        for topic, make in view.sources.items():
            made = [row for m in messages.get(topic, []) for row in make(m, encode(m), AT, ada)]
            assert ("Lovelace" in str(made)) == (view.name == "personal"), view.name


@pytest.mark.parametrize("at", [datetime(1899, 12, 31, tzinfo=UTC), datetime(2262, 1, 1, tzinfo=UTC)])
def test_a_time_that_clickhouse_cannot_hold_is_poison(at: datetime) -> None:
    event = told().events[0].model_copy(update={"occurred_at": at})
    with pytest.raises(ValueError, match="no time that a view can hold"):
        rows.order_events_rows(event, b"", AT)


def test_times_are_exact_to_the_microsecond() -> None:
    at = datetime(2026, 3, 2, 10, 0, 0, 123457, tzinfo=UTC)
    assert rows.micros(at + timedelta(microseconds=1)) - rows.micros(at) == 1
    assert rows.micros(datetime(1970, 1, 1, tzinfo=UTC)) == 0


def said(data: Payload) -> Message[Any]:
    return Message(id="m1", at=T0, actor="system:placement", correlation_id="c", order_id="o1", data=data)


def test_an_exception_has_a_row_for_each_thing_said_of_it() -> None:
    opened = ExceptionOpened(
        exception_id="refund:1",
        kind="refund_failed",
        owner="payments",
        detail="It said no.",
        facts={"amount": "5"},
        retry_topic="payment.commands",
        retry_key="o1",
        retry=b"\x00abc",
    )
    resolved = ExceptionResolved(exception_id="refund:1", resolution="by bank transfer")
    told = [opened, ExceptionRetried(exception_id="refund:1"), resolved]
    found = [row for data in told for row in rows.exceptions_rows(said(data), AT)]
    assert [row.what for row in found] == ["opened", "retried", "resolved"]
    assert {(row.exception_id, row.order_id, row.message_id) for row in found} == {("refund:1", "o1", "m1")}
    assert (found[0].facts, found[0].retry_topic, found[0].retry) == ({"amount": "5"}, "payment.commands", "AGFiYw==")
    assert found[2].resolution == "by bank transfer"


@pytest.mark.parametrize(
    ("data", "outcome", "detail"),
    [
        (NoticeSent(kind="shipped", event_id="e", channel="sms", message_id="<m>", language="de"), "sent", ""),
        (NoticeSkipped(kind="shipped", event_id="e", channel="sms", reason="opted_out"), "skipped", "opted_out"),
        (NoticeFailed(kind="shipped", event_id="e", channel="sms", message_id="<m>", error="550"), "failed", "550"),
    ],
)
def test_a_message_to_a_customer_is_a_row_with_its_outcome(data: Payload, outcome: str, detail: str) -> None:
    (row,) = rows.notifications_rows(said(data), AT)
    assert (row.order_id, row.event_id, row.channel, row.outcome, row.detail) == ("o1", "e", "sms", outcome, detail)


def test_versions_count_from_one() -> None:
    event = told().events[0].model_copy(update={"version": 0})
    with pytest.raises(ValueError, match="count from 1"):
        rows.order_events_rows(event, b"", AT)


def test_a_message_of_another_topic_is_poison() -> None:
    story = told()
    for view in VIEWS.values():
        for topic, make in view.sources.items():
            stranger: Any = story.states[0] if topic == "order.events" else story.events[0]
            with pytest.raises(ValueError, match="is no"):
                make(stranger, b"", AT, ada)


def test_of_rows_that_replace_each_other_the_newest_travels() -> None:
    story, other = told(), History("other").created(0)
    found = [row for s in reversed(story.states) for row in rows.orders_rows(s, AT)] + rows.orders_rows(
        other.states[0], AT
    )
    assert [(r.order_id, r.version) for r in newest(VIEWS["orders"], found)] == [
        (story.order_id, 4),
        (other.order_id, 1),
    ]
    events = [row for e in story.events for row in rows.order_events_rows(e, encode(e), AT)]
    assert newest(VIEWS["order_events"], events) == events
