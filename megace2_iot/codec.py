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
MOST_VALUES = 1 << 17  # in the arrays and maps of one body: a byte that says "empty map" becomes 72 in memory
ARRAYS = 32  # the longest array takes 1/32 of the values: memory for all its items is taken when it begins
UNCOUNTED = 256 << 10  # bytes of a body that is too short to hold far too many values
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


def decode(data: bytes, *, limit: int = DEFAULT_LIMIT, values: int = MOST_VALUES) -> dict[str, Any]:
    """Decode one envelope whose body may take at most `limit` bytes and hold at most so many values.

    Raises `DecodeError` and nothing else.
    """
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
    if len(body) > UNCOUNTED or values > MOST_VALUES:
        count_values(body, values)
    return _unpack(body, min(values // ARRAYS, len(body)))


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


def _unpack(body: memoryview, longest: int) -> dict[str, Any]:
    try:
        message = msgpack.unpackb(
            body,
            raw=False,
            strict_map_key=True,
            ext_hook=_unpack_array,
            max_str_len=64 << 10,
            max_bin_len=len(body),
            max_array_len=longest,
            max_map_len=4096,
            max_ext_len=len(body),
        )
    except (ValueError, TypeError, RecursionError, OverflowError, MemoryError, msgpack.UnpackException) as error:
        raise DecodeError(f"damaged msgpack: {str(error) or type(error).__name__}") from None
    if not isinstance(message, dict):
        raise DecodeError(f"the body is a {type(message).__name__}, not a map")
    return message


def _sizes() -> list[tuple[int, int, int]]:
    """By first byte: bytes of the size that follows, bytes besides it and the content, values for each of the size."""
    table = [(0, 1, 0)] * 256  # small integers, nil and booleans
    for size in range(16):
        table[0x80 + size], table[0x90 + size] = (0, 1, 2 * size), (0, 1, size)  # maps, arrays
    for size in range(32):
        table[0xA0 + size] = (0, 1 + size, 0)  # text
    for power in range(3):  # bytes, extensions, text with a size of 1, 2 and 4 bytes
        table[0xC4 + power] = table[0xD9 + power] = (1 << power, 1, 0)
        table[0xC7 + power] = (1 << power, 2, 0)
    for power in range(2):  # arrays and maps with a size of 2 and 4 bytes
        table[0xDC + power], table[0xDE + power] = (2 << power, 1, 1), (2 << power, 1, 2)
    for first, size in zip(range(0xCA, 0xD4), (4, 8, 1, 2, 4, 8, 1, 2, 4, 8), strict=True):
        table[first] = (0, 1 + size, 0)  # floats and integers
    for power in range(5):
        table[0xD4 + power] = (0, 2 + (1 << power), 0)  # extensions of 1 to 16 bytes
    return table


_SIZES = _sizes()


def count_values(body: memoryview, most: int) -> None:
    """Raise `DecodeError` where a msgpack body holds, or says that it holds, more than `most` values.

    msgpack's own limits are of one array each, and those that it nests multiply. Nothing is decoded here: contents are
    stepped over, and what is damaged ends the count, for msgpack to find.
    """
    at, found, to_come, end = 0, 0, 1, len(body)
    while to_come and at < end:
        sized, besides, each = _SIZES[body[at]]
        to_come -= 1
        if sized:
            size = int.from_bytes(body[at + 1 : at + 1 + sized], "big")
            at += sized + besides + (0 if each else size)
            inside = each * size
        else:
            at, inside = at + besides, each
        found, to_come = found + 1, to_come + inside
        if found + to_come > most:
            raise DecodeError(f"a body of over {most} values")


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
