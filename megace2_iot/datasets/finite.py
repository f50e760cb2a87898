"""What becomes of values that are no finite numbers: one policy for every layout of sequences.

NaN and both infinities become 0, as MulT does with the -inf of its audio, and are counted. A modality of which no
value is finite is missing from its sample: it is skipped, never replaced by zeros. A score that is no number is no
score.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from megace2_iot.features import MODALITIES, Modality

Array = npt.NDArray[np.float32]

HIGHEST = 3.0  # of a score, and -3 the lowest
ROUNDING = 1e-3  # by which a score may pass it


@dataclass(slots=True)
class Repairs:
    """Counts, by modality, of what was not finite."""

    values: Counter[Modality] = field(default_factory=Counter)
    samples: Counter[Modality] = field(default_factory=Counter)
    missing: Counter[Modality] = field(default_factory=Counter)  # samples of which nothing was left

    def clean(self, modality: Modality, values: npt.NDArray[np.generic]) -> Array | None:
        """Values (T, D) as finite float32, a copy; None where there is nothing to keep."""
        x = np.array(values, np.float32)
        if not x.size:
            return None
        finite = np.isfinite(x)
        bad = x.size - int(finite.sum())
        if bad == x.size:
            self.missing[modality] += 1
            return None
        if bad:
            self.values[modality] += bad
            self.samples[modality] += 1
            x[~finite] = 0.0
        return x

    def notes(self) -> tuple[str, ...]:
        """What was done, a line a modality."""
        told = [
            f"{m}: {self.values[m]:,} values of {self.samples[m]:,} samples were not finite and became 0"
            for m in MODALITIES
            if self.values[m]
        ]
        told += [
            f"{m}: {self.missing[m]:,} samples hold no finite value of it and lack it"
            for m in MODALITIES
            if self.missing[m]
        ]
        return tuple(told)


def score_of(value: float) -> float | None:
    """A score in [-3, 3], or None for NaN and infinities. Raises ValueError for another scale."""
    score = float(value)
    if not math.isfinite(score):
        return None
    if abs(score) > HIGHEST + ROUNDING:
        raise ValueError(f"a score of {score:g}: scores lie between -3 and 3")
    return max(-HIGHEST, min(HIGHEST, score))
