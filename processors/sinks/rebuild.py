"""Views made anew from the topics, beside the live ones: fill, compare, swap, top up.

The sink goes on writing the live tables and queries go on reading them. After the swap a view lacks, for the blink
until it is topped up, what the sink wrote in the blink before; everything else is in. A rebuild that is killed is taken
up by the next one, wherever it was (`beside`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from analytics.clickhouse import connect
from analytics.migrate import migrate
from runtime import kafka
from runtime.errors import UserError
from runtime.settings import Settings
from runtime.topology import load

from . import progress, sharing
from .beside import Beside
from .comparing import Comparison, Difference
from .filling import Filling
from .later import Ends
from .views import VIEWS

SLACK = 5.0
"""Seconds that our clock and the broker's differ at most: what is younger may be in one of the tables only as yet."""
ROUNDS = 10
"""Looks, a second apart, at rows that change all the time."""
PATIENCE = 30.0
"""Seconds that the sink has to get as far as we have read."""
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Position:
    """How far the filling is. messages: read in this run; done, total: offsets (some hold no message)."""

    views: str
    messages: int
    done: int
    total: int


Say = Callable[[str], None]
Told = Callable[[Position], None]


@dataclass(frozen=True, slots=True)
class _Ends:
    """Where topics ended, asked for at `at` (seconds since 1970): whatever is older lies before."""

    at: float
    offsets: Ends
    ids: dict[str, str]
    empty: frozenset[tuple[str, int]]
    """Partitions without a message."""

    @property
    def settled(self) -> float:
        """Milliseconds since 1970: what is older is in both tables, if it is to be in any."""
        return (self.at - SLACK) * 1000


