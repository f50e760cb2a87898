"""Equation (4) with updates that arrive one by one: exact numbers first, then what each rule claims."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_aggregator.aggregator import BUFFER, MAX_LAG, Arrival, Folded, Refused, State, expire, fold, live, start
from megace2_iot.parameters import Layout, ModelUpdate

LAYOUT = Layout({"a.x": (1,), "b.x": (2,)})
ZERO = np.zeros(3, np.float32)
RULES = ("latched", "rate", "fedasync", "fedbuff")
DIRECT = ("latched", "rate", "fedasync")  # move at every update


def arrival(edge: str, delta: Any, n: float | Mapping[str, float] = 1, *, base: int = 1, at: float = 0) -> Arrival:
    examples = n if isinstance(n, Mapping) else {"a": n, "b": n}
    return Arrival(edge, ModelUpdate(base, examples, np.float32(delta)), f"{edge}-{at}", at)


def folded(state: State, update: Arrival, base: Any = ZERO) -> State:
    """The state after an update that must be taken; `base` is its release's vector."""
    after, outcome = fold(state, update, None if base is None else np.float32(base))
    assert isinstance(outcome, Folded), outcome
    assert outcome.vector is after.vector
    return after


def begin(rule: str, vector: Any = ZERO) -> State:
    return start(rule, LAYOUT, np.float32(vector), 1)


# -- each rule on numbers -------------------------------------------------------------
def test_latched_is_the_mean_of_the_edges_models() -> None:
    """The global model is equation (4) after every arrival, and an edge's newer model replaces its older one."""
    state = folded(begin("latched", [1, 1, 1]), arrival("e1", [3, 3, 3], 1), [1, 1, 1])
    assert state.vector.tolist() == [4, 4, 4]
    state = folded(state, arrival("e2", [-1, 7, -1], 3), [1, 1, 1])
    assert state.vector.tolist() == [1, 7, 1]
    state = folded(state, arrival("e1", [4, 4, 4], 1, base=2), [4, 4, 4])
    assert state.vector.tolist() == [2, 8, 2]
    assert state.version == 4


def test_latched_has_a_denominator_per_group() -> None:
    """An edge without examples for a group has no say in it."""
    state = folded(begin("latched"), arrival("e1", [4, 4, 4], {"a": 1, "b": 1}))
    state = folded(state, arrival("e2", [8, 100, 100], {"a": 3}))
    assert state.vector.tolist() == [7, 4, 4]


def test_latched_keeps_a_group_without_examples() -> None:
    """What nobody trains stays as the last release has it."""
    state = folded(begin("latched", [5, 6, 7]), arrival("e1", [1, 1, 1], {"a": 2}), [5, 6, 7])
    assert state.vector.tolist() == [6, 6, 7]


def test_rate_takes_steps_by_share() -> None:
    """An edge with a quarter of the examples moves the model by a quarter of its delta."""
    state = folded(begin("rate"), arrival("e1", [4, 4, 4], 1, at=0))
    state = folded(state, arrival("e2", [8, 8, 8], 3, at=0))
    assert state.vector.tolist() == [7, 7, 7]
    state = folded(state, arrival("e1", [4, 0, 8], 1, base=3, at=10), state.vector)
    assert state.vector.tolist() == [8, 7, 9]


def test_fedasync_moves_part_of_the_way() -> None:
    """0.6 of the way for a fresh update, less for a late one, more (at most 0.9) for many examples."""
    state = folded(begin("fedasync"), arrival("e1", [10, 10, 10]))
    np.testing.assert_allclose(state.vector, [6, 6, 6], rtol=1e-6)
    state = folded(state, arrival("e2", [10, 10, 10], {"a": 1}, base=1))
    np.testing.assert_allclose(state.vector, [6 + 0.6 * 2**-0.5 * 4, 6, 6], rtol=1e-6)
    many = folded(state, arrival("e3", [0, 0, 0], 97, base=3))
    np.testing.assert_allclose(many.vector, 0.1 * state.vector, rtol=1e-5)


def test_fedbuff_steps_when_its_buffer_is_full() -> None:
    """Nine updates change nothing, the tenth applies all of them, each discounted by its lag."""
    state = begin("fedbuff")
    for number in range(BUFFER - 1):
        state = folded(state, arrival(f"e{number}", [1, 2, 3], base=state.version), None)
        assert state.vector.tolist() == [0, 0, 0]
    state = folded(state, arrival("last", [1, 2, 13], 10, base=state.version - 3), None)
    np.testing.assert_allclose(state.vector, [(9 + 5) / 19, (18 + 10) / 19, (27 + 65) / 19], rtol=1e-6)
    assert state.buffer is None


