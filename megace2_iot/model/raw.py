"""Raw features in, scores out, whatever the method: examples of a data set, training steps, answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from megace2_iot.datasets.metrics import Metrics, metrics
from megace2_iot.datasets.sample import Dataset, Sample
from megace2_iot.model.fusion import CrossModalTransformer
from megace2_iot.model.method import Method
from megace2_iot.model.training import Batch, Example, collate

HELD_BACK = 10  # every tenth group of the train rows judges, where the data bring no validation rows that can

AnyModel = CrossModalTransformer | Method


@dataclass(frozen=True, slots=True, eq=False)
class Sets:
    """Examples of raw features by what they are for; `judged_by` says where the validation examples come from."""

    train: list[Example]
    valid: list[Example]
    test: list[Example]
    judged_by: str


def to_examples(samples: Sequence[Sample]) -> list[Example]:
    """Examples of raw features; a sample without a score is left out."""
    return [
        Example({m: np.asarray(x.values, np.float32) for m, x in sample.features.items()}, float(sample.score))
        for sample in samples
        if sample.score is not None
    ]


def sets_of(dataset: Dataset) -> Sets:
    """Train, validation and test examples, and who judges the epochs."""
    train, valid = dataset.split("train"), dataset.split("valid")
    judges: Sequence[Sample] = [sample for sample in valid if not sample.features_saw_label]
    judged_by = "the validation rows"
    if not judges:
        if any(sample.features_saw_label for sample in (*train, *valid)):
            judged_by = "nobody: features saw the labels of all but the test rows"
            train = (*train, *valid)
        else:
            groups = sorted({sample.group for sample in train})[::HELD_BACK]
            judges = [sample for sample in train if sample.group in groups]
            train = tuple(sample for sample in train if sample.group not in groups)
            judged_by = f"{len(groups)} groups of the train rows, held back"
    return Sets(to_examples(train), to_examples(judges), to_examples(dataset.split("test")), judged_by)


def training_step(model: AnyModel) -> Callable[[Batch], tuple[Tensor, Tensor | None]]:
    """Scores (B,) of a batch of raw features, and the method's own loss."""
    if isinstance(model, CrossModalTransformer):
        return lambda batch: (model(model.embed(batch.z, batch.lengths), batch.lengths)[:, 0], None)

    def step(batch: Batch) -> tuple[Tensor, Tensor | None]:
        scores, extra = model.training_step(batch.z, batch.lengths)
        return scores[:, 0], extra

    return step


def answer(model: AnyModel, examples: Sequence[Example], batch_size: int = 64) -> np.ndarray[Any, Any]:
    """Scores (N,) of raw features, without dropout, in the order of `examples`."""
    model.eval()
    answers = [np.zeros(0, np.float32)]
    with torch.inference_mode():
        for begin in range(0, len(examples), batch_size):
            batch = collate(examples[begin : begin + batch_size])
            if isinstance(model, CrossModalTransformer):
                scores = model(model.embed(batch.z, batch.lengths), batch.lengths)
            else:
                scores = model(batch.z, batch.lengths)
            answers.append(scores[:, 0].float().numpy())
    return np.concatenate(answers)


def measured(model: AnyModel, examples: Sequence[Example]) -> Metrics:
    """The model's answers against the examples' scores; raises ValueError where there are none."""
    return metrics(answer(model, examples), np.array([example.score for example in examples]))
