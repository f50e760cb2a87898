"""Which numbers windows get: seqs that are never given out twice, in epochs that only rise.

An epoch belongs to one database. A small text file beside it keeps the largest epoch ever used, so that a database that
was lost, damaged or put back from a copy is followed by a strictly larger one, whatever the device's clock says. The
same file keeps how far seqs of that epoch may have been given out: it is synced before the first of each `BLOCK` is.
So no seq is used twice, also where a power cut takes back what was committed after its window had been sent, and
whatever `fsync` says. After anything but a clean end the rest of the block is left out.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

BLOCK = 2000  # seqs a sync: one in half an hour at a window a second
OLD_BLOCK = 10_000  # what files of the first format, which did not keep a limit, may have lost


class Numbering:
    """The epoch and seqs of one outbox. `skipped` are those that an unclean end left out, first and last."""

    def __init__(self, path: Path, *, epoch: int, last: int, clean: bool) -> None:
        """`epoch` (0: none yet), `last` seq and whether the end was `clean` are the database's. Raises OSError."""
        self._path = path.with_name(path.name + ".epoch")
        largest, limit = self._read()
        self.epoch = epoch if epoch and epoch >= largest else max(int(time.time() * 1000), largest + 1)
        if self.epoch != largest:  # made anew, or its file is gone: nothing but the database is known
            limit = None
        known = limit if limit is not None else last if clean else last + OLD_BLOCK
        self.last = max(last, known)
        self.skipped = (last + 1, self.last) if self.last > last else None
        self._limit = self.last
        if (self.epoch, self._limit) != (largest, limit):
            self._write(self._limit)

    def next(self) -> int:
        """A seq that was never given out. Raises OSError where the disk cannot promise that."""
        if self.last >= self._limit:
            self._write(self.last + BLOCK)
        self.last += 1
        return self.last

    def close(self) -> None:
        """Leave nothing out at the next start; to be called once all that got a seq is on the disk."""
        with contextlib.suppress(OSError):  # else the next start leaves out the rest of the block
            self._write(self.last)

    def _read(self) -> tuple[int, int | None]:
        """The largest epoch, and the limit of its seqs, where the file tells them."""
        try:
            words = [int(word) for word in self._path.read_text().split()]
        except (FileNotFoundError, ValueError):
            words = []
        return (words[0] if words else 0), (words[1] if len(words) > 1 else None)

    def _write(self, limit: int) -> None:
        part = self._path.with_name(self._path.name + ".part")
        with part.open("w") as file:
            file.write(f"{self.epoch} {limit}\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename, too
        finally:
            os.close(folder)
        self._limit = limit
