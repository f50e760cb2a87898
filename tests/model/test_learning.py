"""A nano model on the built-in corpus: it needs all three modalities, and a small adapter makes it a site's own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from megace2_iot.datasets.synthetic import synthetic
from megace2_iot.features import MODALITIES, Modality
from megace2_iot.model.adapter import Adapter, detach
from megace2_iot.model.evaluation import evaluate
from megace2_iot.model.fusion import CrossModalTransformer, preset
from megace2_iot.model.state import stem_of
from megace2_iot.model.training import Example, TrainingSettings, fine_tune, fit

SETTINGS = TrainingSettings(learning_rate=3e-3, batch_size=32, epochs=3)
CORPUS = synthetic(0)
MODEL = CrossModalTransformer.seeded(preset("nano", CORPUS.dims), seed=0)
STEM = stem_of(MODEL)


def examples(split: str, modalities: Sequence[Modality] = MODALITIES, site: int | None = None) -> list[Example]:
    chosen = [s for s in CORPUS.samples if s.split == split and (site is None or s.site == site)]
    return [
        Example({m: STEM.embed(m, s.features[m].values) for m in modalities}, s.score)
        for s in chosen
        if s.score is not None
    ]


@pytest.fixture(scope="module")
def base() -> CrossModalTransformer:
    """A model that has seen every site's train streams."""
    model = CrossModalTransformer.seeded(MODEL.config, seed=0)
    fit(model, examples("train"), SETTINGS, seed=0)
    return model


def test_all_three_together_are_understood(base: CrossModalTransformer) -> None:
    """Within a few passes the shared model is far from chance, though raters disagree."""
    assert evaluate(base, examples("test")).acc2 > 0.82


@pytest.mark.parametrize("modality", MODALITIES)
def test_no_modality_alone_is_enough(modality: Modality) -> None:
    """A trained model of one modality learns something, and stays below what the corpus allows it."""
    model = CrossModalTransformer.seeded(MODEL.config, seed=0)
    fit(model, examples("train", [modality]), SETTINGS, seed=0)
    assert 0.58 < evaluate(model, examples("test", [modality])).acc2 < 0.70


def test_an_adapter_makes_it_a_sites_own(base: CrossModalTransformer) -> None:
    """A tenth of a site's labels turn the shared answer into the site's: better in the mean over sites."""
    gains = []
    for site in (0, 1):
        pool, test = examples("train", site=site), examples("test", site=site)
        few = [pool[i] for i in np.random.default_rng(0).permutation(len(pool))[: len(pool) // 10]]
        before = evaluate(base, test).acc2
        fine_tune(base, Adapter(base.config), few)
        gains.append(evaluate(base, test).acc2 - before)
        detach(base)
    assert np.mean(gains) > 0.02
