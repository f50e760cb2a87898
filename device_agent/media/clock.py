"""Time stamps of a track made believable: they go on where a stamp is missing or leaps."""

from __future__ import annotations

import math

BEHIND = 1.0  # s that a stamp may fall behind what is expected, before it is doubted
AHEAD = 60.0  # s that a file's stamp may leap ahead; a camera's clock is ours and may leap as far as it was away
PROOF = 1.0  # s through which leapt stamps must go on to be believed: damage rarely lasts longer


class TrackClock:
    """Stamps to times. One that leaps is doubted, and its piece goes where it was expected, until others prove it.

    Then a leap ahead, up to `limit` s, is a gap; any other is a clock that was set, and moves the clock, not the track.
    """

    def __init__(self, limit: float = math.inf, ahead: float = math.inf) -> None:
        self.doubts = 0
        self._limit = limit
        self._ahead = ahead
        self._shift = 0.0
        self._leapt: float | None = None  # s, the latest stamp that is doubted
        self._since = 0.0  # s, the track's own time when doubt began

    def time(self, stamp: float | None, expected: float) -> float:
        """Where a piece stamped `stamp` s belongs, if it was `expected` s by what came before."""
        if stamp is None:
            return expected
        time = stamp + self._shift
        if expected - BEHIND <= time <= expected + self._ahead:
            self._leapt = None
            return time
        leapt, self._leapt = self._leapt, stamp
        if leapt is None or not 0 <= stamp - leapt <= self._ahead:
            self.doubts += 1
            self._since = expected
        if expected - self._since < PROOF:
            return expected
        self._leapt = None
        if expected < time <= self._limit:
            return time
        self._shift += expected - time
        return expected
