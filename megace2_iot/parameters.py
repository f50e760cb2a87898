"""Named tensors as one flat float32 vector and its layout; model updates, their weighted mean, and their bytes.

Aggregation knows no tensors: a model is a vector (P,) whose `Layout` says which slice is which tensor. A tensor's group
is its name up to the first dot; a group is one slice, so that each has its own denominator in a mean. Models travel as
safetensors (written here: the library orders metadata anew at each run, and a model is named by its hash), deltas as
raw float32 or as int8 in blocks.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard

Vector = npt.NDArray[np.float32]
Array = npt.NDArray[Any]

BLOCK = 65_536  # elements handled at once: vector, mean and scratch of a block stay in a core's cache
SCALE_BLOCK = 256  # elements of a delta that share one int8 scale
MAX_EXAMPLES = 1e12  # behind one update; more is nonsense or an attack
MAX_HEADER = 8 << 20  # bytes of a safetensors header: 100 bytes a tensor
MAX_RANK = 8
LARGEST_SCALE = 1e36  # of int8 deltas: 128 of it is still a float32
delta_codecs = ("float32", "int8")
_INT8 = struct.Struct("<4sQ")  # magic and version, elements; then the scales and one zstd frame of codes
_INT8_MAGIC = b"MD\x01\x00"


@dataclass(frozen=True)  # without slots: what follows from the shapes is worked out once
class Layout:
    """Where each tensor lies in the flat vector: one after the other in the order of their names."""

    shapes: Mapping[str, tuple[int, ...]]

    def __post_init__(self) -> None:
        ordered = {name: tuple(int(n) for n in self.shapes[name]) for name in sorted(self.shapes)}
        object.__setattr__(self, "shapes", MappingProxyType(ordered))
        seen, previous = set[str](), ""
        for group in map(group_of, ordered):
            if group != previous and group in seen:  # a character below the dot, as in a, a-b.x, a.x
                raise ValueError(
                    f"the tensors of group {group!r} are not neighbours in the order of names: rename them"
                )
            seen.add(previous := group)

    @classmethod
    def of(cls, tensors: Mapping[str, Array]) -> Layout:
        """The layout of these tensors; raises ValueError for one that is not of floats and so cannot be averaged."""
        for name, tensor in tensors.items():
            if tensor.dtype.kind != "f":
                raise ValueError(f"tensor {name} is {tensor.dtype}: only floats are averaged")
        return cls({name: tensor.shape for name, tensor in tensors.items()})

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.shapes)

    @cached_property
    def slices(self) -> Mapping[str, slice]:
        """Each tensor's part of the vector."""
        end, parts = 0, {}
        for name, shape in self.shapes.items():
            parts[name] = slice(end, end := end + math.prod(shape))
        return MappingProxyType(parts)

    @cached_property
    def size(self) -> int:
        """P, the number of parameters."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @cached_property
    def groups(self) -> Mapping[str, slice]:
        """Each group's part of the vector."""
        groups: dict[str, slice] = {}
        for name, part in self.slices.items():
            group = group_of(name)
            groups[group] = slice(groups[group].start if group in groups else part.start, part.stop)
        return MappingProxyType(groups)

    @cached_property
    def digest(self) -> str:
        """sha256 in hex; equal for layouts whose vectors may be averaged with each other."""
        return hashlib.sha256(json.dumps([[name, *shape] for name, shape in self.shapes.items()]).encode()).hexdigest()

    def flatten(self, tensors: Mapping[str, Array]) -> Vector:
        """The tensors as one new vector (P,); raises ValueError where names or shapes are not the layout's."""
        given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if given != self.shapes:
            name = min(n for n in given.keys() | self.shapes.keys() if given.get(n) != self.shapes.get(n))
            raise ValueError(f"tensor {name} has shape {given.get(name)}, expected {self.shapes.get(name)}")
        vector = np.empty(self.size, np.float32)
        for name, part in self.slices.items():
            vector[part] = tensors[name].reshape(-1)
        return vector

    def unflatten(self, vector: Vector) -> dict[str, Vector]:
        """Views of `vector` (P,) by name."""
        self.check(vector)
        return {name: vector[part].reshape(self.shapes[name]) for name, part in self.slices.items()}

    def check(self, vector: Array) -> None:
        """Raise ValueError for anything but a float32 vector (P,)."""
        if vector.shape != (self.size,) or vector.dtype != np.float32:
            raise ValueError(f"a vector of {vector.dtype} {vector.shape}, expected float32 ({self.size},)")


def group_of(name: str) -> str:
    """The parameter group of a tensor: what is trained and averaged together."""
    return name.split(".", 1)[0]


