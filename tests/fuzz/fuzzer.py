"""Byte-level mutation fuzzing of one decoder: deterministic by its seed, every execution bounded in time and memory.

A target decodes bytes of strangers. It may raise what it declares and nothing else, may take `LONGEST` s of processor
time, and no more memory than it says. `Campaign` mutates a corpus, keeps inputs that get an answer nobody got before
(the kind of the exception and its words without their numbers), and shrinks what breaks the contract.
"""

from __future__ import annotations

import random
import re
import resource
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

LONGEST = 1.0  # s of processor time for one input
TRIES = 500  # executions to make one finding smaller
KEPT = 512  # inputs of a corpus: one more takes another's place
LARGEST = 1 << 17  # bytes of an input
SUSPICIOUS = 4 << 20  # bytes by which one execution raises the process's peak before it is looked at closely
EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**53, 2**63, 2**64 - 1)
NAMES = re.compile(r"'[^']*'|\"[^\"]*\"|b'.*|[^A-Za-z ]+")  # what differs between two answers that are alike
MiB = 1 << 20


@dataclass(frozen=True, slots=True)
class Target:
    """A decoder and its contract; `memory` is what it may take, in bytes, for an input of so many."""

    name: str
    decode: Callable[[bytes], object]
    raises: tuple[type[Exception], ...]
    seeds: tuple[bytes, ...]
    memory: Callable[[int], int] = lambda size: 4 * MiB + 64 * size


@dataclass(frozen=True, slots=True)
class Finding:
    """An input that breaks the contract, and how."""

    target: str
    data: bytes
    how: str


# -- mutators: each makes one change ----------------------------------------------------
def _flip(data: bytearray, dice: random.Random, other: bytes) -> None:
    if data:
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _byte(data: bytearray, dice: random.Random, other: bytes) -> None:
    if data:
        data[dice.randrange(len(data))] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))


def _integer(data: bytearray, dice: random.Random, other: bytes) -> None:
    """An edge value, or one more or less, in 1 to 8 bytes: the length fields of most formats are such."""
    size = dice.choice((1, 2, 4, 8))
    if len(data) >= size:
        at = dice.randrange(len(data) - size + 1)
        order = dice.choice(("little", "big"))
        old = int.from_bytes(data[at : at + size], order)  # type: ignore[arg-type]
        value = dice.choice((dice.choice(EDGES), old + 1, old - 1, old * 2, len(data))) % (1 << 8 * size)
        data[at : at + size] = value.to_bytes(size, order)  # type: ignore[arg-type]


def _insert(data: bytearray, dice: random.Random, other: bytes) -> None:
    at = dice.randint(0, len(data))
    data[at:at] = dice.randbytes(dice.choice((1, 2, 4, 16)))


def _delete(data: bytearray, dice: random.Random, other: bytes) -> None:
    at = dice.randint(0, len(data))
    del data[at : at + dice.choice((1, 2, 4, 16, 256))]


def _repeat(data: bytearray, dice: random.Random, other: bytes) -> None:
    at = dice.randint(0, len(data))
    piece = data[at : at + dice.choice((1, 2, 8, 64))]
    data[at:at] = piece * dice.choice((1, 2, 16, 1024))


def _truncate(data: bytearray, dice: random.Random, other: bytes) -> None:
    del data[dice.randint(0, len(data)) :]


def _splice(data: bytearray, dice: random.Random, other: bytes) -> None:
    at, cut = dice.randint(0, len(data)), dice.randint(0, len(other))
    data[at:] = other[cut:]


def _implant(data: bytearray, dice: random.Random, other: bytes) -> None:
    at, begin = dice.randint(0, len(data)), dice.randint(0, len(other))
    piece = other[begin : begin + dice.choice((1, 4, 16, 64))]
    data[at : at + len(piece) * dice.randrange(2)] = piece


MUTATORS = (_flip, _byte, _integer, _integer, _insert, _delete, _repeat, _truncate, _splice, _implant)


