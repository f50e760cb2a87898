"""The policy for NaN and infinities: zeroed and counted, never made up."""

from __future__ import annotations

import math

import numpy as np
import pytest

from megace2_iot.datasets.finite import Repairs, score_of


def test_what_is_not_finite_becomes_zero_and_is_counted() -> None:
    """-inf as in MulT's audio, +inf and NaN; the source is left alone."""
    repairs = Repairs()
    values = np.array([[1.0, -np.inf], [np.nan, np.inf], [2.0, 3.0]])
    cleaned = repairs.clean("audio", values)
    assert cleaned is not None
    assert cleaned.dtype == np.float32
    assert cleaned.tolist() == [[1.0, 0.0], [0.0, 0.0], [2.0, 3.0]]
    assert np.isinf(values).any()
    repairs.clean("audio", np.array([[np.nan, 1.0]]))
    repairs.clean("text", np.ones((2, 2)))
    assert repairs.notes() == ("audio: 4 values of 2 samples were not finite and became 0",)


def test_a_modality_without_a_finite_value_is_missing() -> None:
    """Zeros would be features that nobody measured."""
    repairs = Repairs()
    assert repairs.clean("vision", np.full((3, 2), np.nan)) is None
    assert repairs.clean("vision", np.zeros((0, 2))) is None
    assert repairs.notes() == ("vision: 1 samples hold no finite value of it and lack it",)


def test_scores() -> None:
    """NaN is no score, a rounding error is cut off, another scale is an error."""
    assert [score_of(x) for x in (math.nan, math.inf, -math.inf)] == [None, None, None]
    assert score_of(3.0000002) == 3.0
    assert score_of(-2.5) == -2.5
    with pytest.raises(ValueError, match="a score of 4: scores lie between -3 and 3"):
        score_of(4.0)
