"""The dedup window: a window is inferred once where that can be known, and never lost for having been seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_gateway.dedup import DOUBT, DedupWindow, Seen
from edge_gateway.ranges import Ranges
from megace2_iot.codec import decode, encode
from megace2_iot.messages import Gap


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


def test_backlog_far_behind_what_is_live_is_seen_once() -> None:
    """After two days offline a device sends what is fresh first: each old window is new all the same, and once."""
    window = answered(DedupWindow(remembered=1), 172_801, *range(1, 500, 2), 172_802)
    assert [window.see(1, seq).kind for seq in (2, 3, 172_801, 172_803)] == ["new", "again", "again", "new"]


def test_a_new_epoch_has_seqs_of_its_own() -> None:
    """The outbox was made anew; what the old one still sends, late, is answered once all the same."""
    window = answered(DedupWindow(), 1, 2, epoch=1)
    assert window.see(2, 1) == Seen("new")
    assert [window.see(1, seq).kind for seq in (2, 3)] == ["answered", "new"]
    window.answer(1, 3, b"of the old epoch")
    window.forget(1, 3)
    assert window.see(2, 1) == Seen("waiting")


def test_a_forged_epoch_ends_no_other() -> None:
    """On an open broker a stranger's packet of any epoch, once or often, leaves the device's own as it was."""
    window = answered(DedupWindow(), 1, 2, epoch=1)
    for number in range(100):
        answered(window, 1, epoch=2**53 - number)
        assert window.see(1, 2) == Seen("answered", b"2")


def test_forged_epochs_take_no_memory() -> None:
    """Two are known; a third pushes out the one that was silent longest, which then begins anew."""
    window = DedupWindow()
    for epoch in range(1, 1000):
        answered(window, 1, 2, epoch=epoch)
    assert [fields["epoch"] for fields in window.to_state()["epochs"]] == [998, 999]
    window.answer(1, 1, b"late")
    assert window.see(1, 1) == Seen("new")


@pytest.mark.parametrize("said", ["a huge seq", "all settled", "one huge gap"])
def test_forged_seqs_keep_no_window_out(said: str) -> None:
    """A forged word about the device's own epoch spoils the books, and every window is answered all the same."""
    window = answered(DedupWindow(), 1, 2)
    if said == "a huge seq":
        answered(window, 2**53)
    elif said == "all settled":
        window.settle(1, 2**53, None)
    else:
        window.tell(1, gap(1, 2**53, full=1))
    assert {window.see(1, seq).kind for seq in range(3, 1000)} <= {"new", "again"}


def test_a_restart_forgets_only_what_waited() -> None:
    """The state survives the codec; a waiting window went down with the process and is new."""
    window = answered(DedupWindow(remembered=2), 1, 2, 3)
    window.see(1, 4)
    window = DedupWindow.from_state(decode(encode(window.to_state())), remembered=2)
    assert [window.see(1, seq).kind for seq in (1, 2, 3, 4, 5)] == ["again", "answered", "answered", "new", "new"]
    assert window.see(1, 3).answer == b"3"


def test_fewer_answers_may_be_remembered_than_before() -> None:
    """Settings may change between runs."""
    state = answered(DedupWindow(remembered=8), *range(50)).to_state()
    window = DedupWindow.from_state(state, remembered=1)
    assert [window.see(1, 49).kind, window.see(1, 48).kind, window.see(1, 50).kind] == ["answered", "again", "new"]
    assert len(window.to_state()["epochs"][0]["answers"]) == 1


def test_a_state_of_the_first_format_is_read() -> None:
    """It had a bit for each of the last seqs, the newest first."""
    window = DedupWindow.from_state({"epoch": 1, "high": 9, "answered": b"\x05\x00", "answers": [[9, b"nine"]]})
    assert [window.see(1, seq).kind for seq in (9, 8, 7, 6)] == ["answered", "new", "again", "new"]


@pytest.mark.parametrize("state", [{}, {"epoch": 1}, {"epoch": 1, "high": 2, "answered": "x", "answers": [[1]]}])
def test_a_damaged_state_is_refused(state: dict[str, object]) -> None:
    """The store begins a window anew on exactly these errors."""
    with pytest.raises((ValueError, KeyError, TypeError)):
        DedupWindow.from_state(state)


