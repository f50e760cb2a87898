"""Words as vectors: from files, or from their letters."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest

from megace2_iot.datasets.words import MAX_WORDS, Hashed, Spoken, hashed, read_vectors, words_of


def test_words_of_a_sentence() -> None:
    """Lower case, apostrophes inside, no punctuation, and never more than the bound."""
    assert words_of("It\N{RIGHT SINGLE QUOTATION MARK}s 'really' GOOD, isn't_it? 10/10 — naïve.") == (
        ["it's", "really", "good", "isn't", "it", "10", "10", "naïve"]
    )
    assert words_of("...") == []
    assert len(words_of("word " * 10_000)) == MAX_WORDS


def test_hashed_words_are_the_same_everywhere() -> None:
    """These numbers are part of the data: another machine, another version, the same vectors."""
    np.testing.assert_allclose(hashed("film")[:4], [-0.111257, -0.539171, 1.831468, 1.309414], atol=1e-5)
    assert np.array_equal(hashed("don't"), hashed("dont"))
    many = np.stack([hashed(f"{i}x{i * i}") for i in range(500)])
    assert many.mean() == pytest.approx(0.0, abs=0.05)
    assert many.std() == pytest.approx(1.0, abs=0.05)


def test_words_that_share_letters_are_alike() -> None:
    """What an unknown form of a known word needs."""

    def likeness(one: str, other: str) -> float:
        return float(np.corrcoef(hashed(one), hashed(other))[0, 1])

    assert likeness("amazing", "amazingly") > 0.5
    assert abs(likeness("amazing", "boring")) < 0.35
    assert Hashed().look_up(["a", "b", "a"]).shape == (3, 128)
    assert Hashed().look_up([]).shape == (0, 128)


def test_a_table_of_vectors(tmp_path: Path) -> None:
    """An unknown word is the file's `<unk>`."""
    path = tmp_path / "glove.npz"
    np.savez(path, words=np.array(["<unk>", "good", "film", "never"]), vectors=np.eye(4, dtype=np.float32))
    glove = read_vectors(path, ["good", "film", "zzz"])
    assert glove.dim == 4
    assert glove.look_up(["good", "zzz", "film"]).argmax(axis=1).tolist() == [1, 0, 2]


def test_lines_of_glove(tmp_path: Path) -> None:
    """Only the wanted words are kept, an unknown one is left out, and spellings of a file are tried in turn."""
    path = tmp_path / "glove.txt"
    path.write_text("do 1 0 0\nn't 0 1 0\nit's 0 0 1\ndo name@domain.com 1 2 3\ncant 3 0 0\n, 9 9 9\n")
    glove = read_vectors(path, ["don't", "it's", "can't", "zzz"])
    assert glove.look_up(["don't"]).tolist() == [[1, 0, 0], [0, 1, 0]]
    assert glove.look_up(["it's", "zzz", "can't"]).tolist() == [[0, 0, 1], [3, 0, 0]]
    assert glove.look_up(["zzz"]).shape == (0, 3)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("good 1 2\nfilm 1 2 3\n", "line 2: expected 'film' and 2 finite numbers"),
        ("good 1 nan\n", "line 1: expected 'good'"),
        ("other 1 2\n", "has none of the words of the data"),
        ("", "has none of the words"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path: Path, text: str, reason: str) -> None:
    """Lines of other lengths, values that are no numbers, other words."""
    path = tmp_path / "glove.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=reason):
        read_vectors(path, ["good", "film"])


def test_what_is_wrong_with_a_table_is_said(tmp_path: Path) -> None:
    """Other arrays, or of other lengths; and no file at all."""
    path = tmp_path / "glove.npz"
    np.savez(path, text=np.zeros(3))
    with pytest.raises(ValueError, match="holds no word vectors"):
        read_vectors(path, ["a"])
    np.savez(path, words=np.array(["a"]), vectors=np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"words \(1,\) and vectors \(2, 3\) do not fit"):
        read_vectors(path, ["a"])
    with pytest.raises(FileNotFoundError):
        read_vectors(tmp_path / "none.txt", ["a"])


def test_the_vocabulary_of_mosi(data_folder: Path) -> None:
    """Real GloVe: 300 wide, and likeness means something."""
    glove = read_vectors(data_folder / "mosi_glove300.npz", ["good", "great", "camera"])
    good, great, camera = glove.look_up(["good", "great", "camera"])
    assert glove.dim == 300
    assert np.corrcoef(good, great)[0, 1] > 0.6 > 0.4 > np.corrcoef(good, camera)[0, 1]


def test_a_sentence_has_the_vectors_of_its_words(tmp_path: Path) -> None:
    """Put together when they are asked for; also in another process, and never for somebody else to change."""
    path = tmp_path / "glove.txt"
    path.write_text("good 1 2\nfilm 3 4\n")
    for vectors in (read_vectors(path, ["good", "film"]), Hashed()):
        words = ["film", "good", "film"]
        sentence = Spoken(vectors, vectors.rows(words), 2.5, 7.0)
        sentence.values[0] = 9.0
        for again in (sentence, pickle.loads(pickle.dumps(sentence))):
            np.testing.assert_array_equal(again.values, vectors.look_up(words))
            assert (again.rate, again.start) == (2.5, 7.0)
