"""One process at a time works on an outbox: it holds a lock file beside the database, however it ends.

SQLite's own exclusive lock would keep out who only reads, too.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

WAIT = 1.0  # s that a device waits: who only asks lets go at once


class Held(Exception):
    """Another process works on this outbox."""


def hold(path: Path) -> int:
    """Lock the outbox at `path` until the descriptor that is returned is closed. Raises `Held`, OSError."""
    handle = os.open(_beside(path), os.O_RDWR | os.O_CREAT, 0o644)
    until = time.monotonic() + WAIT
    while not _taken(handle, fcntl.LOCK_EX):
        if time.monotonic() > until:
            os.close(handle)
            raise Held
        time.sleep(0.02)
    return handle


def is_held(path: Path) -> bool:
    """Whether a process works on the outbox."""
    try:
        handle = os.open(_beside(path), os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _taken(handle, fcntl.LOCK_SH)
    finally:
        os.close(handle)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".lock")


def _taken(handle: int, how: int) -> bool:
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
