"""What the fast paths of inference share: which streams go together, and their weights as one array.

A normalisation's scale and shift are folded into the product after it, and the keys and values that one source gives
to all layers of an encoder come from one product. Letters: G streams that go together, d width, D layers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from megace2_iot.features import MODALITIES, Modality
from megace2_iot.model.attention import Encoder, EncoderLayer
from megace2_iot.model.config import ModelConfig
from megace2_iot.model.fusion import CrossModalTransformer, sources_of

Pair = tuple[Modality, Modality]  # target, source
Affine = tuple[Tensor, Tensor]  # a weight (G, in, out) and a bias (G, 1, out)
PAIRS: tuple[Pair, ...] = tuple((target, source) for target in MODALITIES for source in sources_of(target))


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer of G encoders."""

    query: Affine
    out: Affine
    expand: Affine
    contract: Affine


@dataclass(frozen=True, slots=True)
class Pack:
    """G encoders: their layers, what makes the keys and values of all layers (G, d, D 2 d), and the final norm."""

    layers: tuple[Layer, ...]
    keys_values: tuple[Affine, ...]  # of a memory one a layer, else one for all
    norm: Affine  # scale and shift (G, 1, 1, d)


def serves(config: ModelConfig, lengths: Mapping[Modality, Tensor]) -> bool:
    """Whether every sample has the same modalities, at least two, and the config is the usual one."""
    if config.residual != "preln" or config.mult_compat or not config.causal:
        return False
    present = [bool((steps > 0).all()) for steps in lengths.values() if bool((steps > 0).any())]
    return len(present) > 1 and all(present)


def alike(pairs: Sequence[Pair], times: Mapping[Modality, int]) -> list[list[Pair]]:
    """Pairs by the times of target and source, padding included."""
    groups: dict[tuple[int, int], list[Pair]] = {}
    for target, source in pairs:
        groups.setdefault((times[target], times[source]), []).append((target, source))
    return list(groups.values())


@torch.no_grad()
def pack(
    model: CrossModalTransformer, names: Sequence[str], *, looks_at_itself: bool, dtype: torch.dtype = torch.float32
) -> Pack:
    """The weights of the encoders of these names, copied; the final norm stays in float32."""
    encoders: list[Encoder] = [model.get_submodule(name) for name in names]  # type: ignore[misc]
    rows = list(zip(*(encoder.layers for encoder in encoders), strict=True))
    keys_values = [_stack([_keys_values(layer) for layer in row]) for row in rows]
    if not looks_at_itself:
        joined = torch.cat([w for w, _ in keys_values], dim=-1), torch.cat([b for _, b in keys_values], dim=-1)
        keys_values = [joined]
    norm = torch.stack([e.norm.weight for e in encoders]), torch.stack([e.norm.bias for e in encoders])
    return Pack(
        tuple(_layer_of(row, dtype) for row in rows),
        tuple((weight.to(dtype), bias.to(dtype)) for weight, bias in keys_values),
        (norm[0][:, None, None].detach(), norm[1][:, None, None].detach()),
    )


def _layer_of(row: Sequence[EncoderLayer], dtype: torch.dtype) -> Layer:
    width = row[0].attention.width
    query = [
        _folded(e.attention.in_proj_weight[:width], e.attention.in_proj_bias[:width], e.attention_norm) for e in row
    ]
    expand = [_folded(e.expand.weight, e.expand.bias, e.ffn_norm) for e in row]
    out = [(e.attention.out_proj.weight.T, e.attention.out_proj.bias) for e in row]
    contract = [(e.contract.weight.T, e.contract.bias) for e in row]
    stacked = [_stack(parts) for parts in (query, out, expand, contract)]
    return Layer(*((weight.to(dtype), bias.to(dtype)) for weight, bias in stacked))


def _keys_values(layer: EncoderLayer) -> Affine:
    width, attention = layer.attention.width, layer.attention
    return _folded(attention.in_proj_weight[width:], attention.in_proj_bias[width:], layer.attention_norm)


def _folded(weight: Tensor, bias: Tensor, norm: nn.LayerNorm) -> Affine:
    """W (in, out) and b (out,) of norm's scale and shift followed by a linear layer."""
    return (weight * norm.weight).T, bias + weight @ norm.bias


def _stack(parts: Sequence[Affine]) -> Affine:
    weights = torch.stack([weight for weight, _ in parts]).contiguous().detach()
    return weights, torch.stack([bias for _, bias in parts])[:, None].detach()
