"""SCAFFOLD (Karimireddy et al. 2020) as a learner: control variates beside the model, in the same rounds and rules.

    y <- y - rate (g(y) - c_i + c), K steps from the release x
    c_i' = c_i - c + (x - y) / (K rate);  sent are y - x and c_i' - c_i

The vector is model and control c. The mean over devices of the differences of c_i is what the rounds' mean makes of it,
since each device stands behind the control's groups as one, and behind the model's with its examples. Where devices
leave, c moves by the mean of those who answered. Steps are plain SGD: with a moment, or clipped, the identity for c_i'
does not hold. So it cannot use the one loop of `megace2_iot.model.training`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from megace2_iot.cli.experiments.batches import batches, loss_of
from megace2_iot.cli.experiments.learners import Trained, Values
from megace2_iot.cli.experiments.torch_learner import TorchLearner
from megace2_iot.model.fusion import CrossModalTransformer
from megace2_iot.model.local import training_settings
from megace2_iot.model.state import base_parameters
from megace2_iot.model.training import Example, examples_per_group
from megace2_iot.parameters import Layout, Vector

CONTROL = "control_"


class SgdLearner(TorchLearner):
    """Plain SGD, of step `settings["sgd_rate"]`, instead of the tiers' AdamW: what SCAFFOLD must be compared with."""

    def train(
        self, base: Vector, examples: Sequence[Example], seed: int, settings: Values, memory: Vector | None
    ) -> Trained:
        y, steps, _ = self._descend(base, None, examples, seed, settings)
        return Trained(y - base, _counts(examples), steps)

    def _descend(
        self, x: Vector, correction: Vector | None, examples: Sequence[Example], seed: int, settings: Values
    ) -> tuple[Vector, int, float]:
        """K steps from x, each gradient plus `correction` (P,); where it ends, K, and the rate."""
        chosen, rate = training_settings(settings), float(settings["sgd_rate"]) * float(settings.get("rate_scale", 1))
        loss, steps = loss_of(chosen), 0
        model = self._with_base(x).train()
        self._loaded = None  # from here on it holds what is trained
        parameters = dict(base_parameters(model))
        added = {} if correction is None else self.base_layout.unflatten(correction)
        terms = {name: torch.from_numpy(part.copy()) for name, part in added.items()}
        for batch in batches(examples, chosen, seed):
            model.zero_grad()
            loss(model(batch.z, batch.lengths)[:, 0], batch.scores).backward()  # type: ignore[no-untyped-call]
            _step(parameters, terms, rate)
            steps += 1
        model.zero_grad()
        return self.base_layout.flatten({n: p.detach().numpy() for n, p in parameters.items()}), steps, rate


class ScaffoldLearner(SgdLearner):
    """A device's `memory` is its c_i."""

    def __init__(self, model: CrossModalTransformer) -> None:
        super().__init__(model)
        first = self.base_layout.unflatten(self.first)
        controls = {CONTROL + name: np.zeros_like(tensor) for name, tensor in first.items()}
        self.layout = Layout.of({**first, **controls})
        self.first = self.layout.flatten({**first, **controls})

    def train(
        self, base: Vector, examples: Sequence[Example], seed: int, settings: Values, memory: Vector | None
    ) -> Trained:
        x, control = self._apart(base)
        own = np.zeros_like(control) if memory is None else memory
        y, steps, rate = self._descend(x, control - own, examples, seed, settings)
        after = own - control + (x - y) / np.float32(max(1, steps) * rate)
        counts = _counts(examples)
        counts.update({CONTROL + group: 1.0 for group in counts})
        return Trained(self._together(y - x, after - own), counts, steps, memory=after)

    def answers(self, vector: Vector, examples: Sequence[Example]) -> np.ndarray[Any, Any]:
        return super().answers(self._apart(vector)[0], examples)

    def _apart(self, vector: Vector) -> tuple[Vector, Vector]:
        """Model and control, each (P,)."""
        tensors = self.layout.unflatten(vector)
        model = self.base_layout.flatten({name: tensors[name] for name in self.base_layout.names})
        return model, self.base_layout.flatten({name: tensors[CONTROL + name] for name in self.base_layout.names})

    def _together(self, model: Vector, control: Vector) -> Vector:
        controls = {CONTROL + name: part for name, part in self.base_layout.unflatten(control).items()}
        return self.layout.flatten({**self.base_layout.unflatten(model), **controls})


def _counts(examples: Sequence[Example]) -> dict[str, float]:
    return {group: float(n) for group, n in examples_per_group(examples).items() if n}


def _step(parameters: Mapping[str, nn.Parameter], terms: Mapping[str, Tensor], rate: float) -> None:
    """parameter.sub_(rate * (gradient + term); one without a gradient stays."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad + terms[name] if terms else parameter.grad, alpha=rate)
