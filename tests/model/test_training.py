"""The training loop: it learns, it stops, and it moves what it may move and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from megace2_iot.features import Modality
from megace2_iot.model.adapter import Adapter, attach
from megace2_iot.model.evaluation import answer, evaluate
from megace2_iot.model.fusion import CrossModalTransformer
from megace2_iot.model.state import base_tensors, stem_of
from megace2_iot.model.training import Example, TrainingSettings, collate, examples_per_group, fit

EVERYTHING: tuple[Modality, ...] = ("text", "audio", "vision")


def examples(count: int, present: tuple[Modality, ...] = EVERYTHING, seed: int = 0) -> list[Example]:
    """Noise of various lengths, and a score that shows in the mean of channel 0 of each modality."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        score = rng.uniform(-3.0, 3.0)
        z = {m: rng.standard_normal((rng.integers(2, 6), 16)).astype(np.float32) for m in present}
        for values in z.values():
            values[:, 0] += score
        made.append(Example(z, float(score)))
    return made


def test_collate_pads_with_zeros_and_tells_true_lengths() -> None:
    """Mixed examples: a shorter one, and one that lacks a modality."""
    ones = np.ones((3, 4), np.float32)
    batch = collate([Example({"text": ones}, 1.0), Example({"text": ones[:1], "audio": ones}, -1.0)])
    assert batch.z["text"].sum(dim=(1, 2)).tolist() == [12.0, 4.0]
    assert {m: steps.tolist() for m, steps in batch.lengths.items()} == {"text": [3, 1], "audio": [0, 3]}
    assert "vision" not in batch.z


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_fit_learns(nano: CrossModalTransformer, precision: Any) -> None:
    """A plain dependence is found in a few epochs, in either precision; parameters are float32."""
    train, test = examples(160), examples(60, seed=1)
    before = evaluate(nano, test).mae
    result = fit(nano, train, TrainingSettings(learning_rate=3e-3, epochs=6, precision=precision), seed=0)
    assert {p.dtype for p in nano.parameters()} == {torch.float32}
    assert result.steps == 60
    assert evaluate(nano, test).mae < 0.6 * before
    assert evaluate(nano, test).acc2 > 0.8


def test_fit_moves_only_what_the_examples_touch(nano: CrossModalTransformer) -> None:
    """No camera: what looks at or with vision has a delta of exactly zero, decay and pull or not; so has the stem."""
    before, stem = base_tensors(nano), stem_of(nano)
    settings = TrainingSettings(weight_decay=0.1, proximal_mu=0.1, epochs=2)
    fit(nano, examples(20, ("text", "audio")), settings, seed=0)
    moved = {name.split(".")[0] for name, tensor in base_tensors(nano).items() if (tensor != before[name]).any()}
    assert moved == {"text_from_audio", "audio_from_text", "text_memory", "audio_memory", "head"}
    np.testing.assert_array_equal(stem_of(nano).weights["text"], stem.weights["text"])


def test_examples_behind_each_group() -> None:
    """Denominators of the average: a pair counts where both of it are there."""
    mixed = [*examples(3), *examples(2, ("text", "audio")), *examples(1, ("vision",))]
    counts = examples_per_group(mixed)
    assert counts["head"] == 6
    assert counts["text_memory"] == counts["text_from_audio"] == 5
    assert counts["vision_memory"] == 4
    assert counts["vision_from_text"] == 3
    assert len(counts) == 10


def test_a_fit_follows_from_its_seed(nano: CrossModalTransformer) -> None:
    """Order and dropout repeat with the seed, and torch's own generator is left alone."""
    config = replace(nano.config, dropouts=replace(nano.config.dropouts, embedding=0.3))
    torch_state = torch.random.get_rng_state()
    made = []
    for seed in (1, 1, 2):
        model = CrossModalTransformer.seeded(config, seed=0)
        fit(model, examples(20), TrainingSettings(), seed=seed)
        made.append(base_tensors(model)["head.out.weight"])
    assert np.array_equal(made[0], made[1])
    assert not np.array_equal(made[0], made[2])
    assert torch.equal(torch.random.get_rng_state(), torch_state)


def test_fit_stops_between_batches(nano: CrossModalTransformer) -> None:
    """A round that ends, or a time that is over, ends a fit."""
    polls = iter([False, False, True])
    result = fit(nano, examples(64), TrainingSettings(epochs=9), seed=0, should_stop=lambda: next(polls))
    assert (result.steps, result.stopped) == (2, True)
    result = fit(nano, examples(64), TrainingSettings(max_seconds=0.0), seed=0)
    assert (result.steps, result.loss, result.stopped) == (0, None, True)
    with pytest.raises(ValueError, match="no examples"):
        fit(nano, [], TrainingSettings(), seed=0)


def test_the_proximal_pull_keeps_a_fit_near(nano: CrossModalTransformer) -> None:
    """FedProx: a strong mu leaves less of a way from the base."""
    start = base_tensors(nano)["head.contract.weight"]
    ways = []
    for mu in (0.0, 10.0):
        model = CrossModalTransformer.seeded(nano.config, seed=1)
        fit(model, examples(64), TrainingSettings(epochs=3, proximal_mu=mu), seed=0)
        ways.append(float(np.abs(base_tensors(model)["head.contract.weight"] - start).mean()))
    assert ways[1] < 0.7 * ways[0]


def test_fit_trains_the_base_alone(nano: CrossModalTransformer) -> None:
    """An attached adapter neither shapes the round's training nor is changed by it, and is there again after."""
    adapter = Adapter(nano.config)
    weights = adapter.linear.weight.detach().clone()
    attach(nano, adapter)
    bare = CrossModalTransformer.seeded(nano.config, seed=1)
    for model in (nano, bare):
        fit(model, examples(20), TrainingSettings(), seed=0)
    assert nano.adapter is adapter
    assert torch.equal(adapter.linear.weight, weights)
    assert all(np.array_equal(tensor, base_tensors(bare)[name]) for name, tensor in base_tensors(nano).items())


def test_answers_come_in_order_whatever_the_batch(nano: CrossModalTransformer) -> None:
    """Batching of an evaluation changes nothing; no examples give no answers."""
    mixed = [*examples(5), *examples(3, ("audio",))]
    np.testing.assert_allclose(answer(nano, mixed, batch_size=3), answer(nano, mixed), atol=1e-5)
    assert answer(nano, []).shape == (0,)
