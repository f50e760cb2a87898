"""The cloud's disk: every family and release; updates are in its `journal`. All calls block, from any thread."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Self

from cloud_aggregator.disk import LAG, Disk, insert_release, next_version
from cloud_aggregator.journal import NEWEST, Journal
from cloud_aggregator.ledger import StoreError
from cloud_aggregator.lineage import standing
from cloud_aggregator.rows import FAMILY, RELEASE, FamilyRow, Release, UpdateRow, VerdictRow, release_of
from megace2_iot.parameters import Layout
from megace2_iot.tensors import decode_tensors

__all__ = ["FamilyRow", "Release", "Store", "StoreError", "UpdateRow", "VerdictRow"]


class Store:
    """A directory that one cloud at a time holds."""

    def __init__(self, disk: Disk) -> None:
        self.disk, self.journal = disk, Journal(disk)
        self.ledger, self.files, self.blobs = disk.ledger, disk.files, disk.files.blobs

    @classmethod
    @contextlib.contextmanager
    def open(cls, directory: Path, durable: bool = True) -> Iterator[Self]:
        """Hold `directory`, made if it is not there; `durable` waits for the disk before anything counts as kept."""
        with Disk.open(directory, durable) as disk:
            yield cls(disk)

    # -- families and releases --------------------------------------------------------
    def begin_family(self, family: str, config: str, base: bytes, stem: bytes) -> Release:
        """Make the family the newest, with `base` as its next release (1 for a new one); waiting updates are refused.

        Raises ValueError for a base that is no model.
        """
        tensors, _ = decode_tensors(base)
        layout, now = json.dumps(dict(Layout.of(tensors).shapes)), time.time()
        with self.files.lock:
            shas = self.files.put([base]), self.files.put([stem])
            with self.ledger.transaction() as rows:
                version = next_version(rows, family)
                reason = f"need_full: family {family} begins with release {version}; adopt it and train from it"
                waiting = "SET verdict = 'refused', reason = ?, decided_at = ? WHERE verdict = 'received'"
                rows.execute(f"UPDATE updates {waiting}", (reason, now))
                values = (family, config, shas[1], len(stem), layout, version, now, version)
                rows.execute(
                    f"INSERT OR REPLACE INTO families({FAMILY}, begun_at, restart, number)"
                    " SELECT ?, ?, ?, ?, ?, ?, ?, ?, 1 + COALESCE(MAX(number), 0) FROM families",
                    values,
                )
                return insert_release(rows, Release(family, version, shas[0], len(base), now))

    def family(self) -> FamilyRow | None:
        """The family begun last; None in an empty store."""
        row = self.ledger.one(f"SELECT {FAMILY} FROM families ORDER BY number DESC LIMIT 1")
        return FamilyRow(*row) if row else None

    def latest(self, family: str) -> Release:
        """The newest release; raises StoreError for a family that was never begun."""
        query = f"SELECT {RELEASE} FROM releases WHERE family = ? ORDER BY version DESC LIMIT 1"
        row = self.ledger.one(query, family)
        if row is None:
            raise StoreError(f"{self.ledger.directory} has no release of family {family}")
        return release_of(row)

    def release(self, family: str, version: int) -> memoryview | None:
        """The model of a release; None where there is none, it was deleted, or its stem is not the family's now."""
        query = """SELECT r.sha256 FROM releases r JOIN families f USING(family)
            WHERE r.family = ? AND r.version = ? AND r.version >= f.since AND r.kept"""
        row = self.ledger.one(query, family, version)
        return self.files.read(row[0]) if row else None

    def releases(self, family: str) -> list[Release]:
        """All releases in order, those too whose model was deleted."""
        rows = self.ledger.all(f"SELECT {RELEASE} FROM releases WHERE family = ? ORDER BY version", family)
        return [release_of(row) for row in rows]

    def rolled_back(self, family: str, version: int) -> bool:
        """Whether the newest release does not stand on this one any more, nor on one of the same content."""
        query = """SELECT 1 FROM releases WHERE family = ? AND version = ? AND NOT standing AND sha256 NOT IN
            (SELECT sha256 FROM releases INDEXED BY releases_kept WHERE family = ? AND kept AND standing)"""
        return self.ledger.one(query, family, version, family) is not None

    def lag(self, family: str, base_version: int) -> int:
        """How many of the releases that the newest one stands on came after this one."""
        return int(self.ledger.one(f"SELECT {LAG.format('?', '?')}", family, base_version)[0])

    def roll_back(self, family: str, version: int) -> Release:
        """Make the content of an earlier release the next one; aggregation begins anew from it.

        The model must be there (`release`). What was folded before counts no more, and releases that the new one does
        not descend from are no bases any more.
        """
        with self.files.lock, self.ledger.transaction() as rows:
            query = "SELECT sha256, size, scores FROM releases WHERE family = ? AND version = ?"
            sha256, size, scores = rows.execute(query, (family, version)).fetchone()
            number, now = next_version(rows, family), time.time()
            made = Release(family, number, sha256, size, now, "", json.loads(scores), version)
            insert_release(rows, made)
            rows.execute("UPDATE families SET restart = ? WHERE family = ?", (number, family))
            query = "SELECT version, source FROM releases WHERE family = ? AND source IS NOT NULL"
            rollbacks = dict(rows.execute(query, (family,)).fetchall())
            after = number
            for part in standing(number, rollbacks):
                _mark(rows, family, part.start, part.stop - 1, True)
                _mark(rows, family, part.stop, after - 1, False)
                after = part.start
            return made

    def note_scores(self, family: str, version: int, scores: Mapping[str, Any]) -> None:
        """Write down how good a release is."""
        with self.ledger.transaction() as rows:
            values = (json.dumps(dict(scores)), family, version)
            rows.execute("UPDATE releases SET scores = ? WHERE family = ? AND version = ?", values)

    def prune(self, family: str, keep_releases: int) -> None:
        """Delete models and deltas nobody needs again; every row stays.

        Kept are the newest `keep_releases` models, those under each edge's newest, each waiting and each held update,
        and the deltas of these updates.
        """
        needed = f"""FROM updates INDEXED BY updates_kept WHERE kept AND family = ?
            AND (verdict IN ('received', 'quarantined') OR number IN ({NEWEST}))"""
        with self.disk.changing() as rows:
            rows.execute(
                "UPDATE releases SET kept = 0 WHERE kept AND family = ? AND version <= "
                "(SELECT MAX(version) FROM releases WHERE family = ?) - ?"
                f" AND version NOT IN (SELECT base_version {needed})",
                (family, family, max(1, keep_releases), family, family),
            )
            rows.execute(
                f"UPDATE updates SET kept = 0 WHERE kept AND family = ? AND number NOT IN (SELECT number {needed})",
                (family, family, family),
            )


def _mark(rows: sqlite3.Connection, family: str, first: int, last: int, stands: bool) -> None:
    """Note of the versions from `first` to `last` whether the newest release stands on them."""
    query = "UPDATE releases SET standing = ? WHERE family = ? AND version BETWEEN ? AND ? AND standing <> ?"
    rows.execute(query, (stands, family, first, last, stands))
