"""How often a processor commits: soon when there is little to do, seldom when there is more than it can do."""

from __future__ import annotations

from contextvars import copy_context
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest
from quixstreams.checkpointing.checkpoint import BaseCheckpoint
from quixstreams.context import set_message_context
from quixstreams.models.messagecontext import MessageContext

from processors.kit import Handler, Incoming, Outgoing, State
from runtime.streams import (
    BEHIND,
    BEHIND_COMMIT_INTERVAL,
    BUSY,
    COMMIT_INTERVAL,
    MOST_COMMIT_INTERVAL,
    UNHURRIED,
    Pace,
    Runner,
    commit_interval,
)
from schemas.base import Message
from schemas.codec import encode
from schemas.timers import Tick


@pytest.mark.parametrize(
    ("rate", "lag", "seconds"),
    [
        (0, 0, COMMIT_INTERVAL),
        (0, BEHIND, COMMIT_INTERVAL),
        (BUSY / 2, 0, (COMMIT_INTERVAL + MOST_COMMIT_INTERVAL) / 2),
        (BUSY, 0, MOST_COMMIT_INTERVAL),
        (10 * BUSY, BUSY, MOST_COMMIT_INTERVAL),  # a tenth of a second's work: a burst from somebody who commits seldom
        (50, BEHIND + 1, BEHIND_COMMIT_INTERVAL),
        (BUSY, BUSY + 1, BEHIND_COMMIT_INTERVAL),
    ],
)
def test_the_interval_follows_from_rate_and_backlog(rate: float, lag: int, seconds: float) -> None:
    assert commit_interval(rate, lag) == pytest.approx(seconds)


class Open(BaseCheckpoint):
    """The library's own, as far as it says when it is over."""

    def close(self) -> None: ...

    def commit(self) -> None: ...


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    for module in ("runtime.streams", "quixstreams.checkpointing.checkpoint"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_a_transaction_ends_soon_after_its_first_message_and_else_takes_its_time(clock: list[float]) -> None:
    context, runner = SimpleNamespace(checkpoint=Open(UNHURRIED)), SimpleNamespace(wrote=False)
    pace = Pace(context, runner, lambda: 0)
    clock[0] += 0.5
    pace("order.internal", 0, 1)
    assert not context.checkpoint.expired(), "nothing was written, so nobody waits"
    runner.wrote = True
    pace("order.internal", 0, 2)
    pace("order.internal", 0, 3)
    clock[0] += COMMIT_INTERVAL / 2
    assert not context.checkpoint.expired(), "others may come"
    runner.wrote = True
    pace("order.internal", 0, 4)
    clock[0] += COMMIT_INTERVAL / 2 + 0.001
    assert context.checkpoint.expired(), "the first that wrote waits for the others no longer than this"
    context.checkpoint = Open(UNHURRIED)
    pace("order.internal", 0, 5)
    clock[0] += 0.9
    assert not context.checkpoint.expired(), "what the transaction before wrote is over with it"
    clock[0] += 0.2
    assert context.checkpoint.expired(), "how far was read is said at last"


def test_a_backlog_lets_the_transaction_grow(clock: list[float]) -> None:
    backlog = [500]
    context, runner = SimpleNamespace(checkpoint=Open(UNHURRIED)), SimpleNamespace(wrote=False)
    pace = Pace(context, runner, lambda: backlog[0])
    for seconds in (BEHIND_COMMIT_INTERVAL, commit_interval(1 / Pace.WINDOW, 0)):
        clock[0] += Pace.WINDOW
        context.checkpoint, runner.wrote = Open(UNHURRIED), True
        pace("order.internal", 0, 1)
        clock[0] += seconds - 0.001
        assert not context.checkpoint.expired()
        clock[0] += 0.002
        assert context.checkpoint.expired()
        backlog[0] = 0
        clock[0] = round(clock[0]) + 1.0
        pace._since, pace._count = clock[0], 0


def _nothing(state: State, incoming: Incoming) -> list[Outgoing]:
    return []


def _state(state: State, incoming: Incoming) -> list[Outgoing]:
    state.set("seen", 1)
    return []


def _message(state: State, incoming: Incoming) -> list[Outgoing]:
    return [Outgoing("order.internal", incoming.key, incoming.message)]


@pytest.mark.parametrize(("handler", "wrote"), [(_nothing, False), (_state, False), (_message, True)])
def test_the_runner_knows_whether_somebody_waits_for_the_transaction(handler: Handler, wrote: bool) -> None:
    runner = Runner("timers", handler, ["order.internal"])
    tick: Message[Tick] = Message(
        id="1", at=datetime.now(UTC), actor="system:timers", correlation_id="ticks", data=Tick(source="timers-0")
    )
    copy_context().run(_handle, runner, encode(tick))
    assert runner.wrote is wrote


def test_a_dead_letter_is_written_too() -> None:
    runner = Runner("timers", _nothing, [])
    copy_context().run(_handle, runner, b"no message")
    assert runner.wrote


def _handle(runner: Runner, value: bytes) -> None:
    set_message_context(MessageContext("timer.ticks", 0, 1, 1))
    runner(value, b"0", 0, None, Store())


class Store:
    """State as quixstreams has it."""

    def __init__(self) -> None:
        self.entries: dict[str, bytes] = {}

    def get_bytes(self, key: str) -> bytes | None:
        return self.entries.get(key)

    def set_bytes(self, key: str, value: bytes, ttl: object = None) -> None:
        self.entries[key] = value
