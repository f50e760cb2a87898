"""The dedup window: a window is inferred once where that can be known, and never lost for having been seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_gateway.dedup import DedupWindow, Seen
from megace2_iot.codec import decode, encode


def answered(window: DedupWindow, *seqs: int, epoch: int = 1) -> DedupWindow:
    """Let these seqs pass through."""
    for seq in seqs:
        window.see(epoch, seq)
        window.answer(epoch, seq, b"%d" % seq)
    return window


def test_new_then_waiting_then_answered() -> None:
    """A window's life: inferred once, merged while it waits, its answer repeated afterwards."""
    window = DedupWindow()
    assert window.see(1, 5) == Seen("new")
    assert window.see(1, 5) == Seen("waiting")
    window.answer(1, 5, b"positive")
    assert window.see(1, 5) == Seen("answered", b"positive")


def test_a_forgotten_window_is_new() -> None:
    """What was dropped before inference is taken when it comes again."""
    window = DedupWindow()
    window.see(1, 5)
    window.forget(1, 5)
    assert window.see(1, 5) == Seen("new")


def test_an_answer_that_is_not_remembered_is_made_again() -> None:
    """The device still waits, so it is inferred once more; until then it waits like any other."""
    window = answered(DedupWindow(remembered=2), 1, 2, 3)
    assert window.see(1, 1) == Seen("again")
    assert window.see(1, 1) == Seen("waiting")
    window.answer(1, 1, b"once more")
    assert window.see(1, 1) == Seen("answered", b"once more")


def test_the_newest_answers_are_remembered() -> None:
    """An answer that is given once more is the newest again."""
    window = answered(DedupWindow(remembered=2), 1, 2)
    window.answer(1, 1, b"once more")
    answered(window, 3)
    assert window.see(1, 1) == Seen("answered", b"once more")
    assert window.see(1, 2) == Seen("again")


def test_one_that_comes_again_and_is_dropped_comes_again() -> None:
    """Dropping it does not make it a window that was never inferred."""
    window = answered(DedupWindow(remembered=0), 1)
    window.see(1, 1)
    window.forget(1, 1)
    assert window.see(1, 1) == Seen("again")


def test_older_than_the_window_is_again() -> None:
    """Beyond `width` nothing is known: better inferred twice than never."""
    window = answered(DedupWindow(remembered=1, width=8), 1, 2, 20)
    assert window.see(1, 12) == Seen("again")
    assert window.see(1, 13) == Seen("new")


def test_a_larger_epoch_begins_anew() -> None:
    """The outbox was made anew: its seqs are others, and what the old one still sends is refused."""
    window = answered(DedupWindow(), 1, 2, epoch=1)
    assert window.see(2, 1) == Seen("new")
    assert window.see(1, 2) == Seen("stale_epoch")
    window.answer(1, 1, b"of the old epoch")
    window.forget(1, 1)
    assert window.see(2, 1) == Seen("waiting")


def test_a_restart_forgets_only_what_waited() -> None:
    """The state survives the codec; a waiting window went down with the process and is new."""
    window = answered(DedupWindow(remembered=2), 1, 2, 3)
    window.see(1, 4)
    window = DedupWindow.from_state(decode(encode(window.to_state())), remembered=2)
    assert [window.see(1, seq).kind for seq in (1, 2, 3, 4, 5)] == ["again", "answered", "answered", "new", "new"]
    assert window.see(1, 3).answer == b"3"


def test_a_smaller_window_reads_a_larger_ones_state() -> None:
    """Settings may change between runs."""
    state = answered(DedupWindow(remembered=8, width=100), *range(50)).to_state()
    window = DedupWindow.from_state(state, remembered=1, width=10)
    assert window.see(1, 49).kind == "answered"
    assert window.see(1, 48).kind == "again"
    assert len(window.to_state()["answered"]) == 2
    assert len(window.to_state()["answers"]) == 1


@pytest.mark.parametrize("state", [{}, {"epoch": 1}, {"epoch": 1, "high": 2, "answered": "x", "answers": [[1]]}])
def test_a_damaged_state_is_refused(state: dict[str, object]) -> None:
    """The store begins a window anew on exactly these errors."""
    with pytest.raises((ValueError, KeyError, TypeError)):
        DedupWindow.from_state(state)


def test_a_strangers_seqs_take_no_memory() -> None:
    """Huge seqs and windows that are never answered leave the state small."""
    window = answered(DedupWindow(width=16), 0, 2**53, 1)
    for seq in range(1000):
        window.see(1, seq)
    assert len(window._waiting) == 16
    assert len(encode(window.to_state())) < 200


Steps = st.lists(st.tuples(st.sampled_from(["see", "answer", "forget"]), st.integers(0, 4)), max_size=60)


@given(Steps, st.integers(0, 4))
def test_it_agrees_with_plain_sets(steps: list[tuple[str, int]], remembered: int) -> None:
    """Within its width the window is exactly three sets: waiting, answered, remembered."""
    window, waiting, done, answers = DedupWindow(remembered, width=64), set[int](), set[int](), dict[int, bytes]()
    window.see(1, 5)  # begins the epoch
    for number, (step, seq) in enumerate(steps):
        if step == "see":
            kind = "waiting" if seq in waiting else "answered" if seq in answers else "again" if seq in done else "new"
            seen = window.see(1, seq)
            assert (seen.kind, seen.answer) == (kind, answers.get(seq) if kind == "answered" else None)
            if kind != "answered":
                waiting.add(seq)
        elif step == "answer":
            window.answer(1, seq, b"%d" % number)
            waiting.discard(seq)
            done.add(seq)
            answers.pop(seq, None)
            answers[seq] = b"%d" % number
            answers = dict(list(answers.items())[max(0, len(answers) - remembered) :])
        else:
            window.forget(1, seq)
            waiting.discard(seq)


@given(st.lists(st.integers(0, 100), max_size=80), st.integers(1, 20))
def test_an_answered_seq_is_never_new(seqs: list[int], width: int) -> None:
    """Whatever the order of arrival and however narrow the window, nothing inferred passes for new."""
    window, seen = DedupWindow(remembered=0, width=width), set[int]()
    for seq in seqs:
        kind = window.see(1, seq).kind
        assert kind == "again" or (kind == "new" and seq not in seen)
        window.answer(1, seq, b"")
        seen.add(seq)
