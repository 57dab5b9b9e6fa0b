"""How often a processor commits: soon when there is little to do, seldom when there is more than it can do."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from runtime.streams import (
    BEHIND,
    BEHIND_COMMIT_INTERVAL,
    BUSY,
    COMMIT_INTERVAL,
    MOST_COMMIT_INTERVAL,
    Pace,
    commit_interval,
)


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


def test_the_pace_is_set_once_a_window_and_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    context, backlog, now = SimpleNamespace(commit_interval=None), [500], [0.0]
    monkeypatch.setattr("runtime.streams.time", SimpleNamespace(monotonic=lambda: now[0]))
    pace = Pace(context, lambda: backlog[0])
    pace("order.internal", 0, 1)
    assert context.commit_interval is None
    now[0] = Pace.WINDOW
    pace("order.internal", 0, 2)
    assert context.commit_interval == BEHIND_COMMIT_INTERVAL
    backlog[0], now[0] = 0, 2 * Pace.WINDOW
    pace("order.internal", 0, 3)
    assert context.commit_interval == pytest.approx(commit_interval(1 / Pace.WINDOW, 0))
