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
            bound = (kernel * dim) ** -0.5
            weight = torch.empty(kernel, dim, config.width).uniform_(-bound, bound)
            self.register_parameter(modality, nn.Parameter(weight))
        rows = config.vocabulary
        self.table = nn.Parameter(torch.randn(rows, config.dims["text"])) if rows else None
        self.positions = Positions(config.width)

    def forward(self, modality: Modality, values: Tensor, lengths: Tensor) -> Tensor:
        """Z[0] (B, T, d) of features (B, T, D) or token ids (B, T), both right-padded; lengths (B,)."""
        x = self._vectors(values)
        time = torch.arange(x.shape[1], device=x.device)
        valid = (time < lengths.to(x.device)[:, None])[..., None]
        x = torch.where(valid, x, 0.0)  # a wide kernel sees zeros beyond the true end, as it does in a sample alone
        projected = self._project(x, self.get_parameter(modality))
        positions: Tensor = self.positions(x.shape[1])
        if self.mult_compat:
            positions = positions * (projected[..., :1] != 0.0)
        return torch.where(valid, math.sqrt(self.width) * projected + positions, 0.0)

    def _vectors(self, values: Tensor) -> Tensor:
        if values.dim() == 3:
            return values
        if self.table is None:
            raise ValueError("token ids need a token table, and the stem has none")
        return F.embedding(values, self.table)

    @staticmethod
    def _project(x: Tensor, weight: Tensor) -> Tensor:
        if len(weight) == 1:
            return x @ weight[0]
        return F.conv1d(x.transpose(1, 2), weight.permute(2, 1, 0), padding="same").transpose(1, 2)
