"""The pickles of the MulT paper's code: mosi_data.pkl, mosei_senti_data.pkl, and the same with _noalign.

    {"train" | "valid" | "test": {"text": (N, T, 300), "audio": (N, T, 74), "vision": (N, T, 35), "labels": (N, 1, 1),
     "id": (N, 3) of video, start and end in s, or (N, 1), or absent}}

Sequences are padded with zeros, aligned ones to 50 steps.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from megace2_iot.datasets.finite import score_of
from megace2_iot.datasets.pickled import parts_of, text_of
from megace2_iot.datasets.sample import Dataset, Split
from megace2_iot.datasets.sequences import PACE, Row, blocks_of, dataset_of
from megace2_iot.features import MODALITIES

KEYS = {*MODALITIES, "labels"}


def is_mult(data: object) -> bool:
    """Whether `data` has this layout."""
    parts = parts_of(data)
    return bool(parts) and all(part.keys() >= KEYS for part in parts.values())


def load_mult(data: Mapping[str, Any], name: str) -> Dataset:
    """Samples of the layout above; a group is a video. Raises ValueError where blocks do not fit."""
    parts = parts_of(data)
    notes = [] if all("id" in part for part in parts.values()) else ["videos are not named: each sample is a group"]
    return dataset_of(name, (row for split, part in parts.items() for row in _rows(split, part)), notes)


def _rows(split: Split, part: Mapping[str, Any]) -> Iterator[Row]:
    labels = np.asarray(part["labels"])
    count = len(labels) if labels.ndim else 0
    if labels.size != count or labels.dtype.kind not in "fiu":
        found = f"{labels.shape} of {labels.dtype}"
        raise ValueError(f"{split}: labels are {found}, expected ({count}, 1, 1), one score each")
    blocks = blocks_of(part, count, split)
    ids = list(part.get("id", [()] * count))
    if len(ids) != count:
        raise ValueError(f"{split}: {len(ids)} ids for {count} labels")
    for i in range(count):
        group, start, seconds = _place(ids[i], f"{split}-{i}", i)
        name = group if group == f"{split}-{i}" else f"{group}-{split}-{i}"
        here = {m: blocks[m][i] for m in MODALITIES}
        yield Row(name, group, split, start, score_of(labels[i].item()), here, seconds=seconds)


def _place(id: object, unnamed: str, number: int) -> tuple[str, float, float | None]:
    """Video, start and length in s; a name such as `video[3]` is the fourth clip of its video."""
    parts = [text_of(part) for part in np.atleast_1d(np.asarray(id)).tolist()]
    if len(parts) >= 3:
        try:
            start, end = float(parts[1]), float(parts[2])
        except ValueError:
            return parts[0], number * PACE, None
        return parts[0], start, end - start if end > start else None
    if not parts:
        return unnamed, 0.0, None
    clip = re.fullmatch(r"(.+)\[(\d+)\]", parts[0])
    return (clip[1], int(clip[2]) * PACE, None) if clip else (parts[0], number * PACE, None)
