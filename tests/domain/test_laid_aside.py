"""The end of an imported order's history waits in the state, as it came, until something happens to that order."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import copy_context
from datetime import UTC, datetime
from typing import Any

import pytest
from quixstreams.context import set_message_context
from quixstreams.models.messagecontext import MessageContext

from processors.kit import Incoming, Outgoing, State
from runtime import kafka
from runtime.streams import Runner
from schemas import events as e
from schemas.base import Event
from schemas.codec import decode, encode
from tests.support.examples import ORDER, imported

KEY = ORDER.encode()
LONG_AGO, NOW = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 1, 2, 0, 0, 0, 1000, tzinfo=UTC)
RETRIED = [("oms-dlq-" + name, b"1") for name in ("letter", "batch", "count", "last")] + [("oms-dlq-processor", b"one")]

END = imported(4, e.OrderImported(source="old", external_id="4711"))
LATER = imported(5, e.OrderSurveyAnswered(score=5), imported=False)
LAST = imported(6, e.OrderSurveyAnswered(score=1), imported=False)


class Store(dict[str, bytes]):
    """State as quixstreams has it."""

    get_bytes = dict.get

    def delete(self, key: str) -> None:
        self.pop(key, None)

    def set_bytes(self, key: str, value: bytes, ttl: object = None) -> None:
        self[key] = value


class Processor:
    """Keeps how much it has heard; fails while it is `ill`."""

    def __init__(self, **how: Any) -> None:
        self.heard: list[tuple[str, Any, datetime]] = []
        self.store = Store()
        self.ill = False
        self.runner = Runner("one", self._handle, ["order.internal"], **{"lays_aside": True, **how})

    def _handle(self, state: State, incoming: Incoming) -> Iterable[Outgoing]:
        if self.ill:
            raise RuntimeError("a bug")
        assert state.get("heard", 0) == len(self.heard)
        self.heard.append((incoming.topic, incoming.message, incoming.appended_at))
        state.set("heard", len(self.heard))
        return [Outgoing("order.internal", incoming.key, incoming.message)]

    def reads(self, message: Event[Any], at: datetime = NOW, more: Iterable[tuple[str, bytes]] = ()) -> list[Any]:
        headers = [*kafka.headers(message), *more]
        return copy_context().run(self._reads, "order.events", message, at, headers)

    def _reads(self, topic: str, message: Event[Any], at: datetime, headers: Any) -> list[Any]:
        set_message_context(MessageContext(topic, 0, 1, 1))
        records = self.runner(encode(message), KEY, int(at.timestamp() * 1000), headers, self.store)
        return [decode(record.value) for record in records]

    @property
    def messages(self) -> list[Any]:
        return [message for _, message, _ in self.heard]


def test_it_is_handled_before_the_next_message_and_once() -> None:
    saga = Processor()
    assert saga.reads(END, LONG_AGO) == []
    assert saga.heard == []
    assert saga.reads(LATER) == [END, LATER], "what both lead to is written"
    assert saga.heard == [("order.events", END, LONG_AGO), ("order.events", LATER, NOW)]
    assert list(saga.store) == ["heard"], "and nothing is left of it"
    saga.reads(LAST)
    assert saga.messages == [END, LATER, LAST]


def test_a_processor_that_reads_each_event_has_none_laid_aside() -> None:
    saga = Processor(lays_aside=False)
    saga.reads(END)
    assert saga.messages == [END]


def test_what_fails_later_is_there_for_the_retry() -> None:
    saga = Processor(parks=False)
    saga.reads(END)
    saga.ill = True
    (letter,) = saga.reads(LATER)
    assert letter.data.reason == "failed"
    saga.ill = False
    saga.reads(LATER, more=RETRIED)
    assert saga.messages == [END, LATER]


def test_behind_a_dead_letter_it_is_parked_like_any_other_and_handled_when_it_is_retried() -> None:
    saga = Processor()
    saga.ill = True
    assert saga.reads(LATER)[0].data.reason == "failed"
    saga.ill = False
    (letter,) = saga.reads(END)
    assert letter.data.reason == "parked"
    saga.reads(END, more=RETRIED)
    assert saga.messages == [END]


@pytest.mark.parametrize("headers", [None, [], [("ce_id", b"1")]])
def test_what_has_no_such_header_is_handled_at_once(headers: Any) -> None:
    saga = Processor()
    copy_context().run(saga._reads, "order.events", END, NOW, headers)
    assert saga.messages == [END]
