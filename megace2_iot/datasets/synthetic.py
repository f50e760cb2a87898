"""The built-in corpus: people who say, sound and look what they feel, each part telling a third of it.

Every sample has three hidden feelings, one a modality, of equal size; its score is their sum. They compensate
each other a little (correlation -0.1: a harsh word comes with a smile), so that one modality alone agrees with the
sign of the score in at most 0.672 of the samples and two in 0.779, whatever the learner. A feeling shows along one
fixed direction of its modality's features, and only during a marked stretch of the steps: outside of it the same
direction carries a passing mood that says nothing, so that looking at the right time beats averaging over time. A
stream (one speaker) adds its own constant manner along a third direction.

Sites differ in their raters: those of site i are more or less lenient, an offset on every score, spread evenly
over [-leniency, +leniency]. Nothing in the features tells the site, so one shared model cannot be right
everywhere, and a small personal part can.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from megace2_iot.datasets.sample import Dataset, Sample
from megace2_iot.features import MODALITIES, Features, Modality

DIMS: dict[Modality, int] = {"text": 24, "audio": 12, "vision": 10}
RATES: dict[Modality, float] = {"text": 2.2, "audio": 5.0, "vision": 3.2}  # Hz: about 11, 25 and 16 steps
SHORTEST, LONGEST = 4.0, 6.0  # s of a sample
SPREAD = 1.8  # standard deviation of a score before raters
COMPENSATION = 0.15  # share of the common feeling that each modality holds back
RATER_NOISE = 0.1
NOISE = 0.3  # of every feature at every step
MARK = 2.0  # how clearly the telling stretch is marked
MOOD = 0.5  # standard deviation of what the other steps carry where the feeling (1.0) would be
TELLING = 0.6  # share of the steps that tell
TEST_SHARE = 0.25  # of a site's streams

Vector = npt.NDArray[np.float64]


def synthetic(
    seed: int = 0, *, sites: int = 2, streams: int = 16, samples: int = 100, leniency: float = 0.55
) -> Dataset:
    """`sites` times `streams` streams of `samples` samples each; all of it follows from `seed`.

    The last quarter of each site's streams is the test split. Raises ValueError for fewer than 2 streams a site.
    """
    if sites < 1 or streams < 2 or samples < 1:
        raise ValueError("a corpus needs a site, 2 streams a site (train and test) and a sample a stream")
    rng = np.random.default_rng([seed, 0x5E7])
    directions = {m: _directions(rng, DIMS[m]) for m in MODALITIES}
    offsets = np.linspace(-leniency, leniency, sites) if sites > 1 else np.zeros(1)
    first_test = streams - max(1, round(TEST_SHARE * streams))
    made: list[Sample] = []
    for site in range(sites):
        for stream in range(streams):
            name = f"site{site}-stream{stream:02d}"
            split = "train" if stream < first_test else "test"
            made += _stream(rng, directions, name, split, site, float(offsets[site]), samples)
    notes = (
        f"generated from seed {seed}; one modality alone cannot pass 0.672 accuracy",
        f"raters' leniency by site: {', '.join(f'{offset:+.2f}' for offset in offsets)}",
    )
    return Dataset("synthetic", dict(DIMS), tuple(made), notes)


def _directions(rng: np.random.Generator, dim: int) -> Vector:
    """(3, D): orthonormal directions of the feeling, the mark and the manner."""
    basis, _ = np.linalg.qr(rng.standard_normal((dim, 3)))
    directions: Vector = basis.T
    return directions


def _stream(
    rng: np.random.Generator,
    directions: dict[Modality, Vector],
    name: str,
    split: str,
    site: int,
    offset: float,
    samples: int,
) -> list[Sample]:
    manner = {m: float(rng.normal()) for m in MODALITIES}
    start, made = 0.0, []
    for i in range(samples):
        duration = float(rng.uniform(SHORTEST, LONGEST))
        feelings = rng.normal(size=3)
        total = feelings.sum() / math.sqrt(3.0)  # spread 1
        score = SPREAD * total + RATER_NOISE * rng.normal() + offset
        feelings -= COMPENSATION * feelings.mean()
        features = {
            m: Features(_show(rng, directions[m], feeling, manner[m], round(duration * RATES[m])), RATES[m])
            for m, feeling in zip(MODALITIES, feelings, strict=True)
        }
        sample = Sample(
            id=f"{name}-{i:03d}",
            group=name,
            split="train" if split == "train" else "test",
            start=start,
            score=float(np.clip(score, -3.0, 3.0)),
            features=features,
            site=site,
        )
        made.append(sample)
        start += duration + float(rng.uniform(0.5, 2.0))  # a pause
    return made


def _show(
    rng: np.random.Generator, directions: Vector, feeling: float, manner: float, steps: int
) -> npt.NDArray[np.float32]:
    """(T, D): the feeling in a marked stretch, a mood elsewhere, the speaker's manner and noise throughout."""
    length = max(1, round(TELLING * steps))
    begin = int(rng.integers(0, steps - length + 1))
    telling = np.zeros(steps, bool)
    telling[begin : begin + length] = True
    shown = np.where(telling, feeling, MOOD * rng.normal())
    marked = np.where(telling, MARK, 0.0)
    parts = np.stack([shown, marked, np.full(steps, manner)], axis=1)  # (T, 3)
    values = parts @ directions + NOISE * rng.standard_normal((steps, directions.shape[1]))
    return values.astype(np.float32)
