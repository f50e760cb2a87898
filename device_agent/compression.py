"""Adaptive compression: how finely a device codes what it sends, by what its link carries; pure, `now` in monotonic s.

As a link fills, a device gives up first precision (up to the bound that its edge set), then rate (rows averaged), and
only where the link cannot carry even that, every second window. What a rung asks of the link is known before it is
tried: from the bytes that arrive, what they took once coded, and the bits of a value at a bound. What the link carries
is measured on what was sent. The ladder is climbed at once and descended a rung at a time, later after each mistake.

The idea of compressing by the state of the network is the paper's, after Kim et al. 2020; the rules here are ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PATIENCE = 1.0  # s that a window may wait before the backlog counts as pressure
DRAIN = 5.0  # s in which a backlog should be gone
GIVE_UP = 10.0  # s that the oldest has waited before windows are shed
FULL = 0.9  # part of the link that may be asked for
ROOM = 0.75  # part of it that a finer rung may ask for
ROOM_UNSHED = 0.95  # the same where the finer rung is the one that sheds nothing
CALM = 10.0  # s that there must be room before the ladder is descended by a rung
LONGEST_CALM = 80.0  # s; doubled up to here whenever a descent is taken back within `REGRET` times as long
REGRET = 3.0
ARRIVALS = 30.0  # s over which arrivals are averaged
MEMORY = 0.8  # of the older packets' weight in what is measured, a packet
LEAST_ON_LINK = 0.1  # of a packet's seconds are taken to be its bytes', however long a round trip is said to be
SMALLEST_CODED = 0.0022  # below this bound a channel does not fit codes of 8 bits and becomes float16
SMALLEST_BOUND = 0.0025  # that a device chooses by itself
CHEAP_LEVEL, THOROUGH_LEVEL = 1, 15  # of zstd
THOROUGH_COST = 2.5  # times as long as cheap coding
MAX_CODING = 0.25  # of the time that a packet is on the link may be spent on coding it


@dataclass(frozen=True, slots=True)
class Choice:
    """How to code a window: the largest error as a part of a channel's range, rows averaged by `thin`, zstd's level."""

    rung: str
    relative_bound: float
    zstd_level: int
    thin: int
    shed: bool  # drop every second window: ask `keeps`


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits to be sent: `size` bytes of uncoded windows, the `oldest` for so many s."""

    size: int
    oldest: float


@dataclass(frozen=True, slots=True)
class _Rung:
    name: str
    part: float  # of the edge's bound
    thin: int = 1
    shed: bool = False

    def bound(self, largest: float) -> float:
        return min(largest, max(self.part * largest, SMALLEST_BOUND))


LADDER = (
    _Rung("finest", 0.25),
    _Rung("fine", 0.5),
    _Rung("bound", 1.0),
    _Rung("half", 1.0, thin=2),
    _Rung("quarter", 1.0, thin=4),
    _Rung("shed", 1.0, thin=4, shed=True),
)
RUNGS = tuple(rung.name for rung in LADDER)
SHED = len(LADDER) - 1


def bits(relative_bound: float, thin: int) -> float:
    """Bits a value of the window takes in its packet: what a code of that bound holds, and 45 a channel whatever its
    length, here of 50 rows. Within 15 % of what real features took (benchmarks/compression.py).
    """
    if relative_bound >= SMALLEST_CODED:
        coded = math.log2(1 + 0.5 / relative_bound) - 0.5
    else:
        coded = 13.5 if relative_bound > 0 else 27.0  # as float16, as float32
    return 0.9 + coded / thin


def thin(values: npt.NDArray[np.float32], factor: int) -> npt.NDArray[np.float32]:
    """Rows (T, D) averaged in groups of `factor`, (ceil(T / factor), D); the last group may be smaller."""
    if factor == 1 or len(values) == 0:
        return values
    begins = np.arange(0, len(values), factor)
    counts = np.diff(begins, append=len(values))
    return (np.add.reduceat(values, begins, axis=0, dtype=np.float64) / counts[:, None]).astype(np.float32)


