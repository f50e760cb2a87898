"""Sounds and the cutting of them, for the tests of extraction."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from device_agent.extraction.audio import AudioExtractor
from device_agent.extraction.rows import Rows
from device_agent.media.chunks import Sound

RATE = 16_000


def tone(hertz: float, seconds: float = 1.0, loud: float = 0.3) -> np.ndarray:
    """A sine."""
    return (loud * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)).astype(np.float32)


def voice(hertz: float, seconds: float = 1.0, loud: float = 0.3) -> np.ndarray:
    """A pulse train through a resonance at 500 Hz: the fundamental is not its loudest part."""
    partials = np.arange(1, int(4000 / hertz))
    weights = 1 / (1 + ((partials * hertz - 500) / 150) ** 2)
    waves = sum(w * tone(n * hertz, seconds, 1.0) for n, w in zip(partials, weights, strict=True))
    return np.asarray(loud * waves / np.abs(waves).max(), np.float32)


def noise(seconds: float = 1.0, loud: float = 0.1, seed: int = 0) -> np.ndarray:
    """White noise of rms `loud`."""
    return (loud * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def heard(samples: np.ndarray, cuts: Iterable[int] = (), rate: float = 12.5, start: float = 0.0) -> Rows:
    """All rows of a sound that comes in pieces, cut at these samples."""
    extractor = AudioExtractor(rate)
    edges = [0, *sorted(cuts), len(samples)]
    chunks = [Sound(samples[a:b], RATE, start + a / RATE) for a, b in pairwise(edges)]
    parts = [*(extractor.push(chunk) for chunk in chunks), extractor.flush()]
    return Rows.join([part for part in parts if part is not None])
