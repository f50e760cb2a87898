"""The cloud's ledger: its tables, its rows as values, and a SQLite file that one cloud at a time holds."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from megace2_iot.messages import UpdateOffer
from megace2_iot.problems import Problem

SCHEMA = 1
LOCK_WAIT = 5.0  # s for a program that reads the ledger meanwhile
_TABLES = """
CREATE TABLE families(
    family TEXT PRIMARY KEY, config TEXT NOT NULL, stem TEXT NOT NULL, stem_size INTEGER NOT NULL,
    layout TEXT NOT NULL, since INTEGER NOT NULL, begun_at REAL NOT NULL, number INTEGER NOT NULL);
CREATE TABLE updates(
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, edge TEXT NOT NULL, family TEXT NOT NULL,
    base_version INTEGER NOT NULL, round INTEGER NOT NULL, num_examples TEXT NOT NULL, codec TEXT NOT NULL,
    sha256 TEXT NOT NULL, size INTEGER NOT NULL, received_at REAL NOT NULL, verdict TEXT NOT NULL DEFAULT 'received',
    reason TEXT NOT NULL DEFAULT '', version INTEGER, kept INTEGER NOT NULL DEFAULT 1);
CREATE INDEX updates_kept ON updates(family, verdict, edge, number) WHERE kept;
CREATE INDEX updates_waiting ON updates(number) WHERE verdict = 'received';
CREATE TABLE releases(
    version INTEGER NOT NULL, family TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL,
    created_at REAL NOT NULL, update_id TEXT NOT NULL, scores TEXT NOT NULL DEFAULT '{}',
    kept INTEGER NOT NULL DEFAULT 1, PRIMARY KEY(family, version));
CREATE INDEX releases_kept ON releases(family, version) WHERE kept;
"""
UPDATE = "id, edge, family, base_version, round, num_examples, codec, sha256, size, received_at"
RELEASE = "family, version, sha256, size, created_at, update_id, scores"
FAMILY = "family, config, stem, stem_size, layout, since"


class StoreError(Problem):
    """The cloud's disk does not do what it must."""


@dataclass(frozen=True, slots=True)
class UpdateRow:
    """An offer that was received from `edge` at unix time `received_at`; its delta is the blob `sha256`."""

    id: str
    edge: str
    family: str
    base_version: int
    round: int
    num_examples: Mapping[str, float]
    codec: str
    sha256: str
    size: int
    received_at: float

    @classmethod
    def of(cls, edge: str, offer: UpdateOffer, now: float) -> Self:
        counts, size = dict(offer.num_examples), offer.size
        return cls(
            offer.id, edge, offer.family, offer.base_version, offer.round, counts, offer.codec, offer.sha256, size, now
        )


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """What became of an update; `received` means that it waits to be folded."""

    verdict: Literal["received", "accepted", "refused"]
    reason: str
    version: int | None


@dataclass(frozen=True, slots=True)
class Release:
    """One numbered global model; its tensors are the blob `sha256`."""

    family: str
    version: int
    sha256: str
    size: int
    created_at: float  # unix s
    update_id: str = ""  # the update that made it; empty for the first of a family
    scores: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FamilyRow:
    """An architecture, its frozen stem, and the release `since` which both hold."""

    family: str
    config: str
    stem: str
    stem_size: int
    layout: str  # JSON: shapes by name
    since: int


def update_of(row: Iterable[Any]) -> UpdateRow:
    """The update of a row of `UPDATE` columns."""
    values = list(row)
    values[5] = json.loads(values[5])
    return UpdateRow(*values)


def release_of(row: Iterable[Any]) -> Release:
    """The release of a row of `RELEASE` columns."""
    values = list(row)
    values[6] = json.loads(values[6])
    return Release(*values)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold the directory's lock file; the kernel lets go of it whichever way this process ends."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise StoreError(f"{directory} cannot be used: {error.strerror}; choose another state_dir") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreError(f"{directory} is held by another cloud: stop it, or choose another state_dir") from None
        yield
    finally:
        os.close(handle)


def connect(directory: Path, durable: bool) -> sqlite3.Connection:
    """The ledger, made where it is not there; raises StoreError for one that cannot be used."""
    with explained(directory):
        ledger = sqlite3.connect(
            directory / "ledger.sqlite", timeout=LOCK_WAIT, isolation_level=None, check_same_thread=False
        )
        try:
            ledger.execute("PRAGMA journal_mode = WAL")
            ledger.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            found = ledger.execute("PRAGMA user_version").fetchone()[0]
            if found not in (0, SCHEMA):
                raise StoreError(f"{directory} is of ledger version {found}, this program knows {SCHEMA}: update it")
            if ledger.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("its pages do not fit together")
            if found == 0:
                ledger.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {SCHEMA}; COMMIT")
        except BaseException:  # whatever it is, the file must not stay open
            ledger.close()
            raise
        return ledger


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
