"""Synchronous rounds between an edge and its devices: who takes part, what counts, when a round is over.

No I/O and no clock: calls take `now` (monotonic s). One round is open at a time. Its mean is kept while deltas arrive,
so a round holds one vector whoever many take part, and what it has is a valid mean whenever it must close.

A delta is refused, and its sender not waited for, where it is not finite, far longer than others lately were, or claims
more examples than a device can have (`update_checks`).

A delta that missed its round by one is not lost: it waits, in a second running mean, for the next round that closes,
and counts there at full weight though not towards the quorum. What was given to a round that is abandoned is dropped.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from megace2_iot.parameters import Layout, ModelUpdate, RunningMean, Vector, is_finite
from megace2_iot.update_checks import RECENT, NormBound, examples, finite, norm_of

FIRST_DEADLINE = 30.0  # s, before any participant's duration is known
SLACK = 1.5  # of the usual duration until the deadline
SMOOTHING = 0.3  # weight of the newest round in the usual duration
ANY_NORM = NormBound(0.0, 0.0)
REMEMBERED = 16  # rounds whose late deltas still tell how long their senders take


@dataclass(frozen=True, slots=True)
class RoundSettings:
    """When a round closes: deadlines in s, `quorum` as the part of its participants that must have answered by then;
    and what a delta may be, 0 for anything.
    """

    min_deadline: float
    max_deadline: float
    quorum: float = 0.5
    max_examples: float = 0.0  # behind a group of one delta
    norms: NormBound = ANY_NORM


@dataclass(frozen=True, slots=True)
class Round:
    """One opened round; times in monotonic s."""

    number: int
    participants: tuple[str, ...]
    base_version: int
    opened_at: float
    deadline: float


@dataclass(frozen=True, slots=True, eq=False)
class Closed:
    """A round's outcome: the mean `delta` (P,), read-only, and the examples behind each group that has any."""

    number: int
    base_version: int
    delta: Vector
    num_examples: Mapping[str, float]
    participants: tuple[str, ...]  # those who answered in time
    duration: float  # s
    joined: tuple[str, ...] = ()  # those whose delta of an earlier round is in the mean


@dataclass(frozen=True, slots=True)
class Abandoned:
    """A round that came to nothing."""

    number: int
    reason: str


@dataclass(frozen=True, slots=True)
class Waiting:
    """A round that goes on; look again when something arrived or at `until` (monotonic s)."""

    until: float


@dataclass(slots=True, eq=False)
class _Book:
    """What is known of one round."""

    round: Round
    layout: Layout
    answered: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)

    @property
    def missing(self) -> list[str]:
        return [p for p in self.round.participants if p not in self.answered and p not in self.gone]


