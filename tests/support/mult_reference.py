"""MulT written a second time, straight from its formulas and on its own parameter names: what imports are held against.

Evaluation mode only. Layout (time, batch, channel) inside encoders, as in the released code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
OTHERS = {"l": "av", "a": "lv", "v": "la"}


def embedded(x: Tensor) -> Tensor:
    """sqrt(d) x + P; no position where channel 0 is exactly 0.0."""
    time, _, d = x.shape
    half = d // 2
    frequencies = torch.exp(torch.arange(half) * (-math.log(10_000.0) / (half - 1)))
    angles = torch.arange(1, time + 1)[:, None] * frequencies
    table = F.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, d - 2 * half))
    return math.sqrt(d) * x + table[:, None] * (x[..., :1] != 0.0)


def norm(state: State, name: str, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def linear(state: State, name: str, x: Tensor) -> Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def encoder(state: State, name: str, x: Tensor, source: Tensor, *, heads: int, mask: bool) -> Tensor:
    """One transformer encoder; the source is embedded once and never updated."""
    reach = 1 + abs(len(source) - len(x))
    looks = torch.triu(torch.full((len(x), len(source)), -math.inf), reach) if mask else None
    own = x is source
    x, fixed = embedded(x), embedded(source)
    layer = 0
    while f"{name}.layers.{layer}.fc1.weight" in state:
        at = f"{name}.layers.{layer}"
        query = norm(state, f"{at}.layer_norms.0", x)
        key = query if own else norm(state, f"{at}.layer_norms.0", fixed)
        attended, _ = F.multi_head_attention_forward(
            query, key, key, x.shape[-1], heads,
            state[f"{at}.self_attn.in_proj_weight"], state[f"{at}.self_attn.in_proj_bias"], None, None, False, 0.0,
            state[f"{at}.self_attn.out_proj.weight"], state[f"{at}.self_attn.out_proj.bias"],
            training=False, need_weights=False, attn_mask=looks,
        )  # fmt: skip
        x = x + attended
        inner = F.relu(linear(state, f"{at}.fc1", norm(state, f"{at}.layer_norms.1", x)))
        x = x + linear(state, f"{at}.fc2", inner)
        layer += 1
    return norm(state, f"{name}.layer_norm", x)


def mult(state: State, x: Mapping[str, Tensor], *, heads: int, mask: bool = True) -> Tensor:
    """(B, outputs) of x["l"], x["a"], x["v"], each (B, T, D); targets are those that have cross-modal encoders."""
    targets = [m for m in "lav" if any(name.startswith(f"trans_{m}_with") for name in state)]
    width = state[f"trans_{targets[0]}_with_{OTHERS[targets[0]][0]}.layer_norm.weight"].shape[0]
    streams = {}
    for m, values in x.items():
        values = values.transpose(1, 2)
        projected = values if values.shape[1] == width else F.conv1d(values, state[f"proj_{m}.weight"])
        streams[m] = projected.permute(2, 0, 1)
    last = []
    for target in targets:
        crossed = [
            encoder(state, f"trans_{target}_with_{s}", streams[target], streams[s], heads=heads, mask=mask)
            for s in OTHERS[target]
        ]
        fused = torch.cat(crossed, dim=-1)
        last.append(encoder(state, f"trans_{target}_mem", fused, fused, heads=heads, mask=mask)[-1])
    h = torch.cat(last, dim=-1)
    return linear(state, "out_layer", h + linear(state, "proj2", F.relu(linear(state, "proj1", h))))


def random_state(
    dims: Mapping[str, int],
    *,
    width: int,
    layers: int,
    targets: str = "lav",
    kernel: int = 1,
    outputs: int = 1,
    projected: bool = True,
    seed: int = 0,
) -> State:
    """A state dict as the released code saves it: with buffers, unused memories and unused projections.

    Without `projected` the projections that the code would pass by are left out.
    """
    generator = torch.Generator().manual_seed(seed)
    state: State = {}

    def add(name: str, *shape: int) -> None:
        spread = shape[-1] ** -0.5 if len(shape) > 1 else 0.2
        state[name] = spread * torch.randn(*shape, generator=generator)
        if "norm" in name and name.endswith("weight"):
            state[name] += 1.0

    def add_encoder(name: str, d: int, depth: int) -> None:
        state[f"{name}.version"] = torch.tensor([2.0])
        state[f"{name}.embed_positions._float_tensor"] = torch.zeros(1)
        for i in range(depth):
            at = f"{name}.layers.{i}"
            for part, rows, columns in (("fc1", 4 * d, d), ("fc2", d, 4 * d), ("self_attn.out_proj", d, d)):
                add(f"{at}.{part}.weight", rows, columns)
                add(f"{at}.{part}.bias", rows)
            add(f"{at}.self_attn.in_proj_weight", 3 * d, d)
            add(f"{at}.self_attn.in_proj_bias", 3 * d)
            for part in ("layer_norms.0", "layer_norms.1"):
                add(f"{at}.{part}.weight", d)
                add(f"{at}.{part}.bias", d)
        add(f"{name}.layer_norm.weight", d)
        add(f"{name}.layer_norm.bias", d)

    for m, dim in dims.items():
        if projected or dim != width:
            add(f"proj_{m}.weight", width, dim, kernel)
    for target in targets:
        for source in OTHERS[target]:
            add_encoder(f"trans_{target}_with_{source}", width, layers)
    for m in dims:
        add_encoder(f"trans_{m}_mem", 2 * width, max(layers, 3))
    combined = 2 * width * len(targets)
    for name, rows in (("proj1", combined), ("proj2", combined), ("out_layer", outputs)):
        add(f"{name}.weight", rows, combined)
        add(f"{name}.bias", rows)
    return state
