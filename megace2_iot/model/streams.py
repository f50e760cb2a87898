"""One batch of streams Z[0]: who is present, and the masks that follow from true lengths, each made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from megace2_iot.features import MODALITIES, Modality
from megace2_iot.model.attention import Encoder, look_mask
from megace2_iot.model.config import ModelConfig


class Streams:
    """`z` (B, T_m, d) by modality, without those that no sample has, and what their lengths say."""

    def __init__(self, z: Mapping[Modality, Tensor], lengths: Mapping[Modality, Tensor], config: ModelConfig) -> None:
        """Raises ValueError where nothing is present, or a stream has no lengths."""
        if absent := [m for m in z if m not in lengths]:
            raise ValueError(f"no lengths for {', '.join(absent)}")
        # The reference knows no lengths: every step of a stream counts, padded or not.
        true = {m: torch.full_like(lengths[m], z[m].shape[1]) if config.mult_compat else lengths[m] for m in z}
        present = {m: (steps > 0).cpu() for m, steps in true.items()}  # decides what is computed: one small copy
        kept = [m for m in MODALITIES if m in z and bool(present[m].any())]
        if not kept:
            raise ValueError("a batch needs at least one modality with at least one step")
        self.z: dict[Modality, Tensor] = {m: z[m] for m in kept}
        self.lengths: dict[Modality, Tensor] = {m: true[m].to(z[m].device) for m in kept}
        self._present: dict[Modality, Tensor] = {m: present[m] for m in kept}
        self._last_k, self._causal = config.last_k, config.causal
        self._batch = len(self.z[kept[0]])
        self._padding: dict[Modality, Tensor] = {}

    def meet(self, target: Modality, source: Modality) -> bool:
        """Whether any sample has both."""
        if target not in self.z or source not in self.z:
            return False
        return bool((self._present[target] & self._present[source]).any())

    def mask(self, target: Modality, source: Modality) -> Tensor:
        """(B, 1, T, S), or (1, 1, T, S) where all are alike: where the target's steps may look in the source."""
        times, steps = (self.z[target].shape[1], self.z[source].shape[1]), (self.lengths[target], self.lengths[source])
        if self._alike(target, source):
            steps = torch.tensor(times[:1], device=steps[0].device), torch.tensor(times[1:], device=steps[0].device)
        return look_mask(*steps, *times, causal=self._causal)

    def _alike(self, target: Modality, source: Modality) -> bool:
        """Whether one mask serves every sample: nothing is padded, or both are equally long in each sample.

        In the latter case causality hides the source's padding from each valid step of the target, and nothing reads
        the others.
        """
        times, steps = (self.z[target].shape[1], self.z[source].shape[1]), (self.lengths[target], self.lengths[source])
        if self._causal and times[0] == times[1] and torch.equal(*steps):
            return True
        return all(bool((own == time).all()) for own, time in zip(steps, times, strict=True))

    def group_mask(self, pairs: Sequence[tuple[Modality, Modality]]) -> Tensor:
        """Of pairs of a target and a source that share their times: (G B, 1, T, S), or one for all."""
        if all(self._alike(*pair) for pair in pairs):
            return self.mask(*pairs[0])
        return torch.cat([self.mask(*pair).expand(self._batch, -1, -1, -1) for pair in pairs])

    def padding_mask(self, modality: Modality) -> Tensor:
        """(B, 1, 1, T): the valid steps of one stream, for attention without a direction."""
        if modality not in self._padding:
            steps, time = self.lengths[modality], self.z[modality].shape[1]
            self._padding[modality] = look_mask(steps, steps, time, time, causal=False)
        return self._padding[modality]

    def valid(self, modality: Modality) -> Tensor:
        """(B, T): 1.0 at each valid step of one stream."""
        time = torch.arange(self.z[modality].shape[1], device=self.z[modality].device)
        return (time < self.lengths[modality][:, None]).to(self.z[modality].dtype)

    def zeros(self, width: int) -> Tensor:
        """(B, width) zeros where the streams are."""
        return next(iter(self.z.values())).new_zeros(self._batch, width)

    def where_present(self, modality: Modality, x: Tensor) -> Tensor:
        """x (B, T, d), with zeros for the samples that lack the modality."""
        if bool(self._present[modality].all()):
            return x
        return torch.where(self._present[modality].to(x.device)[:, None, None], x, 0.0)

    def alone(self, target: Modality) -> Tensor | None:
        """(B, 1, 1): samples whose only modality is the target; None where there are none."""
        alone = self._present[target].clone()
        for modality, present in self._present.items():
            if modality != target:
                alone &= ~present
        return alone.to(self.z[target].device)[:, None, None] if bool(alone.any()) else None

    def last_steps(self, modality: Modality, memory: Encoder, x: Tensor) -> Tensor:
        """(B, width): the mean of the last k valid steps of what a memory makes of x (B, T, width), 0 without one."""
        steps = self.lengths[modality][:, None]
        rows = steps - torch.arange(self._last_k, 0, -1, device=x.device)  # (B, k)
        counted = (rows >= 0).to(x.dtype)
        weights = counted / counted.sum(dim=1, keepdim=True).clamp(min=1.0)
        rows, mask = rows.clamp(min=0), self.mask(modality, modality)
        if memory.training:  # where time counts; else every step is there to be looked at, and `serving` is fast
            remembered = memory(x, mask=mask, rows=rows)
        else:
            remembered = memory(x, mask=mask).gather(1, rows[..., None].expand(*rows.shape, x.shape[-1]))
        return torch.bmm(weights[:, None], remembered)[:, 0]
