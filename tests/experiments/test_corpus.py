"""Which data an experiment learns from, and how they are split and dealt."""

from __future__ import annotations

from pathlib import Path

import pytest

from megace2_iot.cli.experiments.corpus import by_time, make_corpus, read_dataset
from megace2_iot.cli.experiments.request import Request
from megace2_iot.datasets.synthetic import synthetic


def test_the_later_part_of_each_stream_tests() -> None:
    """Nobody is tested on what came before what was trained on, and everybody is on both sides."""
    dataset = by_time(synthetic(0, sites=2, streams=2, samples=10))
    for group in {sample.group for sample in dataset.samples}:
        own = [sample for sample in dataset.samples if sample.group == group]
        train, test = ([s.start for s in own if s.split == side] for side in ("train", "test"))
        assert (len(train), len(test)) == (7, 3)
        assert max(train) < min(test)
    assert "split by time" in dataset.notes[-1]


def test_held_out_samples_know_who_they_are() -> None:
    """Each of an edge's has its row, and none is on two edges."""
    dataset = synthetic(0, sites=2, samples=10)
    corpus = make_corpus(dataset, 0, edges=2, devices=2)
    assert all(len(edge.rows) == len(edge.held_out) for edge in corpus.edges)
    ids = [row.id for edge in corpus.edges for row in edge.rows]
    assert sorted(ids) == sorted(sample.id for sample in dataset.split("test"))


def test_a_site_is_the_scales_unless_asked_for() -> None:
    """And what was asked for is in the settings that name a result."""
    plain, asked = Request(Path()), Request(Path(), edges=5, split="time", vectors=Path("glove.npz"))
    assert (asked.scale.edges, asked.scale.devices) == (5, plain.scale.devices)
    assert (plain.at_site(2, 4).scale.edges, asked.at_site(2, 4).scale.edges) == (2, 5)
    settings = asked.settings()
    assert (settings["fleet"]["edges"], settings["split"], settings["vectors"]) == (5, "time", "glove.npz")
    with pytest.raises(ValueError, match="--split tomorrow: choose one of official, random, speaker, time"):
        Request(Path(), split="tomorrow")


def test_only_the_built_in_corpus_differs_between_seeds() -> None:
    """As many sites as edges."""
    first, second = (read_dataset(Request(Path(), quick=True, edges=4), seed) for seed in (0, 1))
    assert {sample.site for sample in first.samples} == {0, 1, 2, 3}
    assert first.samples[0].score != second.samples[0].score
