"""Training on one node's own samples, as the handlers of a child process: load a base, train, return the delta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import torch

from megace2_iot.examples import unpack
from megace2_iot.model.fusion import CrossModalTransformer, ModelConfig
from megace2_iot.model.state import base_tensors, load_base
from megace2_iot.model.training import Example, TrainingSettings, examples_per_group, fit
from megace2_iot.parameters import Layout
from megace2_iot.tensors import decode_tensors


def training_settings(values: Mapping[str, Any]) -> TrainingSettings:
    """The training settings among a round's `values`; what it does not know it leaves out.

    `rate_scale` is the part of the learning rate that this round trains with.
    """
    known = {field.name for field in fields(TrainingSettings)}
    settings = replace(TrainingSettings(), **{key: value for key, value in values.items() if key in known})
    return replace(settings, learning_rate=settings.learning_rate * float(values.get("rate_scale", 1.0)))


def to_examples(packed: Mapping[str, Any], scores: Sequence[float]) -> list[Example]:
    return [Example(z, float(score)) for z, score in zip(unpack(packed), scores, strict=True)]


class LocalTrainer:
    """Holds one base; every training begins from it again."""

    def __init__(self) -> None:
        torch.set_num_threads(1)
        self.model: CrossModalTransformer | None = None
        self._base: dict[str, np.ndarray[Any, Any]] = {}

    def load(self, config: str, blob: bytes) -> dict[str, Any]:
        """Take the base of a release. Raises ValueError where blob and config do not fit."""
        tensors, _ = decode_tensors(blob)
        parsed = ModelConfig.from_json(config)
        if self.model is None or self.model.config != parsed:
            self.model = CrossModalTransformer.seeded(parsed, 0)
        load_base(self.model, tensors)
        self._base = tensors
        return {}

    def train(
        self, examples: Mapping[str, Any], scores: Sequence[float], seed: int, settings: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Fit the base to the samples; the delta is flat, in the order of the layout."""
        if self.model is None:
            raise ValueError("no base was loaded")
        load_base(self.model, self._base)
        ready = to_examples(examples, scores)
        result = fit(self.model, ready, training_settings(settings), seed)
        layout = Layout.of(self._base)
        delta = layout.flatten(base_tensors(self.model)) - layout.flatten(self._base)
        return {
            "delta": delta,
            "num_examples": {group: float(n) for group, n in examples_per_group(ready).items() if n},
            "steps": result.steps,
            "loss": result.loss if result.loss is not None else 0.0,
            "duration": result.seconds,
        }
