"""One loop for all training: `fit` moves the base above the stem, `fine_tune` an adapter over a frozen base."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    loss: Literal["l1", "smooth_l1"] = "l1"
    clip_norm: float = 0.8  # of the whole gradient
    weight_decay: float = 0.0  # decoupled: a part of the parameter, times the learning rate, a step
    proximal_mu: float = 0.0  # FedProx: pull towards the base that training began from
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


def _train(
    model: CrossModalTransformer,
    parameters: Mapping[str, nn.Parameter],
    examples: Sequence[Example],
    settings: TrainingSettings,
    seed: int,
    should_stop: ShouldStop | None,
) -> FitResult:
    if not examples:
        raise ValueError("no examples to train on")
    moved = list(parameters.values())
    anchors = [p.detach().clone() for p in moved] if settings.proximal_mu else []
    optimiser = torch.optim.AdamW(moved, settings.learning_rate, weight_decay=settings.weight_decay, fused=True)
    begin = time.monotonic()
    losses: list[float] = []
    stopped = False
    with torch.random.fork_rng(devices=[]):  # dropout follows from the seed
        torch.manual_seed(seed)
        for chosen in _batches(len(examples), settings, seed):
            late = settings.max_seconds is not None and time.monotonic() - begin >= settings.max_seconds
            if late or (should_stop is not None and should_stop()):
                stopped = True
                break
            batch = collate([examples[i] for i in chosen], moved[0].device)
            optimiser.zero_grad()
            loss = _loss(settings)(model(batch.z, batch.lengths)[:, 0], batch.scores)
            loss.backward()  # type: ignore[no-untyped-call]
            for parameter, anchor in zip(moved, anchors, strict=False):
                if parameter.grad is not None:
                    parameter.grad.add_(parameter.detach() - anchor, alpha=settings.proximal_mu)
            nn.utils.clip_grad_norm_(moved, settings.clip_norm)
            optimiser.step()
            losses.append(loss.item())
    optimiser.zero_grad()
    recent = losses[-math.ceil(len(examples) / settings.batch_size) :]
    loss_seen = float(np.mean(recent)) if recent else None
    return FitResult(len(losses), loss_seen, time.monotonic() - begin, stopped)


def _batches(count: int, settings: TrainingSettings, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Every example once an epoch, in an order that follows from the seed."""
    rng = np.random.default_rng(seed)
    for _ in range(settings.epochs):
        order = rng.permutation(count)
        for begin in range(0, count, settings.batch_size):
            yield order[begin : begin + settings.batch_size]


def _loss(settings: TrainingSettings) -> Callable[[Tensor, Tensor], Tensor]:
    return F.l1_loss if settings.loss == "l1" else F.smooth_l1_loss
