"""Rows of all modalities on one clock become windows; pure: calls take rows and `now`, and return what is complete.

A window [start, end) leaves when every awaited track is known up to its end: a track's rows rise, so its newest row
tells that nothing before it is missing. What does not come in time is not waited for: `lateness` s after its end a
window leaves with what is there, and a track that missed that is not awaited until it speaks again. A row whose window
has left is late: dropped and counted. Nothing else decides, so in whatever order tracks are pushed, the windows are
the same as long as nothing is late.

The cut is a `Grid` (also of `whole` clips), or `Pauses` of speech. A row belongs to the window of its beginning.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from device_agent.extraction.rows import Rows
from megace2_iot.features import MODALITIES, Modality

WORD = 0.4  # s that a word is spoken, where its row does not tell
ROOM_FOR_WORDS = 1024  # rows that come at their own times: all words of a clip come at its start, at most 512
SPEECH = 0.5  # of an audio row's observed "speech", from which on somebody speaks
TAIL = 0.5  # s that a clip's tracks may go on beyond the duration that its file tells


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """The rows (T, D) of one window, from `start` up to but not at `end` s; no modality without rows is among them."""

    start: float
    end: float
    rows: Mapping[Modality, Rows]
    missing: tuple[Modality, ...]  # expected, and without a row
    late: Mapping[Modality, int]  # rows that were too late for their windows, since the window before this one


Held = Mapping[Modality, Sequence[Rows]]


@dataclass(frozen=True, slots=True)
class Grid:
    """Windows of `length` s from `origin` on, and before it."""

    length: float
    origin: float = 0.0

    @property
    def shortest(self) -> float:
        """s from a first row to the end of its window, at least."""
        return 0.0

    @property
    def longest(self) -> float:
        return self.length

    def window(self, first: float, held: Held) -> tuple[float, float]:
        """Start and end of the window of a row at `first`."""
        place = math.floor((first - self.origin) / self.length)
        place += (self._edge(place + 1) <= first) - (self._edge(place) > first)  # where the division was rounded
        return self._edge(place), self._edge(place + 1)

    def _edge(self, place: int) -> float:
        return self.origin + place * self.length


def whole(longest: float, duration: float | None = None, origin: float = 0.0) -> Grid:
    """One window for a clip of up to `longest` s, equal ones for a longer clip; where its `duration` is not told, it
    is cut every `longest` s.
    """
    if duration is None:
        return Grid(longest, origin)
    return Grid((duration + TAIL) / max(1, math.ceil(duration / longest)), origin)


@dataclass(frozen=True, slots=True)
class Pauses:
    """Windows of `shortest` to `longest` s that end where nobody has spoken for `pause` s; each begins with a row."""

    shortest: float
    longest: float
    pause: float

    def window(self, first: float, held: Held) -> tuple[float, float]:
        """Start and end of the window that begins with a row at `first`, by the speech in what is `held`."""
        begins, ends = _speech(held, first)
        silences = np.concatenate(([first], np.maximum.accumulate(ends)))
        cuts = np.maximum(silences + self.pause, first + self.shortest)
        fits = cuts <= np.concatenate((begins, [np.inf]))
        return first, float(min(cuts[np.argmax(fits)], first + self.longest))


Cut = Grid | Pauses


def _speech(held: Held, since: float) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Begins, rising, and ends of all that is spoken after `since`: audio rows with speech in them, and words."""
    begins, ends = [np.empty(0)], [np.empty(0)]
    for rows in held.get("audio", ()):
        if "speech" in rows.observed:
            spoken = rows.times[rows.observed["speech"] >= SPEECH]
            begins.append(spoken)
            ends.append(spoken + rows.step)
    for rows in held.get("text", ()):
        begins.append(rows.times)
        ends.append(rows.times + (rows.step or WORD))
    begin, end = np.concatenate(begins), np.concatenate(ends)
    order = np.argsort(begin, kind="stable")
    order = order[end[order] > since]
    return begin[order], end[order]


@dataclass(slots=True, eq=False)
class _Track:
    """Rows of one modality that wait for their window, rising over all parts."""

    parts: list[Rows] = field(default_factory=list)
    known: float = -math.inf  # s up to which nothing more will come
    awaited: bool = True
    step: float = 0.0

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @property
    def first(self) -> float:
        return float(self.parts[0].times[0]) if self.parts else math.inf

    @property
    def covered(self) -> float:
        """s that the rows reach to."""
        return float(self.parts[-1].times[-1]) + (self.step or WORD) if self.parts else -math.inf

    def add(self, rows: Rows) -> None:
        if not len(rows):
            return
        rows = _rising(rows)
        if self.parts and rows.times[0] < self.parts[-1].times[-1]:  # words of two speakers may cross
            rows = _rising(Rows.join([*self.parts, rows]))
            self.parts.clear()
        self.parts.append(rows)

    def take(self, end: float) -> Rows | None:
        """All before `end`."""
        taken: list[Rows] = []
        while self.parts and self.parts[0].times[0] < end:
            part = self.parts.pop(0)
            count = int(np.searchsorted(part.times, end))
            taken.append(part.part(slice(count)))
            if count < len(part):
                self.parts.insert(0, part.part(slice(count, None)))
        return Rows.join(taken) if taken else None

    def drop_oldest(self, most: int) -> int:
        """Keep at most `most` rows; returns how many are gone."""
        gone = beyond = max(0, len(self) - most)
        while beyond:
            part = self.parts.pop(0)
            if len(part) > beyond:
                self.parts.insert(0, part.part(slice(beyond, None)))
            beyond -= min(beyond, len(part))
        return gone


