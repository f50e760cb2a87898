"""The adapter of equation (5): small, apart from the base, and the only thing that fine-tuning moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from megace2_iot.model.adapter import Adapter, Placement, adapter_tensors, attach, detach, load_adapter
from megace2_iot.model.evaluation import answer
from megace2_iot.model.fusion import CrossModalTransformer, preset
from megace2_iot.model.state import base_tensors
from megace2_iot.model.training import Example, TrainingSettings, fine_tune

PLACEMENTS: tuple[Placement, ...] = ("inserted", "output")


def examples(count: int, seed: int = 0) -> list[Example]:
    rng = np.random.default_rng(seed)
    lengths = {"text": 4, "audio": 7, "vision": 5}
    made = []
    for i in range(count):
        z = {m: rng.standard_normal((steps - i % 3, 16)).astype(np.float32) for m, steps in lengths.items()}
        made.append(Example(z, 2.0))
    return made


def test_its_size_beside_the_paper_preset() -> None:
    """113,250 parameters, 0.453 MB: 0.9 % of the model, as table 5 has it."""
    adapter = Adapter(preset("paper", {"text": 300, "audio": 74, "vision": 35}))
    size = sum(p.numel() for p in adapter.parameters())
    assert size == 113_250
    assert round(size * 4 / 1e6, 3) == 0.453


def test_it_starts_small_and_without_biases() -> None:
    """N(0, 0.02^2) weights, zero biases, and the seed decides."""
    config = preset("paper", {"text": 300, "audio": 74, "vision": 35})
    adapter = Adapter(config, seed=1)
    assert adapter.attention.in_proj_weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not adapter.attention.in_proj_bias.any()
    assert torch.equal(adapter.linear.weight, Adapter(config, seed=1).linear.weight)
    assert not torch.equal(adapter.linear.weight, Adapter(config, seed=2).linear.weight)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_attach_and_detach_leave_the_base_as_it_was(nano: CrossModalTransformer, placement: Placement) -> None:
    """An attached adapter shows in the answers, a detached one leaves no trace."""
    base, samples = base_tensors(nano), examples(4)
    alone = answer(nano, samples)
    adapter = Adapter(nano.config, placement)
    with torch.no_grad():
        adapter.linear.bias.copy_(torch.linspace(-0.5, 0.5, len(adapter.linear.bias)))
    attach(nano, adapter)
    assert np.abs(answer(nano, samples) - alone).min() > 1e-3
    assert detach(nano) is adapter
    np.testing.assert_array_equal(answer(nano, samples), alone)
    assert all(np.array_equal(tensor, base_tensors(nano)[name]) for name, tensor in base.items())


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_fine_tuning_moves_the_adapter_alone(nano: CrossModalTransformer, placement: Placement) -> None:
    """The loss falls while every tensor of the base stays bit for bit."""
    base, samples = base_tensors(nano), examples(32)
    before = np.abs(answer(nano, samples) - 2.0).mean()
    adapter = Adapter(nano.config, placement)
    fine_tune(nano, adapter, samples, TrainingSettings(learning_rate=0.02, epochs=10))
    assert nano.adapter is adapter
    assert np.abs(answer(nano, samples) - 2.0).mean() < 0.5 * before
    assert all(np.array_equal(tensor, base_tensors(nano)[name]) for name, tensor in base.items())
    assert all(p.requires_grad for p in nano.parameters())


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_an_adapted_answer_does_not_depend_on_batch_mates(nano: CrossModalTransformer, placement: Placement) -> None:
    """The adapter looks at valid steps only."""
    adapter = Adapter(nano.config, placement, seed=3)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.mul_(10.0)
    attach(nano, adapter)
    samples = [*examples(5), Example({"audio": np.ones((3, 16), np.float32)}, 0.0)]
    alone = np.concatenate([answer(nano, [sample]) for sample in samples])
    np.testing.assert_allclose(answer(nano, samples), alone, atol=1e-5)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_lone_modality_can_be_adapted(nano: CrossModalTransformer, placement: Placement) -> None:
    """Microphones only: there is no cross-modal layer, and the adapter still learns."""
    samples = [Example({"audio": e.z["audio"]}, e.score) for e in examples(16)]
    before = np.abs(answer(nano, samples) - 2.0).mean()
    fine_tune(nano, Adapter(nano.config, placement), samples, TrainingSettings(learning_rate=0.02, epochs=10))
    assert np.abs(answer(nano, samples) - 2.0).mean() < 0.7 * before


def test_tensors_there_and_back(nano: CrossModalTransformer) -> None:
    """What the edge keeps on its disk is the whole adapter; another shape is refused."""
    one, two = Adapter(nano.config, seed=1), Adapter(nano.config, seed=2)
    load_adapter(two, adapter_tensors(one))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_adapter(Adapter(nano.config, "output"), adapter_tensors(one))


def test_what_cannot_be_attached_is_refused(nano: CrossModalTransformer) -> None:
    """Another model's adapter, and a place that does not exist."""
    with pytest.raises(ValueError, match="40 wide on a model 16 wide"):
        attach(nano, Adapter(preset("mult", nano.config.dims)))
    with pytest.raises(ValueError, match="placed inserted or output"):
        Adapter(nano.config, "elsewhere")  # type: ignore[arg-type]
