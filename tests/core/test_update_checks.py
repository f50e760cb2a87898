"""What is checked of an update, on numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megace2_iot.deltas import body_sizes, encode_delta
from megace2_iot.parameters import BLOCK, Layout
from megace2_iot.update_checks import FEWEST, NormBound, examples, finite, norm_of, schema

LAYOUT = Layout({"head.w": (2,), "text.w": (3,)})
ONES = [1.0] * FEWEST


def test_the_norm_is_exact() -> None:
    """Blocks are summed in float64: neither length nor large values lose anything."""
    assert norm_of(np.float32([3, 0, -4])) == 5
    assert norm_of(np.ones(4 * BLOCK, np.float32)) == math.sqrt(4 * BLOCK)
    assert norm_of(np.float32([3e38, 0])) == pytest.approx(3e38)
    assert norm_of(np.zeros(0, np.float32)) == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_no_number_is_found(value: float) -> None:
    """Wherever it stands."""
    vector = np.zeros(BLOCK + 2, np.float32)
    vector[-1] = value
    objection = finite(norm_of(vector))
    assert objection is not None
    assert str(objection).startswith("finite: ")
    assert finite(0.0) is None


WRONG = {
    "too short": ("float32", 19, {"head": 1.0}, "a float32 delta of 19 bytes, expected 20"),
    "too long for int8": ("int8", 4096, {"head": 1.0}, "int8 delta of 4096 bytes, expected 17 to"),
    "too short for int8": ("int8", 16, {"head": 1.0}, "int8 delta of 16 bytes"),
    "of an unknown group": ("float32", 20, {"tail": 1.0}, "group 'tail' is not in the layout"),
    "with too many examples to be a number": ("float32", 20, {"head": 1e13}, "examples behind group 'head'"),
    "with less than no examples": ("float32", 20, {"head": -1.0}, "examples behind group 'head'"),
    "without examples": ("float32", 20, {}, "no examples stand behind it"),
    "with zero examples": ("float32", 20, {"head": 0.0}, "no examples stand behind it"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_offer_of_another_layout_is_found(name: str) -> None:
    """By what the offer says, before a byte of its body is pulled."""
    codec, size, counts, reason = WRONG[name]
    objection = schema(LAYOUT, codec, size, counts)
    assert objection is not None
    assert objection.check == "schema"
    assert reason in objection.detail
    assert schema(LAYOUT, "float32", 20, {"head": 1.0}) is None


@given(size=st.integers(1, 3000), seed=st.integers(0, 99), codec=st.sampled_from(["int8", "float32"]))
def test_every_real_body_has_a_possible_size(size: int, seed: int, codec: str) -> None:
    """An honest update is never refused for its size, however well or badly it compresses."""
    delta = np.random.default_rng(seed).normal(size=size).astype(np.float32) * (seed % 2)
    body, _ = encode_delta(delta, codec)
    least, most = body_sizes(codec, size)
    assert least <= len(body) <= most


def test_the_examples_of_one_group_are_enough() -> None:
    """Who inflates one group decides that group."""
    assert examples({"head": 5.0, "text": 5000.0}, 5000) is None
    assert str(examples({"head": 5.0, "text": 5001.0}, 5000)) == (
        "examples: 5001 behind text, its sender has at most 5000"
    )
    assert examples({"head": 1e12}, 0) is None


def test_a_norm_is_compared_with_the_median() -> None:
    """One earlier outlier does not make room for another."""
    bound, recent = NormBound(5, 1), [*ONES, 100.0]
    assert bound.check(5.0, recent, 0) is None
    assert str(bound.check(6.0, recent, 0)) == "norm: 6 is 6 times the median of the last 9, allowed is 5"
    assert not bound.needs_model(recent)


@pytest.mark.parametrize("recent", [[], ONES[1:], [0.0] * FEWEST])
def test_without_neighbours_a_norm_is_compared_with_the_model(recent: list[float]) -> None:
    """The first updates of all cannot be larger than what they change."""
    bound = NormBound(5, 1)
    assert bound.needs_model(recent)
    assert bound.check(9.0, recent, 9.0) is None
    assert str(bound.check(18.0, recent, 9.0)) == "norm: 18 is 2 times the norm of the model itself, allowed is 1"


def test_zero_turns_a_bound_off() -> None:
    """Each for itself."""
    assert NormBound(0, 1).check(1e30, ONES, 1.0) is None
    assert NormBound(5, 0).check(1e30, [], 1.0) is None
    assert not NormBound(5, 0).needs_model([])
