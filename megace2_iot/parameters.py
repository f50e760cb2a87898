"""Named tensors as one flat float32 vector and its layout; model updates and their weighted mean.

Aggregation knows no tensors: a model is a vector (P,) whose `Layout` says which slice is which tensor. A tensor's group
is its name up to the first dot; a group is one slice, so that each has its own denominator in a mean. How models travel
is in `tensors`, how updates do in `deltas`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

Vector = npt.NDArray[np.float32]
Array = npt.NDArray[Any]

BLOCK = 65_536  # elements handled at once: vector, mean and scratch of a block stay in a core's cache
MAX_EXAMPLES = 1e12  # behind one update; more is nonsense or an attack


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
