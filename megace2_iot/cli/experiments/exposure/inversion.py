"""Z[0] read back: which words, or which features, a stem was given. All of it is linear algebra, and a list of words.

    Z[0]_u = sqrt(d) * sum_j x_(u + j - b) W_j + P_u          W (k, D, d), b = (k - 1) // 2

P is public. With kernel 1 a step of y = (Z[0] - P) / sqrt(d) depends on one word, and the word of the vocabulary whose
x W lies nearest is it. With a wider kernel, a step mixes k words: each is first guessed from the k steps that it is in,
the others taken for noise of known covariance (a Wiener filter); then, word by word, the one is taken that explains
these steps best given its neighbours of the last sweep, until nothing changes.
Letters: T time, V vocabulary, D width of the vectors, d of the model, k kernel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from megace2_iot.stem import sinusoids

Array = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ranked = npt.NDArray[np.intp]
TOP = 5
SWEEPS = 8
TIE = 1e-4  # of a word's power: of two words with nearly one vector, as "its" and "it's" hashed, the commoner is it
TINY = 1e-6  # of a covariance's mean diagonal, added to it


def without_positions(z: Array) -> Array:
    """y (T, d): Z[0] without its positions and scale, which follow from T and d alone."""
    width = z.shape[1]
    return np.asarray((z - sinusoids(len(z), width)) / math.sqrt(width), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """Reads words from Z[0] by a stem's text projection, or by what somebody takes for it."""

    parts: Array  # (V, k, d): what word v adds to the step that sees it through tap j
    norms: Array  # (V, k) of their squares
    shares: Doubles  # (V,) how common each word is
    whitener: Array | None  # (k d, k d) for the first guess; None for kernel 1

    @classmethod
    def of(cls, weight: Array, vectors: Array, shares: Doubles) -> Reader:
        """By `weight` (k, D, d) and a vocabulary (V, D)."""
        parts = np.stack([vectors @ tap for tap in weight], axis=1)
        whitener = None if len(weight) == 1 else _whitener(parts, shares)
        return cls(parts, np.square(parts).sum(axis=2), shares, whitener)

    def read(self, z: Array, noise: float = 0.0) -> Ranked:
        """The `TOP` likeliest words (T, TOP) of each step of Z[0] (T, d).

        `noise` is the variance that the attacker reckons with in y: the larger, the more a common word is believed.
        """
        return self.read_steps(without_positions(z), noise)

    def read_steps(self, y: Array, noise: float = 0.0) -> Ranked:
        """The same from steps that have no positions: (T, d)."""
        noise = max(noise, TIE * float(self.norms.sum(axis=1).mean()))
        rare = (-2 * noise * np.log(self.shares + 1e-6 / len(self.shares))).astype(np.float32)
        if self.whitener is None:
            return _ranked(self.norms[:, 0] - 2 * y @ self.parts[:, 0].T + rare)
        return self._settle(y, self._first_guess(y), rare)

    def _first_guess(self, y: Array) -> Ranked:
        """Each word (T,) by itself."""
        assert self.whitener is not None
        seen = self._windows(y).reshape(len(y), -1) @ self.whitener
        known = self.parts.reshape(len(self.parts), -1) @ self.whitener
        background = self._background() @ self.whitener  # what the neighbours add on average
        distances = np.square(known).sum(axis=1) - 2 * (seen - background) @ known.T
        return np.asarray(distances.argmin(axis=1))

    def _background(self) -> Array:
        shifts = _shifted(self.parts)
        mean = sum(self.shares @ part.reshape(len(part), -1) for part in shifts)
        return np.asarray(mean, np.float32)

    def _windows(self, y: Array) -> Array:
        """(T, k, d): for word t and tap j, the step t - j + b."""
        kernel = self.parts.shape[1]
        padded = np.pad(y, ((kernel, kernel), (0, 0)))
        places = np.arange(len(y))[:, None] - np.arange(kernel) + (kernel - 1) // 2 + kernel
        found: Array = padded[places]
        return found

    def _settle(self, y: Array, words: Ranked, rare: Array) -> Ranked:
        """Word by word the best given its neighbours, until none changes; ranked in the last sweep."""
        steps, kernel = len(y), self.parts.shape[1]
        rest = np.pad(y, ((kernel, kernel), (0, 0)))
        inside = np.pad(np.ones(steps, bool), kernel)
        places = np.arange(steps)[:, None] - np.arange(kernel) + (kernel - 1) // 2 + kernel
        for step in range(steps):
            rest[places[step]] -= self.parts[words[step]]
        ranks = np.zeros((steps, min(TOP, len(self.parts))), np.intp)
        for _ in range(SWEEPS):
            before = words.copy()
            for step in range(steps):
                at = places[step]
                rest[at] += self.parts[words[step]]
                taps = inside[at]
                seen = rest[at] * taps[:, None]
                product = self.parts.reshape(len(self.parts), -1) @ seen.ravel()
                ranks[step] = _ranked((self.norms @ taps - 2 * product + rare)[None])[0]
                words[step] = ranks[step, 0]
                rest[at] -= self.parts[words[step]]
            if (words == before).all():
                break
        return ranks


