"""Vectors, layouts, means and the bytes of models and deltas."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.numpy import load, save

from megace2_iot.parameters import (
    Layout,
    RunningMean,
    decode_delta,
    decode_tensors,
    encode_delta,
    encode_tensors,
    flat_view,
)

TENSORS = {
    "audio.w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "text.b": np.float32([7]),
    "text.a": np.float32([[8], [9]]),
    "zero": np.array(3, np.float32),
}
LAYOUT = Layout.of(TENSORS)
THREE = Layout({"a.x": (1,), "b.x": (2,)})


# -- layout ---------------------------------------------------------------------------
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


# -- deltas ---------------------------------------------------------------------------
def test_float32_delta_is_its_bytes() -> None:
    """Any program can read and write this codec."""
    body, residual = encode_delta(np.float32([1, -2]), "float32")
    assert (body, residual) == (b"\x00\x00\x80\x3f\x00\x00\x00\xc0", None)
    assert decode_delta(body, "float32", 2).tolist() == [1, -2]


def test_int8_delta_has_these_bytes() -> None:
    """The format is a contract between versions: header, scale, one frame of codes."""
    body, _ = encode_delta(np.float32([127, -63.4, 0]), "int8")
    assert body[:16] == b"MD\x01\x00\x03\0\0\0\0\0\0\0" + np.float32(1).tobytes()
    assert zstandard.ZstdDecompressor().decompress(body[16:]) == bytes([127, 256 - 63, 0])


numbers = st.floats(-(2.0**120), 2.0**120, width=32)


@given(arrays(np.float32, st.integers(0, 600), elements=numbers))
def test_int8_errs_by_half_a_scale(delta: np.ndarray) -> None:
    """Rounding loses at most 1/254 of a block's largest value, and the residual tells exactly what."""
    body, residual = encode_delta(delta, "int8")
    decoded = decode_delta(body, "int8", delta.size)
    assert residual is not None
    np.testing.assert_array_equal(residual, delta - decoded)
    for at in range(0, delta.size, 256):
        largest = np.abs(delta[at : at + 256]).max()
        assert np.abs(residual[at : at + 256]).max() <= largest / 253.9 + 2e-36


def test_the_smallest_floats_wait() -> None:
    """A scale that float32 can hardly hold would turn into codes beyond 127."""
    delta = np.full(3, 2.66e-43, np.float32)
    body, residual = encode_delta(delta, "int8")
    assert decode_delta(body, "int8", 3).tolist() == [0, 0, 0]
    assert residual is not None
    assert residual.tolist() == delta.tolist()


def test_residual_makes_up_for_rounding() -> None:
    """What twenty updates rounded away arrives: the sum errs as little as one update."""
    delta = np.random.default_rng(0).standard_normal(300).astype(np.float32)
    total, residual = np.zeros(300), None
    for _ in range(20):
        body, residual = encode_delta(delta, "int8", residual)
        total += decode_delta(body, "int8", 300)
    assert residual is not None
    np.testing.assert_allclose(total + residual, 20 * delta.astype(float), atol=1e-5)
    assert np.abs(total - 20 * delta).max() < 0.02


def test_residual_goes_along_when_the_codec_changes() -> None:
    """Nothing is lost when an operator switches to float32."""
    body, left = encode_delta(np.float32([1]), "float32", np.float32([0.5]))
    assert decode_delta(body, "float32", 1).tolist() == [1.5]
    assert left is None


@pytest.mark.parametrize("codec", ["int8", "float32", "zip"])
def test_nonsense_is_not_encoded(codec: str) -> None:
    """A diverged training run stops at home; an unknown codec is named."""
    with pytest.raises(ValueError, match=r"NaN|unknown delta codec 'zip'"):
        encode_delta(np.float32([np.nan]), codec)
    with pytest.raises(ValueError):
        decode_delta(b"", codec, 1)


@given(st.integers(0, 3000), st.integers(0, 255), st.integers(0, 3000))
def test_damaged_delta_raises_value_error_only(at: int, value: int, cut: int) -> None:
    """A stranger's bytes become finite numbers or a ValueError."""
    body = bytearray(encode_delta(np.sin(np.arange(2000, dtype=np.float32)), "int8")[0])
    body[at % len(body)] = value
    for data in (bytes(body), bytes(body[:cut])):
        with contextlib.suppress(ValueError):
            assert np.isfinite(decode_delta(data, "int8", 2000)).all()


