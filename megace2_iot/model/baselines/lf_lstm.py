"""LF-LSTM: late fusion. One bidirectional LSTM a modality, each read to its own end, and a perceptron over all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from megace2_iot.model.baselines.sequences import last_state, sequences_of
from megace2_iot.model.method import Batch, MethodConfig, alone


@dataclass(frozen=True, slots=True, kw_only=True)
class LfLstmConfig(MethodConfig):
    """No public code is the canonical one: see docs/methods.md."""

    hidden: int = 64  # of each direction
    head: int = 128
    dropout: float = 0.3


class LfLstm(nn.Module):
    """Needs no alignment: each modality keeps its own time."""

    kind: ClassVar[str] = "lf_lstm"

    def __init__(self, config: LfLstmConfig) -> None:
        super().__init__()
        self.config = config
        self.readers = nn.ModuleDict(
            {m: nn.LSTM(dim, config.hidden, batch_first=True, bidirectional=True) for m, dim in config.dims.items()}
        )
        self.expand = nn.Linear(2 * config.hidden * len(config.dims), config.head)
        self.out = nn.Linear(config.head, config.outputs)

    def forward(self, features: Batch, lengths: Batch) -> Tensor:
        """Scores (B, outputs) of raw features; a modality that a sample lacks leaves zeros."""
        streams = sequences_of(features, lengths, self.config.dims)
        read = [last_state(self._reader(m), stream) for m, stream in streams.items()]
        hidden = F.relu(self.expand(self._drop(torch.cat(read, dim=-1))))
        scores: Tensor = self.out(self._drop(hidden))
        return scores

    def training_step(self, features: Batch, lengths: Batch) -> tuple[Tensor, Tensor]:
        """Scores, and no loss of its own."""
        return alone(self(features, lengths))

    def _reader(self, modality: str) -> nn.LSTM:
        reader = self.readers[modality]
        assert isinstance(reader, nn.LSTM)
        return reader

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.config.dropout, self.training)
