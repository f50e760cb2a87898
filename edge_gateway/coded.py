"""A window as it came: its shapes checked, its values still coded, and made Z[0] together with its batch mates.

A coded window is a quarter of an embedded one and costs the event loop little. The model thread restores and embeds a
whole batch at once, which takes a third of the time of one window after the other (docs/experiments.md).
Letters: T time, N windows of a batch, D width of the features, d width of the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from megace2_iot.examples import Embedded
from megace2_iot.features import MODALITIES, Modality
from megace2_iot.messages import PacketWindow, Stage
from megace2_iot.quantize import Quantized, dequantize
from megace2_iot.stem import Stem

MAX_STEPS = 4096  # of one modality in a window; attention grows with the square
LARGEST = 1e9  # of an embedded value: far beyond any sensor, and its squares are still finite in float32


@dataclass(frozen=True, slots=True, eq=False)
class CodedWindow:
    """The sequences of one window, none of them empty; `stages` say what their values are."""

    stages: Mapping[Modality, Stage]
    sequences: Mapping[Modality, Quantized]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(coded.size for coded in self.sequences.values())

    @property
    def stage(self) -> Stage | None:
        """The one stage of all sequences; None where a scene's devices sent different ones."""
        found = set(self.stages.values())
        return found.pop() if len(found) == 1 else None

    @classmethod
    def read(cls, stage: Stage, window: PacketWindow, stem: Stem) -> CodedWindow:
        """Check a stranger's window against the stem; raises ValueError where its shapes do not fit."""
        sequences = {}
        for modality, fields in window.sequences.items():
            coded = Quantized.from_fields(fields)
            if coded.steps_count > MAX_STEPS:
                raise ValueError(
                    f"{modality}: {coded.steps_count} steps, this edge takes {MAX_STEPS}: send shorter windows"
                )
            _check_width(modality, stage, coded.channels, stem)
            if coded.steps_count:
                sequences[modality] = coded
        if not sequences:
            raise ValueError("a window without a single step")
        return cls(dict.fromkeys(sequences, stage), sequences)

    def without(self, modalities: Iterable[Modality]) -> CodedWindow:
        """The same without some of its sequences."""
        left_out = set(modalities)
        kept = {m: coded for m, coded in self.sequences.items() if m not in left_out}
        return CodedWindow({m: self.stages[m] for m in kept}, kept)

    def steps(self, modality: Modality) -> int:
        """T of one modality, 0 where the window lacks it."""
        coded = self.sequences.get(modality)
        return 0 if coded is None else coded.steps_count


def _check_width(modality: Modality, stage: Stage, width: int, stem: Stem) -> None:
    if modality not in stem.weights:
        raise ValueError(f"the model takes no {modality}: it takes {', '.join(stem.weights)}")
    if stage == "features" and width != stem.dims[modality]:
        raise ValueError(f"{modality}: features are {width} wide, the model takes {stem.dims[modality]}")
    if stage == "embedded" and width != stem.width:
        raise ValueError(f"{modality}: Z[0] is {width} wide, the stem {stem.width}")


def embed(windows: Sequence[CodedWindow], stem: Stem) -> list[Embedded | str]:
    """Z[0] (T, d) by modality of each window, or why it has none."""
    made: list[dict[Modality, np.ndarray[Any, Any]]] = [{} for _ in windows]
    wrong: dict[int, str] = {}
    for modality in MODALITIES:
        present = [index for index, window in enumerate(windows) if modality in window.sequences]
        alike = lambda index: (windows[index].stages[modality], windows[index].steps(modality))  # noqa: B023, E731
        for (stage, steps), group in groupby(sorted(present, key=alike), alike):
            members = list(group)
            values = dequantize(Quantized.side_by_side([windows[i].sequences[modality] for i in members]))
            values = values.reshape(steps, len(members), -1)  # (T, N, D)
            if stage == "features":
                with np.errstate(over="ignore", invalid="ignore"):  # judged below
                    values = stem.embed(modality, values)
            for place, index in enumerate(members):
                made[index][modality] = values[:, place]
            if not (values.max() <= LARGEST and values.min() >= -LARGEST):  # NaN is not
                for place in np.flatnonzero(~(np.abs(values).max(axis=(0, 2)) <= LARGEST)).tolist():
                    wrong[members[place]] = f"{modality}: values beyond {LARGEST:g} once embedded: scale the features"
    return [wrong.get(index, z) for index, z in enumerate(made)]
