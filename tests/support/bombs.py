"""Bombs: a few bytes that ask for gigabytes. As a program: decode each where there is no gigabyte to give.

A line of JSON for each says its name, what its decoder said, and the most bytes that Python took for it.
"""

from __future__ import annotations

import json
import struct
import sys
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import zstandard

from broker.framing import PacketReader
from device_agent.local import _Release
from megace2_iot.codec import decode, encode
from megace2_iot.deltas import decode_delta
from megace2_iot.identity import Identity
from megace2_iot.messages import DeviceProfile
from megace2_iot.quantize import Quantized
from megace2_iot.tensors import decode_tensors

MiB = 1 << 20
ROOM = 256 * MiB  # of address space that this program may add to what its imports took
PLAIN, PACKED = b"M2\x01\x00", b"M2\x01\x01"  # envelopes, the second compressed
IN_X = b"\x81\xa1x"  # msgpack: a map of "x" and what follows
EMPTY_MAPS = b"\xdc\x10\x00" + b"\x80" * 4096  # msgpack: an array of 4,096 of them


def zeros(size: int, *, declared: bool = True) -> bytes:
    """A zstd frame of so many, made without them."""
    stream = zstandard.ZstdCompressor(level=1).compressobj(size=size if declared else -1)
    return b"".join([*(stream.compress(bytes(MiB)) for _ in range(size // MiB)), stream.flush()])


def windowed(log: int) -> bytes:
    """A zstd frame of 16 bytes that wants a window of 2^log bytes (RFC 8878, 3.1.1)."""
    return b"\x28\xb5\x2f\xfd\x80" + bytes([(log - 10) << 3]) + struct.pack("<I", 16) + b"\x81\x00\x00" + b"\x80" * 16


def packed(body: bytes) -> bytes:
    return PACKED + zstandard.ZstdCompressor().compress(body)


def array(kind: int, shape: tuple[int, ...], data: bytes = b"") -> bytes:
    """An envelope with one array; kind 2 is of bytes."""
    head = struct.pack(f"<BB{len(shape)}I", kind, len(shape), *shape)
    return PLAIN + msgpack.packb({"x": msgpack.ExtType(1, head + data)})


def safetensors(header: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header


def tensor(shape: list[int], end: int) -> bytes:
    return safetensors(json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, end]}}).encode())


def quantised(data: bytes) -> Quantized:
    return Quantized.from_fields({"T": 0, **decode(data)})


def delta(data: bytes) -> object:
    return decode_delta(data, "int8", 1000)


def mqtt(data: bytes) -> object:
    return PacketReader(MiB).feed(data)


BOMBS: Mapping[str, tuple[Callable[[Any], object], Any]] = {
    "zstd: 500 MB in 16 KB": (decode, PACKED + zeros(500 * MiB)),
    "zstd: no declared size": (decode, PACKED + zeros(500 * MiB, declared=False)),
    "zstd: 8 GB declared": (decode, PACKED + b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 8 << 30) + b"\x01\x00\x00"),
    "zstd: two frames": (decode, packed(b"\x80" * 9) + packed(b"\x80")[4:]),
    "zstd: a window of 128 MB": (decode, PACKED + windowed(27)),
    "msgpack: 2 million empty maps in 300 bytes": (decode, packed(IN_X + b"\xdc\x02\x00" + EMPTY_MAPS * 512)),
    "msgpack: a nest of huge arrays": (decode, PLAIN + IN_X + b"\xdd\xff\xff\xff\xff" * 2000),
    "msgpack: a nest of the longest arrays": (decode, PLAIN + IN_X + b"\xdc\x10\x00" * 2000),
    "msgpack: the same in a long body": (decode, PLAIN + IN_X + b"\xdc\x10\x00" * 100_000),
    "msgpack: a map of 4 thousand million": (decode, PLAIN + b"\xdf\xff\xff\xff\xff"),
    "msgpack: text of 4 GB": (decode, PLAIN + IN_X + b"\xdb\xff\xff\xff\xff"),
    "msgpack: bytes of 4 GB": (decode, PLAIN + IN_X + b"\xc6\xff\xff\xff\xff"),
    "msgpack: an extension of 4 GB": (decode, PLAIN + IN_X + b"\xc9\xff\xff\xff\xff\x01"),
    "msgpack: a number as key": (decode, PLAIN + b"\x81\x01\x01"),
    "array: 2^32 by 2^32": (decode, array(0, (2**32 - 1, 2**32 - 1))),
    "array: no rows of 2^32 by 2^32": (quantised, array(2, (0, 2**32 - 1, 2**32 - 1))),
    "array: rank 200": (decode, array(0, (0,) * 200)),
    "array: an unknown type": (decode, array(77, (1,), b"\0")),
    "quantised: a million steps that are not there": (
        Quantized.from_fields,
        {
            "T": 1 << 20,
            "c": np.full(65_536, 2, np.uint8),
            "s": np.zeros(65_536, np.uint16),
            "o": np.zeros(65_536, np.int16),
        },
    ),
    "delta: 400 MB of zeros": (delta, b"MD\x01\0" + struct.pack("<Q", 1000) + bytes(16) + zeros(400 * MiB)),
    "safetensors: a header of 2^63 bytes": (decode_tensors, b"\xff" * 7 + b"\x7f" + b"{}"),
    "safetensors: a nest of lists": (decode_tensors, safetensors(b"[" * 4_000_000)),
    "safetensors: a shape that overflows": (decode_tensors, tensor([2**62, 8], 4)),
    "safetensors: a tensor of 2^60": (decode_tensors, tensor([2**60], 2**62)),
    "safetensors: digits without end": (decode_tensors, safetensors(b'{"a": ' + b"9" * 4_000_000 + b"}")),
    "local model: bytes of a number": (
        _Release.read,
        encode({"base": b"", "graph": 3 << 30, "prefix": "", "calibration": [0, 0]}),
    ),
    "profile: a megabyte about itself": (
        DeviceProfile.decode,
        encode({"dims": {"text": 1}, "sensors": ["x" * 60_000] * 20}),
    ),
    "JSON: a nest": (Identity.model_validate_json, b"[" * 4_000_000),
    "MQTT: a packet of 256 MB": (mqtt, b"\x30\xff\xff\xff\x7f"),
}


def main() -> None:
    import resource

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for name, (read, data) in BOMBS.items():
        tracemalloc.start()
        try:
            read(data)
            said = "decoded"
        except Exception as error:
            said = f"{type(error).__name__}: {str(error)[:200]}"
        print(json.dumps([name, said, tracemalloc.get_traced_memory()[1]]), flush=True)
        tracemalloc.stop()


if __name__ == "__main__":
    sys.exit(main())
