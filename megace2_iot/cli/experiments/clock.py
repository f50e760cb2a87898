"""A virtual clock: what happens when, in order of time and, at one instant, in the order in which it was arranged."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable

Event = Callable[[], object]


class Clock:
    """`now` (s) jumps from event to event; nothing happens between two of them."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Event]] = []
        self._arranged = itertools.count()
        self._stopped = False

    def at(self, when: float, event: Event) -> None:
        """Let `event` happen at `when`, or at once where that is over."""
        heapq.heappush(self._events, (max(when, self.now), next(self._arranged), event))

    def after(self, delay: float, event: Event) -> None:
        """Let `event` happen `delay` seconds from now."""
        self.at(self.now + delay, event)

    def stop(self) -> None:
        """Let no further event happen in this `run`."""
        self._stopped = True

    def run(self, until: float = math.inf) -> None:
        """Let events happen until `until` (s), or `stop`, or nothing is left to happen."""
        self._stopped = False
        while self._events and not self._stopped and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
        if not self._stopped and until < math.inf:
            self.now = max(self.now, until)
