"""One loop for all training: `fit` moves the base above the stem, `fine_tune` an adapter over a frozen base."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from megace2_iot.features import MODALITIES, Modality
from megace2_iot.model.adapter import Adapter, attach, detach
from megace2_iot.model.fusion import CrossModalTransformer, sources_of
from megace2_iot.model.state import base_parameters

ShouldStop = Callable[[], bool]


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """Z[0] (T, d) of the modalities that a sample has, and its score."""

    z: Mapping[Modality, npt.NDArray[np.float32]]
    score: float


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Z[0] (B, T_m, d) right-padded with zeros, true lengths (B,), scores (B,)."""

    z: dict[Modality, Tensor]
    lengths: dict[Modality, Tensor]
    scores: Tensor


@dataclass(frozen=True, slots=True)
class TrainingSettings:
    """How a device fits the base in one round, or an edge its adapter."""

    learning_rate: float = 2e-3
    batch_size: int = 16
    epochs: int = 2
    loss: Literal["l1", "smooth_l1", "mse"] = "l1"
    clip_norm: float = 0.8  # of the whole gradient
    weight_decay: float = 0.0  # decoupled: a part of the parameter, times the learning rate, a step
    proximal_mu: float = 0.0  # FedProx: pull towards the base that training began from
    schedule: Literal["constant", "cosine"] = "constant"  # cosine: the rate falls to 0 over all epochs
    precision: Literal["float32", "bfloat16"] = "float32"  # of products; parameters and sums are float32
    max_seconds: float | None = None


# For an adapter: few labels, few parameters, so more passes. Measured with `nano` on the built-in corpus.
FINE_TUNING = TrainingSettings(learning_rate=3e-3, epochs=10)


@dataclass(frozen=True, slots=True)
class FitResult:
    """What training did: optimiser steps, mean loss over the last epoch's worth of batches, and time."""

    steps: int
    loss: float | None  # None: stopped before the first step
    seconds: float
    stopped: bool  # by should_stop or max_seconds, before the last epoch was over


def collate(examples: Sequence[Example], device: torch.device | str = "cpu") -> Batch:
    """Right-pad examples into one batch; a modality that none of them has is left out."""
    z: dict[Modality, Tensor] = {}
    lengths: dict[Modality, Tensor] = {}
    for modality in MODALITIES:
        parts = [example.z.get(modality) for example in examples]
        steps = [0 if part is None else len(part) for part in parts]
        if not any(steps):
            continue
        width = next(part.shape[1] for part in parts if part is not None)
        padded = np.zeros((len(parts), max(steps), width), np.float32)
        for row, part in zip(padded, parts, strict=True):
            if part is not None:
                row[: len(part)] = part
        z[modality] = torch.from_numpy(padded).to(device)
        lengths[modality] = torch.tensor(steps)
    scores = torch.tensor([example.score for example in examples], dtype=torch.float32)
    return Batch(z, lengths, scores.to(device))


def examples_per_group(examples: Sequence[Example]) -> dict[str, int]:
    """How many examples stand behind each parameter group: those in which it takes part."""
    has = {m: np.array([len(e.z.get(m, ())) > 0 for e in examples], bool) for m in MODALITIES}
    groups = {"head": len(examples)}
    for target in MODALITIES:
        groups[f"{target}_memory"] = int(has[target].sum())
        for source in sources_of(target):
            groups[f"{target}_from_{source}"] = int((has[target] & has[source]).sum())
    return groups


def fit(
    model: CrossModalTransformer,
    examples: Sequence[Example],
    settings: TrainingSettings,
    seed: int,
    should_stop: ShouldStop | None = None,
) -> FitResult:
    """Train the base above the stem, in place and without an adapter; stops between batches where asked to.

    Parameters of a group that no example needs get no gradient and do not change at all.
    """
    adapter = detach(model)
    model.train()
    try:
        return _train(model, dict(base_parameters(model)), examples, settings, seed, should_stop)
    finally:
        model.eval()
        if adapter is not None:
            attach(model, adapter)


def fine_tune(
    model: CrossModalTransformer,
    adapter: Adapter,
    examples: Sequence[Example],
    settings: TrainingSettings = FINE_TUNING,
    seed: int = 0,
    should_stop: ShouldStop | None = None,
) -> FitResult:
    """Train `adapter` alone, over the frozen base without its dropout; it is left attached."""
    attach(model, adapter)
    model.eval()
    frozen = [p for _, p in base_parameters(model)]
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        return _train(model, dict(adapter.named_parameters()), examples, settings, seed, should_stop)
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


