"""What was sent and is not answered yet: when each of it is due again. In memory only: sending writes nothing.

Bounded by who marks: an outbox offers no more than its edge allows to be under way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

FIRST_RESEND = 5.0  # s
LAST_RESEND = 60.0  # s


def resend_delay(attempts: int, p99: float) -> float:
    """Seconds to wait for an answer after `attempts` earlier sendings, where 99 % are answered within `p99` s."""
    return min(LAST_RESEND, max(FIRST_RESEND, 4 * p99) * 2.0 ** min(attempts, 10))


@dataclass(slots=True)
class _Sent:
    """When it was sent (unix s), and how long its answer may take (s)."""

    attempts: int
    sent_at: float
    delay: float

    def wait(self, now: float) -> float:
        """Seconds until it is due again; none when the clock went back, as nobody knows then."""
        return max(0.0, self.delay - (now - self.sent_at)) if now >= self.sent_at else 0.0


class UnderWay:
    """Things under way, each by its number."""

    def __init__(self) -> None:
        self._sent: dict[int, _Sent] = {}

    def __len__(self) -> int:
        return len(self._sent)

    def __iter__(self) -> Iterator[int]:
        return iter(self._sent)

    def __contains__(self, number: int) -> bool:
        return number in self._sent

    def mark(self, numbers: Iterable[int], now: float, delay: float) -> None:
        """These were sent at `now`; without an answer they are due again `delay` s later."""
        for number in numbers:
            self._sent[number] = _Sent(self.attempts(number) + 1, now, delay)

    def attempts(self, number: int) -> int:
        """How often it was sent."""
        sent = self._sent.get(number)
        return sent.attempts if sent else 0

    def free(self, number: int) -> None:
        """It was answered, or is gone; nothing is said where it was not under way."""
        self._sent.pop(number, None)

    def due(self, now: float) -> list[int]:
        """What is to be sent again, in its order."""
        return sorted(number for number, sent in self._sent.items() if not sent.wait(now))

    def wait(self, now: float) -> float | None:
        """Seconds until something is due again; None where nothing is under way."""
        return min((sent.wait(now) for sent in self._sent.values()), default=None)

    def reset(self) -> None:
        """All of it is due again at once."""
        for sent in self._sent.values():
            sent.delay = 0.0
