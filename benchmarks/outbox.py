"""Outbox rates: rows a second at each fsync setting and commit interval, beside raw SQLite and a plain file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import get_args

from benchmarks.rows import Row
from device_agent.outbox import Bounds, Outbox
from device_agent.outbox.bounds import WhenFull
from device_agent.outbox.file import Fsync

SECONDS = 1.5  # each figure, at least
SIZES = (2 << 10, 96 << 10)  # bytes of a record: a small window, and the paper's packet
INTERVALS = (0.0, 0.1)  # s
PRESSED = 5000  # windows of a full outbox, and of one that is drained
NO_BOUND = Bounds(1 << 40, 1 << 50, 1e12)

Work = Callable[[Path, bytes], Callable[[], object]]  # makes what keeps one record


def measure() -> list[Row]:
    rows: list[Row] = []
    for size in SIZES:
        record = os.urandom(size)
        for fsync in get_args(Fsync):
            ceiling = _rate(partial(_sqlite, fsync=fsync), record)
            for interval in INTERVALS:
                what = f"accept, {size >> 10} KB, fsync {fsync}, commit {f'every {interval} s' if interval else 'each'}"
                rate = _rate(partial(_outbox, fsync=fsync, interval=interval), record)
                rows.append(Row(what, rate, "rows/s", ceiling, note="ceiling: INSERT into SQLite, each committed"))
        synced = _rate(_file, record)
        rows.append(Row(f"a plain file, {size >> 10} KB, fsync each", synced, "rows/s", note="append and fsync"))
    rows += [_full("drop_oldest"), _full("thin")]
    rows.append(_drained())
    return rows


def _rate(work: Work, record: bytes) -> float:
    """Records a second over `SECONDS`."""
    with tempfile.TemporaryDirectory(prefix="megace2-outbox-", dir=os.environ.get("MEGACE2_BENCH_DIR")) as name:
        keep = work(Path(name), record)
        done, began = 0, time.perf_counter()
        while (took := time.perf_counter() - began) < SECONDS:
            keep()
            done += 1
        return done / took


def _outbox(folder: Path, record: bytes, fsync: Fsync, interval: float) -> Callable[[], object]:
    """The outbox as a device uses it: it is flushed every `interval` s."""
    outbox = Outbox(folder / "outbox", NO_BOUND, fsync=fsync, commit_interval=interval)
    flushed = time.monotonic()

    def keep() -> None:
        nonlocal flushed
        now = time.time()
        outbox.accept(record, now, now)
        if interval and time.monotonic() - flushed >= interval:
            outbox.flush()
            flushed = time.monotonic()

    return keep


def _sqlite(folder: Path, record: bytes, fsync: Fsync) -> Callable[[], object]:
    """The raw thing: one table, one INSERT a transaction."""
    db = sqlite3.connect(folder / "raw", isolation_level=None)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute(f"PRAGMA synchronous = {fsync}")
    db.execute("CREATE TABLE kept (seq INTEGER PRIMARY KEY, record BLOB)")
    return lambda: db.execute("INSERT INTO kept (record) VALUES (?)", (record,))


def _file(folder: Path, record: bytes) -> Callable[[], object]:
    file = (folder / "plain").open("ab", buffering=0)

    def keep() -> None:
        file.write(record)
        os.fsync(file.fileno())

    return keep


def _full(when_full: WhenFull) -> Row:
    """A full outbox: each window pushes out another."""
    bounds, record = Bounds(PRESSED, 1 << 50, 1e12, when_full), bytes(SIZES[0])
    with (
        tempfile.TemporaryDirectory(prefix="megace2-outbox-") as name,
        contextlib.closing(Outbox(Path(name) / "outbox", bounds, commit_interval=0.1)) as outbox,
    ):
        for seq in range(PRESSED):
            outbox.accept(record, seq, seq)
        began = time.perf_counter()
        for seq in range(PRESSED, 2 * PRESSED):
            outbox.accept(record, seq, seq)
        outbox.flush()
        return Row(f"accept while full, {when_full}, 2 KB", PRESSED / (time.perf_counter() - began), "rows/s")


def _drained() -> Row:
    """What waited, read in packets of 8 and answered."""
    with (
        tempfile.TemporaryDirectory(prefix="megace2-outbox-") as name,
        contextlib.closing(Outbox(Path(name) / "outbox", NO_BOUND, commit_interval=0.1)) as outbox,
    ):
        for _ in range(PRESSED):
            outbox.accept(bytes(SIZES[0]), 0.0, 0.0)
        outbox.flush()
        began = time.perf_counter()
        while due := outbox.due(10.0, 8, max_unanswered=32):
            outbox.mark_sent([item.seq for item in due], 10.0, 5.0)
            for item in due:
                outbox.free(item.seq)
        outbox.flush()
        return Row("drain: read, mark sent, answered, 2 KB", PRESSED / (time.perf_counter() - began), "rows/s")


if __name__ == "__main__":
    for row in measure():
        print(f"{row.what}: {row.measured:,.0f} {row.unit}")
