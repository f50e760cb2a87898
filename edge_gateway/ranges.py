"""A set of numbers as ranges, for numbers that come nearly in order; bounded."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable

MOST = 1024  # ranges


class Ranges:
    """Numbers from 0 on. Where they fall into more than `most` ranges, the hole between the two lowest is closed."""

    __slots__ = ("_firsts", "_lasts", "_most")

    def __init__(self, pairs: Iterable[tuple[int, int]] = (), most: int = MOST) -> None:
        """`pairs` of first and last."""
        self._firsts: list[int] = []
        self._lasts: list[int] = []
        self._most = most
        for first, last in pairs:
            self.add(first, last)

    def __contains__(self, number: int) -> bool:
        place = bisect_right(self._firsts, number) - 1
        return place >= 0 and number <= self._lasts[place]

    def pairs(self) -> list[tuple[int, int]]:
        """First and last of each range, in their order."""
        return list(zip(self._firsts, self._lasts, strict=True))

    def add(self, first: int, last: int) -> None:
        """Add all numbers from `first` to `last`."""
        low = bisect_left(self._lasts, first - 1)  # the first range that touches
        high = bisect_right(self._firsts, last + 1)  # behind the last one
        if low < high:
            first, last = min(first, self._firsts[low]), max(last, self._lasts[high - 1])
        self._firsts[low:high], self._lasts[low:high] = [first], [last]
        if len(self._firsts) > self._most:
            del self._firsts[1], self._lasts[0]

    def missing(self, first: int, last: int) -> int:
        """How many numbers from `first` to `last` are not here."""
        count = last - first + 1
        place = bisect_left(self._lasts, first)
        while place < len(self._firsts) and self._firsts[place] <= last:
            count -= min(last, self._lasts[place]) - max(first, self._firsts[place]) + 1
            place += 1
        return max(0, count)
