"""The cross-modal model as a learner: the handlers of the tiers' child processes, called in this process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from edge_gateway.personalizer import Personalizer
from edge_gateway.tuning import MIN_FIT
from megace2_iot.cli.experiments.learners import Trained, Values
from megace2_iot.examples import pack
from megace2_iot.model.adapter import Adapter, adapter_tensors, attach, detach, load_adapter
from megace2_iot.model.evaluation import answer
from megace2_iot.model.fusion import CrossModalTransformer
from megace2_iot.model.local import training_settings
from megace2_iot.model.state import base_tensors
from megace2_iot.model.training import Example, fine_tune
from megace2_iot.parameters import Layout, Vector
from megace2_iot.tensors import encode_tensors

Array = np.ndarray[Any, Any]


def scores_of(examples: Sequence[Example]) -> Array:
    """Their labels (N,), float32."""
    return np.array([example.score for example in examples], np.float32)


class TorchLearner:
    """Trains and answers from flat vectors of the base; adapters are put on for one call only.

    `layout` is what is aggregated, `base_layout` the model's part of it.
    """

    def __init__(self, model: CrossModalTransformer) -> None:
        tensors = base_tensors(model)
        self.base_layout = self.layout = Layout.of(tensors)
        self.first: Vector = self.layout.flatten(tensors)
        self._config = model.config
        self._handlers = Personalizer()
        self._loaded: Vector | None = None

    def train(
        self, base: Vector, examples: Sequence[Example], seed: int, settings: Values, memory: Vector | None
    ) -> Trained:
        self._load(base)
        result = self._handlers.train(pack([e.z for e in examples]), list(scores_of(examples)), seed, settings)
        self._loaded = None  # it holds what was trained
        return Trained(result["delta"], result["num_examples"], result["steps"])

    def refine(self, model: Vector, examples: Sequence[Example], seed: int, settings: Values) -> Trained | None:
        return None

    def answers(self, vector: Vector, examples: Sequence[Example]) -> Array:
        return answer(self._with_base(vector), examples)

    # -- adapters ---------------------------------------------------------------------
    def personalise(
        self,
        vector: Vector,
        fit: Sequence[Example],
        gate: Sequence[Example],
        placement: str,
        settings: Values,
        seed: int,
    ) -> dict[str, Any]:
        """A new adapter over `vector` and what the gate says of it: the edge's own handler."""
        self._load(vector)
        return self._handlers.personalise(
            fit=pack([e.z for e in fit]),
            fit_scores=list(scores_of(fit)),
            gate=pack([e.z for e in gate]),
            gate_scores=list(scores_of(gate)),
            placement=placement,
            settings=settings,
            seed=seed,
        )

    def adapted_answers(
        self, vector: Vector, adapter: Mapping[str, Array], placement: str, examples: Sequence[Example]
    ) -> Array:
        """Scores of the base with an adapter on."""
        model = self._with_base(vector)
        worn = self._adapter(placement)
        load_adapter(worn, adapter)
        attach(model, worn)
        try:
            return answer(model, examples)
        finally:
            detach(model)

    def tune(
        self, vector: Vector, adapter: Mapping[str, Array], examples: Sequence[Example], seed: int, settings: Values
    ) -> tuple[dict[str, Array], int]:
        """An inserted adapter trained on from where it is; its tensors, and optimiser steps."""
        model = self._with_base(vector)
        worn = self._adapter("inserted")
        load_adapter(worn, adapter)
        try:
            steps = fine_tune(model, worn, examples, training_settings(settings), seed).steps
        finally:
            detach(model)
        return {name: np.asarray(tensor) for name, tensor in adapter_tensors(worn).items()}, steps

    def _adapter(self, placement: Any, seed: int = 0) -> Adapter:
        return Adapter(self._config, placement, seed)

    def _load(self, vector: Vector) -> None:
        if self._loaded is not vector:
            self._handlers.load(self._config.to_json(), encode_tensors(self.base_layout.unflatten(vector), {}))
            self._loaded = vector

    def _with_base(self, vector: Vector) -> CrossModalTransformer:
        self._load(vector)
        model = self._handlers.model
        assert model is not None
        return model.eval()


class SendingLearner(TorchLearner):
    """The other way, to test the paper's claim: edges send their adapters, and the cloud averages those, too.

    The vector is base and adapter; devices train the base alone, as ever. An edge goes on from the global adapter, over
    its round's mean, and offers both.
    """

    def __init__(self, model: CrossModalTransformer, seed: int) -> None:
        super().__init__(model)
        base = self.first
        adapter = {f"adapter.{name}": t for name, t in adapter_tensors(self._adapter("inserted", seed)).items()}
        self.layout = Layout.of({**self.base_layout.unflatten(base), **adapter})
        self.first = self.layout.flatten({**self.base_layout.unflatten(base), **adapter})

    def train(
        self, base: Vector, examples: Sequence[Example], seed: int, settings: Values, memory: Vector | None
    ) -> Trained:
        trained = super().train(self.base_of(base), examples, seed, settings, memory)
        return Trained(self._joined(self.base_layout.unflatten(trained.delta), {}), trained.num_examples, trained.steps)

    def refine(self, model: Vector, examples: Sequence[Example], seed: int, settings: Values) -> Trained | None:
        if len(examples) < MIN_FIT:
            return None
        before = self._adapter_of(model)
        tuned, steps = self.tune(self.base_of(model), before, examples, seed, settings)
        delta = {name: tuned[name] - before[name] for name in before}
        return Trained(self._joined({}, delta), {"adapter": float(len(examples))}, steps)

    def answers(self, vector: Vector, examples: Sequence[Example]) -> Array:
        return self.adapted_answers(self.base_of(vector), self._adapter_of(vector), "inserted", examples)

    def base_of(self, vector: Vector) -> Vector:
        """The base within a vector of both."""
        tensors = self.layout.unflatten(vector)
        return self.base_layout.flatten({name: tensors[name] for name in self.base_layout.names})

    def _adapter_of(self, vector: Vector) -> dict[str, Array]:
        tensors = self.layout.unflatten(vector)
        return {n.removeprefix("adapter."): t for n, t in tensors.items() if n.startswith("adapter.")}

    def _joined(self, base: Mapping[str, Array], adapter: Mapping[str, Array]) -> Vector:
        """A vector of both; what is not given is zero."""
        given = {**base, **{f"adapter.{name}": tensor for name, tensor in adapter.items()}}
        zero = {name: np.zeros(shape, np.float32) for name, shape in self.layout.shapes.items()}
        return self.layout.flatten({**zero, **given})


def train_steps(examples: int, settings: Values) -> int:
    """Optimiser steps of a training on so many samples."""
    chosen = training_settings(settings)
    return chosen.epochs * -(-examples // chosen.batch_size)
