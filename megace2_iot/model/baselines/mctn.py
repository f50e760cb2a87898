"""MCTN: the multimodal cyclic translation network (Pham et al., 2019).

    text -> E1 -> vision, and the translation back through the same translator must give the text again
            E1 -> E2 -> audio
                  E2 -> score

Translating is an exercise of training only: the score, and so every answer, needs nothing but text.
All modalities are padded with zeros to the widest, so that one translator goes both ways.
Letters: B batch, T time in words, D width of the widest modality, H width of a state.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from megace2_iot.features import Modality
from megace2_iot.model.baselines.alignment import Align, Aligned, Aligner
from megace2_iot.model.baselines.sequences import Sequences, sequences_of, states
from megace2_iot.model.method import Batch, MethodConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class MctnConfig(MethodConfig):
    """The sizes of the authors' code."""

    words: int = 20  # a longer text is cut
    hidden: int = 32
    translation_weight: float = 0.1  # of each of the three translation losses
    head_decay: float = 0.01  # of the squared weights that make the score
    coupled_gates: bool = False  # True: the decoder's input gate is its forget gate too, as in the authors' code
    align: Align = "ctc"
    ctc_weight: float = 1.0

    @property
    def width(self) -> int:
        """D, of the widest modality."""
        return max(self.dims.values())


class Mctn(nn.Module):
    """Two translators above each other, and a regression over what the second encodes."""

    kind: ClassVar[str] = "mctn"

    def __init__(self, config: MctnConfig) -> None:
        super().__init__()
        self.config = config
        width, hidden = config.width, config.hidden
        self.aligner = Aligner(config.dims, config.words, config.align)
        self.encoder = BothWays(width, hidden)
        self.decoder = Decoder(hidden, width, coupled=config.coupled_gates)
        self.second_encoder = BothWays(hidden, hidden)
        self.second_decoder = Decoder(hidden, width, coupled=config.coupled_gates)
        self.reader = nn.LSTM(hidden, hidden, batch_first=True)
        self.attention = nn.Linear(hidden, 1)
        self.out = nn.Linear(hidden, config.outputs)

    def forward(self, features: Batch, lengths: Batch) -> Tensor:
        """Scores (B, outputs) from the text alone; without text the answer is a constant."""
        streams = sequences_of(features, lengths, self.config.dims)
        words = min(self.config.words, streams["text"].values.shape[1])
        text = Sequences(streams["text"].values[:, :words], streams["text"].lengths.clamp(max=words))
        return self._score(self.second_encoder(self.encoder(self._widened(text))))

    def training_step(self, features: Batch, lengths: Batch) -> tuple[Tensor, Tensor]:
        """Scores, and the losses of translating, of coming back, of aligning and of the head's size."""
        aligned = self.aligner(sequences_of(features, lengths, self.config.dims))
        text = self._widened(aligned.sequences("text"))
        first = self.encoder(text)
        second = self.second_encoder(first)
        translated = self._translations(text, first, second, aligned)
        head = self.config.head_decay * self.out.weight.square().sum()
        extra = self.config.translation_weight * translated + self.config.ctc_weight * aligned.loss + head
        return self._score(second), extra

    def _translations(self, text: Sequences, first: Sequences, second: Sequences, aligned: Aligned) -> Tensor:
        seen = self.decoder(first)
        back = self.decoder(self.encoder(replace(text, values=seen)))
        heard = self.second_decoder(second)
        vision, audio = (self._target(m, text, aligned) for m in ("vision", "audio"))
        return _distance(seen, vision) + _distance(back, text) + _distance(heard, audio)

    def _target(self, modality: Modality, text: Sequences, aligned: Aligned) -> Sequences:
        """What is to be translated into; where text or target lack, nothing is. It teaches the aligner nothing."""
        sequences = self._widened(aligned.sequences(modality))
        return Sequences(sequences.values.detach(), torch.minimum(sequences.lengths, text.lengths))

    def _widened(self, x: Sequences) -> Sequences:
        return replace(x, values=F.pad(x.values, (0, self.config.width - x.values.shape[-1])))

    def _score(self, encoded: Sequences) -> Tensor:
        read = states(self.reader, encoded)  # (B, T, H)
        weights = _shares(torch.tanh(self.attention(read))[..., 0], encoded.valid)
        scores: Tensor = self.out((weights[:, None] @ read)[:, 0])
        return scores


class BothWays(nn.Module):
    """A bidirectional LSTM whose two states are summed at each step."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, batch_first=True, bidirectional=True)

    def forward(self, x: Sequences) -> Sequences:
        """(B, T, H) of (B, T, D)."""
        forth, back = states(self.lstm, x).chunk(2, dim=-1)
        return replace(x, values=forth + back)


class Decoder(nn.Module):
    """Emits one vector in (-1, 1)^D a step, each from a look at all encoded steps; it never reads what it said.

    The look follows Bahdanau et al. (2015). The authors' code scores a step with w . [e; c], without a nonlinearity:
    there the part of the state c is the same for all steps, so the softmax drops it, and every look is the same.
    """

    def __init__(self, hidden: int, width: int, *, coupled: bool) -> None:
        super().__init__()
        self.hidden, self.coupled = hidden, coupled
        self.of_step = nn.Linear(hidden, hidden)
        self.of_state = nn.Linear(hidden, hidden, bias=False)
        self.look = nn.Linear(hidden, 1, bias=False)
        self.drive = nn.Linear(hidden, 4 * hidden)
        self.recur = nn.Linear(hidden, 4 * hidden, bias=False)
        self.out = nn.Linear(hidden, width)

    def forward(self, encoded: Sequences) -> Tensor:
        """(B, T, D) of an encoded sequence (B, T, H), as many steps as it has."""
        keys, valid = self.of_step(encoded.values), encoded.valid
        h = c = encoded.values.new_zeros(len(keys), self.hidden)
        emitted = []
        for _ in range(keys.shape[1]):
            scores = self.look(torch.tanh(keys + self.of_state(c)[:, None]))[..., 0]
            context = (_shares(scores, valid)[:, None] @ encoded.values)[:, 0]
            i, f, g, o = (self.drive(context) + self.recur(h)).chunk(4, dim=-1)
            c = torch.sigmoid(i if self.coupled else f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            emitted.append(torch.tanh(self.out(h)))
        return torch.stack(emitted, dim=1)


def _shares(scores: Tensor, valid: Tensor) -> Tensor:
    """Softmax over the valid steps of scores (B, T); zeros for a sample without any."""
    lowest = torch.finfo(scores.dtype).min
    return torch.where(valid, scores, lowest).softmax(dim=-1) * valid


def _distance(made: Tensor, target: Sequences) -> Tensor:
    """Mean square error over the target's valid steps, in the decoder's own range: features may have any unit."""
    difference = (made - torch.tanh(target.values)).square() * target.valid[..., None]
    return difference.sum() / (target.valid.sum() * made.shape[-1]).clamp(min=1)
