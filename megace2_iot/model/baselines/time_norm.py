"""Batch normalisation of each time step over batch and features, as MMSA's EF-LSTM and RAVEN have it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPSILON, MOMENTUM = 1e-5, 0.1  # torch's defaults for batch normalisation


class TimeNorm(nn.Module):
    """`nn.BatchNorm1d` with one feature a time step, whose statistics leave the padding out.

    The public code counts the padding in: late steps, which few samples reach, then have next to no variance, and
    the long samples' are blown up.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(steps))
        self.bias = nn.Parameter(torch.zeros(steps))
        self.register_buffer("running_mean", torch.zeros(steps))
        self.register_buffer("running_var", torch.ones(steps))

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """x (B, T, D) with `valid` (B, T), normalised; zeros where not valid. T may be less than the steps known."""
        time = x.shape[1]
        if self.training:
            mean, variance = self._statistics(x, valid)
        else:
            mean, variance = self.running_mean[:time], self.running_var[:time]
        scale = self.weight[:time] * (variance + EPSILON).rsqrt()
        normed = (x - mean[:, None]) * scale[:, None] + self.bias[:time, None]
        return torch.where(valid[..., None], normed, 0.0)

    def _statistics(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance (T,) of the valid values, folded into the running ones (unbiased, as torch does)."""
        time = x.shape[1]
        counted = valid[..., None].to(x.dtype)
        n = counted.sum(dim=(0, 2)) * x.shape[2]
        mean = (x * counted).sum(dim=(0, 2)) / n.clamp(min=1)
        variance = ((x - mean[:, None]).square() * counted).sum(dim=(0, 2)) / n.clamp(min=1)
        with torch.no_grad():
            moved = MOMENTUM * (n > 0)  # a step that no sample reaches keeps what it knows
            unbiased = variance * n / (n - 1).clamp(min=1)
            self.running_mean[:time] += moved * (mean - self.running_mean[:time])
            self.running_var[:time] += moved * (unbiased - self.running_var[:time])
        return mean, variance
