"""Who learns and who judges: the split that data come with, the paper's random one, and the honest one by speaker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, get_args

import numpy as np

from megace2_iot.datasets.sample import Dataset, Split

How = Literal["official", "random", "speaker"]
WAYS: tuple[How, ...] = get_args(How)
PARTS: tuple[tuple[Split, float], ...] = (("train", 0.7), ("valid", 0.1), ("test", 0.2))  # the paper's 70/10/20


def resplit(dataset: Dataset, how: str, seed: int = 0) -> Dataset:
    """The data set split in one of the three ways. Raises ValueError for a fourth."""
    check_split(how)
    if how == "official":
        return dataset
    return random(dataset, seed) if how == "random" else by_speaker(dataset, seed)


def check_split(how: str) -> None:
    """Raises ValueError for a way that there is not, before hours are spent on reading."""
    if how not in WAYS:
        raise ValueError(f"no split {how!r}: choose one of {', '.join(WAYS)}")


def random(dataset: Dataset, seed: int) -> Dataset:
    """70/10/20 of the samples at random, as the paper does; most speakers are then on several sides."""
    splits = _dealt([1] * len(dataset.samples), seed)
    changed = _with(dataset, splits, f"split at random by sample, 70/10/20, seed {seed}")
    shared = len(shared_groups(changed))
    return replace(changed, notes=(*changed.notes, f"{shared:,} speakers are on several sides")) if shared else changed


def by_speaker(dataset: Dataset, seed: int) -> Dataset:
    """About 70/10/20 of the samples, no group on two sides. Raises ValueError for fewer than 3 groups."""
    groups = list(dict.fromkeys(sample.group for sample in dataset.samples))
    if len(groups) < len(PARTS):
        raise ValueError(f"{len(groups)} speakers cannot be dealt to train, valid and test")
    counts = dict.fromkeys(groups, 0)
    for sample in dataset.samples:
        counts[sample.group] += 1
    of_group = dict(zip(groups, _dealt(list(counts.values()), seed), strict=True))
    splits = [of_group[sample.group] for sample in dataset.samples]
    return _with(dataset, splits, f"split by speaker, about 70/10/20, seed {seed}")


def shared_groups(dataset: Dataset) -> set[str]:
    """Groups that are on several sides of the split."""
    sides: dict[str, Split] = {}
    return {s.group for s in dataset.samples if sides.setdefault(s.group, s.split) != s.split}


def _dealt(sizes: Sequence[int], seed: int) -> list[Split]:
    """A side for each of the sizes, in random order to whichever side lacks most of its part."""
    order = np.random.default_rng(seed).permutation(len(sizes))
    total, sides = sum(sizes), list[Split](["train"]) * len(sizes)
    have = dict.fromkeys((side for side, _ in PARTS), 0)
    for i in order:
        side = max(PARTS, key=lambda part: part[1] - have[part[0]] / total)[0]
        sides[i] = side
        have[side] += sizes[i]
    return sides


def _with(dataset: Dataset, splits: Sequence[Split], note: str) -> Dataset:
    samples = tuple(replace(s, split=split) for s, split in zip(dataset.samples, splits, strict=True))
    notes = [*dataset.notes, note]
    if saw := sum(sample.features_saw_label for sample in samples):
        notes.append(
            f"this split proves nothing: the features of {saw:,} samples saw their own labels, on whatever side they "
            "are now"
        )
    return replace(dataset, samples=samples, notes=tuple(notes))
