"""CMU-MOSI as one table of utterances: what people say in videos, with their text, audio and vision features.

A table with a `sentence` column can be read with word vectors instead: then text is the sentence word by word, a
sample is one utterance, and audio and vision are one step each. The words saw no labels, whatever the features did.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from megace2_iot.datasets.finite import score_of
from megace2_iot.datasets.npz import read_npz
from megace2_iot.datasets.sample import Dataset, Sample, Scaling
from megace2_iot.datasets.scaling import fitted, scaled
from megace2_iot.datasets.sequences import WORD_RATE
from megace2_iot.datasets.words import Spoken, read_vectors, words_of
from megace2_iot.features import MODALITIES, Features, Modality

Array = npt.NDArray[np.float32]
Table = Mapping[str, npt.NDArray[Any]]

KEYS = ("video", "segment", "start", "score", "split", *MODALITIES)
WINDOW = 10  # utterances a sample sees: the rated one, last, and up to nine before it in its video


def load_mosi(path: Path) -> Dataset:
    """Samples of the table at `path`; see `samples_of_table`. Raises FileNotFoundError where there is no file."""
    return samples_of_table(read_npz(path), path)


def samples_of_table(table: Table, path: Path) -> Dataset:
    """Samples of a table, each an utterance with up to nine before it; a group is a video.

    Features are standardised by mean and spread of the train rows. A score of NaN becomes None. Raises ValueError
    where it is no such table or its features are not finite.
    """
    _check(table, path)
    scaling = {m: _scaling(table[m], table["split"] == "train") for m in MODALITIES}
    blocks = {m: scaled(table[m], by) for m, by in scaling.items()}
    samples = tuple(
        _sample(table, blocks, rows[max(0, i + 1 - WINDOW) : i + 1])
        for rows in _videos(table)
        for i in range(len(rows))
    )
    dims: dict[Modality, int] = {m: block.shape[1] for m, block in blocks.items()}
    notes = (f"a sample is an utterance with up to {WINDOW - 1} before it; a step is an utterance",)
    return Dataset("mosi", dims, samples, notes, scaling=scaling)


def sentences_of_table(table: Table, path: Path, vectors: Path) -> Dataset:
    """Samples of a table with `sentence`, each one utterance: its words as vectors (T, D), audio and vision (1, D).

    Raises ValueError as above, and where the table has no sentences.
    """
    if "sentence" not in table:
        raise ValueError(f"{path} has no column sentence: word vectors are of no use to it")
    _check(table, path)
    if table["sentence"].shape != table["video"].shape:
        raise ValueError(f"{path}: sentence has shape {table['sentence'].shape}, expected {table['video'].shape}")
    spoken = [words_of(sentence) for sentence in table["sentence"].tolist()]
    glove = read_vectors(vectors, {word for words in spoken for word in words})
    train = table["split"] == "train"
    scaling: dict[Modality, Scaling] = {m: _scaling(table[m], train) for m in MODALITIES if m != "text"}
    others: dict[Modality, Array] = {m: scaled(table[m], by) for m, by in scaling.items()}
    samples = [
        _sentence(table, row, Spoken(glove, glove.rows(spoken[row]), WORD_RATE, float(table["start"][row])), others)
        for rows in _videos(table)
        for row in rows.tolist()
    ]
    dims: dict[Modality, int] = {"text": glove.dim, **{m: block.shape[1] for m, block in others.items()}}
    notes = ("a sample is an utterance; a step of text is a word", glove.origin)
    return Dataset("mosi-words", dims, tuple(samples), notes, scaling=scaling)


def _check(table: Table, path: Path) -> None:
    if missing := [key for key in KEYS if key not in table]:
        raise ValueError(f"{path} lacks {', '.join(missing)}: it holds {', '.join(table) or 'nothing'}")
    count = len(table["video"])
    for key in KEYS:
        shape, dimensions = table[key].shape, 2 if key in MODALITIES else 1
        if len(shape) != dimensions or shape[0] != count:
            expected = f"({count}, D)" if dimensions == 2 else f"({count},)"
            raise ValueError(f"{path}: {key} has shape {shape}, expected {expected}")
    for modality in MODALITIES:
        if not np.isfinite(table[modality]).all():
            raise ValueError(f"{path}: {modality} holds values that are not finite numbers")
    if unknown := set(table["split"].tolist()) - {"train", "valid", "test"}:
        raise ValueError(f"{path}: unknown split {', '.join(sorted(map(str, unknown)))}")


def _videos(table: Table) -> Iterator[npt.NDArray[np.int64]]:
    """Rows of each video in order of time."""
    for video in dict.fromkeys(table["video"].tolist()):
        rows = np.flatnonzero(table["video"] == video)
        yield rows[np.argsort(table["start"][rows], kind="stable")]


def _scaling(block: npt.NDArray[Any], train: npt.NDArray[np.bool_]) -> Scaling:
    """By the train rows where there are any."""
    return fitted([block[train] if train.any() else block])


def _sample(table: Table, blocks: Mapping[Modality, Array], rows: npt.NDArray[np.int64]) -> Sample:
    """The sample of the last of `rows`, which are consecutive utterances of one video."""
    row = rows[-1]
    start, score, video = float(table["start"][row]), float(table["score"][row]), str(table["video"][row])
    first = float(table["start"][rows[0]])
    rate = (len(rows) - 1) / max(start - first, 1.0) if len(rows) > 1 else 1.0  # utterances a second, on average
    return Sample(
        id=f"{video}-{int(table['segment'][row])}",
        group=video,
        split=table["split"][row].item(),
        start=start,
        score=None if np.isnan(score) else score,
        features={m: Features(blocks[m][rows], rate, first) for m in MODALITIES},
    )


def _sentence(table: Table, row: int, words: Spoken, others: Mapping[Modality, Array]) -> Sample:
    """The sample of one utterance alone."""
    start, score, video = float(table["start"][row]), score_of(table["score"][row]), str(table["video"][row])
    features: dict[Modality, Features] = {"text": words} if len(words.values) else {}
    features |= {m: Features(block[row : row + 1], 1.0, start) for m, block in others.items()}
    id = f"{video}-{int(table['segment'][row])}"
    return Sample(id, video, table["split"][row].item(), start, score, features)
