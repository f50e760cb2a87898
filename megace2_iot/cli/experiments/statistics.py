"""Means and deviations over seeds, intervals of paired differences, and curves on a common grid."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

Points = Sequence[Mapping[str, Any]]
LAST_PART = 0.25  # of a run, over which its final scores are the mean: one release alone swings
DRAWS = 10_000  # of a bootstrap: its ends move by less than a hundredth of the interval from seed to seed


class Interval(NamedTuple):
    """A mean, and the bounds between which it lies with 95 % confidence."""

    mean: float
    low: float
    high: float


def spread(values: Sequence[float | None]) -> tuple[float, float] | float | None:
    """Mean and deviation (of a sample), one value by itself, None where a value is missing or there is none."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return (float(np.mean(known)), float(np.std(known, ddof=1))) if len(known) > 1 else known[0]


def bootstrap(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None, *, seed: int = 0, draws: int = DRAWS
) -> Interval:
    """The mean of `values` (N,) with its 95 % interval, by drawing them anew with replacement (percentiles).

    Values of one of the `clusters` (N,) are drawn together: those of one video are not independent. Of paired
    differences it is the paired bootstrap. Raises ValueError where there is no value.
    """
    if not len(values):
        raise ValueError("no values to draw from")
    given = np.asarray(values, np.float64)
    labels = range(len(given)) if clusters is None else clusters
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    belongs = np.array([numbers[label] for label in labels])
    sums, counts = np.bincount(belongs, given), np.bincount(belongs)
    drawn = np.random.default_rng(seed).multinomial(len(sums), [1 / len(sums)] * len(sums), size=draws)
    low, high = np.percentile(drawn @ sums / (drawn @ counts), [2.5, 97.5])
    return Interval(float(given.mean()), float(low), float(high))


def final(points: Points, figure: str) -> float:
    """The mean of a figure over the last part of a run."""
    begin = points[-1]["at"] * (1 - LAST_PART)
    return float(np.mean([point[figure] for point in points if point["at"] >= begin]))


def reached(points: Points, target: float, axis: str) -> float | None:
    """Where on `axis` (at, rounds, bytes) accuracy first gets to `target`; None: never."""
    return next((float(point[axis]) for point in points if point["acc2"] >= target), None)


def on_grid(points: Points, axis: str, grid: Sequence[float]) -> list[float]:
    """Accuracy at each place of `grid`: that of the newest model until there, NaN beyond the run's end."""
    places = np.array([point[axis] for point in points], float)
    values = np.array([point["acc2"] for point in points], float)
    found = np.searchsorted(places, np.asarray(grid), side="right") - 1
    return [float(values[i]) if place <= places[-1] else float("nan") for i, place in zip(found, grid, strict=True)]


def mean_curve(runs: Sequence[Points], axis: str, steps: int = 60) -> tuple[list[float], list[float], list[float]]:
    """Grid, mean and deviation of accuracy over runs, as far as every run goes."""
    end = min(float(points[-1][axis]) for points in runs)
    grid = np.linspace(0.0, end, steps).tolist()
    curves = np.array([on_grid(points, axis, grid) for points in runs])
    return grid, curves.mean(axis=0).tolist(), curves.std(axis=0, ddof=1 if len(runs) > 1 else 0).tolist()
