"""The model in its thread: two stem generations, answers that do not depend on company, swaps between batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from edge_gateway.predictor import Answering, Predictor, choose_device
from megace2_iot.model.adapter import Adapter, adapter_tensors
from megace2_iot.model.fusion import CrossModalTransformer, ModelConfig, preset
from megace2_iot.model.state import base_tensors
from megace2_iot.tensors import encode_tensors

DIMS: dict[Any, int] = {"text": 24, "audio": 12, "vision": 10}
NANO, MULT = preset("nano", DIMS), preset("mult", DIMS)


def blob(config: ModelConfig = NANO, seed: int = 0) -> bytes:
    return encode_tensors(base_tensors(CrossModalTransformer.seeded(config, seed)), {})


def samples(count: int = 8, width: int = 16) -> list[dict[Any, np.ndarray[Any, Any]]]:
    """Of different lengths, some without a modality."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(count):
        lengths = {"text": 3 + number, "audio": 9 - number % 7, "vision": 4}
        z: dict[Any, Any] = {m: rng.standard_normal((t, width)).astype(np.float32) for m, t in lengths.items()}
        if number % 3 == 1:
            del z["vision"]
        made.append(z)
    return made


@pytest.fixture
def predictor() -> Predictor:
    made = Predictor("cpu")
    made.load("stem-1", NANO.to_json(), blob(), 1)
    return made


def test_an_answer_does_not_depend_on_its_company(predictor: Predictor) -> None:
    """Alone and in a padded batch the same, to 1e-5."""
    together = predictor.run("stem-1", samples()).scores
    alone = np.concatenate([predictor.run("stem-1", [sample]).scores for sample in samples()])
    assert np.abs(together - alone).max() < 1e-5


def test_two_generations_are_answered_and_a_third_pushes_the_first_out(predictor: Predictor) -> None:
    """Packets under way at the change of stems are not lost."""
    first = predictor.run("stem-1", samples()).scores
    predictor.load("stem-2", NANO.to_json(), blob(seed=5), 2)
    assert np.array_equal(predictor.run("stem-1", samples()).scores, first)
    assert not np.allclose(predictor.run("stem-2", samples()).scores, first)
    predictor.load("stem-3", NANO.to_json(), blob(), 3)
    assert [predictor.knows(f"stem-{n}") for n in (1, 2, 3)] == [False, True, True]


def test_weights_are_swapped_between_batches(predictor: Predictor) -> None:
    """The next batch is of the new version, and says so."""
    before = predictor.run("stem-1", samples())
    predictor.load("stem-1", NANO.to_json(), blob(seed=9), 7)
    after = predictor.run("stem-1", samples())
    assert (before.version, after.version) == (1, 7)
    assert not np.allclose(before.scores, after.scores)


def test_an_adapter_comes_and_goes(predictor: Predictor) -> None:
    """Without it the base answers exactly as before; a new release keeps it until the next judgement."""
    base = predictor.run("stem-1", samples())
    adapter = adapter_tensors(Adapter(NANO, "output", seed=3))
    predictor.answer_with("stem-1", Answering(adapter, "output", (1.0, 0.0)))
    adapted = predictor.run("stem-1", samples())
    assert adapted.adapter
    assert not np.allclose(adapted.scores, base.scores)
    assert adapted.confidences == pytest.approx(1 / (1 + np.exp(-np.abs(adapted.scores))))
    predictor.answer_with("stem-1", Answering())
    plain = predictor.run("stem-1", samples())
    assert np.array_equal(plain.scores, base.scores)
    assert plain.confidences is None


@pytest.mark.parametrize("bad", [b"", b"noise" * 20, blob(MULT)], ids=["nothing", "noise", "another model's"])
def test_a_blob_that_does_not_fit_is_refused_and_changes_nothing(predictor: Predictor, bad: bytes) -> None:
    """A release of another version of this program must not take the answers away."""
    before = predictor.run("stem-1", samples()).scores
    with pytest.raises(ValueError, match=r"."):
        predictor.load("stem-1", NANO.to_json(), bad, 2)
    assert np.array_equal(predictor.run("stem-1", samples()).scores, before)


def test_a_device_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """And `auto` takes what there is."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    with pytest.raises(ValueError, match="use --device cpu"):
        choose_device("cuda")


@pytest.mark.cuda
@pytest.mark.parametrize("config", [NANO, MULT], ids=["nano", "mult"])
def test_the_gpu_answers_as_the_cpu_does(config: ModelConfig) -> None:
    """To 1e-3, with an adapter and without."""
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device here")
    adapter = adapter_tensors(Adapter(config, "inserted", seed=3))
    scores = {}
    for device in ("cpu", "cuda"):
        predictor = Predictor(device)
        predictor.load("stem", config.to_json(), blob(config), 1)
        base = predictor.run("stem", samples(width=config.width)).scores
        predictor.answer_with("stem", Answering(adapter))
        scores[device] = np.stack([base, predictor.run("stem", samples(width=config.width)).scores])
    assert np.abs(scores["cpu"] - scores["cuda"]).max() < 1e-3
