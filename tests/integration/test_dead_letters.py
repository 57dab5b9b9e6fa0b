"""Dead letters: nothing is lost, nothing overtakes, and a retry reaches only whom it is for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import TopicPartition
from typer.testing import CliRunner

from runtime import dead_letters, dlq_cli, kafka, topology, topology_apply
from runtime.dead_letters import Retry, admits, dead_letter, for_me, letter_key, park, retry_of, settle
from runtime.errors import UserError
from runtime.settings import Settings
from schemas.base import Message
from schemas.codec import decode, encode
from schemas.payment import QueryPayment
from tests.support.fragile import TOPOLOGY
from tests.support.parts import oms_run, until

NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Entries(dict[str, Any]):
    """State under one key."""

    def set(self, key: str, value: Any, ttl: timedelta | None = None) -> None:
        self[key] = value

    def delete(self, key: str) -> None:
        self.pop(key, None)


def letter(**changes: Any) -> Message[Any]:
    given: dict[str, Any] = {
        "processor": "order",
        "topic": "order.commands",
        "partition": 3,
        "offset": 17,
        "key": b"\xffk",
        "value": b"\x00junk\xff",
        "headers": [("correlation_id", b"c1"), ("ce_id", b"m1"), ("odd", None), ("text", "words")],
        "appended_at": NOW,
        "reason": "undecodable",
        "error": "x" * 10_000,
    }
    return dead_letter(**{**given, **changes})


def test_a_letter_holds_the_message_whole_and_is_the_same_each_time() -> None:
    one = letter()
    assert decode(encode(one)) == one == letter()
    assert (one.data.key, one.data.value, one.data.partition, one.data.offset) == (b"\xffk", b"\x00junk\xff", 3, 17)
    assert [(h.name, h.value) for h in one.data.headers][:2] == [("correlation_id", b"c1"), ("ce_id", b"m1")]
    assert (one.correlation_id, one.causation_id, one.at) == ("c1", "m1", NOW)
    assert len(one.data.error) == 4_000
    others = [letter(offset=18), letter(partition=2), letter(topic="order.internal"), letter(processor="placement")]
    assert len({x.data.letter_id for x in [one, *others]}) == 5
    bare = letter(key=None, value=None, headers=None)
    assert decode(encode(bare)) == bare
    assert letter_key(None) == b""
    assert letter_key(b"\xff") == b"\xff"


def test_a_retried_message_is_for_the_one_that_failed_alone() -> None:
    headers = [
        ("oms-dlq-letter", b"l1"),
        ("oms-dlq-processor", b"order"),
        ("oms-dlq-batch", b"b1"),
        ("oms-dlq-count", b"2"),
    ]
    assert retry_of(headers) == Retry("l1", "order", "b1", 2, last=False, discard=False)
    assert for_me(headers, "order")
    assert not for_me(headers, "placement")
    discarded = [*headers, ("oms-dlq-last", b"1"), ("oms-dlq-discard", b"1")]
    assert retry_of(discarded) == Retry("l1", "order", "b1", 2, last=True, discard=True)
    assert not for_me(discarded, "order")
    for ordinary in (None, [], [("ce_id", b"x")], [("oms-dlq-letter", b"l1")]):
        assert retry_of(ordinary) is None
        assert for_me(ordinary, "placement")


def test_a_key_is_free_again_when_all_its_letters_are_settled() -> None:
    state = Entries()
    first = Retry("l", "order", "b1", 2, last=False, discard=False)
    last = replace(first, last=True)
    assert admits(state, None)
    park(state, None)
    assert not admits(state, None)
    park(state, None)

    # The batch's first fails again: its second is not handled, and everything is parked as before.
    assert admits(state, first)
    park(state, first)
    settle(state, first)
    assert not admits(state, last)
    park(state, last)
    settle(state, last)
    assert not admits(state, None)

    # The next batch succeeds, but one more message was parked meanwhile.
    second = replace(first, batch="b2")
    assert admits(state, second)
    settle(state, second)
    park(state, None)
    assert admits(state, replace(last, batch="b2"))
    settle(state, replace(last, batch="b2"))
    assert not admits(state, None)

    settle(state, Retry("l", "order", "b3", 1, last=True, discard=True))
    assert admits(state, None)
    assert state == {}


def test_orders_wait_behind_a_dead_letter_and_nothing_that_orders_share_does() -> None:
    shape = topology.load()
    parking = {name for name in shape.processors if dead_letters.parks(shape, name)}
    assert {"order", "placement"} <= parking
    assert not parking & {"inventory", "timers"}


class Fragile:
    """The fragile processor and a bystander, on topics of their own."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.broken = folder / "broken"

    def send(self, topic: str, key: str, *attempts: str) -> None:
        for attempt in attempts:
            data = QueryPayment(attempt_id=attempt, amount=1, currency="EUR", asked=1)
            message: Message[Any] = Message(
                id=attempt, at=NOW, actor="system:test", correlation_id="c", order_id=key, data=data
            )
            self.raw(topic, key.encode(), encode(message))

    def raw(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        producer = kafka.producer(self.settings, message_max_bytes=dead_letters.MAX_BYTES)
        producer.produce(topic, key=key, value=value)
        assert producer.flush(20) == 0

    def out(self, key: str, topic: str = "fragile.out") -> list[str]:
        """Committed answers under a key."""
        consumer = kafka.consumer(self.settings, f"test-{uuid4()}", enable_partition_eof=True)
        try:
            left = set(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
            consumer.assign([TopicPartition(topic, number, 0) for number in left])
            found = []
            while left:
                record = consumer.poll(10)
                assert record is not None
                if record.error() is not None:
                    left.discard(record.partition())
                elif record.key() == key.encode():
                    found.append(decode(record.value()).data.attempt_id)
            return found
        finally:
            consumer.close()

    def open(self, key: str | None) -> list[dead_letters.Letter]:
        wanted = None if key is None else key.encode()
        return [
            found
            for found in dead_letters.open_letters(self.settings)
            if found.data.key == wanted and found.data.processor == "fragile"
        ]

    def reasons(self, key: str | None) -> list[str]:
        return [found.data.reason for found in self.open(key)]

    def dlq(self, *arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(dlq_cli.app, [*arguments, "--processor", "fragile"])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done.exit_code, done.output


@pytest.fixture(scope="module")
def fragile(broker: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fragile]:
    folder = tmp_path_factory.mktemp("fragile")
    path = folder / "topology.yaml"
    path.write_text(TOPOLOGY)
    topology_apply.apply(broker, topology.load(path), "embedded")
    settings = broker.model_copy(update={"topology": path})
    made = Fragile(settings, folder)
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patched:
        patched.setattr(dlq_cli, "stack_settings", lambda _: settings)
        for name in ("fragile", "bystander"):
            stack.enter_context(oms_run(name, settings, folder, OMS_TOPOLOGY=str(path)))
        yield made


@pytest.mark.stack
def test_what_comes_after_a_failed_message_waits_for_it(fragile: Fragile) -> None:
    fragile.broken.touch()
    fragile.send("fragile.first", "A", "ok1", "bad")
    until(lambda: fragile.reasons("A") == ["failed"], "the bad one is a dead letter")
    fragile.send("fragile.second", "A", "ok2")
    until(lambda: fragile.reasons("A") == ["failed", "parked"], "the next waits behind it")
    fragile.send("fragile.first", "A", "ok3")
    fragile.send("fragile.first", "B", "ok1")
    until(lambda: fragile.reasons("A") == ["failed", "parked", "parked"], "and the next")
    until(lambda: fragile.out("B") == ["1 ok1"], "another key flows on")
    assert fragile.out("A") == ["1 ok1"]
    assert "broken, as the test wants it" in fragile.open("A")[0].data.error

    code, output = fragile.dlq("list", "--json")
    assert code == 0
    lines = [json.loads(line) for line in output.splitlines()]
    assert [(x["key"], x["reason"]) for x in lines if x["key"] == "A"] == [
        ("A", "failed"),
        ("A", "parked"),
        ("A", "parked"),
    ]
    code, output = fragile.dlq("list")
    assert code == 0
    assert "failed" in output

    # Too early: it fails again, and the others still wait, in order.
    before = {found.data.letter_id for found in fragile.open("A")}
    code, output = fragile.dlq("retry", "A")
    assert code == 1
    assert "failed again" in output
    again = fragile.open("A")
    assert [found.data.reason for found in again] == ["failed", "parked", "parked"]
    assert not before & {found.data.letter_id for found in again}
    assert fragile.out("A") == ["1 ok1"]

    # Mended, with one more that came meanwhile.
    fragile.broken.unlink()
    fragile.send("fragile.second", "A", "ok4")
    until(lambda: len(fragile.open("A")) == 4, "the newcomer waits too")
    code, output = fragile.dlq("retry", fragile.open("A")[0].data.letter_id)
    assert (code, output) == (0, "fragile A: 4 processed\n")
    assert fragile.out("A") == ["1 ok1", "2 bad", "3 ok2", "4 ok3", "5 ok4"]
    assert fragile.open("A") == []
    fragile.send("fragile.first", "A", "ok5")
    until(lambda: fragile.out("A")[-1] == "6 ok5", "the key is free")

    # The bystander reads the same topics, and had everything once.
    until(lambda: len(fragile.out("A", "bystander.out")) == 6, "the bystander is done")
    assert {text.split()[1] for text in fragile.out("A", "bystander.out")} == {"ok1", "bad", "ok2", "ok3", "ok4", "ok5"}
    assert fragile.out("B", "bystander.out") == ["1 ok1"]


@pytest.mark.stack
def test_discarding_the_poison_frees_what_waits(fragile: Fragile) -> None:
    fragile.raw("fragile.first", b"C", b"garbage")
    fragile.send("fragile.first", "C", "ok1")
    until(lambda: fragile.reasons("C") == ["undecodable", "parked"], "poison, and one behind it")
    poison = fragile.open("C")[0]
    assert poison.data.value == b"garbage"
    code, output = fragile.dlq("discard", poison.data.letter_id, "--comment", "nobody's")
    assert (code, output) == (0, "1 discarded\n")
    assert fragile.reasons("C") == ["parked"]
    assert fragile.dlq("retry", "C") == (0, "fragile C: 1 processed\n")
    assert fragile.out("C") == ["1 ok1"]
    fragile.send("fragile.first", "C", "ok2")
    until(lambda: fragile.out("C") == ["1 ok1", "2 ok2"], "the key is free")


@pytest.mark.stack
def test_discarding_the_only_letter_frees_the_key(fragile: Fragile) -> None:
    fragile.raw("fragile.first", b"D", b"garbage")
    until(lambda: fragile.reasons("D") == ["undecodable"], "poison")
    assert fragile.dlq("discard", "D")[0] == 0
    fragile.send("fragile.first", "D", "ok1")
    until(lambda: fragile.out("D") == ["1 ok1"], "the key is free")
    assert fragile.open("D") == []


@pytest.mark.stack
def test_messages_without_key_or_value_park_nothing(fragile: Fragile) -> None:
    fragile.raw("fragile.first", None, b"garbage")
    fragile.raw("fragile.first", b"E", None)
    until(lambda: fragile.reasons(None) == ["undecodable"] == fragile.reasons("E"), "two letters")
    fragile.send("fragile.first", "E", "ok1")
    until(lambda: fragile.out("E") == ["1 ok1"], "E flows on")
    nameless = fragile.open(None)[0].data.letter_id
    code, output = fragile.dlq("retry", nameless)
    assert code == 1
    assert "undecodable again" in output
    assert fragile.dlq("discard", fragile.open(None)[0].data.letter_id)[0] == 0
    assert fragile.dlq("discard", "E")[0] == 0
    assert fragile.open(None) == [] == fragile.open("E")
    fragile.send("fragile.first", "E", "ok2")
    until(lambda: fragile.out("E") == ["1 ok1", "2 ok2"], "E still flows")


@pytest.mark.stack
def test_the_largest_message_a_topic_takes_fits_into_a_letter(fragile: Fragile) -> None:
    value = bytes(range(256)) * 4_090
    fragile.raw("fragile.first", b"F", value)
    until(lambda: fragile.reasons("F") == ["undecodable"], "a large letter")
    assert fragile.open("F")[0].data.value == value
    assert fragile.dlq("discard", "F")[0] == 0


@pytest.mark.stack
def test_what_is_no_letter_is_passed_over(fragile: Fragile) -> None:
    fragile.raw("dead.letters", b"A", b"garbage")
    fragile.raw("dead.letters", None, None)
    code, output = fragile.dlq("list", "--json")
    assert code == 0
    assert all(json.loads(line)["letter"] for line in output.splitlines())


@pytest.mark.stack
def test_a_retry_of_nothing_says_so(fragile: Fragile) -> None:
    with pytest.raises(UserError, match="no open letter"):
        fragile.dlq("retry", "no such key")
    with pytest.raises(UserError, match="--all"):
        fragile.dlq("retry")
    assert fragile.dlq("retry", "--all") == (0, "")
    assert fragile.dlq("list", "--json") == (0, "")
