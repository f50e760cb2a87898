"""48 hours without the edge at a window a second, in seconds: bounds, gaps, the way back, against an edge's books."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from device_agent.outbox import Bounds, Due, Outbox
from device_agent.outbox.bounds import WhenFull
from edge_gateway.dedup import DedupWindow

HOURS = 3600
OFFLINE = 48 * HOURS  # windows, one a second
RECORD = bytes(120)
BOUNDS = Bounds(windows=20_000, size=len(RECORD) * 19_000, age=30 * HOURS)
UNANSWERED = 32


class Edge:
    """An edge's books of one device, beside a list of what it inferred."""

    def __init__(self) -> None:
        self.books = DedupWindow(remembered=64)
        self.inferred: list[int] = []

    def take(self, outbox: Outbox, due: list[Due], now: float) -> None:
        """One packet: gaps with their receipt, what is settled, windows with their answers."""
        gaps = outbox.gaps_due(now, 64)
        outbox.mark_told(gaps, now, 5.0)
        for gap in gaps:
            self.books.tell(outbox.epoch, gap)
        live = due[0].seq if due and now - due[0].captured_at < 1 else None
        self.books.settle(outbox.epoch, outbox.settled(), live)
        outbox.noted([(gap.first, gap.last) for gap in gaps])
        for item in due:
            if self.books.see(outbox.epoch, item.seq).kind == "new":
                self.inferred.append(item.seq)
                self.books.answer(outbox.epoch, item.seq, b"")
            outbox.free(item.seq)


def send(outbox: Outbox, now: float) -> list[Due]:
    due = outbox.due(now, 8, max_unanswered=UNANSWERED, replay=0 if outbox.gaps_are_behind else 8)
    outbox.mark_sent([item.seq for item in due], now, 5.0)
    return due


def accepted(outbox: Outbox, began: int, count: int) -> Iterator[int]:
    """Accept a window a second; yields each second."""
    for now in range(began, began + count):
        outbox.accept(RECORD, now, now)
        if now % 10 == 0:  # as the keeper does, oftener
            outbox.flush()
        yield now


def stay_offline(outbox: Outbox, began: int) -> None:
    """Two days; at every moment the outbox is within its bounds, and it grows no more in memory once it is full."""
    for now in accepted(outbox, began, OFFLINE - 2000):
        assert len(outbox) <= BOUNDS.windows
        assert outbox.size <= BOUNDS.size
        if now % HOURS == 0:
            assert now - next(iter(outbox._store.rows.oldest()))[2] <= BOUNDS.age
    tracemalloc.start()
    for _ in accepted(outbox, began + OFFLINE - 2000, 2000):
        pass
    assert tracemalloc.get_traced_memory()[0] < 200_000
    tracemalloc.stop()


def come_back(outbox: Outbox, edge: Edge, now: int) -> int:
    """A new link: the backlog goes out while windows come; each of them is the next to be sent."""
    outbox.reset_sent()
    while True:
        seq = outbox.accept(RECORD, now, now)
        due = send(outbox, now)
        assert [item.seq for item in due] == [seq]
        edge.take(outbox, due, now)
        for _ in range(40):  # packets a second
            edge.take(outbox, send(outbox, now + 0.5), now + 0.5)
        outbox.flush()
        now += 1
        if not len(outbox) and not outbox.gaps:
            return now


@pytest.mark.parametrize("when_full", ["drop_oldest", "thin"])
def test_48_hours_offline_at_a_window_a_second(tmp_path: Path, when_full: WhenFull) -> None:
    """Nothing is lost but by policy, the edge knows of every seq, and what was kept is inferred exactly once."""
    bounds = Bounds(BOUNDS.windows, BOUNDS.size, BOUNDS.age, when_full)
    outbox, edge = Outbox(tmp_path / "outbox", bounds, commit_interval=10.0), Edge()
    for now in accepted(outbox, 0, 100):
        edge.take(outbox, send(outbox, now), now)
    stay_offline(outbox, 100)
    kept = outbox._store.rows.seqs(0, 2**62, 10**6)
    ended = come_back(outbox, edge, 100 + OFFLINE)
    shed = {reason: count for reason, count in outbox.shed.items() if count}
    assert shed == +edge.books.told
    assert (edge.books.missing, outbox.lost) == (0, 0)
    assert len(edge.inferred) == len(set(edge.inferred)) == ended - sum(shed.values())
    assert set(edge.inferred) <= {*range(1, 101), *kept, *range(101 + OFFLINE, ended + 1)}
    assert [epoch["settled"] for epoch in edge.books.to_state()["epochs"]] == [[[0, ended]]]
    spans = {later - earlier for earlier, later in pairwise(kept)}
    assert spans == ({4, 8} if when_full == "thin" else {1})  # every 8th or 4th of the 30 hours that are not too old
    outbox.close()
