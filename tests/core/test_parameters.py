"""Vectors, layouts and means."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from megace2_iot.parameters import Layout, RunningMean

TENSORS = {
    "audio.w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "text.b": np.float32([7]),
    "text.a": np.float32([[8], [9]]),
    "zero": np.array(3, np.float32),
}
LAYOUT = Layout.of(TENSORS)
THREE = Layout({"a.x": (1,), "b.x": (2,)})


def test_vector_order_is_that_of_names() -> None:
    """Two nodes that built their models in another order average the same numbers."""
    vector = LAYOUT.flatten(TENSORS)
    assert vector.tolist() == [0, 1, 2, 3, 4, 5, 8, 9, 7, 3]
    assert LAYOUT.names == ("audio.w", "text.a", "text.b", "zero")
    assert Layout.of(dict(reversed(TENSORS.items()))).digest == LAYOUT.digest


def test_groups_are_slices() -> None:
    """Each group has its own denominator, so it must be one piece of the vector."""
    assert dict(LAYOUT.groups) == {"audio": slice(0, 6), "text": slice(6, 9), "zero": slice(9, 10)}
    with pytest.raises(ValueError, match="group 'a' are not neighbours"):
        Layout({"a": (1,), "a-b.x": (1,), "a.x": (1,)})


def test_unflatten_gives_views() -> None:
    """Reading a model out of a vector costs no memory."""
    vector = LAYOUT.flatten(TENSORS)
    tensors = LAYOUT.unflatten(vector)
    assert all(np.shares_memory(tensor, vector) for tensor in tensors.values())
    assert all(np.array_equal(tensors[name], TENSORS[name]) for name in TENSORS)


def test_flatten_names_the_tensor_that_differs() -> None:
    """A model of another family is never squeezed into the vector."""
    with pytest.raises(ValueError, match=r"tensor text.b has shape \(2,\), expected \(1,\)"):
        LAYOUT.flatten({**TENSORS, "text.b": np.zeros(2, np.float32)})
    with pytest.raises(ValueError, match="only floats"):
        Layout.of({"a": np.zeros(2, np.int64)})


# -- the mean -------------------------------------------------------------------------
def test_mean_of_three_elements_per_group() -> None:
    """A node without examples for a group does not pull it towards itself."""
    mean = RunningMean(THREE)
    mean.add(np.float32([1, 2, 4]), {"a": 1, "b": 1})
    assert mean.value.tolist() == [1, 2, 4]
    mean.add(np.float32([5, 6, 8]), {"a": 3})
    assert mean.value.tolist() == [4, 2, 4]
    assert mean.num_examples == {"a": 4, "b": 1}


def test_untouched_group_stays_zero() -> None:
    """A group that nobody trained has no mean, and NaN is not one."""
    mean = RunningMean(THREE)
    mean.add(np.float32([1, 2, 4]), {"a": 2, "b": 0})
    assert mean.value.tolist() == [1, 0, 0]
    assert mean.num_examples == {"a": 2, "b": 0}


@given(st.lists(st.tuples(arrays(np.float32, 3, elements=st.floats(-9, 9, width=32)), st.integers(1, 99)), min_size=1))
def test_every_prefix_is_the_weighted_mean(added: list[tuple[np.ndarray, int]]) -> None:
    """A round may close after any update."""
    mean = RunningMean(THREE)
    for count, (vector, n) in enumerate(added, 1):
        mean.add(vector, {"a": n, "b": n})
        expected = np.average(
            [v.astype(float) for v, _ in added[:count]], axis=0, weights=[n for _, n in added[:count]]
        )
        np.testing.assert_allclose(mean.value, expected, atol=2e-5)


@pytest.mark.parametrize(
    ("vector", "examples"),
    [
        ([1, np.nan, 1], {"a": 1}),
        ([1, np.inf, 1], {"a": 1}),
        ([1, 1], {"a": 1}),
        ([1, 1, 1], {"a": -1}),
        ([1, 1, 1], {"a": np.nan}),
        ([1, 1, 1], {"a": np.inf}),
        ([1, 1, 1], {"c": 1}),
    ],
)
def test_bad_vector_or_count_changes_nothing(vector: list[float], examples: dict[str, float]) -> None:
    """One broken or hostile node cannot spoil a round."""
    mean = RunningMean(THREE)
    mean.add(np.float32([1, 2, 4]), {"a": 1, "b": 1})
    with pytest.raises(ValueError):
        mean.add(np.float32(vector), examples)
    assert mean.value.tolist() == [1, 2, 4]
    assert mean.num_examples == {"a": 1, "b": 1}


def test_mean_crosses_block_borders() -> None:
    """The last block is shorter than the others."""
    layout = Layout({"a.x": (70_000,), "b.x": (65_537,)})
    first, second = np.arange(layout.size, dtype=np.float32), np.ones(layout.size, np.float32)
    mean = RunningMean(layout)
    mean.add(first, {"a": 1, "b": 1})
    mean.add(second, {"a": 1, "b": 1})
    np.testing.assert_array_equal(mean.value, (first + second) / 2)


def test_large_finite_values_are_finite() -> None:
    """The check by a dot product overflows before the values do."""
    mean = RunningMean(THREE)
    mean.add(np.float32([3e38, -3e38, 1]), {"a": 1, "b": 1})
    assert mean.value.tolist() == np.float32([3e38, -3e38, 1]).tolist()
