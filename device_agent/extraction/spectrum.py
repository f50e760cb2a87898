"""Spectra of sound: power, mel bands, cepstrum.

The mel scale is HTK's, 2595 log10(1 + f / 700); MFCC are Davis and Mermelstein 1980. Each row is computed by itself
(`each_by_itself`), as BLAS sums in another order for another number of rows, and a feature must not depend on how many
rows happened to be computed together.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from device_agent.extraction.rows import Array

SAMPLE_RATE = 16_000  # Hz
FRAME, HOP = 400, 160  # samples: 25 ms every 10 ms
FFT = 512
BINS = FFT // 2 + 1
BANDS, LOW, HIGH = 40, 60.0, 8000.0  # mel bands between two frequencies in Hz: hum and rumble lie below
CEPSTRA = 13


def power_spectra(frames: Array) -> Array:
    """Mean power (R, 257) of R rows of frames (R, F, 400); white noise of variance 1 is 1 in each bin.

    A row's log spectrum is taken of this mean and not the mean of its frames' logs: one logarithm a row, and of less
    variance, as Welch's method has it.
    """
    window = hann(FRAME)
    spectra = np.fft.rfft(frames * window, FFT, axis=-1)
    power = np.square(spectra.real) + np.square(spectra.imag)
    mean: Array = power.mean(axis=1, dtype=np.float32) / np.square(window).sum()
    return mean


def mel_energies(power: Array) -> Array:
    """Mean power (R, 40) in each mel band of spectra (R, 257)."""
    return each_by_itself(power, mel_filters())


def cepstra(log_mel: Array) -> Array:
    """(R, 13): the orthonormal DCT-II of log mel energies (R, 40)."""
    return each_by_itself(log_mel, dct_matrix(log_mel.shape[1])[:, :CEPSTRA])


def each_by_itself(rows: Array, matrix: Array) -> Array:
    """`rows` (R, N) times `matrix` (N, M), in products of one row."""
    product: Array = (rows[:, None, :] @ matrix)[:, 0]
    return product


@cache
def hann(size: int) -> Array:
    """A periodic Hann window (size,)."""
    window: Array = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
    return window


@cache
def mel_filters() -> Array:
    """Triangles (257, 40) evenly apart in mel, each of sum 1: a band's value is a mean."""
    edges = _hertz(np.linspace(_mel(LOW), _mel(HIGH), BANDS + 2))
    bins = np.arange(BINS)[:, None] * SAMPLE_RATE / FFT
    rising = (bins - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - bins) / np.diff(edges)[1:]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    filters: Array = (triangles / triangles.sum(axis=0)).astype(np.float32)
    return filters


@cache
def dct_matrix(size: int) -> Array:
    """The orthonormal DCT-II (size, size): columns are its basis, so the transpose is its inverse."""
    angles = np.pi / size * np.outer(np.arange(size) + 0.5, np.arange(size))
    basis = np.cos(angles) * np.sqrt(2 / size)
    basis[:, 0] /= np.sqrt(2)
    return np.asarray(basis, np.float32)


def band_centres() -> npt.NDArray[np.float64]:
    """Hz (40,) at which each mel band is highest."""
    return _hertz(np.linspace(_mel(LOW), _mel(HIGH), BANDS + 2))[1:-1]


def _mel(hertz: float) -> float:
    return float(2595 * np.log10(1 + hertz / 700))


def _hertz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    hertz: npt.NDArray[np.float64] = 700 * (10 ** (mel / 2595) - 1)
    return hertz
