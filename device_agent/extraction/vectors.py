"""Word vectors on a small machine: from a file of any size that stays on the disk, or hashed from letters.

A device does not know beforehand which words it will hear, and GloVe's 400,000 vectors of 300 numbers are 480 MB. So
only an index is held, 16 bytes a word: the hash of each word, sorted, and where its vector is. A vector is read when
its word is first heard, and the `CACHED` last ones are kept. Two words of one hash are told apart by reading the word
too. Measured, 2026-11-25: a text file of 400,000 x 300 (1.02 GB) opens in 0.7 s and adds 23 MB at most, 13 MB once
10,000 words were looked up, each in 30 µs the first time; on a slow card opening takes as long as reading the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from device_agent.extraction.rows import Array
from device_agent.extraction.tables import StoredTable
from megace2_iot.datasets.npz import NPZ_DAMAGE
from megace2_iot.datasets.words import UNKNOWN, hashed, spellings
from megace2_iot.problems import Problem

CACHED = 4096  # vectors kept: 5 MB at 300 numbers; a speaker's words of an hour are fewer
MAX_WORDS = 400_000  # of a file, the first ones: published files are sorted by frequency
BLOCK = 8192  # words of a table that are read at a time
LONGEST_LINE = 64 << 10  # bytes; 300 numbers take some 3,000


class WordVectors(Protocol):
    """Makes vectors of words."""

    dim: int

    def pieces(self, word: str) -> list[Array]:
        """The vectors (D,) of a word's pieces, of which "don't" may have two; none for an unknown word."""

    @property
    def unknown(self) -> Array:
        """The vector (D,) that stands for an unknown word."""


class HashedWords:
    """Vectors from letters: no word is unknown."""

    def __init__(self, dim: int) -> None:
        self.dim = dim
        self.unknown: Array = np.zeros(dim, np.float32)
        self._hashed = lru_cache(CACHED)(hashed)

    def pieces(self, word: str) -> list[Array]:
        return [self._hashed(word, self.dim)]


class FileWords:
    """Vectors from a file, spelt as the file spells them; unknown ones are its `<unk>`, or zero where it has none."""

    def __init__(self, file: Lines | Table) -> None:
        self.dim = file.dim
        self._find = lru_cache(CACHED)(file.find)
        found = self._find(UNKNOWN)
        self.unknown: Array = np.zeros(self.dim, np.float32) if found is None else found

    def pieces(self, word: str) -> list[Array]:
        for spelt in spellings(word):
            found = [vector for vector in map(self._find, spelt) if vector is not None]
            if len(found) == len(spelt):
                return found
        return []


class Index:
    """Where words are, by their hashes: `places` (W,) int64 of the words of `keys` (W,)."""

    def __init__(self, keys: npt.NDArray[np.int64], places: npt.NDArray[np.int64]) -> None:
        order = np.argsort(keys, kind="stable")  # of a word that comes twice, the first is found first
        self._keys, self._places = keys[order], places[order]

    def places(self, word: bytes) -> Iterator[int]:
        """Where the word may be."""
        key = hash(word)
        at = int(np.searchsorted(self._keys, key))
        while at < len(self._keys) and self._keys[at] == key:
            yield int(self._places[at])
            at += 1


class Lines:
    """GloVe's text file: lines of a word and its numbers."""

    def __init__(self, path: Path, max_words: int = MAX_WORDS) -> None:
        self._path = path
        first = self._read(0)
        start = len(first) if len(first.split()) == 2 else 0  # word2vec begins with the numbers of words and of columns
        self.dim = len(self._read(start).rstrip().split(b" ")) - 1
        if self.dim < 2 or self._vector(self._read(start)) is None:
            raise Problem(f"{path} holds no word vectors: expected lines of a word and numbers, as GloVe's files have")
        self._index = self._indexed(start, max_words)

    def find(self, word: str) -> Array | None:
        """The vector (D,) of a word."""
        written = word.encode()
        for place in self._index.places(written):
            line = self._read(place)
            vector = self._vector(line)
            if vector is not None and line.startswith(written + b" "):
                return vector
        return None

    def _read(self, place: int) -> bytes:
        with self._path.open("rb") as file:
            file.seek(place)
            return file.readline(LONGEST_LINE)

    def _vector(self, line: bytes) -> Array | None:
        """None for a line that does not fit: some published words have a space inside, as in "at name@domain.com"."""
        try:
            vector = np.array(line.rstrip().split(b" ")[1:], np.float32)
        except ValueError:
            return None
        return vector if len(vector) == self.dim and np.isfinite(vector).all() else None

    def _indexed(self, start: int, max_words: int) -> Index:
        keys, places = np.empty(max_words, np.int64), np.empty(max_words, np.int64)
        number, place = 0, start
        with self._path.open("rb") as file:
            file.seek(start)
            while number < max_words and (line := file.readline(LONGEST_LINE)):
                keys[number], places[number] = hash(line[: line.find(b" ")]), place
                number, place = number + 1, place + len(line)
        return Index(keys[:number].copy(), places[:number].copy())


class Table:
    """An .npz of `words` (W,) and `vectors` (W, D), which stay in the file where it is not compressed."""

    def __init__(self, path: Path, max_words: int = MAX_WORDS) -> None:
        self._words, self._vectors = StoredTable(path, "words"), StoredTable(path, "vectors")
        words, vectors = self._words.shape, self._vectors.shape
        if self._words.dtype.kind != "U" or len(vectors) != 2 or words != vectors[:1]:
            raise Problem(f"{path}: words {words} and vectors {vectors} do not fit: expected (W,) of text and (W, D)")
        self.dim = vectors[1]
        count = min(words[0], max_words)
        blocks = (self._words.rows(start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))
        keys = np.fromiter((hash(str(word).encode()) for block in blocks for word in block), np.int64, count)
        self._index = Index(keys, np.arange(count, dtype=np.int64))

    def find(self, word: str) -> Array | None:
        """The vector (D,) of a word; None also where it is not finite."""
        for row in self._index.places(word.encode()):
            vector: Array = self._vectors.rows(row, row + 1)[0].astype(np.float32)
            if str(self._words.rows(row, row + 1)[0]) == word and np.isfinite(vector).all():
                return vector
        return None


def open_vectors(path: Path, max_words: int = MAX_WORDS) -> FileWords:
    """Vectors of GloVe's lines or of an .npz. Raises `Problem` where the file is neither."""
    try:
        with path.open("rb") as file:
            is_zip = file.read(4) == b"PK\x03\x04"
        return FileWords(Table(path, max_words) if is_zip else Lines(path, max_words))
    except OSError as error:
        raise Problem(f"word vectors: {error}") from None
    except NPZ_DAMAGE as error:
        raise Problem(f"{path} holds no word vectors (words, vectors): {error}") from None
