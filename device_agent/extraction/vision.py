"""From pictures to feature rows: a descriptor of fixed length, one row a picture, at most `rate` a second.

| columns | what | scaled |
|---|---|---|
| 0-15 | mean luma 0..1 of a 4 x 4 grid, row by row | (x - 0.5) / 0.25 |
| 16, 17 | mean Cb and Cr, -0.5..0.5 | by 0.1 |
| 18 | contrast: deviation of luma | (x - 0.2) / 0.1 |
| 19-26 | part of the gradient in each of 8 orientations, 19 being vertical edges | sqrt(8 x) - 1 |
| 27-30 | motion: mean change of luma in a 2 x 2 grid since the picture before | ln(1 + 50 x) |
| 31 | motion of the whole | ln(1 + 50 x) |
| 32 | sharpness: variance of the Laplacian by that of luma | ln(x + 0.01) / 2 |
| 33 | exposure: mean luma | (x - 0.5) / 0.25 |
| 34 | saturation: mean of the widest channel difference | (x - 0.2) / 0.2 |
"""

from __future__ import annotations

import numpy as np

from device_agent.extraction.picture import Look, grid, look, orientations
from device_agent.extraction.rows import Array, Rows
from device_agent.media.chunks import Chunk, Picture
from megace2_iot.features import Modality

DIM = 35
EARLY = 0.3  # of a step, by which a picture may come before its time
STALE = 1.0  # s; a change against an older picture is a new scene and no motion


class Shutter:
    """Takes at most one picture of each step, the first; lost pictures leave a step without a row.

    A step begins `EARLY` of its length before its time: half would split a camera of twice the rate at random.
    """

    def __init__(self, step: float) -> None:
        self._step = step
        self._first: float | None = None  # s
        self._slot = -1

    def takes(self, start: float) -> bool:
        """Whether a picture of this time is the first of its step."""
        if self._first is None:
            self._first = start
        slot = int((start - self._first) / self._step + EARLY)
        if slot <= self._slot:
            return False
        self._slot = slot
        return True


class VisionExtractor:
    """Rows of 35 numbers from RGB pictures of any size.

    `observed`: `sharpness`, and `dark` and `bright`, parts of the picture near black and white. A picture that was lost
    shows as a row that is missing.
    """

    modality: Modality = "vision"
    dim = DIM

    def __init__(self, rate: float = 15.0) -> None:
        self.step = 1 / rate
        self._new()

    def _new(self) -> None:
        self._shutter = Shutter(self.step)
        self._before: Array | None = None
        self._at = 0.0  # s, of the picture before

    def push(self, chunk: Chunk) -> Rows | None:
        if not isinstance(chunk, Picture) or not self._shutter.takes(chunk.start):
            return None
        seen = look(chunk.pixels)
        is_fresh = self._before is not None and chunk.start - self._at <= STALE
        values = describe(seen, self._before if is_fresh else None)
        self._before, self._at = seen.luma, chunk.start
        return Rows(values[None], np.array([chunk.start], np.float64), self.step, observed([seen]))

    def flush(self) -> Rows | None:
        self._new()
        return None


def describe(seen: Look, before: Array | None) -> Array:
    """The row (35,) of a picture, with the motion since luma `before` (60, 80)."""
    luma = seen.luma
    change = np.zeros_like(luma) if before is None else np.abs(luma - before)
    motion = [*grid(change, 2, 2), change.mean()]
    mean = luma.mean()
    parts = [
        (grid(luma, 4, 4) - 0.5) / 0.25,
        np.array(seen.colour) / 0.1,
        [(luma.std() - 0.2) / 0.1],
        np.sqrt(8 * orientations(luma)) - 1,
        np.log1p(50 * np.array(motion)),
        [np.log(seen.sharpness + 0.01) / 2, (mean - 0.5) / 0.25, (seen.saturation - 0.2) / 0.2],
    ]
    return np.concatenate(parts).astype(np.float32)


def observed(seen: list[Look]) -> dict[str, Array]:
    """What quality indicators are made of, of some pictures."""
    return {
        name: np.array([getattr(one, name) for one in seen], np.float32) for name in ("sharpness", "dark", "bright")
    }
