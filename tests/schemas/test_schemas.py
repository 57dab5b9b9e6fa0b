"""The language holds for seven years: what was written is read, by us and by strangers."""

from __future__ import annotations

import io
import itertools
import json

import fastavro
import pytest
from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.schema import make_avsc_object

from schemas.avro import store
from schemas.avro.generate import schema_of
from schemas.base import FAMILIES, Payload
from schemas.codec import Undecodable, decode, encode
from tests.schemas.golden import example, recorded

TYPES = [payload for family in FAMILIES.values() for payload in family.payloads.values()]
COMMITTED = list(store.by_id().values())


@pytest.mark.parametrize("payload", TYPES, ids=lambda p: f"{p.family}/{p.__name__}")
def test_the_committed_schema_is_that_of_the_class(payload: type[Payload]) -> None:
    newest = store.newest().get((payload.family, payload.__name__))
    assert newest is not None, "run `make schemas`"
    assert newest.schema == schema_of(FAMILIES[payload.family], payload), "run `make schemas`"


@pytest.mark.parametrize("payload", TYPES, ids=lambda p: f"{p.family}/{p.__name__}")
def test_every_message_round_trips(payload: type[Payload]) -> None:
    message = example(payload)
    assert decode(encode(message)) == message


@pytest.mark.parametrize("committed", COMMITTED, ids=lambda c: f"{c.family}/{c.name}.{c.version}")
def test_recorded_bytes_are_read_and_written_as_ever(committed: store.Committed) -> None:
    golden = recorded().get(str(committed.id))
    assert golden is not None, "run `python -m tests.schemas.golden`"
    raw = bytes.fromhex(golden["hex"])
    message = decode(raw)
    if store.newest()[committed.family, committed.name].id == committed.id:
        assert message == example(FAMILIES[committed.family].payloads[committed.name])
        assert encode(message) == raw


@pytest.mark.parametrize("committed", COMMITTED, ids=lambda c: f"{c.family}/{c.name}.{c.version}")
def test_a_stranger_reads_it_with_nothing_but_the_schema(committed: store.Committed) -> None:
    golden = recorded().get(str(committed.id))
    assert golden is not None, "run `python -m tests.schemas.golden`"
    raw = bytes.fromhex(golden["hex"])
    assert raw[0] == 0
    assert int.from_bytes(raw[1:5], "big") == committed.id
    record = fastavro.schemaless_reader(io.BytesIO(raw[5:]), committed.schema, None)
    assert isinstance(record, dict)
    assert set(record) == {field["name"] for field in committed.schema["fields"]}


def test_versions_are_fully_compatible_with_every_other() -> None:
    """FULL_TRANSITIVE: each version of a message reads each other one, older and newer."""
    by_name = itertools.groupby(sorted(COMMITTED, key=lambda c: c.fullname), key=lambda c: c.fullname)
    for name, versions in by_name:
        for reader, writer in itertools.product(list(versions), repeat=2):
            parsed = [make_avsc_object(c.schema) for c in (reader, writer)]
            verdict = ReaderWriterCompatibilityChecker().get_compatibility(*parsed)
            assert verdict.compatibility == SchemaCompatibilityType.compatible, (name, verdict.messages)


def test_the_compatibility_check_can_fail() -> None:
    old, new = ({"type": "record", "name": "R", "fields": [{"name": "a", "type": t}]} for t in ("long", "string"))
    verdict = ReaderWriterCompatibilityChecker().get_compatibility(make_avsc_object(new), make_avsc_object(old))
    assert verdict.compatibility != SchemaCompatibilityType.compatible


def test_schema_ids_are_unique_31_bit_hashes_of_the_schema() -> None:
    files = list(store.FOLDER.glob("*/*.avsc"))
    ids = {store.schema_id(json.loads(file.read_text())) for file in files}
    assert len(ids) == len(files)
    assert all(0 < found < 2**31 for found in ids)


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"\x00\x01", "too short"),
        (b"{}{}{}{}", "starts with byte"),
        (b"\x00\x00\x00\x00\x07rest", "not known here"),
    ],
)
def test_what_is_no_message_says_why(raw: bytes | None, why: str) -> None:
    with pytest.raises(Undecodable, match=why):
        decode(raw)


@pytest.mark.parametrize("payload", TYPES, ids=lambda p: f"{p.family}/{p.__name__}")
def test_damaged_messages_are_undecodable_and_nothing_else(payload: type[Payload]) -> None:
    raw = encode(example(payload))
    with pytest.raises(Undecodable):
        decode(raw + b"\x00")
    for cut in range(6, len(raw), max(1, len(raw) // 40)):
        with pytest.raises(Undecodable):
            decode(raw[:cut])