def learned_stem(said: list[Array], seen: list[Array], kernel: int, ridge: float = 1e-4) -> Array:
    """A projection (k, D, d) by ridge regression from sentences whose vectors (T, D) and Z[0] (T, d) are known."""
    before = (kernel - 1) // 2
    stacked = []
    for x in said:
        padded = np.pad(x, ((before, kernel - 1 - before), (0, 0)))
        stacked.append(np.concatenate([padded[j : j + len(x)] for j in range(kernel)], axis=1))
    known = np.concatenate(stacked).astype(np.float64)
    wanted = np.concatenate([without_positions(z) for z in seen]).astype(np.float64)
    if len(known) < known.shape[1]:  # fewer equations than unknowns: the dual form is the smaller
        gram = known @ known.T
        weight = known.T @ np.linalg.solve(_ridged(gram, ridge), wanted)
    else:
        weight = np.linalg.solve(_ridged(known.T @ known, ridge), known.T @ wanted)
    return weight.reshape(kernel, -1, wanted.shape[1]).astype(np.float32)


def features_back(weight: Array, mean: Doubles, covariance: Doubles, z: Array) -> Array:
    """Features (T, D) of Z[0] (T, d): the likeliest by a known stem, where rows have this mean and covariance.

    Each row is estimated from the k steps that it is in, its neighbours taken for independent rows of the same kind.
    """
    kernel, dim, width = weight.shape
    before, span = (kernel - 1) // 2, 2 * kernel - 1
    mixing = np.zeros((kernel * width, span * dim))  # y at t - b .. t - b + k - 1, of x at t - (k - 1) .. t + k - 1
    for row in range(kernel):
        for tap in range(kernel):
            column = (row + tap) * dim
            mixing[row * width : (row + 1) * width, column : column + dim] = weight[tap].T
    prior = np.kron(np.eye(span), covariance)
    seen = mixing @ prior @ mixing.T
    own = (mixing @ prior)[:, (kernel - 1) * dim : kernel * dim]
    gain = np.linalg.solve(_ridged(seen, TINY), own)  # (k d, D)
    y = np.pad(without_positions(z).astype(np.float64), ((kernel, kernel), (0, 0)))
    first = kernel + before - (kernel - 1)
    windows = np.concatenate([y[first + row : first + row + len(z)] for row in range(kernel)], axis=1)
    expected = mixing @ np.tile(mean, span)
    return np.asarray(mean + (windows - expected) @ gain, np.float32)


def _ranked(distances: Array) -> Ranked:
    """The columns of the smallest `TOP` of each row, in order."""
    top = min(TOP, distances.shape[1])
    found = np.argpartition(distances, top - 1, axis=1)[:, :top]
    order = np.take_along_axis(distances, found, axis=1).argsort(axis=1)
    return np.take_along_axis(found, order, axis=1)


def _shifted(parts: Array) -> list[Array]:
    """What the neighbours at -(k - 1) .. k - 1 but 0 add to the k steps of a word, each (V, k, d)."""
    kernel, found = parts.shape[1], []
    for shift in [s for s in range(1 - kernel, kernel) if s]:
        part = np.zeros_like(parts)
        low, high = max(0, -shift), min(kernel, kernel - shift)
        part[:, low:high] = parts[:, low + shift : high + shift]
        found.append(part)
    return found


def _whitener(parts: Array, shares: Doubles) -> Array:
    """A matrix (k d, k d) under which the neighbours' parts have covariance 1."""
    size = parts.shape[1] * parts.shape[2]
    total = np.zeros((size, size))
    for part in _shifted(parts):
        flat = part.reshape(len(part), -1).astype(np.float64)
        mean = shares @ flat
        total += (flat * shares[:, None]).T @ flat - np.outer(mean, mean)
    return np.linalg.inv(np.linalg.cholesky(_ridged(total, TINY))).T.astype(np.float32)


def _ridged(matrix: Doubles, ridge: float) -> Doubles:
    ridged: Doubles = matrix + ridge * np.trace(matrix) / len(matrix) * np.eye(len(matrix))
    return ridged
