"""An .npz of sequences, as ICT-MMMO is stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from megace2_iot.datasets import load


@pytest.fixture
def columns() -> dict[str, np.ndarray]:
    """Twelve samples of twenty steps; the vision of the first begins with two steps of zeros."""
    rng = np.random.default_rng(0)
    made = {
        m: rng.standard_normal((12, 20, w)).astype(np.float32) for m, w in (("text", 6), ("audio", 4), ("vision", 3))
    }
    made["vision"][0, :2] = 0.0
    made["text"][1, 15:] = made["audio"][1, 15:] = made["vision"][1, 15:] = 0.0
    made["label"] = np.linspace(1, 5, 12).astype(np.float32)
    made["split"] = np.repeat(["train", "valid", "test"], 4)
    return made


def test_labels_from_one_to_five(tmp_path: Path, columns: dict[str, np.ndarray]) -> None:
    """They become scores from -3 to 3, and it is said; each sample is its own group."""
    path = tmp_path / "mmmo.npz"
    np.savez(path, **columns)
    dataset = load(path)
    scores = [s.score for s in dataset.samples]
    assert (scores[0], scores[-1]) == (-3.0, 3.0)
    assert dataset.notes[:2] == (
        "labels from 1 to 5 became scores from -3 to 3",
        "videos are not named: each sample is a group",
    )
    assert dict(dataset.dims) == {"text": 6, "audio": 4, "vision": 3}
    assert [len(s.features["vision"].values) for s in dataset.samples[:3]] == [20, 15, 20]


def test_scores_videos_and_times(tmp_path: Path, columns: dict[str, np.ndarray]) -> None:
    """`score` is taken as it is; without a split whole videos are dealt."""
    path = tmp_path / "own.npz"
    del columns["split"], columns["vision"]
    columns["score"] = np.linspace(-1, 2, 12)
    columns["video"] = np.array([f"v{i // 2}" for i in range(12)])
    columns["start"] = np.arange(12.0)[::-1]
    np.savez(path, **columns)
    dataset = load(path)
    assert [s.start for s in dataset.samples[:2]] == [10.0, 11.0]
    assert dataset.samples[1].score == -1.0
    assert dict(dataset.dims) == {"text": 6, "audio": 4}
    assert all(len({s.split for s in dataset.samples if s.group == f"v{i}"}) == 1 for i in range(6))
    assert "split by speaker" in dataset.notes[-1]


def test_what_does_not_fit_is_told(tmp_path: Path, columns: dict[str, np.ndarray]) -> None:
    """Blocks and columns of other lengths, unknown splits, scores of another scale."""
    path = tmp_path / "bad.npz"
    bad: list[tuple[dict[str, np.ndarray], str]] = [
        ({"audio": columns["audio"][:3]}, r"audio is \(3, 20, 4\)"),
        ({"audio": columns["audio"][0]}, r"audio is \(20, 4\)"),
        ({"split": np.array(["train"])}, "1 of split for 12 scores"),
        ({"split": np.repeat(["train", "dev"], 6)}, "unknown split dev"),
        ({"label": np.linspace(0, 100, 12)}, "a score of 9"),
    ]
    for change, reason in bad:
        np.savez(path, **{**columns, **change})
        with pytest.raises(ValueError, match=reason):
            load(path)


def test_the_real_file(data_folder: Path) -> None:
    """ICT-MMMO: 40 and 80 samples, no train rows, and none are made up."""
    mmmo = load(data_folder / "mmmo.npz")
    assert dict(mmmo.dims) == {"text": 300, "audio": 74, "vision": 36}
    assert [len(mmmo.split(split)) for split in ("train", "valid", "test")] == [0, 40, 80]
    assert "all rows, for none are train" in mmmo.notes[2]
    by_speaker = load(data_folder / "mmmo.npz", split="speaker")
    assert [len(by_speaker.split(split)) for split in ("train", "valid", "test")] == [84, 12, 24]
