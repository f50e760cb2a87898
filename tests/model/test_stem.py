"""The stem: what a device makes of its features without torch."""

from __future__ import annotations

import math

import numpy as np
import pytest

from megace2_iot.stem import Stem, sinusoids

DIMS = {"text": 300, "audio": 74, "vision": 35}


def test_z0_is_scaled_projection_plus_position() -> None:
    """The formula of section 3.1, spelt out on one modality."""
    stem = Stem.random(DIMS, 16, seed=1)
    x = np.random.default_rng(0).standard_normal((9, 74)).astype(np.float32)
    expected = math.sqrt(16) * (x @ stem.weights["audio"][0]) + sinusoids(9, 16)
    np.testing.assert_allclose(stem.embed("audio", x), expected, atol=1e-6)


def test_positions_start_at_one_and_end_at_the_true_length() -> None:
    """Position t + 1, sine half then cosine half; an odd width ends in a column of zeros."""
    table = sinusoids(3, 7)
    assert table[0, 0] == pytest.approx(math.sin(1.0))
    assert table[2, 3] == pytest.approx(math.cos(3.0))
    assert not table[:, 6].any()


def test_a_kernel_sees_neighbours_and_zeros_beyond_the_ends() -> None:
    """Kernel 3 is 'same'-padded: the first step sees itself and the second only."""
    stem = Stem.random(DIMS, 8, seed=2, kernels={"vision": 3})
    x = np.eye(4, 35, dtype=np.float32)
    w = stem.weights["vision"]
    z = stem.embed("vision", x) - sinusoids(4, 8)
    np.testing.assert_allclose(z[0], math.sqrt(8) * (x[0] @ w[1] + x[1] @ w[2]), atol=1e-6)
    np.testing.assert_allclose(z[3], math.sqrt(8) * (x[2] @ w[0] + x[3] @ w[1]), atol=1e-6)


def test_token_ids_pass_the_table_and_vectors_bypass_it() -> None:
    """Text may come as ids or as the vectors behind them, with one answer."""
    stem = Stem.random(DIMS, 8, seed=3, vocabulary=20)
    assert stem.table is not None
    ids = np.array([3, 19, 0])
    np.testing.assert_array_equal(stem.embed("text", ids), stem.embed("text", stem.table[ids]))
    with pytest.raises(ValueError, match=r"token ids 20\.\.20 lie"):
        stem.embed("text", np.array([20]))


def test_a_wrong_width_names_both_widths() -> None:
    """A device whose extractor does not fit the model learns what it has and what is wanted."""
    stem = Stem.random(DIMS, 8, seed=4)
    with pytest.raises(ValueError, match=r"audio features are \(5, 73\), the stem takes \(T, 74\)"):
        stem.embed("audio", np.zeros((5, 73), np.float32))
    with pytest.raises(ValueError, match="token ids need a token table"):
        stem.embed("text", np.array([1, 2]))


def test_tensors_there_and_back_give_the_same_stem() -> None:
    """What is stored under the model's names is the whole stem."""
    stem = Stem.random(DIMS, 8, seed=5, kernels={"text": 5}, vocabulary=7)
    assert Stem.from_tensors(stem.to_tensors(), {"mult_compat": True}).mult_compat
    again = Stem.from_tensors(stem.to_tensors())
    assert again.dims == DIMS
    assert sorted(stem.to_tensors()) == ["stem.audio", "stem.table", "stem.text", "stem.vision"]
    x = np.ones((6, 300), np.float32)
    np.testing.assert_array_equal(stem.embed("text", x), again.embed("text", x))


def test_an_empty_sequence_and_a_very_long_one() -> None:
    """No length is special: T = 0 gives no rows, and rows past the cache are computed."""
    stem = Stem.random(DIMS, 8, seed=6)
    assert stem.embed("vision", np.zeros((0, 35), np.float32)).shape == (0, 8)
    long = stem.embed("vision", np.zeros((5000, 35), np.float32))
    np.testing.assert_allclose(long, sinusoids(5000, 8), atol=1e-6)
