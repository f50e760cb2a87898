"""Items that wait for company: a batch is one bucket's oldest, when it is full or its oldest has waited long enough."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")
LONGEST_GAP, SMOOTHING = 1.0, 0.1  # s; weight of the newest gap


class Batcher(Generic[T]):
    """Batches of at most `max_batch_size` items of one bucket, none held back longer than `max_queue_delay` s.

    At most `capacity` items wait, of at most `capacity_bytes` together. `now` is monotonic s and does not decrease
    from call to call.
    """

    def __init__(
        self, max_batch_size: int, max_queue_delay: float, capacity: int, capacity_bytes: int = sys.maxsize
    ) -> None:
        self._max_batch_size, self._max_queue_delay = max_batch_size, max_queue_delay
        self._capacity, self._capacity_bytes = capacity, capacity_bytes
        # each by deadline, arrival number, bytes, item
        self._buckets: dict[Hashable, deque[tuple[float, int, int, T]]] = {}
        self._arrivals = 0
        self._size = self._bytes = 0

    def __len__(self) -> int:
        return self._size

    @property
    def has_room(self) -> bool:
        """Whether a quarter of it is free, or all of a small one."""
        return self._size <= 3 * self._capacity // 4 and self._bytes <= 3 * self._capacity_bytes // 4

    def add(self, item: T, bucket: Hashable, now: float, size: int = 0) -> bool:
        """Let one item of `size` bytes wait; False, and it does not, where there is no room for it."""
        if self._size >= self._capacity or self._bytes + size > self._capacity_bytes:
            return False
        self._arrivals += 1
        self._size += 1
        self._bytes += size
        self._buckets.setdefault(bucket, deque()).append((now + self._max_queue_delay, self._arrivals, size, item))
        return True

    def take(self, now: float, *, early: bool = False) -> list[T]:
        """The batch whose oldest item came first among those that are ready (`early`: all); empty when none is."""
        ready = [
            (queue[0][:2], bucket) for bucket, queue in self._buckets.items() if early or self._is_ready(queue, now)
        ]
        if not ready:
            return []
        _, chosen = min(ready, key=lambda entry: entry[0])
        queue = self._buckets[chosen]
        taken = [queue.popleft() for _ in range(min(len(queue), self._max_batch_size))]
        self._size -= len(taken)
        self._bytes -= sum(size for _, _, size, _ in taken)
        if not queue:
            del self._buckets[chosen]
        return [item for *_, item in taken]

    def _is_ready(self, queue: deque[tuple[float, int, int, T]], now: float) -> bool:
        return len(queue) >= self._max_batch_size or queue[0][0] <= now

    def next_deadline(self) -> float | None:
        """When, without another item, `take` has a batch (monotonic s, -inf for at once); None when nothing waits."""
        if any(len(queue) >= self._max_batch_size for queue in self._buckets.values()):
            return float("-inf")
        return min((queue[0][0] for queue in self._buckets.values()), default=None)


class Pace:
    """How far apart items arrive of late, to tell whether waiting for company is worth while."""

    def __init__(self) -> None:
        self.gap = LONGEST_GAP  # s, smoothed
        self._last = float("-inf")

    def note(self, now: float) -> None:
        """An item arrived."""
        newest = min(now - self._last, LONGEST_GAP)
        self.gap += SMOOTHING * (newest - self.gap)
        self._last = now


def length_bucket(steps: int) -> int:
    """The smallest of 0, 1, 2, 3, 4, 6, 8, 12, 16, 24 ... that holds `steps`: at most a third of a batch is padding."""
    if steps <= 3:
        return max(0, steps)
    power = 1 << (steps - 1).bit_length()  # the next power of two; three quarters of it is the class below
    return power if steps > power // 4 * 3 else power // 4 * 3
