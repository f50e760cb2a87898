"""Ledger and blobs together: whatever changes rows deletes the blobs that none of them needs any more."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from cloud_aggregator.files import Files
from cloud_aggregator.ledger import Ledger, hold
from cloud_aggregator.rows import RELEASE, Release

# The releases that the newest one stands on and that came after a version.
LAG = "(SELECT COUNT(*) FROM releases WHERE family = {} AND version > {} AND standing)"


class Disk:
    """A directory that one cloud at a time holds."""

    def __init__(self, ledger: Ledger, files: Files) -> None:
        self.ledger, self.files = ledger, files

    @classmethod
    @contextlib.contextmanager
    def open(cls, directory: Path, durable: bool) -> Iterator[Self]:
        """Hold `directory`; blobs that no row names, left from a crash, go."""
        with hold(directory, durable) as ledger:
            disk = cls(ledger, Files(directory / "blobs", durable))
            with ledger.transaction() as rows:
                disk.files.keep_only(_kept(rows))
            yield disk

    @contextlib.contextmanager
    def changing(self) -> Iterator[sqlite3.Connection]:
        """A transaction after which blobs that no row needs any more are deleted: no row ever names a missing one."""
        with self.files.lock:
            with self.ledger.transaction() as rows:
                before = _kept(rows)
                yield rows
                gone = before - _kept(rows)
            self.files.remove(gone)

    def forget(self, sha256: str) -> None:
        """Delete a blob that was pulled for nothing, where no row needs it."""
        with self.files.lock, self.ledger.transaction() as rows:
            if sha256 not in _kept(rows):
                self.files.remove([sha256])


def _kept(rows: sqlite3.Connection) -> set[str]:
    """The blobs that some row needs."""
    query = """SELECT sha256 FROM releases INDEXED BY releases_kept WHERE kept
        UNION SELECT sha256 FROM updates INDEXED BY updates_kept WHERE kept UNION SELECT stem FROM families"""
    return {sha256 for (sha256,) in rows.execute(query)}


def next_version(rows: sqlite3.Connection, family: str) -> int:
    """The number of a family's next release."""
    query = "SELECT 1 + COALESCE(MAX(version), 0) FROM releases WHERE family = ?"
    return int(rows.execute(query, (family,)).fetchone()[0])


def insert_release(rows: sqlite3.Connection, release: Release) -> Release:
    """Write a release down, as the one that is made now."""
    scores = json.dumps(dict(release.scores))
    values = (release.family, release.version, release.sha256, release.size, release.created_at, release.update_id)
    rows.execute(f"INSERT INTO releases({RELEASE}) VALUES(?{', ?' * 7})", (*values, scores, release.source))
    return release
