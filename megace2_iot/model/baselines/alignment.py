"""Streams brought to the text's time, one step a word, for methods that concatenate or shift word by word.

    pool   word j of n takes the mean of the steps from j T / n to (j + 1) T / n
    ctc    a learned soft alignment (`ctc.py`); `pool` stands in for a sample whose stream is shorter than its
           words, which has more words than the aligner knows, or no words at all

A sample without text counts as many words as its longest stream has steps.
Letters: B batch, T time of a stream, S words, D width of the features.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from megace2_iot.features import Modality
from megace2_iot.model.baselines.ctc import CtcAlignment, ctc_losses, soft_alignment
from megace2_iot.model.baselines.sequences import Sequences, valid_steps

Align = Literal["ctc", "pool"]


@dataclass(frozen=True, slots=True, eq=False)
class Aligned:
    """`values` (B, S, D_m) of every modality in one time, zero beyond `lengths` (B,), and the loss of aligning."""

    values: Mapping[Modality, Tensor]
    lengths: Tensor  # words, at most as many as the aligner knows
    words: Tensor  # (B,), all of them
    present: Mapping[Modality, Tensor]  # (B,), which samples have the modality
    loss: Tensor

    def sequences(self, modality: Modality) -> Sequences:
        """One modality's words; a sample that lacks it has none."""
        return Sequences(self.values[modality], torch.where(self.present[modality], self.lengths, 0))

    @property
    def valid(self) -> Tensor:
        """(B, S): true at each word."""
        return valid_steps(self.lengths, next(iter(self.values.values())).shape[1])


class Aligner(nn.Module):
    """Aligns audio and vision to at most `words` words of text; a longer text is cut."""

    def __init__(self, dims: Mapping[Modality, int], words: int, align: Align) -> None:
        """Raises ValueError for an unknown way to align."""
        super().__init__()
        if align not in ("ctc", "pool"):
            raise ValueError(f"streams are aligned by ctc or pool, not by {align!r}")
        self.words = words
        learned = [m for m in dims if m != "text"] if align == "ctc" else []
        self.ctc = nn.ModuleDict({m: CtcAlignment(dims[m], words) for m in learned})

    def forward(self, streams: Mapping[Modality, Sequences]) -> Aligned:
        """Every stream of `streams` in the time of its text; the loss is a mean over words and samples."""
        text = streams["text"]
        longest = torch.stack([s.lengths for s in streams.values()]).amax(dim=0)
        words = torch.where(text.lengths > 0, text.lengths, longest)
        slots = min(self.words, max(1, int(words.max())))
        valid = valid_steps(words, slots)[..., None]
        values: dict[Modality, Tensor] = {"text": F.pad(text.values, (0, 0, 0, slots - text.values.shape[1]))}
        loss = text.values.new_zeros(())
        for modality, stream in streams.items():
            if modality != "text":
                shares = pooling(stream.lengths, words, stream.values.shape[1], slots)
                if modality in self.ctc:
                    shares, cost = self._learned(modality, stream, text.lengths, shares)
                    loss = loss + cost
                values[modality] = torch.where(valid, shares @ stream.values, 0.0)
        present = {m: s.lengths > 0 for m, s in streams.items()}
        return Aligned(values, words.clamp(max=self.words), words, present, loss)

    def _learned(self, modality: Modality, stream: Sequences, spoken: Tensor, pooled: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, T), the shares of CTC, `pooled` (B, S, T) where it is undefined; and its loss."""
        defined = (spoken > 0) & (spoken <= self.words) & (stream.lengths >= spoken)
        scores = self.ctc[modality](stream.values)
        shares = torch.where(defined[:, None, None], soft_alignment(scores, pooled.shape[1]), pooled)
        words = torch.where(defined, spoken, 0)
        losses = ctc_losses(scores, stream.lengths, words) / words.clamp(min=1)
        return shares, losses.sum() / defined.sum().clamp(min=1)


def pooling(steps: Tensor, words: Tensor, time: int, slots: int) -> Tensor:
    """(B, S, T) for S = `slots`, T = `time`: the share of each of the `steps` (B,) in each of the `words` (B,).

    The shares of a word sum to 1; a stream shorter than its words lends a step to several of them.
    """
    first, end = _bounds(steps, words, slots)
    step = torch.arange(time, device=steps.device)
    inside = (step >= first[..., None]) & (step < end[..., None])
    shares = inside.to(torch.get_default_dtype())
    return shares / shares.sum(dim=-1, keepdim=True).clamp(min=1.0)


def segments(stream: Sequences, words: Tensor, slots: int, frames: int) -> tuple[Tensor, Tensor]:
    """(B, S, K, D), the first K <= `frames` steps of the stream in each of the `words` (B,), and how many (B, S)."""
    first, end = _bounds(stream.lengths, words, slots)
    counts = (end - first).clamp(max=frames)
    offset = torch.arange(max(1, int(counts.max())), device=counts.device)
    index = (first[..., None] + offset).clamp(max=stream.values.shape[1] - 1)  # (B, S, K)
    batch = torch.arange(len(index), device=index.device)[:, None, None]
    values = torch.where((offset < counts[..., None])[..., None], stream.values[batch, index], 0.0)
    return values, counts


def _bounds(steps: Tensor, words: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """First step and end (B, S) of each word, the end rounded up; both 0 beyond the last word."""
    word = torch.arange(slots, device=steps.device)
    n = words.clamp(min=1)[:, None]
    first = (word * steps[:, None]) // n
    end = -((-(word + 1) * steps[:, None]) // n)
    real = word < words[:, None]
    return torch.where(real, first, 0), torch.where(real, end, 0)
