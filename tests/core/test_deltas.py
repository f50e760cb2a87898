"""Deltas as bytes: exact where they claim it, late but not lost where they round, bounded for strangers."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from megace2_iot.deltas import decode_delta, encode_delta


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
