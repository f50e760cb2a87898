"""What an extractor yields: feature rows with their times, and what the quality indicators are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from device_agent.media.chunks import Chunk
from megace2_iot.features import Modality

Array = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """`values` (T, D) at `times` (T,) float64 s on the track's clock, rising; each row covers `step` s from then on.

    `observed` holds what the quality indicators of a window are made of, one number a row (T,).
    """

    values: Array
    times: npt.NDArray[np.float64]
    step: float
    observed: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.times)

    def part(self, chosen: slice | npt.NDArray[np.bool_]) -> Rows:
        """Some of the rows."""
        return Rows(
            self.values[chosen],
            self.times[chosen],
            self.step,
            {name: numbers[chosen] for name, numbers in self.observed.items()},
        )

    @classmethod
    def join(cls, parts: Sequence[Rows]) -> Rows:
        """Rows of one extractor after one another; raises ValueError for none at all."""
        if not parts:
            raise ValueError("no rows to join")
        return cls(
            np.concatenate([part.values for part in parts]),
            np.concatenate([part.times for part in parts]),
            parts[0].step,
            {name: np.concatenate([part.observed[name] for part in parts]) for name in parts[0].observed},
        )


class Extractor(Protocol):
    """Makes rows of one modality from the chunks of its kind, as they come; holds a bounded remainder between two."""

    modality: Modality
    dim: int  # D
    step: float  # s that one row covers; 0 where rows come at their own times, as words do

    def push(self, chunk: Chunk) -> Rows | None:
        """Rows that this chunk completes, or None."""

    def flush(self) -> Rows | None:
        """Rows of what is left at the end of a track; the extractor is as new afterwards."""
