"""From words to feature rows: one row a word, or two for one that its vectors spell in two."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from device_agent.extraction.rows import Array, Rows
from device_agent.extraction.stop_words import is_stop_word
from device_agent.extraction.tokens import tokens_of
from device_agent.extraction.vectors import WordVectors
from device_agent.media.chunks import Chunk, Words
from megace2_iot.datasets.words import MAX_WORDS
from megace2_iot.features import Modality


class TextExtractor:
    """A chunk's words share its time by their lengths, stop words too: these were spoken, and leave their time empty.

    `observed`: `unknown` is 1 for a word without a vector, which has the vectors' row for unknown words.
    """

    modality: Modality = "text"
    step = 0.0  # words come at their own times

    def __init__(self, vectors: WordVectors, *, stop_words: bool = True) -> None:
        self.dim = vectors.dim
        self.dropped = 0  # words beyond a chunk's first 512, since the start
        self._vectors, self._stop_words = vectors, stop_words
        self._last = -np.inf  # s, the latest row's time

    def push(self, chunk: Chunk) -> Rows | None:
        if not isinstance(chunk, Words):
            return None
        words = tokens_of(chunk.text)
        self.dropped += max(0, len(words) - MAX_WORDS)
        spoken = words[:MAX_WORDS]
        if not spoken:
            return None
        times = _times([len(word) for word in words], chunk.start, chunk.end)
        kept = [not is_stop_word(word) for word in spoken]
        if not self._stop_words or not any(kept):
            kept = [True] * len(spoken)
        return self._rows([(word, *times[i : i + 2]) for i, word in enumerate(spoken) if kept[i]])

    def flush(self) -> Rows | None:
        self._last = -np.inf
        return None

    def _rows(self, words: list[tuple[str, float, float]]) -> Rows:
        values: list[Array] = []
        times: list[float] = []
        unknown: list[bool] = []
        for word, start, end in words:
            pieces = self._vectors.pieces(word)
            vectors = pieces or [self._vectors.unknown]
            values += vectors
            times += [start + (end - start) * part / len(vectors) for part in range(len(vectors))]
            unknown += [not pieces] * len(vectors)
        rising = np.maximum(np.array(times, np.float64), self._last)  # two speakers' subtitles may overlap
        self._last = float(rising[-1])
        return Rows(np.stack(values), rising, self.step, {"unknown": np.array(unknown, np.float32)})


def _times(lengths: list[int], start: float, end: float) -> npt.NDArray[np.float64]:
    """(N + 1,) s: where each of N words begins, and where the last ends."""
    spent = np.concatenate([[0], np.cumsum(lengths)])
    times: npt.NDArray[np.float64] = start + max(0.0, end - start) * spent / spent[-1]
    return times
