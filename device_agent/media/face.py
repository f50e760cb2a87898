"""A drawn face that nods and smiles, or shakes its head with a drawn mouth, while it speaks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from device_agent.media.voice import syllable_envelope

Pixels = npt.NDArray[np.uint8]

HEIGHT, WIDTH = 60, 80  # pixels
GRAIN = 6.0  # of 255: the camera's noise
SKIN, MOUTH, EYE = np.array([224, 180, 150]), np.array([150, 50, 60]), np.array([40, 40, 50])


@dataclass(frozen=True, slots=True)
class Look:
    """`earnest` 1 nods and smiles, -1 shakes its head and its mouth hangs."""

    brightness: float  # 0..1 of the scene
    earnest: float
    syllables: int


def draw(look: Look, times: npt.NDArray[np.float64], seconds: float, random: np.random.Generator) -> Pixels:
    """(T, HEIGHT, WIDTH, 3) pictures at `times` s of a clip of `seconds` s."""
    grown = np.sin(np.pi * times / seconds) ** 2  # expression comes and goes
    swing = np.sin(2 * np.pi * 1.6 * times)
    across = WIDTH / 2 + 5 * max(-look.earnest, 0) * swing * grown + random.normal(0, 0.3, len(times))
    down = HEIGHT / 2 + 4 * max(look.earnest, 0) * swing * grown + random.normal(0, 0.3, len(times))
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    u = x - across.astype(np.float32)[:, None, None]  # (T, H, W), from the middle of the face
    v = y - down.astype(np.float32)[:, None, None]
    curve = (0.06 * look.earnest * grown).astype(np.float32)[:, None, None]
    opened = (0.8 + 2.0 * syllable_envelope(times, look.syllables, seconds)).astype(np.float32)[:, None, None]
    pictures = np.full((len(times), HEIGHT, WIDTH, 3), 90 + 60 * look.brightness, np.float32)
    pictures[(u / 20) ** 2 + (v / 26) ** 2 < 1] = SKIN * (0.6 + 0.4 * look.brightness)
    pictures[(np.abs(np.abs(u) - 8) < 2.5) & (np.abs(v + 7) < 1.8)] = EYE
    pictures[(np.abs(u) < 9) & (np.abs(v - 12 + curve * u**2) < opened)] = MOUTH
    pictures += GRAIN * random.standard_normal(pictures.shape[:3], dtype=np.float32)[..., None]
    return np.clip(pictures, 0, 255).astype(np.uint8)
