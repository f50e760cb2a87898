"""Items that wait for company: a batch is one bucket's oldest, when it is full or its oldest has waited long enough."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Batcher(Generic[T]):
    """Batches of at most `max_batch_size` items of one bucket, none held back longer than `max_queue_delay` s.

    At most `capacity` items wait. `now` is monotonic s and does not decrease from call to call.
    """

    def __init__(self, max_batch_size: int, max_queue_delay: float, capacity: int) -> None:
        self._max_batch_size, self._max_queue_delay, self._capacity = max_batch_size, max_queue_delay, capacity
        self._buckets: dict[Hashable, deque[tuple[float, int, T]]] = {}  # each by deadline, arrival number, item
        self._arrivals = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, item: T, bucket: Hashable, now: float) -> bool:
        """Let one item wait; False, and it does not, when `capacity` items wait already."""
        if self._size >= self._capacity:
            return False
        self._arrivals += 1
        self._size += 1
        self._buckets.setdefault(bucket, deque()).append((now + self._max_queue_delay, self._arrivals, item))
        return True

    def take(self, now: float) -> list[T]:
        """The batch whose oldest item came first among those that are ready; empty when none is."""
        ready = [(queue[0][:2], bucket) for bucket, queue in self._buckets.items() if self._is_ready(queue, now)]
        if not ready:
            return []
        _, chosen = min(ready, key=lambda entry: entry[0])
        queue = self._buckets[chosen]
        batch = [queue.popleft()[2] for _ in range(min(len(queue), self._max_batch_size))]
        self._size -= len(batch)
        if not queue:
            del self._buckets[chosen]
        return batch

    def _is_ready(self, queue: deque[tuple[float, int, T]], now: float) -> bool:
        return len(queue) >= self._max_batch_size or queue[0][0] <= now

    def next_deadline(self) -> float | None:
        """When, without another item, `take` has a batch (monotonic s, -inf for at once); None when nothing waits."""
        if any(len(queue) >= self._max_batch_size for queue in self._buckets.values()):
            return float("-inf")
        return min((queue[0][0] for queue in self._buckets.values()), default=None)


def length_bucket(steps: int) -> int:
    """The smallest of 0, 1, 2, 3, 4, 6, 8, 12, 16, 24 ... that holds `steps`: at most a third of a batch is padding."""
    if steps <= 3:
        return max(0, steps)
    power = 1 << (steps - 1).bit_length()  # the next power of two; three quarters of it is the class below
    return power if steps > power // 4 * 3 else power // 4 * 3
