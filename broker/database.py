"""The file that sessions and retained messages are kept in: its tables, and its opening where it is broken too."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from broker.settings import KIB, BrokerError

FORMAT = 1  # PRAGMA user_version
PAGE_BYTES = 16 * KIB  # a feature packet in seven pages, not in twenty-five: half again as fast to write
BUSY = ("database is locked", "database is busy")

TABLES = """
CREATE TABLE message (id INTEGER PRIMARY KEY, topic TEXT NOT NULL, payload BLOB NOT NULL, properties BLOB NOT NULL,
                      expires_at REAL);
CREATE TABLE session (client_id TEXT PRIMARY KEY, username TEXT, expiry REAL NOT NULL, left_at REAL) WITHOUT ROWID;
CREATE TABLE subscription (client_id TEXT NOT NULL, topic_filter TEXT NOT NULL, qos INTEGER NOT NULL,
                           no_local INTEGER NOT NULL, retain_as_published INTEGER NOT NULL, identifier INTEGER NOT NULL,
                           PRIMARY KEY (client_id, topic_filter)) WITHOUT ROWID;
CREATE TABLE delivery (id INTEGER PRIMARY KEY, client_id TEXT NOT NULL, message INTEGER, qos INTEGER NOT NULL,
                       retain INTEGER NOT NULL, identifiers TEXT NOT NULL, share TEXT NOT NULL,
                       packet_id INTEGER NOT NULL DEFAULT 0);
CREATE TABLE incoming (client_id TEXT NOT NULL, packet_id INTEGER NOT NULL, PRIMARY KEY (client_id, packet_id))
                       WITHOUT ROWID;
CREATE TABLE retained (topic TEXT PRIMARY KEY, message INTEGER NOT NULL, qos INTEGER NOT NULL) WITHOUT ROWID;
"""  # a delivery without a message was answered by PUBREC; times are seconds since 1970

T = TypeVar("T")

_log = logging.getLogger("megace2.broker")


def open_database(path: Path, fsync: bool, load: Callable[[sqlite3.Connection], T]) -> tuple[sqlite3.Connection, T]:
    """The file and what `load` reads of it; for one thread at a time. One that is broken is moved aside.

    Raises BrokerError where another broker has it, a newer version wrote it, or the disk refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        try:
            return _open(path, fsync, load)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            move_aside(path, error)
            return _open(path, fsync, load)
    except sqlite3.OperationalError as error:
        if str(error) in BUSY:
            raise BrokerError(f"{path} is in use by another broker") from error
        raise BrokerError(f"{path} cannot be used: {error}") from error
    except OSError as error:
        raise BrokerError(f"{path} cannot be used: {error.strerror or error}") from error


def _open(path: Path, fsync: bool, load: Callable[[sqlite3.Connection], T]) -> tuple[sqlite3.Connection, T]:
    connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {'FULL' if fsync else 'NORMAL'}")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute("BEGIN IMMEDIATE")
        (found,) = connection.execute("PRAGMA user_version").fetchone()
        if found == 0:
            for statement in TABLES.split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {FORMAT}")
        elif found != FORMAT:
            raise BrokerError(f"{path} has format {found}, and this version reads {FORMAT}: move it away to start anew")
        (sound,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if sound != "ok":
            raise sqlite3.DatabaseError(sound)
        loaded = load(connection)
        connection.execute("COMMIT")
    except BaseException:  # whatever it is, the file must not stay open
        connection.close()
        raise
    return connection, loaded


def move_aside(path: Path, error: Exception) -> None:
    """Keep a broken file for whoever wants to look at it, and say where it is."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    aside = path.with_name(f"{path.name}.broken-{stamp}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.replace(aside.with_name(aside.name + suffix))
    path.touch(mode=0o600)
    _log.error("%s is broken (%s): moved to %s, the broker starts without sessions", path, error, aside)
