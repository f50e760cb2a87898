"""Which of a device's windows were seen: the seqs that are settled as ranges, its newest answers whole.

A seq is settled when its window was answered, or the device said that it will not come. An answer frees the window at
its device, so a lost answer brings the window again; it must not be inferred twice where that can be known. What waits
is not persisted: after a restart it is inferred.

Each packet tells below which seq all is settled for its device. What is not settled here is missing: answered by
nobody and shed by nobody. Holes that an edge cannot judge, from before it knew the device and around its own crash, are
left alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edge_gateway.ranges import Ranges
from megace2_iot.messages import Gap

REMEMBERED = 64  # answers
WAITING = 1024  # seqs
LARGEST = 2**32  # windows that one word of a device may count for: sums of a stranger's must fit a message
DOUBT = 4096  # seqs behind those that a restarted edge knows: it may have answered them in its last 2 s


@dataclass(frozen=True, slots=True)
class Seen:
    """What to do with a window: infer `new` and `again`, leave `waiting`, repeat `answer`, refuse `stale_epoch`."""

    kind: Literal["new", "waiting", "answered", "again", "stale_epoch"]
    answer: bytes | None = None


class DedupWindow:
    """One device's window. Bounded: its ranges, `WAITING` waiting seqs, `remembered` answers.

    `told` are windows that the device shed, by reason, and `missing` those that were lost, since its first packet.
    """

    __slots__ = ("_answers", "_doubt", "_epoch", "_is_known", "_remembered", "_settled", "_waiting", "missing", "told")

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self.told: Counter[str] = Counter()
        self.missing = 0
        self._reset(-1)

    def _reset(self, epoch: int) -> None:
        self._epoch = epoch
        self._settled = Ranges()
        self._doubt = Ranges()  # seqs that are not judged
        self._is_known = False  # whether a live window came, from which on it can be judged
        self._waiting: dict[int, None] = {}  # in the order in which they came
        self._answers: dict[int, bytes] = {}  # in the order in which they were given

    def _is_of(self, epoch: int) -> bool:
        """Whether an epoch is the device's; a larger one begins anew."""
        if epoch > self._epoch:
            self._reset(epoch)
        return epoch == self._epoch

    # -- windows ----------------------------------------------------------------------
    def see(self, epoch: int, seq: int) -> Seen:
        """Judge a window that arrived; one that is `new` or comes `again` waits from now on."""
        if not self._is_of(epoch):
            return Seen("stale_epoch")
        if seq in self._waiting:
            return Seen("waiting")
        if seq in self._answers:
            return Seen("answered", self._answers[seq])
        self._waiting[seq] = None
        if len(self._waiting) > WAITING:
            del self._waiting[next(iter(self._waiting))]
        return Seen("again" if seq in self._settled else "new")

    def forget(self, epoch: int, seq: int) -> None:
        """A waiting window was dropped before inference: it may come once more, as what it came this time."""
        if epoch == self._epoch:
            self._waiting.pop(seq, None)

    def answer(self, epoch: int, seq: int, answer: bytes) -> None:
        """A window was answered; the answer is repeated while it is among the newest. An old epoch's is ignored."""
        if epoch != self._epoch:
            return
        self._waiting.pop(seq, None)
        self._settled.add(seq, seq)
        self._answers.pop(seq, None)
        self._answers[seq] = answer
        if len(self._answers) > self._remembered:
            del self._answers[next(iter(self._answers))]

    # -- what does not come -----------------------------------------------------------
    def tell(self, epoch: int, gap: Gap) -> Counter[str]:
        """The device says what it will not send; returns what of it is news, windows by reason."""
        if not self._is_of(epoch):
            return Counter()
        # what is known was told before, or answered in spite of it
        left = min(self._settled.missing(gap.first, gap.last), LARGEST)
        news: Counter[str] = Counter()
        for reason, count in gap.shed.items():
            news[reason] = min(count, left)
            left -= news[reason]
        self._settled.add(gap.first, gap.last)
        self.told += news
        return +news

    def settle(self, epoch: int, seq: int, live: int | None) -> int:
        """The device says that every smaller seq is settled; returns how many are missing.

        The first `live` seq that an edge hears of says how far what it may have missed before reaches.
        """
        if not seq or not self._is_of(epoch):
            return 0
        if not self._is_known and live is not None:
            self._is_known = True
            self._doubt.add(0, live)
        missing = self._settled.missing(0, seq - 1)
        if missing:
            unjudged = sum(
                self._settled.missing(first, min(last, seq - 1)) for first, last in self._doubt.pairs() if first < seq
            )
            missing = missing - unjudged if self._is_known else 0
            self._settled.add(0, seq - 1)
        missing = min(missing, LARGEST)
        self.missing += missing
        return missing

    # -- on disk ----------------------------------------------------------------------
    def to_state(self) -> dict[str, Any]:
        """Plain values for `from_state`; what waits is left out."""
        return {
            "epoch": self._epoch,
            "settled": [list(pair) for pair in self._settled.pairs()],
            "known": self._is_known,
            "answers": [[seq, answer] for seq, answer in self._answers.items()],
            "told": dict(self.told),
            "missing": self.missing,
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], remembered: int = REMEMBERED) -> DedupWindow:
        """The window that `to_state` described; raises ValueError, KeyError or TypeError for anything else."""
        window = cls(remembered)
        window._epoch = int(state["epoch"])
        pairs = [(int(first), int(last)) for first, last in _settled(state)]
        window._settled = Ranges(pairs)
        # what the last run answered and had not written down lies behind its backlog or behind its newest window
        window._doubt = Ranges((last + 1, last + DOUBT) for _, last in (pairs[:1] + pairs[-1:]))
        window._is_known = bool(state.get("known", False))
        window.told = Counter({str(reason): int(count) for reason, count in state.get("told", {}).items()})
        window.missing = int(state.get("missing", 0))
        answers = [(int(seq), bytes(answer)) for seq, answer in state["answers"]]
        window._answers = dict(answers[max(0, len(answers) - remembered) :])
        return window


def _settled(state: Mapping[str, Any]) -> list[tuple[int, int]]:
    """The ranges of a state; one of the first format has a bit for each of the last 1,024 seqs."""
    if "settled" in state:
        return list(state["settled"])
    high, bits = int(state["high"]), int.from_bytes(bytes(state["answered"]), "little")
    return [(high - place, high - place) for place in reversed(range(bits.bit_length())) if bits >> place & 1]
