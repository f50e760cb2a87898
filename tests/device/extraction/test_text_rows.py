"""Rows of words: which, when, and how many are unknown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from device_agent.extraction.rows import Rows
from device_agent.extraction.text import TextExtractor
from device_agent.extraction.vectors import HashedWords, open_vectors
from device_agent.media.chunks import Sound, Words
from megace2_iot.datasets.words import hashed


def _rows(text: str, start: float = 0.0, end: float = 1.0, *, stop_words: bool = False) -> Rows:
    rows = TextExtractor(HashedWords(300), stop_words=stop_words).push(Words(text, start, end))
    assert rows is not None
    return rows


def test_words_share_the_time_by_their_lengths() -> None:
    """Of 10 letters in 2 s each has 0.2 s."""
    rows = _rows("it seems ok", 5.0, 7.0)  # 2 + 5 + 2 letters
    np.testing.assert_allclose(rows.times, 5 + 2 * np.array([0, 2, 7]) / 9)
    assert np.array_equal(rows.values[1], hashed("seems", 300))
    assert (rows.values.shape, rows.values.dtype, rows.step) == ((3, 300), np.float32, 0.0)
    assert not rows.observed["unknown"].any()


def test_stop_words_leave_their_time() -> None:
    """They were spoken; what denies stays, and a sentence of nothing else stays whole."""
    rows = _rows("this is not it", 0.0, 11.0, stop_words=True)
    assert rows.times.tolist() == [6.0]
    assert np.array_equal(rows.values[0], hashed("not", 300))
    assert len(_rows("that is it", stop_words=True)) == 3


def test_typed_words_are_all_at_once() -> None:
    """A chunk without a length, or with one below zero, has its rows at its start."""
    for end in (3.0, 2.0):
        assert _rows("all at once", 3.0, end).times.tolist() == [3.0, 3.0, 3.0]


def test_times_never_fall() -> None:
    """Two speakers' subtitles overlap; a flush begins another track."""
    extractor = TextExtractor(HashedWords(16))
    first, second = extractor.push(Words("one two", 0.0, 4.0)), extractor.push(Words("red blue", 1.0, 5.0))
    assert first is not None and second is not None
    joined = Rows.join([first, second])
    assert joined.times.tolist() == sorted(joined.times)
    assert extractor.flush() is None
    third = extractor.push(Words("again", 0.5, 1.0))
    assert third is not None and third.times.tolist() == [0.5]


def test_unknown_words_and_words_of_two_pieces(tmp_path: Path) -> None:
    """An unknown word has a row, so that its part can be told; two pieces share their word's time."""
    path = tmp_path / "glove.txt"
    path.write_text("do 1 0\nn't 0 1\nlike 2 2\n")
    rows = TextExtractor(open_vectors(path)).push(Words("don't like zzz", 0.0, 12.0))
    assert rows is not None
    assert rows.values.tolist() == [[1, 0], [0, 1], [2, 2], [0, 0]]
    assert rows.observed["unknown"].tolist() == [0, 0, 0, 1]
    np.testing.assert_allclose(rows.times, [0, 2.5, 5, 9])


def test_a_flood_is_cut_and_counted() -> None:
    """512 words of a chunk have rows, which lie where the words were spoken."""
    extractor = TextExtractor(HashedWords(16))
    rows = extractor.push(Words("word " * 1024, 0.0, 10.0))
    assert rows is not None
    assert (len(rows), extractor.dropped) == (512, 512)
    assert rows.times[-1] < 5.0


@pytest.mark.parametrize("text", ["", "  ...  ", "\x00"])
def test_nothing_said_is_no_row(text: str) -> None:
    """And another modality's chunk is none either."""
    extractor = TextExtractor(HashedWords(16))
    assert extractor.push(Words(text, 0.0, 1.0)) is None
    assert extractor.push(Sound(np.zeros(10, np.float32), 16_000, 0.0)) is None
