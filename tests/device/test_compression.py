"""The ladder of compression: climbed as far as the link asks for, never beyond the edge's bound, and no higher."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from device_agent.compression import (
    CALM,
    CHEAP_LEVEL,
    GIVE_UP,
    LADDER,
    RUNGS,
    THOROUGH_LEVEL,
    Backlog,
    Choice,
    Controller,
    bits,
    thin,
)

RAW = 80_000  # bytes of a window: 50 rows of 400 values
BOUND = 0.02
NOTHING = Backlog(0, 0.0)
SIMULATED = settings(deadline=None, max_examples=50)  # a thousand windows each, on a machine that others use too


@dataclass
class Outcome:
    controller: Controller
    rungs: list[tuple[float, str]] = field(default_factory=list)  # when which was chosen
    ages: list[tuple[float, float]] = field(default_factory=list)  # when, how old a window was once sent

    def oldest(self, since: float = 0.0) -> float:
        return max(age for at, age in self.ages if at >= since)

    def shares(self, since: float = 0.0) -> Counter[str]:
        return Counter(rung for at, rung in self.rungs if at >= since)

    def changes(self) -> int:
        return sum(a[1] != b[1] for a, b in zip(self.rungs, self.rungs[1:], strict=False))


def coarsest(per_second: float) -> float:
    """Bytes a second that rung `quarter` takes."""
    return per_second * RAW / 32 * bits(BOUND, 4)


def simulate(
    per_second: float, bandwidth: Callable[[float], float], *, seed: int, seconds: float = 300.0, skew: float = 1.0
) -> Outcome:
    """Poisson arrivals of windows over a link of some bytes a second, one packet at a time.

    Packets differ by a sixth from what is expected of them, and thinned ones by `skew`.
    """
    rng, controller, now = np.random.default_rng(seed), Controller(), 0.0
    arrivals = deque(np.cumsum(rng.exponential(1 / per_second, int(seconds * per_second))).tolist())
    waiting: deque[float] = deque()
    outcome = Outcome(controller)
    while arrivals or waiting:
        while arrivals and arrivals[0] <= now:
            controller.arrived(RAW, arrivals[0])
            waiting.append(arrivals.popleft())
        if not waiting:
            now = arrivals[0]
            continue
        choice = controller.choose(BOUND, Backlog(len(waiting) * RAW, now - waiting[0]), now)
        outcome.rungs.append((now, choice.rung))
        captured = waiting.popleft()
        if controller.keeps(choice):
            size = RAW / 32 * bits(choice.relative_bound, choice.thin) * np.exp(0.15 * rng.standard_normal())
            took = size * (skew if choice.thin > 1 else 1.0) / bandwidth(now)
            now += took
            outcome.ages.append((now, now - captured))
            controller.sent(choice, RAW, int(took * bandwidth(now)), coding=0.001, seconds=took)
    return outcome


@SIMULATED
@given(st.integers(0, 2**32), st.floats(0.05, 0.6), st.floats(2, 8), st.floats(0.8, 1.25))
def test_what_the_link_carries_is_not_shed(seed: int, load: float, per_second: float, skew: float) -> None:
    """As long as the coarsest rung fits, no window is dropped and none waits long."""
    outcome = simulate(
        per_second, lambda _: coarsest(per_second) * skew / load, seed=seed, seconds=100.0 + 200 / per_second, skew=skew
    )
    assert outcome.controller.counters["windows_shed"] == 0
    assert outcome.oldest() < GIVE_UP


@SIMULATED
@given(st.integers(0, 2**32), st.floats(1.3, 1.7), st.floats(2, 8))
def test_what_no_rung_carries_is_shed(seed: int, load: float, per_second: float) -> None:
    """Beyond the coarsest rung every second window goes, and the backlog is bounded all the same."""
    outcome = simulate(per_second, lambda _: coarsest(per_second) / load, seed=seed, seconds=150.0)
    assert outcome.controller.counters["windows_shed"] > 0
    assert outcome.oldest() < 2.5 * GIVE_UP


@pytest.mark.parametrize(
    ("load", "usual"), [(0.1, {"finest"}), (0.18, {"finest", "fine", "bound"}), (0.5, {"half", "quarter"})]
)
def test_no_more_is_given_up_than_must_be(load: float, usual: set[str]) -> None:
    """An idle link carries the finest rung; `load` is what the coarsest would ask of it."""
    outcome = simulate(2.0, lambda _: coarsest(2.0) / load, seed=1, seconds=600.0)
    shares = outcome.shares(since=60.0)
    assert sum(shares[rung] for rung in usual) >= 0.75 * shares.total()


def test_a_steady_load_between_two_rungs_does_not_flap() -> None:
    """Each descent that is taken back makes the next one wait longer: without that there are 50 changes."""
    for load in (0.19, 0.25):
        outcomes = [simulate(2.0, lambda _: coarsest(2.0) / load, seed=seed, seconds=1200.0) for seed in range(4)]  # noqa: B023
        assert max(outcome.changes() for outcome in outcomes) <= 30


def test_a_link_that_breaks_down_and_recovers() -> None:
    """The coarse rungs are there at once, and the finest is back when the link is."""
    fast, slow = coarsest(2.0) / 0.1, coarsest(2.0) / 0.6
    outcome = simulate(2.0, lambda now: slow if 100 < now < 130 else fast, seed=3, seconds=400.0)
    assert {rung for at, rung in outcome.rungs if at < 100} == {"finest"}
    assert any(rung in ("half", "quarter") for at, rung in outcome.rungs if 100 < at < 106)
    assert {rung for at, rung in outcome.rungs if at > 300} == {"finest"}
    assert outcome.controller.counters["windows_shed"] == 0


def pressed(controller: Controller, *, packet: int = 20_000, seconds: float = 0.02, now: float = 0.0) -> None:
    """One window a second, each sent as `packet` bytes in `seconds` s."""
    choice = controller.choose(BOUND, NOTHING, now)
    for second in range(20):
        controller.arrived(RAW, now + second)
        controller.sent(choice, RAW, packet, coding=0.001, seconds=seconds)


def test_the_ladder_is_climbed_at_once_and_descended_slowly() -> None:
    """A backlog takes one call; the way back takes `CALM` s a rung."""
    controller = Controller()
    pressed(controller)
    assert controller.choose(BOUND, NOTHING, 20.0).rung == "finest"
    assert controller.choose(BOUND, Backlog(1000 * RAW, 20.0), 21.0).rung == "quarter"
    seen = [controller.choose(BOUND, NOTHING, 22.0 + second).rung for second in range(int(4 * CALM) + 1)]
    assert seen[int(CALM) - 1] == "quarter"
    assert [rung for rung, _ in Counter(seen).items()] == ["quarter", "half", "bound", "fine", "finest"]


def test_an_old_backlog_on_a_good_link_is_drained_not_shed() -> None:
    """After an hour without a link everything is sent: shedding is for a link that cannot."""
    controller = Controller()
    pressed(controller)
    choice = controller.choose(BOUND, Backlog(3600 * RAW, 3600.0), 21.0)
    assert (choice.rung, choice.shed) == ("quarter", False)
    assert controller.keeps(choice)


def test_a_long_way_is_not_a_narrow_one() -> None:
    """Fewer bytes do not shorten a satellite's round trip: told of it, a device keeps its precision."""
    rungs = []
    for round_trip in (0.0, 0.9):
        controller = Controller()
        for second in range(20):
            controller.arrived(RAW, second)
            choice = controller.choose(BOUND, NOTHING, second)
            controller.sent(choice, RAW, 20_000, coding=0.001, seconds=0.95, round_trip=round_trip)
        rungs.append(choice.rung)
    assert rungs == ["quarter", "finest"]


