"""What can be made again of the pictures, and whether somebody is known again among the clips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from device_agent.extraction.picture import HEIGHT, WIDTH, resized
from megace2_iot.cli.experiments.exposure.finding import THINNED, USUAL, Array, Finding
from megace2_iot.cli.experiments.exposure.inversion import features_back
from megace2_iot.cli.experiments.exposure.likeness import AGAIN, known_again
from megace2_iot.cli.experiments.exposure.takes import Take, with_pictures
from megace2_iot.model.config import preset
from megace2_iot.stem import Stem

CELLS = 4  # of the grid, each way
TRIED = "pictures"
SIZES = ((4, 4), (15, 20), (60, 80))  # cells down and across that the original is averaged to
PRESETS = ("nano", "mult", "paper")


def of_features(takes: Sequence[Take], whose: str) -> Iterator[Finding]:
    """Luma from the 16 cells, against the original at several sizes; the guess is the mean picture of other clips."""
    seen = with_pictures(takes)
    for coding in THINNED:
        made = [drawn_again(coding.of_rows(take.vision)) for take in seen]
        for size in SIZES:
            pairs = [_against(take, own, size, coding.thin) for take, own in zip(seen, made, strict=True)]
            others = [
                _against(take, np.mean([m.mean(axis=0) for n, m in enumerate(made) if n != number], axis=0)[None], size)
                for number, take in enumerate(seen)
            ]
            cells = f"{size[0]} x {size[1]}"
            for number, measure in enumerate((f"{cells} cells, PSNR in dB", f"{cells} cells, SSIM")):
                found, guess = (float(np.mean([each[number] for each in some])) for some in (pairs, others))
                yield Finding(TRIED, f"features of {whose}", coding.name, measure, found, guess)


def of_embedded(takes: Sequence[Take], seed: int, whose: str) -> Iterator[Finding]:
    """The 35 columns from Z[0] and the stem, by what rows of other clips are like."""
    seen = with_pictures(takes)
    for name in PRESETS:
        stem = Stem.random({"vision": 35}, preset(name, {"vision": 35}).width, seed)
        missed, spread = np.zeros(35), np.zeros(35)
        for number, take in enumerate(seen):
            others = np.concatenate([t.vision for n, t in enumerate(seen) if n != number]).astype(np.float64)
            mean, covariance = others.mean(axis=0), np.cov(others.T) + 1e-4 * np.eye(35)
            z = USUAL.of_embedded(stem.embed("vision", take.vision))
            missed += np.square(features_back(stem.weights["vision"], mean, covariance, z) - take.vision).sum(axis=0)
            spread += np.square(take.vision - mean).sum(axis=0)
        part = 1 - missed.sum() / spread.sum()
        source = f"Z[0] of {name} and the stem, {whose}"
        yield Finding(
            "pictures' columns from Z[0]", source, USUAL.name, "35 columns, part of variance", float(part), 0.0
        )


def of_persons(takes: Sequence[Take], seed: int, whose: str) -> Iterator[Finding]:
    """Whose clip it is: from features, and from Z[0] by somebody without the stem."""
    seen = with_pictures(takes)
    for coding in THINNED:
        found, guess = known_again(seen, [coding.of_rows(take.vision) for take in seen])
        yield Finding(AGAIN, f"features of {whose}", coding.name, "person", found, guess)
    stem = Stem.random({"vision": 35}, preset("nano", {"vision": 35}).width, seed)
    found, guess = known_again(seen, [USUAL.of_embedded(stem.embed("vision", take.vision)) for take in seen])
    source = f"Z[0] of nano, stem unknown, {whose}"
    yield Finding(AGAIN, source, USUAL.name, "person", found, guess)


def drawn_again(rows: Array) -> Array:
    """Pictures (T, 60, 80) of rows (T, 35): their 16 cells, each as one brightness, smoothed between their middles."""
    grids = np.clip(rows[:, : CELLS**2] * 0.25 + 0.5, 0, 1).reshape(-1, CELLS, CELLS)
    down, across = _weights(HEIGHT), _weights(WIDTH)
    found: Array = (down @ grids @ across.T).astype(np.float32)
    return found


def _weights(size: int) -> Array:
    """(size, 4): linear between the middles of the cells."""
    middles = (np.arange(CELLS) + 0.5) * size / CELLS
    places = np.arange(size) + 0.5
    return np.stack([np.interp(places, middles, row) for row in np.eye(CELLS)], axis=1).astype(np.float32)


def _against(take: Take, made: Array, size: tuple[int, int], thin: int = 1) -> tuple[float, float]:
    """PSNR in dB and SSIM against the original, both averaged to `size` cells; the middle picture counts."""
    middle = len(take.lumas) // 2
    original, drawn = take.lumas[middle], made[min(middle // thin, len(made) - 1)]
    original, drawn = (resized(picture, *size) for picture in (original, drawn))
    error = float(np.square(original - drawn).mean())
    return float(10 * np.log10(1 / max(error, 1e-8))), _ssim(original, drawn)


def _ssim(first: Array, second: Array) -> float:
    """Wang et al. 2004, over blocks of 4 x 4 cells, or the whole where it is so small."""
    blocks = [np.lib.stride_tricks.sliding_window_view(picture, (4, 4)).reshape(-1, 16) for picture in (first, second)]
    means, spreads = [b.mean(axis=1) for b in blocks], [b.var(axis=1) for b in blocks]
    together = (blocks[0] * blocks[1]).mean(axis=1) - means[0] * means[1]
    top = (2 * means[0] * means[1] + 1e-4) * (2 * together + 9e-4)
    bottom = (means[0] ** 2 + means[1] ** 2 + 1e-4) * (spreads[0] + spreads[1] + 9e-4)
    return float((top / bottom).mean())
