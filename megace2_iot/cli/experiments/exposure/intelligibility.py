"""How well speech may be understood, in a number: the short-time objective intelligibility of Taal et al. 2011.

It compares envelopes in third octaves over 384 ms between clean speech and what was made of it: 1 is the same, and the
higher it is the more words listeners understood, in tests of noisy speech. It is no recogniser, and not made for speech
that comes from a vocoder. Written from the paper, at 16 kHz instead of 10.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from device_agent.extraction.spectrum import SAMPLE_RATE
from megace2_iot.cli.experiments.exposure.finding import Array

Doubles = npt.NDArray[np.float64]
FRAME, FFT = 410, 512  # 25.6 ms; half of it a step
BANDS, LOWEST = 15, 150.0  # third octaves from Hz
SPAN = 30  # frames of a segment, 384 ms
QUIET = 40.0  # dB under the loudest frame: such frames are silence and do not count
CLIP = 1 + 10 ** (15 / 20)  # of the made envelope by the clean one: -15 dB of signal to distortion


def intelligibility(clean: Array, made: Array) -> float:
    """STOI of two sounds (N,) at 16 kHz; NaN where the clean one has no segment of speech."""
    frames = [_frames(samples) for samples in (clean, made)]
    level = 20 * np.log10(np.linalg.norm(frames[0], axis=1) + 1e-12)
    spoken = level > level.max() - QUIET
    bands = [_bands(part[spoken]) for part in frames]
    if len(bands[0]) < SPAN:
        return float("nan")
    first, second = (np.lib.stride_tricks.sliding_window_view(part, SPAN, axis=0) for part in bands)
    scale = np.linalg.norm(first, axis=2, keepdims=True) / (np.linalg.norm(second, axis=2, keepdims=True) + 1e-12)
    second = np.minimum(second * scale, first * CLIP)
    first = first - first.mean(axis=2, keepdims=True)
    second = second - second.mean(axis=2, keepdims=True)
    norms = np.linalg.norm(first, axis=2) * np.linalg.norm(second, axis=2) + 1e-12
    return float(((first * second).sum(axis=2) / norms).mean())


def _frames(samples: Array) -> Doubles:
    found = np.lib.stride_tricks.sliding_window_view(samples.astype(np.float64), FRAME)[:: FRAME // 2]
    return np.asarray(found * np.hanning(FRAME))


def _bands(frames: Doubles) -> Doubles:
    """Magnitudes (F, 15) in third octaves."""
    power = np.square(np.abs(np.fft.rfft(frames, FFT, axis=1)))
    return np.sqrt(power @ _third_octaves())


@cache
def _third_octaves() -> Doubles:
    hertz = np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE)[:, None]
    centres = LOWEST * 2 ** (np.arange(BANDS) / 3)
    return ((hertz >= centres * 2 ** (-1 / 6)) & (hertz < centres * 2 ** (1 / 6))).astype(np.float64)
