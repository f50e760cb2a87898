"""What learns in a simulated site: nothing at all, or the model as the tiers train it.

A learner works on flat vectors. The tiers' own handlers (`LocalTrainer`, `Personalizer`) run in this process instead of
a child; a baseline is another learner with a layout of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from megace2_iot.parameters import Layout, Vector

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """What one training gave: the delta (P,), the examples behind each group, and optimiser steps.

    `memory` is what the method keeps on the device for its next round, once the update was accepted.
    """

    delta: Vector
    num_examples: Mapping[str, float]
    steps: int
    memory: Vector | None = None


class Learner(Protocol):
    """One family of models; `first` (P,) is release 1."""

    layout: Layout
    first: Vector

    def train(
        self, base: Vector, examples: Sequence[Any], seed: int, settings: Values, memory: Vector | None
    ) -> Trained:
        """Train from `base` on one node's samples."""

    def refine(self, model: Vector, examples: Sequence[Any], seed: int, settings: Values) -> Trained | None:
        """What an edge adds to its round's mean before it is offered, learned over `model`; None: nothing."""

    def answers(self, vector: Vector, examples: Sequence[Any]) -> np.ndarray[Any, Any]:
        """Scores (N,) of a model."""


class NoOpLearner:
    """Costs nothing, so that what is measured is the federation: every training gives the same delta."""

    def __init__(self, size: int = 1000, groups: int = 10, steps: int = 1) -> None:
        shapes = {
            f"group{number}.weight": (len(part),) for number, part in enumerate(np.array_split(range(size), groups))
        }
        self.layout, self.first = Layout(shapes), np.zeros(size, np.float32)
        self._delta = np.random.default_rng(0).normal(0, 1e-3, size).astype(np.float32)
        self._steps = steps

    def train(
        self, base: Vector, examples: Sequence[Any], seed: int, settings: Values, memory: Vector | None
    ) -> Trained:
        return Trained(self._delta, dict.fromkeys(self.layout.groups, float(len(examples))), self._steps)

    def refine(self, model: Vector, examples: Sequence[Any], seed: int, settings: Values) -> Trained | None:
        return None

    def answers(self, vector: Vector, examples: Sequence[Any]) -> np.ndarray[Any, Any]:
        return np.zeros(len(examples), np.float32)
