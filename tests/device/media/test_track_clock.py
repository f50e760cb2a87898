"""Time stamps that are believed, and those that are not."""

from __future__ import annotations

import pytest

from device_agent.media.clock import TrackClock


@pytest.mark.parametrize(
    ("stamp", "time", "doubts"),
    [
        (None, 5.0, 0),  # no stamp: it goes on
        (5.02, 5.02, 0),
        (4.5, 4.5, 0),  # a little behind: an overlap, for the track to judge
        (9.0, 9.0, 0),  # a gap
        (0.0, 5.0, 1),  # damage, or a recorder that began anew
        (95_443.7, 5.0, 1),  # damage, or a counter that overran
    ],
)
def test_a_stamp_is_believed_within_reason(stamp: float | None, time: float, doubts: int) -> None:
    """In a file that is at 5 s."""
    clock = TrackClock(limit=10, ahead=60)
    assert clock.time(stamp, 5.0) == time
    assert clock.doubts == doubts


@pytest.mark.parametrize("wrong", [0.0, 3.0, 500.0, 95_443.7])
def test_one_wrong_stamp_moves_nothing(wrong: float) -> None:
    """A flipped bit in one stamp of a long film costs nothing but a doubt."""
    clock = TrackClock(limit=1000, ahead=60)
    assert [clock.time(stamp, at) for stamp, at in [(wrong, 100.0), (100.1, 100.1), (100.2, 100.2)]] == [
        100.0,
        100.1,
        100.2,
    ]


def test_a_clock_set_back_goes_on_from_there() -> None:
    """One correction for all that follows, not one for each frame."""
    clock = TrackClock(limit=1000, ahead=60)
    times = [clock.time(k / 10, 60 + k / 10) for k in range(50)]
    assert times == pytest.approx([60 + k / 10 for k in range(50)])
    assert clock.doubts == 1


def test_a_long_gap_is_believed_when_it_goes_on() -> None:
    """A camera that records only what moves leaves minutes out."""
    clock = TrackClock(limit=1000, ahead=60)
    times: list[float] = []
    for k in range(30):
        times.append(clock.time(500 + k / 10, times[-1] + 0.1 if times else 10.0))
    assert times[9] == pytest.approx(10.9)
    assert times[12:] == pytest.approx([500 + k / 10 for k in range(12, 30)])


def test_beyond_the_end_there_is_no_gap() -> None:
    """A counter that overran is not a day of silence."""
    clock = TrackClock(limit=1000, ahead=60)
    times = [clock.time(95_000 + k / 10, 10 + k / 10) for k in range(50)]
    assert times == pytest.approx([10 + k / 10 for k in range(50)])


def test_a_header_that_says_too_little_does_not_cut() -> None:
    """MP3 files guess their length: what goes on without a gap is believed beyond it."""
    clock = TrackClock(limit=1, ahead=60)
    assert [clock.time(k / 10, (k - 1) / 10) for k in range(1, 50)] == [k / 10 for k in range(1, 50)]


def test_a_device_may_be_away_for_long() -> None:
    """Its stamps are of our own clock, and are not doubted."""
    assert TrackClock().time(86_400.0, 5.0) == 86_400.0
