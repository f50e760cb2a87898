"""Splits: the official one, the paper's, and the one without a speaker on two sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from megace2_iot.datasets import Dataset, load
from megace2_iot.datasets.sample import SPLITS, Sample
from megace2_iot.datasets.splits import by_speaker, random, resplit, shared_groups

MakeSample = Callable[..., Sample]


@pytest.fixture
def dataset(plain_sample: MakeSample) -> Dataset:
    """A thousand samples of fifty speakers, of 5 to 35 samples each."""
    groups = [f"v{i}" for i in range(50) for _ in range(5 + (7 * i) % 31)]
    samples = tuple(plain_sample(i, group) for i, group in enumerate(groups))
    return Dataset("plain", {"text": 3}, samples, ("first",))


def sizes(dataset: Dataset) -> list[float]:
    return [len(dataset.split(split)) / len(dataset.samples) for split in SPLITS]


def test_random_is_70_10_20_of_the_samples(dataset: Dataset) -> None:
    """As the paper prints; the note says that speakers are on several sides."""
    split = random(dataset, 1)
    assert sizes(split) == pytest.approx([0.7, 0.1, 0.2], abs=0.002)
    assert [s.id for s in split.samples] == [s.id for s in dataset.samples]
    assert split.notes[1] == "split at random by sample, 70/10/20, seed 1"
    assert split.notes[2] == f"{len(shared_groups(split))} speakers are on several sides"


def test_no_speaker_is_on_two_sides(dataset: Dataset) -> None:
    """About the same parts, in whole groups."""
    split = by_speaker(dataset, 1)
    assert sizes(split) == pytest.approx([0.7, 0.1, 0.2], abs=0.04)
    assert not shared_groups(split)
    assert split.notes == ("first", "split by speaker, about 70/10/20, seed 1")
    with pytest.raises(ValueError, match="2 speakers cannot be dealt"):
        by_speaker(replace(dataset, samples=dataset.samples[:12]), 0)


@pytest.mark.parametrize("how", ["random", "speaker"])
def test_the_seed_decides(dataset: Dataset, how: str) -> None:
    """One seed one split, another seed another; the data set that was given is left alone."""
    one, two, other = ([s.split for s in resplit(dataset, how, seed).samples] for seed in (1, 1, 2))
    assert one == two != other
    assert {s.split for s in dataset.samples} == {"train"}


def test_official_changes_nothing(dataset: Dataset) -> None:
    """And a fourth way is refused."""
    assert resplit(dataset, "official", 3) is dataset
    with pytest.raises(ValueError, match="no split 'best': choose one of official, random, speaker"):
        resplit(dataset, "best")


def test_a_leak_stays_marked(dataset: Dataset) -> None:
    """Samples whose features saw their label may now be test rows: the note says what that is worth."""
    samples = tuple(replace(s, features_saw_label=i < 600) for i, s in enumerate(dataset.samples))
    split = resplit(replace(dataset, samples=samples), "speaker", 0)
    assert sum(s.features_saw_label for s in split.samples) == 600
    assert any(s.features_saw_label for s in split.split("test"))
    assert "this split proves nothing: the features of 600 samples saw their own labels" in split.notes[-1]


def test_mosi_split_again(mosi_path: Path, data_folder: Path) -> None:
    """Its features leak into any other split, its words do not."""
    assert "proves nothing" in load(mosi_path, split="random").notes[-2]
    words = load(mosi_path, split="speaker", vectors=data_folder / "mosi_glove300.npz")
    assert not any(s.features_saw_label for s in words.samples)
    assert not any("proves nothing" in note for note in words.notes)
