"""Rounds: who is waited for, what the mean is, and what becomes of deltas that come late."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_gateway.rounds import Abandoned, Closed, Rounds, RoundSettings, Waiting
from megace2_iot.parameters import Layout, ModelUpdate
from megace2_iot.update_checks import FEWEST, NormBound

LAYOUT = Layout.of({"head.w": np.zeros(2, np.float32), "text.w": np.zeros(1, np.float32)})
BASE = 7


def update(*delta: float, n: float | Mapping[str, float] = 1, base: int = BASE) -> ModelUpdate:
    """A delta (3,) with `n` examples behind both groups."""
    examples = n if isinstance(n, Mapping) else {"head": n, "text": n}
    return ModelUpdate(base, examples, np.array(delta or (1, 2, 3), np.float32))


def begin(*participants: str, now: float = 0.0, rounds: Rounds | None = None, **settings: float) -> Rounds:
    """Rounds with one just opened."""
    chosen = RoundSettings(**{"min_deadline": 5.0, "max_deadline": 600.0, **settings})
    rounds = rounds or Rounds(chosen, last_number=40)
    rounds.open(list(participants), BASE, now, LAYOUT)
    return rounds


def close(rounds: Rounds, now: float) -> Closed:
    outcome = rounds.tick(now)
    assert isinstance(outcome, Closed), outcome
    return outcome


def test_mean_is_exact() -> None:
    """The outcome is sum(n x) / sum(n), to the last bit where floats can hold it."""
    rounds = begin("a", "b")
    assert rounds.delta("a", 41, update(1, 2, 3, n=10), 1.0) == ""
    assert rounds.delta("b", 41, update(5, -2, 11, n=30), 2.0) == ""
    closed = close(rounds, 2.5)
    assert closed.delta.tolist() == [4.0, -1.0, 9.0]
    assert (closed.number, closed.base_version, closed.duration) == (41, BASE, 2.5)
    assert closed.participants == ("a", "b")
    assert closed.num_examples == {"head": 40, "text": 40}


def test_groups_have_their_own_denominators() -> None:
    """A device without text says nothing about the text parameters."""
    rounds = begin("a", "b")
    rounds.delta("a", 41, update(2, 2, 8, n={"head": 1, "text": 5}), 1.0)
    rounds.delta("b", 41, update(6, 6, 0, n={"head": 3}), 1.0)
    closed = close(rounds, 1.0)
    assert closed.delta.tolist() == [5.0, 5.0, 8.0]
    assert closed.num_examples == {"head": 4, "text": 5}


def test_waits_until_all_answered() -> None:
    """A round with someone missing goes on until its deadline."""
    rounds = begin("a", "b")
    rounds.delta("a", 41, update(), 1.0)
    assert rounds.tick(1.0) == Waiting(30.0)


def test_closes_at_the_deadline_with_a_quorum() -> None:
    """Half of the participants suffice once the deadline came."""
    rounds = begin("a", "b", "c")
    rounds.delta("a", 41, update(1, 1, 1), 1.0)
    rounds.delta("b", 41, update(3, 3, 3), 1.0)
    assert isinstance(rounds.tick(29.9), Waiting)
    assert close(rounds, 30.0).delta.tolist() == [2.0, 2.0, 2.0]


def test_below_the_quorum_it_is_abandoned() -> None:
    """One of three is no mean of all, and what it gave is dropped."""
    rounds = begin("a", "b", "c")
    rounds.delta("a", 41, update(100, 100, 100), 1.0)
    assert rounds.tick(30.0) == Abandoned(41, "1 of 3 answered by the deadline, 2 are needed")
    begin("a", now=31.0, rounds=rounds)
    rounds.delta("a", 42, update(1, 1, 1), 32.0)
    assert close(rounds, 32.0).delta.tolist() == [1.0, 1.0, 1.0]
    assert rounds.counters["abandoned"] == 1


@pytest.mark.parametrize(("quorum", "members", "needed"), [(0.5, 1, 1), (0.5, 5, 3), (0.0, 4, 1), (0.07, 100, 7)])
def test_quorum_is_rounded_up(quorum: float, members: int, needed: int) -> None:
    """The quorum is a whole number of those who were asked, at least one."""
    names = [f"d{number}" for number in range(members)]
    rounds = begin(*names, quorum=quorum)
    for name in names[: needed - 1]:
        rounds.delta(name, 41, update(), 1.0)
    enough = begin(*names, quorum=quorum)
    for name in names[:needed]:
        enough.delta(name, 41, update(), 1.0)
    assert isinstance(rounds.tick(99.0), Abandoned)
    assert isinstance(enough.tick(99.0), Closed)


def test_one_that_is_gone_is_not_waited_for() -> None:
    """A will takes a device out at once; the round closes on those who remain."""
    rounds = begin("a", "b")
    rounds.delta("a", 41, update(), 1.0)
    rounds.gone("b")
    assert close(rounds, 1.0).participants == ("a",)


def test_what_a_gone_one_gave_stays() -> None:
    """A device that answered and left counts; one that left and came back in time does too."""
    rounds = begin("a", "b")
    rounds.delta("a", 41, update(1, 1, 1), 1.0)
    rounds.gone("a")
    rounds.gone("b")
    assert rounds.delta("b", 41, update(3, 3, 3), 1.0) == ""
    assert close(rounds, 1.0).delta.tolist() == [2.0, 2.0, 2.0]


def test_everybody_gone_abandons_at_once() -> None:
    """Nobody waits for a deadline that nobody can meet."""
    rounds = begin("a", "b")
    rounds.gone("a")
    rounds.gone("b")
    rounds.gone("never heard of")
    assert rounds.tick(0.1) == Abandoned(41, "everybody left")


def test_a_duplicate_counts_once() -> None:
    """A delta that comes twice, also after its round, changes nothing."""
    rounds = begin("a", "b")
    rounds.delta("a", 41, update(1, 1, 1), 1.0)
    assert rounds.delta("a", 41, update(1, 1, 1), 1.1) == "duplicate"
    rounds.delta("b", 41, update(3, 3, 3), 1.2)
    assert close(rounds, 2.0).delta.tolist() == [2.0, 2.0, 2.0]
    assert rounds.delta("a", 41, update(1, 1, 1), 2.1) == "duplicate"
    assert rounds.counters["duplicates"] == 2


@pytest.mark.parametrize("between", [True, False])
def test_a_late_delta_joins_the_next_round(between: bool) -> None:
    """One round late is full weight in the next, whether that one is open yet or not."""
    rounds = begin("a", "b")
    rounds.delta("a", 41, update(), 1.0)
    close(rounds, 30.0)
    if between:
        assert rounds.delta("b", 41, update(9, 9, 9, n=1), 30.5) == "joins_next"
    rounds.open(["a"], BASE + 1, 31.0, LAYOUT)
    if not between:
        assert rounds.delta("b", 41, update(9, 9, 9, n=1), 31.5) == "joins_next"
    rounds.delta("a", 42, update(1, 1, 1, n=3, base=BASE + 1), 32.0)
    closed = close(rounds, 32.0)
    assert closed.delta.tolist() == [3.0, 3.0, 3.0]
    assert (closed.participants, closed.joined, closed.num_examples["head"]) == (("a",), ("b",), 4)
    rounds.open(["a"], BASE, 33.0, LAYOUT)
    rounds.delta("a", 43, update(1, 1, 1), 34.0)
    assert close(rounds, 34.0).delta.tolist() == [1.0, 1.0, 1.0]


def test_who_joins_does_not_make_a_quorum() -> None:
    """A round that nobody answers is abandoned, and what waits goes on waiting."""
    rounds = begin("a", "b")
    rounds.delta("a", 41, update(), 1.0)
    close(rounds, 30.0)
    rounds.delta("b", 41, update(5, 5, 5), 30.1)
    begin("a", now=31.0, rounds=rounds)
    assert isinstance(rounds.tick(999.0), Abandoned)
    begin("a", now=1000.0, rounds=rounds)
    rounds.delta("a", 43, update(1, 1, 1), 1001.0)
    assert close(rounds, 1001.0).delta.tolist() == [3.0, 3.0, 3.0]


def test_one_delta_of_a_participant_waits() -> None:
    """Who is late twice before a round closes does not get a double voice."""
    rounds = begin("a", "b")
    rounds.tick(30.0)
    assert rounds.delta("a", 41, update(), 31.0) == "joins_next"
    assert rounds.delta("a", 41, update(), 31.1) == "duplicate"
    begin("a", now=32.0, rounds=rounds)
    rounds.tick(999.0)
    assert "still waits" in rounds.delta("a", 42, update(), 1000.0)


def test_two_rounds_late_is_late() -> None:
    """Older deltas are refused, counted, and not in any mean."""
    rounds = begin("a")
    rounds.gone("a")
    rounds.tick(1.0)
    begin("a", now=2.0, rounds=rounds)
    rounds.delta("a", 42, update(1, 1, 1), 3.0)
    close(rounds, 3.0)
    assert rounds.delta("a", 41, update(), 4.0) == "late"
    counted = {"closed": 1, "abandoned": 1, "late": 1, "joined": 0, "duplicates": 0, "refused": 0}
    assert rounds.counters == counted


def test_a_round_of_an_earlier_run_is_late() -> None:
    """After a restart nothing is known of the round that was open: its deltas cannot be judged."""
    rounds = Rounds(RoundSettings(5.0, 600.0), last_number=41)
    assert rounds.delta("a", 41, update(), 1.0) == "late"
    assert rounds.open(["a"], BASE, 2.0, LAYOUT).number == 42


def guarded() -> Rounds:
    """Rounds that have taken enough deltas of norm 1 to know what is usual."""
    rounds = Rounds(RoundSettings(5.0, 600.0, max_examples=100, norms=NormBound(5.0, 1.0)), last_number=40)
    names = [f"d{n}" for n in range(FEWEST)]
    assert rounds.needs_model_norm
    rounds.open(names, BASE, 0.0, LAYOUT, model_norm=2.0)
    for name in names:
        assert rounds.delta(name, 41, update(0, 1, 0), 1.0) == ""
    close(rounds, 1.0)
    return rounds


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (update(float("inf"), 0, 0), "finite: "),
        (update(0, 6, 0), "norm: 6 is 6 times the median"),
        (update(0, 1, 0, n=101), "examples: 101 behind head"),
    ],
)
def test_a_suspicious_delta_is_refused_and_the_round_goes_on(bad: ModelUpdate, reason: str) -> None:
    """It is counted, its sender is not waited for, and the others' mean is theirs alone."""
    rounds = guarded()
    assert not rounds.needs_model_norm
    rounds.open(["good", "bad"], BASE, 2.0, LAYOUT)
    assert reason in rounds.delta("bad", 42, bad, 3.0)
    assert rounds.delta("good", 42, update(0, 2, 0), 3.0) == ""
    closed = close(rounds, 3.0)
    assert (closed.delta.tolist(), closed.participants) == ([0, 2, 0], ("good",))
    assert rounds.counters["refused"] == 1