class Rounds:
    """All rounds of one edge; `last_number` is the last one that an earlier run opened."""

    def __init__(self, settings: RoundSettings, last_number: int) -> None:
        self._settings, self._number = settings, last_number
        self._open: _Book | None = None
        self._last: _Book | None = None  # the round before the open one, or before the next
        self._mean: RunningMean | None = None  # of the open round
        self._waiting: RunningMean | None = None  # of deltas that missed their round
        self._waiting_of: set[str] = set()
        self._opened_at: dict[int, float] = {}  # by round, the last `REMEMBERED`
        self._durations: dict[str, float] = {}  # s, the newest of each participant
        self._usual: float | None = None  # s, smoothed p90 over participants
        self._norms: deque[float] = deque(maxlen=RECENT)  # of deltas that were taken
        self._model_norm = 0.0
        self.counters = dict.fromkeys(("closed", "abandoned", "late", "joined", "duplicates", "refused"), 0)

    @property
    def needs_model_norm(self) -> bool:
        """Whether the next round's deltas are compared with the model itself: there were too few others."""
        return self._settings.norms.needs_model(self._norms)

    def open(
        self, participants: Sequence[str], base_version: int, now: float, layout: Layout, model_norm: float = 0.0
    ) -> Round:
        """Open a round over `base_version`; one that is still open is abandoned. Raises ValueError for nobody.

        `model_norm` is that of the base, where `needs_model_norm`.
        """
        members = tuple(dict.fromkeys(participants))
        if not members:
            raise ValueError("a round without participants")
        if self._open is not None:
            self._abandon(self._open, "the next round was opened")
        if self._last is not None and self._last.layout != layout:
            self._waiting, self._waiting_of = None, set()  # deltas of another model
            self._norms.clear()
        self._model_norm = model_norm
        self._number += 1
        self._opened_at[self._number] = now
        self._opened_at.pop(self._number - REMEMBERED, None)
        self._durations = {p: seconds for p, seconds in self._durations.items() if p in members}
        opened = Round(self._number, members, base_version, now, now + self._patience())
        self._open, self._mean = _Book(opened, layout), RunningMean(layout)
        return opened

    def _patience(self) -> float:
        """Seconds until the next round's deadline."""
        low, high = self._settings.min_deadline, self._settings.max_deadline
        wanted = max(low, FIRST_DEADLINE) if self._usual is None else SLACK * self._usual
        return min(max(wanted, low), high)

    # -- what comes in ----------------------------------------------------------------
    def delta(self, participant: str, round_number: int, update: ModelUpdate, now: float) -> str:
        """Take one delta. "" is accepted, "duplicate" known already, "joins_next" kept for the next round that closes,
        "late" too old; other words say what is wrong with it. A participant that is refused is waited for no longer.
        """
        if self._open is not None and round_number == self._open.round.number:
            return self._take(self._open, participant, update, now)
        if self._last is not None and round_number == self._last.round.number:
            return self._join(self._last, participant, update, now)
        if round_number > self._number:
            return f"round {round_number} was not opened here, the newest is {self._number}"
        self._note_duration(participant, round_number, now)
        self.counters["late"] += 1
        return "late"

    def _take(self, book: _Book, participant: str, update: ModelUpdate, now: float) -> str:
        assert self._mean is not None
        reason = self._objection(book, participant, update) or self._added(self._mean, update)
        if reason == "duplicate":
            return reason
        if reason:
            self.gone(participant)
            return reason
        book.answered.add(participant)  # also of one that was gone: it came back in time
        self._note_duration(participant, book.round.number, now)
        return ""

    def _join(self, book: _Book, participant: str, update: ModelUpdate, now: float) -> str:
        reason = self._objection(book, participant, update)
        if not reason and participant in self._waiting_of:
            return "an earlier delta of this participant still waits for a round to close"
        if not reason:
            self._waiting = self._waiting or RunningMean(book.layout)
            reason = self._added(self._waiting, update)
        if reason:
            return reason
        book.answered.add(participant)
        self._waiting_of.add(participant)
        self._note_duration(participant, book.round.number, now)
        self.counters["joined"] += 1
        return "joins_next"

    def _objection(self, book: _Book, participant: str, update: ModelUpdate) -> str:
        wanted = book.round.base_version
        if participant not in book.round.participants:
            return f"{participant} is not in round {book.round.number}"
        if participant in book.answered:
            self.counters["duplicates"] += 1
            return "duplicate"
        if update.base_version != wanted:
            return f"trained on release {update.base_version}, round {book.round.number} trains release {wanted}"
        return ""

    def _added(self, mean: RunningMean, update: ModelUpdate) -> str:
        """Check a delta and take it into a mean; why not, or ""."""
        norm, bound = 0.0, self._settings.norms
        found = examples(update.num_examples, self._settings.max_examples)
        if found is None and (bound.ratio or bound.first):
            norm = norm_of(update.delta)
            found = finite(norm) or bound.check(norm, self._norms, self._model_norm)
        reason = str(found) if found else _add(mean, update)
        if reason:
            self.counters["refused"] += 1
        else:
            self._norms.append(norm)
        return reason

    def gone(self, participant: str, round_number: int | None = None) -> None:
        """A will, a `stopped`, or (in one round) nothing to give: waited for no longer. What it gave stays."""
        book = self._open
        if book is None or participant not in book.round.participants:
            return
        if round_number is None or round_number == book.round.number:
            book.gone.add(participant)

    def _note_duration(self, participant: str, number: int, now: float) -> None:
        """How long a delta took, a late one too: so the deadline learns of those whom it cuts off."""
        known = self._open or self._last
        if known is not None and participant in known.round.participants and number in self._opened_at:
            self._durations[participant] = now - self._opened_at[number]

    # -- what comes of it -------------------------------------------------------------
    def tick(self, now: float) -> Closed | Abandoned | Waiting:
        """Close or abandon the open round where it is over. Raises RuntimeError when none is open."""
        book = self._open
        if book is None:
            raise RuntimeError("no round is open")
        if not book.missing:
            return self._close(book, now) if book.answered else self._abandon(book, "everybody left")
        if now < book.round.deadline:
            return Waiting(book.round.deadline)
        members, answered = len(book.answered) + len(book.missing), len(book.answered)  # who left is not waited for
        quorum = max(1, math.ceil(self._settings.quorum * members - 1e-9))  # 0.07 * 100 is more than 7 in floats
        if answered >= quorum:
            return self._close(book, now)
        # whoever is slower than every deadline would never be heard: the next one is longer
        self._usual = max(self._usual or 0.0, book.round.deadline - book.round.opened_at)
        return self._abandon(book, f"{answered} of {members} answered by the deadline, {quorum} are needed")

    def _close(self, book: _Book, now: float) -> Closed | Abandoned:
        mean, joined = self._mean, tuple(sorted(self._waiting_of))
        assert mean is not None
        reason = _add_mean(mean, self._waiting) if self._waiting is not None else ""
        self._waiting, self._waiting_of = None, set()
        if reason or not is_finite(mean.value):  # finite deltas may differ by more than a float32 can hold
            return self._abandon(book, "the mean of its deltas is not finite")
        self._open, self._mean, self._last = None, None, book
        self._learn_usual(book)
        self.counters["closed"] += 1
        return Closed(
            number=book.round.number,
            base_version=book.round.base_version,
            delta=mean.value,
            num_examples={group: count for group, count in mean.weights.items() if count},
            participants=tuple(p for p in book.round.participants if p in book.answered),
            duration=now - book.round.opened_at,
            joined=joined,
        )

    def _learn_usual(self, book: _Book) -> None:
        durations = sorted(self._durations[p] for p in book.round.participants if p in self._durations)
        p90 = durations[math.ceil(0.9 * len(durations)) - 1]
        self._usual = p90 if self._usual is None else self._usual + SMOOTHING * (p90 - self._usual)

    def _abandon(self, book: _Book, reason: str) -> Abandoned:
        self._open, self._mean, self._last = None, None, book
        self.counters["abandoned"] += 1
        return Abandoned(book.round.number, reason)


def _add(mean: RunningMean, update: ModelUpdate) -> str:
    """Why the update cannot be in a mean; "" when it now is."""
    if not any(update.num_examples.values()):
        return "no examples stand behind it"
    try:
        mean.add(update.delta, update.num_examples)
    except ValueError as error:
        return str(error)
    return ""


def _add_mean(mean: RunningMean, other: RunningMean) -> str:
    """Take a whole mean in: exact, since both carry the examples behind each group."""
    return _add(mean, ModelUpdate(0, other.weights, other.value))
