"""A synthetic voice: harmonics of a gliding pitch under the formants of one vowel after the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

VOWELS = np.array([[730, 1090, 2440], [530, 1840, 2480], [270, 2290, 3010], [570, 840, 2410], [300, 870, 2240]])  # Hz
BANDWIDTHS = np.array([90.0, 110.0, 170.0])  # Hz of the three formants
TOP = 5_000.0  # Hz of the highest harmonic
VIBRATO = 5.5  # Hz
GLIDE = 0.35  # octaves from end to end of a clip, of a voice in full earnest
TILT = 1.1  # of harmonics with their number, as a power; earnest voices are brighter by a third of it
HISS = 0.003  # of full scale: the room


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a sentence is said: `earnest` 1 rises and is bright, -1 falls and is dark; `loudness` is 0..1."""

    pitch: float  # Hz
    tract: float  # of a usual length: shorter ones have higher formants
    earnest: float
    loudness: float
    syllables: int


def syllable_envelope(times: npt.NDArray[np.float64], syllables: int, seconds: float) -> npt.NDArray[np.float64]:
    """0 between two syllables, 1 in the middle of one."""
    return np.sin(np.pi * np.clip(times / seconds, 0, 1) * syllables) ** 2


def speak(delivery: Delivery, seconds: float, rate: int, random: np.random.Generator) -> Samples:
    """(N,) samples in -1..1 at `rate` Hz."""
    times = np.arange(round(seconds * rate)) / rate
    octaves = GLIDE * delivery.earnest * (times / seconds - 0.5) + 0.02 * np.sin(2 * np.pi * VIBRATO * times)
    pitch = delivery.pitch * 2.0**octaves
    syllable = np.minimum((times / seconds * delivery.syllables).astype(np.intp), delivery.syllables - 1)
    count = int(TOP / delivery.pitch)
    amplitudes = _amplitudes(delivery, count, random)  # (count, syllables)
    turn = np.exp(2j * np.pi * np.cumsum(pitch) / rate).astype(np.complex64)
    harmonic, voiced = turn.copy(), np.zeros(len(times), np.float32)
    for amplitude in amplitudes:
        voiced += amplitude[syllable] * harmonic.imag
        harmonic *= turn  # the next harmonic by one multiplication, not one sine
    voiced *= syllable_envelope(times, delivery.syllables, seconds).astype(np.float32)
    level = (0.15 + 0.45 * delivery.loudness) / max(float(np.abs(voiced).max()), 1e-9)
    hiss = HISS * random.standard_normal(len(times), dtype=np.float32)
    return np.clip(level * voiced + hiss, -1, 1).astype(np.float32)


def _amplitudes(delivery: Delivery, count: int, random: np.random.Generator) -> Samples:
    """(harmonic, syllable): how much of each harmonic the vowel lets through."""
    vowels = VOWELS[random.integers(len(VOWELS), size=delivery.syllables)] / delivery.tract  # (syllable, formant)
    hertz = delivery.pitch * np.arange(1, count + 1)
    distance = (hertz[:, None, None] - vowels[None]) / BANDWIDTHS
    through = 0.05 + (1 / (1 + distance**2)).sum(axis=2)
    tilt = TILT * (1 - delivery.earnest / 3)
    return np.asarray(through * np.arange(1, count + 1)[:, None] ** -tilt, dtype=np.float32)