def test_nothing_measured_is_no_pressure() -> None:
    """Before the first packet the finest rung is the best guess."""
    assert Controller().choose(BOUND, Backlog(10 * RAW, 50.0), 0.0).rung == "finest"


def test_every_second_window_is_shed() -> None:
    """As many as are counted, and none while nothing sheds."""
    controller = Controller()
    shedding = Choice("shed", BOUND, CHEAP_LEVEL, 4, True)
    assert [controller.keeps(shedding) for _ in range(6)] == [False, True] * 3
    assert controller.counters["windows_shed"] == 3


def test_thorough_coding_is_for_a_slow_link() -> None:
    """zstd's higher level pays where a packet is long on its way, and not where coding would take as long."""
    levels = []
    for seconds in (0.5, 0.002):
        controller = Controller()
        pressed(controller, seconds=seconds)
        controller.choose(BOUND, Backlog(10_000 * RAW, 20.0), 21.0)
        levels.append(controller.choose(BOUND, Backlog(10_000 * RAW, 20.0), 21.0).zstd_level)
    assert levels == [THOROUGH_LEVEL, CHEAP_LEVEL]


@given(
    st.floats(0, 0.5),
    st.lists(st.tuples(st.floats(0, 5), st.integers(0, 10**7), st.floats(0, 100), st.floats(0, 10)), max_size=30),
)
def test_the_edge_decides_how_much_may_be_lost(largest: float, steps: list[tuple[float, int, float, float]]) -> None:
    """Whatever is measured, the bound holds, each rung is one of the ladder, and every choice is counted."""
    controller, now = Controller(), 0.0
    for passed, size, age, seconds in steps:
        now += passed
        controller.arrived(size, now)
        choice = controller.choose(largest, Backlog(size, age), now)
        assert 0 <= choice.relative_bound <= largest
        rung = LADDER[RUNGS.index(choice.rung)]
        assert (choice.thin, choice.shed) == (rung.thin, rung.shed)
        controller.sent(choice, size, size // 4, coding=0.001, seconds=seconds)
    assert sum(controller.counters[rung] for rung in RUNGS) == len(steps)


def test_rungs_ask_for_less_and_less() -> None:
    """A rung further up costs fewer bits, for every bound an edge may set."""
    for largest in (0.0, 0.001, 0.01, 0.02, 0.1, 0.5):
        costs = [bits(rung.bound(largest), rung.thin) for rung in LADDER]
        assert costs == sorted(costs, reverse=True)
        assert min(costs) > 0


@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 12), st.integers(1, 3)), elements=st.floats(-9, 9, width=32)))
def test_thinned_rows_are_means(values: np.ndarray) -> None:
    """Every row is in one mean, also those of a last group that is not full."""
    for factor in (1, 2, 4, 5):
        wanted = [values[i : i + factor].mean(axis=0, dtype=np.float64) for i in range(0, len(values), factor)]
        found = thin(values, factor)
        assert found.dtype == np.float32
        assert found.shape == (-(-len(values) // factor), values.shape[1])
        assert np.allclose(found, np.reshape(wanted, found.shape), atol=1e-5)
