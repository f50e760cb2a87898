"""A model's delta as bytes: raw float32, or int8 in blocks of 256 with error feedback and one zstd frame."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

from megace2_iot.parameters import Vector, blocks, is_finite

Array = npt.NDArray[Any]

SCALE_BLOCK = 256  # elements of a delta that share one int8 scale
LARGEST_SCALE = 1e36  # of int8 deltas: 128 of it is still a float32
delta_codecs = ("float32", "int8")
_INT8 = struct.Struct("<4sQ")  # magic and version, elements; then the scales and one zstd frame of codes
_INT8_MAGIC = b"MD\x01\x00"


def encode_delta(delta: Vector, codec: str, residual: Vector | None = None) -> tuple[bytes, Vector | None]:
    """`delta` (plus what earlier encodings left over) as bytes, and what this one leaves over.

    The caller keeps the new residual once the update was accepted and the old one otherwise (error feedback: nothing
    is lost, only late). `float32` leaves nothing. Raises ValueError for values that cannot be sent.
    """
    if residual is not None and residual.shape != delta.shape:
        raise ValueError(f"a residual of {residual.size} elements for a delta of {delta.size}")
    wanted = delta if residual is None else delta + residual
    if codec == "int8":
        return _encode_int8(wanted)
    if codec != "float32":
        raise ValueError(f"unknown delta codec {codec!r}, known are {', '.join(delta_codecs)}")
    if not is_finite(wanted):
        raise ValueError("the delta holds NaN or infinity")
    return wanted.astype("<f4", copy=False).tobytes(), None


def decode_delta(body: bytes | memoryview, codec: str, size: int) -> Vector:
    """The delta (P = `size`,) of a stranger's bytes, read-only where it is a view of them; raises ValueError only."""
    if codec == "int8":
        return _decode_int8(body, size)
    if codec != "float32":
        raise ValueError(f"unknown delta codec {codec!r}, known are {', '.join(delta_codecs)}")
    if len(body) != 4 * size:
        raise ValueError(f"a delta of {len(body)} bytes, expected {4 * size}")
    return np.frombuffer(body, np.dtype("<f4"))


def body_sizes(codec: str, size: int) -> tuple[int, int]:
    """The fewest and the most bytes that a delta of `size` elements can have; raises ValueError for another codec."""
    if codec == "float32":
        return 4 * size, 4 * size
    if codec != "int8":
        raise ValueError(f"unknown delta codec {codec!r}, known are {', '.join(delta_codecs)}")
    head = _INT8.size + 4 * -(-size // SCALE_BLOCK)
    return head + 1, head + size + (size >> 8) + 128  # zstd's own bound, and its checksum


def _encode_int8(wanted: Vector) -> tuple[bytes, Vector]:
    """Per block of 256 a scale of max|x| / 127 and codes rint(x / scale); what rounding took off is left over."""
    codes, left = np.empty(wanted.size, np.int8), np.empty(wanted.size, np.float32)
    scales = np.empty(-(-wanted.size // SCALE_BLOCK), np.float32)
    for block in blocks(slice(0, wanted.size)):
        rows = _rows(wanted[block])
        scale = np.maximum(rows.max(axis=1), -rows.min(axis=1)) / np.float32(127)
        if not (scale <= LARGEST_SCALE).all():  # NaN is not
            raise ValueError("the delta holds NaN, infinity or a value beyond 1e38")
        scale[scale < np.finfo(np.float32).tiny] = 0  # a denormal scale is too coarse: such a block is left for later
        code = np.rint(rows / np.where(scale > 0, scale, np.float32(np.inf))[:, None])
        scales[block.start // SCALE_BLOCK : -(-block.stop // SCALE_BLOCK)] = scale
        codes[block] = code.reshape(-1)[: block.stop - block.start]
        code *= scale[:, None]
        np.subtract(wanted[block], code.reshape(-1)[: block.stop - block.start], out=left[block])
    frame = zstandard.ZstdCompressor(level=1).compress(codes.data)
    return b"".join([_INT8.pack(_INT8_MAGIC, wanted.size), scales.astype("<f4", copy=False).tobytes(), frame]), left


def _decode_int8(body: bytes | memoryview, size: int) -> Vector:
    count = -(-size // SCALE_BLOCK)
    start = _INT8.size + 4 * count
    if len(body) < start:
        raise ValueError("a truncated int8 delta")
    magic, elements = _INT8.unpack_from(body)
    if magic != _INT8_MAGIC or elements != size:
        raise ValueError(f"no int8 delta of {size} elements")
    scales = np.frombuffer(body, np.dtype("<f4"), count, _INT8.size)
    if not ((scales >= 0) & (scales <= LARGEST_SCALE)).all():
        raise ValueError("an int8 delta with an impossible scale")
    codes = np.frombuffer(_unzip(memoryview(body)[start:], size), np.int8)
    delta = np.empty(size, np.float32)
    for block in blocks(slice(0, size)):
        scale = scales[block.start // SCALE_BLOCK : -(-block.stop // SCALE_BLOCK)]
        values = _rows(codes[block]) * scale[:, None]
        delta[block] = values.reshape(-1)[: block.stop - block.start]
    return delta


def _rows(piece: Array) -> Array:
    """(n,) as (ceil(n / 256), 256), the last row filled up with zeros."""
    missing = -piece.size % SCALE_BLOCK
    return (np.pad(piece, (0, missing)) if missing else piece).reshape(-1, SCALE_BLOCK)


def _unzip(frame: memoryview, size: int) -> bytes:
    """The content of a zstd frame that declares exactly `size` bytes, looked at before memory is taken."""
    try:
        if zstandard.frame_content_size(frame) != size:
            raise ValueError(f"a zstd frame that does not declare {size} bytes")
        content = zstandard.ZstdDecompressor(max_window_size=8 << 20).decompress(frame, allow_extra_data=False)
    except (zstandard.ZstdError, MemoryError) as error:
        raise ValueError(f"damaged zstd frame: {error}") from None
    if len(content) != size:
        raise ValueError(f"a zstd frame of {len(content)} bytes that declares {size}")
    return content