def _rising(rows: Rows) -> Rows:
    if (np.diff(rows.times) >= 0).all():
        return rows
    order = np.argsort(rows.times, kind="stable")
    observed = {name: numbers[order] for name, numbers in rows.observed.items()}
    return Rows(rows.values[order], rows.times[order], rows.step, observed)


class Aligner:
    """Cuts the rows of a device's tracks into windows. `now` and all times are s on the reference clock.

    A live device calls with its monotonic time; one that reads a file as fast as it can passes no `now`, and so never
    gives a track up. Tracks that are not `expected` are taken and not waited for. Held are at most twice the rows of
    a longest window and `lateness`, and `ROOM_FOR_WORDS` words; beyond it the oldest go.
    """

    def __init__(self, expected: Iterable[Modality], cut: Cut, lateness: float) -> None:
        wanted = set(expected)
        self._expected = tuple(m for m in MODALITIES if m in wanted)
        self._cut, self._lateness = cut, lateness
        self._tracks = {m: _Track(awaited=m in self._expected) for m in MODALITIES}
        self._floor = -math.inf  # s: the end of the last window
        self._late_since: dict[Modality, int] = {}
        self.late: dict[Modality, int] = dict.fromkeys(MODALITIES, 0)  # rows whose window had left
        self.overflow: dict[Modality, int] = dict.fromkeys(MODALITIES, 0)  # rows that there was no room for
        self.pauses = 0  # windows' times in which nothing had a row
        self.given_up = 0  # times that a window went without a track that it waited for

    def push(self, modality: Modality, rows: Rows, now: float = -math.inf) -> list[Aligned]:
        """Take rows, rising over all calls; returns the windows that are complete, in order."""
        track = self._tracks[modality]
        in_time = rows.times >= self._floor
        if late := len(rows) - int(in_time.sum()):
            self.late[modality] += late
            self._late_since[modality] = self._late_since.get(modality, 0) + late
            rows = rows.part(in_time)
        track.add(rows)
        track.step = rows.step
        known = float(rows.times.max()) if len(rows) else -math.inf
        windows = self.reached(modality, known, now)
        room = math.ceil(2 * (self._cut.longest + self._lateness) / rows.step) if rows.step else ROOM_FOR_WORDS
        self.overflow[modality] += track.drop_oldest(room)
        return windows

    def reached(self, modality: Modality, until: float, now: float = -math.inf) -> list[Aligned]:
        """No row of this track before `until` will come (inf at its end), though there was none to push."""
        track = self._tracks[modality]
        track.known = max(track.known, until)
        track.awaited = modality in self._expected
        return self.advance(now)

    def advance(self, now: float) -> list[Aligned]:
        """The windows that leave at `now`: complete, or not waited for any longer."""
        windows = []
        while (first := min(track.first for track in self._tracks.values())) < math.inf:
            awaited = [track for track in self._tracks.values() if track.awaited]
            known = min((track.known for track in awaited), default=-math.inf)
            if max(known, now) < first + self._cut.shortest:
                break
            start, end = self._window(first)
            if known < end:
                if now < end + self._lateness:
                    break
                self._give_up([track for track in awaited if track.known < end])
            windows.append(self._leave(start, end, over=known == math.inf))
        return windows

    def next_deadline(self) -> float | None:
        """When `advance` has a window though nothing more is pushed; None where nothing waits."""
        first = min(track.first for track in self._tracks.values())
        return None if first == math.inf else self._window(first)[1] + self._lateness

    def flush(self) -> list[Aligned]:
        """All that is held, at the end of the streams; the last window ends where its rows end."""
        windows = []
        while (first := min(track.first for track in self._tracks.values())) < math.inf:
            windows.append(self._leave(*self._window(first), over=True))
        return windows

    def _window(self, first: float) -> tuple[float, float]:
        return self._cut.window(first, {m: track.parts for m, track in self._tracks.items()})

    def _give_up(self, tracks: list[_Track]) -> None:
        for track in tracks:
            track.awaited = False
        self.given_up += len(tracks)

    def _leave(self, start: float, end: float, *, over: bool) -> Aligned:
        """The window of these rows; where all streams are `over`, it ends with the last of them."""
        covered = max(track.covered for track in self._tracks.values())
        taken = {m: track.take(end) for m, track in self._tracks.items()}
        rows = {m: its for m, its in taken.items() if its is not None}
        if self._floor > -math.inf:
            self.pauses += int((start - self._floor) / self._cut.longest + 1e-6)
        self._floor = end
        late, self._late_since = self._late_since, {}
        missing = tuple(m for m in self._expected if m not in rows)
        return Aligned(start, min(end, covered) if over else end, rows, missing, late)
