"""Models as safetensors: the same bytes for the same content, and one exception for strangers."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from megace2_iot.parameters import Layout
from megace2_iot.tensors import decode_tensors, encode_tensors, flat_view

TENSORS = {
    "audio.w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "text.b": np.float32([7]),
    "text.a": np.float32([[8], [9]]),
    "zero": np.array(3, np.float32),
}
LAYOUT = Layout.of(TENSORS)


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
        flat_view(data, Layout({"a.x": (1,)}))


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
