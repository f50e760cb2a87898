"""Sentences as rows of a vocabulary, with the vectors that devices send or embed."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from device_agent.extraction.stop_words import is_stop_word
from device_agent.media.generator import BLAME, CLOSERS, DEGREES, NEITHER, OPENERS, PRAISE, THINGS
from megace2_iot.datasets.npz import read_npz
from megace2_iot.datasets.words import Hashed, Vectors, read_vectors, words_of

Array = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int32]
HASHED = 300  # numbers a word, as `[sense] text_dim`
BUILT_IN = 2000  # sentences of the generator
LONGEST = 40  # words of a sentence that is attacked; the few longer ones are cut
LARGEST_FILE = 50_000  # words of a file of vectors that are all candidates; of a larger one, those of the data


@dataclass(frozen=True, slots=True, eq=False)
class Speech:
    """`vectors` (V, D) of every word that an attacker thinks of, sentences as their rows, and which are stop words."""

    name: str
    vectors: Array
    sentences: tuple[Rows, ...]
    stop: npt.NDArray[np.bool_]  # (V,)

    @property
    def tokens(self) -> int:
        return sum(map(len, self.sentences))

    def shares(self, sentences: Sequence[Rows] | None = None) -> npt.NDArray[np.float64]:
        """Part (V,) of the words that each is."""
        said = np.concatenate(list(sentences if sentences is not None else self.sentences))
        counts = np.bincount(said, minlength=len(self.vectors)).astype(np.float64)
        shares: npt.NDArray[np.float64] = counts / counts.sum()
        return shares

    def dealt(self, seed: int) -> list[Rows]:
        """The sentences in an order of the seed's, cut where they are very long."""
        order = np.random.default_rng(seed).permutation(len(self.sentences))
        return [self.sentences[number][:LONGEST] for number in order]


def speech_of(data: str, vectors: Path | None) -> Speech:
    """What is said in a data set that has sentences, else in the built-in ones; hashed where no vectors are given."""
    texts = _texts(Path(data).expanduser()) if data != "synthetic" else []
    name = Path(data).stem if texts else "built-in sentences"
    said = [words_of(text) for text in texts or built_in(BUILT_IN)]
    wanted = sorted({word for words in said for word in words})
    file = vectors.expanduser() if vectors is not None and texts else None
    listed = _all_words(file) if file is not None else []
    known: Vectors = Hashed(HASHED) if file is None else read_vectors(file, [*wanted, *listed])
    if isinstance(known, Hashed):
        known.rows(wanted)
    rows = [known.rows(words) for words in said]
    stop = np.unique(known.rows([word for word in wanted if is_stop_word(word)]))
    table = known.at(np.arange(_count(known), dtype=np.int32))
    is_stop = np.zeros(len(table), bool)
    is_stop[stop] = True
    label = f"{name}, {'hashed' if file is None else file.stem}"
    return Speech(label, table, tuple(row for row in rows if len(row)), is_stop)


def built_in(count: int, seed: int = 0) -> list[str]:
    """Sentences of the generator's words, without its voices and faces."""
    random = np.random.default_rng(seed)
    lists = (OPENERS, ("the",), THINGS, ("was",), tuple(DEGREES), PRAISE + BLAME + NEITHER, CLOSERS)
    return [" ".join(str(random.choice(words)) for words in lists) for _ in range(count)]


def _texts(path: Path) -> list[str]:
    """The sentences of a table that has some; none of anything else."""
    if path.is_dir():
        path = path / "mosi_utterances.npz"
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [row["text"] for row in csv.DictReader(file) if row.get("text")]
    if path.suffix != ".npz" or not path.exists():
        return []
    return [str(text) for text in read_npz(path, ("sentence",)).get("sentence", ())]


def _all_words(path: Path) -> list[str]:
    """The words of a small .npz of vectors: an attacker has the whole file."""
    if path.suffix != ".npz":
        return []
    words = read_npz(path, ("words",)).get("words", np.zeros(0, str))
    return [str(word) for word in words] if len(words) <= LARGEST_FILE else []


def _count(known: Vectors) -> int:
    return len(known._table)  # type: ignore[attr-defined]  # both kinds keep one row a word
