"""Intervals with known answers, and pairs of the same samples."""

from __future__ import annotations

import numpy as np
import pytest

from megace2_iot.cli.experiments.comparison import Answers, difference
from megace2_iot.cli.experiments.statistics import bootstrap


def test_the_interval_of_a_fair_coin() -> None:
    """400 values, half of them 1: the mean's deviation is 0.025, so its interval is 0.5 ± 0.049."""
    mean, low, high = bootstrap([0.0, 1.0] * 200)
    assert mean == 0.5
    assert (low, high) == (pytest.approx(0.451, abs=0.004), pytest.approx(0.549, abs=0.004))


def test_clusters_are_drawn_whole() -> None:
    """Two clusters of 0 and 1: both are drawn with chance 1/2, else one twice. Alone, 100 values are more certain."""
    values, clusters = [0.0] * 50 + [1.0] * 50, ["a"] * 50 + ["b"] * 50
    assert bootstrap(values, clusters) == (0.5, 0.0, 1.0)
    assert bootstrap(values).low > 0.39


def test_clusters_of_one_are_rows() -> None:
    """The same draws, from the same seed; and nothing can be said of nothing."""
    values = np.random.default_rng(0).normal(size=30).tolist()
    assert bootstrap(values, range(30), seed=3) == bootstrap(values, seed=3)
    with pytest.raises(ValueError, match="no values"):
        bootstrap([])


def said(*answers: float) -> Answers:
    """Four positive samples of two videos."""
    return {f"s{n}": ["v1" if n < 2 else "v2", 1.0, answer] for n, answer in enumerate(answers)}


def test_a_row_counts_once_whatever_the_seeds() -> None:
    """Two seeds on the same data are means over them; on other data they are other rows."""
    ours, others = said(1, 1, 1, -1), said(1, -1, -1, 1)
    pairs = [("data", ours, others), ("data", others, others)]
    same = difference(pairs)
    assert same is not None
    assert (same.by_row.mean, same.rows, same.groups, same.seeds) == (0.125, 4, 2, 2)
    apart = difference([("one", *pairs[0][1:]), ("two", *pairs[1][1:])])
    assert apart is not None
    assert (apart.rows, apart.groups) == (8, 4)
    assert difference([]) is None


def test_a_difference_of_nothing_is_certain() -> None:
    """Equal answers: an interval of width 0."""
    found = difference([("data", said(1, -1, 1, -1), said(2, -2, 2, -2))])
    assert found is not None
    assert found.by_row == found.by_group == (0.0, 0.0, 0.0)
