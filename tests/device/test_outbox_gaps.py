"""Gaps: the edge hears of each seq that will not come, in its turn, until it has said that it knows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from device_agent.outbox import Bounds, Outbox, gaps

BOUNDS = Bounds(windows=100, size=1 << 30, age=1e9)
Told = list[tuple[int, int, dict[str, int]]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox"


@pytest.fixture
def outbox(path: Path) -> Iterator[Outbox]:
    """One with ten windows."""
    outbox = Outbox(path, BOUNDS)
    for _ in range(10):
        outbox.accept(b"a", 0.0, 0.0)
    yield outbox
    outbox.close()


def tell(outbox: Outbox, now: float = 0.0, limit: int = 9) -> Told:
    gaps = outbox.gaps_due(now, limit)
    outbox.mark_told(gaps, now, 5.0)
    return [(gap.first, gap.last, gap.shed) for gap in gaps]


def leave(outbox: Outbox, how: str, *seqs: int) -> None:
    for seq in seqs:
        outbox.free(seq, how)  # type: ignore[arg-type]


def test_neighbours_are_one_gap_whatever_the_reason(outbox: Outbox) -> None:
    """Each reason with its count; what was answered is no gap."""
    leave(outbox, "link", 1, 3)
    leave(outbox, "kept", 5)
    leave(outbox, "expired", 2)
    leave(outbox, "answered", 4, 6, 7, 8, 9, 10)
    assert tell(outbox) == [(1, 3, {"link": 2, "expired": 1}), (5, 5, {"kept": 1})]


def test_it_is_told_until_it_is_noted(path: Path, outbox: Outbox) -> None:
    """After silence, after a reconnect and after a restart; then never again."""
    leave(outbox, "link", 1, 2)
    assert (len(tell(outbox)), tell(outbox, 4.9), len(tell(outbox, 5.0))) == (1, [], 1)
    outbox.reset_sent()
    assert len(tell(outbox, 6.0)) == 1
    outbox.close()
    outbox = Outbox(path, BOUNDS)
    assert tell(outbox) == [(1, 2, {"link": 2})]
    outbox.noted([(1, 2)])
    assert (tell(outbox, 100.0), outbox.gaps) == ([], 0)
    outbox.close()


def test_a_gap_that_was_told_does_not_grow(outbox: Outbox) -> None:
    """Its receipt would else free what was never told; nor does a receipt of another run's, shorter one."""
    leave(outbox, "link", 1, 2)
    tell(outbox)
    leave(outbox, "link", 3)
    assert tell(outbox) == [(3, 3, {"link": 1})]
    outbox.noted([(1, 1), (3, 4)])
    assert outbox.gaps == 2


def test_what_lies_within_the_backlog_is_told_in_its_turn(outbox: Outbox) -> None:
    """The edge sees seqs nearly in order, so it can remember them as a few ranges."""
    leave(outbox, "link", 1, 5)
    assert tell(outbox, 10.0) == [(1, 1, {"link": 1})]
    outbox.due(10.0, 9, max_unanswered=99)
    outbox.mark_sent([2, 3, 4], 10.0, 5.0)
    assert tell(outbox, 10.0) == [(5, 5, {"link": 1})]


def test_one_among_live_windows_is_told_at_once(outbox: Outbox) -> None:
    """However much backlog waits before it."""
    live = [outbox.accept(b"a", 10.0, 10.0) for _ in range(2)]
    leave(outbox, "kept", live[0] or 0)
    outbox.due(10.0, 9, max_unanswered=99)
    assert tell(outbox, 10.0) == [(11, 11, {"kept": 1})]


def test_the_backlog_waits_for_the_gaps_before_it(outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """More gaps than a packet holds, or than may be under way: windows must not overtake them."""
    monkeypatch.setattr(gaps, "MOST_TOLD", 3)
    leave(outbox, "link", 1, 3, 5, 7)
    leave(outbox, "answered", 2, 4, 6, 8, 9, 10)
    assert [(len(tell(outbox, limit=2)), outbox.gaps_are_behind) for _ in range(3)] == [(2, True), (1, True), (0, True)]
    outbox.noted([(1, 1), (3, 3), (5, 5)])
    assert (len(tell(outbox)), outbox.gaps_are_behind) == (1, False)


def test_settled_is_what_needs_no_more_word(outbox: Outbox) -> None:
    """Neither a window that waits nor a gap that is not noted lies below."""
    assert outbox.settled() == 1
    leave(outbox, "answered", 1, 2)
    leave(outbox, "link", 3)
    leave(outbox, "answered", *range(4, 11))
    assert outbox.settled() == 3
    tell(outbox)
    outbox.noted([(3, 3)])
    assert outbox.settled() == 11


def test_their_number_is_bounded(path: Path, outbox: Outbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edge that never says that it knows costs the oldest of them, and their windows are counted."""
    monkeypatch.setattr("device_agent.outbox.outbox.MORE_GAPS", 0)
    outbox.close()
    outbox = Outbox(path, replace(BOUNDS, windows=12))
    for _ in range(30):
        leave(outbox, "link", outbox.accept(b"a", 0.0, 0.0) or 0)
        leave(outbox, "answered", outbox.accept(b"a", 0.0, 0.0) or 0)
    assert (outbox.gaps, outbox.untold) == (12, 18)
    outbox.close()
