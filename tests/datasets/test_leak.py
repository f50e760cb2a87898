"""The probe for features that saw their labels, and the anchor that is fitted beside a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from megace2_iot.datasets import load
from megace2_iot.datasets.leak import mark_leak, probe_leak, without_leaks
from megace2_iot.datasets.ridge import anchors, summaries
from megace2_iot.datasets.sample import Sample
from megace2_iot.datasets.synthetic import synthetic
from megace2_iot.features import Features

MakeSample = Callable[..., Sample]


def test_honest_data_are_not_marked() -> None:
    """Train streams are no easier than test streams, and nothing is said about them."""
    corpus = synthetic(0, streams=8)
    probes = probe_leak(corpus)
    assert not any(probe.leaks for probe in probes.values())
    assert mark_leak(corpus, probes) is corpus


def test_planted_labels_are_found() -> None:
    """One modality whose train rows carry the label: found there, and only train rows are marked."""
    corpus = synthetic(0, streams=8)
    for sample in corpus.split("train"):
        sample.features["vision"].values[-1, 0] = 5.0 * (sample.score or 0.0)
    probes = probe_leak(corpus)
    assert {m for m, probe in probes.items() if probe.leaks} == {"vision"}
    marked = mark_leak(corpus, probes)
    assert {s.split for s in marked.samples if s.features_saw_label} == {"train"}
    assert "vision" in marked.notes[-1]


def test_too_little_to_judge() -> None:
    """A handful of samples proves nothing either way."""
    assert probe_leak(synthetic(0, streams=4, samples=5)) == {}


def test_the_leak_of_mosi(mosi_path: Path) -> None:
    """Text and vision of its train rows saw their labels, audio did not; loading marks them."""
    mosi = load(mosi_path)
    assert {m for m, probe in probe_leak(mosi).items() if probe.leaks} == {"text", "vision"}
    assert sum(s.features_saw_label for s in mosi.samples) == 1444


def test_the_anchor_of_mosi(mosi_path: Path) -> None:
    """Ridge regression from train to test reaches what the published simple readers do."""
    mosi = load(mosi_path)
    found = anchors(mosi.split("train"), mosi.split("test"), mosi.dims)
    assert 0.76 < found.ridge.acc2 < 0.81
    assert found.majority == pytest.approx(0.411, abs=1e-3)


def test_summaries_say_what_is_missing(plain_sample: MakeSample) -> None:
    """Last step, mean, presence; zeros for a modality that a sample lacks."""
    values = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]], np.float32)
    sample = replace(plain_sample(0, "a"), features={"text": Features(values)})
    row = summaries([sample], {"text": 3, "audio": 1}, ["text", "audio"])[0]
    assert row.tolist() == [3.0, 2.0, 1.0, 2.0, 2.0, 2.0, 1.0, 0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="labelled samples in both"):
        anchors([], [sample], {"text": 3, "audio": 1, "vision": 1})


def test_what_leaks_can_be_left_out() -> None:
    """The modality goes and is named; where all leak, nothing is taken away."""
    corpus = synthetic(0, streams=8)
    for sample in corpus.split("train"):
        sample.features["vision"].values[-1, 0] = 5.0 * (sample.score or 0.0)
    probes = probe_leak(corpus)
    kept = without_leaks(corpus, probes)
    assert kept.dims.keys() == {"text", "audio"}
    assert all(s.features.keys() == {"text", "audio"} for s in kept.samples)
    assert kept.notes[-1] == "vision left out: fitted on the labels of the train rows"
    alone = replace(corpus, dims={"vision": 10})
    assert without_leaks(alone, probes) is alone
    assert not any(probe.leaks for m, probe in probe_leak(kept).items())
