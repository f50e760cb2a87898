"""An .npz of sequences: `text`, `audio` and `vision` as (N, T, D), any of them, with a score for each.

`score` (N,) lies between -3 and 3. `label` (N,) may instead count from 1 to 5, as ICT-MMMO's does; 1 becomes -3, 5
becomes 3. `split`, `video` and `start` (N,) may be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from megace2_iot.datasets.finite import score_of
from megace2_iot.datasets.sample import SPLITS, Dataset
from megace2_iot.datasets.sequences import PACE, Row, blocks_of, dataset_of
from megace2_iot.datasets.splits import by_speaker
from megace2_iot.features import MODALITIES

Table = Mapping[str, npt.NDArray[Any]]


def is_sequences(table: Table) -> bool:
    """Whether `table` has this layout."""
    found = [table[m].ndim for m in MODALITIES if m in table]
    return bool(found) and 3 in found and ("score" in table or "label" in table)


def load_sequences(table: Table, name: str) -> Dataset:
    """Samples of the layout above. Raises ValueError where blocks do not fit."""
    notes: list[str] = []
    scores = _scores(table, notes)
    count = len(scores)
    columns = {key: table[key].tolist() for key in ("split", "video", "start") if key in table}
    for key, column in columns.items():
        if len(column) != count:
            raise ValueError(f"{name}: {len(column)} of {key} for {count} scores")
    splits = columns.get("split", ["train"] * count)
    if unknown := set(splits) - set(SPLITS):
        raise ValueError(f"{name}: unknown split {', '.join(sorted(map(str, unknown)))}")
    videos = columns.get("video", [f"sample-{i}" for i in range(count)])
    if "video" not in columns:
        notes.append("videos are not named: each sample is a group")
    starts = columns.get("start", [i * PACE for i in range(count)])
    blocks = blocks_of(table, count, name)
    rows = (
        Row(
            id=f"{videos[i]}-{i}" if "video" in columns else str(videos[i]),
            group=str(videos[i]),
            split=splits[i],
            start=float(starts[i]),
            score=score_of(scores[i]),
            blocks={m: blocks[m][i] for m in MODALITIES if m in blocks},
        )
        for i in range(count)
    )
    dataset = dataset_of(name, rows, notes)
    return dataset if "split" in columns else by_speaker(dataset, 0)


def _scores(table: Table, notes: list[str]) -> npt.NDArray[np.float64]:
    """Scores (N,) on the scale from -3 to 3."""
    scores = np.asarray(table["score"] if "score" in table else table["label"], np.float64).reshape(-1)
    known = scores[np.isfinite(scores)]
    if "score" not in table and known.size and known.min() >= 1.0 and 3.0 < known.max() <= 5.0:
        notes.append("labels from 1 to 5 became scores from -3 to 3")
        return (scores - 3.0) * 1.5
    return scores
