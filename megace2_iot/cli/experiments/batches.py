"""Training in plain loops, for methods that the one loop of `megace2_iot.model.training` does not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from megace2_iot.model.training import Batch, Example, TrainingSettings, collate


def batches(examples: Sequence[Example], settings: TrainingSettings, seed: int) -> Iterator[Batch]:
    """The batches of all epochs. Order and dropout follow from `seed`; torch's generator is restored at the end."""
    rng = np.random.default_rng(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(settings.epochs):
            order = rng.permutation(len(examples))
            for begin in range(0, len(order), settings.batch_size):
                yield collate([examples[i] for i in order[begin : begin + settings.batch_size]])


def loss_of(settings: TrainingSettings) -> Callable[[Tensor, Tensor], Tensor]:
    """The loss of scores (B,) against true ones."""
    return F.l1_loss if settings.loss == "l1" else F.smooth_l1_loss
