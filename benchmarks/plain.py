"""The same equations without a trick: one module a stream, one product a projection, as the reference computes them."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from megace2_iot.features import MODALITIES, Modality
from megace2_iot.model.attention import BlockDropout, Encoder, EncoderLayer, MultiHeadAttention
from megace2_iot.model.fusion import CrossModalTransformer, sources_of


def plain(model: CrossModalTransformer, z: Mapping[Modality, Tensor]) -> Tensor:
    """Scores (B, outputs) of Z[0] (B, T_m, d) of samples that have all modalities and no padding.

    In training with torch's dropout wherever the model drops.
    """
    summaries = []
    for target in MODALITIES:
        crossed = [_encode(model.get_submodule(f"{target}_from_{s}"), z[target], z[s]) for s in sources_of(target)]
        fused = torch.cat(crossed, dim=-1)
        fused = math.sqrt(fused.shape[-1]) * fused + model.memory_positions(fused.shape[1])
        summaries.append(_encode(model.get_submodule(f"{target}_memory"), fused, None)[:, -1])
    scores: Tensor = model.head(torch.cat(summaries, dim=-1))
    return scores


def _encode(encoder: Encoder, x: Tensor, source: Tensor | None) -> Tensor:
    time, span = x.shape[1], (x if source is None else source).shape[1]
    mask = torch.triu(torch.full((time, span), -math.inf), 1 + abs(span - time))
    dropped = encoder.dropout if encoder.training else BlockDropout(0.0, 0.0, 0.0, 0.0)
    x = F.dropout(x, dropped.embedding)
    source = source if source is None else F.dropout(source, dropped.embedding)
    for layer in encoder.layers:
        x = _layer(layer, x, x if source is None else source, mask, dropped)
    out: Tensor = encoder.norm(x)
    return out


def _layer(layer: EncoderLayer, x: Tensor, source: Tensor, mask: Tensor, dropped: BlockDropout) -> Tensor:
    seen = _attend(layer.attention, layer.attention_norm(x), layer.attention_norm(source), mask, dropped.attention)
    x = x + F.dropout(seen, dropped.residual)
    inner = F.dropout(F.relu(layer.expand(layer.ffn_norm(x))), dropped.relu)
    return x + F.dropout(layer.contract(inner), dropped.residual)


def _attend(attention: MultiHeadAttention, query: Tensor, source: Tensor, mask: Tensor, chance: float) -> Tensor:
    d, weight, bias = attention.width, attention.in_proj_weight, attention.in_proj_bias
    q = F.linear(query, weight[:d], bias[:d]) * (d // attention.heads) ** -0.5
    k, v = F.linear(source, weight[d:], bias[d:]).chunk(2, dim=-1)
    q, k, v = (_heads(x, attention.heads) for x in (q, k, v))
    weights = F.dropout(F.softmax(torch.bmm(q, k.transpose(1, 2)) + mask, dim=-1), chance)
    seen = torch.bmm(weights, v).view(len(query), attention.heads, -1, d // attention.heads)
    out: Tensor = attention.out_proj(seen.transpose(1, 2).flatten(2))
    return out


def _heads(x: Tensor, heads: int) -> Tensor:
    """(B H, T, d / H) of (B, T, d)."""
    batch, time, width = x.shape
    return x.contiguous().view(batch, time, heads, width // heads).transpose(1, 2).reshape(batch * heads, time, -1)
