"""Attention and the encoder made of it: equations (1) to (3) of the paper, as the MulT code computes them.

Letters: B batch, T time of the target (query), S time of the source (key and value), d width, H heads. Masks
are boolean (B, 1, T, S), true where a query may look. Key 0 is always open, so that no softmax is empty.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from megace2_iot.stem import sinusoids

Residual = Literal["preln", "eq2"]
SHORT = 128  # steps up to which two batched products and a softmax are faster on a CPU than torch's own attention
DRAWS = 1 << 16  # values of which a dropout draws one


@dataclass(frozen=True, slots=True)
class BlockDropout:
    """Chances of dropping inside one encoder: embedded input, attention weights, FFN units, branches."""

    embedding: float
    attention: float
    relu: float
    residual: float


class MultiHeadAttention(nn.Module):
    """Softmax(q k^T / sqrt(d / H)) v over H heads; one input projection, rows [Wq; Wk; Wv]."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} cannot be split into {heads} heads")
        self.width, self.heads, self.dropout = width, heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)  # as one matrix, which is narrower than three apart
        _xavier(self.out_proj)

    def forward(self, query: Tensor, source: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """(B, T, d) of `query` (B, T, d) looking at `source` (B, S, d), or at itself."""
        d, weight, bias = self.width, self.in_proj_weight, self.in_proj_bias
        if source is None:
            q, k, v = F.linear(query, weight, bias).chunk(3, dim=-1)
        else:
            q = F.linear(query, weight[:d], bias[:d])
            k, v = F.linear(source, weight[d:], bias[d:]).chunk(2, dim=-1)
        q, k, v = self._split(q), self._split(k), self._split(v)
        heads = attend(q, k, v, mask, self.dropout) if self.training else F.scaled_dot_product_attention(q, k, v, mask)
        out: Tensor = self.out_proj(heads.transpose(1, 2).flatten(2))
        return out

    def _split(self, x: Tensor) -> Tensor:
        batch, time, width = x.shape
        return x.view(batch, time, self.heads, width // self.heads).transpose(1, 2)  # (B, H, T, d / H)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """(B, H, T, d / H) of queries looking at keys and values (B, H, S, d / H); the mask may be one for all samples."""
    if q.is_cuda or mask is None or (max(q.shape[2], k.shape[2]) > SHORT and not dropout):
        return F.scaled_dot_product_attention(q, k, v, mask, dropout)
    (batch, heads, time, width), span = q.shape, k.shape[2]
    flat_q, flat_k, flat_v = q.flatten(0, 1), k.flatten(0, 1).transpose(1, 2), v.flatten(0, 1)
    if len(mask) == 1:  # the same for every sample: added within the product
        ahead = flat_q.new_zeros(mask.shape[1:]).masked_fill_(~mask[0], -math.inf)
        scores = torch.baddbmm(ahead, flat_q, flat_k, alpha=width**-0.5)
    else:
        scores = torch.bmm(flat_q, flat_k).mul_(width**-0.5).view(batch, heads, time, span)
        scores = scores.masked_fill_(~mask, -math.inf).flatten(0, 1)
    weights = drop(torch.softmax(scores, dim=-1), dropout, training=True)
    return torch.bmm(weights, flat_v).view(batch, heads, time, width)


def drop(x: Tensor, chance: float, training: bool) -> Tensor:
    """Dropout; `chance` is met to 2^-16. On a CPU several times as fast as torch's, which draws each number apart."""
    if not training or chance == 0:
        return x
    if x.is_cuda or chance >= 1:
        return F.dropout(x, chance, training)
    dropped = round(chance * DRAWS)
    words = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None)
    kept = words.view(torch.int16)[: x.numel()].view(x.shape) >= dropped - DRAWS // 2
    return x * kept.to(x.dtype).mul_(DRAWS / (DRAWS - dropped))


class EncoderLayer(nn.Module):
    """Attention and a feed-forward part, each on a normalised input beside a residual branch."""

    def __init__(self, width: int, heads: int, ffn_ratio: int, dropout: BlockDropout, residual: Residual) -> None:
        super().__init__()
        self.residual, self.dropout = residual, dropout
        self.attention = MultiHeadAttention(width, heads, dropout.attention)
        self.attention_norm = nn.LayerNorm(width)
        self.ffn_norm = nn.LayerNorm(width)
        self.expand = _xavier(nn.Linear(width, ffn_ratio * width))
        self.contract = _xavier(nn.Linear(ffn_ratio * width, width))

    def forward(self, x: Tensor, source: Tensor | None, mask: Tensor | None) -> Tensor:
        """(B, T, d): x after looking at `source` (B, S, d), or at itself; both pass the same norm."""
        normed = self.attention_norm(x)
        seen = None if source is None else self.attention_norm(source)
        # Equation (2) prints LN(Z) in the residual branch where the MulT code has Z.
        x = (normed if self.residual == "eq2" else x) + self._drop(self.attention(normed, seen, mask))
        normed = self.ffn_norm(x)
        inner = drop(F.relu(self.expand(normed)), self.dropout.relu, self.training)
        return (normed if self.residual == "eq2" else x) + self._drop(self.contract(inner))

    def _drop(self, x: Tensor) -> Tensor:
        return drop(x, self.dropout.residual, self.training)


class Encoder(nn.Module):
    """Layers over an embedded target, each looking at the same embedded source, and a final norm."""

    def __init__(
        self, width: int, heads: int, layers: int, ffn_ratio: int, dropout: BlockDropout, residual: Residual
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.layers = nn.ModuleList(EncoderLayer(width, heads, ffn_ratio, dropout, residual) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        x: Tensor,
        source: Tensor | None = None,
        mask: Tensor | None = None,
        after_layer: Callable[[Tensor], Tensor] = lambda x: x,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Z[D] (B, T, d) of the target Z[0]; the source is never updated, an adapter comes `after_layer`.

        Without a source x looks at itself. Then with `rows` (B, k), the steps of each sample that are wanted, the last
        layer computes no others: (B, k, d).
        """
        x = drop(x, self.dropout.embedding, self.training)
        if source is not None:
            source = drop(source, self.dropout.embedding, self.training)
        for layer in self.layers[:-1]:
            x = after_layer(layer(x, source, mask))
        if rows is not None:
            source, x = x, x.gather(1, rows[..., None].expand(*rows.shape, x.shape[-1]))
            if mask is not None and mask.shape[2] > 1:  # not the same for every step
                index = rows[:, None, :, None].expand(-1, 1, -1, mask.shape[3])
                mask = mask.expand(len(rows), -1, -1, -1).gather(2, index)
        out: Tensor = self.norm(after_layer(self.layers[-1](x, source, mask)))
        return out


class Positions(nn.Module):
    """The sinusoid table of one width on the model's device: no parameter, and no part of a checkpoint."""

    table: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("table", torch.from_numpy(sinusoids(64, width)), persistent=False)

    def forward(self, length: int) -> Tensor:
        """Rows of positions 1..`length`: (length, d)."""
        if length > len(self.table):
            with torch.inference_mode(False):  # it may grow during inference, and be used in training later
                grown = torch.from_numpy(sinusoids(2 * length, self.width))
                self.table = grown.to(self.table)
        return self.table[:length]


def look_mask(targets: Tensor, sources: Tensor, target_time: int, source_time: int, *, causal: bool) -> Tensor:
    """(B, 1, T, S) from true lengths (B,): no padded key; if `causal`, none at j > i + |T_source - T_target|.

    The offset is that of each sample's own lengths, so that its answer does not depend on its batch mates.
    """
    key = torch.arange(source_time, device=targets.device)
    allowed = key < sources.clamp(min=1)[:, None]  # key 0 stays open where a sample has no source at all
    if not causal:
        return allowed[:, None, None, :]
    query = torch.arange(target_time, device=targets.device)
    reach = query + (sources - targets).abs()[:, None]
    return (allowed[:, None, :] & (key <= reach[:, :, None]))[:, None]


def _xavier(linear: nn.Linear) -> nn.Linear:
    nn.init.xavier_uniform_(linear.weight)
    nn.init.zeros_(linear.bias)
    return linear
