"""The ONNX form gives torch's answers, for every batch, every length and every modality that a sample lacks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from megace2_iot.cli import export
from megace2_iot.features import Modality
from megace2_iot.model.checkpoint import save
from megace2_iot.model.fusion import CrossModalTransformer, ModelConfig, preset
from megace2_iot.model.onnx_export import ComputedPositions
from megace2_iot.stem import sinusoids

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

DIMS: dict[Modality, int] = {"text": 9, "audio": 5, "vision": 4}
NANO = preset("nano", DIMS)
CONFIGS: dict[str, ModelConfig] = {
    "Mega-CE2": replace(NANO, kernels={"text": 5, "audio": 3, "vision": 1}, last_k=3, residual="eq2"),
    "MulT": replace(NANO, width=15, heads=3, mult_compat=True, causal=False, outputs=2),
}
Answer = Callable[[dict[Modality, Tensor], dict[Modality, Tensor]], Tensor]


@pytest.fixture(scope="module", params=CONFIGS)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[CrossModalTransformer, Answer]:
    """A model, and the same one behind onnxruntime."""
    model = CrossModalTransformer.seeded(CONFIGS[request.param], seed=1).eval()
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    save(path.with_suffix(".safetensors"), model)
    export.onnx(path.with_suffix(".safetensors"), path)
    assert len(list(path.parent.iterdir())) == 2  # the weights lie in the file itself
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def answer(features: dict[Modality, Tensor], lengths: dict[Modality, Tensor]) -> Tensor:
        named = {**features, **{f"{m}_length": steps for m, steps in lengths.items()}}
        return torch.from_numpy(session.run(["scores"], {n: t.numpy() for n, t in named.items()})[0])

    return model, answer


@pytest.mark.parametrize(
    "lengths",
    [
        {"text": [5], "audio": [7], "vision": [6]},
        {"text": [1], "audio": [1], "vision": [1]},
        {"text": [9, 3, 1], "audio": [30, 2, 11], "vision": [4, 4, 17]},
        {"text": [120, 60], "audio": [200, 7], "vision": [90, 90]},
        {"text": [4, 0, 0, 3], "audio": [5, 6, 0, 0], "vision": [6, 2, 9, 0]},
    ],
    ids=["one", "shortest", "three", "beyond every table", "missing"],
)
def test_the_answers_are_torch_s(
    pair: tuple[CrossModalTransformer, Answer], lengths: dict[Modality, list[int]]
) -> None:
    """Within 1e-4, whatever the batch and the lengths."""
    model, answer = pair
    torch.manual_seed(0)
    features = {m: torch.randn(len(n), max(n), DIMS[m]) for m, n in lengths.items()}
    steps = {m: torch.tensor(n) for m, n in lengths.items()}
    with torch.inference_mode():
        expected = model(model.embed(features, steps), steps)
    torch.testing.assert_close(answer(features, steps), expected, atol=1e-4, rtol=0.0)


@pytest.mark.parametrize("width", [6, 15, 40])
def test_positions_are_those_of_the_stem(width: int) -> None:
    """Far out as well, where single precision would lose them."""
    torch.testing.assert_close(ComputedPositions(width)(3000), torch.from_numpy(sinusoids(3000, width)))
