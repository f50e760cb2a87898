"""The cross-modal transformer, read top to bottom like figure 2 of the paper.

    Z[0] of text, audio and vision          from the stem, usually on the device
      -> six cross-modal encoders           target_from_source, equation (2)
      -> concatenated by target, 2d wide
      -> three memories                     self-attention, equation (3)
      -> mean of the last k valid steps
      -> head                               concatenated, 6d wide -> scores

A module's name is its parameter group: what comes before the first dot of a parameter's name. A modality that
a sample lacks leaves zeros in the concatenations, and encoders that no sample of a batch needs are not computed,
so their parameters get no gradient. A sample of one modality has nothing to cross: its memory reads Z[0] itself.
Letters: B batch, T_m time of modality m, d width.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from megace2_iot.features import MODALITIES, Modality
from megace2_iot.model.adapter import Adapter
from megace2_iot.model.attention import BlockDropout, Encoder, Positions
from megace2_iot.model.config import PRESETS, Dropouts, ModelConfig, preset
from megace2_iot.model.embedding import TorchStem
from megace2_iot.model.streams import Streams

__all__ = ["PRESETS", "CrossModalTransformer", "Dropouts", "ModelConfig", "preset"]


def sources_of(target: Modality) -> tuple[Modality, ...]:
    """The two modalities that `target` looks at, in the order of the concatenation."""
    return tuple(modality for modality in MODALITIES if modality != target)


class CrossModalTransformer(nn.Module):
    """A stem, six cross-modal encoders, three memories and a head; perhaps an adapter (`adapter.attach`)."""

    adapter: Adapter | None

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = TorchStem(config)
        for target in MODALITIES:
            for source in sources_of(target):
                self.add_module(f"{target}_from_{source}", _encoder(config, source))
        for target in MODALITIES:
            self.add_module(f"{target}_memory", _encoder(config, None))
        self.memory_positions = Positions(2 * config.width)
        self.head = Head(6 * config.width, config.outputs, config.dropouts.output)
        self.adapter = None

    @classmethod
    def seeded(cls, config: ModelConfig, seed: int) -> CrossModalTransformer:
        """A new model whose weights follow from `seed` alone; torch's own generator is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return cls(config)

    @property
    def family(self) -> str:
        """12 hex digits that name the architecture: of the config and of every parameter's name and shape."""
        layout = [(name, tuple(parameter.shape)) for name, parameter in sorted(self.named_parameters())]
        base = [item for item in layout if not item[0].startswith("adapter.")]
        return hashlib.sha256(f"{self.config.to_json()}{base}".encode()).hexdigest()[:12]

    def embed(self, features: Mapping[Modality, Tensor], lengths: Mapping[Modality, Tensor]) -> dict[Modality, Tensor]:
        """Z[0] (B, T_m, d) of features (B, T_m, D_m), right-padded; text may be token ids (B, T)."""
        return {m: self.stem(m, values, lengths[m]) for m, values in features.items()}

    def forward(self, z: Mapping[Modality, Tensor], lengths: Mapping[Modality, Tensor]) -> Tensor:
        """Scores (B, outputs) from Z[0] (B, T_m, d), right-padded, and true lengths (B,).

        A modality is missing for the whole batch where its key is absent, for one sample where its length is 0.
        """
        streams = Streams(z, lengths, self.config)
        summaries = [self._summary(target, streams) for target in MODALITIES]
        scores: Tensor = self.head(torch.cat(summaries, dim=-1))
        if self.adapter is not None:
            scores = self.adapter.correct(scores, streams)
        return scores

    def _summary(self, target: Modality, streams: Streams) -> Tensor:
        """(B, 2d): what the target's stream comes to after looking at the others; zeros where missing."""
        if target not in streams.z:
            return streams.zeros(2 * self.config.width)
        crossed = [self._cross(target, source, streams) for source in sources_of(target)]
        fused = torch.cat(crossed, dim=-1)  # (B, T, 2d)
        if (alone := streams.alone(target)) is not None:
            itself = self._adapted(target, streams)(streams.z[target])
            fused = torch.where(alone, torch.cat([itself, itself], dim=-1), fused)
        fused = math.sqrt(fused.shape[-1]) * fused + self._memory_position(fused)
        memory: Encoder = self.get_submodule(f"{target}_memory")  # type: ignore[assignment]
        return streams.last_steps(target, memory, fused)

    def _cross(self, target: Modality, source: Modality, streams: Streams) -> Tensor:
        """(B, T, d): the target's stream after looking at the source; zeros where either is missing."""
        z = streams.z[target]
        if not streams.meet(target, source):
            return torch.zeros_like(z)
        encoder = self.get_submodule(f"{target}_from_{source}")
        mask = streams.mask(target, source)
        crossed: Tensor = encoder(z, streams.z[source], mask, self._adapted(target, streams))
        return streams.where_present(source, crossed)

    def _adapted(self, target: Modality, streams: Streams) -> Callable[[Tensor], Tensor]:
        """What happens to the target's stream (B, T, d) after a layer: nothing, unless an adapter is attached."""
        if self.adapter is None:
            return lambda x: x
        return partial(self.adapter.inserted, mask=streams.padding_mask(target))

    def _memory_position(self, fused: Tensor) -> Tensor:
        positions: Tensor = self.memory_positions(fused.shape[1])
        if self.config.mult_compat:
            return positions * (fused[..., :1] != 0.0)  # the reference takes an exact 0.0 for padding
        return positions


class Head(nn.Module):
    """out(h + contract(relu(expand(h)))): a residual block over all summaries, then the scores."""

    def __init__(self, width: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.expand = nn.Linear(width, width)
        self.contract = nn.Linear(width, width)
        self.out = nn.Linear(width, outputs)

    def forward(self, h: Tensor) -> Tensor:
        """(B, outputs) of h (B, 6d)."""
        inner = F.dropout(F.relu(self.expand(h)), self.dropout, self.training)
        scores: Tensor = self.out(h + self.contract(inner))
        return scores


def _encoder(config: ModelConfig, source: Modality | None) -> Encoder:
    """A cross-modal encoder that looks at `source`, or with None a memory: twice as wide, looking at itself."""
    chances = config.dropouts
    dropout = BlockDropout(
        embedding=chances.embedding,
        attention=chances.attention_from(source or "text"),
        relu=chances.relu,
        residual=chances.residual,
    )
    width, layers = (config.width, config.layers) if source else (2 * config.width, config.memory_layers)
    return Encoder(width, config.heads, layers, config.ffn_ratio, dropout, config.residual)