class Loop:
    """The one loop: optimiser steps over examples, an epoch at a time. Its state can be kept, so that training which
    was killed goes on and ends as it would have.

    `step` makes scores (B,) of a batch, and what else is to be added to the loss.
    """

    def __init__(
        self,
        step: Callable[[Batch], tuple[Tensor, Tensor | None]],
        parameters: Mapping[str, nn.Parameter],
        settings: TrainingSettings,
        seed: int,
    ) -> None:
        self._step, self._named, self._settings, self._seed = step, dict(parameters), settings, seed
        self._moved = list(self._named.values())
        self._anchors = [p.detach().clone() for p in self._moved] if settings.proximal_mu else []
        self._optimiser = torch.optim.AdamW(
            self._moved, settings.learning_rate, weight_decay=settings.weight_decay, fused=True
        )
        self.steps = 0

    def epoch(
        self, examples: Sequence[Example], number: int, should_stop: ShouldStop | None = None
    ) -> tuple[list[float], bool]:
        """One pass in an order that follows from seed and `number`: each batch's loss, and whether it was stopped."""
        if not examples:
            raise ValueError("no examples to train on")
        settings, losses = self._settings, list[float]()
        order = np.random.default_rng((self._seed, number)).permutation(len(examples))
        total = settings.epochs * math.ceil(len(examples) / settings.batch_size)
        with torch.random.fork_rng(devices=[]):  # dropout follows from the seed
            torch.manual_seed(self._seed * 100_003 + number)
            for begin in range(0, len(examples), settings.batch_size):
                if should_stop is not None and should_stop():
                    return losses, True
                chosen = [examples[i] for i in order[begin : begin + settings.batch_size]]
                losses.append(self._update(collate(chosen, self._moved[0].device), total))
        self._optimiser.zero_grad()
        return losses, False

    def _update(self, batch: Batch, total: int) -> float:
        """One optimiser step of `total`; returns the loss before it."""
        settings = self._settings
        if settings.schedule == "cosine":
            rate = settings.learning_rate * (1 + math.cos(math.pi * min(1.0, self.steps / total))) / 2
            self._optimiser.param_groups[0]["lr"] = rate
        self._optimiser.zero_grad()
        with torch.autocast(batch.scores.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
            scores, extra = self._step(batch)
        loss = _LOSSES[settings.loss](scores.float(), batch.scores)
        (loss if extra is None else loss + extra).backward()  # type: ignore[no-untyped-call]
        for parameter, anchor in zip(self._moved, self._anchors, strict=False):
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - anchor, alpha=settings.proximal_mu)
        nn.utils.clip_grad_norm_(self._moved, settings.clip_norm)
        self._optimiser.step()
        self.steps += 1
        return loss.item()

    def state(self) -> dict[str, Tensor]:
        """The optimiser's memory by name, and the steps done; the parameters themselves are the model's."""
        kept = {"steps": torch.tensor(self.steps)}
        for name, parameter in self._named.items():
            for key, value in self._optimiser.state.get(parameter, {}).items():
                kept[f"{name}:{key}"] = value.detach().clone()
        return kept

    def restore(self, kept: Mapping[str, Tensor]) -> None:
        """Go on from a `state`."""
        self.steps = int(kept["steps"])
        for name, parameter in self._named.items():
            memory = {key: kept[f"{name}:{key}"] for key in _MEMORY if f"{name}:{key}" in kept}
            if memory:
                self._optimiser.state[parameter] = {key: value.clone() for key, value in memory.items()}


def _train(
    model: CrossModalTransformer,
    parameters: Mapping[str, nn.Parameter],
    examples: Sequence[Example],
    settings: TrainingSettings,
    seed: int,
    should_stop: ShouldStop | None,
) -> FitResult:
    begin = time.monotonic()
    loop = Loop(lambda batch: (model(batch.z, batch.lengths)[:, 0], None), parameters, settings, seed)

    def late() -> bool:
        over = settings.max_seconds is not None and time.monotonic() - begin >= settings.max_seconds
        return over or (should_stop is not None and should_stop())

    losses: list[float] = []
    stopped = False
    for number in range(settings.epochs):
        seen, stopped = loop.epoch(examples, number, late)
        losses += seen
        if stopped:
            break
    recent = losses[-math.ceil(len(examples) / settings.batch_size) :]
    loss_seen = float(np.mean(recent)) if recent else None
    return FitResult(len(losses), loss_seen, time.monotonic() - begin, stopped)


_MEMORY = ("step", "exp_avg", "exp_avg_sq")  # of AdamW
_LOSSES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": F.l1_loss,
    "smooth_l1": F.smooth_l1_loss,
    "mse": F.mse_loss,
}
