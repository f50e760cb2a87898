"""EF-LSTM: early fusion. Word by word the three modalities are laid side by side, and one LSTM reads them.

After MMSA's (Yu et al., 2021): concatenated -> normalised at each word -> LSTM -> relu(linear) -> out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from megace2_iot.model.baselines.alignment import Align, Aligner
from megace2_iot.model.baselines.sequences import Sequences, last_state, sequences_of
from megace2_iot.model.baselines.time_norm import TimeNorm
from megace2_iot.model.method import Batch, MethodConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class EfLstmConfig(MethodConfig):
    """The sizes of MMSA on MOSI."""

    words: int = 50  # a longer text is cut
    hidden: int = 128
    layers: int = 4
    dropout: float = 0.5
    align: Align = "ctc"
    ctc_weight: float = 1.0


class EfLstm(nn.Module):
    """One LSTM over aligned words; the names of its parts are MMSA's, so that its tensors load."""

    kind: ClassVar[str] = "ef_lstm"

    def __init__(self, config: EfLstmConfig) -> None:
        super().__init__()
        self.config = config
        self.aligner = Aligner(config.dims, config.words, config.align)
        self.norm = TimeNorm(config.words)
        between = config.dropout if config.layers > 1 else 0.0
        width = sum(config.dims.values())
        self.lstm = nn.LSTM(width, config.hidden, config.layers, batch_first=True, dropout=between)
        self.linear = nn.Linear(config.hidden, config.hidden)
        self.out = nn.Linear(config.hidden, config.outputs)

    def forward(self, features: Batch, lengths: Batch) -> Tensor:
        """Scores (B, outputs) of raw features; a modality that a sample lacks is zeros beside the others."""
        return self._run(features, lengths)[0]

    def training_step(self, features: Batch, lengths: Batch) -> tuple[Tensor, Tensor]:
        """Scores, and the loss of the alignment."""
        scores, loss = self._run(features, lengths)
        return scores, self.config.ctc_weight * loss

    def _run(self, features: Batch, lengths: Batch) -> tuple[Tensor, Tensor]:
        aligned = self.aligner(sequences_of(features, lengths, self.config.dims))
        joined = torch.cat([aligned.values[m] for m in self.config.dims], dim=-1)
        read = last_state(self.lstm, Sequences(self.norm(joined, aligned.valid), aligned.lengths))
        hidden = F.relu(self.linear(self._drop(read)))
        scores: Tensor = self.out(self._drop(hidden))
        return scores, aligned.loss

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.config.dropout, self.training)
