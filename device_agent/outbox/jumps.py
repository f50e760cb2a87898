"""Jumps of the clock: a device without one of its own gets the time from the network, hours late, as it comes back.

What it captured until then bears times that are too early by the jump, and would be shed as too old at the very moment
at which it could be sent.
"""

from __future__ import annotations

from collections.abc import Callable

LEAST = 10.0  # s: what the clock and the monotonic clock may come apart between two looks


class Jumps:
    """The jumps of one run, whose first seq comes after `last`."""

    def __init__(self, monotonic: Callable[[], float], last: int) -> None:
        self._monotonic = monotonic
        self._run_from, self._to = last + 1, last
        self._by = 0.0  # s
        self._offset: float | None = None

    def note(self, now: float, last: int) -> None:
        """The clock shows `now` (unix s); `last` is the newest window's seq."""
        offset = now - self._monotonic()
        jump = 0.0 if self._offset is None else offset - self._offset
        self._offset = offset
        if abs(jump) > LEAST:
            self._by, self._to = max(0.0, self._by + jump), last

    def allowance(self, seq: int) -> float:
        """Seconds that a window may be older than it looks."""
        return self._by if self._run_from <= seq <= self._to else 0.0
