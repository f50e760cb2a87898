"""Two things that an update of a device tells without any attack: which sensors it has, and what it thinks on average.

Inverting gradients (Zhu et al. 2019, Geiping et al. 2020, Gupta et al. 2022) is not done here: see docs/privacy.md.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from megace2_iot.cli.experiments.exposure.finding import Finding
from megace2_iot.datasets.synthetic import synthetic
from megace2_iot.model.config import preset
from megace2_iot.model.fusion import CrossModalTransformer
from megace2_iot.model.state import base_tensors, load_base, stem_of
from megace2_iot.model.training import Example, TrainingSettings, fit

DEVICES, SAMPLES = 24, 24
TRIED = "an update, its device's own"


def of_rounds(seed: int) -> Iterator[Finding]:
    """Devices of skewed opinions train one round each from the same base; every third has no camera."""
    dataset = synthetic(seed, sites=1)
    model = CrossModalTransformer.seeded(preset("nano", dataset.dims), seed)
    stem, base = stem_of(model), base_tensors(model)
    random = np.random.default_rng(seed)
    rated = sorted((s for s in dataset.samples if s.score is not None), key=lambda s: s.score or 0.0)
    moves, means, right = [], [], []
    for number in range(DEVICES):
        centre = random.uniform(0.15, 0.85) * len(rated)
        at = np.clip(random.normal(centre, 0.15 * len(rated), SAMPLES), 0, len(rated) - 1).astype(int)
        is_blind = number % 3 == 0
        own = [
            Example(
                {m: stem.embed(m, f.values) for m, f in rated[n].features.items() if m != "vision" or not is_blind},
                float(rated[n].score or 0.0),
            )
            for n in at
        ]
        load_base(model, base)
        fit(model, own, TrainingSettings(), seed)
        delta = {name: tensor - base[name] for name, tensor in base_tensors(model).items()}
        still = all(not part.any() for name, part in delta.items() if name.split(".")[0] == "vision_memory")
        right.append(still == is_blind)
        moves.append(_last_bias(delta))
        means.append(float(np.mean([example.score for example in own])))
    yield Finding(
        TRIED, "delta of one round", "float32", "whether it has a camera, part right", float(np.mean(right)), 2 / 3
    )
    likeness = float(np.corrcoef(moves, means)[0, 1])
    yield Finding(TRIED, "delta of one round", "float32", "head's bias by mean label, correlation", likeness, 0.0)


def _last_bias(delta: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]) -> float:
    """What the last bias of the head moved by: it adds to every score."""
    (move,) = (part for name, part in delta.items() if name.startswith("head.") and part.shape == (1,))
    return float(move[0])
