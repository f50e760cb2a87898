"""The fused path gives the model's own answers, whatever meets in a batch, and says what it does not serve."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from megace2_iot.features import MODALITIES
from megace2_iot.model import fused as module
from megace2_iot.model.adapter import Adapter, attach
from megace2_iot.model.fused import FusedModel
from megace2_iot.model.fusion import CrossModalTransformer, ModelConfig, preset

DIMS = {"text": 6, "audio": 5, "vision": 4}
NANO = preset("nano", DIMS)
DEEP = replace(NANO, layers=3, memory_layers=4, last_k=3, outputs=2, ffn_ratio=2)


def model_of(config: ModelConfig) -> CrossModalTransformer:
    """With norms that are not those of a new model, so that folding them is seen."""
    model = CrossModalTransformer.seeded(config, 0).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    return model


def batch(width: int, **steps: list[int]):
    """Right-padded noise of these true lengths; what is padded is absurd, so that a leak is seen."""
    z, lengths = {}, {}
    for modality, counts in steps.items():
        generator = torch.Generator().manual_seed(len(counts) + len(modality))
        x = torch.randn(len(counts), max(counts), width, generator=generator)
        for row, count in zip(x, counts, strict=True):
            row[count:] = 1e3
        z[modality], lengths[modality] = x, torch.tensor(counts)
    return z, lengths


BATCHES = [
    {"text": [7], "audio": [7], "vision": [7]},
    {"text": [4], "audio": [9], "vision": [12]},
    {"text": [7, 3, 1], "audio": [7, 7, 2], "vision": [7, 1, 6]},
    {"text": [5, 2], "audio": [9, 9], "vision": [3, 4]},
    {"text": [5, 6], "vision": [6, 6]},
    {"audio": [1, 4], "vision": [8, 2]},
]


@pytest.mark.parametrize("config", [NANO, DEEP], ids=["nano", "deep"])
@pytest.mark.parametrize("steps", BATCHES)
@pytest.mark.parametrize("placement", [None, "inserted", "output"])
@pytest.mark.parametrize("short", [128, 0])
def test_the_same_answers(
    config: ModelConfig, steps: dict[str, list[int]], placement: str | None, short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For equal and different lengths, padding, a lacking modality, either attention, an adapter in either place."""
    monkeypatch.setattr(module, "SHORT", short)
    model = model_of(config)
    if placement:
        adapter = Adapter(config, placement)  # type: ignore[arg-type]
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.mul_(20)
        attach(model, adapter)
    z, lengths = batch(config.width, **steps)
    fused = FusedModel(model)
    assert fused.serves(lengths)
    with torch.inference_mode():
        torch.testing.assert_close(fused(z, lengths), model(z, lengths), atol=2e-5, rtol=2e-5)


def test_a_batch_in_pieces_is_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces that fit into the cache, the last one smaller."""
    monkeypatch.setattr(module, "SCORES", 1)
    model = model_of(NANO)
    z, lengths = batch(NANO.width, text=[5] * 9, audio=[3] * 9, vision=[4] * 9)
    with torch.inference_mode():
        torch.testing.assert_close(FusedModel(model)(z, lengths), model(z, lengths), atol=2e-5, rtol=2e-5)


def test_new_weights_are_packed() -> None:
    """A swap is seen after `pack`, and not before."""
    model = model_of(NANO)
    fused = FusedModel(model)
    z, lengths = batch(NANO.width, **BATCHES[0])
    before = fused(z, lengths)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    fused.pack()
    after = fused(z, lengths)
    assert not torch.allclose(before, after)
    with torch.inference_mode():
        torch.testing.assert_close(after, model(z, lengths), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize(
    ("config", "lengths"),
    [
        (NANO, {"text": [3, 0], "audio": [1, 1]}),
        (NANO, {"text": [3, 2]}),
        (NANO, {"text": [0], "audio": [2], "vision": [0]}),
        (replace(NANO, residual="eq2"), {"text": [3], "audio": [1]}),
        (replace(NANO, mult_compat=True), {"text": [3], "audio": [1]}),
        (replace(NANO, causal=False), {"text": [3], "audio": [1]}),
    ],
)
def test_what_it_does_not_serve(config: ModelConfig, lengths: dict[str, list[int]]) -> None:
    """Samples that lack what others have, one modality alone, and the readings that few use."""
    counts = {m: torch.tensor(lengths[m]) for m in MODALITIES if m in lengths}
    assert not FusedModel(model_of(config)).serves(counts)  # type: ignore[arg-type]
