"""One labelled multimodal sample, and a data set of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from megace2_iot.features import Features, Modality

Split = Literal["train", "valid", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One rated piece of one stream."""

    id: str
    group: str  # the video, speaker or stream it belongs to
    split: Split
    start: float  # s in its group's stream: the order and pace of a replay
    score: float | None  # in [-3, 3]
    features: Mapping[Modality, Features]
    site: int = 0  # which edge's population; 0 where the data has none
    features_saw_label: bool = False  # the features were fitted on this very label: a check on it proves nothing
    stem: str | None = None  # of a recorded stream: the features are Z[0] of this stem already


@dataclass(frozen=True, slots=True, eq=False)
class Scaling:
    """What was taken off each channel, and what it was divided by: (D,) each."""

    mean: npt.NDArray[np.float32]
    spread: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Samples of one origin with the width of each modality, and what a reader of results should know of them."""

    name: str
    dims: Mapping[Modality, int]
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = field(default=())
    replaced: Mapping[Modality, int] = field(default_factory=dict)  # values that were not finite and became 0
    scaling: Mapping[Modality, Scaling] = field(default_factory=dict)  # of the modalities that were standardised

    def split(self, split: Split) -> tuple[Sample, ...]:
        """The samples of one split, in their order."""
        return tuple(sample for sample in self.samples if sample.split == split)
