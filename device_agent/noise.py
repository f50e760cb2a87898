"""Noise that a device adds to what it sends, by `[device] noise`: a part of each channel's own deviation in the window.

A window that is sent again carries the same noise again, or an edge could average it away: it is drawn from a secret
of the process, the window's seq and the modality. The secret comes from the system (`os.urandom`) and never leaves.
It is no differential privacy: a window has no bounded influence, so no guarantee follows, only the figures that
docs/privacy.md gives.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from megace2_iot.features import Modality

Array = npt.NDArray[np.float32]
SECRET = 32  # bytes


def new_secret() -> bytes:
    """What one process draws its noise from."""
    return os.urandom(SECRET)


def noisy(arrays: Mapping[Modality, Array], part: float, secret: bytes, seq: int) -> dict[Modality, Array]:
    """Sequences (T, D) with Gaussian noise of `part` of each channel's deviation; 0 leaves them as they are."""
    if part <= 0:
        return dict(arrays)
    return {m: with_noise(values, part, _generator(secret, seq, m)) for m, values in arrays.items()}


def with_noise(values: Array, part: float, random: np.random.Generator) -> Array:
    """Values (T, D) with noise; a channel that does not move takes the deviation of all values together.

    So a sequence of one step has noise, too, and a channel that is constant is not told by being so.
    """
    if values.size == 0:
        return values
    spread = values.std(axis=0, dtype=np.float64)
    spread = np.where(spread > 0, spread, values.std(dtype=np.float64))
    drawn: Array = (values + part * spread * random.standard_normal(values.shape)).astype(np.float32)
    return drawn


def _generator(secret: bytes, seq: int, modality: Modality) -> np.random.Generator:
    """One window's and modality's own: who finds out one window's noise knows nothing of another's."""
    seed = hashlib.blake2b(f"{seq} {modality}".encode(), key=secret, digest_size=32).digest()
    return np.random.default_rng(int.from_bytes(seed, "little"))