def test_the_first_deltas_are_compared_with_the_model() -> None:
    """Before there are neighbours, nobody may change more than there is; another model begins anew."""
    rounds = guarded()
    other = Layout.of({"head.w": np.zeros(3, np.float32)})
    rounds.open(["a"], BASE, 2.0, other, model_norm=2.0)
    assert rounds.delta("a", 42, update(0, 3, 0, n={"head": 1}), 3.0).startswith("norm: 3 is 1.5 times the norm of the")


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (update(base=6), "release 6"),
        (update(1, float("nan"), 1), "NaN"),
        (update(1, 2), "float32 (3,)"),
        (update(n=0), "no examples"),
        (update(n=float("nan")), "nan examples"),
        (update(n={"stem": 3}), "not in the layout"),
    ],
)
def test_a_bad_delta_is_refused_with_words(bad: ModelUpdate, reason: str) -> None:
    """Nothing wrong enters the mean, and the round does not wait for who sent it."""
    rounds = begin("a", "b")
    rounds.delta("a", 41, update(1, 1, 1), 1.0)
    assert reason in rounds.delta("b", 41, bad, 1.0)
    assert close(rounds, 1.0).delta.tolist() == [1.0, 1.0, 1.0]
    assert reason in rounds.delta("b", 41, bad, 1.0)


