"""History from another system: by the rules, all of it or nothing, and nobody acts on it."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from processors.fulfilment.model import Fulfilment
from processors.fulfilment.saga import step
from processors.notification import notices
from processors.order.decide import decide
from processors.order.evolve import evolve
from processors.order.history import Document, PastOrder, Unfit, command_of, order_id_of
from processors.order.importing import Past
from processors.order.processor import ORDER, handle_command
from processors.placement.saga import Placement
from processors.placement.saga import evolve as place
from schemas.base import Command, Event
from schemas.codec import decode, encode
from schemas.order import Order
from schemas.replies import CommandOutcome, Rejection
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
                {"at": "2019-03-12T00:00:00Z", "amount": "23.70", "reason": "A scratch.", "reference": "re_2"},
            ],
            review={"at": "2019-03-11T00:00:00Z", "score": 2, "comment": "broken"},
        )
    )
    assert order.status == "REFUNDED"
    assert [p.status for p in order.payments] == ["declined", "captured"]
    assert [(r.amount, r.status) for r in order.refunds] == [(500, "completed"), (2370, "completed")]
    assert [r.reason for r in order.refunds] == ["refund", "A scratch."], "as it was written, whatever policy knows"
    assert order.survey is not None
    assert order.survey.score == 2


def test_a_cancelled_order_gave_everything_back() -> None:
    order = folded(imported(shipments=[], cancelled={"at": "2019-03-02T11:00:00Z", "reason": "changed_mind"}))
    assert order.status == "CANCELLED"
    assert order.captured == order.refunded == 2870


CANCELLED = {"shipments": [], "cancelled": {"at": "2019-03-02T11:00:00Z"}}


def test_what_a_cancelled_order_gave_back_is_what_is_told() -> None:
    order = folded(
        imported(
            **CANCELLED,
            refunds=[
                {"at": "2019-03-10T00:00:00Z", "amount": "23.70", "reference": "re_2"},
                {"at": "2019-03-02T11:00:00Z", "amount": "5.00", "reason": "first part", "reference": "re_1"},
            ],
        )
    )
    assert (order.status, order.captured, order.refunded) == ("CANCELLED", 2870, 2870)
    assert [(r.amount, r.reason, r.provider_ref, r.status) for r in order.refunds] == [
        (500, "first part", "re_1", "completed"),
        (2370, "refund", "re_2", "completed"),
    ]
    assert order.updated_at >= datetime(2019, 3, 10, tzinfo=UTC)


@pytest.mark.parametrize("refunds", [[], [{"at": "2019-03-12T00:00:00Z", "amount": "28.70"}]])
def test_what_was_paid_after_the_cancellation_went_back_too(refunds: list[Any]) -> None:
    late = [{"at": "2019-03-11T00:00:00Z", "status": "captured"}]
    order = folded(imported(**CANCELLED, payments=late, refunds=refunds))
    assert (order.status, order.captured, order.refunded) == ("CANCELLED", 2870, 2870)
    assert [refund.status for refund in order.refunds] == ["completed"]


def test_a_cancelled_order_may_have_been_paid_in_part() -> None:
    order = folded(imported(**CANCELLED, payments=[{**DELIVERED["payments"][0], "amount": "20.00"}]))
    assert (order.captured, order.refunded) == (2000, 2000)


def test_a_cancelled_order_may_have_cost_nothing() -> None:
    free = {**DELIVERED["items"][0], "unit_price": "0.00", "tax": "0.00"}
    order = folded(imported(**CANCELLED, items=[free], shipping="0.00", total="0.00"))
    assert (order.status, order.refunds) == ("CANCELLED", ())


LATER = "2019-03-10T00:00:00Z"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({**CANCELLED, "refunds": [{"at": LATER, "amount": "5.00"}]}, "refunds[0].amount"),
        ({**CANCELLED, "refunds": [{"at": LATER, "amount": "500.00"}]}, "refunds[0].amount"),
        (
            {**CANCELLED, "refunds": [{"at": LATER, "amount": "28.70"}, {"at": LATER, "amount": "28.70"}]},
            "refunds[1].amount",
        ),
        ({**CANCELLED, "refunds": [{"at": LATER, "amount": "28.70"}], "payments": []}, "refunds[0].amount"),
        ({**CANCELLED, "refunds": [{"at": "2019-03-02T10:59:59Z", "amount": "28.70"}]}, "refunds[0].at"),
        ({"refunds": [{"at": LATER, "amount": "5.00"}], "payments": [], "shipments": []}, "refunds[0].amount"),
        ({"payments": [{**DELIVERED["payments"][0], "amount": "28.69"}]}, "payments[0].amount"),
        ({"payments": [{**DELIVERED["payments"][0], "amount": "28.69"}], "shipments": []}, "payments[0].amount"),
    ],
)
def test_amounts_that_contradict_each_other_are_refused(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(Unfit) as found:
        imported(**changes)
    assert found.value.field == field
    assert str(found.value)


def test_an_order_may_have_been_paid_too_much() -> None:
    order = folded(imported(payments=[{**DELIVERED["payments"][0], "amount": "30.00"}]))
    assert (order.status, order.captured) == ("DELIVERED", 3000)


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


DAY = "2019-03-02T00:00:00Z"


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"shipments": [{"shipped_at": DAY, "delivered_at": DAY}]}, "DELIVERED"),
        (
            {
                "shipments": [
                    {"shipped_at": DAY, "items": [{"item": 0, "quantity": 1}]},
                    {"shipped_at": DAY, "delivered_at": DAY},
                ]
            },
            "SHIPPED",
        ),
        ({"shipments": [], "cancelled": {"at": DAY}}, "CANCELLED"),
        (
            {
                "shipments": [{"shipped_at": DAY, "delivered_at": DAY}],
                "refunds": [{"at": DAY, "amount": amount} for amount in ("5.00", "23.70")],
                "review": {"at": DAY, "score": 1},
            },
            "REFUNDED",
        ),
    ],
)
def test_all_of_it_may_have_happened_at_one_time(changes: dict[str, Any], status: str) -> None:
    """Other systems have times to the second or to the day."""
    payments = [{"at": DAY, "status": "declined"}, {"at": DAY, "status": "captured"}]
    story = imported(created_at=DAY, submitted_at=DAY, payments=payments, **changes)
    assert folded(story).status == status
    assert isinstance(story, list)
    assert {past.at for past in story[:-1]} == {datetime(2019, 3, 2, tzinfo=UTC)}


def test_an_item_that_a_shipment_names_twice_is_in_it_twice() -> None:
    twice: dict[str, Any] = {
        "shipped_at": "2019-03-03T10:00:00Z",
        "items": [{"item": 0, "quantity": 1}, {"item": 0, "quantity": 1}],
    }
    order = folded(imported(shipments=[twice]))
    assert [(line.line_id, line.quantity) for line in order.shipments[0].lines] == [("L1", 2)]
    assert (order.status, order.lines[0].shipped) == ("SHIPPED", 2)
    with pytest.raises(Unfit, match="2 units are left, not 3") as found:
        imported(shipments=[{**twice, "items": [*twice["items"], {"item": 0, "quantity": 1}]}])
    assert found.value.field == "shipments[0].items[2].quantity"


@st.composite
def histories(draw: st.DrawFn) -> dict[str, Any]:
    """Changes to DELIVERED: anything between a draft and an order that was sent in two parcels and paid back in parts,
    the lengths of time between steps left to chance (none, too). Some don't say where to or how: if they were sent,
    they are refused."""
    hours = iter(sorted(draw(st.lists(st.integers(1, 2000), min_size=9, max_size=9))))

    def at() -> str:
        return (datetime(2019, 3, 2, 11, tzinfo=UTC) + timedelta(hours=next(hours))).isoformat()

    nothing: dict[str, Any] = {
        "payments": [],
        "shipments": [],
        "billing_address": draw(st.sampled_from([None, HOME])),
        "shipping_address": draw(st.sampled_from([HOME, HOME, HOME, None])),
        "shipping_method": draw(st.sampled_from(["dhl", "dhl", "dhl", None])),
    }
    if draw(st.integers(0, 9)) == 0:
        return {**nothing, "submitted_at": None}
    nothing["billing_address"] = HOME
    payments = [{"at": at(), "status": "declined"} for _ in range(draw(st.integers(0, 2)))]
    if draw(st.integers(0, 9)) > 0:
        payments.append({"at": at(), "status": "captured", "reference": draw(st.sampled_from(["ch_1", "ch_2"]))})
    paid = {**nothing, "payments": payments}
    if draw(st.integers(0, 4)) == 0:
        told = draw(st.sampled_from([[], ["28.70"], ["8.70", "20.00"]]))
        return {**paid, "cancelled": {"at": at()}, "refunds": [{"at": at(), "amount": amount} for amount in told]}
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
    try:
        story = imported(**changes)
    except Unfit:
        story = None
    assume(isinstance(story, list))
    assert isinstance(story, list)
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


ODD_TIMES = st.sampled_from(
    ["2019-03-02T10:05:00Z"] * 3
    + ["2019-03-03T00:00:00Z"] * 3
    + ["2019-03-03T00:00:00+09:00", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"]
    + ["2199-01-01T00:00:00Z", "2019-03-02", "yesterday", -1, 1e300, None]
)
ODD_AMOUNTS = st.sampled_from(["0", "0.00", "0.01", "5.00", "23.70", "28.70", "28.71", "500.00"]) | st.sampled_from(
    ["4.901", "-1.00", "NaN", 5, None, "9999999999999.99", "999999999999999.99", "999999999999999.9999"]
)
ODD_COUNTS = st.sampled_from([1, 1, 1, 2, 2, 3, 0, -1, 10**6, 2**31, 2**64, "1"])
ODD_TEXTS = st.sampled_from(["", "x", "x" * 201, "\0", "\n", "\U0001f4e6", "dhl", None])


def odd(sound: dict[str, Any], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """It with any of these fields instead."""
    return st.fixed_dictionaries({}, optional=fields).map(lambda changes: {**sound, **changes})


def odd_list(what: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(what, max_size=3)


ODD: dict[str, st.SearchStrategy[Any]] = {
    "id": ODD_TEXTS,
    "customer_id": ODD_TEXTS,
    "currency": st.sampled_from(["EUR", "JPY", "CLF", "eur", "XXQ"]),
    "created_at": ODD_TIMES,
    "submitted_at": ODD_TIMES,
    "items": odd_list(
        odd(
            DELIVERED["items"][0],
            sku=ODD_TEXTS,
            quantity=ODD_COUNTS,
            weight_grams=ODD_COUNTS,
            unit_price=ODD_AMOUNTS,
            line_total=ODD_AMOUNTS,
            discount=ODD_AMOUNTS,
            tax=ODD_AMOUNTS,
        )
    ),
    "shipping": ODD_AMOUNTS,
    "shipping_tax": ODD_AMOUNTS,
    "total": ODD_AMOUNTS,
    "shipping_address": st.sampled_from([None, {}, HOME, {**HOME, "country": "Germany"}]),
    "billing_address": st.sampled_from([None, {}, HOME]),
    "shipping_method": ODD_TEXTS,
    "payments": odd_list(
        odd(
            DELIVERED["payments"][0],
            at=ODD_TIMES,
            status=st.sampled_from(["captured", "declined"]),
            amount=ODD_AMOUNTS,
            reference=ODD_TEXTS,
        )
    ),
    "shipments": odd_list(
        odd(
            {"shipped_at": "2019-03-03T10:00:00Z"},
            shipped_at=ODD_TIMES,
            delivered_at=ODD_TIMES,
            carrier=ODD_TEXTS,
            items=odd_list(
                odd({"item": 0, "quantity": 1}, item=st.sampled_from([0, 0, 0, 1, 7, -1]), quantity=ODD_COUNTS)
            ),
        )
    ),
    "cancelled": odd(
        {"at": "2019-03-04T00:00:00Z"},
        at=ODD_TIMES,
        reason=st.sampled_from(["changed_mind", "fraud", "whim"]),
        comment=ODD_TEXTS,
    ),
    "refunds": odd_list(
        odd({"at": "2019-03-09T00:00:00Z", "amount": "5.00"}, at=ODD_TIMES, amount=ODD_AMOUNTS, reason=ODD_TEXTS)
    ),
    "review": odd({"at": "2019-03-09T00:00:00Z", "score": 3}, at=ODD_TIMES, score=st.integers(0, 6), comment=ODD_TEXTS),
}


@st.composite
def odd_documents(draw: st.DrawFn) -> dict[str, Any]:
    """A history of which up to three fields are something else, and others are not there."""
    document = {**DELIVERED, **draw(histories())}
    names = st.lists(st.sampled_from(sorted(ODD)), max_size=3, unique=True)
    document |= {name: draw(ODD[name]) for name in draw(names)}
    missing = draw(st.lists(st.sampled_from(sorted(document)), max_size=2))
    return {name: value for name, value in document.items() if name not in missing}


FIELDS = {name for kind in Document.__subclasses__() for name in kind.model_fields}


def outcome(document: dict[str, Any]) -> str | None:
    """The field that the document is rejected for, on its whole way through the topics; None: it is imported."""
    try:
        past = PastOrder.model_validate_json(json.dumps(document))
        data = command_of("old", past, lambda _, __: address())
    except ValidationError as error:
        return str(error.errors()[0]["loc"][0])
    except Unfit as error:
        return error.field
    sent = decode(
        encode(command(data, order_id=order_id_of("old", past.id), actor="staff:import", reply_to="import.1"))
    )
    assert isinstance(sent, Command)
    outputs = handle_command(Memory(), sent, POLICY)
    for output in outputs:
        encode(output.message)
    answer = outputs[-1].message.data
    assert isinstance(answer, CommandOutcome)
    if answer.accepted:
        return None
    assert answer.rejection is not None
    assert answer.rejection.field is not None, answer.rejection
    return answer.rejection.field


@settings(deadline=None, max_examples=300)
@example({**DELIVERED, "shipping_address": None})
@example({**DELIVERED, "shipping_method": None})
@example({**DELIVERED, "created_at": "0001-01-01T00:00:00+14:00"})
@example({**DELIVERED, "items": [{**DELIVERED["items"][0], "unit_price": "999999999999999.99", "quantity": 10**6}]})
@example({**DELIVERED, "items": [{**DELIVERED["items"][0], "weight_grams": 2**64}]})
@given(odd_documents())
def test_whatever_a_line_says_it_is_imported_or_rejected_for_a_field_of_the_document(document: dict[str, Any]) -> None:
    field = outcome(document)
    if field is not None:
        assert set(re.findall("[a-z_]+", field)) <= FIELDS, field
        assert re.match("[a-z_]+", field)


@pytest.mark.parametrize("field", ["shipping_address", "shipping_method"])
def test_what_was_shipped_went_somewhere_somehow(field: str) -> None:
    assert outcome({**DELIVERED, field: None}) == field
    assert outcome({**DELIVERED, field: None, "shipments": []}) is None


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
