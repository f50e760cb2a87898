"""The fuzzer finds what it is for, gives the same inputs for the same seed, and makes findings small."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.fuzzer import Campaign, Finding, MiB, Target, judge, minimised, mutated


def target(decode: Callable[[bytes], object]) -> Target:
    return Target("made", decode, (ValueError,), (b"a seed of ours" * 4,))


def first_finding(decode: Callable[[bytes], object]) -> Finding:
    campaign = Campaign(target(decode), (), 0, lambda data: None)
    while not (found := next(campaign.step(), None)):
        assert campaign.executions < 20_000
    return found


def test_an_undeclared_exception_is_found_and_made_small() -> None:
    """One byte of a long input is what it takes, and what is kept."""

    def fragile(data: bytes) -> None:
        if b"\xff" in data:
            raise KeyError("ff")

    found = first_finding(fragile)
    assert (found.data, found.how) == (b"\xff", "raises KeyError: 'ff'")


def test_memory_beyond_what_is_allowed_is_found() -> None:
    """Also memory that was never touched, which the system does not count."""
    greedy = target(lambda data: bytes(64 * MiB))
    assert "takes 67," in judge(greedy, b"x", closely=True)[1]
    assert minimised(greedy, b"x" * 100, judge(greedy, b"x" * 100, closely=True)[1]) == b""


def test_declared_refusals_are_no_finding() -> None:
    """A decoder that refuses everything keeps its contract."""

    def strict(data: bytes) -> None:
        raise ValueError(f"no: {data!r}")

    campaign = Campaign(target(strict), (), 0, lambda data: None)
    assert not [found for _ in range(200) for found in campaign.step()]


def test_equal_seeds_give_equal_inputs() -> None:
    """A finding of one machine is one of every machine."""
    corpus = (b"one", b"two" * 50)
    first, second = ([mutated(corpus, dice) for _ in range(100)] for dice in (random.Random(3), random.Random(3)))
    assert first == second
    assert len(set(first)) > 80


def test_a_decoder_that_ends_the_process_is_found(tmp_path: Path) -> None:
    """The input that killed the child is noted before it is run."""
    script = (
        "import os, sys; from pathlib import Path; from tests.fuzz import __main__ as main\n"
        "note = main._notes(Path(sys.argv[1])); note(b'the last words'); os.abort()"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "last")], check=False, cwd=Path(__file__).parents[2])
    last = (tmp_path / "last").read_bytes()
    assert last[8 : 8 + int.from_bytes(last[:8], "little")] == b"the last words"
