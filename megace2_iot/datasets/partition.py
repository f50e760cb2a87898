"""Deal samples to edges and devices: whole streams, balanced by number of samples; or skewed by label or by size."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from megace2_iot.datasets.sample import Sample

Share = tuple[Sample, ...]

FEWEST = 5  # samples a device gets at least from the skewed partitions
MOST_DRAWS = 1000  # before they give up


def by_edge(samples: Sequence[Sample], edges: int, devices: int) -> list[list[Share]]:
    """For each edge, the shares of its `devices` devices. Sites go to edges whole where the data have several.

    Raises ValueError where there are fewer sites (of several) than edges, or fewer streams than devices.
    """
    sites = sorted({sample.site for sample in samples})
    if len(sites) < 2:
        return [by_group(share, devices) for share in by_group(samples, edges)]
    if len(sites) < edges:
        raise ValueError(f"{len(sites)} sites cannot be dealt to {edges} edges")
    edge_of = {site: i % edges for i, site in enumerate(sites)}
    return [by_group([s for s in samples if edge_of[s.site] == edge], devices) for edge in range(edges)]


def by_group(samples: Sequence[Sample], shares: int) -> list[Share]:
    """Whole groups (videos, streams) to `shares` shares, largest first to whoever has least; order is kept.

    Raises ValueError where there are fewer groups than shares.
    """
    sizes: dict[str, int] = defaultdict(int)
    for sample in samples:
        sizes[sample.group] += 1
    if len(sizes) < shares:
        raise ValueError(f"{len(sizes)} streams cannot be dealt whole to {shares}")
    loads = [0] * shares
    owner: dict[str, int] = {}
    for group in sorted(sizes, key=lambda name: (-sizes[name], name)):
        least = loads.index(min(loads))
        owner[group] = least
        loads[least] += sizes[group]
    return [tuple(s for s in samples if owner[s.group] == share) for share in range(shares)]


def dirichlet(samples: Sequence[Sample], shares: int, alpha: float, seed: int) -> list[Share]:
    """Shares whose label mixtures differ: each of the 7 rounded classes is split by Dirichlet(alpha).

    A small alpha gives each share few classes, a large one makes them alike. Drawn again until every share has
    at least 5 samples. Raises ValueError where 1000 draws give no such split.
    """
    classes: dict[int | None, list[int]] = defaultdict(list)
    for i, sample in enumerate(samples):
        classes[None if sample.score is None else round(min(3.0, max(-3.0, sample.score)))].append(i)
    rng = np.random.default_rng(seed)
    for _ in range(MOST_DRAWS):
        owner = np.zeros(len(samples), np.int64)
        for members in classes.values():
            cuts = np.cumsum(rng.dirichlet([alpha] * shares))[:-1] * len(members)
            for share, part in enumerate(np.split(rng.permutation(members), cuts.astype(int))):
                owner[part] = share
        if np.bincount(owner, minlength=shares).min() >= FEWEST:
            return [tuple(s for s, o in zip(samples, owner, strict=True) if o == share) for share in range(shares)]
    raise ValueError(f"no split of {len(samples)} samples by Dirichlet({alpha}) gives {shares} shares {FEWEST} each")


def size_skewed(samples: Sequence[Sample], shares: int, alpha: float, seed: int) -> list[Share]:
    """Shares of very different sizes and alike mixtures: sizes are drawn from Dirichlet(alpha), samples at random.

    A small alpha gives most samples to a few, a large one makes the shares equal. Drawn again until every share has
    at least 5 samples; the order of samples is kept. Raises ValueError where 1000 draws give no such sizes.
    """
    rng = np.random.default_rng(seed)
    for _ in range(MOST_DRAWS):
        cuts = (np.cumsum(rng.dirichlet([alpha] * shares))[:-1] * len(samples)).astype(int)
        parts = np.split(rng.permutation(len(samples)), cuts)
        if min(len(part) for part in parts) >= FEWEST:
            return [tuple(samples[i] for i in sorted(part.tolist())) for part in parts]
    raise ValueError(f"no sizes by Dirichlet({alpha}) give {shares} shares of {len(samples)} samples {FEWEST} each")
