"""A baseline of the paper as a learner: it reads raw features, and all its floats are averaged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from megace2_iot.cli.experiments.batches import batches, loss_of
from megace2_iot.cli.experiments.learners import Trained, Values
from megace2_iot.features import Modality
from megace2_iot.model.local import training_settings
from megace2_iot.model.methods import make, recipe
from megace2_iot.model.training import Example, collate
from megace2_iot.parameters import Layout, Vector

Array = np.ndarray[Any, Any]


class MethodLearner:
    """Rate, clipping and decay are the method's own recipe; loss, passes and batches are the round's, as for all."""

    def __init__(self, name: str, dims: Mapping[Modality, int], seed: int) -> None:
        torch.set_num_threads(1)
        self._model, self._recipe = make(name, dims, seed), recipe(name)
        tensors = self._tensors()
        self.layout = Layout.of(tensors)
        self.first: Vector = self.layout.flatten(tensors)

    def train(
        self, base: Vector, examples: Sequence[Example], seed: int, settings: Values, memory: Vector | None
    ) -> Trained:
        self._load(base)
        chosen, steps = training_settings(settings), 0
        rate = self._recipe.learning_rate * float(settings.get("rate_scale", 1.0))
        moved = [p for p in self._model.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(moved, rate, weight_decay=self._recipe.weight_decay, fused=True)
        loss = loss_of(chosen)
        self._model.train()
        for batch in batches(examples, chosen, seed):
            optimiser.zero_grad()
            scores, extra = self._model.training_step(batch.z, batch.lengths)
            (loss(scores[:, 0], batch.scores) + extra).backward()  # type: ignore[no-untyped-call]
            if self._recipe.clip_norm is not None:
                nn.utils.clip_grad_norm_(moved, self._recipe.clip_norm)
            optimiser.step()
            steps += 1
        delta = self.layout.flatten(self._tensors()) - base
        return Trained(delta, dict.fromkeys(self.layout.groups, float(len(examples))), steps)

    def refine(self, model: Vector, examples: Sequence[Example], seed: int, settings: Values) -> Trained | None:
        return None

    def answers(self, vector: Vector, examples: Sequence[Example]) -> Array:
        self._load(vector)
        self._model.eval()
        found: list[Array] = [np.zeros(0, np.float32)]
        with torch.inference_mode():
            for begin in range(0, len(examples), 64):
                batch = collate(examples[begin : begin + 64])
                found.append(self._model(batch.z, batch.lengths)[:, 0].numpy())
        return np.concatenate(found)

    def _tensors(self) -> dict[str, Array]:
        """Parameters and running statistics, without what only counts."""
        state = self._model.state_dict()
        return {name: t.numpy().copy() for name, t in state.items() if t.dtype == torch.float32}

    def _load(self, vector: Vector) -> None:
        state, tensors = self._model.state_dict(), self.layout.unflatten(vector)
        with torch.no_grad():
            for name, tensor in tensors.items():
                state[name].copy_(torch.from_numpy(tensor.copy()))
