"""A model's tensors, apart: the base above the stem, the stem, and checkpoints that hold both and the config."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import nn

from megace2_iot.model.fusion import CrossModalTransformer, ModelConfig
from megace2_iot.stem import Stem

Array = npt.NDArray[np.float32]

NOT_IN_BASE = ("stem", "adapter")  # the stem is frozen in rounds, the adapter never leaves its edge


def base_parameters(model: CrossModalTransformer) -> Iterator[tuple[str, nn.Parameter]]:
    """What rounds train and average: every parameter above the stem, without an adapter's."""
    return ((n, p) for n, p in model.named_parameters() if n.split(".")[0] not in NOT_IN_BASE)


def base_tensors(model: CrossModalTransformer) -> dict[str, Array]:
    """Copies of the base's tensors by name; a name's part before the first dot is its group."""
    return {name: p.detach().to("cpu", torch.float32).numpy().copy() for name, p in base_parameters(model)}


def load_base(model: CrossModalTransformer, tensors: Mapping[str, Array]) -> None:
    """Set every tensor of the base. Raises ValueError where names or shapes differ, and changes nothing then."""
    _load(dict(base_parameters(model)), tensors)


def stem_of(model: CrossModalTransformer) -> Stem:
    """The model's stem in numpy, as a device runs it (a copy)."""
    tensors = {name: p.detach().cpu().numpy().copy() for name, p in _stem_parameters(model).items()}
    return Stem.from_tensors(tensors, {"mult_compat": model.config.mult_compat})


def load_stem(model: CrossModalTransformer, stem: Stem) -> None:
    """Give the model this stem. Raises ValueError where its shapes are not the config's."""
    _load(_stem_parameters(model), stem.to_tensors())


def save_checkpoint(path: Path, model: CrossModalTransformer, metadata: Mapping[str, str] | None = None) -> None:
    """Write stem, base and config as one safetensors file, by rename; an adapter is left out."""
    tensors = {**stem_of(model).to_tensors(), **base_tensors(model)}
    data = save(tensors, {**(metadata or {}), "config": model.config.to_json()})
    part = path.with_name(path.name + ".part")
    part.write_bytes(data)
    os.replace(part, path)


def load_checkpoint(path: Path) -> CrossModalTransformer:
    """The model of a checkpoint, in evaluation mode. Raises ValueError for a file that is no checkpoint of ours."""
    try:
        with safe_open(path, "numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: np.asarray(file.get_tensor(name), np.float32) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file: {error}") from error
    if "config" not in metadata:
        raise ValueError(f"{path} holds tensors, but no model config in its metadata")
    model = CrossModalTransformer(ModelConfig.from_json(metadata["config"]))
    _load({**_stem_parameters(model), **dict(base_parameters(model))}, tensors)
    return model.eval()


def _stem_parameters(model: CrossModalTransformer) -> dict[str, nn.Parameter]:
    return {f"stem.{name}": parameter for name, parameter in model.stem.named_parameters()}


def _load(parameters: Mapping[str, nn.Parameter], tensors: Mapping[str, Array]) -> None:
    expected = {name: tuple(p.shape) for name, p in parameters.items()}
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wrong = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
    if wrong:
        first = wrong[0]
        difference = f"{first} is {given.get(first, 'absent')}, expected {expected.get(first, 'no such tensor')}"
        raise ValueError(f"{len(wrong)} tensors do not fit the model: {difference}")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(np.array(tensors[name], np.float32)))
