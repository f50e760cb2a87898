"""Whether a model update may count: pure checks with a name each, for both tiers that aggregate.

A check returns what it has against an update, or None. What follows from an objection is the aggregator's to decide:
the cloud refuses or holds an update, an edge refuses it and goes on with its round. A bound of 0 turns a check off.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from megace2_iot.deltas import body_sizes
from megace2_iot.parameters import Layout, Vector, blocks, check_examples

RECENT = 20  # accepted updates whose norms a new one is compared with
FEWEST = 8  # of them; before, it is compared with the model itself


@dataclass(frozen=True, slots=True)
class Objection:
    """What a check has against an update, in words for people."""

    check: str
    detail: str

    def __str__(self) -> str:
        return f"{self.check}: {self.detail}"


def norm_of(vector: Vector) -> float:
    """The L2 norm of a vector (P,), summed in float64; not finite where an element is not."""
    total = 0.0
    with np.errstate(invalid="ignore"):
        for block in blocks(slice(0, vector.size)):
            piece = vector[block].astype(np.float64)
            total += float(np.dot(piece, piece))
    return math.sqrt(total) if total >= 0 else math.nan


def schema(layout: Layout, codec: str, size: int, num_examples: Mapping[str, float]) -> Objection | None:
    """Whether an offer can be of a model with this layout: body size, groups, counts. Needs no body."""
    least, most = body_sizes(codec, layout.size)
    if not least <= size <= most:
        expected = f"{least}" if least == most else f"{least} to {most}"
        return Objection("schema", f"a {codec} delta of {size} bytes, expected {expected}")
    try:
        counts = check_examples(layout, num_examples)
    except ValueError as error:
        return Objection("schema", str(error))
    if not counts:
        return Objection("schema", "no examples stand behind it")
    return None


def finite(norm: float) -> Objection | None:
    """Whether a delta with this norm holds numbers only."""
    return (
        None if math.isfinite(norm) else Objection("finite", "the delta holds NaN, infinity or values beyond float32")
    )


def examples(num_examples: Mapping[str, float], volume: float) -> Objection | None:
    """Whether no group claims more examples than the sender can have."""
    group = max(num_examples, key=lambda name: num_examples[name], default="")
    if not volume or not group or num_examples[group] <= volume:
        return None
    return Objection("examples", f"{num_examples[group]:.10g} behind {group}, its sender has at most {volume:.10g}")


@dataclass(frozen=True, slots=True)
class NormBound:
    """How long a delta may be: `ratio` times the median of the recent ones, and `first` times the model's own norm
    while there are fewer than `FEWEST` of them, or they are all zero.
    """

    ratio: float
    first: float

    def needs_model(self, recent: Sequence[float]) -> bool:
        """Whether `check` looks at the model's norm."""
        return bool(self.first) and not _usual(recent)

    def check(self, norm: float, recent: Sequence[float], model: float) -> Objection | None:
        """`recent` are norms of accepted updates, newest last or first; `model` that of the newest release."""
        usual = _usual(recent)
        bound = self.ratio * usual if usual else self.first * model
        if not bound or norm <= bound:
            return None
        what = f"median of the last {len(recent)}" if usual else "norm of the model itself"
        times = norm / (usual or model)
        return Objection("norm", f"{norm:.4g} is {times:.4g} times the {what}, allowed is {bound / (usual or model):g}")


def _usual(recent: Sequence[float]) -> float:
    """The median of the recent norms; 0 where they say nothing."""
    return float(median(recent)) if len(recent) >= FEWEST else 0.0
