"""The envelope: literal bytes, round trips, and nothing but DecodeError from strangers."""

import contextlib
import struct
import tracemalloc

import msgpack
import numpy as np
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from megace2_iot.codec import DecodeError, decode, encode

HEAD = b"M2\x01"


def test_a_small_message_has_these_bytes():
    """The wire format is a promise: magic, version, flags, msgpack."""
    assert encode({"a": 1}) == HEAD + b"\x00" + b"\x81\xa1a\x01"


def test_an_array_has_these_bytes():
    """Extension type 1: dtype code, rank, shape, data in little endian."""
    body = encode({"x": np.array([1.0], np.float32)})
    assert body == HEAD + b"\x00" + b"\x81\xa1x\xc7\x0a\x01" + b"\x00\x01" + struct.pack("<If", 1, 1.0)


@given(
    hnp.arrays(
        st.sampled_from(["f4", "f2", "u1", "u2", "i2", "i4", "i1"]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9),
        elements={"allow_nan": False},
    )
)
def test_arrays_come_back_as_they_went(array: np.ndarray):
    """Shape, type and every value."""
    back = decode(encode({"x": array}))["x"]
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_large_arrays_share_one_zstd_frame():
    """Each large array has blocks of its own, but a reader sees one frame with its size."""
    message = {"a": np.zeros(5000, np.uint8), "b": np.arange(5000, dtype=np.int32), "c": "end"}
    data = encode(message)
    assert zstandard.frame_content_size(data[4:]) > 25_000
    assert decode(data)["c"] == "end"


@given(st.binary(max_size=300))
def test_garbage_raises_decode_error_only(data: bytes):
    """Whatever a stranger publishes costs one exception."""
    for candidate in (data, HEAD + b"\x00" + data, HEAD + b"\x01" + data):
        try:
            decode(candidate)
        except DecodeError:
            continue


@given(st.data())
def test_one_flipped_byte_never_crashes(data: st.DataObject):
    """Bit rot on the way is a DecodeError or another message, nothing else."""
    sound = bytearray(encode({"x": np.arange(200, dtype=np.float32), "y": "z" * 300}))
    position = data.draw(st.integers(0, len(sound) - 1))
    sound[position] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(DecodeError):
        decode(bytes(sound))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "truncated"),
        (b"XX\x01\x00\x80", "not a Mega-CE2 message"),
        (b"M2\x09\x00\x80", "envelope version 9"),
        (b"M2\x01\x08\x80", "unknown flags"),
        (HEAD + b"\x00\x90", "not a map"),
        (HEAD + b"\x00\x81\xa1x\xc7\x02\x07\x00\x00", "unknown extension type"),
    ],
)
def test_refusals_say_what_is_wrong(data: bytes, says: str):
    """A person reads these in a log."""
    with pytest.raises(DecodeError, match=says):
        decode(data)


def test_a_bomb_is_refused_before_memory_is_taken():
    """`max_output_size` alone would unpack 500 MB from 16 KB."""
    bomb = HEAD + b"\x01" + zstandard.ZstdCompressor().compress(bytes(500_000_000))
    tracemalloc.start()
    with pytest.raises(DecodeError, match="oversized"):
        decode(bomb)
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_a_frame_that_lies_about_its_size_is_refused():
    """A forged header must not reserve gigabytes."""
    forged = HEAD + b"\x01" + bytes.fromhex("28b52ffd") + b"\xe0" + struct.pack("<Q", 8 << 30) + b"\x01\x00\x00"
    with pytest.raises(DecodeError):
        decode(forged)


def test_trailing_frames_are_refused():
    """Bytes behind the frame could smuggle a second message past a check."""
    data = encode({"x": "y" * 1000})
    with pytest.raises(DecodeError):
        decode(data + zstandard.ZstdCompressor().compress(b"more"))


def test_an_array_that_claims_more_than_it_has_is_refused():
    """shape * itemsize must be the length."""
    ext = msgpack.ExtType(1, struct.pack("<BBI", 0, 1, 1_000_000) + b"1234")
    with pytest.raises(DecodeError, match="does not fit"):
        decode(HEAD + b"\x00" + msgpack.packb({"x": ext}))


def test_a_nest_of_arrays_is_refused():
    """A megabyte of '[' would take gigabytes of lists."""
    with pytest.raises(DecodeError):
        decode(HEAD + b"\x00\x81\xa1x" + b"\x91" * 1_000_000)


def test_only_known_dtypes_may_leave():
    """float64 would double every packet unseen."""
    with pytest.raises(TypeError, match="cannot cross"):
        encode({"x": np.zeros(2)})
