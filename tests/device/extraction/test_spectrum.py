"""Power spectra, mel bands and cepstra."""

from __future__ import annotations

import numpy as np
import pytest
from sounds import noise, tone

from device_agent.extraction.spectrum import (
    BANDS,
    FRAME,
    band_centres,
    cepstra,
    dct_matrix,
    each_by_itself,
    mel_energies,
    mel_filters,
    power_spectra,
)


def _frames(samples: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::160][None]


def test_white_noise_is_flat() -> None:
    """The scale of every band: noise of variance 1 is 1, wherever it is cut."""
    power = power_spectra(_frames(noise(20.0, loud=1.0)))
    assert power[0, 3:-3] == pytest.approx(1.0, abs=0.25)
    assert mel_energies(power)[0, 5:] == pytest.approx(1.0, abs=0.12)


def test_parseval() -> None:
    """The mean over the bins is the variance of the windowed samples."""
    samples = noise(0.025, loud=0.5)
    power = power_spectra(samples[None, None])[0]
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)
    both_sides = np.concatenate([power, power[1:-1]])
    assert both_sides.mean() == pytest.approx(np.square(samples * window).sum() / np.square(window).sum(), rel=1e-4)


@pytest.mark.parametrize("band", [4, 10, 20, 30, 39])
def test_a_tone_is_loudest_in_its_band(band: int) -> None:
    """Bands are where the mel scale has them."""
    energies = mel_energies(power_spectra(_frames(tone(float(band_centres()[band])))))
    assert energies[0].argmax() == band


def test_the_mel_scale() -> None:
    """1000 Hz is 1000 mel, no band is empty, each sums to 1, and they are evenly apart in mel."""
    centres = band_centres()
    mel = 2595 * np.log10(1 + centres / 700)
    assert 2595 * np.log10(1 + 1000 / 700) == pytest.approx(1000, abs=0.1)
    assert np.diff(mel) == pytest.approx(np.diff(mel)[0])
    assert mel_filters().shape == (257, BANDS)
    assert mel_filters().sum(axis=0) == pytest.approx(1.0, abs=1e-5)
    assert (mel_filters() > 0).sum(axis=0).min() >= 2


def test_cepstra_are_an_orthonormal_cosine_transform() -> None:
    """Its inverse is its transpose, a constant has only the first, and a cosine only its own."""
    basis = dct_matrix(BANDS)
    np.testing.assert_allclose(basis.T @ basis, np.eye(BANDS), atol=1e-5)
    flat = cepstra(np.full((1, BANDS), 2.0, np.float32))[0]
    assert flat[0] == pytest.approx(2 * np.sqrt(BANDS), rel=1e-5)
    assert flat[1:] == pytest.approx(0.0, abs=1e-5)
    ripple = np.cos(np.pi / BANDS * (np.arange(BANDS) + 0.5) * 3).astype(np.float32)
    assert cepstra(ripple[None])[0] == pytest.approx(np.eye(13)[3] * np.sqrt(BANDS / 2), abs=1e-5)


def test_a_row_is_the_same_alone_and_among_others() -> None:
    """Bit for bit: how many rows are computed together depends on how the sound was cut."""
    rows = np.random.default_rng(0).standard_normal((40, 257)).astype(np.float32)
    together = each_by_itself(rows, mel_filters())
    alone = np.concatenate([each_by_itself(row[None], mel_filters()) for row in rows])
    assert np.array_equal(together, alone)
