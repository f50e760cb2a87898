"""What training does faster is the same: attention by two products, dropout by few bits, a memory's last steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from megace2_iot.model.attention import attend, drop, look_mask
from megace2_iot.model.config import Dropouts
from megace2_iot.model.fusion import CrossModalTransformer, preset

DIMS = {"text": 6, "audio": 5, "vision": 4}
NONE = Dropouts(attention=0.0, relu=0.0, residual=0.0, embedding=0.0)


@pytest.mark.parametrize("lengths", [[7, 7, 7], [7, 4, 2]])
@pytest.mark.parametrize("causal", [True, False])
def test_two_products_and_a_softmax_are_attention(lengths: list[int], causal: bool) -> None:
    """Scores and gradients as torch's own attention has them, for one mask and for one a sample."""
    q, k, v = (torch.randn(3, 2, time, 4, dtype=torch.float64, requires_grad=True) for time in (5, 7, 7))
    mask = look_mask(torch.full((3,), 5), torch.tensor(lengths), 5, 7, causal=causal)
    masks = [mask, mask[:1]] if len(set(lengths)) == 1 else [mask]
    expected = F.scaled_dot_product_attention(q, k, v, mask)
    wanted = torch.autograd.grad(expected.sum(), (q, k, v))
    for one in masks:
        found = attend(q, k, v, one)
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(torch.autograd.grad(found.sum(), (q, k, v)), wanted)


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    """To three deviations; kept elements are scaled, the draw follows from the seed, and gradients pass where kept."""
    x = torch.ones(317, 331, requires_grad=True)  # no multiple of the four numbers that a word holds
    for chance in (0.1, 0.25, 0.5):
        torch.manual_seed(5)
        dropped = drop(x, chance, training=True)
        spread = 3 * (chance * (1 - chance) / x.numel()) ** 0.5
        assert abs(float((dropped == 0).float().mean()) - chance) < spread
        assert abs(float(dropped.detach().mean()) - 1.0) < spread / (1 - chance)
        assert torch.unique(dropped).tolist() == pytest.approx([0.0, 1 / (1 - chance)], abs=1e-3)
        (gradient,) = torch.autograd.grad(dropped.sum(), x)
        assert torch.equal(gradient, dropped)
        torch.manual_seed(5)
        assert torch.equal(drop(x, chance, training=True), dropped)
    neighbours = (dropped[:, 1:] == 0).float() * (dropped[:, :-1] == 0).float()
    assert float(neighbours.mean()) == pytest.approx(0.25, abs=0.01)  # the four of a word are independent
    assert drop(x, 0.5, training=False) is x
    assert not drop(x, 1.0, training=True).any()


@pytest.mark.parametrize("last_k", [1, 3])
@pytest.mark.parametrize("residual", ["preln", "eq2"])
def test_training_answers_as_inference_does(last_k: int, residual: str) -> None:
    """Without dropout: the last layer of a memory computes only the steps that are read, and nothing else changes."""
    config = replace(preset("nano", DIMS), dropouts=NONE, last_k=last_k, memory_layers=2, residual=residual)
    model = CrossModalTransformer.seeded(config, 0)  # type: ignore[arg-type]
    z = {"text": torch.randn(3, 6, 16), "audio": torch.randn(3, 9, 16), "vision": torch.randn(3, 6, 16)}
    steps = {"text": torch.tensor([6, 2, 1]), "audio": torch.tensor([9, 4, 0]), "vision": torch.tensor([6, 2, 5])}
    found = [model.train(training)(z, steps) for training in (True, False)]
    torch.testing.assert_close(*found, atol=1e-5, rtol=1e-5)
