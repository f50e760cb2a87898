"""The stem: a projection a modality, and positions, make features Z[0]; numpy, so a device needs no torch.

    Z[0] = sqrt(d) * project(x) + P

`project` is a 'same'-padded convolution over time without bias (kernel 1 is a plain matrix), and row t of P
is the sinusoid of position t + 1 as [sin | cos]. P follows from the true length, never from padding.
As in MulT (`mult_compat`) the convolution is not padded, and P is left out where a channel 0 is exactly 0.0.
Letters: T time, D width of the features, d width of the model, k kernel, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from megace2_iot.features import MODALITIES, Modality

Array = npt.NDArray[np.float32]

TABLE_NAME = "stem.table"
MAX_CACHED_POSITIONS = 4096  # rows kept between calls, 2.5 MB at d = 150; longer ones are computed each time


def sinusoids(length: int, width: int) -> Array:
    """Positions 1..`length` as (length, width): [sin | cos], a last column of zeros where `width` is odd."""
    half = width // 2
    frequencies = np.exp(np.arange(half) * -(math.log(10_000.0) / max(half - 1, 1)))
    angles = np.arange(1, length + 1)[:, None] * frequencies[None, :]
    columns = [np.sin(angles), np.cos(angles), np.zeros((length, width - 2 * half))]
    return np.concatenate(columns, axis=1).astype(np.float32)


class Stem:
    """Frozen weights per modality (k, D, d) and, for text, an optional token table (V, D)."""

    def __init__(
        self, weights: Mapping[Modality, Array], table: Array | None = None, *, mult_compat: bool = False
    ) -> None:
        """`mult_compat` omits the position where channel 0 of the projection is exactly 0.0, as MulT does.

        Its kernels are not padded either, so that Z[0] has k - 1 steps less.
        """
        if any(weight.ndim != 3 for weight in weights.values()) or (table is not None and table.ndim != 2):
            raise ValueError("a stem's weights are (k, D, d), and its token table is (V, D)")
        widths = {modality: weight.shape[-1] for modality, weight in weights.items()}
        if len(set(widths.values())) != 1:
            raise ValueError(f"a stem has one width for all modalities, not {widths}")
        if table is not None and "text" not in weights:
            raise ValueError("a token table without a text projection")
        if table is not None and table.shape[1] != weights["text"].shape[1]:
            raise ValueError(f"token table is {table.shape[1]} wide, text projection {weights['text'].shape[1]}")
        self.weights = {m: np.ascontiguousarray(weights[m], np.float32) for m in MODALITIES if m in weights}
        self.table = None if table is None else np.ascontiguousarray(table, np.float32)
        self.mult_compat = mult_compat
        self.width = next(iter(widths.values()))
        self.dims: dict[Modality, int] = {m: weight.shape[1] for m, weight in self.weights.items()}  # D of each
        self._positions = sinusoids(64, self.width)

    @classmethod
    def random(
        cls,
        dims: Mapping[Modality, int],
        width: int,
        seed: int,
        *,
        kernels: Mapping[Modality, int] | None = None,
        vocabulary: int = 0,
    ) -> Stem:
        """A stem that was never trained: uniform in +-(D k)^-0.5, the field's default for a convolution."""
        rng = np.random.default_rng(seed)
        weights: dict[Modality, Array] = {}
        for modality, dim in dims.items():
            kernel = (kernels or {}).get(modality, 1)
            bound = (dim * kernel) ** -0.5
            weights[modality] = rng.uniform(-bound, bound, (kernel, dim, width)).astype(np.float32)
        table = rng.standard_normal((vocabulary, dims["text"])).astype(np.float32) if vocabulary else None
        return cls(weights, table)

    def embed(self, modality: Modality, values: npt.NDArray[Any]) -> Array:
        """Z[0] (T, d) of features (T, D), or of integer token ids (T,) where the stem has a table.

        N sequences of one length may stand side by side: (T, N, d) of (T, N, D). Raises ValueError where the values
        are of another width, or the ids lie outside the table.
        """
        x = self._vectors(modality, np.asarray(values))
        z = _convolve(x, self.weights[modality], padded=not self.mult_compat)
        positions = self._rows(len(z))
        if z.ndim == 3:
            positions = positions[:, None]
        if self.mult_compat:
            positions = np.where(z[..., :1] == 0.0, np.float32(0.0), positions)
        z *= np.float32(math.sqrt(self.width))
        z += positions
        return z

    def _vectors(self, modality: Modality, values: npt.NDArray[Any]) -> Array:
        if modality not in self.weights:
            raise ValueError(f"the stem has no {modality}: it knows {', '.join(self.weights)}")
        if values.ndim == 1 and np.issubdtype(values.dtype, np.integer):
            return self._look_up(modality, values)
        dim = self.weights[modality].shape[1]
        if values.ndim not in (2, 3) or values.shape[-1] != dim:
            raise ValueError(f"{modality} features are {values.shape}, the stem takes (T, {dim})")
        return np.asarray(values, np.float32)

    def _look_up(self, modality: Modality, ids: npt.NDArray[Any]) -> Array:
        if self.table is None or modality != "text":
            raise ValueError(f"{modality} token ids need a token table, and the stem has none")
        if ids.size and (ids.min() < 0 or ids.max() >= len(self.table)):
            span = f"{int(ids.min())}..{int(ids.max())}"
            raise ValueError(f"token ids {span} lie outside the table of {len(self.table)}")
        vectors: Array = self.table[ids]
        return vectors

    def _rows(self, length: int) -> Array:
        if length > MAX_CACHED_POSITIONS:
            return sinusoids(length, self.width)
        if length > len(self._positions):
            self._positions = sinusoids(min(2 * length, MAX_CACHED_POSITIONS), self.width)
        return self._positions[:length]

    def to_tensors(self) -> dict[str, Array]:
        """Every weight under the name it has in a model: `stem.text` (k, D, d), ..., `stem.table` (V, D)."""
        tensors = {f"stem.{modality}": weight for modality, weight in self.weights.items()}
        return tensors if self.table is None else {**tensors, TABLE_NAME: self.table}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Array], config: Mapping[str, Any] | None = None) -> Stem:
        """The stem among `tensors`, other names ignored; of a model's `config` only `mult_compat` counts.

        Raises ValueError where no projection is among them.
        """
        weights = {m: tensors[f"stem.{m}"] for m in MODALITIES if f"stem.{m}" in tensors}
        if not weights:
            raise ValueError("no stem among the tensors: expected stem.text, stem.audio or stem.vision")
        return cls(weights, tensors.get(TABLE_NAME), mult_compat=bool((config or {}).get("mult_compat", False)))


def _convolve(x: Array, weight: Array, *, padded: bool) -> Array:
    """Cross-correlation over time of x (T, ..., D) with weight (k, D, d): (T, ..., d), or k - 1 steps less.

    Padded, x is followed and preceded by zeros.
    """
    kernel = len(weight)
    if kernel == 1:
        return _product(x, weight[0])
    if padded:
        before = (kernel - 1) // 2
        x = np.pad(x, ((before, kernel - 1 - before), *[(0, 0)] * (x.ndim - 1)))
    length = max(0, len(x) - kernel + 1)
    z = np.zeros((length, *x.shape[1:-1], weight.shape[2]), np.float32)
    for j in range(kernel):
        z += _product(x[j : j + length], weight[j])
    return z


def _product(x: Array, matrix: Array) -> Array:
    """x (..., D) times (D, d) as one product of two matrices: numpy makes one of each (N, D) otherwise."""
    product: Array = x.reshape(-1, x.shape[-1]) @ matrix
    return product.reshape(*x.shape[:-1], matrix.shape[1])
