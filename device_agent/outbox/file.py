"""The outbox's database file: made, brought up to date, repaired by moving it aside, and read beside its device."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from device_agent.outbox.lock import Held, hold
from device_agent.outbox.numbering import Numbering
from megace2_iot.problems import Problem

_log = logging.getLogger("megace2.outbox")
Fsync = Literal["full", "normal", "off"]
VERSION = 1  # of the schema, SQLite's user_version; 0 had no gaps, no totals, and kept its size on the disk
CHECKPOINT_PAGES = 2000  # of 4 KiB that the write-ahead log holds before they go into the database
_SCHEMA = """
CREATE TABLE IF NOT EXISTS outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    captured_at REAL NOT NULL,  -- unix s
    size INTEGER NOT NULL,      -- bytes of the record
    crc INTEGER NOT NULL,       -- of the record: SQLite does not notice a flipped bit inside a blob
    record BLOB NOT NULL        -- last, so that the columns before it are read without it
);
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS gaps (
    first INTEGER PRIMARY KEY,  -- seq
    last INTEGER NOT NULL,
    shed TEXT NOT NULL          -- JSON: windows by reason
);
"""
_DAMAGED = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_HELD = "another process has it open: stop that one, or give this one another id or state_dir"
_ADVICE = {
    "SQLITE_FULL": "the disk is full: free space on it, or lower outbox_bytes",
    "SQLITE_IOERR": "the disk fails: see the kernel's log, and replace the disk or move state_dir to another one",
    "SQLITE_BUSY": _HELD,
    "SQLITE_READONLY": "it may not be written: check the owner and mode of the file and its folder",
    "SQLITE_CANTOPEN": "it cannot be opened: check the owner and mode of its folder",
    "SQLITE_CORRUPT": "it is damaged: start this device again, it then begins a new outbox and keeps the damaged one",
    "SQLITE_NOTADB": "it is damaged: start this device again, it then begins a new outbox and keeps the damaged one",
}


@dataclass(frozen=True, slots=True)
class Opened:
    """An open database: what numbers its windows, what it holds (windows, bytes of their records), its totals."""

    db: sqlite3.Connection
    numbering: Numbering
    windows: int
    size: int
    totals: dict[str, int]
    lock: int  # a file descriptor


class OutboxError(Problem):
    """The outbox cannot be read or written; the text says what to do."""


class OutboxHeld(OutboxError):
    """Another process works on this outbox."""


def explain(path: Path, error: Exception) -> OutboxError:
    """What an error of the database or its folder means for a person."""
    name = getattr(error, "sqlite_errorname", "")
    advice = next((text for code, text in _ADVICE.items() if name.startswith(code)), "")
    return OutboxError(f"outbox {path}: {advice or error}" + (f" ({error})" if advice else ""))


def is_damage(error: Exception) -> bool:
    """Whether the database's content is broken, and not the disk under it; text, too, where a number belongs."""
    return isinstance(error, (ValueError, TypeError)) or getattr(error, "sqlite_errorname", "").startswith(_DAMAGED)


def open_database(path: Path, fsync: Fsync) -> Opened:
    """The database at `path`; made where there is none. Raises `OutboxError`."""
    with contextlib.ExitStack() as undone:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = hold(path)
            undone.callback(os.close, lock)
            try:
                opened = _open(path, fsync, lock)
            except (sqlite3.DatabaseError, ValueError, TypeError) as error:
                if not is_damage(error):
                    raise
                set_aside(path)
                opened = _open(path, fsync, lock)
        except Held:
            raise OutboxHeld(f"outbox {path}: {_HELD}") from None
        except (OSError, sqlite3.Error) as error:
            raise explain(path, error) from error
        undone.pop_all()
        return opened


def close_database(opened: Opened) -> None:
    """Close cleanly: the next run goes on with the next seq. An error leaves what an unclean end leaves."""
    try:
        with contextlib.suppress(sqlite3.Error):
            opened.db.execute("PRAGMA synchronous = FULL")
            opened.db.execute("UPDATE meta SET value = 1 WHERE name = 'clean'")
            opened.db.close()  # checkpoints
            opened.numbering.close()
    finally:
        opened.db.close()
        os.close(opened.lock)


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


@contextlib.contextmanager
def read_database(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection that only reads, beside a running device too; nothing is made or changed. Raises `OutboxError`."""
    if not path.exists():
        raise OutboxError(f"outbox {path}: there is none: check --id and [device] state_dir")
    # without a log all is in the file, and SQLite would leave a log of ours beside it
    how = "mode=ro" if path.with_name(path.name + "-wal").exists() else "immutable=1"
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?{how}", uri=True, timeout=1.0)) as db:
            yield db
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise explain(path, error) from error


def _open(path: Path, fsync: Fsync, lock: int) -> Opened:
    db = sqlite3.connect(path, timeout=1.0, isolation_level=None)
    try:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a new file
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        db.execute(f"PRAGMA journal_size_limit = {CHECKPOINT_PAGES * 4096}")
        _upgrade(path, db)
        totals = dict(db.execute("SELECT name, value FROM meta"))
        clean, epoch = bool(totals.pop("clean", 1)), totals.pop("epoch", 0)
        if not clean:
            _check(db)
        numbering = Numbering(path, epoch=epoch, last=max(totals.pop("seq", 0), _last(db)), clean=clean)
        db.execute("REPLACE INTO meta VALUES ('epoch', ?), ('clean', 0)", (numbering.epoch,))
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # synced: an unclean end is seen even after a power cut
        db.execute(f"PRAGMA synchronous = {fsync}")
        windows, size = db.execute("SELECT count(*), coalesce(sum(size), 0) FROM outbox").fetchone()
    except BaseException:  # whatever it is, the file must not stay open
        db.close()
        raise
    return Opened(db, numbering, windows, size, totals, lock)


def _upgrade(path: Path, db: sqlite3.Connection) -> None:
    """Make the tables, or those that a file of an older format lacks. Raises `OutboxError` for one of a newer."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise OutboxError(f"outbox {path}: a newer version of this program wrote it: use that one, or move it away")
    is_old = version < VERSION and db.execute("SELECT 1 FROM sqlite_master WHERE name = 'outbox'").fetchone()
    if version < VERSION:
        db.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.split(";")[:-1]:
            db.execute(statement)
        if is_old:  # what became of earlier windows was not written down: its totals begin with what waits
            db.execute("INSERT INTO meta SELECT 'accepted', count(*) FROM outbox")
        db.execute(f"PRAGMA user_version = {VERSION}")
        db.execute("COMMIT")
    (vacuum,) = db.execute("PRAGMA auto_vacuum").fetchone()
    if not vacuum and shutil.disk_usage(path.parent).free > 3 * path.stat().st_size:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        db.execute("VACUUM")  # written anew once, so that it can give space back from now on


def _last(db: sqlite3.Connection) -> int:
    """The largest seq of a row, deleted ones included."""
    return int(db.execute("SELECT max(seq) FROM sqlite_sequence WHERE name = 'outbox'").fetchone()[0] or 0)


def _check(db: sqlite3.Connection) -> None:
    """Look for damage where the last run did not end cleanly; reads the whole file."""
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        error = sqlite3.DatabaseError(verdict)
        error.sqlite_errorname = "SQLITE_CORRUPT"
        raise error
