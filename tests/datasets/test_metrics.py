"""Measures against the published implementations, and the cases in which there is nothing to say."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from megace2_iot.datasets.metrics import metrics


def test_the_measures_of_mmsa(conformance: Path) -> None:
    """Every case of the reference's list, to its four decimals."""
    names = {
        "acc2": "Has0_acc_2",
        "f1": "Has0_F1_score",
        "acc2_non0": "Non0_acc_2",
        "f1_non0": "Non0_F1_score",
        "acc5": "Mult_acc_5",
        "acc7": "Mult_acc_7",
        "mae": "MAE",
        "corr": "Corr",
    }
    for case in json.loads((conformance / "metrics.json").read_text()).values():
        ours = metrics(np.array(case["pred"]), np.array(case["truth"])).as_dict()
        for name, theirs in names.items():
            expected = case["mmsa"][theirs]
            value = ours[name]
            assert value is None if math.isnan(expected) else value == pytest.approx(expected, abs=5.1e-5)


@pytest.mark.parametrize("zeros", [True, False])
def test_the_measures_of_mult(conformance: Path, zeros: bool) -> None:
    """The released code's too, whose F1 is ours with truth and prediction in each other's place."""
    for case in json.loads((conformance / "metrics.json").read_text()).values():
        p, t = np.array(case["pred"]), np.array(case["truth"])
        theirs = case[f"mult_exclude_zero_{not zeros}"]
        ours = metrics(p, t)
        assert (ours.mae, ours.acc7, ours.acc5) == pytest.approx(
            (theirs["MAE"], theirs["mult_acc_7"], theirs["mult_acc_5"]), abs=1e-6
        )
        rated = np.full(len(t), True) if zeros else t != 0
        p, t = (np.where(x[rated] > 0, 1.0, -1.0) for x in (p, t))  # their classes: above zero, or not
        assert metrics(p, t).acc2 == pytest.approx(theirs["Accuracy"])
        assert metrics(prediction=t, truth=p).f1 == pytest.approx(theirs["F1 score"])


def test_what_is_undefined_is_none() -> None:
    """No rated truth has no non0 measures, a constant has no correlation: never a silent zero."""
    m = metrics(np.array([0.1, -0.2]), np.zeros(2))
    assert (m.acc2_non0, m.f1_non0, m.corr) == (None, None, None)
    assert m.acc2 == 0.5


def test_f1_weighs_by_the_truth() -> None:
    """A constant answer earns no more than its class does: .45, where the swapped order would say .75."""
    m = metrics(np.full(5, 0.3), np.array([1.0, -1.0, 2.0, -2.0, 1.0]))
    assert m.f1_non0 == pytest.approx(0.45)
    assert m.f1_macro == pytest.approx(0.375)


@pytest.mark.parametrize(
    ("prediction", "truth", "reason"),
    [
        ([], [], "no samples"),
        ([1.0], [1.0, 2.0], "1 predictions for 2"),
        ([math.nan], [1.0], "finite"),
        ([1.0], [math.inf], "finite"),
    ],
)
def test_nonsense_is_refused(prediction: list[float], truth: list[float], reason: str) -> None:
    """A diverged model is an error, not a measure."""
    with pytest.raises(ValueError, match=reason):
        metrics(np.array(prediction), np.array(truth))
