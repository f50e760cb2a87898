"""A model's answers to examples, for measuring; the measures themselves need no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from megace2_iot.datasets.metrics import Metrics, metrics
from megace2_iot.model.fusion import CrossModalTransformer
from megace2_iot.model.training import Example, collate

__all__ = ["Metrics", "answer", "evaluate", "metrics"]


def answer(model: CrossModalTransformer, examples: Sequence[Example], batch_size: int = 64) -> npt.NDArray[np.float32]:
    """Scores (N,) without dropout, in the order of `examples`; with the adapter, where one is attached."""
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    answers = [np.zeros(0, np.float32)]
    with torch.inference_mode():
        for begin in range(0, len(examples), batch_size):
            batch = collate(examples[begin : begin + batch_size], device)
            answers.append(model(batch.z, batch.lengths)[:, 0].cpu().numpy())
    model.train(was_training)
    return np.concatenate(answers)


def evaluate(model: CrossModalTransformer, examples: Sequence[Example]) -> Metrics:
    """Measure the model's answers against the examples' scores."""
    return metrics(answer(model, examples), np.array([example.score for example in examples]))
