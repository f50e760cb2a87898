"""Parameter names of the released MulT code, and what they are called here."""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from megace2_iot.features import Modality

Array = npt.NDArray[np.float32]

LETTERS: dict[Modality, str] = {"text": "l", "audio": "a", "vision": "v"}
_MODALITY = {letter: modality for modality, letter in LETTERS.items()}
_INSIDE_ENCODER = (  # in this order: `layer_norms.0` before `layer_norm`
    ("self_attn.", "attention."),
    ("layer_norms.0.", "attention_norm."),
    ("layer_norms.1.", "ffn_norm."),
    ("layer_norm.", "norm."),
    ("fc1.", "expand."),
    ("fc2.", "contract."),
)
_HEAD = {"proj1": "head.expand", "proj2": "head.contract", "out_layer": "head.out"}


def from_mult(name: str) -> str:
    """Our name of MulT's `name`. Raises ValueError for a name that MulT's model does not have."""
    if match := re.fullmatch(r"proj_([lav])\.weight", name):
        return f"stem.{_MODALITY[match[1]]}"
    if match := re.fullmatch(r"trans_([lav])_with_([lav])\.(.+)", name):
        return f"{_MODALITY[match[1]]}_from_{_MODALITY[match[2]]}.{inside_encoder(match[3])}"
    if match := re.fullmatch(r"trans_([lav])_mem\.(.+)", name):
        return f"{_MODALITY[match[1]]}_memory.{inside_encoder(match[2])}"
    if match := re.fullmatch(r"(proj1|proj2|out_layer)\.(weight|bias)", name):
        return f"{_HEAD[match[1]]}.{match[2]}"
    raise ValueError(f"not a parameter of MulT: {name}")


def inside_encoder(name: str) -> str:
    """Our name, within an encoder, of MulT's `name` within its encoder."""
    for theirs, ours in _INSIDE_ENCODER:
        name = name.replace(theirs, ours)
    return name


def convert(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """MulT's tensors under our names; a projection (d, D, k) becomes (k, D, d)."""
    renamed = {from_mult(name): tensor for name, tensor in tensors.items()}
    return {n: t.transpose(2, 1, 0) if n.startswith("stem.") else t for n, t in renamed.items()}
