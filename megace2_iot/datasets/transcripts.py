"""A .csv of what was said, with scores: text only, as word vectors.

Columns: `text`, `label` or `score` (-3 to 3), and where known `video_id`, `clip_id` and `mode` or `split`. A clip
such as 82_7645 began 82.7645 s into its video (CMU-MOSEI); one such as 7 is the eighth of its video (MMSA).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from megace2_iot.datasets.finite import score_of
from megace2_iot.datasets.sample import SPLITS, Dataset, Sample, Split
from megace2_iot.datasets.sequences import PACE, WORD_RATE, in_order
from megace2_iot.datasets.splits import by_speaker
from megace2_iot.datasets.words import Hashed, Spoken, Vectors, read_vectors, words_of


def load_transcripts(path: Path, vectors: Path | None = None) -> Dataset:
    """Samples of the file at `path`, their words as `vectors` or hashed. Raises ValueError where it is no such file."""
    records = list(_records(path))
    spoken = [words_of(record["text"]) for record in records]
    looked_up: Vectors = read_vectors(vectors, {word for words in spoken for word in words}) if vectors else Hashed()
    names = records[0].keys()
    notes = [looked_up.origin, *([] if "video_id" in names else ["videos are not named: each sample is a group"])]
    samples = [
        _sample(i, record, looked_up, words) for i, (record, words) in enumerate(zip(records, spoken, strict=True))
    ]
    dataset = _dataset(path.stem, samples, looked_up.dim, notes)
    return dataset if {"mode", "split"} & names else by_speaker(dataset, 0)


def _records(path: Path) -> Iterator[Mapping[str, str]]:
    """The rows of the file, by lower-case column; the csv module bounds a field by 131,072 characters."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        try:
            reader = csv.DictReader(file, strict=True)
            columns = [name.strip().lower() for name in reader.fieldnames or ()]
            if "text" not in columns or not {"label", "score"} & set(columns):
                raise ValueError(f"it has the columns {', '.join(columns) or 'of nothing'}, and needs text and label")
            reader.fieldnames = columns
            empty = True
            for record in reader:
                if None in record or None in record.values():
                    raise ValueError(f"line {reader.line_num} has not {len(columns)} fields")
                empty = False
                yield record
        except (ValueError, csv.Error) as error:
            raise ValueError(f"{path} cannot be read as a .csv of text with scores: {error}") from None
    if empty:
        raise ValueError(f"{path} holds no text")


def _dataset(name: str, samples: Sequence[Sample], dim: int, notes: Sequence[str]) -> Dataset:
    """Samples that hold words, groups together and each in order of time."""
    kept = [sample for sample in samples if sample.features]
    if not kept:
        raise ValueError(f"{name} holds no features")
    without = len(samples) - len(kept)
    told = [*notes, *([f"{without:,} samples without any features were left out"] if without else [])]
    return Dataset(name, {"text": dim}, in_order(kept), tuple(told))


def _sample(number: int, record: Mapping[str, str], vectors: Vectors, words: list[str]) -> Sample:
    written = record.get("score", record.get("label", "")).strip()
    try:
        score = score_of(float(written)) if written else None
        split = _split(record)
    except ValueError as error:
        raise ValueError(f"row {number + 1}: {error}") from None
    video, clip = record.get("video_id", ""), record.get("clip_id", str(number))
    group = video or f"row-{number}"
    id = f"{group}-{clip}" if video else group
    start = _start(clip, number)
    text = Spoken(vectors, vectors.rows(words), WORD_RATE, start)
    return Sample(id, group, split, start, score, {"text": text} if text.values.any() else {})


def _split(record: Mapping[str, str]) -> Split:
    written = record.get("split", record.get("mode", "train")).strip().lower()
    split = next((split for split in SPLITS if split == written), None)
    if split is None:
        raise ValueError(f"unknown split {written!r}")
    return split


def _start(clip: str, number: int) -> float:
    if re.fullmatch(r"\d+_\d+", clip):
        return float(clip.replace("_", "."))
    return int(clip) * PACE if clip.isdecimal() else number * PACE
