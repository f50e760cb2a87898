"""An outbox's rows: all between two commits is one transaction, which the disk keeps or refuses as a whole.

Reads see what is not committed yet. A refused transaction is undone: windows that came in it are lost, what they had
pushed out is back, and what had ended is deleted again with the next one.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, suppress

from device_agent.outbox.file import Opened

SLACK = 1024  # free pages of 4 KiB that the file keeps for what comes next
GIVEN_BACK = 256  # pages at most that a commit is followed by: some ms


class Rows:
    """The table of windows. `count` and `size` (bytes of records) are of all that are here, committed or not."""

    def __init__(self, opened: Opened, *, thin: bool) -> None:
        """`thin` keeps the index that `thinnest` goes by."""
        self._db = opened.db
        self.count, self.size = opened.windows, opened.size
        self._new: dict[int, int] = {}  # seq: size, of the open transaction
        self._new_size = 0
        self._pushed_out: dict[int, int] = {}  # seq: size, of older windows that gave way in it
        self._gone: set[int] = set()  # seqs of windows that ended, whose deletion is not committed
        # the lowest bit of a seq: half of all have 1, a quarter 2, ...: each step leaves every second one
        index = "CREATE INDEX IF NOT EXISTS thin ON outbox (seq & -seq, seq)" if thin else "DROP INDEX IF EXISTS thin"
        self._db.execute(index)

    # -- the transaction --------------------------------------------------------------
    @property
    def uncommitted(self) -> int:
        """Windows that a crash would take."""
        return len(self._new)

    @property
    def uncommitted_size(self) -> int:
        """Bytes of their records."""
        return self._new_size

    @property
    def free(self) -> int:
        """Bytes within the file that the next records take before it grows."""
        return 4096 * int(self._db.execute("PRAGMA freelist_count").fetchone()[0])

    def begin(self) -> None:
        """Open a transaction where none is, with what the last one could not delete."""
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")
            self._delete_rows(self._gone)

    def commit(self, totals: Mapping[str, int]) -> None:
        """Keep the open transaction, and the totals as they are after it."""
        self._db.executemany("REPLACE INTO meta VALUES (?, ?)", totals.items())
        self._db.execute("COMMIT")
        self._clear()
        self._gone.clear()

    def undo(self) -> tuple[list[int], int]:
        """Undo the open transaction; returns the seqs that are lost with it, and how many windows are back."""
        with suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        lost, back = list(self._new), len(self._pushed_out)
        self.count += back - len(lost)
        self.size += sum(self._pushed_out.values()) - self._new_size
        self._clear()
        return lost, back

    def _clear(self) -> None:
        self._new.clear()
        self._pushed_out.clear()
        self._new_size = 0

    def give_back(self) -> bool:
        """Shorten the file a little where much of it is free, between transactions; False where it is short enough."""
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        if free <= SLACK:
            return False
        self._db.executescript(f"PRAGMA incremental_vacuum({min(GIVEN_BACK, free)})")
        if free - GIVEN_BACK <= SLACK:  # the file itself shortens when the log goes into it
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return bool(free - GIVEN_BACK > SLACK)

    # -- windows ----------------------------------------------------------------------
    def exchange(self, seq: int, size: int, instead_of: Iterable[tuple[int, int]]) -> Collection[int]:
        """Count a window that is to be inserted, and those that go for it, by seq and size; returns the seqs of those
        that `undo` brings back.
        """
        older = self._uncount(instead_of)
        self._pushed_out.update(older)
        self._new[seq] = size
        self._new_size += size
        self.count += 1
        self.size += size
        return older

    def insert(self, seq: int, captured_at: float, record: bytes, instead_of: Iterable[tuple[int, int]]) -> None:
        """Do what was counted."""
        self.begin()
        self._delete_rows(victim for victim, _ in instead_of)
        self._db.execute(
            "INSERT INTO outbox (seq, captured_at, size, crc, record) VALUES (?, ?, ?, ?, ?)",
            (seq, captured_at, len(record), zlib.crc32(record), record),
        )

    def delete(self, windows: Sequence[tuple[int, int]]) -> None:
        """Delete these, seq and size each; they are gone from here on, whatever the disk says."""
        self._gone.update(self._uncount(windows))
        self.begin()
        self._delete_rows(seq for seq, _ in windows)

    def _uncount(self, windows: Iterable[tuple[int, int]]) -> dict[int, int]:
        """Windows leave; returns those that were committed, by seq their size."""
        older: dict[int, int] = {}
        for seq, size in windows:
            self.count -= 1
            self.size -= size
            if self._new.pop(seq, None) is None:
                older[seq] = size
            else:
                self._new_size -= size
        return older

    def _delete_rows(self, seqs: Iterable[int]) -> None:
        self._db.executemany("DELETE FROM outbox WHERE seq = ?", ((seq,) for seq in seqs))

    def size_of(self, seq: int) -> int | None:
        """Bytes of a window's record; None where it is not here."""
        row = self._db.execute("SELECT size FROM outbox WHERE seq = ?", (seq,)).fetchone()
        return None if row is None or self._hides(seq) else int(row[0])

    def read(self, seq: int) -> tuple[float, int, bytes, bool] | None:
        """When a window was captured, its size, its record, and whether that is as it was written; None where it is not
        here.
        """
        row = self._db.execute("SELECT captured_at, size, crc, record FROM outbox WHERE seq = ?", (seq,)).fetchone()
        if row is None or self._hides(seq):
            return None
        captured_at, size, crc, record = row
        return captured_at, size, record, zlib.crc32(record) == crc

    def _hides(self, seq: int) -> bool:
        """Whether a window is deleted, and only the disk does not know."""
        return seq in self._gone and not self._db.in_transaction

    def seqs(self, first: int, last: int, limit: int) -> list[int]:
        """Up to `limit` seqs from `first` to `last`, in their order."""
        query = "SELECT seq FROM outbox WHERE seq BETWEEN ? AND ? ORDER BY seq LIMIT ?"
        hidden = 0 if self._db.in_transaction else len(self._gone)
        found = self._db.execute(query, (first, last, limit + hidden)).fetchall()
        return [seq for (seq,) in found if not self._hides(seq)][:limit]

    def first(self) -> int | None:
        """The smallest seq."""
        return next((seq for seq, _, _ in self.oldest()), None)

    def captured_at(self, seq: int) -> float | None:
        row = self._db.execute("SELECT captured_at FROM outbox WHERE seq = ?", (seq,)).fetchone()
        return None if row is None else float(row[0])

    def oldest(self) -> Iterator[tuple[int, int, float]]:
        """Seq, size and capture time of each window by seq; to be left before anything is changed."""
        return self._each("seq")

    def thinnest(self) -> Iterator[tuple[int, int, float]]:
        """The same, every second one first: odd seqs, then odd multiples of 2, of 4, ..., each from the oldest on."""
        return self._each("seq & -seq, seq")

    def _each(self, order: str) -> Iterator[tuple[int, int, float]]:
        with closing(self._db.execute(f"SELECT seq, size, captured_at FROM outbox ORDER BY {order}")) as rows:
            yield from (row for row in rows if not self._hides(row[0]))
