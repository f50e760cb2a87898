"""Whether features were fitted on the labels of the train rows: then a check on those rows proves nothing.

Features that come from a network which was trained on the train rows predict these rows' labels far better than
any other rows'. So, for each modality alone: how well does ridge regression do inside the train rows, on streams it
was not fitted on, and how well from train to test? Without a leak the two agree up to chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from megace2_iot.datasets.ridge import Matrix, labelled, ridge, scores_of, summaries
from megace2_iot.datasets.sample import Dataset, Sample
from megace2_iot.features import MODALITIES, Modality

FOLDS = 5
MOST = 2000  # samples of a side that are looked at; more take long (BERT's text: 1,537 columns) and say the same
FEWEST = 40  # labelled samples on either side; fewer cannot tell a leak from chance
ALLOWANCE = 0.05  # by which train and test may differ for honest reasons, before three standard errors


@dataclass(frozen=True, slots=True)
class Probe:
    """Accuracy of score >= 0 from one modality: between folds of train streams (`inside`), and on test rows."""

    inside: float
    test: float
    allowed: float  # difference that is no sign of a leak

    @property
    def leaks(self) -> bool:
        """Whether the train rows are easier than they can honestly be."""
        return self.inside - self.test > self.allowed


def probe_leak(dataset: Dataset) -> dict[Modality, Probe]:
    """Probe each modality; empty where the data have too few labelled train or test samples to judge."""
    train, test = (_thinned(labelled(part)) for part in (dataset.split("train"), dataset.split("test")))
    groups = sorted({sample.group for sample in train})
    if min(len(train), len(test)) < FEWEST or len(groups) < FOLDS:
        return {}
    folds = {group: i % FOLDS for i, group in enumerate(groups)}
    fold_of = np.array([folds[sample.group] for sample in train])
    error = (0.25 / len(train) + 0.25 / len(test)) ** 0.5
    probes: dict[Modality, Probe] = {}
    for modality in (m for m in MODALITIES if m in dataset.dims):
        x, asked = (summaries(part, dataset.dims, [modality]) for part in (train, test))
        y, truth = scores_of(train), scores_of(test)
        inside = np.zeros(len(train))
        for fold in range(FOLDS):
            held = fold_of == fold
            inside[held] = ridge(x[~held], y[~held], x[held])
        outside = ridge(x, y, asked)
        probes[modality] = Probe(_accuracy(inside, y), _accuracy(outside, truth), ALLOWANCE + 3.0 * error)
    return probes


def mark_leak(dataset: Dataset, probes: Mapping[Modality, Probe]) -> Dataset:
    """The data set with `features_saw_label` set wherever a leaking modality could have seen it, and a note."""
    leaking = [modality for modality, probe in probes.items() if probe.leaks]
    if not leaking:
        return dataset
    figures = "; ".join(
        f"{m} {probes[m].inside:.3f} between train streams, {probes[m].test:.3f} on test" for m in leaking
    )
    note = f"features were fitted on the labels of the train rows, so only test rows say anything: {figures}"
    samples = tuple(_marked(sample, leaking) for sample in dataset.samples)
    return replace(dataset, samples=samples, notes=(*dataset.notes, note))


def without_leaks(dataset: Dataset, probes: Mapping[Modality, Probe]) -> Dataset:
    """The data set without the modalities that leak, and a note; unchanged where that would leave nothing."""
    leaking = [m for m in dataset.dims if m in probes and probes[m].leaks]
    if not leaking or len(leaking) == len(dataset.dims):
        return dataset
    note = f"{' and '.join(leaking)} left out: fitted on the labels of the train rows"
    samples = tuple(
        replace(s, features={m: f for m, f in s.features.items() if m not in leaking}) for s in dataset.samples
    )
    dims = {m: dim for m, dim in dataset.dims.items() if m not in leaking}
    return replace(dataset, dims=dims, samples=samples, notes=(*dataset.notes, note))


def _thinned(samples: Sequence[Sample]) -> Sequence[Sample]:
    return samples[:: -(-len(samples) // MOST) or 1]


def _accuracy(prediction: Matrix, truth: Matrix) -> float:
    return float(((prediction >= 0) == (truth >= 0)).mean())


def _marked(sample: Sample, leaking: Sequence[Modality]) -> Sample:
    saw = sample.split != "test" and sample.score is not None and any(m in sample.features for m in leaking)
    return replace(sample, features_saw_label=True) if saw else sample
