"""Crash after crash, lost answers, lost receipts, a full outbox: the books of device and edge agree in the end."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from device_agent.outbox import Bounds, Outbox
from device_agent.outbox.bounds import WhenFull
from edge_gateway.dedup import DedupWindow

CRASHES = 15
UNANSWERED = 16
SECTOR = 512  # bytes


def crash(outbox: Outbox) -> None:
    """As SIGKILL: what is not committed is gone, nothing is put in order, and the kernel lets go of the lock."""
    outbox._store._opened.db.close()
    os.close(outbox._store._opened.lock)


class Edge:
    """One that loses its answers and receipts on the way as often as `luck` says."""

    def __init__(self, luck: random.Random) -> None:
        self.books, self.luck = DedupWindow(remembered=64), luck
        self.inferred: list[int] = []
        self.records: dict[tuple[int, int], bytes] = {}  # what each number has named

    def exchange(self, outbox: Outbox, now: float, lost: float) -> None:
        """One packet there, and what comes back."""
        gaps = outbox.gaps_due(now, self.luck.randint(1, 8))
        outbox.mark_told(gaps, now, 3.0)
        replay = 0 if outbox.gaps_are_behind else 8
        due = outbox.due(now, 8, max_unanswered=UNANSWERED, replay=replay)
        outbox.mark_sent([item.seq for item in due], now, 2.0)
        if self.luck.random() < lost:
            return
        for gap in gaps:
            self.books.tell(outbox.epoch, gap)
        fresh = due and all(item.attempts == 0 and now - item.captured_at < 1 for item in due)
        self.books.settle(outbox.epoch, outbox.settled(), due[-1].seq if fresh else None)
        for item in due:
            assert self.records.setdefault((outbox.epoch, item.seq), item.record) == item.record
            if self.books.see(outbox.epoch, item.seq).kind == "new":
                self.inferred.append(item.seq)
                self.books.answer(outbox.epoch, item.seq, b"")
            if self.luck.random() >= lost:
                outbox.free(item.seq)
        outbox.noted([(gap.first, gap.last) for gap in gaps if self.luck.random() >= lost])


def live(outbox: Outbox, edge: Edge, luck: random.Random, now: float) -> float:
    """Some time of a device's life; returns when it is over."""
    for _ in range(luck.randint(5, 120)):
        now += 0.2
        for _ in range(luck.randint(0, 3)):
            seq = outbox.accept(luck.randbytes(luck.randint(8, 300)), now, now)
            if seq and luck.random() < 0.15:
                outbox.free(seq, luck.choice(["kept", "link"]))  # type: ignore[arg-type]
        if luck.random() < 0.2:
            outbox.flush()
        edge.exchange(outbox, now, lost=0.3)
    return now


def cut_power(outbox: Outbox, path: Path, luck: random.Random) -> None:
    """As a power cut under `fsync = "normal"`: of the log since its last sync some sectors never reached the disk."""
    wal = path.with_name(path.name + "-wal")
    log, synced = bytearray(wal.read_bytes()), path.read_bytes()
    crash(outbox)  # which folds the log into the file
    path.write_bytes(synced)
    begin = luck.randrange(len(log) + 1) // SECTOR * SECTOR
    for at in range(begin, len(log), SECTOR):
        if luck.random() < 0.3:
            log[at : at + SECTOR] = luck.choice([bytes(SECTOR), luck.randbytes(SECTOR)])
    wal.write_bytes(log[: luck.randint(begin, len(log))])


@pytest.mark.parametrize("seed", range(4))
def test_no_number_names_two_windows_after_power_cuts(tmp_path: Path, seed: int) -> None:
    """What a disk forgot is lost, and the edge is told; it takes no window for another one that it answered."""
    luck = random.Random(seed)
    path, bounds, now, edge = tmp_path / "outbox", Bounds(200, 1 << 20, 1e9, "drop_oldest"), 0.0, Edge(luck)
    epochs = set()
    for _ in range(CRASHES):
        outbox = Outbox(path, bounds, fsync="normal", commit_interval=1.0)
        epochs.add(outbox.epoch)
        now = live(outbox, edge, luck, now)
        cut_power(outbox, path, luck)
    outbox = Outbox(path, bounds, fsync="normal", commit_interval=1.0)
    while len(outbox) or outbox.gaps:
        now += 1.0
        edge.exchange(outbox, now, lost=0.0)
        outbox.flush()
    assert len(epochs) == 1, "the log was torn, the database was not"
    assert edge.books.missing == 0
    assert len(edge.inferred) == len(set(edge.inferred))
    outbox.close()


@pytest.mark.parametrize("when_full", ["drop_oldest", "drop_newest", "thin"])
@pytest.mark.parametrize("seed", range(2))
def test_the_books_agree_after_any_crash(tmp_path: Path, when_full: WhenFull, seed: int) -> None:
    """Nothing is missing, nothing is inferred twice, and every window that was accepted has ended once."""
    luck = random.Random(seed)
    bounds, now, edge = Bounds(12, 1 << 20, 1e9, when_full), 0.0, Edge(luck)
    for _ in range(CRASHES):
        outbox = Outbox(tmp_path / "outbox", bounds, commit_interval=1.0)
        now = live(outbox, edge, luck, now)
        crash(outbox)
    outbox = Outbox(tmp_path / "outbox", bounds, commit_interval=1.0)
    while len(outbox) or outbox.gaps:
        now += 1.0
        edge.exchange(outbox, now, lost=0.0)
        outbox.flush()
    totals = dict(outbox.totals)
    assert totals["accepted"] == sum(totals.values()) - totals["accepted"]
    assert totals["full"] > 0
    assert edge.books.missing == 0
    assert len(edge.inferred) == len(set(edge.inferred))
    outbox.close()
