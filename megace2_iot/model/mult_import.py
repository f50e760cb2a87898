"""Checkpoints of the released MulT code: what architecture a state dict has, and the same model here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from megace2_iot.features import MODALITIES, Modality
from megace2_iot.model.ablation import AblationConfig, SingleTarget
from megace2_iot.model.config import ModelConfig
from megace2_iot.model.fusion import CrossModalTransformer
from megace2_iot.model.mult_names import LETTERS, convert
from megace2_iot.model.torch_file import read_state_dict

Array = npt.NDArray[np.float32]

# Nothing in a state dict tells the heads. The released code's default is 30 wide with 5; 40 wide were trained
# with 8 (MOSEI) and with 10 (MOSI, IEMOCAP), so that there one has to say.
HEADS_BY_WIDTH = {30: 5}
_NO_PARAMETER = re.compile(r"\.(version|_float_tensor)$")  # buffers of fairseq's that the code carries along


def read_mult(path: Path) -> dict[str, Array]:
    """The parameters in a torch file, under MulT's names. Raises ValueError as `read_state_dict` does."""
    state = read_state_dict(path)
    return {n: t.to(torch.float32).numpy() for n, t in state.items() if not _NO_PARAMETER.search(n)}


def import_mult(
    tensors: Mapping[str, Array], *, heads: int | None = None, causal: bool = True
) -> CrossModalTransformer | SingleTarget:
    """The model of MulT's tensors, in evaluation mode and with its padding quirks; of `lonly` and the like one target.

    `causal` is MulT's attention mask. Raises ValueError where the tensors are not MulT's, or the heads not known.
    """
    pairs = {match[1] for name in tensors if (match := re.match(r"trans_([lav])_with_[lav]\.", name))}
    targets = [m for m in MODALITIES if LETTERS[m] in pairs]
    if len(targets) not in (1, 3):
        raise ValueError("not a MulT model: it has cross-modal encoders for one target or for three")
    kept = {n: t for n, t in tensors.items() if not _unused(n, targets)}
    try:
        config = _config(kept, targets[0], heads, causal)
    except (IndexError, KeyError) as error:
        raise ValueError(f"not a MulT model: {error} is missing") from error
    identity = {f"proj_{LETTERS[m]}.weight" for m, kernel in config.kernels.items() if kernel == 0}
    state = {n: torch.from_numpy(np.array(t)) for n, t in convert(_without(kept, identity)).items()}
    model: CrossModalTransformer | SingleTarget
    whole = len(targets) == 3
    model = CrossModalTransformer(config) if whole else SingleTarget(AblationConfig(config, targets[0]))
    passed = {f"stem.{m}": model.stem.get_parameter(m) for m, kernel in config.kernels.items() if kernel == 0}
    try:
        model.load_state_dict({**state, **passed})
    except RuntimeError as error:
        raise ValueError(f"not a MulT model: {error}") from error
    return model.eval()


def _config(tensors: Mapping[str, Array], target: Modality, heads: int | None, causal: bool) -> ModelConfig:
    own = LETTERS[target]
    cross = f"trans_{own}_with_{'a' if own == 'l' else 'l'}"
    width = tensors[f"{cross}.layers.0.self_attn.in_proj_weight"].shape[1]
    if heads is None and width not in HEADS_BY_WIDTH:
        raise ValueError(f"a file does not tell the heads of a model {width} wide: give them (MOSEI 8, others 10)")
    dims, kernels = {}, {}
    for modality in MODALITIES:
        projection = tensors.get(f"proj_{LETTERS[modality]}.weight")
        # MulT owns a projection for features that are d wide as well, and passes it by.
        passes = projection is None or projection.shape[1] == width
        dims[modality] = width if projection is None else projection.shape[1]
        kernels[modality] = 0 if passes or projection is None else projection.shape[2]
    return ModelConfig(
        preset="mult",
        dims=dims,
        width=width,
        heads=heads or HEADS_BY_WIDTH[width],
        layers=_layers(tensors, cross),
        memory_layers=_layers(tensors, f"trans_{own}_mem"),
        ffn_ratio=tensors[f"{cross}.layers.0.fc1.weight"].shape[0] // width,
        kernels=kernels,
        mult_compat=True,
        outputs=tensors["out_layer.weight"].shape[0],
        causal=causal,
    )


def _layers(tensors: Mapping[str, Array], encoder: str) -> int:
    found = {int(m[1]) for name in tensors if (m := re.match(rf"{encoder}\.layers\.(\d+)\.", name))}
    if not found:
        raise KeyError(f"{encoder}.layers.0")
    return max(found) + 1


def _unused(name: str, targets: list[Modality]) -> bool:
    """Whether it belongs to a memory that a model of one target owns and does not use."""
    match = re.match(r"trans_([lav])_mem\.", name)
    return match is not None and match[1] not in {LETTERS[m] for m in targets}


def _without(tensors: Mapping[str, Array], names: set[str]) -> dict[str, Array]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}
