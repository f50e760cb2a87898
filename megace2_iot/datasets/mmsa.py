"""The pickles of MMSA: aligned_50.pkl and unaligned_50.pkl of MOSI, MOSEI and CH-SIMS.

    {"train" | "valid" | "test": {"id": "video$_$clip", "raw_text", "text": (N, T, 768), "text_bert": (N, 3, T) of ids,
     mask and segments, "audio", "vision", "audio_lengths", "vision_lengths", "annotations", "classification_labels",
     "regression_labels": (N,)}}

The text is BERT's vectors; token ids alone are no features. What is padding is said by the mask and the lengths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from megace2_iot.datasets.finite import score_of
from megace2_iot.datasets.pickled import parts_of, text_of
from megace2_iot.datasets.sample import Dataset, Split
from megace2_iot.datasets.sequences import PACE, Row, blocks_of, dataset_of
from megace2_iot.features import MODALITIES, Modality

KEYS = {"id", "regression_labels"}


def is_mmsa(data: object) -> bool:
    """Whether `data` has this layout."""
    parts = parts_of(data)
    return bool(parts) and all(part.keys() >= KEYS for part in parts.values())


def load_mmsa(data: Mapping[str, Any], name: str) -> Dataset:
    """Samples of the layout above; a group is a video. Raises ValueError where blocks do not fit."""
    return dataset_of(name, (row for split, part in parts_of(data).items() for row in _rows(split, part)))


def _rows(split: Split, part: Mapping[str, Any]) -> Iterator[Row]:
    scores = np.asarray(part["regression_labels"], np.float64).reshape(-1)
    ids = [text_of(id) for id in part["id"]]
    if len(ids) != len(scores):
        raise ValueError(f"{split}: {len(ids)} ids for {len(scores)} labels")
    blocks = blocks_of(part, len(scores), split)
    lengths = _lengths(part, len(scores), {m: blocks[m].shape[1] for m in MODALITIES if m in blocks})
    for i, id in enumerate(ids):
        video, _, clip = id.rpartition("$_$")
        yield Row(
            id=id.replace("$_$", "-"),
            group=video or id,
            split=split,
            start=int(clip) * PACE if video and clip.isdecimal() else i * PACE,
            score=score_of(scores[i]),
            blocks={m: blocks[m][i] for m in MODALITIES if m in blocks},
            lengths={m: int(known[i]) for m, known in lengths.items()},
        )


def _lengths(part: Mapping[str, Any], count: int, steps: Mapping[Modality, int]) -> dict[Modality, Any]:
    """True lengths (N,) where the file says them; aligned ones keep the longest of their own extents."""
    found: dict[Modality, Any] = {}
    mask = np.asarray(part.get("text_bert", ()))
    if mask.ndim == 3 and mask.shape == (count, 3, steps.get("text")):
        found["text"] = mask[:, 1].sum(axis=1)
    if len(set(steps.values())) > 1:
        for modality in MODALITIES[1:]:
            known = np.asarray(part.get(f"{modality}_lengths", ()))
            if modality in steps and known.shape == (count,):
                found[modality] = np.clip(known, 1, steps[modality])
    return found
