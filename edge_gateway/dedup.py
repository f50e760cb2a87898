"""Which of a device's windows were seen: its newest `width` seqs as bits, its newest answers whole.

An answer frees the window at its device, so a lost answer brings the window again; it must not be inferred twice where
that can be known. What waits is not persisted: after a restart it is inferred.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

REMEMBERED = 64  # answers
WIDTH = 1024  # seqs


@dataclass(frozen=True, slots=True)
class Seen:
    """What to do with a window: infer `new` and `again`, leave `waiting`, repeat `answer`, refuse `stale_epoch`."""

    kind: Literal["new", "waiting", "answered", "again", "stale_epoch"]
    answer: bytes | None = None


class DedupWindow:
    """One device's window. Bounded: `width` bits, `width` waiting seqs, `remembered` answers."""

    __slots__ = ("_answered", "_answers", "_epoch", "_high", "_remembered", "_waiting", "_width")

    def __init__(self, remembered: int = REMEMBERED, width: int = WIDTH) -> None:
        self._remembered, self._width = remembered, width
        self._reset(-1)

    def _reset(self, epoch: int) -> None:
        self._epoch = epoch
        self._high = -1  # the largest seq seen
        self._answered = 0  # bit i: seq `high - i` was answered
        self._waiting: dict[int, None] = {}  # in the order in which they came
        self._answers: dict[int, bytes] = {}  # in the order in which they were given

    def see(self, epoch: int, seq: int) -> Seen:
        """Judge a window that arrived; one that is `new` or comes `again` waits from now on."""
        if epoch < self._epoch:
            return Seen("stale_epoch")
        if epoch > self._epoch:
            self._reset(epoch)
        if seq in self._waiting:
            return Seen("waiting")
        if seq in self._answers:
            return Seen("answered", self._answers[seq])
        self._advance(seq)
        self._waiting[seq] = None
        if len(self._waiting) > self._width:
            del self._waiting[next(iter(self._waiting))]
        age = self._high - seq
        return Seen("again" if age >= self._width or self._answered >> age & 1 else "new")

    def _advance(self, seq: int) -> None:
        step = seq - self._high
        if step <= 0:
            return
        self._high = seq
        # a stranger's seq may be huge: shifting by it would take that many bits of memory
        self._answered = (self._answered << step) & ((1 << self._width) - 1) if step < self._width else 0

    def forget(self, epoch: int, seq: int) -> None:
        """A waiting window was dropped before inference: it may come once more, as what it came this time."""
        if epoch == self._epoch:
            self._waiting.pop(seq, None)

    def answer(self, epoch: int, seq: int, answer: bytes) -> None:
        """A window was answered; the answer is repeated while it is among the newest. An old epoch's is ignored."""
        if epoch != self._epoch:
            return
        self._waiting.pop(seq, None)
        self._advance(seq)
        if self._high - seq < self._width:
            self._answered |= 1 << (self._high - seq)
        self._answers.pop(seq, None)
        self._answers[seq] = answer
        if len(self._answers) > self._remembered:
            del self._answers[next(iter(self._answers))]

    def to_state(self) -> dict[str, Any]:
        """Plain values for `from_state`; what waits is left out."""
        return {
            "epoch": self._epoch,
            "high": self._high,
            "answered": self._answered.to_bytes(-(-self._width // 8), "little"),
            "answers": [[seq, answer] for seq, answer in self._answers.items()],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], remembered: int = REMEMBERED, width: int = WIDTH) -> DedupWindow:
        """The window that `to_state` described; raises ValueError, KeyError or TypeError for anything else."""
        window = cls(remembered, width)
        window._epoch, window._high = int(state["epoch"]), int(state["high"])
        window._answered = int.from_bytes(bytes(state["answered"]), "little") & ((1 << width) - 1)
        answers = [(int(seq), bytes(answer)) for seq, answer in state["answers"]]
        window._answers = dict(answers[max(0, len(answers) - remembered) :])
        return window
