"""Commits in groups: what a crash takes, what the books say afterwards, and that the disk gets its space back."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from device_agent.outbox import Bounds, Outbox, OutboxError, numbering, rows
from device_agent.outbox.file import read_database

BOUNDS = Bounds(windows=10_000, size=1 << 30, age=1e9)
CHILD = """
import sys
from pathlib import Path
from device_agent.outbox import Bounds, Outbox
outbox = Outbox(Path(sys.argv[1]), Bounds(40, 1 << 30, 1e9), commit_interval=60.0)
while True:
    seq = outbox.accept(bytes(500), 0.0, 0.0)
    if seq % 3 == 0:
        outbox.free(seq)
    if seq % 7 == 0:
        outbox.flush()
        print(seq, flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "device.outbox"


def waiting(path: Path) -> int:
    """Windows on the disk, as a stranger sees them."""
    with read_database(path) as db:
        return int(db.execute("SELECT count(*) FROM outbox").fetchone()[0])


def balances(outbox: Outbox) -> bool:
    """Whether every accepted window waits or has ended, once."""
    ended = sum(count for how, count in outbox.totals.items() if how != "accepted")
    return outbox.totals["accepted"] == len(outbox) + ended


# -- groups ---------------------------------------------------------------------------
def test_what_comes_together_shares_a_commit(path: Path) -> None:
    """It counts as accepted once it is committed, and may be sent before."""
    outbox = Outbox(path, BOUNDS, commit_interval=1.0)
    for _ in range(3):
        outbox.accept(b"a", 0.0, 0.0)
    assert [due.seq for due in outbox.due(0.0, 9, max_unanswered=9)] == [1, 2, 3]
    assert (outbox.accepted, len(outbox), waiting(path)) == (0, 3, 0)
    outbox.flush()
    assert (outbox.accepted, outbox.unsaved, waiting(path)) == (3, False, 3)
    outbox.close()


def test_a_group_is_bounded(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By windows and by bytes: a burst is committed though the interval is not over."""
    monkeypatch.setattr("device_agent.outbox.store.COMMIT_WINDOWS", 5)
    monkeypatch.setattr("device_agent.outbox.store.COMMIT_BYTES", 1000)
    outbox = Outbox(path, BOUNDS, commit_interval=60.0)
    for _ in range(12):
        outbox.accept(b"a", 0.0, 0.0)
    assert (outbox.accepted, waiting(path)) == (10, 10)
    outbox.accept(bytes(1000), 0.0, 0.0)
    assert outbox.accepted == 13
    outbox.close()


def test_closing_commits(path: Path) -> None:
    """A clean end loses nothing and leaves no seq out."""
    outbox = Outbox(path, BOUNDS, commit_interval=60.0)
    outbox.accept(b"a", 0.0, 0.0)
    outbox.close()
    outbox = Outbox(path, BOUNDS)
    assert (len(outbox), outbox.gaps, outbox.accept(b"b", 0.0, 0.0)) == (1, 0, 2)
    outbox.close()


@pytest.mark.parametrize("moment", [1, 8, 30])
def test_sigkill_takes_no_more_than_the_open_group(path: Path, moment: int) -> None:
    """What was committed is there, the books balance, and no seq is used twice: the edge will hear which were left."""
    with subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(moment)][-1]
        os.kill(process.pid, signal.SIGKILL)
        told = [told, *map(int, process.stdout.read().split())][-1]
    outbox = Outbox(path, replace(BOUNDS, windows=40))
    assert outbox.totals["accepted"] >= told
    assert balances(outbox)
    last = outbox.totals["accepted"]  # none was refused, so they are numbered without holes
    outbox.flush()
    with read_database(path) as db:
        (left_out,) = db.execute("SELECT last FROM gaps WHERE shed LIKE '%restart%'").fetchall()
    assert left_out[0] == numbering.BLOCK * -(-(last + 1) // numbering.BLOCK)
    assert outbox.accept(b"", 0.0, 0.0) == left_out[0] + 1
    outbox.close()


def test_the_totals_survive_and_tell_how_windows_ended(path: Path) -> None:
    """They are written with what they count, so they balance at every commit."""
    outbox = Outbox(path, replace(BOUNDS, windows=3), commit_interval=1.0)
    for _ in range(5):
        outbox.accept(b"a", 0.0, 0.0)
    outbox.free(4)
    outbox.free(5, "kept")
    outbox.close()
    outbox = Outbox(path, BOUNDS)
    totals = {how: count for how, count in outbox.totals.items() if count}
    assert totals == {"accepted": 5, "full": 2, "answered": 1, "kept": 1}
    assert (outbox.accepted, outbox.shed["full"], balances(outbox)) == (0, 0, True)
    outbox.close()


# -- numbers --------------------------------------------------------------------------
@pytest.mark.parametrize("fsync", ["full", "normal", "off"])
def test_no_seq_is_used_twice_though_the_disk_forgot(path: Path, fsync: str) -> None:
    """A power cut may give back the database of an hour ago; what it had sent since keeps its numbers."""
    outbox = Outbox(path, BOUNDS, fsync=fsync)  # type: ignore[arg-type]
    outbox.accept(b"a", 0.0, 0.0)
    outbox._store._opened.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    hour_ago = path.read_bytes()
    for _ in range(3 * numbering.BLOCK if fsync == "off" else 10):
        last = outbox.accept(b"", 0.0, 0.0)
    epoch = outbox.epoch
    outbox._store._opened.db.close()
    os.close(outbox._store._opened.lock)
    path.write_bytes(hour_ago)
    outbox = Outbox(path, BOUNDS)
    assert outbox.epoch == epoch
    assert outbox.accept(b"b", 0.0, 0.0) > (last or 0)
    outbox.close()


# -- the disk -------------------------------------------------------------------------
def test_a_refused_commit_loses_its_group_and_says_so(path: Path) -> None:
    """The windows are counted as lost, none as accepted, and the edge is told not to wait for them."""
    outbox = Outbox(path, BOUNDS, commit_interval=1.0)
    outbox.accept(b"kept", 0.0, 0.0)
    outbox.flush()
    for _ in range(3):
        outbox.accept(b"lost", 0.0, 0.0)
    outbox.free(1)
    outbox._store._opened.db.execute("PRAGMA query_only = ON")
    with pytest.raises(OutboxError, match="may not be written"):
        outbox.flush()
    assert (outbox.lost, outbox.accepted, len(outbox), outbox.free(1)) == (3, 1, 0, False)
    outbox._store._opened.db.execute("PRAGMA query_only = OFF")
    outbox.flush()
    assert [gap.shed for gap in outbox.gaps_due(0.0, 9)] == [{"disk": 3}]
    assert (waiting(path), outbox.accept(b"next", 0.0, 0.0), balances(outbox)) == (0, 5, True)
    outbox.close()


def test_a_refused_commit_pushes_nothing_out(path: Path) -> None:
    """A disk that takes nothing more does not cost what it holds, window by window: that can still be sent."""
    outbox = Outbox(path, replace(BOUNDS, windows=3), commit_interval=1.0)
    for _ in range(3):
        outbox.accept(b"held", 0.0, 0.0)
    outbox.flush()
    outbox.mark_sent([due.seq for due in outbox.due(0.0, 9, max_unanswered=9)], 0.0, 5.0)
    for _ in range(5):  # of which two push out others that are lost as well
        outbox.accept(b"lost", 0.0, 0.0)
    outbox._store._opened.db.execute("PRAGMA query_only = ON")
    with pytest.raises(OutboxError):
        outbox.flush()
    assert (len(outbox), outbox.size, outbox.lost, outbox.shed["full"], balances(outbox)) == (3, 12, 3, 2, True)
    assert [due.seq for due in outbox.due(9.0, 9, max_unanswered=9)] == [1, 2, 3]
    outbox._store._opened.db.execute("PRAGMA query_only = OFF")
    outbox.flush()
    assert [(gap.first, gap.last, gap.shed) for gap in outbox.gaps_due(9.0, 9)] == []  # in their turn
    outbox.close()


def test_the_disk_gets_its_space_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an outage the file shortens, a little at a time, to what is in use and some slack."""
    monkeypatch.setattr(rows, "SLACK", 16)
    outbox = Outbox(path, BOUNDS, commit_interval=1.0)
    for _ in range(2000):
        outbox.accept(bytes(4000), 0.0, 0.0)
    outbox.flush()
    for seq in range(1, 2000):
        outbox.free(seq)
    steps = 0
    while outbox.unsaved:
        outbox.flush()
        steps += 1
    assert path.stat().st_size < 40 * 4096
    assert steps >= 2000 // rows.GIVEN_BACK
    outbox.close()


def test_a_file_of_the_first_format_is_taken_over(path: Path) -> None:
    """Its windows, epoch and numbering stay, its size can shrink from now on, and an unclean end leaves seqs out."""
    with sqlite3.connect(path) as db:
        db.executescript(
            "PRAGMA journal_mode = WAL;"
            "CREATE TABLE outbox (seq INTEGER PRIMARY KEY AUTOINCREMENT, captured_at REAL NOT NULL, size INTEGER NOT "
            "NULL, crc INTEGER NOT NULL, record BLOB NOT NULL);"
            "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
            "INSERT INTO outbox VALUES (7, 5.0, 3, 891568578, x'616263');"
            "INSERT INTO meta VALUES ('epoch', 1700000000000), ('clean', 0);"
        )
    db.close()
    path.with_name("device.outbox.epoch").write_text("1700000000000\n")
    outbox = Outbox(path, BOUNDS)
    assert (outbox.epoch, len(outbox), outbox.totals["accepted"], balances(outbox)) == (1_700_000_000_000, 1, 1, True)
    assert [(due.seq, due.record) for due in outbox.due(9.0, 9, max_unanswered=9)] == [(7, b"abc")]
    assert outbox.accept(b"", 9.0, 9.0) == 7 + numbering.OLD_BLOCK + 1
    assert outbox._store._opened.db.execute("PRAGMA auto_vacuum").fetchone() == (2,)
    outbox.close()


def test_a_file_of_a_newer_program_is_left_alone(path: Path) -> None:
    """It would be misread; who runs the device is told what to do."""
    Outbox(path, BOUNDS).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(OutboxError, match="a newer version of this program wrote it"):
        Outbox(path, BOUNDS)
