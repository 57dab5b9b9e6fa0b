"""Messages that are read without validating them are the same as those that are validated."""

from __future__ import annotations

import copy
import pickle
import typing
from datetime import UTC, datetime
from types import UnionType
from typing import Any, Literal, Union

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_validator

from processors.sinks.rows import as_json
from schemas import trusted
from schemas.avro import store
from schemas.base import FAMILIES, Minor, Model, Payload
from schemas.codec import Undecodable, encode, validated
from schemas.money import Money
from schemas.order import Order, OrderStatus
from tests.schemas.golden import recorded
from tests.support.again import TOPICS, assert_the_same_rows

GOLDEN = {key: bytes.fromhex(entry["hex"]) for key, entry in recorded().items()}
PAYLOADS = [payload for topic in TOPICS for payload in FAMILIES[topic].payloads.values()]
TEXTS = st.one_of(st.text(max_size=8), st.text(min_size=40, max_size=90), st.just('"\\\b\f\n\r\t\x00\x1f\x7f\u2028€😀'))
PLAIN: dict[type, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.one_of(st.just(0), st.integers(-70, 70), st.integers(-(2**63), 2**63 - 1)),
    str: TEXTS,
    bytes: st.binary(max_size=90),
    datetime: st.one_of(
        st.datetimes(datetime(1900, 1, 1), datetime(2261, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
        st.just(datetime(2026, 3, 2, 10, tzinfo=UTC)),
    ),
}


def anything(annotation: Any) -> st.SearchStrategy[Any]:
    """Values that a field of this type may have."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return anything(args[0])
    if origin in (Union, UnionType):
        return st.one_of(st.none(), *(anything(arg) for arg in args if arg is not type(None)))
    if origin is tuple:
        return st.lists(anything(args[0]), max_size=2).map(tuple)
    if origin is dict:
        return st.dictionaries(TEXTS, anything(args[1]), max_size=2)
    if issubclass(annotation, BaseModel):
        return st.builds(annotation, **{n: anything(field.annotation) for n, field in annotation.model_fields.items()})
    return PLAIN[annotation]


@pytest.mark.parametrize("raw", GOLDEN.values(), ids=[entry["name"] for entry in recorded().values()])
def test_every_message_that_was_ever_recorded_is_read_the_same(raw: bytes) -> None:
    read, checked = trusted.decode(raw), validated(raw)
    assert read == checked
    assert read.model_dump() == checked.model_dump()
    changed = {"correlation_id": "another"}
    assert read.model_copy(update=changed) == checked.model_copy(update=changed) != checked
    assert pickle.loads(pickle.dumps(read)) == copy.deepcopy(read) == checked  # noqa: S301
    assert type(read)(**dict(read)) == checked


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda payload: payload.__name__)
def test_whatever_a_message_says_its_rows_are_the_same(payload: type[Payload]) -> None:
    envelope = FAMILIES[payload.family].envelope
    fields = {name: anything(field.annotation) for name, field in envelope.model_fields.items() if name != "data"}

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(st.builds(envelope, **{**fields, "data": anything(payload)}))
    def holds(message: Any) -> None:
        raw = encode(message)
        assert trusted.decode(raw) == message == validated(raw)
        assert trusted.decode(raw).model_dump() == message.model_dump()
        assert_the_same_rows(payload.family, raw)

    holds()


@pytest.mark.parametrize("payload", [p for p in PAYLOADS if p.family in ("order.events", "order.states")])
def test_json_is_what_pydantic_makes_of_it(payload: type[Payload]) -> None:
    """As it lies in the tables since the first release."""

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(anything(payload))
    def holds(data: Payload) -> None:
        assert as_json(data) == data.model_dump_json()

    holds()


def test_bytes_that_end_too_early_or_too_late_are_no_message() -> None:
    for raw in GOLDEN.values():
        for length in range(0, len(raw), 7):
            with pytest.raises(Undecodable):
                trusted.decode(raw[:length])
        with pytest.raises(Undecodable):
            trusted.decode(raw + b"\x00")
    for strange in (None, b"", b"nothing of ours", b"\x00\x00\x00\x00\x07x"):
        with pytest.raises(Undecodable):
            trusted.decode(strange)


def test_all_that_was_ever_written_is_read_so() -> None:
    """A class that asks more of a value than its type is validated, which takes several times as long."""
    assert [c.fullname for c in store.by_id().values() if not trusted.suffices(c.id.to_bytes(4))] == []
    assert not trusted.suffices(b"none")


class Asks(Model):
    plain: dict[str, Minor] = {}
    deep: tuple[Money, ...] = ()


class Checks(Model):
    plain: str

    @field_validator("plain")
    @classmethod
    def never(cls, value: str) -> str:
        raise ValueError(value)


class Bounded(Model):
    plain: int = Field(ge=1)


class Chosen(Model):
    plain: Literal["a", "b"]


class Named(Model):
    status: OrderStatus


@pytest.mark.parametrize("model", [Asks, Checks, Bounded, Chosen, Named])
def test_a_class_that_asks_more_than_a_type_is_seen(model: type[BaseModel]) -> None:
    """Or reading without validating would let through what validating refuses."""
    assert trusted.asks_only_types(Order)
    assert not trusted.asks_only_types(model)
