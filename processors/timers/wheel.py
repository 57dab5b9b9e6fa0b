"""A timing wheel in Kafka-native state: pending timers of one shard, found by when they are due.

Pure; time is only what the messages say. What lies under a shard's key, with s a *slot* (a quarter of a second,
counted from 1970):

    timer/ID        the timer itself: its slot, and what it fires
    bucket/S        how many ids there are in the bucket of slot S
    chunk/S/N       ids CHUNK·N … of that bucket, at most CHUNK of them
    index/LEVEL/P   32 bits: which of the 32 parts of P hold a bucket; level 1 points at slots, each next level at
                    32 times as much, and the highest is one entry

So no value grows with the number of timers, setting one touches a handful of entries, and the earliest bucket is
found by walking down the index, however long the shard was idle. An id in a bucket is only a hint: a timer fires
when its own entry still names that slot, so moving or cancelling one leaves the hint behind, to be skipped.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from pydantic import Field

from processors.kit import State
from schemas.base import Model
from schemas.timers import SetTimer

SLOT = timedelta(milliseconds=250)
CHUNK = 100

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BITS = 5
_LEVELS = 8  # 32 ** 8 slots: past the year 9999, where datetime ends


class Timer(Model):
    """A pending timer: the command that set it, with what its fire copies from that command's envelope."""

    shape: int = Field(default=1, description="of this state entry; a change ships an upcaster")
    slot: int
    command: SetTimer
    message_id: str
    order_id: str
    correlation_id: str


def slot_of(due_at: datetime) -> int:
    """The first slot that does not begin before `due_at`, so that nothing fires early."""
    return max(0, -((_EPOCH - due_at) // SLOT))


def put(state: State, timer: Timer) -> None:
    """Set a timer, or move it when it is set already. `timer.slot` must be `slot_of` its due time."""
    timer_id = timer.command.timer_id
    pending = state.get(_timer(timer_id))
    state.set(_timer(timer_id), timer.model_dump(mode="json"))
    if pending is None or pending["slot"] != timer.slot:
        _append(state, timer.slot, timer_id)


def remove(state: State, timer_id: str) -> None:
    """Cancel a timer; one that is not set (any more) is no error."""
    state.delete(_timer(timer_id))


def take_due(state: State, now: datetime, *, most: int, effort: int) -> tuple[list[Timer], bool]:
    """Take out timers that are due at `now`, earliest slots first.

    At most `most` of them, and no further once `effort` is spent: 1 for an id that was looked at, 10 for a bucket.
    The second part of the answer says whether there may be more.
    """
    due: list[Timer] = []
    now_slot = (now - _EPOCH) // SLOT
    while (slot := _earliest(state)) is not None and slot <= now_slot:
        if len(due) >= most or effort <= 0:
            return due, True
        timer_ids = _pop(state, slot, min(CHUNK, most - len(due)))
        effort -= 10 + len(timer_ids)
        for timer_id in timer_ids:
            found = state.get(_timer(timer_id))
            if found is not None and found["slot"] == slot:
                state.delete(_timer(timer_id))
                due.append(Timer.model_validate(found))
    return due, False


def _append(state: State, slot: int, timer_id: str) -> None:
    count = state.get(_bucket(slot), 0)
    chunk = _chunk(slot, count // CHUNK)
    state.set(chunk, [*state.get(chunk, []), timer_id])
    state.set(_bucket(slot), count + 1)
    if count == 0:
        _mark(state, slot)


def _pop(state: State, slot: int, most: int) -> list[str]:
    """Take ids out of the last chunk of a bucket; an empty bucket is removed."""
    count = state.get(_bucket(slot))
    chunk = _chunk(slot, (count - 1) // CHUNK)
    ids = state.get(chunk)
    kept, taken = ids[:-most], ids[-most:]
    if kept:
        state.set(chunk, kept)
    else:
        state.delete(chunk)
    if count > len(taken):
        state.set(_bucket(slot), count - len(taken))
    else:
        state.delete(_bucket(slot))
        _unmark(state, slot)
    return list(taken)


def _mark(state: State, slot: int) -> None:
    for level in range(1, _LEVELS + 1):
        slot, part = slot >> _BITS, slot & 31
        bits = state.get(_index(level, slot), 0)
        state.set(_index(level, slot), bits | 1 << part)
        if bits:
            return


def _unmark(state: State, slot: int) -> None:
    for level in range(1, _LEVELS + 1):
        slot, part = slot >> _BITS, slot & 31
        bits = state.get(_index(level, slot), 0) & ~(1 << part)
        if bits:
            state.set(_index(level, slot), bits)
            return
        state.delete(_index(level, slot))


def _earliest(state: State) -> int | None:
    slot = 0
    for level in range(_LEVELS, 0, -1):
        bits = state.get(_index(level, slot), 0)
        if not bits:
            return None
        slot = slot << _BITS | (bits & -bits).bit_length() - 1
    return slot


def _timer(timer_id: str) -> str:
    return f"timer/{timer_id}"


def _bucket(slot: int) -> str:
    return f"bucket/{slot}"


def _chunk(slot: int, number: int) -> str:
    return f"chunk/{slot}/{number}"


def _index(level: int, prefix: int) -> str:
    return f"index/{level}/{prefix}"
