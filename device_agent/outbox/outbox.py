"""The device's outbox: a window is committed to SQLite, is sent, and leaves when it is answered or shed.

Windows that are accepted within `commit_interval` share a commit. They may be sent before it: no seq is ever given out
twice, so that what a crash takes is never mistaken for what comes after it. Which windows are under way is known in
memory only: sending and re-sending write nothing, and after a restart every unanswered window is due. What leaves
without an answer is a gap, and is kept as one until the edge has noted it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from device_agent.outbox.bounds import RESERVE, Bounds, Room
from device_agent.outbox.file import Fsync, OutboxError
from device_agent.outbox.jumps import Jumps
from device_agent.outbox.order import Order, Pressure
from device_agent.outbox.store import SHED, End, Store
from megace2_iot.messages import Gap

_log = logging.getLogger("megace2.outbox")
MORE_GAPS = 1000  # than windows: those that were told, and await their receipts
DROPPED_AT_ONCE = 1000  # windows in a commit


@dataclass(frozen=True, slots=True)
class Due:
    """A window to send now; `attempts` is how often this run sent it before."""

    seq: int
    record: bytes
    captured_at: float  # unix s
    attempts: int


class Outbox:
    """One device's outbox; one process at a time, one thread. All times are unix s."""

    def __init__(
        self,
        path: Path,
        bounds: Bounds,
        *,
        fsync: Fsync = "normal",
        commit_interval: float = 0.0,
        reserve: int = RESERVE,
        monotonic: Callable[[], float] | None = None,
    ) -> None:
        """Open or make the outbox at `path`; a damaged one is moved aside. Raises `OutboxError`.

        With `commit_interval` 0 each change is committed at once, else by `flush`, which is to be called so often. By
        `monotonic` jumps of the clock are noticed.
        """
        thin = bounds.when_full == "thin"
        self._store = Store(path, fsync, commit_interval, most_gaps=bounds.windows + MORE_GAPS, thin=thin)
        self._room = Room(path, bounds, reserve, self._store.rows)
        self._order = Order(self._store.rows, self._store.last)
        self._path, self._age = path, bounds.age
        self._jumps = Jumps(monotonic, self._store.last) if monotonic is not None else None
        self._expires_at = float("-inf")  # nothing expires before
        self.lost = 0  # windows that the disk refused in this run: they were not accepted
        self.epoch = self._store.epoch

    def close(self) -> None:
        """Commit, and close the file; may be called twice."""
        self._store.close()

    # -- what it holds ----------------------------------------------------------------
    def __len__(self) -> int:
        return self._store.rows.count

    @property
    def size(self) -> int:
        """Bytes of the records."""
        return self._store.rows.size

    @property
    def totals(self) -> Mapping[str, int]:
        """Of the file's life: windows `accepted`, and by its end each that is here no more."""
        return self._store.totals

    @property
    def accepted(self) -> int:
        """Windows of this run that are committed."""
        return self._store.accepted

    @property
    def unreadable(self) -> int:
        """Windows of this run that another version of this program wrote."""
        return self._store.ended("unreadable")

    @property
    def shed(self) -> Mapping[str, int]:
        """Windows of this run that ended unanswered, on purpose or by the disk, by reason."""
        return {how: self._store.ended(how) for how in SHED}

    @property
    def untold(self) -> int:
        """Windows of this run whose gaps were given up before the edge had noted them."""
        return self._store.gaps.forgotten

    @property
    def unsaved(self) -> bool:
        """Whether `flush` has something to do."""
        return self._store.unsaved

    def flush(self) -> None:
        """Commit what is not committed, and give some of the disk back. Raises `OutboxError`."""
        with self._guarded():
            self._store.flush()

    # -- in ---------------------------------------------------------------------------
    def has_room(self, size: int, now: float) -> bool:
        """Whether a record of `size` bytes need not wait: it fits, or never will."""
        self.expire(now)
        return self._room.fits(size) or self._room.never_fits(size)

    def accept(self, record: bytes, captured_at: float, now: float) -> int | None:
        """Take one window; returns its seq, or None where it was shed at once for want of room.

        The next commit puts it on the disk. Raises `OutboxError`: then it is not kept.
        """
        self.expire(now)
        size = len(record)
        with self._guarded():
            fits = self._room.fits(size)
            self._room.note(full=not fits)
            victims = [] if fits else self._room.victims(size, self._order.under_way)
            seq = self._number(size if fits else 0)  # what goes makes room inside the file
            if victims is None:
                self._store.refuse(seq)
                return None
            self._store.keep(seq, record, captured_at, victims)
            for victim, _ in victims:
                self._order.left(victim)
            self._order.came(seq, captured_at)
            self._expires_at = min(self._expires_at, captured_at + self._age)
        return seq

    def _number(self, size: int) -> int:
        """A seq, where the file may grow by `size` bytes; else the window is lost before it has one."""
        try:
            self._room.check_disk(size)
            return self._store.next_seq()
        except (OSError, OutboxError):
            self.lost += 1
            raise

    def expire(self, now: float) -> None:
        """Shed the oldest windows while they are too old; looks at none while none can be."""
        if self._jumps is not None:
            self._jumps.note(now, self._store.last)
        if now < self._expires_at:
            return
        expired, self._expires_at = [], float("inf")
        with self._guarded():
            for seq, size, captured_at in self._store.rows.oldest():
                age = self._age + (self._jumps.allowance(seq) if self._jumps is not None else 0.0)
                if now - captured_at <= age:
                    self._expires_at = captured_at + age
                    break
                expired.append((seq, size))
            self._leave(expired, "expired")

    # -- out --------------------------------------------------------------------------
    def due(self, now: float, limit: int, *, max_unanswered: int, replay: int | None = None) -> list[Due]:
        """Up to `limit` windows to send at `now`: live ones, else those that are unanswered for too long, else of the
        backlog at most `replay`; each oldest first.

        Never more than `max_unanswered` are under way at a time; sending one of them again takes no more room.
        """
        self.expire(now)
        with self._guarded():
            seqs = self._order.next(now, limit, max_unanswered, limit if replay is None else replay)
            read = [self._read(seq) for seq in seqs]
        return [due for due in read if due is not None]

    def _read(self, seq: int) -> Due | None:
        """One window; None where its record is not what was written, and then it is shed."""
        row = self._store.rows.read(seq)
        if row is None:
            self._order.left(seq)
            return None
        captured_at, size, record, is_whole = row
        if not is_whole:
            _log.error("outbox %s: window %d was changed by the disk and is dropped", self._path, seq)
            self._leave([(seq, size)], "damaged")
            return None
        return Due(seq, record, captured_at, self._order.under_way.attempts(seq))

    def mark_sent(self, seqs: Iterable[int], now: float, delay: float) -> None:
        """These windows are under way; without an answer they are due again at `now + delay`. Kept in memory only."""
        with self._guarded():
            self._order.sent([seq for seq in seqs if self._store.rows.size_of(seq) is not None], now, delay)

    def next_due(self, now: float, replay_in: float = 0.0) -> float | None:
        """Seconds (never 0) until `due` has something, backlog in `replay_in` s; None when nothing waits."""
        return self._order.wait(now, replay_in)

    def pressure(self) -> Pressure:
        """What came since the last connect and was not sent."""
        with self._guarded():
            return self._order.pressure()

    def reset_sent(self) -> None:
        """A new link or edge: everything unanswered is due again at once, and stays counted as under way."""
        self._order.reset()
        self._store.gaps.tell_again()

    def free(self, seq: int, how: End = "answered") -> bool:
        """A window ends; False when it is not here (any more). Where the disk refuses, it is deleted later."""
        with self._guarded():
            size = self._store.rows.size_of(seq)
            if size is not None:
                self._leave([(seq, size)], how)
        return size is not None

    def drop(self, first: int, last: int, before: float) -> int:
        """Shed what lies between two seqs, both included, and was captured `before`; returns how many that were."""
        with self._guarded():
            chosen = [
                (seq, size) for seq, size, at in self._store.rows.oldest() if first <= seq <= last and at < before
            ]
        for begin in range(0, len(chosen), DROPPED_AT_ONCE):
            with self._guarded():
                self._leave(chosen[begin : begin + DROPPED_AT_ONCE], "dropped")
            self.flush()
        while self.unsaved:  # the disk gets its space back
            self.flush()
        return len(chosen)

    # -- gaps -------------------------------------------------------------------------
    @property
    def gaps(self) -> int:
        """How many the edge has not noted yet."""
        return len(self._store.gaps)

    @property
    def gaps_are_behind(self) -> bool:
        """Whether `gaps_due` had more than it gave: what waits behind them is not to overtake them."""
        return self._store.gaps.are_behind

    def gaps_due(self, now: float, limit: int) -> list[Gap]:
        """Up to `limit` gaps to tell at `now`, oldest first; those within the backlog in their turn."""
        with self._guarded():
            first, last = self._order.unsent_backlog(now)
            return self._store.gaps.due(now, limit, first, last)

    def mark_told(self, gaps: Iterable[Gap], now: float, delay: float) -> None:
        """These gaps are under way; without a receipt they are due again at `now + delay`."""
        self._store.gaps.mark_told(gaps, now, delay)

    def noted(self, gaps: Iterable[tuple[int, int]]) -> None:
        """The edge has these, first and last seq each, on its disk."""
        with self._guarded():
            for first, last in gaps:
                self._store.forget_gap(first, last)

    def settled(self) -> int:
        """Every smaller seq was answered, or is in a gap that the edge has noted."""
        with self._guarded():
            lowest = (self._store.rows.first(), self._store.gaps.lowest(), self._store.last + 1)
            return min(seq for seq in lowest if seq is not None)

    # -- both -------------------------------------------------------------------------
    def _leave(self, windows: Sequence[tuple[int, int]], how: End) -> None:
        if windows:
            self._store.leave(windows, how)
            for seq, _ in windows:
                self._order.left(seq)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Tell the database's errors as `OutboxError`, and forget windows that were lost with it."""
        try:
            with self._store.guarded():
                yield
        finally:
            if lost := self._store.take_lost():
                self.lost += len(lost)
                self._expires_at = float("-inf")
                self._order.rewind()
                for seq in lost:
                    self._order.left(seq)
