"""Parts of Mega-CE2 alone, for table 4: one modality, or one target with the two cross-modal encoders that feed it.

    Unimodal      Z[0] -> self-attention -> last steps -> head, d wide
    SingleTarget  Z[0] -> two cross-modal encoders -> 2d wide -> memory -> last steps -> head, 2d wide

A single target is the `lonly`, `aonly` or `vonly` mode of the MulT code, and its parameters have the names that they
have in the whole model. Letters: B batch, T time, d width.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from megace2_iot.features import MODALITIES, Modality
from megace2_iot.model.attention import BlockDropout, Encoder, Positions
from megace2_iot.model.config import ModelConfig, preset
from megace2_iot.model.embedding import TorchStem
from megace2_iot.model.fusion import Head, sources_of
from megace2_iot.model.method import Batch, Method, Recipe, alone
from megace2_iot.model.streams import Streams


@dataclass(frozen=True, slots=True)
class AblationConfig:
    """Which part of which model."""

    model: ModelConfig
    target: Modality

    def __post_init__(self) -> None:
        if self.target not in MODALITIES:
            raise ValueError(f"a target is one of {', '.join(MODALITIES)}, not {self.target!r}")

    @property
    def dims(self) -> Mapping[Modality, int]:
        """Width D of each modality's features."""
        return self.model.dims

    @property
    def outputs(self) -> int:
        """How many scores a sample gets."""
        return self.model.outputs

    def to_json(self) -> str:
        """Compact, with sorted keys: equal configs have equal JSON."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str | bytes) -> AblationConfig:
        """The config of `to_json`. Raises ValueError for anything else."""
        try:
            raw = json.loads(text)
            return cls(ModelConfig.from_json(json.dumps(raw["model"])), raw["target"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"not an AblationConfig: {error}") from error


class Unimodal(nn.Module):
    """A self-attention encoder over one modality; the others are ignored."""

    kind: ClassVar[str] = "unimodal"

    def __init__(self, config: AblationConfig) -> None:
        super().__init__()
        self.config = config
        shape = config.model
        self.stem = TorchStem(shape)
        self.memory = _encoder(shape, shape.width, shape.memory_layers, "text")
        self.head = Head(shape.width, shape.outputs, shape.dropouts.output)

    def forward(self, features: Batch, lengths: Batch) -> Tensor:
        """Scores (B, outputs) of raw features; a constant for a sample that lacks the modality."""
        target = self.config.target
        streams = _streams(self.stem, features, lengths, self.config.model)
        if target not in streams.z:
            return _answer(self.head, streams.zeros(self.config.model.width))
        return _answer(self.head, streams.last_steps(target, self.memory, streams.z[target]))

    def training_step(self, features: Batch, lengths: Batch) -> tuple[Tensor, Tensor]:
        """Scores, and no loss of its own."""
        return alone(self(features, lengths))


class SingleTarget(nn.Module):
    """One target looks at its two sources; neither of them answers itself."""

    kind: ClassVar[str] = "single_target"

    def __init__(self, config: AblationConfig) -> None:
        super().__init__()
        self.config = config
        shape, target = config.model, config.target
        self.stem = TorchStem(shape)
        for source in sources_of(target):
            self.add_module(f"{target}_from_{source}", _encoder(shape, shape.width, shape.layers, source))
        self.add_module(f"{target}_memory", _encoder(shape, 2 * shape.width, shape.memory_layers, "text"))
        self.memory_positions = Positions(2 * shape.width)
        self.head = Head(2 * shape.width, shape.outputs, shape.dropouts.output)

    def forward(self, features: Batch, lengths: Batch) -> Tensor:
        """Scores (B, outputs) of raw features; sources that a sample lacks leave zeros, as in the whole model."""
        shape, target = self.config.model, self.config.target
        streams = _streams(self.stem, features, lengths, shape)
        if target not in streams.z:
            return _answer(self.head, streams.zeros(2 * shape.width))
        crossed = [self._cross(source, streams) for source in sources_of(target)]
        fused = torch.cat(crossed, dim=-1)  # (B, T, 2d)
        if (lone := streams.alone(target)) is not None:
            fused = torch.where(lone, torch.cat([streams.z[target]] * 2, dim=-1), fused)
        positions: Tensor = self.memory_positions(fused.shape[1])
        if shape.mult_compat:
            positions = positions * (fused[..., :1] != 0.0)
        memory: Encoder = self.get_submodule(f"{target}_memory")  # type: ignore[assignment]
        fused = math.sqrt(fused.shape[-1]) * fused + positions
        return _answer(self.head, streams.last_steps(target, memory, fused))

    def training_step(self, features: Batch, lengths: Batch) -> tuple[Tensor, Tensor]:
        """Scores, and no loss of its own."""
        return alone(self(features, lengths))

    def _cross(self, source: Modality, streams: Streams) -> Tensor:
        target = self.config.target
        if not streams.meet(target, source):
            return torch.zeros_like(streams.z[target])
        encoder = self.get_submodule(f"{target}_from_{source}")
        crossed: Tensor = encoder(streams.z[target], streams.z[source], streams.mask(target, source))
        return streams.where_present(source, crossed)


def _streams(stem: TorchStem, features: Batch, lengths: Batch, config: ModelConfig) -> Streams:
    if lacking := [m for m in features if m not in lengths]:
        raise ValueError(f"no lengths for {', '.join(lacking)}")
    return Streams({m: stem(m, x, lengths[m]) for m, x in features.items()}, lengths, config)


def _encoder(config: ModelConfig, width: int, layers: int, source: Modality) -> Encoder:
    chances = config.dropouts
    dropout = BlockDropout(chances.embedding, chances.attention_from(source), chances.relu, chances.residual)
    return Encoder(width, config.heads, layers, config.ffn_ratio, dropout, config.residual)


def _answer(head: Head, summary: Tensor) -> Tensor:
    scores: Tensor = head(summary)
    return scores


def _of(part: Callable[[AblationConfig], Method], target: Modality) -> Callable[[Mapping[Modality, int]], Method]:
    return lambda dims: part(AblationConfig(preset("mult", dims), target))


# The rows of table 4, of the preset `mult`.
ABLATIONS: Mapping[str, Callable[[Mapping[Modality, int]], Method]] = {
    "text_only": _of(Unimodal, "text"),
    "audio_only": _of(Unimodal, "audio"),
    "vision_only": _of(Unimodal, "vision"),
    "to_text": _of(SingleTarget, "text"),  # [V,A -> L]
    "to_vision": _of(SingleTarget, "vision"),  # [L,A -> V]
    "to_audio": _of(SingleTarget, "audio"),  # [L,V -> A]
}
MULT_RECIPE = Recipe(learning_rate=1e-3, batch_size=24, epochs=40, clip_norm=0.8)  # the released code's
