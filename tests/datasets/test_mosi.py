"""The table of utterances: windows over a video, and errors that say what is wrong with a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from megace2_iot.datasets import load, npz
from megace2_iot.datasets.mosi import load_mosi

Table = tuple[Path, dict[str, np.ndarray]]


def test_a_sample_is_an_utterance_and_up_to_nine_before_it(table: Table) -> None:
    """Windows stay inside their video and follow time, not the file; the rated utterance comes last."""
    path, columns = table
    np.savez(path, **columns)
    samples = load_mosi(path).split("train")
    assert [len(s.features["text"].values) for s in samples] == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 10]
    assert [s.start for s in samples] == sorted(s.start for s in samples)
    assert samples[0].id == "a-11"
    last, before = samples[5].features["audio"].values, samples[4].features["audio"].values
    np.testing.assert_array_equal(last[:-1], before)
    assert samples[5].group == "a"
    assert samples[5].features["text"].rate == 1.0


def test_features_are_standardised_by_the_train_rows(table: Table) -> None:
    """Mean 0 and spread 1 over train; test rows are scaled alike, and a wild value is clipped."""
    path, columns = table
    columns["audio"] = 50.0 + 9.0 * columns["audio"]
    columns["vision"][20] = 1e6
    np.savez(path, **columns)
    train = np.array([s.features["audio"].values[-1] for s in load_mosi(path).split("train")])
    np.testing.assert_allclose(train.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(train.std(axis=0), 1.0, atol=1e-4)
    assert max(np.abs(s.features["vision"].values).max() for s in load_mosi(path).samples) == 5.0


def test_a_score_of_nan_is_no_score(table: Table) -> None:
    """An unrated utterance can be answered, not learnt."""
    path, columns = table
    columns["score"][11] = np.nan
    np.savez(path, **columns)
    assert [s.score is None for s in load_mosi(path).samples].count(True) == 1
    assert load_mosi(path).samples[0].score is None


def test_a_file_that_unpacks_to_more_than_the_memory_is_not_unpacked(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A megabyte may be a gigabyte of zeros."""
    path, columns = table
    np.savez_compressed(path, **columns | {"text": np.zeros((24, 4096))})
    monkeypatch.setattr(npz, "memory", lambda: 24 * 4096 * 8)
    with pytest.raises(ValueError, match=r"unpacks to [\d,]+ bytes, more than this machine's memory"):
        load_mosi(path)


def test_what_is_wrong_with_a_file_is_said(table: Table) -> None:
    """Missing file, missing keys, wrong shapes, values that are no numbers, splits that nobody knows."""
    path, columns = table
    with pytest.raises(FileNotFoundError, match="no data set at"):
        load_mosi(path)
    path.write_bytes(b"not a table")
    with pytest.raises(ValueError, match=r"cannot be read as an \.npz"):
        load_mosi(path)
    bad: list[tuple[dict[str, np.ndarray | None], str]] = [
        ({"vision": None, "start": None}, "lacks start, vision"),
        ({"text": columns["text"][:5]}, r"text has shape \(5, 4\), expected \(24, D\)"),
        ({"score": columns["text"]}, r"score has shape \(24, 4\), expected \(24,\)"),
        ({"audio": np.full((24, 3), np.nan, np.float32)}, "audio holds values that are not finite"),
        ({"split": np.repeat(["train", "dev"], 12)}, "unknown split dev"),
        ({"video": np.array([{}] * 24, dtype=object)}, "pickled"),
    ]
    for change, reason in bad:
        np.savez(path, **{k: v for k, v in {**columns, **change}.items() if v is not None})
        with pytest.raises(ValueError, match=reason):
            load_mosi(path)


def test_the_real_table(mosi_path: Path) -> None:
    """CMU-MOSI: 1,447 and 304 utterances of 62 and 15 videos, three of them unrated."""
    mosi = load_mosi(mosi_path)
    assert dict(mosi.dims) == {"text": 100, "audio": 73, "vision": 100}
    assert (len(mosi.split("train")), len(mosi.split("test"))) == (1447, 304)
    assert [len({s.group for s in mosi.split(part)}) for part in ("train", "test")] == [62, 15]
    assert sum(s.score is None for s in mosi.samples) == 3
    assert len({s.id for s in mosi.samples}) == len(mosi.samples)


def test_load_chooses_by_layout_or_says_what_it_understands(table: Table, tmp_path: Path) -> None:
    """A name, a file, or the folder that holds it."""
    path, columns = table
    np.savez(path, **columns)
    assert load("synthetic").name == "synthetic"
    assert load(path).name == load(tmp_path).name == "mosi"
    with pytest.raises(FileNotFoundError, match="understood is 'synthetic'"):
        load("nowhere")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ValueError, match="is not understood"):
        load(tmp_path / "notes.txt")
    np.savez(tmp_path / "second.npz", **columns)
    with pytest.raises(ValueError, match=r"holds second\.npz, table\.npz"):
        load(tmp_path)


def test_sentences_with_word_vectors(table: Table, tmp_path: Path) -> None:
    """Text is word by word, audio and vision are the utterance's one step; each utterance is alone."""
    path, columns = table
    vectors = tmp_path / "glove.txt"
    vectors.write_text("good 1 2\nfilm 3 4\n")
    columns["sentence"] = np.array(["good film"] * 23 + ["nothing known"])
    np.savez(path, **columns)
    dataset = load(path, vectors=vectors)
    assert dict(dataset.dims) == {"text": 2, "audio": 3, "vision": 2}
    assert {m: len(f.values) for m, f in dataset.samples[0].features.items()} == {"text": 2, "audio": 1, "vision": 1}
    assert [s.start for s in dataset.split("train")] == sorted(s.start for s in dataset.split("train"))
    assert ["text" in s.features for s in dataset.samples].count(False) == 1
    del columns["sentence"]
    np.savez(path, **columns)
    with pytest.raises(ValueError, match="has no column sentence"):
        load(path, vectors=vectors)


def test_the_real_sentences(mosi_path: Path, data_folder: Path) -> None:
    """GloVe with audio: nothing of it saw a label, and the vision, which did, is left out."""
    mosi = load(mosi_path, vectors=data_folder / "mosi_glove300.npz")
    assert dict(mosi.dims) == {"text": 300, "audio": 73}
    assert not any(s.features_saw_label for s in mosi.samples)
    lengths = [len(s.features["text"].values) for s in mosi.samples]
    assert (max(lengths), round(float(np.mean(lengths)), 1)) == (114, 12.8)
    assert "vision left out" in mosi.notes[-1]
