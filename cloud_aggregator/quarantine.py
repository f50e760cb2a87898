"""Updates that are held for a person to look at: journalled, their deltas kept, bounded in number and bytes."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from cloud_aggregator.journal import settle
from cloud_aggregator.store import Store

PUSHED_OUT = "pushed out of a full quarantine; it was held for "
_HELD = "FROM updates INDEXED BY updates_kept WHERE kept AND verdict = 'quarantined'"
BY_HAND = "dropped by hand; it was held for "


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much is held at most."""

    updates: int
    size: int  # bytes of deltas


class Quarantine:
    """The held updates of a store. Where there are too many, the edge that has most loses its oldest."""

    def __init__(self, store: Store, bounds: Bounds) -> None:
        self._store, self._bounds = store, bounds

    def hold(self, update_id: str, reason: str, norm: float) -> int:
        """Hold an update that waits; returns how many others (or it itself) were pushed out."""
        with self._store.disk.changing() as rows:
            settle(rows, "received", "quarantined", update_id, reason, norm)
            pushed = 0
            while self._full(rows):
                query = f"""SELECT id, reason, COUNT(*) OVER (PARTITION BY edge) AS has {_HELD}
                    ORDER BY has DESC, number LIMIT 1"""
                oldest, was, _ = rows.execute(query).fetchone()
                settle(rows, "quarantined", "dropped", oldest, PUSHED_OUT + was)
                pushed += 1
            return pushed

    def drop(self, update_id: str) -> bool:
        """Give up a held update; False where it is not held."""
        known = self._store.journal.verdict_of(update_id)
        if known is None:
            return False
        with self._store.disk.changing() as rows:
            return settle(rows, "quarantined", "dropped", update_id, BY_HAND + known.reason)

    def drop_all(self) -> int:
        """Give up all of them; returns how many there were."""
        return sum(self.drop(update_id) for update_id in self._held())

    def count(self) -> int:
        return len(self._held())

    def _held(self) -> list[str]:
        query = f"SELECT id {_HELD} ORDER BY number"
        return [update_id for (update_id,) in self._store.ledger.all(query)]

    def _full(self, rows: sqlite3.Connection) -> bool:
        query = f"SELECT COUNT(*), COALESCE(SUM(size), 0) {_HELD}"
        count, size = rows.execute(query).fetchone()
        return bool(count > self._bounds.updates or size > self._bounds.size)
