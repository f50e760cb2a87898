"""Connectionist temporal classification (Graves et al., 2006) as a soft alignment, after MulT's "CTC +" baselines.

An LSTM says at each step of a stream which word is being spoken, or none (the blank, index 0). These chances,
without the blank's, weigh the stream's steps into one vector a word. The labels of a sample of n words are
1..n, so the loss asks for nothing but that every word is visited once, in order.
Letters: B batch, T time of the stream, S words, D width of the features.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class CtcAlignment(nn.Module):
    """Aligns one stream to at most `words` words; the LSTM's state is its `words` + 1 scores."""

    def __init__(self, dim: int, words: int) -> None:
        super().__init__()
        self.words = words
        self.lstm = nn.LSTM(dim, words + 1, num_layers=2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, T, words + 1) of x (B, T, D); a step's scores follow from the steps before it."""
        scores: Tensor = self.lstm(x)[0]
        return scores


def soft_alignment(scores: Tensor, words: int) -> Tensor:
    """(B, S, T): the share of each step in each of the first S = `words` words; not normalised over time."""
    return scores.softmax(dim=-1)[..., 1 : words + 1].transpose(1, 2)


def ctc_losses(scores: Tensor, steps: Tensor, words: Tensor) -> Tensor:
    """(B,): -ln of the chance that each sample's first `steps` (B,) steps spell the labels 1..`words` (B,).

    Where there are fewer steps than words no path exists: the loss is 0 there, and so is its gradient.
    """
    possible = (steps >= words) & (words > 0)
    longest = max(1, int(words.max()))
    labels = torch.arange(1, longest + 1, device=scores.device).expand(len(scores), -1)
    log_chances = scores.log_softmax(dim=-1).transpose(0, 1)  # (T, B, words + 1)
    some = torch.where(possible, words, 1), torch.where(possible, steps, 1)
    losses = F.ctc_loss(log_chances, labels, some[1], some[0], reduction="none", zero_infinity=True)
    return torch.where(possible, losses, 0.0)
