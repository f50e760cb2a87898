"""What a source of raw media yields: pieces of sound, pictures and words, each timed on its own track's clock."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from megace2_iot.problems import Problem


@dataclass(frozen=True, slots=True, eq=False)
class Sound:
    """Mono `samples` (N,) float32 in -1..1 at `rate` Hz, the first of them at `start` s."""

    samples: npt.NDArray[np.float32]
    rate: int
    start: float
    clipped: float = 0.0  # part of the samples that were at full scale before any filter

    @property
    def end(self) -> float:
        return self.start + len(self.samples) / self.rate


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """One frame, `pixels` (H, W, 3) uint8 RGB, shown from `start` s on."""

    pixels: npt.NDArray[np.uint8]
    start: float


@dataclass(frozen=True, slots=True)
class Words:
    """`text` spoken or typed from `start` to `end` s."""

    text: str
    start: float
    end: float


Chunk = Sound | Picture | Words


class MediaError(Problem):
    """A file, camera or microphone that cannot be read; says what to do."""


@dataclass(slots=True)
class Losses:
    """What a reader could not use, counted by name, and the seconds that each stage of reading took."""

    counts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)  # demux, decode_audio, filter, decode_video, scale

    def count(self, name: str, number: int = 1) -> None:
        self.counts[name] = self.counts.get(name, 0) + number

    def took(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
