"""The stem in torch: the same weights and the same Z[0] as `megace2_iot.stem.Stem`, for whole batches."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from megace2_iot.features import MODALITIES, Modality
from megace2_iot.model.attention import Positions
from megace2_iot.model.config import ModelConfig


class TorchStem(nn.Module):
    """Projections `text`, `audio`, `vision` (k, D, d), perhaps a token `table` (V, D), and positions."""

    table: nn.Parameter | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.width, self.mult_compat = config.width, config.mult_compat
        for modality in MODALITIES:
            kernel, dim = config.kernels.get(modality, 1), config.dims[modality]
            if kernel == 0:  # an identity, so that a stem looks the same everywhere; training leaves it alone
                self.register_parameter(modality, nn.Parameter(torch.eye(dim)[None], requires_grad=False))
                continue
            bound = (kernel * dim) ** -0.5
            weight = torch.empty(kernel, dim, config.width).uniform_(-bound, bound)
            self.register_parameter(modality, nn.Parameter(weight))
        rows = config.vocabulary
        self.table = nn.Parameter(torch.randn(rows, config.dims["text"])) if rows else None
        self.positions = Positions(config.width)

    def forward(self, modality: Modality, values: Tensor, lengths: Tensor) -> Tensor:
        """Z[0] (B, T, d) of features (B, T, D) or token ids (B, T), both right-padded; lengths (B,).

        With `mult_compat` a kernel k is not padded, as in the reference: k - 1 steps are lost.
        """
        x, weight = self._vectors(values), self.get_parameter(modality)
        time = torch.arange(x.shape[1], device=x.device)
        valid = (time < lengths.to(x.device)[:, None])[..., None]
        x = torch.where(valid, x, 0.0)  # a wide kernel sees zeros beyond the true end, as it does in a sample alone
        projected = self._project(x, weight)
        valid = valid[:, x.shape[1] - projected.shape[1] :]
        positions: Tensor = self.positions(projected.shape[1])
        if self.mult_compat:
            positions = positions * (projected[..., :1] != 0.0)
        return torch.where(valid, math.sqrt(self.width) * projected + positions, 0.0)

    def _vectors(self, values: Tensor) -> Tensor:
        if values.dim() == 3:
            return values
        if self.table is None:
            raise ValueError("token ids need a token table, and the stem has none")
        return F.embedding(values, self.table)

    def _project(self, x: Tensor, weight: Tensor) -> Tensor:
        if len(weight) == 1:
            return x @ weight[0]
        padding = 0 if self.mult_compat else "same"
        return F.conv1d(x.transpose(1, 2), weight.permute(2, 1, 0), padding=padding).transpose(1, 2)
