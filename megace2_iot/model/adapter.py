"""The adapter of equation (5): attention and linear layers beside a frozen base, trained and kept on the edge.

    inserted   x <- x + Linear(MHSA(x)) after every cross-modal layer, one tied set of weights; in a sample of
               one modality, which crosses nothing, once on Z[0]
    output     w_g(x) + f(x), as the equation is printed. Our reading of f: it attends over the three streams
               Z[0] laid end to end, takes the mean over the valid steps, and maps it to the scores

Weights start as N(0, 0.02^2), biases as 0, and there is no norm of its own ("solely attention and linear"). Its
parameters lie under `adapter.` in the model, outside every group of the base, and are never sent anywhere.
Letters: B batch, T time, d width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from megace2_iot.model.attention import MultiHeadAttention
from megace2_iot.model.config import ModelConfig
from megace2_iot.model.streams import Streams

Placement = Literal["inserted", "output"]
INITIAL_SPREAD = 0.02  # standard deviation of the weights, equation (5)


class Adapter(nn.Module):
    """One multi-head self-attention and one linear layer."""

    def __init__(self, config: ModelConfig, placement: Placement = "inserted", seed: int = 0) -> None:
        """Weights follow from `seed` alone. Raises ValueError for an unknown placement."""
        super().__init__()
        if placement not in ("inserted", "output"):
            raise ValueError(f"an adapter is placed inserted or output, not {placement!r}")
        self.placement: Placement = placement
        self.attention = MultiHeadAttention(config.width, config.heads)
        self.linear = nn.Linear(config.width, config.width if placement == "inserted" else config.outputs)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for name, parameter in sorted(self.named_parameters()):
                if name.endswith("bias"):
                    parameter.zero_()
                else:
                    parameter.normal_(0.0, INITIAL_SPREAD, generator=generator)

    def inserted(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, d) between two layers, adapted where that is this adapter's place; `mask` (B, 1, 1, T)."""
        if self.placement != "inserted":
            return x
        adapted: Tensor = x + self.linear(self.attention(x, mask=mask))
        return adapted

    def correct(self, scores: Tensor, streams: Streams) -> Tensor:
        """Scores (B, outputs) of the base, plus f(x) where that is this adapter's place."""
        if self.placement != "output":
            return scores
        x = torch.cat([streams.z[m] for m in streams.z], dim=1)  # (B, T, d), T over all streams
        valid = torch.cat([streams.valid(m) for m in streams.z], dim=1)  # (B, T)
        mask = valid.bool()
        mask[:, 0] |= ~mask.any(dim=1)  # no softmax is empty
        seen = self.attention(x, mask=mask[:, None, None, :])
        weights = valid / valid.sum(dim=1, keepdim=True).clamp(min=1.0)
        mean = torch.bmm(weights[:, None], seen)[:, 0]
        corrected: Tensor = scores + self.linear(mean)
        return corrected


class Adaptable(Protocol):
    """A model with a place for one adapter."""

    config: ModelConfig
    adapter: Adapter | None

    def parameters(self) -> Iterator[nn.Parameter]:
        """Every parameter of the model."""


def attach(model: Adaptable, adapter: Adapter) -> None:
    """Let `adapter` take part in the model's answers. Raises ValueError where the widths differ."""
    if adapter.attention.width != model.config.width:
        raise ValueError(f"an adapter {adapter.attention.width} wide on a model {model.config.width} wide")
    model.adapter = adapter.to(next(model.parameters()).device)


def detach(model: Adaptable) -> Adapter | None:
    """Take the adapter off, if there is one: the base answers alone, exactly as before."""
    adapter, model.adapter = model.adapter, None
    return adapter


def adapter_tensors(adapter: Adapter) -> dict[str, npt.NDArray[np.float32]]:
    """Copies of the adapter's tensors, for the edge's own disk."""
    return {name: p.detach().cpu().numpy().copy() for name, p in adapter.named_parameters()}


def load_adapter(adapter: Adapter, tensors: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Set the adapter's tensors. Raises ValueError where names or shapes differ."""
    expected = {name: tuple(p.shape) for name, p in adapter.named_parameters()}
    given = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != given:
        raise ValueError(f"an adapter of {expected} cannot be loaded from {given}")
    with torch.no_grad():
        for name, parameter in adapter.named_parameters():
            parameter.copy_(torch.from_numpy(np.array(tensors[name], np.float32)))
