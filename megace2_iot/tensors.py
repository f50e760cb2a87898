"""Named tensors as safetensors: written here, since the library orders metadata anew at each run, and a model is named
by its hash; read here, since what came over a network is looked at before anything is made of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from megace2_iot.parameters import Layout, Vector

Array = npt.NDArray[Any]

MAX_HEADER = 8 << 20  # bytes of a safetensors header: 100 bytes a tensor
MAX_RANK = 8


def encode_tensors(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> bytes:
    """Float32 tensors and metadata as safetensors; equal content gives equal bytes, so that a hash may name it."""
    return b"".join(tensor_parts(tensors, metadata))


def tensor_parts(tensors: Mapping[str, Array], metadata: Mapping[str, str]) -> list[bytes | memoryview]:
    """The same as parts that follow one another, the tensors not copied."""
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    end, parts = 0, list[bytes | memoryview]()
    for name in sorted(tensors):
        tensor = np.asarray(tensors[name])
        if tensor.dtype != np.float32:
            raise ValueError(f"tensor {name} is {tensor.dtype}: models are float32")
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [end, end := end + tensor.nbytes]}
        parts.append(np.ascontiguousarray(tensor, "<f4").reshape(-1).view(np.uint8).data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little"), text, *parts]


def decode_tensors(data: bytes | memoryview) -> tuple[dict[str, Vector], dict[str, str]]:
    """Tensors (read-only views of `data`) and metadata of a stranger's safetensors; raises ValueError only."""
    places, metadata, body = _read_header(data)
    return {name: body[part].reshape(shape) for name, (part, shape) in places.items()}, metadata


def flat_view(data: bytes | memoryview, layout: Layout) -> Vector:
    """The vector (P,) of a safetensors model: a read-only view where its tensors lie as in the layout, else a copy.

    Raises ValueError for anything that is not a model of this layout.
    """
    places, _, body = _read_header(data)
    if places == {name: (part, layout.shapes[name]) for name, part in layout.slices.items()}:
        return body
    return layout.flatten({name: body[part].reshape(shape) for name, (part, shape) in places.items()})


_Places = dict[str, tuple[slice, tuple[int, ...]]]


def _read_header(data: bytes | memoryview) -> tuple[_Places, dict[str, str], Vector]:
    """Each tensor's part of the body and its shape, the metadata, and the body as float32; raises ValueError."""
    length = int.from_bytes(data[:8], "little")
    if length > min(MAX_HEADER, len(data) - 8):
        raise ValueError(f"no safetensors: a header of {length} bytes in {len(data)}")
    try:
        header = json.loads(bytes(data[8 : 8 + length]))
    except (ValueError, RecursionError):
        raise ValueError("safetensors with a damaged header") from None
    metadata = header.pop("__metadata__", {}) if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("safetensors with a damaged header")
    places = {name: _place(name, entry) for name, entry in header.items()}
    end = 0
    for part, _ in sorted(places.values(), key=lambda place: (place[0].start, place[0].stop)):
        if part.start != end:
            raise ValueError("safetensors whose tensors overlap or leave holes")
        end = part.stop
    if len(data) - 8 - length != 4 * end:
        raise ValueError(f"safetensors of {len(data)} bytes, their header tells of {8 + length + 4 * end}")
    body: Vector = np.frombuffer(data, np.uint8)[8 + length :].view(np.dtype("<f4"))
    return places, metadata, body if body.flags.aligned else body.copy()


def _place(name: str, entry: object) -> tuple[slice, tuple[int, ...]]:
    """One entry of the header, its offsets counted in elements."""
    match entry:
        case {"dtype": "F32", "shape": [*shape], "data_offsets": [int(start), int(stop)]}:
            size = math.prod(shape) if len(shape) <= MAX_RANK and all(type(n) is int and n >= 0 for n in shape) else -1
            if start >= 0 and start % 4 == 0 and stop - start == 4 * size:
                return slice(start // 4, stop // 4), tuple(shape)
            raise ValueError(f"tensor {name} with a damaged entry")
        case {"dtype": str(dtype)} if dtype != "F32":
            raise ValueError(f"tensor {name[:80]} is {dtype[:20]}: models are float32 (F32)")
    raise ValueError(f"tensor {name[:80]} with a damaged entry")
