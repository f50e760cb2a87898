"""Clocks of live tracks: the offset is found under delays and drift, and mapped times never go back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_agent.clocks import FAR, MAX_KNOTS, STALL, WINDOW, ClockMap, FileClock, grid_origin, unix_time

CHUNK = 0.02  # s


def play(
    clock: ClockMap, rng: np.random.Generator, *, start: float, seconds: float, offset: float, ppm: float = 0.0
) -> float:
    """Chunks on a track that gains `ppm`, each 5 ms to some 50 ms late; returns the host time of the last."""
    arrived, true = 0.0, 0.0
    for number in range(1, int(seconds / CHUNK) + 1):
        track = start + number * CHUNK
        true = offset + start + (track - start) / (1 + ppm * 1e-6)
        arrived = max(arrived, true + 0.005 + rng.exponential(0.01))
        clock.note(track, arrived)
    return true


def at(clock: ClockMap, time: float) -> float:
    return float(clock.to_host(np.array([time]))[0])


@pytest.mark.parametrize("ppm", [-200.0, -100.0, 0.0, 100.0, 200.0])
def test_drift_is_followed(ppm: float) -> None:
    """A sound card that runs fast or slow stays within the smallest delay and what it drifts in a window."""
    clock = ClockMap()
    true = play(clock, np.random.default_rng(1), start=3.0, seconds=120.0, offset=1000.0, ppm=ppm)
    drifted = abs(ppm) * 1e-6 * WINDOW
    assert true - drifted <= at(clock, 123.0) <= true + 0.005 + 0.002
    assert clock.resets == 0


def test_a_burst_at_the_start_is_caught_up_with() -> None:
    """A camera hands over what it buffered while it was opened: 0.6 s of delay are gone in 2 s, not in minutes."""
    clock = ClockMap()
    for number in range(1, 151):
        track = number * CHUNK
        clock.note(track, max(0.6, track))
        assert at(clock, track) >= track
    assert at(clock, 3.0) == pytest.approx(3.0, abs=FAR)


@given(
    st.lists(
        st.tuples(st.sampled_from(["on", "on", "on", "anew", "leap", "stand"]), st.integers(0, 50), st.integers(0, 80)),
        max_size=60,
    )
)
def test_times_never_go_back(steps: list[tuple[str, int, int]]) -> None:
    """Whatever the track does, and however late its chunks are, what is mapped in order comes out in order."""
    clock, track, now, last = ClockMap(), 5.0, 100.0, -np.inf
    for what, hundredths, delay in steps:
        for _ in range(5):
            before = track
            step = max(1, hundredths) / 100
            track = {"on": track + step, "anew": track - 1 - step, "leap": track + 3 + step, "stand": track + 0.01}[
                what
            ]
            now += (delay if what == "stand" else hundredths) / 100
            clock.note(track, now)
            first = before if before < track and what != "leap" else track
            mapped = clock.to_host(np.linspace(first, track, 4))
            assert (np.diff(mapped) >= 0).all()
            assert mapped[0] >= last - 1e-9
            last = mapped[-1]
            what = "on" if what in ("anew", "leap") else what


@given(st.lists(st.tuples(st.floats(0.0, 0.9), st.floats(0.0, 0.9)), min_size=1, max_size=60))
def test_what_was_mapped_stays_mapped(steps: list[tuple[float, float]]) -> None:
    """Two extractors of one track lag differently: both get the same host time for the same sample."""
    clock, track, now = ClockMap(), 0.0, 50.0
    seen: list[tuple[float, float]] = []
    for forward, later in steps:
        track, now = track + forward, now + later
        clock.note(track, now)
        seen.append((track, at(clock, track)))
    if clock.resets == 0:
        times = np.array([time for time, _ in seen])
        assert clock.to_host(times).tolist() == pytest.approx([host for _, host in seen], abs=1e-9)


def test_a_stream_that_begins_anew() -> None:
    """A camera that was plugged in again counts from 0, and goes on where the host's clock is."""
    clock = ClockMap()
    play(clock, np.random.default_rng(2), start=0.0, seconds=20.0, offset=500.0)
    assert not clock.restarts(20.02)
    assert clock.restarts(0.1)
    clock.note(0.1, 530.0)
    assert at(clock, 0.1) == 530.0
    assert clock.resets == 1


