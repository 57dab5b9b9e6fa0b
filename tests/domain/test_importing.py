"""History from another system: by the rules, all of it or nothing, and nobody acts on it."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from processors.fulfilment.model import Fulfilment
from processors.fulfilment.saga import step
from processors.notification import notices
from processors.order.decide import decide
from processors.order.evolve import evolve
from processors.order.history import PastOrder, Unfit, command_of, order_id_of
from processors.order.importing import Past
from processors.order.processor import ORDER, handle_command
from processors.placement.saga import Placement
from processors.placement.saga import evolve as place
from schemas.base import Event
from schemas.order import Order
from schemas.replies import Rejection
from tests.support.examples import POLICY, address, command
from tests.support.memory import Memory

HOME = {"name": "Ada", "street_address": "Torstr. 1", "city": "Berlin", "postal_code": "10119", "country": "DE"}
DELIVERED: dict[str, Any] = {
    "id": "4711",
    "customer_id": "42",
    "currency": "EUR",
    "created_at": "2019-03-02T10:00:00Z",
    "submitted_at": "2019-03-02T10:05:00Z",
    "items": [{"sku": "MUG", "name": "A mug", "quantity": 2, "unit_price": "10.00", "tax": "3.80"}],
    "shipping": "4.90",
    "total": "28.70",
    "shipping_address": HOME,
    "billing_address": HOME,
    "shipping_method": "dhl",
    "payments": [{"at": "2019-03-02T10:06:00Z", "status": "captured", "reference": "ch_1"}],
    "shipments": [{"shipped_at": "2019-03-03T10:00:00Z", "delivered_at": "2019-03-05T09:00:00Z", "carrier": "DHL"}],
}


def imported(**changes: Any) -> list[Past] | Rejection:
    past = PastOrder.model_validate_json(json.dumps({**DELIVERED, **changes}))
    data = command_of("old", past, lambda _, __: address())
    asked = command(data, order_id=order_id_of("old", past.id), actor="staff:import")
    found = decide(None, asked, POLICY)
    if isinstance(found, Rejection):
        return found
    assert all(isinstance(one, Past) for one in found)
    return [one for one in found if isinstance(one, Past)]


def folded(story: list[Past] | Rejection) -> Order:
    assert not isinstance(story, Rejection), story
    order: Order | None = None
    for event in happened(story):
        order = evolve(order, event)
    assert order is not None
    return order


def happened(story: list[Past]) -> list[Event[Any]]:
    """The events as they lie on the topic, but for their hashes."""
    return [
        Event(
            id=f"e{version}",
            order_id=order_id_of("old", DELIVERED["id"]),
            version=version,
            occurred_at=past.at,
            actor=past.actor,
            correlation_id="c",
            causation_id="c",
            previous_hash="",
            data=past.payload,
            imported=True,
        )
        for version, past in enumerate(story, start=1)
    ]


def refusal(**changes: Any) -> Rejection:
    found = imported(**changes)
    assert isinstance(found, Rejection), found
    return found


def test_a_delivered_order_comes_with_its_own_times_and_prices() -> None:
    story = imported()
    order = folded(story)
    assert (order.status, order.totals.total, order.captured, order.imported) == ("DELIVERED", 2870, 2870, True)
    assert order.delivered_at == datetime(2019, 3, 5, 9, tzinfo=UTC)
    assert [line.delivered for line in order.lines] == [2]
    assert order.payments[0].provider_ref == "ch_1"
    assert not isinstance(story, Rejection)
    assert [type(past.payload).__name__ for past in story][-1] == "OrderImported"
    assert story[0].at == datetime(2019, 3, 2, 10, tzinfo=UTC)


def test_the_state_is_the_fold_of_the_chained_events() -> None:
    past = PastOrder.model_validate_json(json.dumps(DELIVERED))
    data = command_of("old", past, lambda _, __: address())
    memory = Memory()
    outputs = handle_command(memory, command(data, order_id=order_id_of("old", past.id), actor="staff:import"), POLICY)
    events = [(x.message, x.value) for x in outputs if x.topic == "order.events"]
    order: Order | None = None
    last_hash = ""
    for event, value in events:
        assert isinstance(event, Event)
        assert value is not None
        assert (event.previous_hash, event.imported) == (last_hash, True)
        order, last_hash = evolve(order, event), hashlib.sha256(value).hexdigest()
    assert order is not None
    assert ORDER.load(memory, "order") == order.model_copy(update={"last_hash": last_hash})


def test_declined_attempts_refunds_and_a_review() -> None:
    order = folded(
        imported(
            payments=[
                {"at": "2019-03-02T10:05:10Z", "status": "declined"},
                {"at": "2019-03-02T10:06:00Z", "status": "captured"},
            ],
            refunds=[
                {"at": "2019-03-10T00:00:00Z", "amount": "5.00"},
                {"at": "2019-03-12T00:00:00Z", "amount": "23.70", "reference": "re_2"},
            ],
            review={"at": "2019-03-11T00:00:00Z", "score": 2, "comment": "broken"},
        )
    )
    assert order.status == "REFUNDED"
    assert [p.status for p in order.payments] == ["declined", "captured"]
    assert [(r.amount, r.status) for r in order.refunds] == [(500, "completed"), (2370, "completed")]
    assert order.survey is not None
    assert order.survey.score == 2


def test_a_cancelled_order_gave_everything_back() -> None:
    order = folded(imported(shipments=[], cancelled={"at": "2019-03-02T11:00:00Z", "reason": "changed_mind"}))
    assert order.status == "CANCELLED"
    assert order.captured == order.refunded == 2870


def test_split_shipments() -> None:
    order = folded(
        imported(
            shipments=[
                {"shipped_at": "2019-03-03T10:00:00Z", "items": [{"item": 0, "quantity": 1}]},
                {"shipped_at": "2019-03-04T10:00:00Z", "delivered_at": "2019-03-06T10:00:00Z"},
            ]
        )
    )
    assert (order.status, [line.shipped for line in order.lines], [line.delivered for line in order.lines]) == (
        "SHIPPED",
        [2],
        [1],
    )


@st.composite
def histories(draw: st.DrawFn) -> dict[str, Any]:
    """Changes to DELIVERED: anything between a draft and an order that was sent in two parcels and paid back in parts,
    the lengths of time between steps left to chance."""
    hours = iter(sorted(draw(st.lists(st.integers(1, 2000), min_size=9, max_size=9, unique=True))))

    def at() -> str:
        return (datetime(2019, 3, 2, 11, tzinfo=UTC) + timedelta(hours=next(hours))).isoformat()

    nothing: dict[str, Any] = {"payments": [], "shipments": [], "billing_address": draw(st.sampled_from([None, HOME]))}
    if draw(st.integers(0, 9)) == 0:
        return {**nothing, "submitted_at": None}
    nothing["billing_address"] = HOME
    payments = [{"at": at(), "status": "declined"} for _ in range(draw(st.integers(0, 2)))]
    if draw(st.integers(0, 9)) > 0:
        payments.append({"at": at(), "status": "captured", "reference": draw(st.sampled_from(["ch_1", "ch_2"]))})
    paid = {**nothing, "payments": payments}
    if draw(st.integers(0, 4)) == 0:
        return {**paid, "cancelled": {"at": at()}}
    if not payments or payments[-1]["status"] == "declined":
        return paid
    shipments: list[dict[str, Any]] = []
    for quantity in draw(st.sampled_from([[], [2], [1], [1, 1]])):
        shipments.append({"shipped_at": at(), "carrier": "DHL", "items": [{"item": 0, "quantity": quantity}]})
        if draw(st.booleans()):
            shipments[-1]["delivered_at"] = at()
    refunds = [{"at": at(), "amount": amount} for amount in draw(st.sampled_from([[], ["5.00"], ["8.70", "20.00"]]))]
    return {**paid, "shipments": shipments, "refunds": refunds}


@settings(deadline=None)
@given(histories())
def test_who_reads_the_end_of_a_history_alone_knows_what_all_of_its_events_tell(changes: dict[str, Any]) -> None:
    """Sagas pass by the events before OrderImported (topology.yaml: history); those that were written before there was
    such a thing they have heard one by one. Nothing is sent either way."""
    story = imported(**changes)
    assume(not isinstance(story, Rejection))
    assert not isinstance(story, Rejection)
    events = happened(story)
    told: tuple[Placement | None, Fulfilment | None, notices.Known | None] = (None, None, None)
    placement, fulfilment, known = told
    for event in events:
        placement = place(placement, event, POLICY)
        fulfilment, sends = step(fulfilment, event, POLICY)
        assert sends == []
        known = notices.evolve(known, event)
        assert notices.notice(known, event) is None
    end = events[-1]
    assert placement is not None
    assert known is not None
    assert place(None, end, POLICY) == placement.but(version=end.version)
    assert _asked_at_no_version(step(None, end, POLICY)[0]) == _asked_at_no_version(fulfilment)
    assert notices.evolve(None, end) == known


def _asked_at_no_version(state: Fulfilment | None) -> Fulfilment | None:
    """Under which version stock was asked matters while it has not answered; of imported lines nothing was asked."""
    if state is None:
        return None
    assert not any(item.pending for item in state.items)
    items = tuple(item.model_copy(update={"asked": 0}) for item in state.items)
    return state.model_copy(update={"items": items})


def test_a_draft_is_history_too() -> None:
    order = folded(imported(submitted_at=None, payments=[], shipments=[]))
    assert order.status == "DRAFT"


@pytest.mark.parametrize(
    ("changes", "type", "field"),
    [
        ({"total": "28.71"}, "amounts-differ", "total"),
        ({"payments": []}, None, "shipments[0]"),
        ({"refunds": [{"at": "2019-03-10T00:00:00Z", "amount": "28.71"}]}, None, "refunds[0]"),
        ({"review": {"at": "2019-03-04T00:00:00Z", "score": 5}}, None, "review"),
        ({"payments": [{"at": "2019-03-01T00:00:00Z", "status": "captured"}]}, "out-of-order", "payments[0]"),
        (
            {"shipments": [{"shipped_at": "2019-03-03T10:00:00Z", "items": [{"item": 0, "quantity": 3}]}]},
            None,
            "shipments[0]",
        ),
        ({"cancelled": {"at": "2019-03-06T00:00:00Z"}}, "cannot-cancel", "cancelled"),
        ({"submitted_at": "2019-03-02T09:59:59Z"}, "out-of-order", "submitted_at"),
        ({"refunds": [{"at": "2999-01-01T00:00:00Z", "amount": "1.00"}]}, "in-the-future", "refunds[0]"),
    ],
)
def test_what_the_rules_forbid_is_refused_whole_at_its_place(changes: Any, type: str | None, field: str) -> None:
    found = refusal(**changes)
    assert found.field is not None
    assert found.field.startswith(field)
    assert type in (None, found.type)


@pytest.mark.parametrize(
    "changes",
    [
        {"created_at": "2019-03-02T10:00:00"},
        {"currency": "XXQ"},
        {"items": []},
        {"colour": "red"},
        {"review": {"at": "2019-03-04T00:00:00Z", "score": 6}},
    ],
)
def test_a_document_of_another_form_is_none(changes: Any) -> None:
    with pytest.raises(ValidationError):
        imported(**changes)


def test_digits_and_indexes_are_checked() -> None:
    with pytest.raises(Unfit, match="digits") as found:
        imported(shipping="4.901")
    assert found.value.field == "shipping"
    with pytest.raises(Unfit, match="item 7") as found:
        imported(shipments=[{"shipped_at": "2019-03-03T10:00:00Z", "items": [{"item": 7, "quantity": 1}]}])
    assert found.value.field == "shipments[0].items[0].item"


def test_the_same_order_of_the_same_source_has_one_id() -> None:
    assert order_id_of("old", "1") == order_id_of("old", "1")
    assert len({order_id_of("old", "1"), order_id_of("old", "2"), order_id_of("older", "1")}) == 3