def test_strangers_are_refused() -> None:
    """Only participants speak in a round, and only in rounds that were opened."""
    rounds = begin("a")
    assert "not in round 41" in rounds.delta("b", 41, update(), 1.0)
    assert "was not opened" in rounds.delta("a", 42, update(), 1.0)
    rounds.tick(30.0)
    assert "not in round 41" in rounds.delta("b", 41, update(), 31.0)


def test_a_mean_that_overflows_is_abandoned() -> None:
    """Finite deltas at the ends of float32 do not hand infinity to the cloud."""
    rounds = begin("a", "b")
    rounds.delta("a", 41, update(3e38, 0, 0), 1.0)
    rounds.delta("b", 41, update(-3e38, 0, 0), 1.0)
    outcome = rounds.tick(1.0)
    assert isinstance(outcome, Abandoned)
    assert "finite" in outcome.reason


def test_the_first_deadline_is_patient() -> None:
    """Before anything is known a round takes 30 s, within the settings' bounds."""
    first = Rounds(RoundSettings(5.0, 600.0), 0).open(["a"], BASE, 100.0, LAYOUT)
    assert first.deadline == 130.0
    assert Rounds(RoundSettings(5.0, 10.0), 0).open(["a"], BASE, 0.0, LAYOUT).deadline == 10.0
    assert Rounds(RoundSettings(60.0, 600.0), 0).open(["a"], BASE, 0.0, LAYOUT).deadline == 60.0