def test_declared_size_is_looked_at_first() -> None:
    """Ten kilobytes that claim to be gigabytes take no memory."""
    bomb = zstandard.ZstdCompressor().compress(bytes(64 << 20))
    with pytest.raises(ValueError, match="does not declare 3 bytes"):
        decode_delta(b"MD\x01\x00\x03\0\0\0\0\0\0\0" + bytes(4) + bomb, "int8", 3)


# -- models ---------------------------------------------------------------------------
def test_safetensors_both_ways() -> None:
    """The files are plain safetensors, in and out."""
    ours = encode_tensors(TENSORS, {"config": "ä"})
    assert {name: t.tolist() for name, t in load(ours).items()} == {n: t.tolist() for n, t in TENSORS.items()}
    tensors, metadata = decode_tensors(save(TENSORS, {"config": "ä"}))
    assert {name: t.tolist() for name, t in tensors.items()} == {n: t.tolist() for n, t in TENSORS.items()}
    assert metadata == {"config": "ä"}


def test_equal_models_have_equal_bytes() -> None:
    """A model is named by its hash, so the order of a dict must not rename it."""
    first = encode_tensors(TENSORS, {"a": "1", "b": "2"})
    assert encode_tensors(dict(reversed(TENSORS.items())), {"b": "2", "a": "1"}) == first
    assert decode_tensors(first)[1] == {"a": "1", "b": "2"}


def test_decoded_tensors_are_views() -> None:
    """A model of 50 MB is read without a second copy, and cannot be written to by accident."""
    data = encode_tensors(TENSORS, {})
    tensors, _ = decode_tensors(data)
    assert np.shares_memory(tensors["audio.w"], np.frombuffer(data, np.uint8))
    assert not tensors["audio.w"].flags.writeable


def test_flat_view_is_the_vector() -> None:
    """The cloud reads a base without a copy; a file in another order still gives the same vector."""
    data = encode_tensors(TENSORS, {})
    view = flat_view(data, LAYOUT)
    assert np.shares_memory(view, np.frombuffer(data, np.uint8))
    np.testing.assert_array_equal(view, LAYOUT.flatten(TENSORS))
    np.testing.assert_array_equal(flat_view(_turned_round(), LAYOUT), view)
    assert decode_tensors(_turned_round())[0]["audio.w"].flags.aligned
    with pytest.raises(ValueError, match=r"tensor a\.x"):
        flat_view(data, THREE)


def _turned_round() -> bytes:
    header, parts, end = {}, [], 0
    for name in sorted(TENSORS, reverse=True):
        data = TENSORS[name].tobytes()
        header[name] = {"dtype": "F32", "shape": TENSORS[name].shape, "data_offsets": [end, end := end + len(data)]}
        parts.append(data)
    text = json.dumps(header).encode()
    text += b" " * (1 + -len(text) % 4)  # numbers at odd addresses
    return len(text).to_bytes(8, "little") + text + b"".join(parts)


def test_only_float32_is_a_model() -> None:
    """Half floats and integers are refused by name, in both directions."""
    with pytest.raises(ValueError, match="tensor a is float16"):
        encode_tensors({"a": np.zeros(1, np.float16)}, {})
    with pytest.raises(ValueError, match="tensor a is I64"):
        decode_tensors(save({"a": np.zeros(1, np.int64)}))


def _file(header: object, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 8,
        _file([]),
        _file({"__metadata__": 3}),
        _file({"__metadata__": {"a": 1}}),
        _file({"a": 3}),
        _file({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}}),
        _file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}),
        _file({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, bytes(8)),
        _file({"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)),
        _file({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, bytes(4)),
        _file({n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, bytes(4)),
        (1 << 20).to_bytes(8, "little") + b"[" * (1 << 20),
    ],
)
def test_damaged_model_raises_value_error_only(data: bytes) -> None:
    """A stranger's header cannot point outside its file or crash the reader."""
    with pytest.raises(ValueError):
        decode_tensors(data)


@settings(max_examples=200)
@given(st.integers(0, 400), st.integers(0, 255))
def test_changed_byte_of_a_model(at: int, value: int) -> None:
    """One flipped byte gives a model or a ValueError, nothing else."""
    data = bytearray(encode_tensors(TENSORS, {"config": "x"}))
    data[at % len(data)] = value
    with contextlib.suppress(ValueError):
        decode_tensors(bytes(data))