def test_a_strangers_seqs_take_no_memory() -> None:
    """Huge seqs and windows that are never answered leave the state small."""
    window = answered(DedupWindow(), 0, 2**53, *range(10, 30_000, 3))
    for seq in range(0, 10_000, 7):
        window.see(1, seq)
    assert len(window._epochs[1].waiting) == 1024
    assert len(window._epochs[1].settled.pairs()) == 1024
    assert len(encode(window.to_state())) < 20_000


Steps = st.lists(st.tuples(st.sampled_from(["see", "answer", "forget"]), st.integers(0, 4)), max_size=60)


@given(Steps, st.integers(0, 4))
def test_it_agrees_with_plain_sets(steps: list[tuple[str, int]], remembered: int) -> None:
    """The window is exactly three sets: waiting, answered, remembered."""
    window, waiting, done, answers = DedupWindow(remembered), set[int](), set[int](), dict[int, bytes]()
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
def test_an_answered_seq_is_never_new(seqs: list[int], most: int) -> None:
    """Whatever the order of arrival and however few ranges are kept, nothing inferred passes for new."""
    window, seen = DedupWindow(remembered=0), set[int]()
    window.see(1, 101)  # begins the epoch
    window._epochs[1].settled = Ranges(most=most)
    for seq in seqs:
        kind = window.see(1, seq).kind
        assert kind == "again" or (kind == "new" and seq not in seen)
        window.answer(1, seq, b"")
        seen.add(seq)


# -- what does not come ---------------------------------------------------------------
def gap(first: int, last: int, **shed: int) -> Gap:
    return Gap(first=first, last=last, shed=shed)


def test_what_was_neither_answered_nor_shed_is_missing() -> None:
    """The device says below which seq all is settled for it: what the edge does not know of that was lost."""
    window = answered(DedupWindow(), 1)
    assert window.settle(1, 2, 1) == 0
    answered(window, 2, 3, 6, 9)
    assert window.tell(1, gap(4, 5, full=2)) == {"full": 2}
    assert window.settle(1, 7, 6) == 0
    assert window.settle(1, 10, 9) == 2  # 7 and 8
    assert window.settle(1, 10, 9) == 0
    assert (window.missing, window.told) == (2, {"full": 2})


def test_a_gap_that_is_told_twice_counts_once() -> None:
    """Its receipt may be lost; and of a gap that grew, or had an answer in it, only the rest is news."""
    window = DedupWindow()
    assert window.tell(1, gap(4, 6, full=2, link=1)) == {"full": 2, "link": 1}
    assert window.tell(1, gap(4, 6, full=2, link=1)) == {}
    assert window.tell(1, gap(4, 8, full=4, link=1)) == {"full": 2}
    answered(window, 9)
    assert window.tell(1, gap(9, 10, expired=2)) == {"expired": 1}


def test_what_an_edge_cannot_judge_is_not_missing() -> None:
    """Before it knew the device, and what it may have answered just before it crashed."""
    window = DedupWindow()
    assert window.settle(1, 40, None) == 0
    answered(window, 40, 71)  # what lies between was answered, or told, before its disk was lost
    assert window.settle(1, 72, 71) == 0
    window = DedupWindow.from_state(decode(encode(window.to_state())))
    answered(window, 75)  # 72 to 74 were answered by the process that died
    assert window.settle(1, 76, 75) == 0
    answered(window, 75 + DOUBT, 77 + DOUBT)
    assert window.settle(1, 78 + DOUBT, None) == 4  # those beyond 71 + DOUBT that did not come
    assert window.missing == 4


def test_each_epoch_is_judged_by_itself() -> None:
    """Holes of the old outbox are no holes of the new one."""
    window = answered(DedupWindow(), 1, 5)
    window.settle(1, 1, 1)
    answered(window, 1, epoch=2)
    assert window.settle(2, 2, 1) == 0
    assert (window.settle(1, 6, 5), window.missing) == (3, 3)
    assert window.settle(2, 2, 1) == 0
