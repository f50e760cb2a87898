"""What an outbox holds, for people: read from its file, beside a running device too."""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from device_agent.outbox.file import read_database
from device_agent.outbox.lock import is_held
from device_agent.windows import from_record
from megace2_iot.codec import DecodeError

_BOOKS = ("epoch", "clean", "seq")  # of the table `meta`, not totals


def stats(path: Path) -> dict[str, Any]:
    """Counts, sizes (bytes), ages (s) and totals. Raises `OutboxError`."""
    with read_database(path) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        meta = dict(db.execute("SELECT name, value FROM meta"))
        windows, size, first, last = db.execute(
            "SELECT count(*), coalesce(sum(size), 0), min(seq), max(seq) FROM outbox"
        ).fetchone()
        oldest = db.execute("SELECT captured_at FROM outbox ORDER BY seq LIMIT 1").fetchone()
        gaps, untold = 0, Counter[str]()
        for (shed,) in db.execute("SELECT shed FROM gaps") if version else ():
            gaps += 1
            untold.update(json.loads(shed))
    files = [path.with_name(path.name + suffix) for suffix in ("", "-wal")]
    return {
        "file": str(path),
        "file_bytes": sum(file.stat().st_size for file in files if file.exists()),
        "device_runs": is_held(path),
        "epoch": meta.get("epoch", 0),
        "windows": windows,
        "bytes": size,
        "first_seq": first,
        "last_seq": last,
        "oldest_age": None if oldest is None else max(0.0, time.time() - oldest[0]),
        "totals": {name: count for name, count in meta.items() if name not in _BOOKS},
        "gaps": gaps,
        "untold": dict(untold),
    }


def windows(path: Path, limit: int) -> Iterator[dict[str, Any]]:
    """The oldest `limit` windows: seq, capture time (unix s), bytes, modalities, label. Raises `OutboxError`."""
    query = "SELECT seq, captured_at, size, record FROM outbox ORDER BY seq LIMIT ?"
    with read_database(path) as db:
        for seq, captured_at, size, record in db.execute(query, (limit,)):
            modalities, label = None, None  # of a damaged record, or one of another version of this program
            with contextlib.suppress(DecodeError, KeyError, TypeError):
                window = from_record(record)
                modalities, label = list(window.features), window.label
            yield {"seq": seq, "captured_at": captured_at, "bytes": size, "modalities": modalities, "label": label}
