"""An outbox's books: windows, gaps and totals, which change together or not at all.

The totals are those of the file's life: `accepted`, and by its `End` each window that is here no more. So at every
commit the accepted are those that wait and those that ended.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal, get_args

from device_agent.outbox.file import Fsync, OutboxError, close_database, explain, is_damage, open_database, set_aside
from device_agent.outbox.gaps import Gaps
from device_agent.outbox.rows import Rows

_log = logging.getLogger("megace2.outbox")
COMMIT_WINDOWS, COMMIT_BYTES = 256, 4 << 20  # accepted since the last commit: no more are waited for
Shed = Literal["full", "expired", "link", "dropped", "damaged"]
End = Literal["answered", "kept", "oversized", "unreadable", "full", "expired", "link", "dropped", "damaged"]
SHED: tuple[Shed, ...] = get_args(Shed)
ENDS: tuple[End, ...] = get_args(End)


class Store:
    """The books of one outbox. With `interval` 0 each change is committed at once, else by `flush`."""

    def __init__(self, path: Path, fsync: Fsync, interval: float, *, most_gaps: int, thin: bool) -> None:
        self._path, self._interval = path, interval
        self._opened = open_database(path, fsync)
        self._is_open = True
        self.epoch = self._opened.numbering.epoch
        self.totals: dict[str, int] = dict.fromkeys(("accepted", *ENDS), 0) | self._opened.totals
        self._at_start = dict(self.totals)
        self._lost: list[int] = []
        self._refuses = self.unsaved = False
        try:
            self.rows = Rows(self._opened, thin=thin)
            self.gaps = Gaps(self._opened.db, most_gaps)
        except sqlite3.Error as error:
            close_database(self._opened)
            raise explain(path, error) from error
        if skipped := self._opened.numbering.skipped:
            self.gaps.note(*skipped, "restart")
            self.unsaved = True

    def close(self) -> None:
        """Commit, and close the file; may be called twice."""
        if not self._is_open:
            return
        try:
            self.flush()
        except OutboxError as error:
            _log.error("%s", error)
        self._is_open = False
        close_database(self._opened)

    @property
    def last(self) -> int:
        """The last seq that was given out."""
        return self._opened.numbering.last

    @property
    def accepted(self) -> int:
        """Windows of this run that are committed."""
        return self.totals["accepted"] - self._at_start["accepted"] - self.rows.uncommitted

    def ended(self, how: End) -> int:
        """Windows that ended so in this run."""
        return self.totals[how] - self._at_start[how]

    def take_lost(self) -> list[int]:
        """Seqs of windows that the disk refused after they were accepted, since the last call."""
        lost, self._lost = self._lost, []
        return lost

    # -- what changes -----------------------------------------------------------------
    def next_seq(self) -> int:
        """The seq of a new window. Raises OSError where the disk cannot promise that it is used once."""
        return self._opened.numbering.next()

    def keep(self, seq: int, record: bytes, captured_at: float, instead_of: Sequence[tuple[int, int]]) -> None:
        """A new window, and what gives way to it, by seq and size."""
        self.totals["accepted"] += 1
        older = self.rows.exchange(seq, len(record), instead_of)
        for victim, _ in instead_of:
            self.totals["full"] += 1
            self.gaps.note(victim, victim, "full", for_now=victim in older)
        self.rows.insert(seq, captured_at, record, instead_of)
        self._accepted()

    def refuse(self, seq: int) -> None:
        """A new window that is shed at once: it counts as accepted and as shed, and the edge is told its seq."""
        self.totals["accepted"] += 1
        self._note_end(seq, "full")
        self._accepted()

    def leave(self, windows: Sequence[tuple[int, int]], how: End) -> None:
        """These end, by seq and size. What a failing disk keeps is deleted with the next commit, and is not shown."""
        for seq, _ in windows:
            self._note_end(seq, how)
        try:
            self.unsaved = True
            self.rows.delete(windows)
            if not self._interval:
                self._commit()
        except sqlite3.Error as error:
            if is_damage(error):
                raise
            self._undo()
            if not self._refuses:  # once, not at every answer
                _log.warning("%s", explain(self._path, error))
            self._refuses = True

    def forget_gap(self, first: int, last: int) -> None:
        """The edge has noted it."""
        self.rows.begin()
        self.gaps.forget(first, last)
        self.unsaved = True
        if not self._interval:
            self._commit()

    def _note_end(self, seq: int, how: End) -> None:
        self.totals[how] += 1
        if how != "answered":
            self.gaps.note(seq, seq, how)

    def _accepted(self) -> None:
        self.unsaved = True
        rows = self.rows
        if not self._interval or rows.uncommitted >= COMMIT_WINDOWS or rows.uncommitted_size >= COMMIT_BYTES:
            self._commit()

    # -- to the disk ------------------------------------------------------------------
    def flush(self) -> None:
        """Commit what is not committed, and give some of the disk back. Raises `OutboxError`."""
        if self.unsaved:
            with self.guarded():
                self._commit()
                self.unsaved = self.rows.give_back()

    def _commit(self) -> None:
        self.rows.begin()
        self.gaps.write()
        self.rows.commit({**self.totals, "seq": self.last})
        self.gaps.committed()
        self._refuses = False

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Tell the database's errors as `OutboxError`; a damaged database is moved aside for the next start."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            self._undo()
            if is_damage(error):
                self._opened.db.close()
                set_aside(self._path)
            raise explain(self._path, error) from error

    def _undo(self) -> None:
        """The disk refused a transaction: its windows are lost, and the edge is told; what they pushed out is back."""
        lost, back = self.rows.undo()
        self.totals["full"] -= back
        for seq in lost:
            self.gaps.note(seq, seq, "disk")
        self.totals["accepted"] -= len(lost)
        self._lost += lost
        with suppress(sqlite3.Error):
            self.gaps.undone()
