"""The cloud's ledger as a SQLite file: one cloud at a time holds it, a person's command may visit it meanwhile.

The holder has the lock file; a visitor has none, and shares the file by SQLite's own means (write-ahead log, and
`LOCK_WAIT` for whoever writes at that moment).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cloud_aggregator.schema import SCHEMA, script_from
from megace2_iot.problems import Problem

LOCK_WAIT = 5.0  # s for a program that uses the ledger meanwhile
HELD_WAIT = 0.5  # s for a command that looks whether a cloud is running


class StoreError(Problem):
    """The cloud's disk does not do what it must."""


class Ledger:
    """An open ledger; its calls block, from any thread."""

    def __init__(self, directory: Path, connection: sqlite3.Connection) -> None:
        self.directory, self.connection = directory, connection
        self._lock = threading.RLock()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, explained(self.directory):
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:  # an interrupt, too, must leave all of it or nothing
                if self.connection.in_transaction:
                    self.connection.execute("ROLLBACK")
                raise

    def all(self, query: str, *values: object) -> list[Any]:
        with self._lock, explained(self.directory):
            return self.connection.execute(query, values).fetchall()

    def one(self, query: str, *values: object) -> Any:
        """The first row, or None."""
        rows = self.all(query, *values)
        return rows[0] if rows else None


@contextlib.contextmanager
def hold(directory: Path, durable: bool) -> Iterator[Ledger]:
    """The ledger for a cloud, made or brought up to date; raises StoreError for one that cannot be used."""
    with _locked(directory), contextlib.closing(_connected(directory)) as connection:
        with explained(directory):
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            found = _version(directory, connection)
            if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("its pages do not fit together")
            if found < SCHEMA:
                connection.executescript(script_from(found))
        yield Ledger(directory, connection)


@contextlib.contextmanager
def visit(directory: Path) -> Iterator[Ledger]:
    """The ledger beside a cloud that may be running; raises StoreError where there is none of this program."""
    if not (directory / "ledger.sqlite").exists():
        raise StoreError(f"{directory} holds no ledger: name the cloud's folder with --state-dir or --config")
    with contextlib.closing(_connected(directory)) as connection:
        with explained(directory):
            found = _version(directory, connection)
        if found < SCHEMA:
            raise StoreError(f"{directory} was last used by an older cloud: start the cloud once with this program")
        yield Ledger(directory, connection)


def is_held(directory: Path) -> bool:
    """Whether a cloud runs on this directory."""
    with (directory / "lock").open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)  # let go of at once; a cloud that starts waits for it
        except BlockingIOError:
            return True
    return False


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock file; the kernel lets go of it whichever way this process ends."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreError(f"{directory} cannot be used: {error.strerror}; choose another state_dir") from None
    try:
        until = time.monotonic() + HELD_WAIT
        while not _taken(handle):
            if time.monotonic() > until:
                raise StoreError(f"{directory} is held by another cloud: stop it, or choose another state_dir")
            time.sleep(0.02)  # a command that only looks lets go at once
        yield
    finally:
        os.close(handle)


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _connected(directory: Path) -> sqlite3.Connection:
    with explained(directory):
        return sqlite3.connect(
            directory / "ledger.sqlite", timeout=LOCK_WAIT, isolation_level=None, check_same_thread=False
        )


def _version(directory: Path, connection: sqlite3.Connection) -> int:
    found = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if found > SCHEMA:
        raise StoreError(f"{directory} is of ledger version {found}, this program knows {SCHEMA}: update it")
    return found


@contextlib.contextmanager
def explained(directory: Path) -> Iterator[None]:
    """Turn what SQLite says into what a person can do."""
    path = directory / "ledger.sqlite"
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
        raise  # our own mistakes
    except sqlite3.OperationalError as error:
        advice = "end the program that holds it" if "locked" in str(error) else "check its disk and permissions"
        raise StoreError(f"{path}: {error}: {advice}") from None
    except sqlite3.DatabaseError as error:
        advice = "bring the directory back from a backup, or move it away to begin anew"
        raise StoreError(f"{path} is damaged ({error}): {advice}") from None
