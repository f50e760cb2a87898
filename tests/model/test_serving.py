"""The fast paths give the model's own answers, whatever meets in a batch, and say what they do not serve."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from megace2_iot.features import MODALITIES
from megace2_iot.model import attention, fused, graph_model
from megace2_iot.model.adapter import Adapter, attach
from megace2_iot.model.fused import FusedModel
from megace2_iot.model.fusion import CrossModalTransformer, ModelConfig, preset
from megace2_iot.model.graph_model import GraphModel
from megace2_iot.model.serving import FastPath, Serving

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


PATHS: dict[str, tuple[type[FusedModel] | type[GraphModel], Any, dict[str, int]]] = {
    "torch, two products": (FusedModel, fused, {}),
    "torch, its own attention": (FusedModel, attention, {"SHORT": 0}),
    "torch, in pieces": (FusedModel, fused, {"SCORES": 1}),
    "onnx, together": (GraphModel, graph_model, {}),
    "onnx, apart": (GraphModel, graph_model, {"TOGETHER": 0}),
    "onnx, in pieces": (GraphModel, graph_model, {"SCORES": 1}),
}


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> type[FusedModel] | type[GraphModel]:
    """Every way that a batch can take."""
    kind, module, constants = PATHS[request.param]
    for name, value in constants.items():
        monkeypatch.setattr(module, name, value)
    return kind


@pytest.mark.parametrize("config", [NANO, DEEP], ids=["nano", "deep"])
@pytest.mark.parametrize("placement", [None, "inserted", "output"])
def test_the_same_answers(config: ModelConfig, placement: Any, path: type[FusedModel] | type[GraphModel]) -> None:
    """For equal and different lengths, padding, a lacking modality, an adapter in either place."""
    model = model_of(config)
    if placement:
        adapter = Adapter(config, placement)
        with torch.no_grad():
            for parameter in adapter.parameters():
                parameter.mul_(10)
        attach(model, adapter)
    fast = path(model)
    for steps in BATCHES:
        z, lengths = batch(config.width, **steps)
        assert fast.serves(lengths)
        with torch.inference_mode():
            torch.testing.assert_close(fast(z, lengths), model(z, lengths), atol=2e-5, rtol=2e-5, msg=str(steps))


def test_new_weights_and_adapters_are_packed(path: type[FusedModel] | type[GraphModel]) -> None:
    """A swap is seen after `pack`, and not before."""
    model = model_of(NANO)
    fast = path(model)
    z, lengths = batch(NANO.width, **BATCHES[0])
    before = fast(z, lengths)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    fast.pack()
    after = fast(z, lengths)
    assert not torch.allclose(before, after)
    with torch.inference_mode():
        torch.testing.assert_close(after, model(z, lengths), atol=2e-5, rtol=2e-5)
    for seed in (1, 2):
        attach(model, Adapter(NANO, "inserted", seed))
        fast.pack()
        with torch.inference_mode():
            torch.testing.assert_close(fast(z, lengths), model(z, lengths), atol=2e-5, rtol=2e-5)


def test_models_that_are_alike_share_their_graphs() -> None:
    """A second stem generation costs its weights alone."""
    sessions: dict[Any, Any] = {}
    first, second = model_of(NANO), CrossModalTransformer.seeded(NANO, 5).eval()
    z, lengths = batch(NANO.width, **BATCHES[0])
    paths = [GraphModel(model, 1, sessions) for model in (first, second)]
    answers = [path(z, lengths) for path in paths]
    assert len(sessions) == 1
    with torch.inference_mode():
        for model, answer in zip((first, second), answers, strict=True):
            torch.testing.assert_close(answer, model(z, lengths), atol=2e-5, rtol=2e-5)


def test_bfloat16_differs_by_hundredths() -> None:
    """Of a standard deviation of the scores; sums and norms stay in float32."""
    model = model_of(DEEP)
    z, lengths = batch(NANO.width, text=[9] * 64, audio=[12] * 64, vision=[12] * 64)
    with torch.inference_mode():
        exact, rounded = model(z, lengths), FusedModel(model, torch.bfloat16)(z, lengths)
    assert 0 < float((exact - rounded).std()) < 0.03 * float(exact.std())


@pytest.mark.parametrize(
    ("device", "runtime", "precision", "chosen"),
    [
        ("cpu", "auto", "float32", GraphModel),
        ("cpu", "onnx", "float32", GraphModel),
        ("cpu", "torch", "float32", FusedModel),
        ("cpu", "auto", "bfloat16", FusedModel),
        ("cuda", "auto", "float32", FusedModel),
    ],
)
def test_who_answers(device: str, runtime: Any, precision: Any, chosen: type[FastPath]) -> None:
    """ONNX Runtime in float32 on a CPU, torch otherwise."""
    serving = Serving(torch.device(device), 1, runtime, precision)
    assert isinstance(serving.path(model_of(NANO)), chosen)


def test_what_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """An error that says what to do; and without ONNX Runtime torch answers."""
    with pytest.raises(ValueError, match="in float32: set runtime to auto"):
        Serving(torch.device("cpu"), 1, "onnx", "bfloat16")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert Serving(torch.device("cpu")).runtime == "torch"
    with pytest.raises(ValueError, match=r"pip install 'megace2-iot\[onnx\]'"):
        Serving(torch.device("cpu"), 1, "onnx")


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
    for kind in (FusedModel, GraphModel):
        assert not kind(model_of(config)).serves(counts)  # type: ignore[arg-type]
