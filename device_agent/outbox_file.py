"""The outbox's database file: made, opened, repaired by moving it aside, and given its epoch.

An epoch belongs to one database. A small text file beside it keeps the largest epoch ever used, so that a database that
was lost, damaged or put back from a copy is followed by a strictly larger one, whatever the device's clock says. Seqs
are not used twice within an epoch: after anything but a clean close, `SKIPPED` of them are left out, because a power
cut may have taken back the last commits after their windows had been sent.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from megace2_iot.problems import Problem

_log = logging.getLogger("megace2.outbox")
CHECKPOINT_PAGES = 2000  # of 4 KiB that the write-ahead log holds before they are synced into the database
SKIPPED = 10_000  # seqs after an unclean end; more than a log of CHECKPOINT_PAGES, at least one a commit, can lose
_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    captured_at REAL NOT NULL,  -- unix s
    size INTEGER NOT NULL,      -- bytes of the record
    crc INTEGER NOT NULL,       -- of the record: SQLite does not notice a flipped bit inside a blob
    record BLOB NOT NULL        -- last, so that the columns before it are read without it
);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_ADVICE = {
    "SQLITE_FULL": "the disk is full: free space on it, or lower outbox_bytes",
    "SQLITE_IOERR": "the disk fails: see the kernel's log, and replace the disk or move state_dir to another one",
    "SQLITE_BUSY": "another process has it open: stop that one, or give this one another id or state_dir",
    "SQLITE_READONLY": "it may not be written: check the owner and mode of the file and its folder",
    "SQLITE_CANTOPEN": "it cannot be opened: check the owner and mode of its folder",
    "SQLITE_CORRUPT": "it is damaged: start this device again, it then begins a new outbox and keeps the damaged one",
    "SQLITE_NOTADB": "it is damaged: start this device again, it then begins a new outbox and keeps the damaged one",
}


@dataclass(frozen=True, slots=True)
class Opened:
    """An open database, its epoch, and what it holds: windows, and bytes of their records."""

    db: sqlite3.Connection
    epoch: int
    windows: int
    size: int


class OutboxError(Problem):
    """The outbox cannot be read or written; the text says what to do."""


def explain(path: Path, error: Exception) -> OutboxError:
    """What an error of the database or its folder means for a person."""
    name = getattr(error, "sqlite_errorname", "")
    advice = next((text for code, text in _ADVICE.items() if name.startswith(code)), "")
    return OutboxError(f"outbox {path}: {advice or error}" + (f" ({error})" if advice else ""))


def is_damage(error: Exception) -> bool:
    """Whether the database's content is broken, and not the disk under it."""
    return getattr(error, "sqlite_errorname", "").startswith(_DAMAGED)


def open_database(path: Path) -> Opened:
    """The database at `path`; made where there is none. Raises `OutboxError`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return _open(path)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            set_aside(path)
            return _open(path)
    except (OSError, sqlite3.Error) as error:
        raise explain(path, error) from error


def close_database(db: sqlite3.Connection) -> None:
    """Close cleanly: the next run goes on with the next seq. An error leaves what an unclean end leaves."""
    with contextlib.suppress(sqlite3.Error):
        db.execute("UPDATE meta SET value = 1 WHERE name = 'clean'")
    with contextlib.suppress(sqlite3.Error):
        db.close()


def set_aside(path: Path) -> Path:
    """Move a damaged database and its log out of the way; returns its new name."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    _log.warning("outbox %s is damaged: moved to %s, what it held is not sent; a new one begins", path, aside)
    return aside


def _open(path: Path) -> Opened:
    db = sqlite3.connect(path, timeout=1.0, isolation_level=None)
    try:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")  # one process an outbox; and no shared memory file
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        db.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.split(";")[:-1]:
            db.execute(statement)
        meta = dict(db.execute("SELECT name, value FROM meta"))
        if not meta.get("clean", 1):
            _check(db)
            _skip_seqs(db)
        epoch = _next_epoch(path, meta.get("epoch", 0))
        db.execute("REPLACE INTO meta VALUES ('epoch', ?), ('clean', 0)", (epoch,))
        db.execute("COMMIT")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # synced: an unclean end is seen even after a power cut
        windows, size = db.execute("SELECT count(*), coalesce(sum(size), 0) FROM outbox").fetchone()
    except BaseException:  # whatever it is, the file must not stay locked
        db.close()
        raise
    return Opened(db, epoch, windows, size)


def _check(db: sqlite3.Connection) -> None:
    """Look for damage where the last run did not end cleanly; reads the whole file."""
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        error = sqlite3.DatabaseError(verdict)
        error.sqlite_errorname = "SQLITE_CORRUPT"
        raise error


def _skip_seqs(db: sqlite3.Connection) -> None:
    last = db.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = 'outbox'").fetchone()[0] or 0
    db.execute("DELETE FROM sqlite_sequence WHERE name = 'outbox'")
    db.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('outbox', ?)", (last + SKIPPED,))


def _next_epoch(path: Path, own: int) -> int:
    """The database's own epoch, or a new one (unix ms) where it has none or a later one was used already."""
    beside = path.with_name(path.name + ".epoch")
    try:
        largest = int(beside.read_text())
    except (FileNotFoundError, ValueError):
        largest = 0
    epoch = own if own and own >= largest else max(int(time.time() * 1000), largest + 1)
    if epoch != largest:
        part = beside.with_name(beside.name + ".part")
        with part.open("w") as file:
            file.write(f"{epoch}\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(beside)
    return epoch
