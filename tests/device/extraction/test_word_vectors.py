"""Vectors of words on a small machine: looked up in a file that stays on the disk, or hashed."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from device_agent.extraction.tables import LARGEST, StoredTable
from device_agent.extraction.vectors import HashedWords, open_vectors
from megace2_iot.datasets.words import hashed, read_vectors
from megace2_iot.problems import Problem


def _npz(path: Path, words: list[str], vectors: np.ndarray) -> Path:
    np.savez(path, words=np.array(words), vectors=vectors)
    return path


def test_lines_of_glove(tmp_path: Path) -> None:
    """As the data sets have them: the first of two, words with a space inside skipped, spellings tried in turn."""
    path = tmp_path / "glove.txt"
    path.write_text("do 1 0 0\nn't 0 1 0\nat a@b.c 1 2 3\nat 4 5 6\ndo 9 9 9\nnan nan 0 0\ncant 3 0 0\né 0 0 7")
    words = open_vectors(path)
    assert words.dim == 3
    assert np.stack(words.pieces("don't")).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert [words.pieces(word)[0].tolist() for word in ("at", "can't", "é")] == [[4, 5, 6], [3, 0, 0], [0, 0, 7]]
    assert words.pieces("zzz") == words.pieces("nan") == words.pieces("") == []
    assert words.unknown.tolist() == [0, 0, 0]


def test_word2vec_text_begins_with_its_size(tmp_path: Path) -> None:
    """That line is no word, and an unknown word is the file's own."""
    path = tmp_path / "vectors.txt"
    path.write_text("3 2\ngood 1 2\n<unk> 5 6\nbad 3 4\n")
    words = open_vectors(path)
    assert words.pieces("bad")[0].tolist() == [3, 4]
    assert words.pieces("3") == []
    assert words.unknown.tolist() == [5, 6]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_table(tmp_path: Path, save: object, order: str) -> None:
    """Compressed or not, in either order of memory, float16 too."""
    vectors = np.arange(12, dtype=np.float16).reshape(4, 3)
    save(tmp_path / "v.npz", vectors=np.asarray(vectors, order=order), words=np.array(["<unk>", "good", "ünd", "bad"]))  # type: ignore[operator]
    words = open_vectors(tmp_path / "v.npz")
    assert words.dim == 3
    assert words.pieces("ünd")[0].tolist() == [6, 7, 8]
    assert words.pieces("good")[0].dtype == np.float32
    assert words.unknown.tolist() == [0, 1, 2]


def test_only_the_first_words_are_known(tmp_path: Path) -> None:
    """Files are sorted by frequency, and the index is bounded."""
    path = tmp_path / "glove.txt"
    path.write_text("".join(f"w{i} {i} 0\n" for i in range(100)))
    table = _npz(tmp_path / "v.npz", [f"w{i}" for i in range(100)], np.zeros((100, 2), np.float32))
    for file in (path, table):
        words = open_vectors(file, max_words=10)
        assert [bool(words.pieces(f"w{i}")) for i in (0, 9, 10, 99)] == [True, True, False, False]


def test_a_file_stays_on_the_disk(tmp_path: Path) -> None:
    """20,000 words of 300 numbers are 24 MB; the index and what was looked up are a tenth."""
    count = 20_000
    line = " ".join(["0.12345"] * 300)
    path = tmp_path / "glove.txt"
    path.write_text("".join(f"w{i} {line}\n" for i in range(count)))
    table = _npz(tmp_path / "v.npz", [f"w{i}" for i in range(count)], np.zeros((count, 300), np.float32))
    for file in (path, table):
        tracemalloc.start()
        words = open_vectors(file)
        assert all(words.pieces(f"w{i}") for i in range(0, count, 40))
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert held < 1.6e6
        assert peak < 8e6  # the index is made for `max_words` and cut


def test_real_vectors_are_the_data_sets(data_folder: Path) -> None:
    """Of MOSI's own vocabulary, for known, split and unknown words."""
    path = data_folder / "mosi_glove300.npz"
    spoken = ["good", "film", "didn't", "it's", "zzzz", "idiosyncratic"]
    known, words = read_vectors(path, spoken), open_vectors(path)
    rows = [vector for word in spoken for vector in words.pieces(word) or [words.unknown]]
    np.testing.assert_array_equal(np.stack(rows), known.look_up(spoken))


def test_hashed_words() -> None:
    """None is unknown, and they are the data sets' hashed vectors, wider."""
    words = HashedWords(300)
    (vector,) = words.pieces("film")
    assert np.array_equal(vector, hashed("film", 300))
    assert np.allclose(vector[:128], hashed("film"))
    assert words.unknown.shape == (300,)


@pytest.mark.parametrize(
    "text", ["", "\n", "3 2\n", "hello\n", "a word of text\n", "x" * 200_000, "<html>\n<body>\n", "good\t1\t2\n"]
)
def test_a_file_without_vectors_is_said(tmp_path: Path, text: str) -> None:
    """And never taken for one, nor read whole."""
    path = tmp_path / "file.txt"
    path.write_text(text)
    with pytest.raises(Problem, match="holds no word vectors: expected lines of a word and numbers"):
        open_vectors(path)


def test_a_table_without_vectors_is_said(tmp_path: Path) -> None:
    """Other arrays, other lengths, pickles, a broken zip, compressed ones that are too large, no file."""
    path = tmp_path / "v.npz"
    np.savez(path, other=np.zeros(3))
    with pytest.raises(Problem, match="holds no word vectors"):
        open_vectors(path)
    with pytest.raises(Problem, match=r"words \(1,\) and vectors \(2, 3\) do not fit"):
        open_vectors(_npz(path, ["a"], np.zeros((2, 3))))
    np.savez(path, words=np.array(["a"], object), vectors=np.zeros((1, 3)))
    with pytest.raises(Problem, match="words is no plain array"):
        open_vectors(path)
    np.savez_compressed(path, words=np.array(["a"]), vectors=np.zeros((1, LARGEST // 4 + 1), np.float32))
    with pytest.raises(Problem, match=r"compressed and too large to hold: save it again with numpy\.savez"):
        StoredTable(path, "vectors")
    path.write_bytes(b"PK\x03\x04" + bytes(50))
    with pytest.raises(Problem, match="holds no word vectors"):
        open_vectors(path)
    with pytest.raises(Problem, match=r"No such file or directory: .*none\.txt"):
        open_vectors(tmp_path / "none.txt")
