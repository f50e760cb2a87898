"""What is told of a data set."""

from __future__ import annotations

import json
from collections.abc import Callable

from megace2_iot.datasets import Dataset
from megace2_iot.datasets.describe import describe, label_counts
from megace2_iot.datasets.leak import probe_leak
from megace2_iot.datasets.sample import Sample
from megace2_iot.datasets.synthetic import synthetic

MakeSample = Callable[..., Sample]


def test_the_built_in_corpus() -> None:
    """Sizes of splits and sequences, labels, the probe; all of it fits JSON."""
    corpus = synthetic(0, streams=8, samples=20)
    told = json.loads(json.dumps(describe(corpus, probe_leak(corpus))))
    assert (told["samples"], told["groups"], told["groups_on_several_sides"]) == (320, 16, 0)
    assert {name: part["samples"] for name, part in told["splits"].items()} == {"train": 240, "valid": 0, "test": 80}
    assert told["splits"]["valid"]["positive"] is None
    assert told["modalities"]["audio"]["width"] == 12
    assert told["modalities"]["text"]["steps"] == {"shortest": 9, "median": 11.0, "longest": 13}
    assert sum(told["labels"].values()) == 320
    assert {found["leaks"] for found in told["leak"].values()} == {False}


def test_labels_are_counted_in_seven_classes(plain_sample: MakeSample) -> None:
    """Half to even, as accuracy of seven classes rounds; what has no score is in none."""
    scores = [-3.0, -2.5, -0.5, 0.0, 0.5, 1.5, 3.0, None]
    counts = label_counts([plain_sample(i, "v", score) for i, score in enumerate(scores)])
    assert counts == {"-3": 1, "-2": 1, "-1": 0, "0": 3, "+1": 0, "+2": 1, "+3": 1}


def test_what_is_missing_is_counted(plain_sample: MakeSample) -> None:
    """Samples without a modality, values that were replaced, samples without a score."""
    samples = (plain_sample(0, "v"), plain_sample(1, "v", None))
    told = describe(Dataset("d", {"text": 3, "audio": 2}, samples, (), {"text": 7}), {})
    assert told["modalities"]["audio"]["missing"] == 2
    assert told["modalities"]["audio"]["steps"]["longest"] == 0
    assert told["modalities"]["text"]["replaced"] == 7
    assert (told["unlabelled"], told["leak"]) == (1, {})
