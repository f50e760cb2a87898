"""The pickles of MMSA, in their exact layouts."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from megace2_iot.datasets import load
from megace2_iot.datasets.sample import Dataset

COUNTS = {"train": 5, "valid": 2, "test": 3}
ALIGNED, UNALIGNED = {"text": 50, "audio": 50, "vision": 50}, {"text": 50, "audio": 375, "vision": 500}
WIDTHS = {"text": 768, "audio": 5, "vision": 20}
WORDS = 12


def layout(steps: dict[str, int] = UNALIGNED) -> dict[str, dict[str, Any]]:
    """Three splits, padded behind; BERT's vectors of the padding are not zero."""
    rng = np.random.default_rng(0)
    made: dict[str, dict[str, Any]] = {}
    for split, count in COUNTS.items():
        blocks = {m: rng.standard_normal((count, length, WIDTHS[m])) for m, length in steps.items()}
        for modality in ("audio", "vision"):
            blocks[modality][:, WORDS if steps is ALIGNED else steps[modality] // 5 :] = 0.0
        bert = np.zeros((count, 3, 50), np.float32)
        bert[:, 1, :WORDS] = 1.0
        made[split] = {
            "raw_text": np.array(["a good film"] * count),
            **blocks,
            "id": [f"{split}video$_${i}" for i in reversed(range(count))],
            "text_bert": bert,
            "annotations": ["Positive"] * count,
            "classification_labels": np.ones(count),
            "regression_labels": rng.uniform(-3, 3, count),
        }
        if steps is UNALIGNED:
            made[split] |= {f"{m}_lengths": [steps[m] // 5] * count for m in ("audio", "vision")}
    return made


def read(folder: Path, data: Any) -> Dataset:
    path = folder / "unaligned_50.pkl"
    path.write_bytes(pickle.dumps(data))
    return load(path)


def test_unaligned(tmp_path: Path) -> None:
    """Lengths by the mask and the lists of lengths, videos and clips by the ids, clips in order."""
    data = layout()
    dataset = read(tmp_path, data)
    assert dict(dataset.dims) == WIDTHS
    assert {split: len(dataset.split(split)) for split in COUNTS} == COUNTS  # type: ignore[arg-type]
    first = dataset.samples[0]
    assert (first.id, first.group, first.start) == ("trainvideo-0", "trainvideo", 0.0)
    assert first.score == pytest.approx(data["train"]["regression_labels"][-1])
    assert {m: len(f.values) for m, f in first.features.items()} == {"text": 12, "audio": 75, "vision": 100}
    np.testing.assert_allclose(first.features["text"].values, data["train"]["text"][-1, :12], rtol=1e-6)


def test_aligned(tmp_path: Path) -> None:
    """One length for all three, though there are no lists of lengths."""
    lengths = {m: len(f.values) for m, f in read(tmp_path, layout(ALIGNED)).samples[0].features.items()}
    assert lengths == {"text": 12, "audio": 12, "vision": 12}


def test_the_policy_and_odd_ids(tmp_path: Path) -> None:
    """-inf in the audio, NaN for a label, ids without a clip."""
    data = layout()
    data["train"]["audio"][0, 3] = -np.inf
    data["train"]["regression_labels"][1] = np.nan
    data["test"]["id"] = ["one", "two", "three"]
    dataset = read(tmp_path, data)
    assert dataset.replaced == {"audio": 5}
    assert sum(s.score is None for s in dataset.samples) == 1
    assert {s.group for s in dataset.split("test")} == {"one", "two", "three"}


def test_without_text_features(tmp_path: Path) -> None:
    """Token ids alone are no features: audio and vision are read, and text is missing."""
    data = layout()
    for part in data.values():
        del part["text"]
    assert dict(read(tmp_path, data).dims) == {"audio": 5, "vision": 20}


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    """As many ids as labels, and numbers in blocks."""
    data = layout()
    data["train"]["id"] = data["train"]["id"][:-1]
    with pytest.raises(ValueError, match="train: 4 ids for 5 labels"):
        read(tmp_path, data)
    data = layout()
    data["valid"]["vision"] = np.zeros((2, 20))
    with pytest.raises(ValueError, match=r"valid: vision is \(2, 20\)"):
        read(tmp_path, data)
    data = layout()
    data["train"]["regression_labels"] = np.array(["a"] * 5)
    with pytest.raises(ValueError, match=r"unaligned_50\.pkl: could not convert"):
        read(tmp_path, data)
