"""Means and deviations over seeds, and curves on a common grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

Points = Sequence[Mapping[str, Any]]
LAST_PART = 0.25  # of a run, over which its final scores are the mean: one release alone swings


def spread(values: Sequence[float | None]) -> tuple[float, float] | float | None:
    """Mean and deviation (of a sample), one value by itself, None where a value is missing or there is none."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return (float(np.mean(known)), float(np.std(known, ddof=1))) if len(known) > 1 else known[0]


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
