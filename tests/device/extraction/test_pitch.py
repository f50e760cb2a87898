"""The pitch of tones, voices and noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import noise, tone, voice

from device_agent.extraction.pitch import VOICED, WINDOW, pitch


def _pieces(samples: np.ndarray) -> np.ndarray:
    return samples[: len(samples) // WINDOW * WINDOW].reshape(-1, 1, WINDOW)


@given(st.floats(60, 400), st.floats(0.001, 1.0))
@settings(max_examples=60, deadline=None)
def test_a_tone_has_its_pitch(hertz: float, loud: float) -> None:
    """Within 2 % over the whole range, at any loudness above -60 dB."""
    found, strength = pitch(_pieces(tone(hertz, 0.3, loud)))
    assert found == pytest.approx(hertz, rel=0.02)
    assert strength.min() > 0.8


@pytest.mark.parametrize("hertz", [80, 120, 180, 250, 330])
def test_a_voice_has_the_pitch_of_its_pulses(hertz: float) -> None:
    """Not that of its loudest partial, and no octave off; in noise 10 dB below too."""
    clean, dirty = voice(hertz, 1.0), voice(hertz, 1.0) + noise(1.0, voice(hertz).std() / 10**0.5)
    for samples in (clean, dirty):
        found, _ = pitch(_pieces(samples))
        assert np.median(found) == pytest.approx(hertz, rel=0.02)
        assert (np.abs(found / hertz - 1) < 0.03).mean() > 0.9


def test_noise_and_silence_have_none() -> None:
    """In ten minutes of white noise hardly a row passes for a voice; silence and an offset never do."""
    found, strength = pitch(_pieces(noise(600.0)))
    assert (found > 0).mean() < 0.002
    assert strength.max() <= 1.0
    for still in (np.zeros(WINDOW * 4, np.float32), np.full(WINDOW * 4, 0.5, np.float32), noise(0.5, 1e-6)):
        found, strength = pitch(_pieces(still))
        assert not found.any()
        assert (strength < VOICED).all()


@pytest.mark.parametrize("hertz", [25, 480, 700, 1500, 3000])
def test_tones_beyond_a_voice_have_none(hertz: float) -> None:
    """Hum, whistles: two periods of a whistle are no voice either."""
    assert not pitch(_pieces(tone(hertz)))[0].any()