# -- what rules claim -----------------------------------------------------------------
examples = st.lists(st.integers(1, 1000), min_size=2, max_size=5)


@pytest.mark.parametrize("rule", ["latched", "rate"])
@given(counts=examples)
def test_a_cycle_is_the_synchronous_mean(rule: str, counts: list[int]) -> None:
    """If every edge reports once from one base the result is equation (4), though they never waited."""
    deltas = np.random.default_rng(sum(counts)).normal(size=(len(counts), 3)).astype(np.float32)
    base = np.float32([1, -2, 3])
    state = begin(rule, base)
    for edge, (n, delta) in enumerate(zip(counts, deltas, strict=True)):
        state = folded(state, arrival(f"e{edge}", delta, n, at=edge), base)
    np.testing.assert_allclose(state.vector, base + np.average(deltas, axis=0, weights=counts), atol=1e-5)


@pytest.mark.parametrize("rule", ["latched", "rate"])
def test_order_of_arrival_does_not_matter(rule: str) -> None:
    """Which edge's link was faster leaves no trace in the model."""
    updates = [arrival("e1", [1, 2, 3], 5), arrival("e2", [-7, 0.1, 9], 2), arrival("e3", [0.3, 4, 4], {"b": 11})]
    results = []
    for order in permutations(updates):
        state = begin(rule)
        for update in order:
            state = folded(state, update)
        results.append(state.vector)
    for result in results:
        np.testing.assert_allclose(result, results[0], atol=0 if rule == "latched" else 1e-5)


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.integers(-9, 9), st.integers(1, 9)), min_size=1, max_size=12))
def test_latched_forgets_all_but_the_newest(reports: list[tuple[str, int, int]]) -> None:
    """Equation (4) holds at every instant, over the newest model of each edge."""
    state, newest = begin("latched"), {}
    for edge, value, n in reports:
        newest[edge] = (value, n)
        state = folded(state, arrival(edge, [value] * 3, n))
        values, weights = zip(*newest.values(), strict=True)
        np.testing.assert_allclose(state.vector, np.average(values, weights=weights), atol=1e-5)


def test_latched_is_rate_neutral() -> None:
    """An edge that reports eight times as often weighs no more."""
    state = folded(begin("latched"), arrival("slow", [8, 8, 8]))
    for at in range(8):
        state = folded(state, arrival("fast", [0, 0, 0], at=at))
    assert state.vector.tolist() == [4, 4, 4]


@pytest.mark.parametrize("often", [2, 4, 8])
def test_rate_is_rate_neutral(often: int) -> None:
    """Edges that pull in opposite directions balance, however much more often one of them reports."""
    state, moved = begin("rate"), np.zeros(2)
    for at in range(40 * often):
        for edge, sign in (("fast", 1), ("slow", -1)):
            if edge == "fast" or at % often == 0:
                before = state.vector
                state = folded(state, arrival(edge, [sign] * 3, base=state.version, at=at), before)
                if at >= 20 * often:
                    moved[int(sign > 0)] += abs(state.vector[0] - before[0])
    assert moved[1] / moved[0] == pytest.approx(1, rel=0.15)  # 8 times as often: the factor 4.5 is cut at 4


@pytest.mark.parametrize("rule", ["fedasync", "fedbuff"])
def test_published_rules_follow_the_fast_edge(rule: str) -> None:
    """Why they are not the default: an edge that reports nine times as often decides."""
    state = begin(rule)
    for number in range(BUFFER * 4):
        sign = -1.0 if number % 10 == 0 else 1.0
        target = np.float32([sign] * 3) - (state.vector if rule == "fedasync" else 0)
        state = folded(state, arrival(f"e{sign}", target, base=state.version), state.vector)
    assert state.vector[0] > 0.5


