"""What a picture looks like, in a few numbers that do not depend on its size.

Every picture is brought to 60 x 80 cells of luma by the mean over their areas, so that the motion between pictures of
two sizes, and the sharpness of pictures of any, can be compared. Pictures much wider than 80 cost more: scale before.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from device_agent.extraction.rows import Array

HEIGHT, WIDTH = 60, 80  # cells
ORIENTATIONS = 8  # bins of half a turn
BLACK, WHITE = 16 / 255, 239 / 255  # luma of what is nearly black or white: studio range's ends
_FAINT = 0.02  # luma: deviations below it are a camera's noise
_SLIGHT = 0.002  # mean gradient of a plain surface, which has no orientation
_RGB_TO_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601


@dataclass(frozen=True, slots=True)
class Look:
    """`luma` (60, 80) in 0..1, and what was measured of the whole picture."""

    luma: Array
    colour: tuple[float, float]  # mean Cb, Cr in -0.5..0.5
    saturation: float  # mean of the widest channel difference, 0..1
    sharpness: float  # variance of the Laplacian by the variance of luma: 20 for noise, 0 for a plain surface
    dark: float  # part of the cells
    bright: float


def look(pixels: npt.NDArray[np.uint8]) -> Look:
    """Measure a picture (H, W, 3)."""
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1), np.float32)
    red, green, blue = planes.reshape(3, -1).mean(axis=1) / 255
    mean = float(np.array([red, green, blue]) @ _RGB_TO_LUMA)
    widest = np.maximum(np.maximum(planes[0], planes[1]), planes[2])
    narrowest = np.minimum(np.minimum(planes[0], planes[1]), planes[2])
    luma = resized(np.tensordot(_RGB_TO_LUMA / np.float32(255), planes, 1), HEIGHT, WIDTH)
    return Look(
        luma,
        (0.564 * (float(blue) - mean), 0.713 * (float(red) - mean)),
        float((widest - narrowest).mean()) / 255,
        sharpness(luma),
        float((luma <= BLACK).mean()),
        float((luma >= WHITE).mean()),
    )


def sharpness(luma: Array) -> float:
    """Variance of the four-neighbour Laplacian, by that of luma and of a camera's noise, which is no detail."""
    around = luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:]
    return float((around - 4 * luma[1:-1, 1:-1]).var() / (luma.var() + _FAINT**2))


def orientations(luma: Array) -> Array:
    """Parts (8,) of the gradient in each eighth of half a turn, from 0, which is a vertical edge; alike where flat."""
    across, down = luma[1:-1, 2:] - luma[1:-1, :-2], luma[2:, 1:-1] - luma[:-2, 1:-1]
    strength = np.sqrt(np.square(across) + np.square(down))
    turn = np.arctan2(down, across) * (ORIENTATIONS / np.pi) + 0.5  # half a bin on: edges along the axes are common
    bins = np.floor(turn).astype(np.intp) % ORIENTATIONS
    sums = np.bincount(bins.ravel(), strength.ravel(), ORIENTATIONS) / strength.size
    return np.asarray((sums + _SLIGHT / ORIENTATIONS) / (sums.sum() + _SLIGHT), np.float32)


def grid(cells: Array, rows: int, columns: int) -> Array:
    """Means (rows * columns,) of equal parts of `cells` (60, 80), row by row."""
    parts = cells.reshape(rows, HEIGHT // rows, columns, WIDTH // columns)
    return np.asarray(parts.mean(axis=(1, 3)).ravel(), np.float32)


def resized(plane: Array, height: int, width: int) -> Array:
    """A plane (H, W) as (height, width) means over areas; pixels are repeated where it is smaller."""
    if plane.shape == (height, width):
        return plane
    rows, columns = _areas(plane.shape[0], height), _areas(plane.shape[1], width)
    return np.asarray(rows @ plane @ columns.T, np.float32)


@lru_cache(maxsize=16)
def _areas(size: int, cells: int) -> Array:
    """(cells, size): which part of each cell's length each pixel takes; rows sum to 1."""
    edges = np.linspace(0, size, cells + 1)
    pixels = np.arange(size)
    covered = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.asarray(np.maximum(0.0, covered) * cells / size, np.float32)
