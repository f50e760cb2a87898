"""Sound made again from the 74 columns of audio features: bands and pitch to spectra, spectra to samples.

The 40 mel bands, 12.5 a second, are interpolated over frequency and time; a train of pulses at the pitch, or noise
where nothing is voiced, is filtered to them; and phases are made consistent by Griffin and Lim 1984.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from device_agent.extraction.spectrum import BANDS, BINS, FFT, FRAME, HOP, SAMPLE_RATE, band_centres, hann
from megace2_iot.cli.experiments.exposure.finding import Array

Spectra = npt.NDArray[np.complex64]
ROUNDS = 30  # of Griffin and Lim
PITCH = 68  # column: octaves above 50 Hz, 0 where unvoiced
UNVOICED = 0.2  # octaves: below 57 Hz nothing is voiced
STEP = 0.08  # s of a row


def speak(rows: Array, step: float, size: int) -> Array:
    """Samples (size,) at 16 kHz of feature rows (T, 74), one every `step` s."""
    frames = max(1, (size - FRAME) // HOP + 1)
    times = (np.arange(frames) * HOP + FRAME / 2) / SAMPLE_RATE
    wanted = magnitudes(rows, step, times)
    source = transform(_excitation(rows, step, size))
    level = np.abs(source).mean(axis=1, keepdims=True) + 1e-9
    spectra = wanted * np.abs(source) / level * np.exp(1j * np.angle(source))
    target = np.abs(spectra)
    for _ in range(ROUNDS):
        spectra = target * np.exp(1j * np.angle(transform(back(spectra, size))))
    return back(spectra, size)


def magnitudes(rows: Array, step: float, times: npt.NDArray[np.float64]) -> Array:
    """Magnitudes (F, 257) at `times` (F,) s that the bands of the rows say."""
    log_power = rows[:, :BANDS].astype(np.float64) * 5 - 10.5
    middles = (np.arange(len(rows)) + 0.5) * step
    bands = np.stack([np.interp(times, middles, band) for band in log_power.T], axis=1)
    hertz = np.arange(BINS) * SAMPLE_RATE / FFT
    whole = np.stack([np.interp(hertz, band_centres(), frame) for frame in bands])
    gain = np.square(hann(FRAME)).sum()
    return np.asarray(np.sqrt(np.exp(np.clip(whole, -25, 15)) * gain), np.float32)


def transform(samples: Array) -> Spectra:
    """Spectra (F, 257) of frames of 25 ms every 10 ms."""
    frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[::HOP]
    return np.asarray(np.fft.rfft(frames * hann(FRAME), FFT, axis=1), np.complex64)


def back(spectra: Spectra, size: int) -> Array:
    """The samples (size,) whose spectra these are most nearly."""
    frames = np.fft.irfft(spectra, FFT, axis=1)[:, :FRAME] * hann(FRAME)
    summed, weight = np.zeros(size), np.zeros(size)
    for number, frame in enumerate(frames):
        at = number * HOP
        summed[at : at + FRAME] += frame
        weight[at : at + FRAME] += np.square(hann(FRAME))
    return np.asarray(summed / np.maximum(weight, 0.05), np.float32)


def _excitation(rows: Array, step: float, size: int) -> Array:
    """Pulses at the pitch where rows are voiced, else noise, of about one power."""
    times, middles = np.arange(size) / SAMPLE_RATE, (np.arange(len(rows)) + 0.5) * step
    octaves = rows[:, PITCH]
    voiced = octaves > UNVOICED
    if not voiced.any():
        return np.random.default_rng(0).standard_normal(size).astype(np.float32)
    hertz = 50 * 2 ** np.interp(times, middles[voiced], octaves[voiced])
    cycles = np.floor(np.cumsum(hertz) / SAMPLE_RATE)
    pulses = np.diff(cycles, prepend=0) > 0
    is_voiced = np.interp(times, middles, voiced.astype(float)) > 0.5
    noise = np.random.default_rng(0).standard_normal(size)
    return np.where(is_voiced, pulses * np.sqrt(SAMPLE_RATE / hertz), noise).astype(np.float32)
