"""Bytes written by the functions that we generate are those of fastavro, which knows nothing of us."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.avro import store
from schemas.base import FAMILIES, Payload
from schemas.codec import encode
from schemas.order import Order
from schemas.replies import CommandOutcome
from tests.schemas.golden import example
from tests.schemas.test_trusted import anything

TYPES = [payload for family in FAMILIES.values() for payload in family.payloads.values()]


def by_fastavro(message: Any) -> bytes:
    committed = store.newest()[message.data.family, type(message.data).__name__]
    buffer = io.BytesIO()
    schema = fastavro.parse_schema(committed.schema, named_schemas={})
    fastavro.schemaless_writer(buffer, schema, message.model_dump())
    return b"\x00" + committed.id.to_bytes(4) + buffer.getvalue()


@pytest.mark.parametrize("payload", TYPES, ids=lambda p: f"{p.family}/{p.__name__}")
def test_whatever_a_message_says_its_bytes_are_fastavros(payload: type[Payload]) -> None:
    envelope = FAMILIES[payload.family].envelope
    fields = {name: anything(field.annotation) for name, field in envelope.model_fields.items() if name != "data"}

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(st.builds(envelope, **{**fields, "data": anything(payload)}))
    def holds(message: Any) -> None:
        assert encode(message) == by_fastavro(message)

    holds()
    assert encode(example(payload)) == by_fastavro(example(payload))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"version": 2**63}, OverflowError),
        ({"version": "1"}, TypeError),
        ({"version": None}, TypeError),
        ({"version": 1.5}, TypeError),
        ({"command_id": None}, AttributeError),
        ({"command_id": 7}, AttributeError),
        ({"order": "none"}, AttributeError),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_no_message(changes: dict[str, Any], error: type[Exception]) -> None:
    """A copy of a model with changes is not validated: what is wrong with it must not come to lie on a topic."""
    message = example(CommandOutcome)
    wrong = message.model_copy(update={"data": message.data.model_copy(update=changes)})
    with pytest.raises(error):
        encode(wrong)


def test_a_time_without_its_zone_is_no_message() -> None:
    order: Order = example(CommandOutcome).data.order
    message = example(CommandOutcome)
    wrong = order.model_copy(update={"created_at": datetime(2026, 1, 1)})  # noqa: DTZ001
    with pytest.raises(TypeError):
        encode(message.model_copy(update={"data": message.data.model_copy(update={"order": wrong})}))
    assert order.created_at.tzinfo == UTC
