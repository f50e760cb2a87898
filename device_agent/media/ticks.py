"""Which ticks of a regular clock a frame serves, whatever the rhythm of the frames."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

EARLY = 1e-3  # s by which a frame may come after its tick: Matroska rounds to milliseconds
LONGEST = 10.0  # s that a frame may be shown, whatever the source's rhythm or a broken header says
RECENT = 9  # intervals whose median is the source's period: its declared rate is often wrong


class Ticks:
    """Tick k at k / rate s shows the latest frame at or before it, if that is not older than two periods.

    A slow source's frame serves several ticks; in a gap there are no ticks, and they are counted in `missing`.
    """

    def __init__(self, rate: float, declared: float | None = None) -> None:
        self.missing = 0
        self._rate = rate
        self._shown: float | None = None  # s, the time of the frame that is held
        self._next: int | None = None  # the first tick that no frame has served
        self._intervals = deque([1 / declared if declared else 1 / rate], maxlen=RECENT)

    @property
    def period(self) -> float:
        """Seconds from frame to frame, as a rule."""
        return min(LONGEST, median(self._intervals))

    def frame(self, time: float) -> list[float]:
        """Times of the ticks that the frame held so far serves, now that the next one comes at `time` s."""
        if self._shown is None:
            self._until(time, -math.inf)  # after an end nothing was shown; before the first frame nothing is missing
            self._shown = time
            return []
        served = self._until(time, self._shown + min(LONGEST, max(2 * self.period, 2 / self._rate)))
        self._intervals.append(time - self._shown)
        self._shown = time
        return served

    def end(self) -> list[float]:
        """Times of the ticks that the last frame serves: it is shown for one period."""
        if self._shown is None:
            return []
        end = self._shown + self.period
        self._shown, served = None, self._until(end, end)
        return served

    def _until(self, time: float, held_until: float) -> list[float]:
        """Ticks before `time`; those after `held_until` are missing."""
        after = self._first(time)
        first = after if self._next is None else self._next
        held = min(after, math.floor((held_until + EARLY) * self._rate) + 1) if held_until > -math.inf else first
        self.missing += max(0, after - max(first, held))
        self._next = max(first, after)
        return [k / self._rate for k in range(first, held)]

    def _first(self, time: float) -> int:
        """The first tick at or after a frame."""
        return math.ceil((time - EARLY) * self._rate)
