"""How a full subscriber slows its publishers: PUBACKs withheld in order, and a limit on how long; no I/O.

A publisher with a bounded window of unacknowledged messages stops by itself when its PUBACKs stay out, and nothing
that was acknowledged is ever dropped for a connected client.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Protocol


class Publisher(Protocol):
    """Whoever waits for a PUBACK."""

    def release(self) -> None:
        """A hold may have ended."""


class Hold:
    """One withheld PUBACK: it may go once `waiting_for` full sessions have room or are gone."""

    __slots__ = ("packet_id", "publisher", "size", "waiting_for")

    def __init__(self, publisher: Publisher, packet_id: int, size: int, waiting_for: int) -> None:
        self.publisher = publisher
        self.packet_id = packet_id
        self.size = size
        self.waiting_for = waiting_for

    def let_go(self) -> None:
        """One of the full sessions has room."""
        self.waiting_for -= 1
        if self.waiting_for == 0:
            self.publisher.release()


class WithheldAcks:
    """One publisher's withheld PUBACKs, oldest first: MQTT-4.6.0-2 keeps them in order, so one delays the rest."""

    def __init__(self, max_messages: int, max_bytes: int) -> None:
        self._holds: deque[Hold] = deque()
        self._bytes = 0
        self._max_messages = max_messages
        self._max_bytes = max_bytes

    def __bool__(self) -> bool:
        return bool(self._holds)

    @property
    def full(self) -> bool:
        """Whether no more of this publisher should be read."""
        return len(self._holds) >= self._max_messages or self._bytes >= self._max_bytes

    def add(self, hold: Hold) -> None:
        self._holds.append(hold)
        self._bytes += hold.size

    def free(self) -> Iterator[int]:
        """Packet ids that nothing holds back any more; each is given once."""
        while self._holds and self._holds[0].waiting_for == 0:
            hold = self._holds.popleft()
            self._bytes -= hold.size
            yield hold.packet_id


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