# -- the state ------------------------------------------------------------------------
@pytest.mark.parametrize("rule", RULES)
def test_a_state_is_a_value(rule: str) -> None:
    """An older state gives the same result again, and nobody can write into its arrays."""
    first = folded(begin(rule), arrival("e1", [1, 2, 3], at=0))
    kept = first.vector.copy()
    second = folded(first, arrival("e1", [4, 4, 4], at=9))
    assert first.vector.tolist() == kept.tolist()
    again = folded(first, arrival("e1", [4, 4, 4], at=9))
    assert again.vector.tolist() == second.vector.tolist()
    with pytest.raises(ValueError, match="read-only"):
        second.vector[0] = 1


def test_silent_edges_leave() -> None:
    """A dead edge stops pulling at the model, a slow one is waited for."""
    state = folded(begin("latched"), arrival("often", [0, 0, 0], at=0))
    for at in (0, 1000, 2000):
        state = folded(state, arrival("seldom", [6, 6, 6], at=at))
    assert live(expire(state, 600)) == ("often", "seldom")
    state = expire(state, 2601)
    assert live(state) == ("seldom",)
    assert state.vector.tolist() == [3, 3, 3]  # moves with the next update
    assert folded(state, arrival("seldom", [6, 6, 6], at=2602)).vector.tolist() == [6, 6, 6]
    assert live(expire(state, 5001)) == ()


def test_a_restarted_cloud_goes_on() -> None:
    """The newest update of each edge and the newest release rebuild the state."""
    state = folded(begin("latched"), arrival("e1", [1, 1, 1], at=1))
    state = folded(state, arrival("e2", [5, 5, 5], 3, at=2))
    rebuilt = folded(start("latched", LAYOUT, state.vector, 3), arrival("e1", [1, 1, 1], at=1))
    rebuilt = folded(rebuilt, arrival("e2", [5, 5, 5], 3, at=2)).at(3, state.vector)
    update = arrival("e1", [2, 2, 2], base=3, at=3)
    assert folded(rebuilt, update, state.vector).vector.tolist() == folded(state, update, state.vector).vector.tolist()
    assert rebuilt.version == 3


# -- refusals -------------------------------------------------------------------------
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("update", "reason"),
    [
        (arrival("e", [1, np.nan, 1]), "not finite: "),
        (arrival("e", [1, np.inf, 1]), "not finite: "),
        (arrival("e", [1, 1, 1], 0), "no examples: "),
        (arrival("e", [1, 1, 1], {}), "no examples: "),
        (arrival("e", [1, 1]), "layout: "),
        (arrival("e", [1, 1, 1], {"c": 1}), "layout: "),
        (arrival("e", [1, 1, 1], {"a": -1}), "layout: "),
        (arrival("e", [1, 1, 1], {"a": np.nan}), "layout: "),
        (arrival("e", [1, 1, 1], base=2), "need_full: "),
    ],
)
def test_refusals_leave_the_state(rule: str, update: Arrival, reason: str) -> None:
    """A bad update changes nothing and is answered with what to do."""
    state = begin(rule)
    after, outcome = fold(state, update, ZERO)
    assert after is state
    assert isinstance(outcome, Refused)
    assert outcome.reason.startswith(reason)


@pytest.mark.parametrize("rule", DIRECT)
def test_a_base_that_is_gone_needs_the_full_model(rule: str) -> None:
    """Without the release under it a delta means nothing."""
    _, outcome = fold(begin(rule), arrival("e", [1, 1, 1]), None)
    assert isinstance(outcome, Refused)
    assert outcome.reason == "need_full: release 1 is not kept any more; adopt release 1 and train from it"


def test_rate_takes_no_old_step() -> None:
    """A delta from many releases ago points nowhere."""
    _, outcome = fold(begin("rate").at(MAX_LAG + 2, ZERO), arrival("e", [1, 1, 1]), ZERO)
    assert isinstance(outcome, Refused)
    assert outcome.reason.startswith("need_full: ")


@pytest.mark.parametrize("rule", DIRECT)
def test_a_model_beyond_float32_is_refused(rule: str) -> None:
    """Finite parts whose sum is not finite never become a release."""
    big = np.full(3, 3e38, np.float32)
    state = begin(rule, big)
    after, outcome = fold(state, arrival("e", big), big)
    assert after is state
    assert isinstance(outcome, Refused)
    assert outcome.reason.startswith("not finite: ")


def test_an_unknown_rule_is_named() -> None:
    """A typing error in the settings is seen at the start."""
    with pytest.raises(ValueError, match="unknown rule 'median', known are latched, rate, fedasync, fedbuff"):
        begin("median")
