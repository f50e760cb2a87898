"""The edge's labelled store: the embedded windows whose label was shared, bounded, on disk, split once into halves."""

from __future__ import annotations

import contextlib
import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from megace2_iot import codec
from megace2_iot.examples import Embedded
from megace2_iot.labels import Half, half
from megace2_iot.problems import Problem

REMEMBERED = 2048  # recent windows that a late `Feedback` can still find
REMEMBERED_BYTES = 64 << 20  # of them: the oldest go first here, too


@dataclass(frozen=True, slots=True, eq=False)
class Labelled:
    """One window with its label; of one stem."""

    z: Embedded
    score: float
    half: Half
    features_saw_label: bool


class _Recent(NamedTuple):
    """A window whose label may still come."""

    stem: str
    embed: Callable[[], Embedded]
    size: int
    group: str
    saw: bool


class LabelledStore:
    """At most `limit` labelled windows, the oldest leave first."""

    def __init__(self, path: Path, limit: int = 4096) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.executescript(
                "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
                "CREATE TABLE IF NOT EXISTS labelled ("
                " number INTEGER PRIMARY KEY, device TEXT, epoch INTEGER, seq INTEGER,"
                " stem TEXT, half TEXT, saw INTEGER, score REAL, record BLOB, UNIQUE (device, epoch, seq));"
            )
            (verdict,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise sqlite3.DatabaseError(verdict)
        except sqlite3.DatabaseError as error:
            raise Problem(f"{path} is no labelled store ({error}): move it away to begin a new one") from None
        self._limit = limit
        self._recent: OrderedDict[tuple[str, int, int], _Recent] = OrderedDict()
        self._recent_bytes = 0
        self.version = 0  # grows whenever a label comes in

    def close(self) -> None:
        self._db.close()

    def __len__(self) -> int:
        (count,) = self._db.execute("SELECT count(*) FROM labelled").fetchone()
        return int(count)

    def remember(
        self,
        device: str,
        epoch: int,
        seq: int,
        stem: str,
        embed: Callable[[], Embedded],
        size: int,
        group: str,
        saw: bool,
    ) -> None:
        """Keep a window of `size` bytes for a while, in case its label follows; only then it is embedded."""
        if old := self._recent.pop((device, epoch, seq), None):
            self._recent_bytes -= old.size
        self._recent[device, epoch, seq] = _Recent(stem, embed, size, group, saw)
        self._recent_bytes += size
        while len(self._recent) > REMEMBERED or self._recent_bytes > REMEMBERED_BYTES:
            self._recent_bytes -= self._recent.popitem(last=False)[1].size

    def label(self, device: str, epoch: int, seq: int, score: float) -> bool:
        """Give a remembered window its label; False where it is not remembered any more, or has no Z[0]."""
        found = self._recent.get((device, epoch, seq))
        if found is None:
            return False
        stem, _, _, group, saw = found
        try:
            z = found.embed()
        except ValueError:
            return False  # the answer to the window says why
        record = codec.encode({m: np.asarray(values, np.float32) for m, values in z.items()}, level=1)
        chosen = half(group, device, epoch, seq)
        self._db.execute(
            "INSERT INTO labelled (device, epoch, seq, stem, half, saw, score, record) VALUES (?,?,?,?,?,?,?,?)"
            " ON CONFLICT (device, epoch, seq) DO UPDATE SET score = excluded.score",
            (device, epoch, seq, stem, chosen, int(saw), score, record),
        )
        self._db.execute("DELETE FROM labelled WHERE number <= (SELECT max(number) FROM labelled) - ?", (self._limit,))
        self.version += 1
        return True

    def of_stem(self, stem: str) -> list[Labelled]:
        """All that was embedded by `stem` and can be read."""
        rows = self._db.execute(
            "SELECT record, score, half, saw FROM labelled WHERE stem = ? ORDER BY number", (stem,)
        ).fetchall()
        found = []
        for record, score, half_, saw in rows:
            with contextlib.suppress(codec.DecodeError):  # a bit that the disk flipped costs one window
                found.append(Labelled(_opened(record), score, half_, bool(saw)))
        return found


def scores_of(samples: Sequence[Labelled]) -> np.ndarray[Any, Any]:
    """Their labels (N,), float32."""
    return np.array([sample.score for sample in samples], np.float32)


def _opened(record: bytes) -> Embedded:
    z: Any = codec.decode(record, limit=64 << 20)
    return cast(Embedded, z)
