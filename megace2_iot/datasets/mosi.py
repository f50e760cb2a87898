"""CMU-MOSI as one table of utterances: what people say in videos, with their text, audio and vision features."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from megace2_iot.datasets.sample import Dataset, Sample
from megace2_iot.features import MODALITIES, Features, Modality

Array = npt.NDArray[np.float32]
Table = Mapping[str, npt.NDArray[Any]]

KEYS = ("video", "segment", "start", "score", "split", *MODALITIES)
WINDOW = 10  # utterances a sample sees: the rated one, last, and up to nine before it in its video
LIMIT = 5.0  # standard deviations; raw features reach 30, and one such step would drown all others


def load_mosi(path: Path) -> Dataset:
    """Samples of the table at `path`, each an utterance with up to nine before it; a group is a video.

    Features are standardised by mean and spread of the train rows. A score of NaN becomes None. Raises
    FileNotFoundError where there is no file, ValueError where it is no such table or its features are not finite.
    """
    table = _read(path)
    blocks = {m: _standardised(table[m], table["split"] == "train") for m in MODALITIES}
    samples: list[Sample] = []
    for video in dict.fromkeys(table["video"].tolist()):
        rows = np.flatnonzero(table["video"] == video)
        rows = rows[np.argsort(table["start"][rows], kind="stable")]
        samples += [_sample(table, blocks, rows[max(0, i + 1 - WINDOW) : i + 1]) for i in range(len(rows))]
    dims: dict[Modality, int] = {m: block.shape[1] for m, block in blocks.items()}
    notes = (f"a sample is an utterance with up to {WINDOW - 1} before it; a step is an utterance",)
    return Dataset("mosi", dims, tuple(samples), notes)


def _read(path: Path) -> dict[str, npt.NDArray[Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"no data set at {path}")
    try:
        with np.load(path, allow_pickle=False) as file:
            table = {key: file[key] for key in file.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as an .npz without pickled objects: {error}") from error
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
    return table


def _standardised(block: npt.NDArray[Any], train: npt.NDArray[np.bool_]) -> Array:
    """(N, D) with mean 0 and spread 1 over the train rows, clipped; a constant column becomes 0."""
    fitted = block[train] if train.any() else block
    mean, spread = fitted.mean(axis=0), fitted.std(axis=0)
    scaled = (block - mean) / np.where(spread > 1e-6, spread, 1.0)
    clipped: Array = np.clip(scaled, -LIMIT, LIMIT).astype(np.float32)
    return clipped


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
