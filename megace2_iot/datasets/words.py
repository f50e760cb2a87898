"""Words as vectors: from a GloVe file, or hashed from their letters where there is none.

The hashed vectors need no download and are the same on every machine: a word is the sum of its n-grams of 3 to 5
letters, with < and > at its ends, and of itself, each of which is bytes of BLAKE2b, 128 unless told otherwise, read as
numbers of mean 0 and variance 1; the sum is divided by the root of their number. Words that share letters are alike,
meanings are not known. A wider vector begins with the narrower one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from megace2_iot.datasets.npz import read_npz
from megace2_iot.features import Features

Array = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int32]

HASHED_DIM = 128
DIGEST = 64  # bytes, the longest of BLAKE2b
SHORTEST, LONGEST = 3, 5  # letters of an n-gram
UNKNOWN = "<unk>"  # the word for words that are not in the file
MAX_WORDS = 512  # of one utterance; MOSEI's longest has 310
NAMES = "words", "vectors"  # in an .npz
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)*")


class Vectors(Protocol):
    """Makes vectors of words: each word's has a row."""

    dim: int
    origin: str  # for people

    def rows(self, words: Sequence[str]) -> Rows:
        """(T,); words that nobody knows are left out, so T may be smaller than their number."""

    def at(self, rows: Rows) -> Array:
        """The vectors (T, D) of rows."""

    def look_up(self, words: Sequence[str]) -> Array:
        """The vectors (T, D) of words."""
        return self.at(self.rows(words))


class Spoken(Features):
    """A sentence by its words' rows, whose vectors are put together whenever they are asked for.

    MOSEI's 22,788 sentences are half a GB as vectors of 300 numbers, most of them of the same few words.
    """

    __slots__ = ("_rows", "_vectors")
    _vectors: Vectors
    _rows: Rows

    def __init__(self, vectors: Vectors, rows: Rows, rate: float, start: float) -> None:
        for name, value in (("_vectors", vectors), ("_rows", rows), ("rate", rate), ("start", start)):
            object.__setattr__(self, name, value)

    @property
    def values(self) -> Array:
        return self._vectors.at(self._rows)

    def __reduce__(self) -> tuple[type[Spoken], tuple[Vectors, Rows, float, float]]:
        return Spoken, (self._vectors, self._rows, self.rate, self.start)


def words_of(text: str) -> list[str]:
    """Lower-case words of a sentence, apostrophes inside kept, punctuation dropped; the first 512."""
    return _WORD.findall(text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))[:MAX_WORDS]


class Hashed(Vectors):
    """Vectors from letters."""

    origin = "words are hashed from their letters: no vectors were given"

    def __init__(self, dim: int = HASHED_DIM) -> None:
        self.dim = dim
        self._row_of: dict[str, int] = {}
        self._table: list[Array] = []

    def rows(self, words: Sequence[str]) -> Rows:
        """(T,), one a word."""
        for word in words:
            if word not in self._row_of:
                self._row_of[word] = len(self._table)
                self._table.append(hashed(word, self.dim))
        return np.array([self._row_of[word] for word in words], np.int32)

    def at(self, rows: Rows) -> Array:
        """(T, D)."""
        return np.stack([self._table[row] for row in rows]) if len(rows) else np.zeros((0, self.dim), np.float32)


def hashed(word: str, dim: int = HASHED_DIM) -> Array:
    """The vector (dim,) of one word."""
    marked = f"<{word.replace(chr(39), '')}>"
    sizes = range(SHORTEST, min(LONGEST, len(marked) - 1) + 1)
    parts = [marked[i : i + n] for n in sizes for i in range(len(marked) - n + 1)]
    rows = np.stack([_noise(part, dim) for part in [marked, *parts]])
    total: Array = (rows.sum(axis=0) / np.sqrt(len(rows))).astype(np.float32)
    return total


def _noise(part: str, dim: int) -> npt.NDArray[np.float64]:
    data = part.encode()
    blocks = range(-(-dim // DIGEST))
    drawn = b"".join(hashlib.blake2b(data, digest_size=DIGEST, person=b"%d" % block).digest() for block in blocks)
    numbers = np.frombuffer(drawn, np.uint8, dim).astype(np.float64)
    return (numbers - 127.5) / 73.9  # uniform, of variance 1


class Glove(Vectors):
    """Vectors from a file."""

    def __init__(self, vectors: Mapping[str, Array], origin: str) -> None:
        self._row_of = {word: row for row, word in enumerate(vectors)}
        self._table = np.stack(list(vectors.values()))
        self.dim = self._table.shape[1]
        self.origin = origin

    def rows(self, words: Sequence[str]) -> Rows:
        """(T,); an unknown word is `<unk>` where the file has that, and is left out otherwise."""
        pieces = (piece for word in words for piece in self._pieces(word))
        return np.array([self._row_of[piece] for piece in pieces if piece in self._row_of], np.int32)

    def at(self, rows: Rows) -> Array:
        """(T, D)."""
        found: Array = self._table[rows]
        return found

    def _pieces(self, word: str) -> list[str]:
        return next((spelt for spelt in spellings(word) if all(piece in self._row_of for piece in spelt)), [UNKNOWN])


def spellings(word: str) -> list[list[str]]:
    """How files spell a word: as it is, without apostrophe, or in two as in "do n't" and "it 's"."""
    if "'" not in word:
        return [[word]]
    head, _, tail = word.rpartition("'")
    two = [head[:-1], "n't"] if tail == "t" and head.endswith("n") else [head, f"'{tail}"]
    return [[word], [word.replace("'", "")], two]


def read_vectors(path: Path, wanted: Iterable[str]) -> Glove:
    """The vectors of the `wanted` words: an .npz with `words` and `vectors`, or GloVe's lines of a word and numbers.

    Raises OSError where there is no file and ValueError where it is neither.
    """
    needed = {piece for word in wanted for spelt in spellings(word) for piece in spelt} | {UNKNOWN}
    with path.open("rb") as file:
        is_zip = file.read(4) == b"PK\x03\x04"
    rows = _of_npz(path, needed) if is_zip else _of_text(path, needed)
    if rows.keys() <= {UNKNOWN}:
        raise ValueError(f"{path} has none of the words of the data")
    return Glove(rows, f"words are vectors of {path.name}")


def _of_npz(path: Path, needed: set[str]) -> dict[str, Array]:
    try:
        table = read_npz(path, NAMES)
        words, vectors = (table[name] for name in NAMES)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} holds no word vectors ({', '.join(NAMES)}): {error}") from None
    fits = vectors.ndim == 2 and words.shape == vectors.shape[:1] and vectors.dtype.kind in "fiu"
    if not fits or not np.isfinite(vectors).all():
        raise ValueError(f"{path}: words {words.shape} and vectors {vectors.shape} do not fit, or are not finite")
    return {str(word): row for word, row in zip(words, vectors.astype(np.float32), strict=True) if str(word) in needed}


def _of_text(path: Path, needed: set[str]) -> dict[str, Array]:
    rows: dict[str, Array] = {}
    dim = 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            word, _, numbers = line.rstrip().partition(" ")
            if word not in needed:
                continue
            try:
                row = np.array(numbers.split(" "), np.float32)
            except ValueError:  # the largest published file has some words of two parts, such as "at name@domain.com"
                continue
            dim = dim or len(row)
            if len(row) != dim or not np.isfinite(row).all():
                raise ValueError(f"{path}, line {number}: expected {word!r} and {dim} finite numbers")
            rows[word] = row
    return rows
