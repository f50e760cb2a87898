"""Whose packet is next: each device in its turn and within its rate, so that one that floods delays nobody else.

A device has at most `max_unanswered` windows under way, and sends each of them again after some seconds: so what an
honest one may have waiting here is bounded. What it sends faster than its rate waits for its tokens and is answered
later; nothing of it is lost. Only a device that has twice as many waiting, or a quarter of all bytes, loses what comes
next, before anybody decodes it; and where all is full, whoever has more waiting than an honest device may gives way.
A window that is lost so is at its device still, and comes again.

Tokens come back while nobody looks: who has none rests until it has one, and costs nothing until then. A packet of
several windows is paid for when it has been read, and its device's next turns pass over until the others had as many.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

T = TypeVar("T")
REMEMBERED = 4096  # devices whose tokens, and whose floods, are known; one that is forgotten begins with a full bucket
SLACK = 2.0  # times the rate that a device was told; its clock and its network may bunch what it sends
SHARE = 4  # one device has at most one in so many of the bytes
SOON, LOOK_AGAIN = 0.001, 1.0  # s that a device rests at least and at most: it may be told another rate meanwhile
ANY = float(1 << 40)  # of windows or bytes a second


class QuotaSettings(BaseModel):
    """What one device may send, however idle the edge is; a device that was told a rate may send twice that."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    windows: float = Field(2000.0, ge=0)  # a second; 0: any
    bytes: float = Field(32e6, ge=0)  # a second; 0: any
    burst: float = Field(2.0, ge=0.01, le=600)  # s of either that may come at once


@dataclass(slots=True)
class Bucket:
    """Tokens that come back at a rate, at first as many as may be; overdrawn by what is more than it seemed."""

    level: float = ANY
    at: float = 0.0  # monotonic s

    def wait(self, rate: float, burst: float, now: float) -> float:
        """s from `now` on until there is a token, where `rate` come back in a second and at most `burst` s of them."""
        self.level = min(max(1.0, rate * burst), self.level + rate * max(0.0, now - self.at))
        self.at = now
        return max(0.0, (1.0 - self.level) / rate)

    def pay(self, rate: float, burst: float, now: float) -> bool:
        """Whether there was a token, which is gone then."""
        if self.wait(rate, burst, now):
            return False
        self.level -= 1
        return True


@dataclass(slots=True)
class _Device(Generic[T]):
    """Of one that has something waiting: it is either in a turn or at rest."""

    waiting: deque[tuple[T, int]] = field(default_factory=deque)
    bytes: int = 0
    ahead: int = 0  # windows by which it is ahead of the others


