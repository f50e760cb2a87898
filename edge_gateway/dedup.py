"""Which of a device's windows were seen: the seqs that are settled as ranges, its newest answers whole.

A seq is settled when its window was answered, or the device said that it will not come. An answer frees the window at
its device, so a lost answer brings the window again; it must not be inferred twice where that can be known. What waits
is not persisted: after a restart it is inferred.

Each packet tells below which seq all is settled for its device. What is not settled here is missing: answered by
nobody and shed by nobody. Holes that an edge cannot judge, from before it knew the device and around its own crash, are
left alone.

A device has one epoch, and a larger one when its outbox was lost. Of the two that spoke last the seqs are known, and
none is refused: on a broker that lets anybody in, a stranger's packet of a huge epoch would else end the device's own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from edge_gateway.ranges import Ranges
from megace2_iot.messages import Gap

EPOCHS = 2  # of a device
REMEMBERED = 64  # answers of an epoch
WAITING = 1024  # seqs of an epoch
LARGEST = 2**32  # windows that one word of a device may count for: sums of a stranger's must fit a message
DOUBT = 4096  # seqs behind those that a restarted edge knows: it may have answered them in its last 2 s


@dataclass(frozen=True, slots=True)
class Seen:
    """What to do with a window: infer `new` and `again`, leave `waiting`, repeat `answer`."""

    kind: Literal["new", "waiting", "answered", "again"]
    answer: bytes | None = None


class _Seqs:
    """Those of one epoch. Bounded: its ranges, `WAITING` waiting seqs, `remembered` answers."""

    __slots__ = ("_remembered", "answers", "doubt", "is_known", "settled", "waiting")

    def __init__(self, remembered: int) -> None:
        self._remembered = remembered
        self.settled = Ranges()
        self.doubt = Ranges()  # seqs that are not judged
        self.is_known = False  # whether a live window came, from which on it can be judged
        self.waiting: dict[int, None] = {}  # in the order in which they came
        self.answers: dict[int, bytes] = {}  # in the order in which they were given

    def see(self, seq: int) -> Seen:
        if seq in self.waiting:
            return Seen("waiting")
        if seq in self.answers:
            return Seen("answered", self.answers[seq])
        self.waiting[seq] = None
        if len(self.waiting) > WAITING:
            del self.waiting[next(iter(self.waiting))]
        return Seen("again" if seq in self.settled else "new")

    def answer(self, seq: int, answer: bytes) -> None:
        self.waiting.pop(seq, None)
        self.settled.add(seq, seq)
        self.answers.pop(seq, None)
        self.answers[seq] = answer
        if len(self.answers) > self._remembered:
            del self.answers[next(iter(self.answers))]

    def settle(self, seq: int, live: int | None) -> int:
        """Every smaller seq is settled; returns how many of them are missing."""
        if not self.is_known and live is not None:
            self.is_known = True
            self.doubt.add(0, live)
        missing = self.settled.missing(0, seq - 1)
        if missing:
            unjudged = sum(
                self.settled.missing(first, min(last, seq - 1)) for first, last in self.doubt.pairs() if first < seq
            )
            missing = missing - unjudged if self.is_known else 0
            self.settled.add(0, seq - 1)
        return min(missing, LARGEST)

    # -- on disk ----------------------------------------------------------------------
    def to_state(self, epoch: int) -> dict[str, Any]:
        return {
            "epoch": epoch,
            "settled": [list(pair) for pair in self.settled.pairs()],
            "known": self.is_known,
            "answers": [[seq, answer] for seq, answer in self.answers.items()],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], remembered: int) -> Self:
        seqs = cls(remembered)
        pairs = [(int(first), int(last)) for first, last in _settled(state)]
        seqs.settled = Ranges(pairs)
        # what the last run answered and had not written down lies behind its backlog or behind its newest window
        seqs.doubt = Ranges((last + 1, last + DOUBT) for _, last in (pairs[:1] + pairs[-1:]))
        seqs.is_known = bool(state.get("known", False))
        answers = [(int(seq), _content(answer)) for seq, answer in state["answers"]]
        seqs.answers = dict(answers[max(0, len(answers) - remembered) :])
        return seqs


class DedupWindow:
    """One device's window: the seqs of `EPOCHS` epochs, with `remembered` answers each.

    `told` are windows that the device shed, by reason, and `missing` those that were lost, since its first packet.
    """

    __slots__ = ("_epochs", "_remembered", "missing", "told")

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._remembered = remembered
        self._epochs: dict[int, _Seqs] = {}  # the one that spoke last at the end
        self.told: Counter[str] = Counter()
        self.missing = 0

    def _speaking(self, epoch: int) -> _Seqs:
        """What is known of the epoch that speaks now."""
        seqs = self._epochs.pop(epoch, None) or _Seqs(self._remembered)
        self._epochs[epoch] = seqs
        if len(self._epochs) > EPOCHS:
            del self._epochs[next(iter(self._epochs))]
        return seqs

    # -- windows ----------------------------------------------------------------------
    def see(self, epoch: int, seq: int) -> Seen:
        """Judge a window that arrived; one that is `new` or comes `again` waits from now on."""
        return self._speaking(epoch).see(seq)

    def forget(self, epoch: int, seq: int) -> None:
        """A waiting window was dropped before inference: it may come once more, as what it came this time."""
        if seqs := self._epochs.get(epoch):
            seqs.waiting.pop(seq, None)

    def answer(self, epoch: int, seq: int, answer: bytes) -> None:
        """A window was answered; it is repeated while it is among the newest, and its epoch is known."""
        if seqs := self._epochs.get(epoch):
            seqs.answer(seq, answer)

    # -- what does not come -----------------------------------------------------------
    def tell(self, epoch: int, gap: Gap) -> Counter[str]:
        """The device says what it will not send; returns what of it is news, windows by reason."""
        settled = self._speaking(epoch).settled
        # what is known was told before, or answered in spite of it
        left = min(settled.missing(gap.first, gap.last), LARGEST)
        news: Counter[str] = Counter()
        for reason, count in gap.shed.items():
            news[reason] = min(count, left)
            left -= news[reason]
        settled.add(gap.first, gap.last)
        self.told += news
        return +news

    def settle(self, epoch: int, seq: int, live: int | None) -> int:
        """The device says that every smaller seq is settled; returns how many are missing.

        The first `live` seq that an edge hears of says how far what it may have missed before reaches.
        """
        missing = self._speaking(epoch).settle(seq, live) if seq else 0
        self.missing += missing
        return missing

    # -- on disk ----------------------------------------------------------------------
    def to_state(self) -> dict[str, Any]:
        """Plain values for `from_state`; what waits is left out."""
        epochs = [seqs.to_state(epoch) for epoch, seqs in self._epochs.items()]
        return {"epochs": epochs, "told": dict(self.told), "missing": self.missing}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], remembered: int = REMEMBERED) -> DedupWindow:
        """The window that `to_state` described; raises ValueError, KeyError or TypeError for anything else."""
        window = cls(remembered)
        for fields in state.get("epochs", [state])[-EPOCHS:]:  # earlier versions knew one
            window._epochs[int(fields["epoch"])] = _Seqs.from_state(fields, remembered)
        window.told = Counter({str(reason): int(count) for reason, count in state.get("told", {}).items()})
        window.missing = int(state.get("missing", 0))
        return window


def _settled(state: Mapping[str, Any]) -> list[tuple[int, int]]:
    """The ranges of a state; one of the first format has a bit for each of the last 1,024 seqs."""
    if "settled" in state:
        return list(state["settled"])
    high, bits = int(state["high"]), int.from_bytes(_content(state["answered"]), "little")
    return [(high - place, high - place) for place in reversed(range(bits.bit_length())) if bits >> place & 1]


def _content(value: Any) -> bytes:
    """Bytes as they are: of a number `bytes` would make as many zeros."""
    if not isinstance(value, bytes):
        raise TypeError(f"a {type(value).__name__} where bytes belong")
    return value
