"""A filling shared among processes, as one interpreter keeps but one core busy: each reads some of the partitions,
writes their rows and puts on record how far it has come.

None outlives the rebuild that started it: when one of them fails, that one stops the others; when it is killed itself,
they see their pipes end. Each holds the rebuild's lock as long as it lives, so that no other one begins beside it.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

from clickhouse_connect.driver.exceptions import Error
from confluent_kafka import KafkaException

from runtime.errors import UserError
from runtime.settings import Settings

from .filling import Filling
from .later import Ends
from .opening import KeysAway
from .views import VIEWS

_PROGRAM = "processors.sinks.sharing"


@dataclass(frozen=True, slots=True)
class Work:
    """What a `Filling` is made with, and what it is to fill."""

    settings: Settings
    views: Sequence[str]
    sinks: Sequence[str]
    topic_ids: Mapping[str, str]
    targets: Mapping[str, tuple[str, str]]
    starts: Ends
    ends: Ends


def shares(work: Work, processes: int) -> list[Work]:
    """The partitions that have something to read, dealt out: the longest first, to whoever has least by then."""
    left = {at: work.ends[at] - start for at, start in work.starts.items() if start < work.ends[at]}
    hands: list[list[tuple[str, int]]] = [[] for _ in range(min(processes, len(left)))]
    for at in sorted(left, key=lambda at: -left[at]):
        min(hands, key=lambda hand: sum(left[one] for one in hand)).append(at)
    return [
        replace(work, starts={at: work.starts[at] for at in hand}, ends={at: work.ends[at] for at in hand})
        for hand in hands
    ]


def fill(work: Work, processes: int, lock: int, told: Callable[[Ends, int], None]) -> tuple[int, int]:
    """(messages read, those of them that can't be rows), by so many processes or as many as have something to read.
    `lock`: a file descriptor that they hold, too. `told`: positions and messages read, now and then.

    Raises:
        ChildProcessError: one of them did not get to its end; what has been written is on record.
    """
    positions = dict(work.starts)
    counts: dict[Connection, tuple[int, int]] = {}
    with ExitStack() as running:
        left = dict(running.enter_context(_started(share, lock)) for share in shares(work, processes))
        while left:
            ready: list[Any] = wait(left)
            for connection in ready:
                try:
                    heard = connection.recv()
                except (EOFError, ConnectionResetError):
                    if code := left.pop(connection).wait():
                        raise ChildProcessError(f"one of its processes ended with {code}") from None
                    continue
                if isinstance(heard, str):
                    raise ChildProcessError(heard)
                reached, read, skipped = heard
                positions |= reached
                counts[connection] = read, skipped
                told(positions, sum(read for read, _ in counts.values()))
    return sum(read for read, _ in counts.values()), sum(skipped for _, skipped in counts.values())


@contextmanager
def _started(work: Work, lock: int) -> Iterator[tuple[Connection, subprocess.Popen[bytes]]]:
    """A process at work, and where it reports; after the block it is gone."""
    ours, theirs = Pipe()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", _PROGRAM, str(theirs.fileno())],
            pass_fds=(theirs.fileno(), lock),
            process_group=0,  # Ctrl-C is for the one that started it
        )
        try:
            theirs.close()  # so that its end is the end of what there is to hear
            ours.send(work)
            yield ours, process
        finally:
            process.kill()
            process.wait()


def main() -> None:
    """Be one of them."""
    gc.disable()  # as in `rebuild_cli`
    connection: Connection = Connection(int(sys.argv[1]))
    work: Work = connection.recv()
    threading.Thread(target=_end_with, args=[connection], daemon=True).start()
    try:
        with closing(Filling(work.settings, [VIEWS[name] for name in work.views], work.sinks)) as filling:
            filling.begin(work.starts, work.topic_ids)
            filling.fill(
                work.ends,
                work.targets,
                lambda: connection.send((filling.positions, filling.read, filling.skipped)),
            )
    except (UserError, Error, KafkaException, KeysAway, OSError) as error:
        connection.send(str(error))
        sys.exit(1)


def _end_with(connection: Connection) -> None:
    """The rebuild says nothing more; when its side is closed, it is gone."""
    connection.poll(None)
    os._exit(1)


if __name__ == "__main__":
    main()
