"""The local model as released: the same answers by ONNX Runtime as by torch, for whatever a window holds."""

from __future__ import annotations

import numpy as np
import pytest

from device_agent.answers import goes_up
from device_agent.local import GraphModel, LocalAnswer, TorchModel
from megace2_iot.codec import DecodeError, encode
from megace2_iot.messages import DeviceConfig
from megace2_iot.model.evaluation import answer
from megace2_iot.model.fusion import CrossModalTransformer, preset
from megace2_iot.model.pocket import Likeness, graph_of, pocket, release_of
from megace2_iot.model.training import Example

DIMS = {"text": 24, "audio": 12, "vision": 10}
WIDTH = 16


@pytest.fixture(scope="module")
def model() -> CrossModalTransformer:
    return CrossModalTransformer.seeded(pocket(preset("nano", DIMS)), 3).eval()


@pytest.fixture(scope="module")
def release(model) -> bytes:
    return release_of(model, graph_of(model), Likeness(0.9, 0.2, 10), (2.0, 0.5))


def window(*modalities: str, seed: int = 0) -> dict:
    """Z[0] of other lengths for each modality."""
    rng = np.random.default_rng(seed)
    steps = {"text": 3 + seed, "audio": 20 - seed, "vision": 7}
    return {m: rng.standard_normal((steps[m], WIDTH)).astype(np.float32) for m in modalities}


@pytest.mark.parametrize(
    "present",
    [("text", "audio", "vision"), ("text",), ("audio",), ("vision",), ("text", "vision"), ("audio", "vision")],
)
def test_onnx_runtime_answers_as_torch_does(model, release, present):
    """One graph serves every length and every missing modality."""
    local = GraphModel(release, 7, WIDTH)
    for seed in range(3):
        z = window(*present, seed=seed)
        found = local.run(z)
        assert found is not None
        assert found.score == pytest.approx(answer(model, [Example(z, 0.0)])[0], abs=1e-5)
        assert found.version == 7
        assert found.confidence == pytest.approx(1 / (1 + np.exp(-(2.0 * abs(found.score) + 0.5))))


async def test_a_process_with_torch_gives_the_same(release):
    """Where ONNX Runtime is not installed the learner's module answers."""
    local = await TorchModel.start(release, 7)
    try:
        found = await local.answer(window("text", "audio"))
    finally:
        await local.close()
    same = GraphModel(release, 7, WIDTH).run(window("text", "audio"))
    assert found is not None
    assert same is not None
    assert found.score == pytest.approx(same.score, abs=1e-5)
    assert found.confidence == pytest.approx(same.confidence, abs=1e-5)


def test_what_cannot_answer_says_nothing(release):
    """A window without a step, and one whose answer is not finite, have no local answer."""
    local = GraphModel(release, 1, WIDTH)
    assert local.run({}) is None
    assert local.run({"text": np.zeros((0, WIDTH), np.float32)}) is None
    assert local.run({"text": np.full((2, WIDTH), np.inf, np.float32)}) is None


def test_a_stranger_is_no_local_model(release):
    """Bytes, envelopes and graphs of something else raise ValueError, which the device reports."""
    broken = {"base": b"", "graph": b"", "prefix": "", "calibration": [1.0, 0.0]}
    for bad in (b"", b"junk", encode({"graph": b""}), encode(broken)):
        with pytest.raises((ValueError, DecodeError)):
            GraphModel(bad, 1, WIDTH)
    with pytest.raises(ValueError, match="Z\\[0\\] is 40 wide"):
        GraphModel(release, 1, 40)


@pytest.mark.parametrize(
    ("policy", "confidence", "up"),
    [
        ("edge", 0.99, 10),
        ("local_then_edge", 0.99, 10),
        ("local", 0.1, 0),
        ("confident_local", 0.79, 10),
        ("confident_local", 0.81, 2),
    ],
)
def test_who_goes_up(policy, confidence, up):
    """By policy, confidence and audit: of ten windows so many are sent."""
    config = DeviceConfig(stage="embedded", relative_bound=0, rate=0, train=False, share_labels=False, audit=0.2)
    local = LocalAnswer(1.0, confidence, 1, 0.0)
    assert sum(goes_up(policy, local, config, seq) for seq in range(1, 11)) == up
    assert all(goes_up(policy, None, config, seq) for seq in range(1, 11))
