"""Bytes that cross the broker: magic, version, one msgpack map with arrays, zstd; bounded before it allocates.

    2 bytes  b"M2"      magic
    1 byte   1          version of this envelope
    1 byte   flags      bit 0: the body is one zstd frame with its content size written
    rest     body       a msgpack map; an array is extension type 1: dtype code, rank, shape (u32 little endian), data

Decoding takes bytes from strangers. Every size is checked against a limit before memory is taken for it, and the
only exception is `DecodeError`. `zstandard`'s own `max_output_size` does not bound a frame that declares its size, so
the declared size is read first.
"""

from __future__ import annotations

import math
import struct
import threading
from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np
import zstandard

MAGIC = b"M2"
VERSION = 1
COMPRESSED = 1
HEADER = struct.Struct("<2sBB")
COMPRESS_FROM = 200  # bytes; below it a zstd frame costs more than it saves
LARGE = 1024  # bytes from which an array is worth a symbol table of its own
DEFAULT_LIMIT = 8 << 20  # bytes of a decoded body: a model chunk is 64 KiB, a packet of several windows below 1 MiB
MAX_RANK = 4
ARRAY = 1  # msgpack extension type

_NAMES = ("<f4", "<f2", "|u1", "<u2", "<i2", "<i4", "|i1")
_DTYPES = {code: np.dtype(name) for code, name in enumerate(_NAMES)}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_SHAPES = tuple(struct.Struct(f"<{rank}I") for rank in range(MAX_RANK + 1))
_contexts = threading.local()  # zstd's working memory, one of each kind a thread: making one takes 8 us


class DecodeError(Exception):
    """These bytes are no message of ours; the text says why."""


def encode(message: Mapping[str, Any], *, level: int = 3) -> bytes:
    """Encode a map of plain values and numpy arrays; `level` is zstd's, 0 leaves the body as it is."""
    large: list[bytes] = []
    body: bytes = msgpack.packb(message, default=lambda value: _pack_array(value, large), use_bin_type=True)
    if not level or len(body) < COMPRESS_FROM:
        return HEADER.pack(MAGIC, VERSION, 0) + body
    return HEADER.pack(MAGIC, VERSION, COMPRESSED) + _compress(body, large, level)


def _compress(body: bytes, large: list[bytes], level: int) -> bytes:
    """One zstd frame, in which each large array has blocks of its own and so its own symbol table (6 % smaller)."""
    compressor = zstandard.ZstdCompressor(level=level, write_content_size=True, write_checksum=False)
    if not large:
        return compressor.compress(body)
    stream, cut, parts = compressor.compressobj(size=len(body)), 0, []
    for data in large:
        begin = body.index(data, cut)
        for end in (begin, begin + len(data)):
            parts.append(stream.compress(body[cut:end]))
            parts.append(stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK))
            cut = end
    return b"".join([*parts, stream.compress(body[cut:]), stream.flush()])


def decode(data: bytes, *, limit: int = DEFAULT_LIMIT) -> dict[str, Any]:
    """Decode one envelope whose body may take at most `limit` bytes; raises `DecodeError` and nothing else."""
    if len(data) < HEADER.size:
        raise DecodeError(f"truncated: {len(data)} bytes, an envelope has at least {HEADER.size}")
    magic, version, flags = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise DecodeError(f"not a Mega-CE2 message: it begins with {bytes(data[:2])!r}")
    if version != VERSION:
        raise DecodeError(f"envelope version {version}, this program speaks {VERSION}: update the older side")
    if flags & ~COMPRESSED:
        raise DecodeError(f"unknown flags {flags:#x}")
    body = memoryview(data)[HEADER.size :]
    if flags & COMPRESSED:
        body = memoryview(_decompress(body, limit))
    elif len(body) > limit:
        raise DecodeError(f"oversized: {len(body)} bytes, the limit is {limit}")
    return _unpack(body)


def _decompress(frame: memoryview, limit: int) -> bytes:
    try:
        declared = zstandard.frame_content_size(frame)
        if declared < 0:
            raise DecodeError("a zstd frame without its content size")
        if declared > limit:
            raise DecodeError(f"oversized: a zstd frame of {declared} bytes, the limit is {limit}")
        body = _decompressor().decompress(frame, max_output_size=limit, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DecodeError(f"damaged zstd frame: {error}") from None
    except MemoryError:
        raise DecodeError("a zstd frame that does not fit in memory") from None
    if len(body) != declared:
        raise DecodeError(f"a zstd frame of {len(body)} bytes that declares {declared}")
    return body


def _decompressor() -> zstandard.ZstdDecompressor:
    held: zstandard.ZstdDecompressor | None = getattr(_contexts, "decompressor", None)
    if held is None:
        held = _contexts.decompressor = zstandard.ZstdDecompressor(max_window_size=8 << 20)
    return held


def _unpack(body: memoryview) -> dict[str, Any]:
    try:
        message = msgpack.unpackb(
            body,
            raw=False,
            strict_map_key=True,
            ext_hook=_unpack_array,
            max_str_len=64 << 10,
            max_bin_len=len(body),
            max_array_len=64 << 10,
            max_map_len=4096,
            max_ext_len=len(body),
        )
    except (ValueError, TypeError, RecursionError, OverflowError, msgpack.UnpackException) as error:
        raise DecodeError(f"damaged msgpack: {str(error) or type(error).__name__}") from None
    if not isinstance(message, dict):
        raise DecodeError(f"the body is a {type(message).__name__}, not a map")
    return message


def _pack_array(value: object, large: list[bytes]) -> msgpack.ExtType:
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if not isinstance(value, np.ndarray):
        raise TypeError(f"a {type(value).__name__} cannot cross the wire")
    code = _CODES.get(value.dtype.newbyteorder("<"))
    if code is None or value.ndim > MAX_RANK:
        raise TypeError(f"an array of {value.dtype} with {value.ndim} axes cannot cross the wire")
    data = np.ascontiguousarray(value, dtype=_DTYPES[code]).tobytes()
    if len(data) >= LARGE:
        large.append(data)
    return msgpack.ExtType(ARRAY, struct.pack(f"<BB{value.ndim}I", code, value.ndim, *value.shape) + data)


def _unpack_array(kind: int, data: bytes) -> np.ndarray[Any, Any]:
    if kind != ARRAY or len(data) < 2:
        raise ValueError(f"unknown extension type {kind}")
    dtype, rank = _DTYPES.get(data[0]), data[1]
    if dtype is None or rank > MAX_RANK or len(data) < 2 + 4 * rank:
        raise ValueError("an array with a damaged header")
    shape = _SHAPES[rank].unpack_from(data, 2)
    if math.prod(shape) * dtype.itemsize != len(data) - 2 - 4 * rank:
        raise ValueError(f"an array of shape {shape} that does not fit its {len(data)} bytes")
    return np.ndarray(shape, dtype, data, 2 + 4 * rank)
