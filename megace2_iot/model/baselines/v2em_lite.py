"""V2EM-lite: V2EM's fusion (Wei et al., 2022) over feature sequences, without its raw-data front ends.

V2EM answers from raw data: ALBERT for text, faces in frames through RepVGG blocks, spectrograms through NesT. Here
each modality's features enter where those front ends end: a small Transformer with a class token, one linear
layer a modality, and a learned sum of the three answers. The suffix says that it is not V2EM.
Letters: B batch, T time, D width of the features, W width of the Transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from megace2_iot.model.baselines.sequences import Sequences, sequences_of
from megace2_iot.model.method import Batch, MethodConfig, alone


@dataclass(frozen=True, slots=True, kw_only=True)
class V2emLiteConfig(MethodConfig):
    """The sizes of the authors' Transformers."""

    width: int = 64
    layers: int = 4
    heads: int = 4
    ffn: int = 2048
    dropout: float = 0.1


class V2emLite(nn.Module):
    """Three branches that answer apart, and the weights of their answers."""

    kind: ClassVar[str] = "v2em_lite"

    def __init__(self, config: V2emLiteConfig) -> None:
        super().__init__()
        self.config = config
        self.branches = nn.ModuleDict({m: Branch(dim, config) for m, dim in config.dims.items()})
        self.fusion = nn.Linear(len(config.dims), 1, bias=False)

    def forward(self, features: Batch, lengths: Batch) -> Tensor:
        """Scores (B, outputs) of raw features; a modality that a sample lacks adds nothing to the sum."""
        streams = sequences_of(features, lengths, self.config.dims)
        answers = torch.stack([self.branches[m](stream) for m, stream in streams.items()], dim=-1)
        scores: Tensor = self.fusion(answers)[..., 0]
        return scores

    def training_step(self, features: Batch, lengths: Batch) -> tuple[Tensor, Tensor]:
        """Scores, and no loss of its own."""
        return alone(self(features, lengths))


class Branch(nn.Module):
    """Post-norm Transformer layers over a class token and the steps, in no order: V2EM adds no positions."""

    def __init__(self, dim: int, config: V2emLiteConfig) -> None:
        super().__init__()
        self.project = nn.Linear(dim, config.width)
        self.token = nn.Parameter(torch.randn(config.width))
        layer = nn.TransformerEncoderLayer(config.width, config.heads, config.ffn, config.dropout, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, config.layers, enable_nested_tensor=False)
        self.out = nn.Linear(config.width, config.outputs)

    def forward(self, x: Sequences) -> Tensor:
        """(B, outputs) of x (B, T, D); zeros where it is empty."""
        steps = torch.cat([self.token.expand(len(x.values), 1, -1), self.project(x.values)], dim=1)
        padding = torch.cat([x.valid.new_zeros(len(steps), 1), ~x.valid], dim=1)
        summary = self.encoder(steps, src_key_padding_mask=padding)[:, 0]
        answers: Tensor = self.out(summary)
        return torch.where((x.lengths > 0)[:, None], answers, 0.0)
