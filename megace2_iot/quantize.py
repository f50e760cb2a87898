"""The adaptive codec of a feature matrix: each channel in the cheapest coding that keeps inside an error bound.

The bound is a part of each channel's own range (max - min) within the window. A channel becomes

    integers   codes 0..2^b - 1, b <= 8: x ~ (code + offset) * step, the step a float <= 2 * bound of 16 bits
    steps      the same codes as differences from step to step, where the channel moves slowly (modulo 256)
    float16    where the integers miss the bound
    float32    where float16 misses it too: constant channels, a range that float32 itself hardly resolves

and the bound is checked by decoding what was encoded. Codes stay one byte each and channel by channel: the envelope's
zstd frame then codes them at their entropy, which is below the fixed width (docs/experiments.md).
Letters: T time, D channels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

FLOAT32, FLOAT16, INTEGER, DIFFERENCE = 0, 1, 2, 3
MAX_CHANNELS, MAX_STEPS = 65_536, 1 << 20
MAX_CODE = 255
LARGEST_STEP = np.float32(1e33)  # whatever its code and offset, what is decoded is finite
LARGEST_SCALE = int(LARGEST_STEP.view(np.uint32)) >> 16  # a larger one is beyond it, negative, infinite or NaN
STEP_BITS = np.uint16(0xFFF8)  # of a float32's upper half: 4 bits of mantissa, at most 6 % finer than needed
_UINT8, _UINT16, _INT16 = np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.int16)
_FLOAT16, _FLOAT32 = np.dtype(np.float16), np.dtype(np.float32)
ROW_BY_ROW = 2048  # channels from which numpy's own accumulate is the slower way
CENTRE = np.uint8(13)  # added to differences, so that they use the same byte values as codes do at a bound of 2 %


@dataclass(frozen=True, slots=True, eq=False)
class Quantized:
    """A coded (T, D) matrix; `codes`, `halves` and `floats` hold the channels of each coding, (channels, T)."""

    steps_count: int  # T
    codings: Array  # (D,) uint8: one of the four above
    scales: Array  # (integer channels,) uint16: the upper half of a float32 step
    offsets: Array  # (integer channels,) int16
    codes: Array  # uint8
    halves: Array  # float16
    floats: Array  # float32

    def to_fields(self) -> dict[str, Any]:
        """Plain values for the wire."""
        fields: dict[str, Any] = {"T": self.steps_count, "c": self.codings, "s": self.scales, "o": self.offsets}
        fields["q"] = self.codes
        if self.halves.size:
            fields["h"] = self.halves
        if self.floats.size:
            fields["f"] = self.floats
        return fields

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Quantized:
        """Read fields of a stranger; raises ValueError for any that do not fit each other."""
        steps = fields.get("T")
        if type(steps) is not int or not 0 <= steps <= MAX_STEPS:
            raise ValueError(f"a sequence of {steps!r} steps")
        codings = _field(fields, "c", _UINT8, None)
        if codings.ndim != 1 or codings.size > MAX_CHANNELS:
            raise ValueError("a damaged list of codings")
        listed = codings.tobytes()  # counting bytes takes a tenth of what numpy takes to count
        floats, halves = listed.count(FLOAT32), listed.count(FLOAT16)
        integers = listed.count(INTEGER) + listed.count(DIFFERENCE)
        if floats + halves + integers != len(listed):
            raise ValueError("a damaged list of codings")
        coded = cls(
            steps,
            codings,
            _field(fields, "s", _UINT16, (integers,)),
            _field(fields, "o", _INT16, (integers,)),
            _field(fields, "q", _UINT8, (integers, steps)),
            _field(fields, "h", _FLOAT16, (halves, steps), optional=True),
            _field(fields, "f", _FLOAT32, (floats, steps), optional=True),
        )
        if integers and coded.scales.max() > LARGEST_SCALE:  # as halves of floats they stand in the floats' order
            raise ValueError("a step that no encoder makes")
        if not all(np.isfinite(part).all() for part in (coded.halves, coded.floats) if part.size):
            raise ValueError("a sequence that holds NaN or infinity")
        return coded

    @property
    def channels(self) -> int:
        """D."""
        return self.codings.size

    @property
    def size(self) -> int:
        """Bytes of its arrays, but for some five a channel."""
        return self.codes.nbytes + self.halves.nbytes + self.floats.nbytes + 5 * self.channels

    @classmethod
    def side_by_side(cls, parts: Sequence[Quantized]) -> Quantized:
        """Matrices of one T as a single one whose channels follow one another: (T, sum D)."""
        if len(parts) == 1:
            return parts[0]
        steps = parts[0].steps_count
        assert all(part.steps_count == steps for part in parts)
        names = ("codings", "scales", "offsets", "codes", "halves", "floats")
        return cls(steps, *(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def quantize(values: Array, relative_bound: float) -> Quantized:
    """Code `values` (T, D) float32 with an error of at most `relative_bound` of each channel's range.

    Raises ValueError for anything not finite, naming the channel, and for a bound outside 0..0.5.
    """
    if not 0 <= relative_bound <= 0.5:
        raise ValueError(f"a relative bound of {relative_bound}: expected 0 to 0.5")
    x = np.ascontiguousarray(np.asarray(values, np.float32).T)  # (D, T)
    if x.ndim != 2 or x.shape[0] > MAX_CHANNELS or x.shape[1] > MAX_STEPS:
        raise ValueError(f"features of shape {np.shape(values)}: expected (T, D)")
    channels, steps = x.shape
    if steps == 0 or channels == 0:
        return _assemble(x, np.full(channels, INTEGER, np.uint8), *_nothing(channels, steps))
    low, high = x.min(axis=1), x.max(axis=1)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        bad = int(np.flatnonzero(~(np.isfinite(low) & np.isfinite(high)))[0])
        raise ValueError(f"channel {bad} holds NaN or infinity: features must be finite")
    bound = relative_bound * (high.astype(np.float64) - low.astype(np.float64))
    scales, offsets, codes, fits = _integers(x, low, bound)
    codings, codes = _differences(codes)
    rest = np.flatnonzero(~fits)
    if rest.size:
        with np.errstate(over="ignore"):
            halves = x[rest].astype(np.float16).astype(np.float64)
            close = (np.abs(halves - x[rest].astype(np.float64)) <= bound[rest, None]).all(axis=1)
        codings[rest] = np.where(close, FLOAT16, FLOAT32)
    return _assemble(x, codings, scales, offsets, codes)


def dequantize(coded: Quantized) -> npt.NDArray[np.float32]:
    """The (T, D) float32 matrix."""
    codings = coded.codings
    integer = codings >= INTEGER
    moving = codings[integer] == DIFFERENCE
    codes = np.ascontiguousarray(coded.codes.T)  # as bytes they are turned four times as fast as as floats
    if moving.any():
        codes = _add_up(codes) if moving.all() else np.where(moving, _add_up(codes), codes)
    restored = _restore(coded.scales, coded.offsets, codes)
    if restored.shape[1] == codings.size:
        return restored
    out = np.empty((coded.steps_count, codings.size), np.float32)
    out[:, integer] = restored
    out[:, codings == FLOAT16] = coded.halves.T
    out[:, codings == FLOAT32] = coded.floats.T
    return out


def _add_up(differences: Array) -> Array:
    """Codes (T, D) from differences, modulo 256."""
    steps = differences - CENTRE
    steps[:1] = differences[:1]
    if steps.shape[1] < ROW_BY_ROW:
        return np.add.accumulate(steps, axis=0, dtype=np.uint8)
    for before, row in pairwise(steps):  # the same ten times as fast where rows are long
        row += before
    return steps


def _restore(scales: Array, offsets: Array, codes: Array) -> npt.NDArray[np.float32]:
    """(T, D) of codes (T, D)."""
    whole = codes.astype(np.float32)
    whole += offsets.astype(np.float32)  # at most 2^15 + 255: exact in float32
    with np.errstate(over="ignore", invalid="ignore"):
        whole *= _widen(scales)
    return whole


def _widen(scales: Array) -> npt.NDArray[np.float32]:
    """The float32 steps whose upper halves these are."""
    return (scales.astype(np.uint32) << 16).view(np.float32)


def _integers(x: Array, low: Array, bound: Array) -> tuple[Array, Array, Array, Array]:
    """Scales, offsets, codes (D, T), and for which channels they hold the bound."""
    with np.errstate(over="ignore", divide="ignore", invalid="ignore", under="ignore"):
        scales = ((2.0 * bound).astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)  # rounds towards zero
        scales &= STEP_BITS
        step = _widen(scales)
        usable = (step > 0) & (step <= LARGEST_STEP)
        inverse = np.where(usable, 1.0 / np.where(usable, step, 1.0), 0.0)
        offsets = np.rint(low * inverse)
        usable &= np.abs(offsets) < 32_000
        offsets = np.where(usable, offsets, 0.0)
        codes = np.rint(x * inverse[:, None].astype(np.float32))
        codes -= offsets[:, None]
        usable &= (codes.max(axis=1) <= MAX_CODE) & (codes.min(axis=1) >= 0)
        coded = np.clip(codes, 0, MAX_CODE).astype(np.uint8)
        kept = offsets.astype(np.int16)
        error = np.abs(_restore(scales, kept, coded.T).T.astype(np.float64) - x)
        usable &= (error <= bound[:, None]).all(axis=1)
    return scales, kept, coded, usable


def _differences(codes: Array) -> tuple[Array, Array]:
    """Codings, and codes (D, T) with those channels as differences that are smaller so."""
    moves = codes[:, 1:] - codes[:, :-1]  # modulo 256
    spread = np.abs(codes[:, 1:].astype(np.int16) - codes.mean(axis=1, keepdims=True, dtype=np.float32))
    slow = np.abs(moves.view(np.int8)).sum(axis=1, dtype=np.int32) < spread.sum(axis=1)
    if slow.any():
        codes = codes.copy()
        codes[slow, 1:] = moves[slow] + CENTRE
    return np.where(slow, DIFFERENCE, INTEGER).astype(np.uint8), codes


def _nothing(channels: int, steps: int) -> tuple[Array, Array, Array]:
    return np.zeros(channels, np.uint16), np.zeros(channels, np.int16), np.zeros((channels, steps), np.uint8)


def _assemble(x: Array, codings: Array, scales: Array, offsets: Array, codes: Array) -> Quantized:
    integer = codings >= INTEGER
    whole = bool(integer.all())
    return Quantized(
        x.shape[1],
        codings,
        scales if whole else scales[integer],
        offsets if whole else offsets[integer],
        codes if whole else codes[integer],
        x[codings == FLOAT16].astype(np.float16),
        x[codings == FLOAT32],
    )


def _field(
    fields: Mapping[str, Any], name: str, dtype: np.dtype[Any], shape: tuple[int, ...] | None, *, optional: bool = False
) -> Array:
    """A field of a stranger; `shape` None takes any, and an `optional` one may be absent where it would be empty."""
    value = fields.get(name)
    if value is None and optional and shape is not None and 0 in shape:
        return np.zeros(shape, dtype)
    if not isinstance(value, np.ndarray) or value.dtype != dtype:
        raise ValueError(f"field {name} is no array of {dtype}")
    if shape is not None and value.shape != shape:
        raise ValueError(f"field {name} has shape {value.shape}, expected {shape}")
    return value
