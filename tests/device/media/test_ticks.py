"""Which frame is shown at which tick."""

from __future__ import annotations

import numpy as np
import pytest

from device_agent.media.ticks import Ticks


def served(ticks: Ticks, times: list[float]) -> list[tuple[float, float]]:
    """(tick, frame) in s."""
    pairs: list[tuple[float, float]] = []
    for held, time in zip([*times[:1], *times], times, strict=False):
        pairs += [(tick, held) for tick in ticks.frame(time)]
    return pairs + [(tick, times[-1]) for tick in ticks.end()]


@pytest.mark.parametrize("rate", [7.5, 10, 15, 24, 25, 29.97, 30, 60, 120])
def test_each_tick_shows_the_latest_frame(rate: float) -> None:
    """Whatever the camera's rate, pictures come at ours, and never from the future."""
    times = list(np.arange(round(4 * rate)) / rate)
    ticks = Ticks(15, rate)
    pairs = served(ticks, times)
    assert np.allclose([tick for tick, _ in pairs], np.arange(len(pairs)) / 15)
    assert len(pairs) in {60, 61}
    for tick, frame in pairs:
        assert frame == max(time for time in times if time <= tick + 1e-3)
    assert ticks.missing == 0


def test_a_gap_is_missing_and_not_a_still() -> None:
    """A frozen face is not a calm one: after two periods nobody knows what was to be seen."""
    ticks = Ticks(15, 30)
    pairs = served(ticks, [k / 30 for k in range(30)] + [3 + k / 30 for k in range(30)])
    gap = [tick for tick, _ in pairs if 1.15 < tick < 3 - 1e-6]
    assert not gap
    assert len(pairs) + ticks.missing == 60


def test_a_slow_source_serves_several_ticks_whatever_it_declares() -> None:
    """One frame a second is a rhythm, not a row of gaps, even in a file that says 1000 a second."""
    ticks = Ticks(15, 1000)
    pairs = served(ticks, [float(k) for k in range(20)])
    assert ticks.missing < 20
    assert len(pairs) > 270


def test_frames_that_start_late_miss_nothing() -> None:
    """Before its first frame a track does not exist."""
    ticks = Ticks(15, 30)
    assert served(ticks, [2.01, 2.05])[0][0] == pytest.approx(31 / 15)
    assert ticks.missing == 0


def test_a_camera_that_comes_back_counts_what_it_missed_at_once() -> None:
    """An hour away is a number, not a loop of 54,000."""
    ticks = Ticks(15, 30)
    served(ticks, [0.0, 1 / 30])
    ticks.frame(3600.0)
    assert ticks.missing == 54_000 - 1


def test_a_broken_rate_does_not_show_one_frame_for_days() -> None:
    """A damaged header may say one frame in a million seconds; their ticks would fill the memory."""
    ticks = Ticks(15, 1e-6)
    assert len(served(ticks, [0.0, 1e6])) <= 2 * 150 + 1
    assert ticks.missing > 14e6