def test_the_deadline_follows_the_durations() -> None:
    """1.5 times the smoothed p90 of the participants' durations."""
    rounds = begin("a", "b")
    rounds.delta("a", 41, update(), 2.0)
    rounds.delta("b", 41, update(), 10.0)
    close(rounds, 10.0)
    assert rounds.open(["a", "b"], BASE, 100.0, LAYOUT).deadline == 115.0
    rounds.delta("a", 42, update(), 101.0)
    rounds.delta("b", 42, update(), 120.0)
    close(rounds, 120.0)
    assert rounds.open(["a"], BASE, 0.0, LAYOUT).deadline == pytest.approx(1.5 * (10 + 0.3 * (20 - 10)))


def test_deadlines_grow_until_the_slow_are_heard() -> None:
    """A site slower than the first deadline comes to close a round instead of abandoning for ever."""
    rounds, patience = Rounds(RoundSettings(5.0, 100.0), 0), []
    for _ in range(5):
        opened = rounds.open(["a", "b"], BASE, 0.0, LAYOUT)
        patience.append(opened.deadline)
        assert isinstance(rounds.tick(opened.deadline), Abandoned)
    assert patience == [30.0, 45.0, 67.5, 100.0, 100.0]


def test_a_late_delta_teaches_the_deadline() -> None:
    """Whom the deadline cut off is inside the next but one."""
    rounds = begin("a", "b", min_deadline=1.0)
    rounds.delta("a", 41, update(), 1.0)
    close(rounds, 30.0)
    begin("a", "b", now=30.0, rounds=rounds)
    assert rounds.delta("b", 41, update(), 40.0) == "joins_next"
    rounds.delta("a", 42, update(), 41.0)
    close(rounds, 60.0)
    deadline = rounds.open(["a", "b"], BASE, 100.0, LAYOUT).deadline - 100.0
    assert deadline == pytest.approx(1.5 * (1 + 0.3 * (40 - 1)))


def test_opening_over_an_open_round_abandons_it() -> None:
    """A lesson that broke off does not block the next; its late deltas still join."""
    rounds = begin("a", "b")
    rounds.delta("a", 41, update(), 1.0)
    begin("a", "b", now=2.0, rounds=rounds)
    assert rounds.counters["abandoned"] == 1
    assert rounds.delta("b", 41, update(), 3.0) == "joins_next"


def test_another_layout_drops_what_waits() -> None:
    """Deltas of one architecture are never averaged with those of another."""
    rounds = begin("a", "b")
    rounds.tick(30.0)
    rounds.delta("b", 41, update(), 31.0)
    rounds.open(["a"], BASE, 32.0, Layout.of({"head.w": np.zeros(3, np.float32)}))
    rounds.delta("a", 42, update(1, 1, 1, n={"head": 1}), 33.0)
    closed = close(rounds, 33.0)
    assert (closed.delta.tolist(), closed.joined) == ([1.0, 1.0, 1.0], ())


def test_misuse_is_told() -> None:
    """A round of nobody and a tick without a round are errors of the caller."""
    rounds = Rounds(RoundSettings(5.0, 600.0), 0)
    with pytest.raises(ValueError, match="without participants"):
        rounds.open([], BASE, 0.0, LAYOUT)
    with pytest.raises(RuntimeError, match="no round is open"):
        rounds.tick(0.0)


Steps = st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-2, 1), st.integers(1, 9), st.booleans()), max_size=40)


@given(Steps)
def test_what_is_accepted_comes_out_once(steps: list[tuple[str, int, int, bool]]) -> None:
    """Whatever arrives when: a closed round holds exactly what it and those who joined were told is accepted."""
    rounds, now, number = Rounds(RoundSettings(5.0, 20.0, quorum=0.0), 0), 0.0, 0
    held = {"": 0, "joins_next": 0}
    for name, offset, examples, over in steps:
        if over or not number:
            number, held[""] = rounds.open(list("abcd"), BASE, now, LAYOUT).number, 0
        reason = rounds.delta(name, number + offset, update(ord(name), 0, 0, n=examples), now + 1)
        if reason in held:
            held[reason] += examples
        now += 30
        if over:
            outcome = rounds.tick(now)
            if isinstance(outcome, Closed):
                assert outcome.num_examples["head"] == sum(held.values())
                assert ord("a") <= outcome.delta[0] <= ord("d")
                held["joins_next"] = 0
            held[""] = 0
