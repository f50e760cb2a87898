"""The loader is chosen by what a file holds, not by its name."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from megace2_iot.datasets import load

Table = tuple[Path, dict[str, np.ndarray]]


def test_a_table_under_another_name(table: Table) -> None:
    """An .npz is one by its first bytes."""
    path, columns = table
    np.savez(path, **columns)
    assert load(path.rename(path.with_suffix(".data"))).name == "mosi"


def test_a_pickle_under_another_name(tmp_path: Path) -> None:
    """A pickle is never taken for something that could be run."""
    path = tmp_path / "features.bin"
    path.write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(ValueError, match="is a pickle of a, neither MulT's nor MMSA's"):
        load(path)


@pytest.mark.parametrize("name", ["a.npz", "a.pkl", "a.csv", "a.csd", "a"])
def test_junk_of_every_name(tmp_path: Path, name: str) -> None:
    """One kind of error, whatever the name promises."""
    path = tmp_path / name
    path.write_bytes(bytes(range(128, 256)))
    with pytest.raises(ValueError, match=r"a(\.\w+)? (cannot be read|is not understood)"):
        load(path)


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    """What it lacks and what it holds."""
    path = tmp_path / "model.npz"
    np.savez(path, weights=np.zeros(3))
    with pytest.raises(ValueError, match=r"lacks video, .*: it holds weights"):
        load(path)


def test_vectors_need_text(table: Table, tmp_path: Path) -> None:
    """Word vectors for data without words are a mistake that is told."""
    path, columns = table
    np.savez(path, **columns)
    vectors = tmp_path / "glove.txt"
    vectors.write_text("a 1 2\n")
    with pytest.raises(ValueError, match="has no column sentence"):
        load(path, vectors=vectors)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({}))
    for source in (tmp_path / "x.pkl", "synthetic"):
        with pytest.raises(ValueError, match="holds no text: word vectors are of no use"):
            load(source, vectors=vectors)
    with pytest.raises(FileNotFoundError, match=r"no word vectors at .*nowhere\.txt"):
        load(path, vectors=tmp_path / "nowhere.txt")


def test_the_built_in_corpus_can_be_split_again() -> None:
    """By the same seed that made it."""
    assert load("synthetic", 3, split="speaker").notes[-1] == "split by speaker, about 70/10/20, seed 3"


def test_without_h5py_a_folder_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an extra: a streaming device has no use for it."""
    monkeypatch.setitem(sys.modules, "h5py", None)
    (tmp_path / "labels.csd").write_bytes(b"")
    with pytest.raises(ValueError, match=r"\.csd files need h5py: pip install 'megace2-iot\[data\]'"):
        load(tmp_path)
