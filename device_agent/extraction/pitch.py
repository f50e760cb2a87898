"""The pitch of a voice, by autocorrelation as in Boersma 1993's analysis of the fundamental frequency.

The autocorrelation of a windowed piece is divided by the window's own, so that a periodic sound has 1 at its period
whatever the window. It comes from the power spectrum by FFT, which lets the band of voices' first harmonics be cut out
for nothing. Of peaks that are nearly as high as the highest the shortest period wins: two periods are a period too.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from device_agent.extraction.rows import Array
from device_agent.extraction.spectrum import SAMPLE_RATE, hann

WINDOW = 1024  # samples, 64 ms: nearly four periods of the lowest voice
LOWEST, HIGHEST = 60.0, 400.0  # Hz
VOICED = 0.55  # strength from which a row counts as voiced; white noise passes 0.5 once in 10,000 rows
_FFT = 2 * WINDOW
_LAGS = np.arange(14, 276)  # samples: periods up to 60 Hz, and shorter ones, lest their double passes for a voice
_NEARLY = 0.9  # of the highest peak
_ELSEWHERE = 0.01  # part of the whole power that the voices' band needs to be heard
_QUIET = WINDOW * 0.375 * 1e-8  # power of a windowed piece at -80 dB


def pitch(pieces: Array) -> tuple[Array, Array]:
    """F0 in Hz (R,), 0 where unvoiced, and voicing strength 0..1 (R,) of rows of pieces (R, K, 1024)."""
    likeness = _autocorrelation(pieces)
    inner = likeness[:, 1:-1]
    peaks = (inner >= likeness[:, :-2]) & (inner >= likeness[:, 2:])
    heights = np.where(peaks, inner, 0.0)
    first = np.argmax(heights >= np.maximum(_NEARLY * heights.max(axis=1, keepdims=True), 1e-6), axis=1)
    row = np.arange(len(pieces))
    left, peak, right = (likeness[row, first + shift] for shift in (0, 1, 2))
    bend = left - 2 * peak + right
    shift = np.divide(0.5 * (left - right), bend, out=np.zeros_like(peak), where=bend < -1e-9)
    hertz = SAMPLE_RATE / (_LAGS[first + 1] + np.clip(shift, -0.5, 0.5))
    is_voice = (hertz > 0.98 * LOWEST) & (hertz < 1.02 * HIGHEST)
    strength = np.where(is_voice, np.clip(heights[row, first], 0.0, 1.0), 0.0).astype(np.float32)
    return np.where(strength >= VOICED, hertz, 0.0).astype(np.float32), strength


def _autocorrelation(pieces: Array) -> Array:
    """Likeness (R, L) to itself at each lag, the mean over a row's pieces."""
    window = hann(WINDOW)
    windowed = (pieces - pieces.mean(axis=-1, keepdims=True)) * window
    spectra = np.fft.rfft(windowed, _FFT, axis=-1)
    power = (np.square(spectra.real) + np.square(spectra.imag)).mean(axis=1)
    whole = np.square(windowed).sum(axis=-1).mean(axis=1)
    products = np.fft.irfft(power * _voice_band(), axis=-1)
    norm = products[:, 0] + _ELSEWHERE * whole + _QUIET
    return np.asarray(products[:, _LAGS] / norm[:, None] / _window_likeness(), np.float32)


@cache
def _voice_band() -> Array:
    """Weights (1025,) of power: 0 below 20 Hz, 1 from 50 to 900, 0 above 1100."""
    hertz = np.arange(_FFT // 2 + 1) * SAMPLE_RATE / _FFT
    return np.interp(hertz, [20.0, 50.0, 900.0, 1100.0], [0.0, 1.0, 1.0, 0.0]).astype(np.float32)


@cache
def _window_likeness() -> Array:
    """The window's own autocorrelation at the lags, 1 at lag 0."""
    window = np.pad(hann(WINDOW), (0, WINDOW))
    products = np.fft.irfft(np.abs(np.fft.rfft(window)) ** 2)
    return np.asarray(products[_LAGS] / products[0], np.float32)
