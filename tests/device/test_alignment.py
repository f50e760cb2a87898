"""Windows of rows: each row in exactly one, in order, on time, whatever order the tracks are pushed in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.alignment import Aligned, Aligner, Cut, Grid, Pauses, whole
from device_agent.extraction.rows import Rows
from megace2_iot.features import MODALITIES, Modality

STEP = {"text": 0.0, "audio": 0.25, "vision": 0.5}
AV: tuple[Modality, ...] = ("audio", "vision")
CUTS: list[Cut] = [Grid(2.0, 0.75), Grid(0.7), Pauses(1.0, 4.0, 0.5), whole(3.0)]


def rows(modality: Modality, times: Iterable[float], speech: Iterable[float] | None = None) -> Rows:
    """Rows whose value is their time."""
    at = np.array(list(times), np.float64)
    observed = {} if speech is None else {"speech": np.array(list(speech), np.float32)}
    return Rows(at[:, None].astype(np.float32), at, STEP[modality], observed)


def every(modality: Modality, start: float, end: float) -> Rows:
    """Rows at each step of [start, end)."""
    return rows(modality, np.arange(start, end, STEP[modality] or 0.5))


def shown(windows: Sequence[Aligned]) -> list[tuple[float, float, dict[str, list[float]], tuple[str, ...]]]:
    return [(w.start, w.end, {m: r.times.tolist() for m, r in w.rows.items()}, w.missing) for w in windows]


def drain(aligner: Aligner) -> list[Aligned]:
    """The end of each track in turn, then what is left."""
    return [w for m in MODALITIES for w in aligner.reached(m, math.inf)] + aligner.flush()


def test_a_window_leaves_when_all_are_past_its_end() -> None:
    """The slower track decides, and the row at the end itself belongs to the next window."""
    aligner = Aligner(AV, Grid(2.0), lateness=1.0)
    assert aligner.push("audio", every("audio", 0.0, 2.5), now=2.5) == []
    assert aligner.push("vision", every("vision", 0.0, 2.0), now=2.5) == []
    assert aligner.push("vision", rows("vision", [1.99]), now=2.5) == []
    (window,) = aligner.push("vision", rows("vision", [2.0]), now=2.5)
    assert (window.start, window.end, window.missing) == (0.0, 2.0, ())
    assert len(window.rows["audio"]) == 8
    assert window.rows["vision"].times.tolist() == [0.0, 0.5, 1.0, 1.5, 1.99]


def test_a_silent_track_can_tell_how_far_it_is() -> None:
    """Recognised speech without a word is known to be empty: its window waits for nobody."""
    aligner = Aligner(("text", "audio"), Grid(2.0), lateness=10.0)
    assert aligner.push("audio", every("audio", 0.0, 2.5), now=2.5) == []
    (window,) = aligner.reached("text", 2.0, now=2.5)
    assert window.missing == ("text",)
    assert aligner.given_up == 0


def test_an_unplugged_camera_holds_up_one_window_only() -> None:
    """After its missed deadline it is not awaited, and once it speaks again it is."""
    aligner = Aligner(AV, Grid(1.0), lateness=0.5)
    aligner.push("audio", every("audio", 0.0, 1.25), now=1.0)
    assert aligner.next_deadline() == 1.5
    assert aligner.advance(1.49) == []
    assert [w.missing for w in aligner.advance(1.5)] == [("vision",)]
    assert [w.start for w in aligner.push("audio", every("audio", 1.25, 3.25), now=3.0)] == [1.0, 2.0]
    aligner.push("vision", rows("vision", [3.0]), now=3.2)
    assert aligner.push("audio", every("audio", 3.25, 4.25), now=4.0) == []
    assert [w.missing for w in aligner.push("vision", rows("vision", [4.0]), now=4.1)] == [()]
    assert aligner.given_up == 1


def test_late_rows_are_dropped_and_counted() -> None:
    """A window that has left is not answered twice; the next one tells how much it lacked."""
    aligner = Aligner(AV, Grid(1.0), lateness=0.5)
    aligner.push("audio", every("audio", 0.0, 1.5), now=1.0)
    aligner.advance(1.5)
    aligner.push("vision", rows("vision", [0.0, 0.5, 1.0]), now=1.6)
    windows = drain(aligner)
    assert windows[-1].late == {"vision": 2}
    assert windows[-1].rows["vision"].times.tolist() == [1.0]
    assert aligner.late == {"text": 0, "audio": 0, "vision": 2}


def test_pauses_are_counted_not_sent() -> None:
    """A window in which nothing has a row is no window."""
    aligner = Aligner(("text",), Grid(1.0), lateness=0.5)
    windows = aligner.push("text", rows("text", [0.5, 1.5, 7.25]), now=1.6)
    assert [w.start for w in windows + drain(aligner)] == [0.0, 1.0, 7.0]
    assert aligner.pauses == 5
    assert aligner.next_deadline() is None


def test_more_rows_than_fit_lose_the_oldest() -> None:
    """A track that runs ahead of one that is stuck takes a bounded memory."""
    aligner = Aligner(AV, Grid(2.0), lateness=1.0)  # 2 * (2 + 1) s of 4 Hz
    for second in range(100):
        aligner.push("audio", every("audio", second, second + 1.0))
    assert aligner.overflow["audio"] == 400 - 24
    kept = np.concatenate([w.rows["audio"].times for w in drain(aligner)])
    assert kept.tolist() == np.arange(94.0, 100.0, 0.25).tolist()


def test_one_long_push_is_cut_before_it_is_bounded() -> None:
    """A reader that yields a whole file at once loses nothing, as long as nobody else is awaited."""
    aligner = Aligner(("audio",), Grid(2.0), lateness=0.0)
    assert len(aligner.push("audio", every("audio", 0.0, 60.25))) == 30
    assert aligner.overflow["audio"] == 0


def test_a_word_belongs_to_the_window_of_its_start() -> None:
    """It is neither split nor sent twice."""
    aligner = Aligner(("text",), Grid(1.0), lateness=0.0)
    (window,) = aligner.push("text", rows("text", [0.9, 1.1]))
    assert window.rows["text"].times.tolist() == [0.9]


def test_words_that_cross_are_put_in_order() -> None:
    """Two speakers interrupt each other; rows of a window rise all the same, each with its own values."""
    aligner = Aligner(("text",), Grid(4.0), lateness=1.0)
    aligner.push("text", rows("text", [1.0, 3.0]))
    aligner.push("text", rows("text", [2.5, 2.0]))
    (window,) = aligner.flush()
    assert window.rows["text"].times.tolist() == [1.0, 2.0, 2.5, 3.0]
    assert window.rows["text"].values[:, 0].tolist() == [1.0, 2.0, 2.5, 3.0]


def test_devices_of_a_scene_cut_alike() -> None:
    """The grid hangs on its origin, not on when a device began."""
    starts = []
    for first in (0.5, 3.25):
        aligner = Aligner(("audio",), Grid(2.0, origin=-7.5), lateness=1.0)
        starts.append({w.start for w in aligner.push("audio", every("audio", first, 10.0))})
    assert starts[1] < starts[0]


@pytest.mark.parametrize(
    ("speech", "end"),
    [
        ([0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], 1.0),  # silence at first: after `shortest`
        ([1, 1, 0, 1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], 2.0),  # a breath is no pause
        ([1, 1, 0, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], 4.0),  # no pause at all: after `longest`
        ([1, 0, 0, 1, 0, 1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1], 2.75),  # a pause before `shortest` is over
    ],
)
def test_a_pause_of_speech_ends_a_window(speech: list[int], end: float) -> None:
    """0.5 s without speech, between 1 and 4 s; rows are 0.25 s."""
    aligner = Aligner(("audio",), Pauses(1.0, 4.0, 0.5), lateness=1.0)
    windows = aligner.push("audio", rows("audio", np.arange(20) / 4, speech))
    assert (windows[0].start, windows[0].end) == (0.0, end)


def test_words_are_speech_too() -> None:
    """Without a detector of speech, the gaps between words are the pauses."""
    aligner = Aligner(("text", "vision"), Pauses(1.0, 10.0, 0.6), lateness=1.0)
    aligner.push("vision", every("vision", 0.0, 8.0))
    windows = aligner.push("text", rows("text", [0.0, 0.5, 1.0, 1.4, 4.0]))
    assert windows[0].end == pytest.approx(1.4 + 0.4 + 0.6)
    assert windows[0].rows["text"].times.tolist() == [0.0, 0.5, 1.0, 1.4]


def test_speech_lasts_as_long_as_a_word_does() -> None:
    """The detector heard its beginning only: the pause begins when both are over."""
    aligner = Aligner(("text", "audio"), Pauses(0.5, 10.0, 0.5), lateness=1.0)
    aligner.push("text", rows("text", [0.9]))
    windows = aligner.push("audio", rows("audio", np.arange(20) / 4, [1, 1, 1, 1, 1] + [0] * 15))
    windows += aligner.reached("text", 5.0)
    assert windows[0].end == pytest.approx(0.9 + 0.4 + 0.5)


def test_a_short_clip_is_one_window() -> None:
    """It ends where its rows end, though one track is longer than the file tells."""
    for duration in (None, 3.0):
        aligner = Aligner(AV, whole(10.0 if duration is None else 3.0, duration), lateness=1.0)
        assert aligner.push("audio", every("audio", 0.0, 3.25)) == []
        assert aligner.push("vision", every("vision", 0.0, 3.0)) == []
        assert [(w.start, w.end) for w in drain(aligner)] == [(0.0, 3.25)]


def test_a_long_clip_is_cut_in_equal_windows() -> None:
    """25 s are three windows of 8.5 s, not two of 10 s and a rest."""
    aligner = Aligner(("audio",), whole(10.0, 25.0), lateness=1.0)
    windows = aligner.push("audio", every("audio", 0.0, 25.25)) + drain(aligner)
    assert [(w.start, w.end) for w in windows] == [(0.0, 8.5), (8.5, 17.0), (17.0, 25.25)]


Pushes = list[tuple[Modality, list[int], int]]
PUSHES = st.lists(
    st.tuples(st.sampled_from(MODALITIES), st.lists(st.integers(0, 3), max_size=6), st.integers(0, 8)), max_size=40
)


def feed(pushes: Pushes, made: Callable[[], Aligner]) -> tuple[Aligner, list[Aligned], dict[Modality, list[float]]]:
    """Push rows a few quarters apart, at times that pass on their own, to the end; returns what was pushed, too."""
    aligner = made()
    now, last = 0.0, dict.fromkeys(MODALITIES, -0.25)
    windows: list[Aligned] = []
    pushed: dict[Modality, list[float]] = {m: [] for m in MODALITIES}
    for modality, gaps, later in pushes:
        times = (last[modality] + 0.25 + np.cumsum(gaps) / 4).tolist()
        last[modality] = times[-1] if times else last[modality]
        now += later / 4
        windows += aligner.push(modality, rows(modality, times, [t % 1 for t in times]), now)
        pushed[modality] += times
        deadline = aligner.next_deadline()
        assert deadline is None or deadline > now
    return aligner, windows + drain(aligner), pushed


@given(PUSHES, st.sampled_from(CUTS), st.sampled_from([AV, MODALITIES, ("audio",)]), st.sampled_from([0.0, 0.5, 3.0]))
def test_every_row_is_in_one_window_or_counted(
    pushes: Pushes, cut: Cut, expected: tuple[Modality, ...], lateness: float
) -> None:
    """Windows rise, do not overlap, hold their rows in order, leave by their deadline; what is in none is counted."""
    aligner, windows, pushed = feed(pushes, lambda: Aligner(expected, cut, lateness))
    end = -math.inf
    for window in windows:
        assert window.start >= end
        assert window.rows
        for its in window.rows.values():
            assert (np.diff(its.times) >= 0).all()
            assert window.start <= its.times[0] <= its.times[-1] < window.end
            assert its.values[:, 0].tolist() == its.times.tolist()
        assert window.missing == tuple(m for m in MODALITIES if m in expected and m not in window.rows)
        end = window.end
    for modality, times in pushed.items():
        kept = [t for w in windows if modality in w.rows for t in w.rows[modality].times.tolist()]
        assert kept == sorted(kept)
        assert len(kept) + aligner.late[modality] + aligner.overflow[modality] == len(times)
        assert set(kept) <= set(times)
        assert sum(w.late.get(modality, 0) for w in windows) <= aligner.late[modality]
    assert aligner.next_deadline() is None


@given(PUSHES, st.sampled_from(CUTS))
def test_the_order_of_tracks_does_not_matter(pushes: Pushes, cut: Cut) -> None:
    """Nothing late: the same windows, in whatever order and pieces the tracks come."""
    by_track = [[push for m in tracks for push in pushes if push[0] == m] for tracks in (MODALITIES, MODALITIES[::-1])]
    found = []
    for order in [pushes, *by_track]:
        _, windows, _ = feed([(m, gaps, 0) for m, gaps, _ in order], lambda: Aligner(MODALITIES, cut, 1000.0))
        found.append(shown(windows))
    assert found[0] == found[1] == found[2]


@given(st.floats(-1e6, 1e6), st.floats(0.01, 100.0), st.floats(-1e6, 1e6))
def test_a_grid_has_no_gaps(origin: float, length: float, first: float) -> None:
    """However floats are rounded, a time lies in one window, and a window's end is the next one's start."""
    grid = Grid(length, origin)
    start, end = grid.window(first, {})
    assert start <= first < end
    assert grid.window(end, {})[0] == end