class Rebuild:
    """`say` gets a sentence for each thing done, `told` where the filling is. `lock`: a file descriptor that whoever
    writes for this rebuild holds."""

    def __init__(self, settings: Settings, say: Say, told: Told, lock: int) -> None:
        self._settings = settings
        self._say = say
        self._told = told
        self._lock = lock
        self._client = connect(settings)
        self._admin = kafka.admin(settings)

    def run(self, names: Iterable[str], force: bool = False, afresh: bool = False, processes: int = 1) -> None:
        """Make these views anew, in one reading of their topics. `force`: swap whatever the comparison says. `afresh`:
        throw away what an earlier rebuild has filled. `processes`: so many fill; the rest is one's work.

        Raises:
            UserError: a new table is not as the live one (that one was not swapped), or the sink doesn't keep up.
            KafkaException, clickhouse_connect.driver.exceptions.Error, KeysAway, ChildProcessError: run it again.
        """
        migrate(self._client)
        sides = [Beside(self._client, VIEWS[name]) for name in names]
        if cut_short := [side for side in sides if side.state() == "swapped"]:
            with self._filling(cut_short) as filling:
                self._top_up(filling, cut_short, cut_short)
        sides = [side for side in sides if side not in cut_short]
        if not sides:
            return
        for side in sides:
            side.drop_if_outdated()
            if afresh:
                side.empty()
            if side.state() == "none":
                side.begin()
        began = time.monotonic()
        read, skipped = self._fill_shared(sides, processes) if processes > 1 else (0, 0)
        with self._filling(sides) as filling:
            filling.read, filling.skipped = read, skipped
            ends = self._fill(filling, sides)
            seconds = time.monotonic() - began
            self._say(f"read {filling.read:,} messages in {seconds:.1f} s ({filling.read / seconds:,.0f}/s)")
            if force:
                self._say("not compared, as you wish")
            if filling.skipped:
                self._say(f"{filling.skipped:,} of them can't be rows: `oms dlq list` has them")
            faults = {} if force else self._compare_all(filling, sides, ends)
            good = [side for side in sides if side.view.name not in faults]
            self._fill(filling, sides)  # comparing took its time
            for side in good:
                side.swap()
            self._top_up(filling, sides, good)
        if faults:
            raise UserError("\n".join(faults.values()))

    def drop_old(self, names: Iterable[str]) -> None:
        """The tables that rebuilds have left."""
        for name in names:
            side = Beside(self._client, VIEWS[name])
            self._say(f"{name}: {side.old} is dropped" if side.has_old() else f"{name}: there is no {side.old}")
            side.drop_old()

    def close(self) -> None:
        self._client.close()

    # Filling

    def _fill_shared(self, sides: Sequence[Beside], processes: int) -> tuple[int, int]:
        """The long part of it, by several processes: (messages read, those of them that can't be rows)."""
        starts, ids = self._starts(sides)
        ends = self._ends(sides).offsets
        work = sharing.Work(
            self._settings, [s.view.name for s in sides], self._sinks(sides), ids, _targets(sides), starts, ends
        )
        return sharing.fill(work, processes, self._lock, self._telling(sides, starts, ends))

    @contextmanager
    def _filling(self, sides: Sequence[Beside]) -> Iterator[Filling]:
        filling = Filling(self._settings, [side.view for side in sides], self._sinks(sides))
        try:
            filling.begin(*self._starts(sides))
            yield filling
        finally:
            filling.close()

    def _fill(self, filling: Filling, sides: Sequence[Beside], swapped: Collection[Beside] = ()) -> _Ends:
        """To where the topics end now."""
        ends = self._ends(sides)
        told = self._telling(sides, dict(filling.positions), ends.offsets)
        filling.fill(ends.offsets, _targets(sides, swapped), lambda: told(filling.positions, filling.read))
        return ends

    def _telling(self, sides: Sequence[Beside], starts: Ends, ends: Ends) -> Callable[[Ends, int], None]:
        """What tells how far it is, of where each partition is now and of the messages read."""
        views = ", ".join(side.view.name for side in sides)
        total = sum(end - starts[at] for at, end in ends.items())

        def told(positions: Ends, read: int) -> None:
            done = sum(min(positions[at], end) - starts[at] for at, end in ends.items())
            self._told(Position(views, read, done, total))

        return told

    def _starts(self, sides: Sequence[Beside]) -> tuple[Ends, dict[str, str]]:
        """(where each partition is to be read from, the topics' ids)"""
        ids: dict[str, str] = {}
        starts: Ends = {}
        for name in _topics(sides):
            topic = progress.look_at(self._admin, name)
            ids[name] = topic.id
            wanted = [side.progress for side in sides if name in side.view.sources]
            starts |= {(name, at): offset for at, offset in progress.starts(self._client, wanted, topic).items()}
        return starts, ids

    def _sinks(self, sides: Sequence[Beside]) -> list[str]:
        """Who fills the live tables."""
        names = {side.view.name for side in sides}
        return [sink.name for sink in load(self._settings.topology).sinks.values() if names & {*sink.views}]

    def _top_up(self, filling: Filling, sides: Sequence[Beside], swapped: Sequence[Beside]) -> None:
        """After the swap of some of them: what the sink wrote to their old tables last, and the end."""
        self._fill(filling, sides, swapped)
        for side in swapped:
            side.end()
            kept = f"is {side.old}" if side.has_old() else "is gone, as it held personal data"
            self._say(f"{side.view.name}: swapped; the old table {kept}")

    def _ends(self, sides: Sequence[Beside]) -> _Ends:
        now = time.time()
        topics = [progress.look_at(self._admin, name) for name in _topics(sides)]
        return _Ends(
            now,
            {(topic.name, part): end for topic in topics for part, (_, end) in topic.ends.items()},
            {topic.name: topic.id for topic in topics},
            frozenset((t.name, part) for t in topics for part, (first, end) in t.ends.items() if first == end),
        )

    # Comparing

    def _compare_all(self, filling: Filling, sides: Sequence[Beside], ends: _Ends) -> dict[str, str]:
        """What is wrong with new tables, by view."""
        found = {side.view.name: self._compare(filling, sides, side, ends) for side in sides}
        return {name: fault for name, fault in found.items() if fault is not None}

    def _compare(self, filling: Filling, sides: Sequence[Beside], side: Beside, ends: _Ends) -> str | None:
        """What is wrong with the new table, in a sentence; None when it may be the live one."""
        self._await_sink(side, ends)
        unfilled: set[str] = set()
        while True:
            comparison = Comparison(self._client, side.view, side.new, sorted(unfilled))
            rows, buckets = comparison.suspects()
            for _ in range(ROUNDS):
                found = comparison.differences(buckets, ends.settled)
                old = [one for one in found if one.appended_at < ends.settled]
                if old or not found:
                    break
                # Young ones: the sink has read on, or we have.
                time.sleep(1)
                ends = self._fill(filling, sides)
                self._await_sink(side, ends)
            if not old:
                break
            differ, fresh = comparison.columns(buckets, ends.settled)
            if not fresh:
                return _fault(side, old, sorted(differ))
            unfilled |= fresh
        name = side.view.name
        busy = f"; {len(found):,} that change all the time were not compared" if found else ""
        self._say(f"{name}: {rows:,} rows, the same as in the live table{busy}")
        if unfilled:
            columns = ", ".join(sorted(unfilled))
            self._say(f"{name}: not compared, because empty in the live table, as a migration leaves them: {columns}")
        return None

    def _await_sink(self, side: Beside, ends: _Ends) -> None:
        """Until the live table has everything before these offsets, so that what it has not is a difference."""
        deadline = time.monotonic() + PATIENCE
        wanted = {at: end for at, end in ends.offsets.items() if at[0] in side.view.sources and at not in ends.empty}
        while True:
            reached = progress.reached(self._client, side.view.name)
            behind = sum(
                max(0, end - reached.get((topic, ends.ids[topic], part), 0)) for (topic, part), end in wanted.items()
            )
            if not behind:
                return
            if time.monotonic() > deadline:
                raise UserError(
                    f"The live table of {side.view.name} is {behind:,} messages behind the topics, so that it can't be "
                    f"compared: is its sink running? `oms rebuild {side.view.name} --force` swaps without comparing."
                )
            time.sleep(0.2)


def _targets(sides: Iterable[Beside], swapped: Collection[Beside] = ()) -> dict[str, tuple[str, str]]:
    """As `Filling.fill` takes them. The new table of a view that has been swapped is the live one."""
    return {side.view.name: (side.live if side in swapped else side.new, side.progress) for side in sides}


def _topics(sides: Iterable[Beside]) -> list[str]:
    return sorted({topic for side in sides for topic in side.view.sources})


def _fault(side: Beside, found: Sequence[Difference], columns: Sequence[str]) -> str:
    both = [one for one in found if one.in_live and one.in_new]
    live = [one for one in found if not one.in_new]
    new = [one for one in found if not one.in_live]
    parts = [
        f"{len(ones):,} rows {what}, such as {'; '.join(' '.join(one.key) for one in ones[:_SHOWN])}"
        for ones, what in (
            (both, f"differ in {', '.join(columns)}"),
            (live, f"are in {side.live} only"),
            (new, f"are in {side.new} only"),
        )
        if ones
    ]
    name = side.view.name
    return (
        f"{name}: {' and '.join(parts)}. It was not swapped. If the new table is the right one, "
        f"`oms rebuild {name} --force`; to fill it once more from the beginning, `oms rebuild {name} --afresh`."
    )
