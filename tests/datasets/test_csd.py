"""Computational sequences of the CMU SDK: HDF5 files in its exact layout."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from megace2_iot.datasets import load


def write_csd(path: Path, name: str, data: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """What the SDK's own writer makes: <name>/data/<segment>/{features, intervals} and <name>/metadata."""
    with h5py.File(path, "w") as file:
        root = file.create_group(name)
        segments = root.create_group("data")
        for segment, (features, intervals) in data.items():
            group = segments.create_group(segment)
            group.create_dataset("features", data=features, compression="gzip", compression_opts=9)
            group.create_dataset("intervals", data=intervals, compression="gzip", compression_opts=9)
        metadata = root.create_group("metadata")
        metadata.create_dataset("root name", (1,), dtype=h5py.special_dtype(vlen=str))
        metadata["root name"][0] = json.dumps(name)


def stream(rate: float, width: int, seconds: float = 20.0) -> tuple[np.ndarray, np.ndarray]:
    """Features that say their own time, and their intervals."""
    starts = np.arange(0, seconds, 1 / rate)
    return np.tile(starts[:, None] + 1.0, width), np.stack([starts, starts + 1 / rate], axis=1)


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    """Five videos, each with two rated intervals, as CMU-MOSI's files are named."""
    videos = [f"video{i}" for i in range(5)]
    labels = (np.array([[2.4], [-0.8]]), np.array([[2.0, 7.0], [10.0, 14.0]]))
    write_csd(tmp_path / "CMU_MOSI_Opinion_Labels.csd", "Opinion Segment Labels", dict.fromkeys(videos, labels))
    words, covarep, facet = stream(2.0, 300), stream(100.0, 74), stream(30.0, 47)
    covarep[0][300, 4] = -np.inf
    write_csd(tmp_path / "CMU_MOSI_TimestampedWordVectors.csd", "glove_vectors", dict.fromkeys(videos, words))
    write_csd(tmp_path / "CMU_MOSI_COVAREP.csd", "COVAREP", dict.fromkeys(videos, covarep))
    write_csd(tmp_path / "CMU_MOSI_Visual_Facet_42.csd", "FACET_4.2", dict.fromkeys(videos[:4], facet))
    write_csd(tmp_path / "CMU_MOSI_Visual_OpenFace_2.csd", "OpenFace_2", dict.fromkeys(videos, facet))
    return tmp_path


def test_a_folder_of_exports(exports: Path) -> None:
    """A sample for each rated interval, with the steps whose middle lies in it; the first of two visions is taken."""
    dataset = load(exports)
    assert dict(dataset.dims) == {"text": 300, "audio": 74, "vision": 47}
    assert len(dataset.samples) == 10
    one, two = (s for s in dataset.samples if s.group == "video0")
    assert [(s.id, s.start, s.score) for s in (one, two)] == [("video0-0", 2.0, 2.4), ("video0-1", 10.0, -0.8)]
    assert {m: len(f.values) for m, f in one.features.items()} == {"text": 10, "audio": 500, "vision": 150}
    assert one.features["text"].values[:, 0].tolist() == [3.0 + i / 2 for i in range(10)]
    assert one.features["audio"].rate == 100.0
    notes = "\n".join(dataset.notes)
    assert "left out: cmu_mosi_visual_openface_2" in notes
    assert "audio: 5 values of 5 samples were not finite" in notes


def test_videos_are_dealt_whole(exports: Path) -> None:
    """The files carry no split; a video that lacks a sequence lacks that modality."""
    dataset = load(exports)
    sides = {s.group: s.split for s in dataset.samples}
    assert all(sides[s.group] == s.split for s in dataset.samples)
    assert set(sides.values()) == {"train", "valid", "test"}
    assert ["vision" in s.features for s in dataset.samples].count(False) == 2


def test_exports_that_the_sdk_aligned(tmp_path: Path) -> None:
    """Segments are video[3]: each is one sample, taken whole; MOSEI's first label of seven is the sentiment."""
    segments = [f"v{i}[{j}]" for i in range(4) for j in range(3)]
    labels = {s: (np.array([[1.5, 0, 0, 1, 0, 0, 0]]), np.array([[5.0, 9.0]])) for s in segments}
    write_csd(tmp_path / "All Labels.csd", "All Labels", labels)
    words = {s: (np.ones((6, 300)), np.tile([[5.0, 6.0]], (6, 1))) for s in segments}
    write_csd(tmp_path / "glove_vectors.csd", "glove_vectors", words)
    dataset = load(tmp_path)
    assert {s.group for s in dataset.samples} == {"v0", "v1", "v2", "v3"}
    assert dataset.samples[0].id == "v0-0"
    assert {len(s.features["text"].values) for s in dataset.samples} == {6}
    assert {s.score for s in dataset.samples} == {1.5}


def test_what_is_wrong_with_a_folder_is_said(exports: Path) -> None:
    """No labels, damaged files, shapes that do not fit, and one file where the folder is meant."""
    labels = exports / "CMU_MOSI_Opinion_Labels.csd"
    with pytest.raises(ValueError, match="give the folder that holds it"):
        load(labels)
    write_csd(exports / "CMU_MOSI_COVAREP.csd", "COVAREP", {"video0": (np.ones((3, 2)), np.ones((2, 2)))})
    with pytest.raises(ValueError, match=r"features \(3, 2\) of float64 with intervals \(2, 2\)"):
        load(exports)
    labels.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(ValueError, match="cannot be read as a computational sequence"):
        load(exports)
    labels.unlink()
    (exports / "CMU_MOSI_COVAREP.csd").unlink()
    with pytest.raises(ValueError, match="needed are one sequence of labels"):
        load(exports)


def test_a_declared_size_is_checked_before_it_is_read(exports: Path) -> None:
    """HDF5 stores nothing for what was never written: a few bytes may declare a tebibyte."""
    with h5py.File(exports / "CMU_MOSI_COVAREP.csd", "a") as file:
        group = file["COVAREP/data/video0"]
        del group["features"], group["intervals"]
        group.create_dataset("features", (1 << 31, 74), "f4", chunks=(1024, 74))
        group.create_dataset("intervals", (1 << 31, 2), "f8", chunks=(1024, 2))
    with pytest.raises(ValueError, match="more than the 1,073,741,824 that are read"):
        load(exports)