def mutated(corpus: Sequence[bytes], dice: random.Random) -> bytes:
    """One to eight changes of one entry."""
    data = bytearray(dice.choice(corpus))
    for _ in range(1 << dice.randrange(4)):
        dice.choice(MUTATORS)(data, dice, dice.choice(corpus))
    return bytes(data[:LARGEST])


# -- one execution ----------------------------------------------------------------------
def answer(target: Target, data: bytes) -> str:
    """What the decoder says, a refusal without numbers and names; raises what it does not declare."""
    try:
        found = target.decode(data)
    except target.raises as error:
        return f"{type(error).__name__}: {re.sub(NAMES, '', str(error))[:80]}"
    return f"decoded: {found[:200]}" if isinstance(found, str) else "decoded"


def judge(target: Target, data: bytes, *, closely: bool = False) -> tuple[str, str]:
    """What the decoder says, and how it breaks its contract (empty: it does not); `closely` counts every byte."""
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    if closely:
        tracemalloc.start()
    try:
        says = answer(target, data)
        took, grown = time.thread_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        peak = tracemalloc.get_traced_memory()[1] if closely else 0
    except Exception as error:
        return "", f"raises {type(error).__name__}: {str(error)[:200]}"
    finally:
        tracemalloc.stop()
    if not closely and (1024 * grown > SUSPICIOUS or took > LONGEST):
        return judge(target, data, closely=True)
    if peak > target.memory(len(data)):
        return says, f"takes {peak:,} bytes for {len(data):,}"
    return says, f"takes {took:.1f} s" if took > LONGEST * (4 if closely else 1) else ""  # counting slows it down


class Campaign:
    """The executions of one target; `note` is told each input before it is run, so that a crash leaves it behind."""

    def __init__(self, target: Target, kept: Sequence[bytes], seed: int, note: Callable[[bytes], None]) -> None:
        self._target, self._note = target, note
        self._dice = random.Random(f"{target.name} {seed}")
        self._corpus = [*target.seeds, *kept]
        self._known: set[str] = set()
        self._broken: set[str] = set()  # in which ways
        self.executions = 0

    @property
    def answers(self) -> int:
        """Different answers so far."""
        return len(self._known)

    def replay(self) -> Iterator[Finding]:
        """Judge the corpus itself, closely."""
        for data in self._corpus:
            yield from self._run(data, closely=True)

    def step(self) -> Iterator[Finding]:
        """One mutation; a finding is as small as it gets."""
        yield from self._run(mutated(self._corpus, self._dice), closely=False)

    def _run(self, data: bytes, *, closely: bool) -> Iterator[Finding]:
        self._note(data)
        self.executions += 1
        says, broken = judge(self._target, data, closely=closely)
        if broken:
            if _kind(broken) not in self._broken:  # one input of each kind will do
                self._broken.add(_kind(broken))
                yield Finding(self._target.name, minimised(self._target, data, broken), broken)
        elif says not in self._known:
            self._known.add(says)
            self._keep(data)

    def _keep(self, data: bytes) -> None:
        if len(self._corpus) < KEPT:
            self._corpus.append(data)
        else:
            self._corpus[self._dice.randrange(KEPT)] = data


def minimised(target: Target, data: bytes, broken: str) -> bytes:
    """A smaller input that breaks the contract alike: cut in halves, quarters and so on while that works."""
    kind = _kind(broken)
    size, tries = len(data) // 2, 0
    while size:
        at = 0
        while at < len(data) and tries < TRIES:
            shorter, tries = data[:at] + data[at + size :], tries + 1
            if _kind(judge(target, shorter, closely=kind.startswith("takes"))[1]) == kind:
                data = shorter
            else:
                at += size
        size //= 2
    return data


def _kind(broken: str) -> str:
    return re.sub(r"[0-9.,]+", "n", broken.split(":")[0])
