"""RAVEN: the recurrent attended variation embedding network (Wang et al., 2019).

What is heard and seen during a word shifts the word's vector before an LSTM reads the text:

    w_a = sigmoid(W_a [h_a; e])          how much the voice counts for this word; w_v likewise
    h_m = W [w_a h_a; w_v h_v] + b       the shift's direction
    e'  = e + min(beta |e| / |h_m|, 1) h_m        "paper"
    e'  = e + beta |e| h_m / max(|h_m|, 1)        "code"

h_a is the state of an LSTM that read the voice during the word. The released data have up to 20 frames of each word;
ours carry no times of words. Aligned by `pool`, a word gets its share of the stream's steps; by `ctc`, the one vector
that the alignment makes for it.

The released code takes `.data` of both nonverbal inputs and of the shift, so that no gradient reaches a nonverbal
parameter. Here nothing is detached.
Letters: B batch, S words, K frames of a word, D width of a modality, H width of a nonverbal state.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from megace2_iot.features import Modality
from megace2_iot.model.baselines.alignment import Align, Aligned, Aligner, segments
from megace2_iot.model.baselines.sequences import Sequences, last_state, sequences_of, valid_steps
from megace2_iot.model.baselines.time_norm import TimeNorm
from megace2_iot.model.method import Batch, MethodConfig

Shift = Literal["paper", "code"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RavenConfig(MethodConfig):
    """The sizes of the authors' code."""

    words: int = 50  # a longer text is cut
    frames: int = 20  # a word's further ones are left out
    nonverbal: int = 150  # H
    hidden: int = 300
    beta: float = 0.2  # a shift's greatest length, in lengths of the word's vector
    shift: Shift = "paper"
    dropout: float = 0.2
    align: Align = "ctc"
    ctc_weight: float = 1.0

    def __post_init__(self) -> None:
        MethodConfig.__post_init__(self)
        if self.shift not in ("paper", "code"):
            raise ValueError(f"a shift is that of the paper or of the code, not {self.shift!r}")


class Raven(nn.Module):
    """Two nonverbal readers, two gates, one shift, and the LSTM that reads the shifted words."""

    kind: ClassVar[str] = "raven"

    def __init__(self, config: RavenConfig) -> None:
        super().__init__()
        self.config = config
        text, state = config.dims["text"], config.nonverbal
        self.aligner = Aligner(config.dims, config.words, config.align)
        self.norm = TimeNorm(config.words)
        self.listen = Nonverbal(config.dims["audio"], text, state, config.dropout)
        self.watch = Nonverbal(config.dims["vision"], text, state, config.dropout)
        self.direction = nn.Linear(2 * state, text)
        self.reader = nn.LSTM(text, config.hidden, batch_first=True)
        self.out = nn.Linear(config.hidden, config.outputs)

    def forward(self, features: Batch, lengths: Batch) -> Tensor:
        """Scores (B, outputs) of raw features; a shift is relative to a word, so without text nothing is heard."""
        return self._run(features, lengths)[0]

    def training_step(self, features: Batch, lengths: Batch) -> tuple[Tensor, Tensor]:
        """Scores, and the loss of the alignment."""
        scores, loss = self._run(features, lengths)
        return scores, self.config.ctc_weight * loss

    def _run(self, features: Batch, lengths: Batch) -> tuple[Tensor, Tensor]:
        streams = sequences_of(features, lengths, self.config.dims)
        aligned = self.aligner(streams)
        words = aligned.sequences("text")
        shifted = self._drop(words.values + self.shift(streams, aligned))
        read = last_state(self.reader, Sequences(shifted, words.lengths))
        scores: Tensor = self.out(read)
        return scores, aligned.loss

    def shift(self, streams: Mapping[Modality, Sequences], aligned: Aligned) -> Tensor:
        """(B, S, D): what each word's vector is moved by."""
        e = aligned.values["text"]
        voice, of_voice = self._frames("audio", streams, aligned)
        face, of_face = self._frames("vision", streams, aligned)
        heard = self.listen(self._normed(voice, of_voice), of_voice, e)
        seen = self.watch(face, of_face, e)
        h: Tensor = self.direction(torch.cat([heard, seen], dim=-1))
        length, of_word = _norm(h), _norm(e)
        if self.config.shift == "code":
            return h * self.config.beta * of_word / length.clamp(min=1.0)
        return h * (self.config.beta * of_word / length.clamp(min=1e-6)).clamp(max=1.0)

    def _frames(
        self, modality: Modality, streams: Mapping[Modality, Sequences], aligned: Aligned
    ) -> tuple[Tensor, Tensor]:
        """What there is of a modality during each word (B, S, K, D), and how many frames it is (B, S)."""
        if self.config.align == "pool":
            slots = aligned.values[modality].shape[1]
            return segments(streams[modality], aligned.words, slots, self.config.frames)
        each = aligned.sequences(modality)
        return each.values[:, :, None], each.valid.long()

    def _normed(self, x: Tensor, counts: Tensor) -> Tensor:
        """x (B, S, K, D), normalised at each word over batch, frames and features."""
        batch, words, frames, _ = x.shape
        valid = valid_steps(counts.flatten(), frames).view(batch, words, frames)
        one_by_one = x.transpose(1, 2).flatten(0, 1), valid.transpose(1, 2).flatten(0, 1)  # (B K, S, D), (B K, S)
        normed: Tensor = self.norm(*one_by_one)
        return normed.view(batch, frames, words, -1).transpose(1, 2)

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.config.dropout, self.training)


class Nonverbal(nn.Module):
    """One nonverbal modality during each word: read by an LSTM, then weighed by a gate that knows the word."""

    def __init__(self, dim: int, text: int, state: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.project = nn.Linear(dim, state)
        self.reader = nn.LSTM(state, state, batch_first=True)
        self.gate = nn.Linear(state + text, 1)

    def forward(self, x: Tensor, counts: Tensor, e: Tensor) -> Tensor:
        """(B, S, H) of x (B, S, K, D), `counts` (B, S) frames beside words e (B, S, D_text); zeros without frames."""
        projected = self.project(F.dropout(x, self.dropout, self.training))
        frames = Sequences(projected.flatten(0, 1), counts.flatten())  # (B S, K, H): each word begins anew
        h = last_state(self.reader, frames).view(*counts.shape, -1)
        gated: Tensor = torch.sigmoid(self.gate(torch.cat([h, e], dim=-1))) * h
        return gated


def _norm(x: Tensor) -> Tensor:
    """(..., 1): the length of each vector. Its gradient at zero is zero."""
    length: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return length
