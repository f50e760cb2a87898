"""What an outbox may hold, and which windows give way when it is full."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from device_agent.outbox.file import OutboxError
from device_agent.outbox.rows import Rows
from device_agent.outbox.under_way import UnderWay

_log = logging.getLogger("megace2.outbox")
RESERVE = 16 << 20  # bytes left free on the disk: without room for its log SQLite cannot even delete
LARGEST = 512 << 20  # bytes of records where nobody says how many
DISK_SHARE = 0.1  # of what is free, where that is less
LEAST = 1 << 20  # bytes
CALM = 0.9  # of a bound: below it a full outbox is full no more

WhenFull = Literal["drop_oldest", "drop_newest", "thin", "block"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """At most so many windows, bytes of records, and s since a window was captured."""

    windows: int
    size: int
    age: float
    when_full: WhenFull = "drop_oldest"


def default_size(path: Path) -> int:
    """Bytes that an outbox at `path` holds at most where nobody says: a part of the disk, never most of it."""
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    own = path.stat().st_size if path.exists() else 0
    return max(LEAST, min(LARGEST, int(DISK_SHARE * (shutil.disk_usage(folder).free + own))))


class Room:
    """The room of one outbox, in its bounds and on its disk."""

    def __init__(self, path: Path, bounds: Bounds, reserve: int, rows: Rows) -> None:
        self._path, self._bounds, self._reserve, self._rows = path, bounds, reserve, rows
        self._is_full = False

    def fits(self, size: int) -> bool:
        """Whether a record of `size` bytes comes in without shedding."""
        return self._rows.count < self._bounds.windows and self._rows.size + size <= self._bounds.size

    def never_fits(self, size: int) -> bool:
        return size > self._bounds.size

    def victims(self, size: int, under_way: UnderWay) -> list[tuple[int, int]] | None:
        """Seq and size of the windows that go for one of `size` bytes; None where it goes itself.

        By `thin` every second window goes, and of those that stay every second one again, so that what waits is an even
        picture of the whole outage; not one that is under way, as its answer is coming, unless all are.
        """
        if self.never_fits(size) or self._bounds.when_full in ("drop_newest", "block"):
            return None
        thin = self._bounds.when_full == "thin" and len(under_way) < self._rows.count
        victims: list[tuple[int, int]] = []
        count, total = self._rows.count, self._rows.size + size
        for seq, its_size, _ in self._rows.thinnest() if thin else self._rows.oldest():
            if count < self._bounds.windows and total <= self._bounds.size:
                break
            if not (thin and seq in under_way):
                victims.append((seq, its_size))
                count, total = count - 1, total - its_size
        return victims

    def check_disk(self, size: int) -> None:
        """Raise `OutboxError` where `size` bytes more would eat into the reserve; the file's free pages do not."""
        if shutil.disk_usage(self._path.parent).free - size < self._reserve and self._rows.free < size:
            raise OutboxError(
                f"outbox {self._path}: less than {self._reserve >> 20} MiB are free on its disk: free space on it, or "
                "lower outbox_bytes"
            )

    def note(self, *, full: bool) -> None:
        """One line when it begins to shed, not one a window, and the next one only after there was room again."""
        rows, bounds = self._rows, self._bounds
        if full and not self._is_full:
            _log.warning(
                "outbox %s: full with %d windows of %d bytes (when_full = %s): see why the edge does not answer, or "
                "raise outbox_packets or outbox_bytes",
                self._path, rows.count, rows.size, bounds.when_full,
            )  # fmt: skip
        if full or max(rows.count / bounds.windows, rows.size / bounds.size) < CALM:
            self._is_full = full
