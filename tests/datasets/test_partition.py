"""Dealing samples out: whole streams, sites to their edges, or mixtures skewed by label or by size."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from megace2_iot.datasets.partition import by_edge, by_group, dirichlet, size_skewed
from megace2_iot.datasets.sample import Sample
from megace2_iot.datasets.synthetic import synthetic

MakeSample = Callable[..., Sample]


def test_streams_are_dealt_whole_and_evenly(plain_sample: MakeSample) -> None:
    """No stream is split, nothing is lost, and the largest do not meet on one device."""
    sizes = {"a": 50, "b": 40, "c": 30, "d": 20, "e": 10}
    samples = [plain_sample(i, group) for group, size in sizes.items() for i in range(size)]
    shares = by_group(samples, 2)
    assert [len(share) for share in shares] == [80, 70]
    groups = [{s.group for s in share} for share in shares]
    assert groups == [{"a", "d", "e"}, {"b", "c"}]
    with pytest.raises(ValueError, match="5 streams cannot be dealt whole to 6"):
        by_group(samples, 6)


def test_sites_stay_with_their_edge() -> None:
    """An edge serves one population where the data have several."""
    shares = by_edge(synthetic(0, streams=8, samples=5).split("train"), edges=2, devices=3)
    assert [[{s.site for s in share} for share in edge] for edge in shares] == [[{0}] * 3, [{1}] * 3]
    assert [[len(share) for share in edge] for edge in shares] == [[10, 10, 10]] * 2
    with pytest.raises(ValueError, match="2 sites cannot be dealt to 3 edges"):
        by_edge(synthetic(0, streams=8, samples=5).samples, edges=3, devices=2)


def test_data_of_one_site_are_dealt_to_edges_by_stream(plain_sample: MakeSample) -> None:
    """Without sites every edge gets its part of the streams."""
    samples = [plain_sample(i, f"v{i % 12}") for i in range(120)]
    shares = by_edge(samples, edges=2, devices=3)
    assert [[len(share) for share in edge] for edge in shares] == [[20, 20, 20]] * 2
    dealt = [s.id for edge in shares for share in edge for s in share]
    assert sorted(dealt) == sorted(s.id for s in samples)


def test_dirichlet_skews_labels(plain_sample: MakeSample) -> None:
    """A small alpha separates the classes, a large one mixes them; the seed decides, nothing is lost."""
    rng = np.random.default_rng(0)
    samples = [plain_sample(i, "g", score=float(s)) for i, s in enumerate(rng.uniform(-3, 3, 700))]

    def spread(alpha: float) -> float:
        shares = dirichlet(samples, 4, alpha, seed=1)
        assert sorted(s.id for share in shares for s in share) == sorted(s.id for s in samples)
        return float(np.std([np.mean([s.score for s in share]) for share in shares]))

    assert spread(0.1) > 3 * spread(100.0)
    again = [[[s.id for s in share] for share in dirichlet(samples, 4, 0.5, seed=2)] for _ in range(2)]
    assert again[0] == again[1]
    with pytest.raises(ValueError, match="no split of 6 samples"):
        dirichlet(samples[:6], 4, 1.0, seed=0)


def test_sizes_can_be_skewed(plain_sample: MakeSample) -> None:
    """A small alpha gives most to a few, a large one makes shares equal; labels stay mixed, nothing is lost."""
    rng = np.random.default_rng(0)
    samples = [plain_sample(i, "g", score=float(s)) for i, s in enumerate(rng.uniform(-3, 3, 1000))]

    def largest(alpha: float) -> int:
        shares = size_skewed(samples, 5, alpha, seed=1)
        assert sorted(s.start for share in shares for s in share) == [s.start for s in samples]
        assert all([s.start for s in share] == sorted(s.start for s in share) for share in shares)
        assert min(len(share) for share in shares) >= 5
        means = [np.mean([s.score for s in share]) for share in shares if len(share) > 100]
        assert np.ptp(means) < 0.6
        return max(len(share) for share in shares)

    assert largest(0.3) > 350 > 250 > largest(1000.0) >= 200
    with pytest.raises(ValueError, match="no sizes by Dirichlet"):
        size_skewed(samples[:20], 5, 1.0, seed=0)
