"""What a data set holds, as plain values: for `megace2 data inspect` and for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from megace2_iot.datasets.leak import Probe
from megace2_iot.datasets.sample import SPLITS, Dataset, Sample
from megace2_iot.datasets.splits import shared_groups
from megace2_iot.features import MODALITIES, Modality

CLASSES = tuple(range(-3, 4))  # of a score, rounded


def describe(dataset: Dataset, probes: Mapping[Modality, Probe]) -> dict[str, Any]:
    """Sizes, splits, lengths, what was not finite, labels, notes, and the probe for a leak where it could judge."""
    return {
        "name": dataset.name,
        "samples": len(dataset.samples),
        "groups": len({sample.group for sample in dataset.samples}),
        "groups_on_several_sides": len(shared_groups(dataset)),
        "splits": {split: _part(dataset.split(split)) for split in SPLITS},
        "modalities": {m: _modality(dataset, m) for m in MODALITIES if m in dataset.dims},
        "labels": label_counts(dataset.samples),
        "unlabelled": sum(sample.score is None for sample in dataset.samples),
        "features_saw_label": sum(sample.features_saw_label for sample in dataset.samples),
        "notes": list(dataset.notes),
        "leak": {
            m: {"train": round(probe.inside, 4), "test": round(probe.test, 4), "leaks": probe.leaks}
            for m, probe in probes.items()
        },
    }


def label_counts(samples: Sequence[Sample]) -> dict[str, int]:
    """Samples by their score clipped and rounded to -3 ... 3, half to even."""
    counts = Counter(round(min(3.0, max(-3.0, s.score))) for s in samples if s.score is not None)
    return {f"{label:+d}" if label else "0": counts[label] for label in CLASSES}


def _part(samples: Sequence[Sample]) -> dict[str, Any]:
    scores = [sample.score for sample in samples if sample.score is not None]
    return {
        "samples": len(samples),
        "groups": len({sample.group for sample in samples}),
        "labelled": len(scores),
        "positive": round(float((np.array(scores) >= 0).mean()), 4) if scores else None,  # of the labelled
        "labels": label_counts(samples),
    }


def _modality(dataset: Dataset, modality: Modality) -> dict[str, Any]:
    """Width, lengths, and what is missing or was replaced."""
    lengths = [len(s.features[modality].values) for s in dataset.samples if modality in s.features]
    return {
        "width": dataset.dims[modality],
        "samples": len(lengths),
        "missing": len(dataset.samples) - len(lengths),
        "steps": {
            "shortest": min(lengths, default=0),
            "median": float(np.median(lengths)) if lengths else 0.0,
            "longest": max(lengths, default=0),
        },
        "replaced": dataset.replaced.get(modality, 0),
    }
