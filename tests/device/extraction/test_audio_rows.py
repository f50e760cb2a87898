"""Rows of sound: on their grid, however it is cut; exact on tones, silence, noise and clipping."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import RATE, heard, noise, tone, voice

from device_agent.extraction.audio import AudioExtractor
from device_agent.extraction.framing import PIECE
from device_agent.extraction.rows import Rows
from device_agent.extraction.spectrum import band_centres
from device_agent.media.chunks import Sound, Words
from megace2_iot.problems import Problem

SPEECH = np.concatenate([noise(0.4, 0.003), voice(140, 0.7), noise(0.3, 0.05), voice(210, 0.5) + noise(0.5, 0.01)])


def _same(one: Rows, other: Rows) -> None:
    assert np.array_equal(one.values, other.values)
    assert np.allclose(one.times, other.times, atol=1e-9)
    assert all(np.array_equal(one.observed[name], other.observed[name]) for name in one.observed)


@given(st.lists(st.integers(0, len(SPEECH)), max_size=40), st.sampled_from([12.5, 5.0, 15.0, 50.0]))
@settings(max_examples=60, deadline=None)
def test_rows_do_not_depend_on_the_cutting(cuts: list[int], rate: float) -> None:
    """Bit for bit: sound comes in what a driver, a decoder or a network gives."""
    _same(heard(SPEECH, cuts, rate), heard(SPEECH, rate=rate))


def test_a_long_piece_is_as_many_short_ones() -> None:
    """An hour in one piece is taken in bounded parts."""
    samples = np.tile(SPEECH, 4)
    assert len(samples) > PIECE
    _same(heard(samples), heard(samples, range(0, len(samples), 320)))


@pytest.mark.parametrize(("rate", "step"), [(12.5, 0.08), (5.0, 0.2), (50.0, 0.02), (15.0, 1067 / 16_000)])
def test_rows_are_on_their_grid(rate: float, step: float) -> None:
    """74 numbers each `step` s from the first sample on, every whole one, the last at the flush."""
    rows = heard(noise(2.0), rate=rate, start=7.5)
    assert rows.step == pytest.approx(step)
    assert rows.values.shape == (int(2.0 / step + 1e-9), 74)
    np.testing.assert_allclose(rows.times, 7.5 + np.arange(len(rows)) * step, atol=1e-9)
    assert rows.values.dtype == np.float32


def test_a_tone_fills_its_columns() -> None:
    """Band, level, pitch, voicing, crossings and centroid of 200 Hz at -13.5 dB are what they should be."""
    row = heard(tone(200.0)).values[5]
    assert abs(band_centres()[row[:40].argmax()] - 200) < 30
    assert 20 * row[66] - 35 == pytest.approx(20 * np.log10(0.3 / np.sqrt(2)), abs=0.05)
    assert 50 * 2 ** row[68] == pytest.approx(200, rel=0.02)
    assert row[70] > 0.9
    assert row[71] / 5 == pytest.approx(2 * 200 / RATE, rel=0.05)
    assert 2000 * (row[72] + 1) == pytest.approx(200, abs=15)
    assert row[[67, 69]] == pytest.approx(0.0, abs=0.01)


def test_differences_look_back() -> None:
    """A step of 20 dB is seen in the level's difference once, and a rise of an octave in the pitch's."""
    rows = heard(np.concatenate([tone(100, 0.8, 0.03), tone(200, 0.8, 0.3)]))
    assert rows.values[10, 67] == pytest.approx(2.0, abs=0.1)
    assert rows.values[10, 69] == pytest.approx(2.0, abs=0.2)
    assert np.abs(np.delete(rows.values[:, [67, 69]], [9, 10, 11], axis=0)).max() < 0.1
    np.testing.assert_allclose(rows.values[1:, 53:66], np.diff(rows.values[:, 40:53], axis=0), atol=1e-4)


def test_silence_is_finite_and_of_unit_scale() -> None:
    """Zeros, an offset alone, and numbers that are none, give rows like any other."""
    broken = np.array([np.nan, np.inf, -np.inf, 1e30] * 4000, np.float32)
    for samples in (np.zeros(RATE, np.float32), np.full(RATE, 0.7, np.float32), broken, noise(1.0, 1.0)):
        rows = heard(samples)
        assert np.isfinite(rows.values).all()
        assert np.abs(rows.values).max() < 12
        assert all(np.isfinite(numbers).all() for numbers in rows.observed.values())
    silent = heard(np.zeros(RATE, np.float32))
    assert silent.observed["level"] == pytest.approx(-100.0)
    assert not silent.observed["speech"].any()


def test_clipping_is_counted() -> None:
    """By the samples, or as it was before a filter, where the sound says so."""
    loud = np.clip(tone(100, 1.0, 2.0), -1, 1)
    assert heard(loud).observed["clipped"] == pytest.approx(2 / 3, abs=0.02)
    assert not heard(tone(100)).observed["clipped"].any()
    rows = AudioExtractor().push(Sound(tone(100), RATE, 0.0, clipped=0.25))
    assert rows is not None
    assert rows.observed["clipped"] == pytest.approx(0.25)


def test_a_gap_begins_a_new_run() -> None:
    """Rows never mix sound from before and after it, take their times from the clock again, and differ from nothing."""
    extractor = AudioExtractor()
    parts = [extractor.push(Sound(tone(200, 0.5), RATE, start)) for start in (0.0, 3.0)]
    rows = Rows.join([part for part in (*parts, extractor.flush()) if part is not None])
    np.testing.assert_allclose(rows.times, [*np.arange(6) * 0.08, *(3.0 + np.arange(6) * 0.08)])
    assert np.abs(rows.values[6, 53:66]).max() == 0.0


def test_jitter_is_no_gap_and_what_comes_twice_is_dropped() -> None:
    """A clock that is 10 ms off moves nothing; half a second sent again is not heard again."""
    samples = noise(2.0)
    for starts, cuts in (([0.0, 0.99], [(0, 16_000), (16_000, 32_000)]), ([0.0, 0.5], [(0, 16_000), (8_000, 32_000)])):
        extractor = AudioExtractor()
        chunks = [Sound(samples[a:b], RATE, start) for start, (a, b) in zip(starts, cuts, strict=True)]
        parts = [*map(extractor.push, chunks), extractor.flush()]
        _same(Rows.join([part for part in parts if part is not None]), heard(samples))


@given(st.lists(st.tuples(st.floats(-0.5, 1.0), st.integers(0, 6000)), min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_rows_rise_whatever_the_clock_does(pieces: list[tuple[float, int]]) -> None:
    """Gaps, overlaps, empty pieces: times rise by a step or more, and no row is made of what was not heard."""
    extractor, at, total = AudioExtractor(), 10.0, 0
    parts: list[Rows | None] = []
    for late, length in pieces:
        at += late
        parts.append(extractor.push(Sound(SPEECH[:length], RATE, at)))
        at, total = at + length / RATE, total + length
    rows = [part for part in (*parts, extractor.flush()) if part is not None]
    if rows:
        joined = Rows.join(rows)
        assert (np.diff(joined.times) > 0.08 - 1e-6).all()
        assert len(joined) <= total / 1280
        assert np.isfinite(joined.values).all()


def test_what_is_held_is_bounded() -> None:
    """A minute in one piece needs little more than the piece, and what stays is less than a row and a piece."""
    extractor, minute = AudioExtractor(), np.tile(SPEECH, 32)
    extractor.push(Sound(minute[:RATE], RATE, 0.0))
    tracemalloc.start()
    rows = extractor.push(Sound(minute[RATE:], RATE, 1.0))
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows is not None
    assert held < 2 * rows.values.nbytes + (PIECE + 2 * 1280) * 2 * 4
    assert peak < 12e6


def test_speech_is_told_from_noise() -> None:
    """A voice 20 dB above the noise is speech and its level and the room's are right; noise alone is none."""
    room = noise(6.0, 0.01)
    spoken = room.copy()
    spoken[2 * RATE : 4 * RATE] += voice(150, 2.0)
    rows = heard(spoken)
    during = (rows.times > 2.1) & (rows.times < 3.8)
    assert rows.observed["speech"][during].mean() > 0.95
    assert rows.observed["speech"][(rows.times < 1.9) | (rows.times > 4.4)].mean() < 0.05
    assert rows.observed["noise"][during] == pytest.approx(-40.0, abs=1.5)
    assert not heard(room).observed["speech"].any()


