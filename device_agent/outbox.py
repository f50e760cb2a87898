"""The device's outbox: a window is committed to SQLite before it is sent, and leaves when it is answered or shed.

On disk are the windows; which of them are under way is known in memory only, so that sending and re-sending write
nothing, and after a restart every unanswered window is due. Accepted windows survive the process's death at any moment
(WAL, synchronous=NORMAL); a power cut may take the last of them.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from device_agent.outbox_file import Opened, OutboxError, close_database, explain, is_damage, open_database, set_aside

__all__ = ["Due", "Outbox", "OutboxError", "OutboxFull", "resend_delay"]

_log = logging.getLogger("megace2.outbox")
FIRST_RESEND = 5.0  # s
LAST_RESEND = 60.0  # s
RESERVE = 16 << 20  # bytes left free on the disk: without room for its log SQLite cannot even delete
SOON = 0.001  # s, the shortest wait that `next_due` tells
WhenFull = Literal["drop_oldest", "drop_newest"]


class OutboxFull(OutboxError):
    """The outbox is full and keeps what it has; this window was not accepted."""


@dataclass(frozen=True, slots=True)
class Due:
    """A window to send now; `attempts` is how often this run sent it before."""

    seq: int
    record: bytes
    captured_at: float  # unix s
    attempts: int


@dataclass(slots=True)
class _Sent:
    """A window under way: when it was sent (unix s), and how long its answer may take (s)."""

    attempts: int
    sent_at: float
    delay: float

    def wait(self, now: float) -> float:
        """Seconds until it is due again; none when the clock went back, as nobody knows then."""
        return max(0.0, self.delay - (now - self.sent_at)) if now >= self.sent_at else 0.0


def resend_delay(attempts: int, p99: float) -> float:
    """Seconds to wait for an answer after `attempts` earlier sendings, where 99 % are answered within `p99` s."""
    return min(LAST_RESEND, max(FIRST_RESEND, 4 * p99) * 2.0 ** min(attempts, 10))


class Outbox:
    """One device's outbox; one process at a time, one thread. Bounds: windows, bytes of records, age in s.

    Age is by `captured_at`, judged from the oldest seq on. `shed` counts what was dropped: `full` for want of room,
    `expired` for its age, `damaged` where the disk changed a record's bytes, `link` because it was too slow.
    """

    def __init__(
        self,
        path: Path,
        opened: Opened,
        *,
        max_packets: int,
        max_bytes: int,
        max_age: float,
        when_full: WhenFull,
        reserve: int,
    ) -> None:
        self._path, self._db, self.epoch = path, opened.db, opened.epoch
        self._max_packets, self._max_bytes, self._max_age, self._when_full = max_packets, max_bytes, max_age, when_full
        self._reserve = reserve
        self._sent: dict[int, _Sent] = {}
        self._unsent_from = 0  # every window before this seq was sent
        self._max_unanswered = 1  # as `due` was told last
        self._gone: set[int] = set()  # to be deleted: more than the newest only while the disk refuses
        self._shed = {"full": 0, "expired": 0, "damaged": 0, "link": 0}
        self._count, self._bytes = opened.windows, opened.size

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        max_packets: int,
        max_bytes: int,
        max_age: float,
        when_full: WhenFull = "drop_oldest",
        reserve: int = RESERVE,
    ) -> Outbox:
        """Open or make the outbox at `path`; a damaged one is moved aside. Raises `OutboxError`."""
        return cls(
            path,
            open_database(path),
            max_packets=max_packets,
            max_bytes=max_bytes,
            max_age=max_age,
            when_full=when_full,
            reserve=reserve,
        )

    def close(self) -> None:
        """Close the file; may be called twice."""
        close_database(self._db)

    def __len__(self) -> int:
        return self._count

    @property
    def shed(self) -> Mapping[str, int]:
        """Windows dropped unanswered since this object was made, by reason."""
        return self._shed

    # -- in ---------------------------------------------------------------------------
    def accept(self, record: bytes, captured_at: float) -> int:
        """Commit one window; returns its seq. Raises `OutboxFull` or another `OutboxError`: then it is not kept."""
        with self._guarded():
            self._expire(captured_at - self._max_age)
            full = self._count >= self._max_packets or self._bytes + len(record) > self._max_bytes
            if full and (self._when_full == "drop_newest" or len(record) > self._max_bytes):
                self._shed["full"] += 1
                raise OutboxFull(
                    f"outbox {self._path}: full with {self._count} windows of {self._bytes} bytes, one of {len(record)}"
                    " is dropped: see why the edge does not answer, or raise outbox_packets or outbox_bytes"
                )
            if not full:  # else what goes makes room inside the file
                self._check_disk(len(record))
            victims = self._oldest_beyond(len(record)) if full else []
            seq = self._insert(record, captured_at, [seq for seq, _ in victims])
            for victim, size in victims:
                self._uncount(victim, size, "full")
            self._count += 1
            self._bytes += len(record)
        return seq

    def _check_disk(self, size: int) -> None:
        """Raise `OutboxError` where `size` bytes more would eat into the reserve; the file's free pages do not."""
        if shutil.disk_usage(self._path.parent).free - size >= self._reserve:
            return
        free, page = (self._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("freelist_count", "page_size"))
        if free * page < size + 2 * page:
            raise OutboxError(
                f"outbox {self._path}: less than {self._reserve >> 20} MiB are free on its disk, a window is not kept:"
                " free space there, or lower outbox_bytes"
            )

    def _oldest_beyond(self, size: int) -> list[tuple[int, int]]:
        """Seq and size of the oldest windows that must go before one of `size` bytes fits."""
        victims, count, total = [], self._count, self._bytes + size
        with closing(self._db.execute("SELECT seq, size FROM outbox ORDER BY seq")) as oldest:
            for seq, its_size in oldest:
                if count < self._max_packets and total <= self._max_bytes:
                    break
                if seq not in self._gone:
                    victims.append((seq, its_size))
                    count, total = count - 1, total - its_size
        return victims

    def _insert(self, record: bytes, captured_at: float, instead_of: list[int]) -> int:
        """One commit for what comes and what goes, so that a full disk takes neither."""
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("DELETE FROM outbox WHERE seq = ?", ((seq,) for seq in instead_of))
        inserted = self._db.execute(
            "INSERT INTO outbox (captured_at, size, crc, record) VALUES (?, ?, ?, ?)",
            (captured_at, len(record), zlib.crc32(record), record),
        )
        self._db.execute("COMMIT")
        return int(inserted.lastrowid or 0)

    # -- out --------------------------------------------------------------------------
    def due(self, now: float, limit: int, *, max_unanswered: int) -> list[Due]:
        """Up to `limit` windows to send at `now` (unix s), oldest first: never sent, or unanswered for too long.

        Never more than `max_unanswered` are under way at a time; sending one of them again takes no more room.
        """
        self._max_unanswered = max_unanswered
        with self._guarded():
            self._expire(now - self._max_age)
            seqs = [seq for seq, sent in self._sent.items() if not sent.wait(now)]
            seqs += self._unsent(min(limit, max_unanswered - len(self._sent)))
            read = [self._read(seq) for seq in sorted(seqs)[:limit]]
        return [due for due in read if due is not None]

    def _unsent(self, limit: int) -> list[int]:
        """The first `limit` seqs that were not sent in this run."""
        if limit <= 0 or self._count <= len(self._sent):
            return []
        known = len(self._sent) + len(self._gone)
        found = self._db.execute(
            "SELECT seq FROM outbox WHERE seq >= ? ORDER BY seq LIMIT ?", (self._unsent_from, known + limit)
        ).fetchall()
        unsent = [seq for (seq,) in found if seq not in self._sent and seq not in self._gone]
        if unsent:
            self._unsent_from = unsent[0]
        return unsent[:limit]

    def _read(self, seq: int) -> Due | None:
        """One window; None where its record is not what was written, and then it is shed."""
        row = self._db.execute("SELECT captured_at, size, crc, record FROM outbox WHERE seq = ?", (seq,)).fetchone()
        captured_at, size, crc, record = row
        if zlib.crc32(record) != crc:
            _log.error("outbox %s: window %d was changed by the disk and is dropped", self._path, seq)
            self._delete([(seq, size)], "damaged")
            return None
        sent = self._sent.get(seq)
        return Due(seq, record, captured_at, sent.attempts if sent else 0)

    def mark_sent(self, seqs: Iterable[int], now: float, delay: float) -> None:
        """These windows are under way; without an answer they are due again at `now + delay`. Kept in memory only."""
        for seq in seqs:
            if sent := self._sent.get(seq):
                sent.attempts, sent.sent_at, sent.delay = sent.attempts + 1, now, delay
            elif self._size_of(seq) is not None:
                self._sent[seq] = _Sent(1, now, delay)

    def next_due(self, now: float) -> float | None:
        """Seconds (never 0) until `due` has something; None when nothing waits."""
        if self._count > len(self._sent) and len(self._sent) < self._max_unanswered:
            return SOON
        waits = [sent.wait(now) for sent in self._sent.values()]
        return max(SOON, min(waits)) if waits else None

    def backlog(self) -> tuple[int, float | None]:
        """About how many bytes were never sent in this run, and when the oldest of them was captured (unix s)."""
        with self._guarded():
            (seq,) = self._unsent(1) or (None,)
            if seq is None:
                return 0, None
            row = self._db.execute("SELECT captured_at FROM outbox WHERE seq = ?", (seq,)).fetchone()
        return self._bytes * (self._count - len(self._sent)) // self._count, row[0]

    def drop(self, seq: int) -> None:
        """Shed one window on purpose: the link does not carry all."""
        size = self._size_of(seq)
        if size is not None:
            with self._guarded():
                self._delete([(seq, size)], "link")

    def reset_sent(self) -> None:
        """Everything unanswered is due again at once; it stays counted as under way."""
        for sent in self._sent.values():
            sent.delay = 0.0

    def answered(self, seq: int) -> bool:
        """Free one window; False when it is not here (any more). Where the disk refuses, it is deleted later."""
        size = self._size_of(seq)
        if size is None:
            return False
        with self._guarded():
            self._delete([(seq, size)])
        return True

    # -- what is gone -----------------------------------------------------------------
    def _size_of(self, seq: int) -> int | None:
        with self._guarded():
            row = self._db.execute("SELECT size FROM outbox WHERE seq = ?", (seq,)).fetchone()
        return None if row is None or seq in self._gone else int(row[0])

    def _expire(self, cutoff: float) -> None:
        """Shed the oldest windows that were captured before `cutoff` (unix s)."""
        expired = []
        with closing(self._db.execute("SELECT seq, size, captured_at FROM outbox ORDER BY seq")) as oldest:
            for seq, size, captured_at in oldest:
                if captured_at >= cutoff:
                    break
                if seq not in self._gone:
                    expired.append((seq, size))
        if expired:
            self._delete(expired, "expired")

    def _uncount(self, seq: int, size: int, reason: str = "") -> None:
        self._sent.pop(seq, None)
        self._count -= 1
        self._bytes -= size
        if reason:
            self._shed[reason] += 1

    def _delete(self, windows: list[tuple[int, int]], reason: str = "") -> None:
        """Drop windows, (seq, size) each. What a failing disk keeps is tried again at the next call, and not shown."""
        for seq, size in windows:
            self._uncount(seq, size, reason)
            self._gone.add(seq)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("DELETE FROM outbox WHERE seq = ?", ((seq,) for seq in self._gone))
            self._db.execute("COMMIT")
            self._gone.clear()
        except sqlite3.Error as error:
            if is_damage(error):
                raise
            self._roll_back()
            if len(self._gone) == len(windows):  # once, not at every answer
                _log.warning("%s", explain(self._path, error))

    def _roll_back(self) -> None:
        with suppress(sqlite3.Error):
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Tell the database's errors as `OutboxError`; a damaged database is moved aside for the next start."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            self._roll_back()
            if is_damage(error):
                self._db.close()
                set_aside(self._path)
            raise explain(self._path, error) from error
