"""Equation (5) at work: the gate lets an adapter answer where it helps, and the confidence is fitted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edge_gateway.calibration import calibrate
from edge_gateway.personalizer import Personalizer
from megace2_iot.examples import pack
from megace2_iot.model.fusion import CrossModalTransformer, preset
from megace2_iot.model.state import base_tensors
from megace2_iot.tensors import encode_tensors

DIMS: dict[Any, int] = {"text": 4, "audio": 3, "vision": 2}


@pytest.fixture(scope="module")
def personalizer() -> Personalizer:
    model = CrossModalTransformer.seeded(preset("nano", DIMS), 0)
    made = Personalizer()
    made.load(model.config.to_json(), encode_tensors(base_tensors(model), {}))
    return made


def judged(personalizer: Personalizer, fit: int, gate: int, *, score: float | None = None) -> dict[str, Any]:
    """Personalise on samples whose score is their text's sign, or is always the same."""
    rng = np.random.default_rng(0)
    z = [{"text": rng.standard_normal((4, 16)).astype(np.float32) + sign} for sign in rng.choice([-2, 2], fit + gate)]
    scores = [score if score is not None else float(np.sign(s["text"].mean())) for s in z]
    return personalizer.personalise(
        fit=pack(z[:fit]),
        fit_scores=scores[:fit],
        gate=pack(z[fit:]),
        gate_scores=scores[fit:],
        placement="inserted",
        settings={"epochs": 25, "learning_rate": 1e-2},
        seed=1,
    )


def test_an_adapter_that_helps_answers(personalizer: Personalizer) -> None:
    """Better on held-out samples than the base, which knows nothing yet."""
    result = judged(personalizer, 64, 48)
    assert result["gate"] == "adapter"
    assert result["adapter_accuracy"] > result["base_accuracy"]
    assert len(result["calibration"]) == 2


def test_the_base_answers_where_it_is_as_good(personalizer: Personalizer) -> None:
    """An adapter must earn its place: a tie is the base's."""
    always = 1.0 if answers_of_the_base(personalizer) >= 0 else -1.0
    rng = np.random.default_rng(1)
    z = [{"text": rng.standard_normal((4, 16)).astype(np.float32) * 0.01} for _ in range(60)]
    result = personalizer.personalise(
        pack(z[:30]), [always] * 30, pack(z[30:]), [always] * 30, "output", {"epochs": 1}, 1
    )
    assert (result["gate"], result["base_accuracy"]) == ("base", 1.0)


def answers_of_the_base(personalizer: Personalizer) -> float:
    from megace2_iot.model.evaluation import answer
    from megace2_iot.model.training import Example

    assert personalizer.model is not None
    return float(answer(personalizer.model, [Example({"text": np.zeros((4, 16), np.float32)}, 0.0)])[0])


@pytest.mark.parametrize(("fit", "gate", "why"), [(32, 5, "5 held-out"), (32, 0, "0 held-out")])
def test_the_gate_is_blind_where_nothing_can_be_judged(
    personalizer: Personalizer, fit: int, gate: int, why: str
) -> None:
    """Too few samples to judge."""
    result = judged(personalizer, fit, gate)
    assert result["gate"] == "blind"
    assert why in result["reason"]


def test_the_base_is_untouched(personalizer: Personalizer) -> None:
    """Whatever was tuned, the model trains from its base again, without an adapter."""
    assert personalizer.model is not None
    before = {name: tensor.copy() for name, tensor in base_tensors(personalizer.model).items()}
    judged(personalizer, 32, 32)
    after = base_tensors(personalizer.model)
    assert personalizer.model.adapter is None
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_the_confidence_grows_with_the_score_where_that_is_true() -> None:
    """Right far from zero, a coin's throw near it."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=4000)
    scores = truth + rng.normal(scale=0.7, size=4000)
    a, b = calibrate(scores, truth)
    confident = 1 / (1 + np.exp(-(a * 2.0 + b)))
    right = np.mean((scores >= 0) == (truth >= 0), where=np.abs(np.abs(scores) - 2.0) < 0.3)
    assert a > 0
    assert confident == pytest.approx(right, abs=0.06)


def test_a_few_samples_do_not_make_it_certain() -> None:
    """The prior keeps a fit on all-right answers finite."""
    a, b = calibrate(np.array([1.0, -1.0, 2.0]), np.array([1.0, -1.0, 1.0]))
    assert 0.5 < 1 / (1 + np.exp(-(a * 1.0 + b))) < 0.98