def test_the_room_is_heard_again_when_it_gets_louder() -> None:
    """A fan that starts is speech to nobody, and is the room half a minute later."""
    rows = heard(np.concatenate([noise(2.0, 0.001), noise(20.0, 0.1, seed=1)]))
    assert not rows.observed["speech"].any()
    assert rows.observed["noise"][-1] == pytest.approx(-20.0, abs=1.0)


def test_what_is_not_its_own() -> None:
    """Other chunks give nothing, another rate is refused with what to do, and a flush makes it new."""
    extractor = AudioExtractor()
    assert extractor.push(Words("hello", 0.0, 1.0)) is None
    assert extractor.flush() is None
    with pytest.raises(Problem, match="44100 Hz: the audio extractor takes 16000 Hz, resample"):
        extractor.push(Sound(tone(100), 44_100, 0.0))
    with pytest.raises(Problem, match="audio_rate 100: set it between 5 and 50"):
        AudioExtractor(100)
    first, again = (
        Rows.join([r for r in (extractor.push(Sound(SPEECH, RATE, 5.0)), extractor.flush()) if r]) for _ in "12"
    )
    _same(first, again)


@pytest.mark.parametrize(
    ("name", "lowest", "highest"),
    [("bbaf2n.mpg", 80, 160), ("03bSnISJMiM_1.wav", 150, 260), ("Oz06ZWiO20M_6.mp4", 120, 320)],
)
def test_real_speech(clip_sound: Callable[[str], np.ndarray], name: str, lowest: float, highest: float) -> None:
    """A man and two women: their pitch, speech found, columns of unit scale."""
    rows = heard(clip_sound(name))
    octaves = rows.values[:, 68]
    assert lowest < 50 * 2 ** np.median(octaves[octaves > 0]) < highest
    assert 0.25 < rows.observed["speech"].mean() < 0.97
    assert np.abs(rows.values).max() < 10
    assert 0.4 < rows.values[:, :66].std() < 1.6