class FairQueue(Generic[T]):
    """At most `most` items of `most_bytes`, and of one device at most `each` and a quarter of the bytes.

    An honest device has at most half of `each` waiting, and more only where it sent the same again. `floods` counts
    what was lost, `flooded` what each device lost, whoever did so last at the end. `now` is monotonic s.
    """

    def __init__(self, settings: QuotaSettings, most: int, most_bytes: int, each: int) -> None:
        self._windows, self._content = settings.windows or ANY, settings.bytes or ANY
        self._burst = settings.burst
        self._most, self._most_bytes = most, most_bytes
        self._each, self._each_bytes = each, max(1, most_bytes // SHARE)
        self._devices: dict[str, _Device[T]] = {}
        self._greedy: dict[str, None] = {}  # of these, who has more than is honest
        self._turns: deque[str] = deque()  # the next one first
        self._resting: list[tuple[float, str]] = []  # a heap, by when each is looked at again
        self._tokens: OrderedDict[str, tuple[Bucket, Bucket]] = OrderedDict()  # of windows, of bytes
        self._size = self._bytes = 0
        self.floods = 0
        self.flooded: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return self._size

    # -- in ---------------------------------------------------------------------------
    def put(self, device: str, item: T, size: int) -> Literal["waits", "flood", "full"]:
        """Let an item wait; `flood` is lost, `full` is to be tried again when something was taken."""
        found = self._devices.get(device)
        if found is not None and (len(found.waiting) >= self._each or found.bytes + size > self._each_bytes):
            self._count_flood(device)
            return "flood"
        while self._size and (self._size >= self._most or self._bytes + size > self._most_bytes):
            if device in self._greedy:
                self._count_flood(device)
                return "flood"
            if not self._make_room():
                return "full"
        if found is None:
            found = self._devices[device] = _Device()
            self._turns.append(device)
        found.waiting.append((item, size))
        self._count(device, found, 1, size)
        return "waits"

    def _make_room(self) -> bool:
        """Drop the newest item of whoever has most; False where nobody has more than is honest."""
        some = [device for device in self._greedy if len(self._devices[device].waiting) > 1]  # a huge one alone stays
        if not some:
            return False
        fullest = max(some, key=lambda device: self._fullness(self._devices[device]))
        found = self._devices[fullest]
        _, size = found.waiting.pop()
        self._count(fullest, found, -1, -size)
        self._count_flood(fullest)
        return True

    def _fullness(self, found: _Device[T]) -> float:
        """How much of what a device may have waiting it has."""
        return max(len(found.waiting) / self._each, found.bytes / self._each_bytes)

    def _count(self, device: str, found: _Device[T], items: int, size: int) -> None:
        found.bytes += size
        self._size += items
        self._bytes += size
        if 2 * len(found.waiting) > self._each or 2 * found.bytes > self._each_bytes:
            self._greedy[device] = None
        else:
            self._greedy.pop(device, None)

    def _count_flood(self, device: str) -> None:
        self.floods += 1
        self.flooded[device] = self.flooded.pop(device, 0) + 1
        if len(self.flooded) > REMEMBERED:
            self.flooded.popitem(last=False)

    # -- out --------------------------------------------------------------------------
    def take(self, told: Callable[[str], float], now: float) -> tuple[str, T] | None:
        """The next device's oldest item; None where every one that waits is beyond its rate.

        `told` is the windows a second that a device was told to keep to, 0 where it was not. A window is paid for now,
        more windows of the same packet by `charge`.
        """
        while self._resting and self._resting[0][0] <= now:
            self._turns.append(heappop(self._resting)[1])
        while self._turns:
            device = self._turns.popleft()
            found = self._devices[device]
            if not self._turns:
                found.ahead = 0  # of nobody
            if found.ahead:
                found.ahead -= 1
                self._turns.append(device)
            elif pause := self._pause(device, told(device), now):
                heappush(self._resting, (now + min(max(SOON, pause), LOOK_AGAIN), device))
            else:
                return device, self._pop(device, found)
        return None

    def _pause(self, device: str, told: float, now: float) -> float:
        """s until the device has a token of each kind."""
        rate = min(self._windows, SLACK * told) if told else self._windows
        tokens = self._tokens.get(device)
        if tokens is None:
            tokens = self._tokens[device] = Bucket(), Bucket()
            if len(self._tokens) > REMEMBERED:
                self._tokens.popitem(last=False)
        else:
            self._tokens.move_to_end(device)
        windows, content = tokens
        return max(windows.wait(rate, self._burst, now), content.wait(self._content, self._burst, now))

    def _pop(self, device: str, found: _Device[T]) -> T:
        item, size = found.waiting.popleft()
        self._count(device, found, -1, -size)
        windows, content = self._tokens[device]
        windows.level -= 1
        content.level -= size
        if found.waiting:
            self._turns.append(device)
        else:
            del self._devices[device]
        return item

    def charge(self, device: str, windows: int) -> None:
        """A packet that was taken held so many windows more than the one that was paid for."""
        if tokens := self._tokens.get(device):
            tokens[0].level -= windows
        if found := self._devices.get(device):
            found.ahead += windows

    def wait(self, now: float) -> float:
        """s after a `take` that found nothing until one may find something; infinite where nothing waits."""
        return max(0.0, self._resting[0][0] - now) if self._resting else math.inf
