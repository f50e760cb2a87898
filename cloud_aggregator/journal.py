"""The cloud's journal: every update on its way from the offer to its verdict.

An update is journalled (body, then row) before it is folded. Accepting it writes the new model, then commits release
and verdict in one transaction: after a SIGKILL at any instant an update was folded once or waits in `pending`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

from cloud_aggregator.disk import LAG, Disk, insert_release, next_version
from cloud_aggregator.ledger import StoreError
from cloud_aggregator.rows import RELEASE, UPDATE, Release, UpdateRow, VerdictRow, release_of, update_of
from megace2_iot.blobs import Blob, digest

RELEASED = "released by hand; it was held for "

# The update of each edge that was folded last, since aggregation began anew. `kept` is always true for it, and makes
# the index of kept rows serve: the time does not grow with the ledger.
NEWEST = """SELECT number FROM (SELECT u.number, MAX(u.version) FROM updates u INDEXED BY updates_kept
    JOIN families f USING(family) WHERE u.family = ? AND u.verdict = 'accepted' AND u.version > f.restart AND u.kept
    GROUP BY u.edge)"""


class Journal:
    """The updates of one directory. All calls block, from any thread."""

    def __init__(self, disk: Disk) -> None:
        self._disk, self._ledger, self._files = disk, disk.ledger, disk.files

    def receive(self, row: UpdateRow, body: Blob) -> None:
        """Journal an update before it is folded; a known one stays as it is. Raises ValueError for a wrong body."""
        if not self._files.holds(row.sha256, len(body)) and digest(body) != row.sha256:
            raise ValueError(f"the body of update {row.id[:12]} does not have its hash")
        with self._files.lock:
            self._files.put([body], row.sha256)
            with self._ledger.transaction() as rows:
                rows.execute(f"INSERT OR IGNORE INTO updates({UPDATE}) VALUES(?{', ?' * 9})", row.values())

    def find(self, update_id: str) -> tuple[UpdateRow, VerdictRow] | None:
        """An update and what became of it; None for one that was never offered."""
        row = self._ledger.one(f"SELECT {UPDATE}, verdict, reason, version FROM updates WHERE id = ?", update_id)
        return (update_of(row[:10]), VerdictRow(*row[10:])) if row else None

    def verdict_of(self, update_id: str) -> VerdictRow | None:
        """What became of an update; None for one that was never offered."""
        known = self.find(update_id)
        return known[1] if known else None

    def accept(self, update_id: str, blob: Sequence[Blob], created_at: float, norm: float | None = None) -> Release:
        """Make `blob` (its parts) the next release, by this update; an accepted one's release is returned again."""
        with self._files.lock:
            sha256, size = self._files.put(blob), sum(map(len, blob))
            with self._ledger.transaction() as rows:
                query = "SELECT verdict, family, version, reason FROM updates WHERE id = ?"
                found = rows.execute(query, (update_id,)).fetchone()
                if found is None or found[0] in ("refused", "dropped"):
                    raise StoreError(f"update {update_id[:12]} was {found[0] if found else 'never received'}")
                verdict, family, version, was = found
                if verdict == "accepted":
                    query = f"SELECT {RELEASE} FROM releases WHERE family = ? AND version = ?"
                    return release_of(rows.execute(query, (family, version)).fetchone())
                release = Release(family, next_version(rows, family), sha256, size, created_at, update_id)
                lag = LAG.format("updates.family", "updates.base_version")
                rows.execute(
                    "UPDATE updates SET verdict = 'accepted', reason = ?, version = ?, norm = ?, decided_at = ?,"
                    f" lag = {lag} WHERE id = ?",
                    (was and RELEASED + was, release.version, norm, created_at, update_id),
                )
                return insert_release(rows, release)

    def refuse(self, update_id: str, reason: str, norm: float | None = None) -> None:
        """Settle a waiting update without folding it; its delta goes."""
        with self._disk.changing() as rows:
            settle(rows, "received", "refused", update_id, reason, norm)

    def turn_away(self, row: UpdateRow, reason: str, lag: int | None) -> None:
        """Write an update down that is refused before its body came; a known one stays as it is."""
        with self._ledger.transaction() as rows:
            columns = f"INSERT OR IGNORE INTO updates({UPDATE}, verdict, reason, kept, decided_at, lag)"
            values = (*row.values(), "refused", reason, 0, row.received_at, lag)
            rows.execute(f"{columns} VALUES(?{', ?' * 14})", values)

    def pending(self) -> list[UpdateRow]:
        """The updates that wait to be folded, in the order of arrival."""
        rows = self._ledger.all(f"SELECT {UPDATE} FROM updates WHERE verdict = 'received' ORDER BY number")
        return [update_of(row) for row in rows]

    def body_of(self, sha256: str) -> memoryview:
        """The delta of an update that waits, is held, or is an edge's newest; raises StoreError where it is gone."""
        body = self._files.read(sha256)
        if body is None:
            raise StoreError(
                f"{self._files.blobs.path(sha256)} is missing: bring it back from a backup, or empty the directory"
            )
        return body

    def accepted_arrivals(self, family: str) -> list[tuple[UpdateRow, float]]:
        """The newest update of each edge with the time when it was folded, in that order, where body and base are on
        disk.
        """
        query = f"""SELECT {", ".join(f"u.{name}" for name in UPDATE.split(", "))}, u.decided_at, r.sha256
            FROM updates u JOIN releases r ON r.family = u.family AND r.version = u.base_version
            WHERE u.number IN ({NEWEST}) AND u.kept AND r.kept ORDER BY u.version"""
        found = [(update_of(row[:10]), row[10], row[11]) for row in self._ledger.all(query, family)]
        return [
            (row, at) for row, at, base in found if self._files.blobs.has(row.sha256) and self._files.blobs.has(base)
        ]

    def folded(self, family: str) -> dict[str, str]:
        """By edge, the id of its update that was folded last and that the newest release contains."""
        query = f"SELECT edge, id FROM updates WHERE number IN ({NEWEST}) ORDER BY edge"
        return dict(self._ledger.all(query, family))

    def norms(self, family: str, count: int) -> list[float]:
        """The norms of the updates that were folded last, newest first, as far as the newest release stands on them."""
        query = """SELECT u.norm FROM updates u JOIN releases r ON r.family = u.family AND r.version = u.version
            WHERE u.family = ? AND u.verdict = 'accepted' AND u.norm IS NOT NULL AND r.standing
            ORDER BY u.version DESC LIMIT ?"""
        return [norm for (norm,) in self._ledger.all(query, family, count)]


def settle(
    rows: sqlite3.Connection, before: str, after: str, update_id: str, reason: str, norm: float | None = None
) -> bool:
    """Change the verdict of an update that has the verdict `before`; one that is held keeps its delta, others do not.

    `norm` is written where it is given. Returns whether there was such an update.
    """
    lag = LAG.format("updates.family", "updates.base_version")
    query = f"""UPDATE updates SET verdict = ?, reason = ?, decided_at = ?, norm = COALESCE(?, norm), kept = ?,
        lag = COALESCE(lag, {lag}) WHERE id = ? AND verdict = ?"""
    values = (after, reason, time.time(), norm, after == "quarantined", update_id, before)
    return rows.execute(query, values).rowcount > 0