# -- updates and their mean -----------------------------------------------------------
@dataclass(frozen=True, slots=True, eq=False)
class ModelUpdate:
    """What one node learned: `delta` (P,) over release `base_version`, and the examples behind each group."""

    base_version: int
    num_examples: Mapping[str, float]
    delta: Vector


def blocks(part: slice) -> Iterator[slice]:
    """`part` in pieces of at most `BLOCK` elements."""
    return (slice(at, min(at + BLOCK, part.stop)) for at in range(part.start, part.stop, BLOCK))


def is_finite(vector: Vector) -> bool:
    """Whether every element is finite, without a temporary of the vector's size."""
    with np.errstate(over="ignore", invalid="ignore"):
        for block in blocks(slice(0, vector.size)):
            piece = vector[block]
            # the product with itself is faster than isfinite; an overflow of large finite values is looked at again
            if not math.isfinite(np.dot(piece, piece)) and not np.isfinite(piece).all():
                return False
    return True


def check_examples(layout: Layout, num_examples: Mapping[str, float]) -> dict[str, float]:
    """The counts of the groups that have any; raises ValueError for an unknown group or an impossible count."""
    for group, count in num_examples.items():
        if group not in layout.groups:
            raise ValueError(f"parameter group {group[:80]!r} is not in the layout")
        if not 0 <= count <= MAX_EXAMPLES:  # NaN is neither
            raise ValueError(f"{count} examples behind group {group!r}")
    return {group: float(count) for group, count in num_examples.items() if count}


class RunningMean:
    """sum(n_i x_i) / sum(n_i) per parameter group, exact after every `add`; memory for one vector, whoever many add.

    The form acc += (n / N) (x - acc) keeps float32 sums within 3e-7 of float64 ones (16 vectors of 12.6 M).
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._mean = np.zeros(layout.size, np.float32)
        self._examples = dict.fromkeys(layout.groups, 0.0)
        self._scratch = np.empty(min(BLOCK, layout.size), np.float32)

    @property
    def value(self) -> Vector:
        """The mean (P,), a read-only view that the next `add` changes; zero where a group has no examples."""
        view = self._mean.view()
        view.flags.writeable = False
        return view

    @property
    def num_examples(self) -> dict[str, float]:
        """Examples behind each group so far; 0 for one that nobody touched."""
        return dict(self._examples)

    weights = num_examples

    def add(self, vector: Vector, num_examples: Mapping[str, float]) -> None:
        """Take one vector (P,); raises ValueError, changing nothing, for a wrong one or an impossible count."""
        self._layout.check(vector)
        counts = check_examples(self._layout, num_examples)
        if not is_finite(vector):
            raise ValueError("the vector holds NaN or infinity")
        for group, count in counts.items():
            part = self._layout.groups[group]
            self._examples[group] += count
            if self._examples[group] == count:
                self._mean[part] = vector[part]
            else:
                self._move(part, vector, count / self._examples[group])

    def _move(self, part: slice, vector: Vector, share: float) -> None:
        with np.errstate(over="ignore"):  # x - acc of finite values may overflow; the edge of float32 is no model
            for block in blocks(part):
                step = self._scratch[: block.stop - block.start]
                np.subtract(vector[block], self._mean[block], out=step)
                step *= np.float32(share)
                self._mean[block] += step


def weighted_mean(layout: Layout, parts: Sequence[tuple[Vector, Mapping[str, float]]], otherwise: Vector) -> Vector:
    """sum(n_i x_i) / sum(n_i) per parameter group of vectors (P,) that are all here; `otherwise` where n is 0.

    Each block is summed while it is in cache: three times as fast as 16 calls of `RunningMean.add`. A value that is
    not finite makes the mean of its element not finite, and is not looked for otherwise.
    """
    mean = np.empty(layout.size, np.float32)
    scratch = np.empty(min(BLOCK, layout.size), np.float32)
    for group, whole in layout.groups.items():
        held = [(vector, examples[group]) for vector, examples in parts if examples.get(group)]
        unit = 2.0 ** math.ceil(math.log2(max((count for _, count in held), default=1)))  # exact, and none overflows
        weights = [np.float32(count / unit) for _, count in held]
        total = np.float32(1 / sum(count / unit for _, count in held)) if held else np.float32(1)
        for block in blocks(whole):
            piece, step = mean[block], scratch[: block.stop - block.start]
            if not held:
                piece[:] = otherwise[block]
                continue
            np.multiply(held[0][0][block], weights[0], out=piece)
            for (vector, _), weight in zip(held[1:], weights[1:], strict=True):
                np.multiply(vector[block], weight, out=step)
                piece += step
            piece *= total
    return mean


# -- deltas as bytes ------------------------------------------------------------------
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


# -- models as safetensors ------------------------------------------------------------
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
