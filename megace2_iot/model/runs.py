"""One training of one method on one data set: epochs, a best checkpoint, early stopping, and going on after a kill.

The last epoch and the optimiser's memory are in `last.safetensors`, the best model so far in `best.safetensors`, what
was measured in `run.json`. A validation set judges which epoch is best; where there is none that can judge, since the
features of every other row saw the labels, the last epoch counts and nothing is stopped early.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from megace2_iot.datasets import scaling
from megace2_iot.datasets.metrics import Metrics
from megace2_iot.datasets.sample import Dataset
from megace2_iot.features import Modality
from megace2_iot.model import checkpoint, methods
from megace2_iot.model.config import Dropouts, preset
from megace2_iot.model.fusion import CrossModalTransformer
from megace2_iot.model.raw import AnyModel, measured, sets_of, training_step
from megace2_iot.model.training import Loop, TrainingSettings

MEGACE2 = "megace2"
HELD_BACK = Dropouts(attention=0.0, relu=0.2, residual=0.2, embedding=0.3)  # of `nano` on features that saw labels


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What is trained, and how; with data and seed it fixes the result on one machine."""

    method: str = MEGACE2
    preset: str = "nano"  # of Mega-CE2
    seed: int = 0
    training: TrainingSettings = field(default_factory=TrainingSettings)
    patience: int = 0  # epochs without a better validation loss; 0: never stopped early
    dropouts: Dropouts | None = None  # of Mega-CE2; None: the preset's own


@dataclass(frozen=True, slots=True)
class Epoch:
    """What was seen of one epoch; `valid` is the mean absolute error on the validation examples."""

    number: int
    train: float
    valid: float | None


@dataclass(frozen=True, slots=True)
class RunResult:
    """A finished run: measured on the test rows, by the epoch that counts."""

    settings: RunSettings
    epochs: tuple[Epoch, ...]
    chosen: int  # number of the epoch
    judged_by: str
    test: Metrics | None
    seconds: float

    def to_json(self) -> dict[str, Any]:
        measured = self.test.as_dict() if self.test else None
        return {**asdict(self), "test": measured}


def use_threads(count: int) -> None:
    """How many threads torch computes with: two that other work interrupts can be ten times as slow as one."""
    torch.set_num_threads(count)


def saw_labels(dataset: Dataset) -> bool:
    """Whether features of rows that train were fitted on these rows' labels."""
    return any(sample.features_saw_label for sample in dataset.samples)


def recommended(method: str, seed: int, name: str = "nano", *, leaking: bool = False) -> RunSettings:
    """How a method is trained where nothing else is asked for. Raises ValueError for an unknown one.

    `leaking` features (`saw_labels`) promise more on train rows than they keep, and answers come out too large: ours
    is then held back by a low rate, a strong decay, few epochs and, where it is small, more dropout.
    """
    if method == MEGACE2 and leaking:
        chosen = TrainingSettings(1e-3, batch_size=32, epochs=8, weight_decay=3.0, schedule="cosine")
        return RunSettings(method, name, seed, chosen, dropouts=HELD_BACK if name == "nano" else None)
    if method == MEGACE2:
        rate = 5e-3 if name == "nano" else 3e-3
        chosen = TrainingSettings(rate, batch_size=32, epochs=12, weight_decay=1.0, schedule="cosine")
        return RunSettings(method, name, seed, chosen)
    asked = methods.recipe(method)
    chosen = TrainingSettings(
        asked.learning_rate,
        asked.batch_size,
        asked.epochs,
        asked.loss,
        asked.clip_norm if asked.clip_norm is not None else 1e9,
        asked.weight_decay,
    )
    return RunSettings(method, "", seed, chosen, asked.patience or 0)


def new_model(settings: RunSettings, dims: Mapping[Modality, int]) -> AnyModel:
    """The model before training; its weights follow from the seed."""
    if settings.method != MEGACE2:
        return methods.make(settings.method, dims, settings.seed)
    config = preset(settings.preset, dims)
    if settings.dropouts is not None:
        config = replace(config, dropouts=settings.dropouts)
    return CrossModalTransformer.seeded(config, settings.seed)


