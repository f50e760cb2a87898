"""The pickles of the MulT paper, in their exact layouts."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megace2_iot.datasets import load
from megace2_iot.datasets.sample import Dataset

COUNTS = {"train": 6, "valid": 2, "test": 3}
ALIGNED, UNALIGNED = {"text": 50, "audio": 50, "vision": 50}, {"text": 50, "audio": 375, "vision": 500}
WIDTHS = {"text": 300, "audio": 74, "vision": 35}


def layout(steps: dict[str, int] = ALIGNED) -> dict[str, dict[str, Any]]:
    """Three splits, padded in front; ids are bytes of video, start and end, as mosi_data.pkl has them."""
    rng = np.random.default_rng(0)
    made: dict[str, dict[str, Any]] = {}
    for split, count in COUNTS.items():
        part: dict[str, Any] = {"labels": rng.uniform(-3, 3, (count, 1, 1)).astype(np.float32)}
        for modality, length in steps.items():
            block = rng.standard_normal((count, length, WIDTHS[modality]))
            block[:, : length // 5] = 0.0
            part[modality] = block.astype(np.float32 if modality == "text" else np.float64)
        ids = [(f"{split}-video{i % 2}", f"{10.0 * i}", f"{10.0 * i + 8.0}") for i in range(count)]
        part["id"] = np.array(ids, dtype="S20")
        made[split] = part
    return made


def read(folder: Path, data: Any) -> Dataset:
    path = folder / "mosi_data.pkl"
    path.write_bytes(pickle.dumps(data, protocol=2))
    return load(path)


def test_aligned(tmp_path: Path) -> None:
    """Splits, videos, times, scores and widths as they were; ten steps of padding are gone everywhere."""
    data = layout()
    dataset = read(tmp_path, data)
    assert dict(dataset.dims) == WIDTHS
    assert {split: len(dataset.split(split)) for split in COUNTS} == COUNTS  # type: ignore[arg-type]
    sample = next(s for s in dataset.samples if s.start == 20.0 and s.split == "train")
    assert sample.group == "train-video0"
    assert sample.score == pytest.approx(data["train"]["labels"][2].item())
    assert {m: len(f.values) for m, f in sample.features.items()} == dict.fromkeys(WIDTHS, 40)
    assert sample.features["text"].rate == 5.0
    np.testing.assert_array_equal(sample.features["text"].values, data["train"]["text"][2, 10:])


def test_unaligned(tmp_path: Path) -> None:
    """Each modality has its own length and, over the same seconds, its own rate."""
    sample = read(tmp_path, layout(UNALIGNED)).samples[0]
    assert {m: len(f.values) for m, f in sample.features.items()} == {"text": 40, "audio": 300, "vision": 400}
    assert {m: f.rate for m, f in sample.features.items()} == {"text": 5.0, "audio": 37.5, "vision": 50.0}


def test_the_infinities_of_its_audio(tmp_path: Path) -> None:
    """-inf becomes 0 and is counted; a sample whose audio is nothing else has none."""
    data = layout()
    data["train"]["audio"][0, 20, :5] = -np.inf
    data["test"]["audio"][1] = np.nan
    dataset = read(tmp_path, data)
    assert "audio: 5 values of 1 samples were not finite and became 0" in dataset.notes
    assert dataset.replaced == {"audio": 5}
    assert ["audio" in s.features for s in dataset.samples].count(False) == 1
    assert all(np.isfinite(f.values).all() for s in dataset.samples for f in s.features.values())


def test_other_ids(tmp_path: Path) -> None:
    """One name a sample, clips of a video in brackets, objects, or none at all."""
    data = layout()
    data["train"]["id"] = np.array([[f"abc[{i}]"] for i in range(6)], dtype=object)
    data["valid"]["id"] = np.array([["x"], ["y"]])
    del data["test"]["id"]
    dataset = read(tmp_path, data)
    assert {s.group for s in dataset.split("train")} == {"abc"}
    assert {s.group for s in dataset.split("valid")} == {"x", "y"}
    assert len({s.group for s in dataset.split("test")}) == 3
    assert "videos are not named" in dataset.notes[0]
    assert len({s.id for s in dataset.samples}) == len(dataset.samples)


def test_a_label_of_nan_is_no_score(tmp_path: Path) -> None:
    """Such a sample can be answered, not learnt."""
    data = layout()
    data["test"]["labels"][0] = np.nan
    assert [s.score is None for s in read(tmp_path, data).samples].count(True) == 1


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    """Emotions, other scales, rows that are missing, and pickles of something else."""
    iemocap = layout()
    iemocap["train"]["labels"] = np.zeros((6, 4, 2))
    with pytest.raises(ValueError, match=r"labels are \(6, 4, 2\) of float64, expected \(6, 1, 1\)"):
        read(tmp_path, iemocap)
    scaled = layout()
    scaled["train"]["labels"][0] = 5.0
    with pytest.raises(ValueError, match="a score of 5"):
        read(tmp_path, scaled)
    short = layout()
    short["valid"]["audio"] = short["valid"]["audio"][:1]
    with pytest.raises(ValueError, match=r"mosi_data\.pkl: valid: audio is \(1, 50, 74\)"):
        read(tmp_path, short)
    with pytest.raises(ValueError, match="is a pickle of a, b, neither MulT's nor MMSA's"):
        read(tmp_path, {"a": 1, "b": 2})
    with pytest.raises(ValueError, match="is a pickle of list"):
        read(tmp_path, [1])
