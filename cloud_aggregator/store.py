"""The cloud's disk: every update, verdict and release in one ledger, models and deltas as blobs beside it.

An update is journalled (body, then row) before it is folded. Accepting it writes the new model, then commits release
and verdict in one transaction: after a SIGKILL at any instant an update was folded once or waits in `pending`. Blobs
that no row names are left from such an end, and go when the store is opened. All calls block, from any thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from cloud_aggregator.ledger import (
    FAMILY,
    RELEASE,
    UPDATE,
    FamilyRow,
    Release,
    StoreError,
    UpdateRow,
    VerdictRow,
    connect,
    explained,
    locked,
    release_of,
    update_of,
)
from megace2_iot.blobs import Blob, BlobStore, digest
from megace2_iot.parameters import Layout
from megace2_iot.tensors import decode_tensors

__all__ = ["FamilyRow", "Release", "Store", "StoreError", "UpdateRow", "VerdictRow"]

# The newest accepted update of each edge since the family's present start. `kept` is always true for it, and makes
# the index of kept rows serve: the time does not grow with the ledger.
_NEWEST = """SELECT MAX(u.number) FROM updates u JOIN families f USING(family)
    WHERE u.family = ? AND u.verdict = 'accepted' AND u.version > f.since AND u.kept GROUP BY u.edge"""


class Store:
    """A directory that one cloud at a time holds."""

    def __init__(self, directory: Path, ledger: sqlite3.Connection, durable: bool) -> None:
        self.directory, self.blobs = directory, BlobStore(directory / "blobs")
        self._ledger, self._durable = ledger, durable
        self._files = threading.RLock()  # held from writing a blob until a row names it
        self._rows = threading.RLock()

    @classmethod
    @contextlib.contextmanager
    def open(cls, directory: Path, durable: bool = True) -> Iterator[Self]:
        """Hold `directory`, made if it is not there; `durable` waits for the disk before anything counts as kept."""
        with locked(directory), contextlib.closing(connect(directory, durable)) as ledger:
            store = cls(directory, ledger, durable)
            store._remove_unnamed()
            yield store

    # -- families and releases --------------------------------------------------------
    def begin_family(self, family: str, config: str, base: bytes, stem: bytes) -> Release:
        """Make the family the newest, with `base` as its next release (1 for a new one); waiting updates are refused.

        Raises ValueError for a base that is no model.
        """
        tensors, _ = decode_tensors(base)
        layout, now = json.dumps(dict(Layout.of(tensors).shapes)), time.time()
        with self._files:
            shas = self._put([base]), self._put([stem])
            with self._transaction() as rows:
                version = _next_version(rows, family)
                reason = f"need_full: family {family} begins with release {version}; adopt it and train from it"
                rows.execute("UPDATE updates SET verdict = 'refused', reason = ? WHERE verdict = 'received'", (reason,))
                rows.execute(
                    "INSERT OR REPLACE INTO families SELECT ?, ?, ?, ?, ?, ?, ?, 1 + COALESCE(MAX(number), 0)"
                    " FROM families",
                    (family, config, shas[1], len(stem), layout, version, now),
                )
                return _insert_release(rows, Release(family, version, shas[0], len(base), now))

    def family(self) -> FamilyRow | None:
        """The family begun last; None in an empty store."""
        row = self._one(f"SELECT {FAMILY} FROM families ORDER BY number DESC LIMIT 1")
        return FamilyRow(*row) if row else None

    def latest(self, family: str) -> Release:
        """The newest release; raises StoreError for a family that was never begun."""
        row = self._one(f"SELECT {RELEASE} FROM releases WHERE family = ? ORDER BY version DESC LIMIT 1", family)
        if row is None:
            raise StoreError(f"{self.directory} has no release of family {family}")
        return release_of(row)

    def release(self, family: str, version: int) -> memoryview | None:
        """The model of a release; None where there is none, it was deleted, or its stem is not the family's now."""
        query = """SELECT r.sha256 FROM releases r JOIN families f USING(family)
            WHERE r.family = ? AND r.version = ? AND r.version >= f.since AND r.kept"""
        row = self._one(query, family, version)
        return self._read(row[0]) if row else None

    def releases(self, family: str) -> list[Release]:
        """All releases in order, those too whose model was deleted."""
        rows = self._all(f"SELECT {RELEASE} FROM releases WHERE family = ? ORDER BY version", family)
        return [release_of(row) for row in rows]

    def note_scores(self, family: str, version: int, scores: Mapping[str, Any]) -> None:
        """Write down how good a release is."""
        with self._transaction() as rows:
            values = (json.dumps(dict(scores)), family, version)
            rows.execute("UPDATE releases SET scores = ? WHERE family = ? AND version = ?", values)

    # -- updates ----------------------------------------------------------------------
    def receive(self, row: UpdateRow, body: Blob) -> None:
        """Journal an update before it is folded; a known one stays as it is. Raises ValueError for a wrong body."""
        if not self._holds(row.sha256, len(body)) and digest(body) != row.sha256:
            raise ValueError(f"the body of update {row.id[:12]} does not have its hash")
        values = [json.dumps(dict(v)) if isinstance(v, Mapping) else v for v in _values(row)]
        with self._files:
            self._put([body], row.sha256)
            with self._transaction() as rows:
                rows.execute(f"INSERT OR IGNORE INTO updates({UPDATE}) VALUES(?{', ?' * 9})", values)

    def verdict_of(self, update_id: str) -> VerdictRow | None:
        """What became of an update; None for one that was never received."""
        row = self._one("SELECT verdict, reason, version FROM updates WHERE id = ?", update_id)
        return VerdictRow(*row) if row else None

    def accept(self, update_id: str, blob: Sequence[Blob], created_at: float) -> Release:
        """Make `blob` (its parts) the next release, by this update; an accepted one's release is returned again."""
        with self._files:
            sha256, size = self._put(blob), sum(map(len, blob))
            with self._transaction() as rows:
                found = rows.execute(
                    "SELECT verdict, family, version FROM updates WHERE id = ?", (update_id,)
                ).fetchone()
                if found is None or found[0] == "refused":
                    raise StoreError(f"update {update_id[:12]} was {found[0] if found else 'never received'}")
                verdict, family, version = found
                if verdict == "accepted":
                    query = f"SELECT {RELEASE} FROM releases WHERE family = ? AND version = ?"
                    return release_of(rows.execute(query, (family, version)).fetchone())
                release = Release(family, _next_version(rows, family), sha256, size, created_at, update_id)
                values = (release.version, update_id)
                rows.execute("UPDATE updates SET verdict = 'accepted', version = ? WHERE id = ?", values)
                return _insert_release(rows, release)

    def refuse(self, update_id: str, reason: str) -> None:
        """Settle a waiting update without folding it."""
        with self._transaction() as rows:
            settle = "UPDATE updates SET verdict = 'refused', reason = ? WHERE id = ? AND verdict = 'received'"
            rows.execute(settle, (reason, update_id))

    def pending(self) -> list[UpdateRow]:
        """The updates that wait to be folded, in the order of arrival."""
        rows = self._all(f"SELECT {UPDATE} FROM updates WHERE verdict = 'received' ORDER BY number")
        return [update_of(row) for row in rows]

    def update_body(self, sha256: str) -> memoryview:
        """The delta of a waiting update or of an edge's newest; raises StoreError where it is gone."""
        body = self._read(sha256)
        if body is None:
            raise StoreError(
                f"{self.blobs.path(sha256)} is missing: bring it back from a backup, or empty the directory"
            )
        return body

    def accepted_arrivals(self, family: str) -> list[UpdateRow]:
        """The newest accepted update of each edge, in the order of arrival, where body and base are on disk."""
        query = f"""SELECT {", ".join(f"u.{name}" for name in UPDATE.split(", "))}, r.sha256 FROM updates u
            JOIN releases r ON r.family = u.family AND r.version = u.base_version
            WHERE u.number IN ({_NEWEST}) AND u.kept AND r.kept ORDER BY u.number"""
        found = [(update_of(row[:-1]), row[-1]) for row in self._all(query, family)]
        return [update for update, base in found if self.blobs.has(update.sha256) and self.blobs.has(base)]

    def folded(self, family: str) -> dict[str, str]:
        """By edge, the id of its update that was accepted last."""
        return dict(self._all(f"SELECT edge, id FROM updates WHERE number IN ({_NEWEST}) ORDER BY edge", family))

    # -- what is deleted --------------------------------------------------------------
    def prune(self, family: str, keep_releases: int) -> None:
        """Delete models and deltas nobody needs again; every row stays.

        Kept are the newest `keep_releases` models, those under each edge's newest and each waiting update, and the
        deltas of these updates.
        """
        needed = f"FROM updates WHERE kept AND family = ? AND (verdict = 'received' OR number IN ({_NEWEST}))"
        with self._files:
            with self._transaction() as rows:
                before = _kept(rows)
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
                gone = before - _kept(rows)
            for sha256 in gone:  # after the commit: a row never names a blob that was deleted on purpose
                self.blobs.path(sha256).unlink(missing_ok=True)

    def _remove_unnamed(self) -> None:
        with self._transaction() as rows:
            self.blobs.keep_only(_kept(rows))
        for path in self.blobs.directory.glob("*.new"):
            path.unlink(missing_ok=True)

    # -- rows and files ---------------------------------------------------------------
    def _put(self, parts: Sequence[Blob], known: str = "") -> str:
        """Store a blob, on the disk itself where the store is durable; `known` is its hash where that was checked."""
        sha256 = known or digest(*parts)
        path = self.blobs.path(sha256)
        try:
            if self._holds(sha256, sum(map(len, parts))):
                _sync(path, self._durable)  # a pulled blob may be in the page cache only
            else:
                part = path.with_suffix(".new")
                with part.open("wb") as file:
                    file.writelines(parts)
                _sync(part, self._durable)
                part.replace(path)
            _sync(self.blobs.directory, self._durable)
        except OSError as error:
            raise StoreError(
                f"{path.parent} cannot be written: {error.strerror}; free space or check the disk"
            ) from None
        return sha256

    def _holds(self, sha256: str, size: int) -> bool:
        """Whether the blob is there whole. One that is has the content of its name: it was synced before a row named
        it, or pulled and verified since the store was opened, which removed all others.
        """
        path = self.blobs.path(sha256)
        return path.exists() and path.stat().st_size == size

    def _read(self, sha256: str) -> memoryview | None:
        try:
            return self.blobs.view(sha256)
        except FileNotFoundError:
            return None

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._rows, explained(self.directory):
            self._ledger.execute("BEGIN IMMEDIATE")
            try:
                yield self._ledger
                self._ledger.execute("COMMIT")
            except BaseException:  # an interrupt, too, must leave all of it or nothing
                if self._ledger.in_transaction:
                    self._ledger.execute("ROLLBACK")
                raise

    def _all(self, query: str, *values: object) -> list[Any]:
        with self._rows, explained(self.directory):
            return self._ledger.execute(query, values).fetchall()

    def _one(self, query: str, *values: object) -> Any:
        rows = self._all(query, *values)
        return rows[0] if rows else None


def _sync(path: Path, durable: bool) -> None:
    """Wait until a file's content, or a directory's names, are on the disk."""
    if durable:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _kept(rows: sqlite3.Connection) -> set[str]:
    """The blobs that some row needs."""
    query = """SELECT sha256 FROM releases INDEXED BY releases_kept WHERE kept
        UNION SELECT sha256 FROM updates INDEXED BY updates_kept WHERE kept UNION SELECT stem FROM families"""
    return {sha256 for (sha256,) in rows.execute(query)}


def _next_version(rows: sqlite3.Connection, family: str) -> int:
    query = "SELECT 1 + COALESCE(MAX(version), 0) FROM releases WHERE family = ?"
    return int(rows.execute(query, (family,)).fetchone()[0])


def _insert_release(rows: sqlite3.Connection, release: Release) -> Release:
    values = (release.family, release.version, release.sha256, release.size, release.created_at, release.update_id)
    rows.execute(f"INSERT INTO releases({RELEASE}) VALUES(?, ?, ?, ?, ?, ?, '{{}}')", values)
    return release


def _values(row: UpdateRow) -> list[Any]:
    return [getattr(row, name) for name in UPDATE.split(", ")]
