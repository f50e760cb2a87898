"""From a track's own clock to the host's: camera timestamps, a sound card's sample counter, the time within a file.

How it works. A chunk that ends at `track` s on its own clock arrives at `arrived` s on the host's (monotonic) clock,
some delay later. A delay is never negative, so the smallest `arrived - track` of the last `WINDOW` s is the offset
between the two clocks plus the smallest delay. It drifts (a sound card of +100 ppm gains 0.36 s an hour), so the offset
in use follows it, never by more than a part of the time that passed: times then rise on the host's clock as they rose
on the track's. A drift down is followed at once, a drift up after a window: 100 ppm cost 1 ms. Where the stream
itself begins anew, or leaps, the offset leaps with it, and times stand still rather than go back.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from dataclasses import dataclass
from itertools import takewhile
from typing import Protocol

import numpy as np
import numpy.typing as npt

Times = npt.NDArray[np.float64]

WINDOW = 10.0  # s of arrivals behind the smallest delay
BIN = 0.5  # s of arrivals that are remembered as one minimum
SLEW = 0.002  # s per s: twenty times the drift of a poor crystal
QUICK_SLEW = 0.5  # s per s while the offset is off by more than FAR: the first chunks of a device come in a burst
FAR = 0.02  # s
FINE = 1e-4  # s that the offset is not moved for
BACK = 0.1  # s that a track may go back without having begun anew
JUMP = 1.0  # s by which no delay changes at once: the track leapt
STALL = 2.0  # s of arrivals that all are late by more than JUMP: the track stood still and goes on
MAX_KNOTS = 256


class HostClock(Protocol):
    """Maps the times of one track onto the reference clock."""

    def restarts(self, track: float) -> bool:
        """Whether a chunk that ends at `track` s belongs to a stream that began anew: flush the extractors first."""

    def note(self, track: float, arrived: float) -> None:
        """A chunk that ends at `track` s has arrived at `arrived` s on the reference clock."""

    def to_host(self, times: Times) -> Times:
        """Track times (T,) on the reference clock."""


class FileClock:
    """The clock of a file, and of words that are typed: it is the reference itself."""

    def restarts(self, track: float) -> bool:
        return False

    def note(self, track: float, arrived: float) -> None:
        pass

    def to_host(self, times: Times) -> Times:
        return times


def unix_time(host: float, *, monotonic: float, unix: float) -> float:
    """Unix s of a `host` time, both clocks read just now: a clock that was set since then does not part them."""
    return unix - (monotonic - host)


def grid_origin(length: float, *, monotonic: float, unix: float) -> float:
    """Host time of a whole multiple of `length` s since 1970: windows cut from there are cut alike on every device."""
    return monotonic - unix % length


@dataclass(frozen=True, slots=True)
class _Knot:
    """From `after` s (exclusive, track time) on the offset moves from `offset` towards `target`, `slew` s per s.

    Nothing is mapped to before `floor` s (host time).
    """

    after: float
    offset: float
    target: float
    slew: float
    floor: float

    def offset_at(self, track: float) -> float:
        most = self.slew * (track - self.after) if track > self.after else 0.0
        return self.offset + min(max(self.target - self.offset, -most), most)

    def to_host(self, track: float) -> float:
        return max(track + self.offset_at(track), self.floor)


class ClockMap:
    """The clock of a live track. What a time up to the newest chunk is mapped to changes only by a restart."""

    def __init__(self) -> None:
        self._minima: deque[tuple[float, float]] = deque()  # by bin of arrivals: its begin, smallest arrived - track
        self._knots: list[_Knot] = []
        self._newest = -math.inf  # s, track time
        self.resets = 0  # restarts, leaps and stalls so far

    @property
    def offset(self) -> float:
        """Host time less track time at the newest chunk, s; NaN before the first."""
        return self._knots[-1].offset_at(self._newest) if self._knots else math.nan

    def to_host(self, times: Times) -> Times:
        """Track times (T,) on the host's clock, as rising as they are; raises ValueError before the first `note`."""
        if not self._knots:
            raise ValueError("a time of a track of which no chunk was noted")
        knots = self._knots
        places = [max(0, bisect_left(knots, time, key=lambda knot: knot.after) - 1) for time in times]
        return np.array([knots[place].to_host(float(time)) for place, time in zip(places, times, strict=True)])

    def restarts(self, track: float) -> bool:
        """Whether a chunk that ends at `track` s belongs to a stream that began anew: flush the extractors first."""
        return track < self._newest - BACK

    def note(self, track: float, arrived: float) -> None:
        """A chunk that ends at `track` s has arrived at `arrived` s on the host's clock, which does not go back."""
        seen = arrived - track
        restarted = self.restarts(track)
        if not self._knots or restarted or seen < self._knots[-1].target - JUMP:
            self._reset(seen, arrived, forget=restarted)
        else:
            self._remember(seen, arrived)
            if self._stalled(arrived):
                self._reset(self._minima[-1][1], arrived, forget=False)
            else:
                self._aim(min(smallest for _, smallest in self._minima))
        self._newest = track if restarted else max(self._newest, track)

    def _remember(self, seen: float, arrived: float) -> None:
        begin = math.floor(arrived / BIN) * BIN
        if self._minima and self._minima[-1][0] >= begin:
            begin, smallest = self._minima.pop()
            seen = min(seen, smallest)
        self._minima.append((begin, seen))
        while self._minima[0][0] < arrived - WINDOW:
            self._minima.popleft()

    def _stalled(self, arrived: float) -> bool:
        """Whether for `STALL` s every arrival was late by more than a jump."""
        late = takewhile(lambda entry: entry[1] > self._knots[-1].target + JUMP, reversed(self._minima))
        return min((begin for begin, _ in late), default=math.inf) <= arrived - STALL

    def _aim(self, target: float) -> None:
        """Move on from where the offset is, towards `target`."""
        last = self._knots[-1]
        if abs(target - last.target) < FINE:
            return
        offset = last.offset_at(self._newest)
        slew = QUICK_SLEW if abs(target - offset) > FAR else SLEW
        self._add(_Knot(self._newest, offset, target, slew, last.floor))

    def _reset(self, offset: float, arrived: float, *, forget: bool) -> None:
        """Take `offset` at once for all that comes after the newest chunk."""
        floor, after = -math.inf, -math.inf
        if self._knots:
            floor = self._knots[-1].to_host(self._newest)
            self.resets += 1
        if forget:
            self._knots.clear()
        elif self._knots:
            after = self._newest
        self._minima.clear()
        self._remember(offset, arrived)
        self._add(_Knot(after, offset, offset, SLEW, floor))

    def _add(self, knot: _Knot) -> None:
        self._knots.append(knot)
        del self._knots[:-MAX_KNOTS]