def train(
    settings: RunSettings,
    dataset: Dataset,
    folder: Path,
    told: Callable[[Epoch], None] = lambda epoch: None,
) -> RunResult:
    """Train to the end in `folder`, from where a run of the same settings was killed there.

    `told` hears of every epoch. Raises ValueError where there is nothing to train on.
    """
    sets = sets_of(dataset)
    if not sets.train:
        raise ValueError(f"{dataset.name} has no labelled train rows")
    folder.mkdir(parents=True, exist_ok=True)
    model = new_model(settings, dataset.dims)
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    loop = Loop(training_step(model), parameters, settings.training, settings.seed)
    epochs, best, seconds = _resume(settings, folder, model, loop)
    about = {"scaling": scaling.to_json(dataset.scaling), "data": dataset.name}
    began = time.monotonic() - seconds
    for number in range(len(epochs), settings.training.epochs):
        if _is_over(settings, epochs):
            break
        model.train()
        losses, _ = loop.epoch(sets.train, number)
        valid = measured(model, sets.valid).mae if sets.valid else None
        epoch = Epoch(number, float(np.mean(losses)), valid)
        epochs.append(epoch)
        if valid is None or best is None or valid < best:
            best = valid
            checkpoint.save(folder / "best.safetensors", model, about)
        _keep(settings, folder, model, loop, epochs, best, time.monotonic() - began)
        told(epoch)
    final = checkpoint.load(folder / "best.safetensors")
    chosen = min(epochs, key=lambda e: e.valid) if sets.valid else epochs[-1]  # type: ignore[arg-type,return-value]
    test = measured(final, sets.test) if sets.test else None
    result = RunResult(settings, tuple(epochs), chosen.number, sets.judged_by, test, time.monotonic() - began)
    _write(folder / "run.json", json.dumps(result.to_json(), indent=1))
    return result


def _is_over(settings: RunSettings, epochs: Sequence[Epoch]) -> bool:
    """Whether the validation loss has not become better for too long."""
    seen = [epoch.valid for epoch in epochs if epoch.valid is not None]
    return bool(settings.patience and seen and len(seen) - 1 - int(np.argmin(seen)) >= settings.patience)


def _keep(
    settings: RunSettings,
    folder: Path,
    model: AnyModel,
    loop: Loop,
    epochs: Sequence[Epoch],
    best: float | None,
    seconds: float,
) -> None:
    """What a later `_resume` needs, by rename."""
    tensors = {f"model:{name}": tensor.detach().clone() for name, tensor in model.state_dict().items()}
    tensors |= {f"loop:{name}": tensor for name, tensor in loop.state().items()}
    about = {
        "settings": json.dumps(asdict(settings), sort_keys=True),
        "epochs": json.dumps([asdict(epoch) for epoch in epochs]),
        "best": json.dumps(best),
        "seconds": json.dumps(seconds),
    }
    part = folder / "last.safetensors.part"
    save_file(tensors, part, about)
    os.replace(part, folder / "last.safetensors")


def _resume(
    settings: RunSettings, folder: Path, model: AnyModel, loop: Loop
) -> tuple[list[Epoch], float | None, float]:
    """The epochs of an earlier run of the same settings in `folder`, with its model and memory; else none."""
    path = folder / "last.safetensors"
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
        tensors = load_file(path)
    except (FileNotFoundError, SafetensorError):
        return [], None, 0.0
    wanted = json.dumps(asdict(settings), sort_keys=True)
    if about.get("settings") != wanted or not (folder / "best.safetensors").exists():
        return [], None, 0.0
    model.load_state_dict({n.removeprefix("model:"): t for n, t in tensors.items() if n.startswith("model:")})
    loop.restore({n.removeprefix("loop:"): t for n, t in tensors.items() if n.startswith("loop:")})
    epochs = [Epoch(**fields) for fields in json.loads(about["epochs"])]
    return epochs, json.loads(about["best"]), float(json.loads(about["seconds"]))


def _write(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    part.write_text(text + "\n")
    os.replace(part, path)
