"""Cuts sound into rows on a grid of its own, whatever the pieces in which it comes, and holds what waits for more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from device_agent.extraction.pitch import WINDOW
from device_agent.extraction.rows import Array
from device_agent.extraction.spectrum import FRAME, HOP, SAMPLE_RATE
from device_agent.media.chunks import Sound
from megace2_iot.problems import Problem

TOLERANCE = 0.04  # s by which a piece may come early or late on the clock and still follow the one before
FULL_SCALE = 0.999  # of a sample that is clipped
BLOCK = 32  # rows computed at a time: their frames fit a small machine's cache
PIECE = 1 << 16  # samples taken at a time from a longer piece


@dataclass(frozen=True, slots=True)
class Layout:
    """Where a row of `step` samples has its frames and its pitch pieces; `reach` samples from its start are read."""

    step: int
    frames: npt.NDArray[np.intp]  # (F,) their starts
    pieces: npt.NDArray[np.intp]  # (K,)
    reach: int

    @classmethod
    def at(cls, rate: float) -> Layout:
        """For `rate` rows a second, to the nearest sample."""
        step = round(SAMPLE_RATE / rate)
        count = max(1, step // HOP)
        frames = np.arange(count) * (step // count)
        pieces = np.arange(max(1, step // WINDOW))
        pieces = pieces * (step // len(pieces)) + max(0, step // len(pieces) - WINDOW) // 2
        return cls(step, frames, pieces, max(step, int(frames[-1]) + FRAME, int(pieces[-1]) + WINDOW))


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows' `samples` from the start of the first to the reach of the last, and `clipped`, 0..1 a sample."""

    times: npt.NDArray[np.float64]  # (R,) s
    samples: Array
    clipped: Array
    is_first: bool  # no row is before the first: the track begins, or sound is missing

    def own(self, layout: Layout) -> tuple[Array, Array]:
        """The samples (R, step) that belong to each row alone, and which are clipped."""
        rows = len(self.times)
        size = rows * layout.step
        return self.samples[:size].reshape(rows, -1), self.clipped[:size].reshape(rows, -1)

    def windows(self, layout: Layout, starts: npt.NDArray[np.intp], size: int) -> Array:
        """Windows (R, K, size) at `starts` (K,) of each row."""
        places = np.arange(len(self.times))[:, None] * layout.step + starts
        views: Array = np.lib.stride_tricks.sliding_window_view(self.samples, size)[places]
        return views


class Framing:
    """Pieces of sound in, blocks of rows out; holds less than a row's reach and a step between two pieces."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._start: float | None = None  # s, of the run: sound without a gap
        self._heard = self._row = 0  # samples and rows since then
        self._waiting = np.zeros((2, 0), np.float32)  # samples, and whether they are clipped

    def push(self, sound: Sound) -> Iterator[Block]:
        """Rows that are complete now. A gap ends a run of rows, what comes twice is dropped. Raises `Problem`."""
        if sound.rate != SAMPLE_RATE:
            raise Problem(f"sound of {sound.rate} Hz: the audio extractor takes {SAMPLE_RATE} Hz, resample it before")
        late = sound.start - self._expected(sound.start)
        if late > TOLERANCE:
            yield from self.flush()
        if self._start is None:
            self._start = sound.start
        skip = round(-late * SAMPLE_RATE) if late < -TOLERANCE else 0
        for at in range(skip, len(sound.samples), PIECE):
            samples = np.clip(np.nan_to_num(sound.samples[at : at + PIECE]), -1.0, 1.0)
            clipped = np.full_like(samples, sound.clipped) if sound.clipped > 0 else np.abs(samples) >= FULL_SCALE
            self._heard += len(samples)
            self._waiting = np.concatenate([self._waiting, np.stack([samples, clipped])], axis=1, dtype=np.float32)
            yield from self._blocks((self._waiting.shape[1] - self._layout.reach) // self._layout.step + 1)

    def flush(self) -> Iterator[Block]:
        """The rows that are whole but wait for what they look ahead to, with silence there; the next begins a run."""
        whole = self._waiting.shape[1] // self._layout.step
        self._waiting = np.pad(self._waiting, ((0, 0), (0, self._layout.reach)))
        yield from self._blocks(whole)
        self._start, self._heard, self._row = None, 0, 0
        self._waiting = np.zeros((2, 0), np.float32)

    def _expected(self, now: float) -> float:
        return now if self._start is None else self._start + self._heard / SAMPLE_RATE

    def _blocks(self, rows: int) -> Iterator[Block]:
        step, start = self._layout.step, self._start or 0.0
        for done in range(0, rows, BLOCK):
            count = min(BLOCK, rows - done)
            samples, clipped = self._waiting[:, : (count - 1) * step + self._layout.reach]
            times = start + (self._row + np.arange(count, dtype=np.float64)) * (step / SAMPLE_RATE)
            yield Block(times, samples, clipped, self._row == 0)
            self._row += count
            self._waiting = self._waiting[:, count * step :]
