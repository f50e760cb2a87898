"""Feature sequences of one modality: what an extractor makes and a packet carries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Modality = Literal["text", "audio", "vision"]
MODALITIES: tuple[Modality, ...] = ("text", "audio", "vision")  # the order of L, A, V in every equation


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """A sequence `values` (T, D) at `rate` Hz from `start` seconds on; T may be 0."""

    values: npt.NDArray[np.float32]
    rate: float = 1.0
    start: float = 0.0
