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

from collections.abc import Mapping
from dataclasses import dataclass
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
        codings = _field(fields, "c", np.uint8, 1)
        if codings.size > MAX_CHANNELS or (codings.size and codings.max() > DIFFERENCE):
            raise ValueError("a damaged list of codings")
        counts = np.bincount(codings, minlength=4)
        integers = int(counts[INTEGER] + counts[DIFFERENCE])
        coded = cls(
            steps,
            codings,
            _field(fields, "s", np.uint16, 1),
            _field(fields, "o", np.int16, 1),
            _field(fields, "q", np.uint8, 2),
            _field(fields, "h", np.float16, 2, missing=(int(counts[FLOAT16]), steps)),
            _field(fields, "f", np.float32, 2, missing=(int(counts[FLOAT32]), steps)),
        )
        wanted = {
            "q": (coded.codes, (integers, steps)),
            "h": (coded.halves, (int(counts[FLOAT16]), steps)),
            "f": (coded.floats, (int(counts[FLOAT32]), steps)),
            "s": (coded.scales, (integers,)),
            "o": (coded.offsets, (integers,)),
        }
        for name, (array, shape) in wanted.items():
            if array.shape != shape:
                raise ValueError(f"field {name} has shape {array.shape}, expected {shape}")
        if integers and coded.scales.max() > LARGEST_SCALE:  # as halves of floats they stand in the floats' order
            raise ValueError("a step that no encoder makes")
        if not all(np.isfinite(part).all() for part in (coded.halves, coded.floats) if part.size):
            raise ValueError("a sequence that holds NaN or infinity")
        return coded


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
    return np.add.accumulate(steps, axis=0, dtype=np.uint8)


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
    fields: Mapping[str, Any], name: str, dtype: type, rank: int, missing: tuple[int, ...] | None = None
) -> Array:
    value = fields.get(name)
    if value is None and missing is not None and 0 in missing:
        return np.zeros(missing, dtype)
    if not isinstance(value, np.ndarray) or value.dtype != np.dtype(dtype) or value.ndim != rank:
        raise ValueError(f"field {name} is no array of {np.dtype(dtype)} with {rank} axes")
    return value
