"""Whose turn it is: what is fresh goes first, and what waited does not fill the way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from device_agent.outbox import Bounds, Outbox
from device_agent.outbox.order import MOST_LIVE
from device_agent.pacing import Pace

BOUNDS = Bounds(windows=5000, size=1 << 30, age=1e9)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    """One that six windows have waited in since before this run."""
    outbox = Outbox(tmp_path / "outbox", BOUNDS)
    for _ in range(6):
        outbox.accept(b"a", 0.0, 0.0)
    outbox.close()
    outbox = Outbox(tmp_path / "outbox", BOUNDS, commit_interval=1.0)
    yield outbox
    outbox.close()


def send(outbox: Outbox, now: float, limit: int = 8, max_unanswered: int = 8, replay: int = 8) -> list[int]:
    seqs = [due.seq for due in outbox.due(now, limit, max_unanswered=max_unanswered, replay=replay)]
    outbox.mark_sent(seqs, now, 5.0)
    return seqs


def test_live_windows_go_before_the_backlog(outbox: Outbox) -> None:
    """They share no packet with it; then the backlog follows from its oldest on."""
    outbox.accept(b"live", 100.0, 100.0)
    outbox.accept(b"live", 100.5, 100.5)
    assert send(outbox, 100.6) == [7, 8]
    assert send(outbox, 100.6, limit=4) == [1, 2, 3, 4]


def test_the_backlog_leaves_room_for_what_is_live(outbox: Outbox) -> None:
    """A quarter of what may be unanswered: a live window never waits for the answer to an old one."""
    assert send(outbox, 100.0, max_unanswered=4) == [1, 2, 3]
    assert (send(outbox, 100.0, max_unanswered=4), outbox.next_due(100.0)) == ([], 5.0)
    outbox.accept(b"live", 100.0, 100.0)
    assert outbox.next_due(100.0) == 0.001
    assert send(outbox, 100.0, max_unanswered=4) == [7]
    assert send(outbox, 105.0, max_unanswered=4) == [1, 2, 3, 7]  # again, since nobody answered


def test_what_waits_too_long_joins_the_backlog(outbox: Outbox) -> None:
    """At its end, in its order; and while nothing is sent at all, it is not kept in memory."""
    outbox.accept(b"live", 100.0, 100.0)
    assert send(outbox, 101.5, limit=9, max_unanswered=99, replay=9) == [1, 2, 3, 4, 5, 6, 7]
    for _ in range(2 * MOST_LIVE):
        outbox.accept(b"live", 200.0, 200.0)
    assert len(outbox._order._live) == MOST_LIVE
    assert send(outbox, 200.0, limit=1)[0] == 8 + MOST_LIVE


def test_the_backlog_may_be_held_back(outbox: Outbox) -> None:
    """By its pace; what is sent again is not, as it takes no more room."""
    assert send(outbox, 0.0, replay=2) == [1, 2]
    assert (send(outbox, 0.0, replay=0), outbox.next_due(0.0, replay_in=3.0)) == ([], 3.0)
    assert send(outbox, 5.0, replay=0) == [1, 2]


# -- its pace -------------------------------------------------------------------------
def test_a_free_edge_and_no_setting_pace_nothing() -> None:
    """What limits it then is how much may be unanswered."""
    pace = Pace(0.0)
    pace.sent(8, 8, 0.0, 10.0)
    assert (pace.wait(10.0), pace.replay_wait(10.0), pace.replay(8, 0.0, 10.0)) == (0.0, 0.0, 8)


def test_the_backlog_keeps_its_rate() -> None:
    """Live windows pass by it."""
    pace = Pace(2.0)
    assert pace.replay(8, 0.0, 10.0) == 2
    pace.sent(2, 2, 0.0, 10.0)
    assert (pace.wait(10.0), pace.replay_wait(10.0), pace.replay(8, 0.0, 10.5)) == (0.0, 1.0, 0)
    pace.sent(1, 0, 0.0, 10.5)
    assert (pace.replay_wait(11.0), pace.replay(8, 0.0, 11.0)) == (0.0, 2)


def test_a_busy_edge_gives_the_backlog_half_of_its_rate() -> None:
    """The other half is for what is live; and one packet of backlog does not use up seconds of it."""
    pace = Pace(100.0)
    assert [pace.replay(8, rate, 10.0) for rate in (1.0, 4.0, 40.0)] == [1, 2, 8]
    pace.sent(2, 2, 4.0, 10.0)
    assert (pace.wait(10.0), pace.replay_wait(10.0)) == (0.5, 1.0)
