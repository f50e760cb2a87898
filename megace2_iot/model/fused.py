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
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from megace2_iot.features import MODALITIES, Modality
from megace2_iot.model.attention import Encoder, EncoderLayer
from megace2_iot.model.fusion import CrossModalTransformer, sources_of
from megace2_iot.model.streams import Streams

Pair = tuple[Modality, Modality]  # target, source
SHORT = 128  # steps up to which two batched products and a softmax are faster than torch's own attention
SCORES = 5 << 19  # bytes of attention weights of a piece of a batch of short sequences
IN_CACHE = 3 << 19  # bytes of all streams of a piece of a batch: larger ones leave a core's cache, and are slower
PAIRS: tuple[Pair, ...] = tuple((target, source) for target in MODALITIES for source in sources_of(target))


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer of G encoders: each weight (G, in, out), each bias (G, 1, out)."""

    query: tuple[Tensor, Tensor]
    out: tuple[Tensor, Tensor]
    expand: tuple[Tensor, Tensor]
    contract: tuple[Tensor, Tensor]


@dataclass(frozen=True, slots=True)
class _Pack:
    """G encoders: their layers, what makes the keys and values of all layers (G, d, D 2 d), and the final norm."""

    layers: tuple[_Layer, ...]
    keys_values: tuple[tuple[Tensor, Tensor], ...]  # of a memory one a layer, else one for all
    norm: tuple[Tensor, Tensor]


class FusedModel:
    """Inference of one `CrossModalTransformer`, with its adapter."""

    def __init__(self, model: CrossModalTransformer) -> None:
        self._model = model
        self._packs: dict[tuple[str, ...], _Pack] = {}

    def pack(self) -> None:
        """Forget packed weights: the model's have changed."""
        self._packs.clear()

    def serves(self, lengths: Mapping[Modality, Tensor]) -> bool:
        """Whether every sample has the same modalities, at least two, and the config is the usual one."""
        config = self._model.config
        if config.residual != "preln" or config.mult_compat or not config.causal:
            return False
        present = [bool((steps > 0).all()) for steps in lengths.values() if bool((steps > 0).any())]
        return len(present) > 1 and all(present)

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
        crossed: dict[Pair, Tensor] = {}
        for group in _alike([pair for pair in PAIRS if pair[0] in streams.z and pair[1] in streams.z], streams):
            crossed.update(zip(group, self._cross(group, streams), strict=True))
        zeros = next(iter(streams.z.values())).new_zeros
        fused = {
            target: torch.cat(
                [crossed.get((target, s), zeros(*streams.z[target].shape)) for s in sources_of(target)], dim=-1
            )
            for target in streams.z
        }
        summaries = {m: zeros(len(fused[next(iter(fused))]), 2 * config.width) for m in MODALITIES}
        for targets in _alike([(m, m) for m in streams.z], streams):
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
        mask, causal = _masks(group, streams)
        (weight, bias) = packed.keys_values[0]
        keys_values = torch.baddbmm(bias, _normed(source).flatten(1, 2), weight)  # (G, B S, D 2 d)
        width = x.shape[-1]
        adapt = self._adapter_of([target for target, _ in group], streams)
        for number, layer in enumerate(packed.layers):
            part = keys_values[..., 2 * width * number : 2 * width * (number + 1)]
            x = self._layer(x, layer, part.view(*source.shape[:3], -1), mask, causal)
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
        mask, causal = _masks([(target, target) for target in targets], streams)
        for layer, (weight, bias) in zip(packed.layers[:-1], packed.keys_values[:-1], strict=True):
            keys_values = torch.baddbmm(bias, _normed(x).flatten(1, 2), weight)
            x = self._layer(x, layer, keys_values.view(*x.shape[:3], -1), mask, causal)
        weight, bias = packed.keys_values[-1]
        keys_values = torch.baddbmm(bias, _normed(x).flatten(1, 2), weight).view(*x.shape[:3], -1)
        steps = torch.stack([streams.lengths[target] for target in targets])  # (G, B)
        rows = steps[..., None] - torch.arange(self._model.config.last_k, 0, -1, device=steps.device)  # (G, B, k)
        counted = (rows >= 0).to(x.dtype)
        rows = rows.clamp(min=0)
        last = torch.gather(x, 2, rows[..., None].expand(*rows.shape, x.shape[-1]))  # (G, B, k, 2d)
        visible = torch.arange(x.shape[2], device=x.device) <= rows[..., None]  # (G, B, k, T)
        last = self._layer(last, packed.layers[-1], keys_values, visible.flatten(0, 1)[:, None], causal=False)
        last = _final(last, packed)
        return (last * counted[..., None]).sum(dim=2) / counted.sum(dim=2, keepdim=True).clamp(min=1.0)

    # -- a layer ----------------------------------------------------------------------
    def _layer(self, x: Tensor, layer: _Layer, keys_values: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
        """(G, B, T, d) of x, looking at keys and values (G, B, S, 2 d)."""
        groups, batch, time, width = x.shape
        heads = self._model.config.heads
        flat = x.flatten(1, 2)  # (G, B T, d)
        q = torch.baddbmm(layer.query[1], _normed(flat), layer.query[0])
        k, v = keys_values.chunk(2, dim=-1)
        q, k, v = (
            part.reshape(groups * batch, -1, heads, width // heads).transpose(1, 2)
            for part in (q.view(groups, batch, time, width), k, v)
        )
        seen = _attend(q, k, v, mask, causal)
        seen = seen.transpose(1, 2).reshape(groups, batch * time, width)
        flat = flat + torch.baddbmm(layer.out[1], seen, layer.out[0])
        inner = torch.baddbmm(layer.expand[1], _normed(flat), layer.expand[0]).relu_()
        flat = flat + torch.baddbmm(layer.contract[1], inner, layer.contract[0])
        return flat.view(groups, batch, time, width)

    # -- weights ----------------------------------------------------------------------
    def _packed(self, names: Sequence[str], *, looks_at_itself: bool) -> _Pack:
        key = tuple(names)
        if key not in self._packs:
            with torch.inference_mode(False), torch.no_grad():
                encoders = [self._model.get_submodule(name) for name in names]
                self._packs[key] = _pack(encoders, looks_at_itself)  # type: ignore[arg-type]
        return self._packs[key]


def _pack(encoders: Sequence[Encoder], looks_at_itself: bool) -> _Pack:
    depth = len(encoders[0].layers)
    rows = [[encoder.layers[number] for encoder in encoders] for number in range(depth)]
    keys_values = [_stack([_keys_values(layer) for layer in row]) for row in rows]  # type: ignore[arg-type]
    if not looks_at_itself:
        joined = torch.cat([w for w, _ in keys_values], dim=-1), torch.cat([b for _, b in keys_values], dim=-1)
        keys_values = [joined]
    norm = torch.stack([e.norm.weight for e in encoders]), torch.stack([e.norm.bias for e in encoders])
    return _Pack(
        tuple(_layer_of(row) for row in rows),  # type: ignore[arg-type]
        tuple(keys_values),
        (norm[0][:, None, None].detach(), norm[1][:, None, None].detach()),
    )


def _layer_of(row: Sequence[EncoderLayer]) -> _Layer:
    width = row[0].attention.width
    query = [
        _folded(e.attention.in_proj_weight[:width], e.attention.in_proj_bias[:width], e.attention_norm) for e in row
    ]
    expand = [_folded(e.expand.weight, e.expand.bias, e.ffn_norm) for e in row]
    out = [(e.attention.out_proj.weight.T, e.attention.out_proj.bias) for e in row]
    contract = [(e.contract.weight.T, e.contract.bias) for e in row]
    return _Layer(_stack(query), _stack(out), _stack(expand), _stack(contract))


def _keys_values(layer: EncoderLayer) -> tuple[Tensor, Tensor]:
    width, attention = layer.attention.width, layer.attention
    return _folded(attention.in_proj_weight[width:], attention.in_proj_bias[width:], layer.attention_norm)


def _folded(weight: Tensor, bias: Tensor, norm: torch.nn.LayerNorm) -> tuple[Tensor, Tensor]:
    """W (in, out) and b (out,) of norm's scale and shift followed by a linear layer."""
    return (weight * norm.weight).T, bias + weight @ norm.bias


def _stack(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    weights = torch.stack([weight for weight, _ in parts]).contiguous().detach()
    return weights, torch.stack([bias for _, bias in parts])[:, None].detach()


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """(N, H, T, d / H) of queries looking at keys and values (N, H, S, d / H); `causal` needs no mask."""
    time, span = q.shape[2], k.shape[2]
    if max(time, span) > SHORT or q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
    scale = q.shape[-1] ** -0.5
    flat_q, flat_k, flat_v = q.flatten(0, 1), k.flatten(0, 1), v.flatten(0, 1)
    if causal:
        ahead = q.new_full((time, span), -math.inf).triu(1)
        scores = torch.baddbmm(ahead, flat_q, flat_k.transpose(1, 2), alpha=scale)
    else:
        scores = torch.bmm(flat_q, flat_k.transpose(1, 2)).mul_(scale)
        if mask is not None:
            scores = scores.view(*q.shape[:2], time, span).masked_fill_(~mask, -math.inf).flatten(0, 1)
    return torch.bmm(torch.softmax(scores, dim=-1), flat_v).view(*q.shape[:2], time, -1)


def _normed(x: Tensor) -> Tensor:
    """Mean 0 and variance 1 along the last axis; scale and shift are in the product that follows."""
    return F.layer_norm(x, x.shape[-1:])


def _final(x: Tensor, packed: _Pack) -> Tensor:
    return torch.addcmul(packed.norm[1], _normed(x), packed.norm[0])


# -- who goes together, and who may look where ----------------------------------------
def _alike(pairs: Sequence[Pair], streams: Streams) -> list[list[Pair]]:
    """Pairs by the lengths of target and source, padding included."""
    groups: dict[tuple[int, int], list[Pair]] = {}
    for target, source in pairs:
        groups.setdefault((streams.z[target].shape[1], streams.z[source].shape[1]), []).append((target, source))
    return list(groups.values())


def _masks(group: Sequence[Pair], streams: Streams) -> tuple[Tensor | None, bool]:
    """The mask (G B, 1, T, S), or None and whether attention is plainly causal: nothing padded, equally long."""
    full = all(bool((streams.lengths[m] == streams.z[m].shape[1]).all()) for pair in group for m in pair)
    target, source = group[0]
    if full and streams.z[target].shape[1] == streams.z[source].shape[1]:
        return None, True
    if full:
        one = streams.mask(target, source)[:1]
        return one, False
    return torch.cat([streams.mask(*pair) for pair in group]), False
