"""Whether somebody is known again: the nearest of other clips, by means and deviations of the rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from megace2_iot.cli.experiments.exposure.finding import Array
from megace2_iot.cli.experiments.exposure.takes import Take, speakers

AGAIN = "known again, part of the clips"


def known_again(takes: Sequence[Take], rows: Sequence[Array]) -> tuple[float, float]:
    """The part of clips whose nearest other clip is the same person's, and the part by chance.

    Where everybody has one clip, it is cut: the second half is looked for among the first halves.
    """
    if len(speakers(takes)) == len(takes):
        halves = [(part[: len(part) // 2], part[len(part) // 2 :]) for part in rows]
        first, second = (_marks([pair[side] for pair in halves]) for side in (0, 1))
        nearest = _distances(second, first).argmin(axis=1)
        return float((nearest == np.arange(len(takes))).mean()), 1 / len(takes)
    who = np.array([take.who for take in takes])
    distances = _distances(*[_marks(rows)] * 2)
    np.fill_diagonal(distances, np.inf)
    same = who[:, None] == who[None]
    chance = (same.sum(axis=1) - 1) / (len(takes) - 1)
    return float((who[distances.argmin(axis=1)] == who).mean()), float(chance.mean())


def _marks(rows: Sequence[Array]) -> Array:
    """(N, 2 D): mean and deviation of each sequence's columns."""
    return np.stack([np.concatenate([part.mean(axis=0), part.std(axis=0)]) for part in rows])


def _distances(first: Array, second: Array) -> Array:
    """Between all pairs, each column by its deviation."""
    spread = np.concatenate([first, second]).std(axis=0) + 1e-6
    found: Array = np.square((first[:, None] - second[None]) / spread).sum(axis=2)
    return found
