"""Numbers that the edge will never see, kept until the edge has noted them: so it can tell shed from lost.

What was shed between two flushes is collected in memory and written with the transaction that sheds it. Runs that touch
are one gap, so there is at most one more of them than windows that wait or were answered meanwhile. A gap that was told
is not joined to any more, as its receipt names it by both ends.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from device_agent.outbox.under_way import UnderWay
from megace2_iot.messages import Gap

MOST_TOLD = 2048  # gaps under way at a time: an edge sends receipts every 2 s


@dataclass(slots=True)
class _Run:
    first: int
    last: int
    shed: Counter[str] = field(default_factory=Counter)


def _reasons(shed: str) -> Counter[str]:
    """Windows by reason; none where the disk changed what was written of it."""
    try:
        return Counter({str(reason): int(count) for reason, count in json.loads(shed).items()})
    except (ValueError, TypeError, AttributeError):
        return Counter()


class Gaps:
    """One outbox's gaps, `limit` at most; beyond it the oldest are given up, and counted in `forgotten` (windows)."""

    def __init__(self, db: sqlite3.Connection, limit: int) -> None:
        self._db, self._limit = db, limit
        self._new: list[_Run] = []  # since the last commit
        self._for_now: list[_Run] = []  # likewise, unless that transaction is undone
        self._told = UnderWay()  # by their first seq
        self._count = 0
        self.forgotten = 0
        self.are_behind = False  # more are to be told than could be: what waits behind them must not overtake them
        self._recount()

    def __len__(self) -> int:
        return self._count + len(self._new) + len(self._for_now)

    def note(self, first: int, last: int, reason: str, *, for_now: bool = False) -> None:
        """These seqs will not be sent; `for_now`: unless the open transaction is undone."""
        runs = self._for_now if for_now else self._new
        run = runs[-1] if runs else None
        if run is not None and run.last == first - 1:
            run.last = last
        elif run is not None and run.first == last + 1:
            run.first = first
        else:
            run = _Run(first, last)
            runs.append(run)
        run.shed[reason] += last - first + 1

    # -- with the outbox's transaction ------------------------------------------------
    def write(self) -> None:
        """Write what is new, inside a transaction; until `committed` it is written again with the next one."""
        for run in (*self._new, *self._for_now):
            self._join(run)
        while self._count > self._limit:
            first, _, shed = self._db.execute("SELECT first, last, shed FROM gaps ORDER BY first LIMIT 1").fetchone()
            self._delete(first)
            self.forgotten += sum(_reasons(shed).values())

    def committed(self) -> None:
        self._new.clear()
        self._for_now.clear()

    def undone(self) -> None:
        """The transaction was undone: what gave way in it is back."""
        self._for_now.clear()
        self._recount()

    def _recount(self) -> None:
        self._count = int(self._db.execute("SELECT count(*) FROM gaps").fetchone()[0])

    def _join(self, run: _Run) -> None:
        """Write a run as one gap with those that it touches."""
        first, last, shed = run.first, run.last, Counter(run.shed)
        below = "SELECT first, last, shed FROM gaps WHERE first < ? ORDER BY first DESC LIMIT 1"
        if (row := self._db.execute(below, (first,)).fetchone()) and row[1] == first - 1 and row[0] not in self._told:
            self._delete(row[0])
            first, shed = row[0], shed + _reasons(row[2])
        above = "SELECT first, last, shed FROM gaps WHERE first = ?"
        if (row := self._db.execute(above, (last + 1,)).fetchone()) and row[0] not in self._told:
            self._delete(row[0])
            last, shed = row[1], shed + _reasons(row[2])
        self._db.execute("REPLACE INTO gaps VALUES (?, ?, ?)", (first, last, json.dumps(shed)))
        self._count += 1

    def _delete(self, first: int) -> None:
        self._count -= self._db.execute("DELETE FROM gaps WHERE first = ?", (first,)).rowcount
        self._told.free(first)

    # -- to the edge ------------------------------------------------------------------
    def lowest(self) -> int | None:
        """The first seq of those that the edge has not noted yet."""
        (written,) = self._db.execute("SELECT min(first) FROM gaps").fetchone()
        firsts = [run.first for run in (*self._new, *self._for_now)] + ([] if written is None else [written])
        return min(firsts, default=None)

    def due(self, now: float, limit: int, below: int, beyond: int) -> list[Gap]:
        """Up to `limit` gaps to tell at `now` that begin below the one seq or beyond the other, oldest first."""
        waiting = set(self._told) - set(self._told.due(now))
        room = min(limit, MOST_TOLD - len(waiting))
        found: list[Gap] = []
        for where, seq in (("first < ?", below), ("first > ?", max(below - 1, beyond))):
            if (room_left := room - len(found)) > 0:
                query = f"SELECT first, last, shed FROM gaps WHERE {where} ORDER BY first LIMIT ?"
                rows = self._db.execute(query, (seq, room_left + len(waiting))).fetchall()
                kept = [row for row in rows if row[0] not in waiting][:room_left]
                found += [Gap(first=first, last=last, shed=_reasons(shed)) for first, last, shed in kept]
        self.are_behind = len(found) >= room
        return found

    def mark_told(self, gaps: Iterable[Gap], now: float, delay: float) -> None:
        """These are under way; without a receipt they are due again `delay` s later."""
        self._told.mark((gap.first for gap in gaps), now, delay)

    def tell_again(self) -> None:
        """All are due again at once: their receipts may be lost with a link."""
        self._told.reset()

    def forget(self, first: int, last: int) -> None:
        """The edge has it on its disk; nothing happens where it has grown since an earlier run told it."""
        if self._db.execute("SELECT 1 FROM gaps WHERE first = ? AND last = ?", (first, last)).fetchone():
            self._delete(first)
