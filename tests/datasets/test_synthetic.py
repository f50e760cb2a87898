"""The built-in corpus keeps its promises: every part is needed, a model learns it, and sites disagree."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from megace2_iot.datasets.ridge import anchors, ridge, scores_of, summaries
from megace2_iot.datasets.synthetic import DIMS, synthetic
from megace2_iot.features import MODALITIES


def test_it_follows_from_its_seed() -> None:
    """The same seed makes the same corpus, another seed another."""
    one, two, other = (synthetic(seed, streams=4, samples=3) for seed in (1, 1, 2))
    values = [d.samples[5].features["audio"].values for d in (one, two, other)]
    np.testing.assert_array_equal(values[0], values[1])
    assert not np.array_equal(values[0][:5], values[2][:5])


def test_its_shape() -> None:
    """Sites, streams and splits as asked; lengths, rates and times of three streams on one clock."""
    corpus = synthetic(0, sites=3, streams=8, samples=10)
    assert len(corpus.samples) == 240
    assert len({s.group for s in corpus.split("test")}) == 6
    assert not {s.group for s in corpus.split("test")} & {s.group for s in corpus.split("train")}
    lengths = {m: [len(s.features[m].values) for s in corpus.samples] for m in MODALITIES}
    assert {m: (min(steps), max(steps)) for m, steps in lengths.items()} == {
        "text": (9, 13),
        "audio": (20, 30),
        "vision": (13, 19),
    }
    stream = [s.start for s in corpus.samples if s.group == "site1-stream03"]
    assert all(b - a > 4.0 for a, b in itertools.pairwise(stream))
    assert all(s.score is not None and -3.0 <= s.score <= 3.0 for s in corpus.samples)
    assert {m: s.shape[1] for m, s in ((m, corpus.samples[0].features[m].values) for m in MODALITIES)} == DIMS


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_linear_reader_needs_all_three(seed: int) -> None:
    """Ridge regression: no modality alone is enough, all three are."""
    corpus = synthetic(seed)
    train, test = corpus.split("train"), corpus.split("test")
    truth = scores_of(test)
    for modality in MODALITIES:
        known, asked = (summaries(part, corpus.dims, [modality]) for part in (train, test))
        assert ((ridge(known, scores_of(train), asked) >= 0) == (truth >= 0)).mean() < 0.70
    assert anchors(train, test, corpus.dims).ridge.acc2 > 0.77


def test_sites_rate_differently() -> None:
    """The same feelings get other scores elsewhere, by twice the leniency between the outermost sites."""
    corpus = synthetic(0, streams=40, samples=50, leniency=0.5)
    means = [np.mean([s.score for s in corpus.samples if s.site == site]) for site in (0, 1)]
    error = 1.8 * math.sqrt(2 / 2000)
    assert means[1] - means[0] == pytest.approx(1.0, abs=4 * error)
    assert "-0.50, +0.50" in corpus.notes[1]


def test_a_corpus_without_streams_is_refused() -> None:
    """Train and test need a stream each."""
    with pytest.raises(ValueError, match="2 streams a site"):
        synthetic(0, streams=1)
