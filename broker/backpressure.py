"""How a full subscriber slows its publishers: PUBACKs and PUBRECs withheld in order, and for how long; no I/O.

A publisher with a bounded window of unacknowledged messages stops by itself when its answers stay out, and nothing
that was acknowledged is ever dropped for a connected client.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Protocol


class Publisher(Protocol):
    """Whoever waits for an answer."""

    def let_go(self) -> None:
        """A hold has ended."""


class Hold:
    """One withheld PUBACK or PUBREC: it may go once `waiting_for` full sessions have room or are gone."""

    __slots__ = ("answer", "publisher", "size", "waiting_for")

    def __init__(self, publisher: Publisher, answer: bytes, size: int, waiting_for: int) -> None:
        self.publisher = publisher
        self.answer = answer
        self.size = size
        self.waiting_for = waiting_for

    def let_go(self) -> None:
        """One of the full sessions has room."""
        self.waiting_for -= 1
        if self.waiting_for == 0:
            self.publisher.let_go()


class WithheldAcks:
    """One publisher's withheld answers, oldest first: MQTT-4.6.0-2 keeps them in order, so one delays the rest."""

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._holds: deque[Hold] = deque()
        self._bytes = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes

    def __len__(self) -> int:
        return len(self._holds)

    @property
    def full(self) -> bool:
        """Whether no more of this publisher should be read."""
        return len(self._holds) >= self._max_messages or self._bytes >= self._max_bytes

    def add(self, hold: Hold) -> None:
        self._holds.append(hold)
        self._bytes += hold.size

    def free(self) -> Iterator[bytes]:
        """Answers that nothing holds back any more; each is given once."""
        while self._holds and self._holds[0].waiting_for == 0:
            hold = self._holds.popleft()
            self._bytes -= hold.size
            yield hold.answer


class DrainWatch:
    """Tells when a full subscriber has shown no sign of progress for `deadline` seconds."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._progress: tuple[int, int] | None = None
        self._since = 0.0

    def clear(self) -> None:
        """It is not full."""
        self._progress = None

    def is_stuck(self, progress: tuple[int, int], now: float) -> bool:
        """`progress` is any pair of counts of which one rises when the subscriber takes something."""
        if progress != self._progress:
            self._progress, self._since = progress, now
        return now - self._since > self._deadline
