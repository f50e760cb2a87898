"""The model's answers in a third of the operators: streams of like shape go through their layers together.

Small matrices cost more to start than to multiply. So the layers of all streams that share a length are one batched
product each; a normalisation's scale and shift are folded into the product after it; the keys and values that a source
gives to all layers come from one product; and the last memory layer computes only the steps that the prediction reads.
The weights are packed anew after each swap (`pack`, milliseconds). What it does not serve, it says (`serves`).
Letters: G streams that go together, B batch, T time of the target, S of the source, d width, H heads, D layers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from megace2_iot.features import MODALITIES, Modality
from megace2_iot.model.attention import SHORT, attend
from megace2_iot.model.fusion import CrossModalTransformer, sources_of
from megace2_iot.model.packing import PAIRS, Affine, Layer, Pack, Pair, alike, pack, serves
from megace2_iot.model.streams import Streams

SCORES = 5 << 19  # bytes of attention weights of a piece of a batch of short sequences
IN_CACHE = 3 << 19  # bytes of all streams of a piece of a batch: larger ones leave a core's cache, and are slower


class FusedModel:
    """Inference of one `CrossModalTransformer`, with its adapter.

    With bfloat16 products and attention are computed in it, sums and norms in float32: on a processor that has it
    several times as fast, and with answers that differ by hundredths.
    """

    def __init__(self, model: CrossModalTransformer, dtype: torch.dtype = torch.float32) -> None:
        self._model, self._dtype = model, dtype
        self._packs: dict[tuple[str, ...], Pack] = {}

    def pack(self) -> None:
        """Forget packed weights: the model's have changed."""
        self._packs.clear()

    def serves(self, lengths: Mapping[Modality, Tensor]) -> bool:
        """Whether it can answer a batch of these lengths (`packing.serves`)."""
        return serves(self._model.config, lengths)

    @torch.inference_mode()
    def __call__(self, z: Mapping[Modality, Tensor], lengths: Mapping[Modality, Tensor]) -> Tensor:
        """Scores (B, outputs) of Z[0] (B, T_m, d), right-padded, as the model's own `forward` gives them (to 1e-5)."""
        batch = len(next(iter(z.values())))
        longest = max(x.shape[1] for x in z.values())
        config = self._model.config
        row = longest * (config.heads * longest if longest <= SHORT else config.width)  # elements of one stream
        piece = max(4, (SCORES if longest <= SHORT else IN_CACHE) // (4 * len(PAIRS) * row))
        if batch <= piece or next(iter(z.values())).is_cuda:
            return self._scores(z, lengths)
        parts = [slice(begin, begin + piece) for begin in range(0, batch, piece)]
        return torch.cat(
            [self._scores({m: x[p] for m, x in z.items()}, {m: n[p] for m, n in lengths.items()}) for p in parts]
        )

    def _scores(self, z: Mapping[Modality, Tensor], lengths: Mapping[Modality, Tensor]) -> Tensor:
        model, config = self._model, self._model.config
        streams = Streams(z, lengths, config)
        times = {m: x.shape[1] for m, x in streams.z.items()}
        crossed: dict[Pair, Tensor] = {}
        for group in alike([pair for pair in PAIRS if pair[0] in streams.z and pair[1] in streams.z], times):
            crossed.update(zip(group, self._cross(group, streams), strict=True))
        zeros = next(iter(streams.z.values())).new_zeros
        fused = {
            target: torch.cat(
                [crossed.get((target, s), zeros(*streams.z[target].shape)) for s in sources_of(target)], dim=-1
            )
            for target in streams.z
        }
        summaries = {m: zeros(len(fused[next(iter(fused))]), 2 * config.width) for m in MODALITIES}
        for targets in alike([(m, m) for m in streams.z], times):
            members = [target for target, _ in targets]
            summaries.update(zip(members, self._remember(members, fused, streams), strict=True))
        scores: Tensor = model.head(torch.cat([summaries[m] for m in MODALITIES], dim=-1))
        return scores if model.adapter is None else model.adapter.correct(scores, streams)

    # -- cross-modal encoders ---------------------------------------------------------
    def _cross(self, group: Sequence[Pair], streams: Streams) -> Tensor:
        """(G, B, T, d) of pairs whose targets, and whose sources, are equally long."""
        packed = self._packed([f"{target}_from_{source}" for target, source in group], looks_at_itself=False)
        x = torch.stack([streams.z[target] for target, _ in group])  # (G, B, T, d)
        source = torch.stack([streams.z[source] for _, source in group])  # (G, B, S, d)
        mask = streams.group_mask(group)
        keys_values = _affine(self._ready(source).flatten(1, 2), packed.keys_values[0])  # (G, B S, D 2 d)
        width = x.shape[-1]
        adapt = self._adapter_of([target for target, _ in group], streams)
        for number, layer in enumerate(packed.layers):
            part = keys_values[..., 2 * width * number : 2 * width * (number + 1)]
            x = self._layer(x, layer, part.view(*source.shape[:3], -1), mask)
            if adapt is not None:
                x = adapt(x)
        return _final(x, packed)

    def _adapter_of(self, targets: Sequence[Modality], streams: Streams) -> Callable[[Tensor], Tensor] | None:
        """What happens to (G, B, T, d) after a layer; None without an adapter in that place."""
        adapter = self._model.adapter
        if adapter is None or adapter.placement != "inserted":
            return None
        mask = torch.cat([streams.padding_mask(target) for target in targets])
        return lambda x: adapter.inserted(x.flatten(0, 1), mask).view(x.shape)

    # -- memories ---------------------------------------------------------------------
    def _remember(self, targets: Sequence[Modality], fused: Mapping[Modality, Tensor], streams: Streams) -> Tensor:
        """(G, B, 2d): the mean of the last k valid steps of each target's memory."""
        packed = self._packed([f"{target}_memory" for target in targets], looks_at_itself=True)
        x = torch.stack([fused[target] for target in targets])
        x = math.sqrt(x.shape[-1]) * x + self._model.memory_positions(x.shape[2])
        mask = streams.group_mask([(target, target) for target in targets])
        for layer, affine in zip(packed.layers[:-1], packed.keys_values[:-1], strict=True):
            keys_values = _affine(self._ready(x).flatten(1, 2), affine)
            x = self._layer(x, layer, keys_values.view(*x.shape[:3], -1), mask)
        keys_values = _affine(self._ready(x).flatten(1, 2), packed.keys_values[-1]).view(*x.shape[:3], -1)
        steps = torch.stack([streams.lengths[target] for target in targets])  # (G, B)
        rows = steps[..., None] - torch.arange(self._model.config.last_k, 0, -1, device=steps.device)  # (G, B, k)
        counted = (rows >= 0).to(x.dtype)
        rows = rows.clamp(min=0)
        last = torch.gather(x, 2, rows[..., None].expand(*rows.shape, x.shape[-1]))  # (G, B, k, 2d)
        visible = torch.arange(x.shape[2], device=x.device) <= rows[..., None]  # (G, B, k, T)
        last = self._layer(last, packed.layers[-1], keys_values, visible.flatten(0, 1)[:, None])
        last = _final(last, packed)
        return (last * counted[..., None]).sum(dim=2) / counted.sum(dim=2, keepdim=True).clamp(min=1.0)

    # -- a layer ----------------------------------------------------------------------
    def _layer(self, x: Tensor, layer: Layer, keys_values: Tensor, mask: Tensor) -> Tensor:
        """(G, B, T, d) of x, looking at keys and values (G, B, S, 2 d)."""
        groups, batch, time, width = x.shape
        heads = self._model.config.heads
        flat = x.flatten(1, 2)  # (G, B T, d)
        q = _affine(self._ready(flat), layer.query)
        k, v = keys_values.chunk(2, dim=-1)
        q, k, v = (
            part.reshape(groups * batch, -1, heads, width // heads).transpose(1, 2)
            for part in (q.view(groups, batch, time, width), k, v)
        )
        seen = attend(q, k, v, mask)
        seen = seen.transpose(1, 2).reshape(groups, batch * time, width)
        flat = flat + _affine(seen, layer.out)
        inner = _affine(self._ready(flat), layer.expand).relu_()
        flat = flat + _affine(inner, layer.contract)
        return flat.view(groups, batch, time, width)

    def _ready(self, x: Tensor) -> Tensor:
        """x normed, as a product takes it."""
        return _normed(x).to(self._dtype)

    # -- weights ----------------------------------------------------------------------
    def _packed(self, names: Sequence[str], *, looks_at_itself: bool) -> Pack:
        key = tuple(names)
        if key not in self._packs:
            with torch.inference_mode(False):
                self._packs[key] = pack(self._model, names, looks_at_itself=looks_at_itself, dtype=self._dtype)
        return self._packs[key]


def _affine(x: Tensor, affine: Affine) -> Tensor:
    """x W + b of x (G, R, in): in bfloat16 one product alone runs at the processor's rate."""
    weight, bias = affine
    return torch.bmm(x, weight).add_(bias) if x.dtype == torch.bfloat16 else torch.baddbmm(bias, x, weight)


def _normed(x: Tensor) -> Tensor:
    """Mean 0 and variance 1 along the last axis; scale and shift are in the product that follows."""
    return F.layer_norm(x, x.shape[-1:])


def _final(x: Tensor, packed: Pack) -> Tensor:
    return torch.addcmul(packed.norm[1], _normed(x), packed.norm[0])
