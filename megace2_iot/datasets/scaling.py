"""Features on one scale: mean 0 and spread 1 over the train rows, clipped; kept, so that other data can follow."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from megace2_iot.datasets.sample import Dataset, Scaling
from megace2_iot.features import MODALITIES, Modality
from megace2_iot.tensors import decode_tensors

Array = npt.NDArray[np.float32]

LIMIT = 5.0  # standard deviations; raw features reach 255, and one such step would drown all others
CONSTANT = 1e-6  # a channel that spreads less is only moved


def fitted(blocks: Iterable[npt.NDArray[np.number]]) -> Scaling:
    """The scaling by which the steps of `blocks` (T, D) have mean 0 and spread 1."""
    parts = [np.asarray(block, np.float64) for block in blocks]
    count = sum(len(part) for part in parts)
    mean = np.sum([part.sum(axis=0) for part in parts], axis=0) / count
    spread = np.sqrt(np.sum([((part - mean) ** 2).sum(axis=0) for part in parts], axis=0) / count)
    return Scaling(mean.astype(np.float32), np.where(spread > CONSTANT, spread, 1.0).astype(np.float32))


def scaled(values: npt.NDArray[np.number], by: Scaling) -> Array:
    """(T, D) on the scale, clipped."""
    moved: Array = np.clip((values - by.mean) / by.spread, -LIMIT, LIMIT).astype(np.float32)
    return moved


def rescaled(dataset: Dataset, wanted: Mapping[Modality, Scaling]) -> Dataset:
    """The data set on the scale that a model was trained on, whatever rows its own scale was fitted on.

    What was clipped stays so. Raises ValueError where a modality's width is another.
    """
    own = {m: by for m, by in dataset.scaling.items() if m in wanted}
    for modality, by in own.items():
        if by.mean.shape != wanted[modality].mean.shape:
            widths = f"{by.mean.size} wide, the model was trained on {wanted[modality].mean.size}"
            raise ValueError(f"{modality} features are {widths}: this is data of another kind")
    samples = []
    for sample in dataset.samples:
        moved = {
            m: replace(x, values=scaled(x.values * own[m].spread + own[m].mean, wanted[m])) if m in own else x
            for m, x in sample.features.items()
        }
        samples.append(replace(sample, features=moved))
    return replace(dataset, samples=tuple(samples), scaling={**dataset.scaling, **{m: wanted[m] for m in own}})


def knows_scale(checkpoint: Path) -> bool:
    """Whether a checkpoint says how its training data were standardised; one of `megace2 train` does."""
    return "scaling" in decode_tensors(checkpoint.read_bytes())[1]


def on_scale_of(dataset: Dataset, checkpoint: Path) -> Dataset:
    """The data set on the scale of a checkpoint's training data. Raises OSError or ValueError where one is unknown."""
    _, about = decode_tensors(checkpoint.read_bytes())
    if "scaling" not in about:
        raise ValueError(f"{checkpoint} does not say how its training data were standardised")
    wanted = from_json(about["scaling"])
    if unknown := [m for m in wanted if m in dataset.dims and m not in dataset.scaling]:
        raise ValueError(f"{dataset.name} does not say how its {' and '.join(unknown)} was standardised")
    return rescaled(dataset, wanted)


def to_json(scaling: Mapping[Modality, Scaling]) -> str:
    """For a checkpoint's metadata."""
    return json.dumps({m: [by.mean.tolist(), by.spread.tolist()] for m, by in scaling.items()})


def from_json(text: str) -> dict[Modality, Scaling]:
    """What `to_json` wrote; raises ValueError for anything else."""
    try:
        pairs = dict(json.loads(text))
        read = {m: tuple(np.array(part, np.float32) for part in pairs[m]) for m in MODALITIES if m in pairs}
        return {m: Scaling(mean, spread) for m, (mean, spread) in read.items()}
    except (TypeError, ValueError, KeyError, OverflowError, RecursionError) as error:
        raise ValueError(f"not a scaling: {error}") from None