class Controller:
    """One device's place on the ladder. `counters` tells the choices by rung, and the windows that were shed."""

    def __init__(self) -> None:
        self._arrivals = _Arrivals()
        self._link = _Mean()  # packet bytes a second on the way
        self._packed = [_Mean() for _ in LADDER[:SHED]]  # by rung, bytes of a packet, as a part of what `bits` expects
        self._coding = _Mean()  # s of cheap coding a second on the way
        self._place = 0
        self._calm, self._calm_since = CALM, math.inf
        self._descended_at = -math.inf
        self._passed = 0
        self.counters: dict[str, int] = {**dict.fromkeys(RUNGS, 0), "windows_shed": 0}

    # -- what is measured -------------------------------------------------------------
    def arrived(self, size: int, now: float) -> None:
        """A window of `size` uncoded bytes was accepted."""
        self._arrivals.note(size, now)

    def sent(
        self, choice: Choice, size: int, packet: int, *, coding: float, seconds: float, round_trip: float = 0.0
    ) -> None:
        """A packet of `packet` bytes, of windows of `size` uncoded bytes, took `coding` s to make and `seconds` s from
        publishing to its acknowledgement. `round_trip` s of these, where known, an empty one would have taken, too: no
        rung shortens them.
        """
        if size <= 0 or packet <= 0:
            return
        seconds = max(seconds - round_trip, LEAST_ON_LINK * seconds, 1e-6)
        self._link.note(packet, seconds)
        place = min(RUNGS.index(choice.rung), SHED - 1)
        self._packed[place].note(packet, size * bits(choice.relative_bound, choice.thin))
        self._coding.note(coding / (THOROUGH_COST if choice.zstd_level == THOROUGH_LEVEL else 1.0), seconds)

    # -- what follows from it ---------------------------------------------------------
    def choose(self, largest_bound: float, backlog: Backlog, now: float) -> Choice:
        """How to code what is sent next; `largest_bound` is the edge's."""
        wanted = self._wanted(largest_bound, backlog, now)
        if wanted > self._place:
            regretted = now - self._descended_at < REGRET * self._calm
            self._calm = min(2 * self._calm, LONGEST_CALM) if regretted else CALM
            self._place, self._calm_since = wanted, math.inf
        elif self._place == 0 or not self._has_room(self._place - 1, largest_bound, backlog, now):
            self._calm_since = math.inf
        elif now - min(self._calm_since, now) < self._calm:
            self._calm_since = min(self._calm_since, now)
        else:
            self._place, self._calm_since, self._descended_at = self._place - 1, now, now
        rung = LADDER[self._place]
        self.counters[rung.name] += 1
        return Choice(rung.name, rung.bound(largest_bound), self._level(rung), rung.thin, rung.shed)

    def keeps(self, choice: Choice) -> bool:
        """Whether to send the next window at all; not every second one while `choice` sheds."""
        if not choice.shed:
            return True
        self._passed += 1
        self.counters["windows_shed"] += self._passed % 2
        return self._passed % 2 == 0

    def _wanted(self, largest_bound: float, backlog: Backlog, now: float) -> int:
        """The finest rung that carries what arrives and drains what waits."""
        for place in range(SHED):
            if self._asked(place, largest_bound, backlog, now) <= FULL:
                return place
        hopeless = self._asked(SHED - 1, largest_bound, Backlog(0, 0.0), now) > 1
        return SHED if hopeless and backlog.oldest > GIVE_UP else SHED - 1

    def _has_room(self, place: int, largest_bound: float, backlog: Backlog, now: float) -> bool:
        if place == SHED - 1:  # what waits is no reason to go on shedding where it will drain
            return self._asked(place, largest_bound, Backlog(0, 0.0), now) <= ROOM_UNSHED
        return self._asked(place, largest_bound, backlog, now) <= ROOM

    def _asked(self, place: int, largest_bound: float, backlog: Backlog, now: float) -> float:
        """The part of the link that a rung asks for; 0 before anything was sent."""
        rate = self._arrivals.rate(now) + (backlog.size / DRAIN if backlog.oldest > PATIENCE else 0.0)
        if not self._link.value:
            return 0.0
        known = min((p for p in range(SHED) if self._packed[p].value), key=lambda p: abs(p - place))
        rung = LADDER[place]
        return rate * self._packed[known].value * bits(rung.bound(largest_bound), rung.thin) / self._link.value

    def _level(self, rung: _Rung) -> int:
        """Thorough where precision is spent already, and the processor has the time."""
        spent = rung.part == 1.0 and 0 < THOROUGH_COST * self._coding.value <= MAX_CODING
        return THOROUGH_LEVEL if spent else CHEAP_LEVEL


class _Mean:
    """A ratio of two sums that forget: one slow packet tells at once, as it weighs by its seconds."""

    def __init__(self) -> None:
        self._over = self._under = 0.0

    def note(self, over: float, under: float) -> None:
        self._over = MEMORY * self._over + over
        self._under = MEMORY * self._under + under

    @property
    def value(self) -> float:
        return self._over / self._under if self._under else 0.0


class _Arrivals:
    """Bytes a second, of late."""

    def __init__(self) -> None:
        self._weighted = 0.0  # bytes, each as much less as it is older
        self._began: float | None = None
        self._last = 0.0

    def note(self, size: int, now: float) -> None:
        if self._began is None:
            self._began = self._last = now
        self._weighted = self._weighted * math.exp((self._last - now) / ARRIVALS) + size
        self._last = now

    def rate(self, now: float) -> float:
        if self._began is None:
            return 0.0
        seen = ARRIVALS * -math.expm1(-max(now - self._began, 1.0) / ARRIVALS)
        return self._weighted * math.exp((self._last - now) / ARRIVALS) / seen