def test_a_restart_does_not_go_back() -> None:
    """What a burst put ahead of the host's clock stays in front of what comes after the restart."""
    clock = ClockMap()
    for track in (1.0, 1.5, 2.0):
        clock.note(track, 10.0)
    ahead = at(clock, 2.0)
    assert ahead > 10.2
    clock.note(0.1, 10.2)
    assert at(clock, 0.1) == ahead
    clock.note(0.2, 10.29)
    assert at(clock, 0.2) == ahead
    assert at(clock, 1.1) == pytest.approx(11.2, abs=FAR)


def test_a_leap_forward_is_not_believed() -> None:
    """A delay is never negative: time stamps that jump an hour ahead are still of now."""
    clock = ClockMap()
    play(clock, np.random.default_rng(3), start=0.0, seconds=20.0, offset=500.0)
    clock.note(3620.0, 520.1)
    assert at(clock, 3620.0) == pytest.approx(520.1)
    assert at(clock, 19.0) == pytest.approx(519.0, abs=0.02)


def test_a_counter_that_stood_still() -> None:
    """A sound card that lost 5 s is 5 s behind for ever: believed after `STALL`, not after a whole window."""
    clock = ClockMap()
    play(clock, np.random.default_rng(4), start=0.0, seconds=20.0, offset=500.0)
    for number in range(int((STALL + 1) / CHUNK)):
        clock.note(20.0 + number * CHUNK, 525.0 + number * CHUNK)
    assert clock.resets == 1
    assert clock.offset == pytest.approx(505.0, abs=0.02)


def test_a_busy_host_is_no_stall() -> None:
    """A process that slept for 5 s finds a queue of chunks: their times are their own, not their arrival's."""
    clock = ClockMap()
    play(clock, np.random.default_rng(5), start=0.0, seconds=20.0, offset=500.0)
    for number in range(1, 251):
        clock.note(20.0 + number * CHUNK, 525.0 + number * 0.0004)
    assert clock.resets == 0
    assert at(clock, 22.0) == pytest.approx(522.0, abs=0.02)


def test_a_clock_holds_little() -> None:
    """Days of chunks take no more memory than a minute of them."""
    clock, rng = ClockMap(), np.random.default_rng(6)
    for number in range(5000):
        clock.note(number * 0.1, number * 0.1 + 0.5 * rng.random())
    assert len(clock._knots) <= MAX_KNOTS
    assert len(clock._minima) <= 2 * WINDOW + 2


def test_a_track_without_chunks_has_no_time() -> None:
    """No offset is better than a wrong one."""
    with pytest.raises(ValueError, match="no chunk"):
        ClockMap().to_host(np.array([1.0]))


def test_a_file_is_its_own_clock() -> None:
    """Every track of a clip counts from its beginning."""
    clock, times = FileClock(), np.array([0.0, 0.5])
    clock.note(1.0, 99.0)
    assert clock.to_host(times) is times
    assert not clock.restarts(0.0)


def test_captured_at_is_unix_time() -> None:
    """The two clocks are read together, so a host clock that began at boot does not matter."""
    assert unix_time(95.0, monotonic=100.0, unix=1.7e9) == 1.7e9 - 5


@given(st.floats(0.5, 60), st.floats(0, 1e6), st.floats(1.6e9, 2e9))
def test_two_devices_cut_alike(length: float, monotonic: float, unix: float) -> None:
    """Origins on two hosts with clocks of their own are the same instants, up to whole windows."""
    one = unix_time(grid_origin(length, monotonic=monotonic, unix=unix), monotonic=monotonic, unix=unix)
    two = unix_time(grid_origin(length, monotonic=7.0, unix=unix + 1.234), monotonic=7.0, unix=unix + 1.234)
    windows = (two - one) / length
    assert abs(windows - round(windows)) < 1e-5
    assert 0 <= unix - one <= length
